//! Accepted connections on their way to another core. Seldom used, so a lock does.

use std::{
    collections::VecDeque,
    future::poll_fn,
    mem,
    sync::{Arc, Mutex, PoisonError},
    task::{Poll, Waker},
};

/// One core's incoming things. Filled by any core, emptied by its own. Bounded by what is sent through it: connections
/// that hold a ticket.
pub struct Mailbox<T>(Arc<Mutex<Inner<T>>>);

struct Inner<T> {
    items: VecDeque<T>,
    waker: Option<Waker>,
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Inner { items: VecDeque::new(), waker: None })))
    }
}

impl<T> Mailbox<T> {
    /// Puts an item in.
    pub fn put(&self, item: T) {
        let waker = {
            let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            inner.items.push_back(item);
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes all items out; waits until there is one. One task waits.
    pub async fn take(&self) -> VecDeque<T> {
        poll_fn(|context| {
            let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if !inner.items.is_empty() {
                return Poll::Ready(mem::take(&mut inner.items));
            }
            inner.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}
