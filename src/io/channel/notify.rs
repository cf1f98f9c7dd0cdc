//! Tell all who wait that something changed.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

#[derive(Default)]
struct State {
    generation: Cell<u64>,
    next_waiter: Cell<u64>,
    // Ordered, so that waiters are woken in the order in which they came.
    waiters: RefCell<BTreeMap<u64, Waker>>,
}

/// A bell: everybody who waits when it rings is woken. Cheap to clone.
#[derive(Clone, Default)]
pub struct Notify(Rc<State>);

impl Notify {
    /// A bell nobody waits for.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes all who wait now; those who come later wait for the next ring.
    pub fn notify_all(&self) {
        self.0.generation.set(self.0.generation.get() + 1);
        let waiters = std::mem::take(&mut *self.0.waiters.borrow_mut());
        waiters.into_values().for_each(Waker::wake);
    }

    /// Resolves at the first ring after this call (not after its first poll): look at the state after making it.
    #[must_use]
    pub fn notified(&self) -> Notified {
        Notified { state: self.0.clone(), seen: self.0.generation.get(), waiter: None }
    }

    /// How many wait.
    #[cfg(test)]
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.waiters.borrow().len()
    }
}

/// Waits for one ring; see [`Notify::notified`].
pub struct Notified {
    state: Rc<State>,
    seen: u64,
    waiter: Option<u64>,
}

impl Future for Notified {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.state.generation.get() != self.seen {
            return Poll::Ready(());
        }
        let waiter = self.waiter.unwrap_or_else(|| {
            let waiter = self.state.next_waiter.get();
            self.state.next_waiter.set(waiter + 1);
            waiter
        });
        self.waiter = Some(waiter);
        self.state.waiters.borrow_mut().insert(waiter, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Notified {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter {
            let waker = self.state.waiters.borrow_mut().remove(&waiter);
            drop(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn a_ring_wakes_those_who_came_before_it() {
        let bell = Notify::new();
        let mut early = bell.notified();
        assert!(block_on(poll_once(&mut early)).is_none());
        assert_eq!(bell.waiting(), 1);
        let never_polled = bell.notified();
        bell.notify_all();
        let mut late = bell.notified();
        block_on(early);
        block_on(never_polled);
        assert!(block_on(poll_once(&mut late)).is_none());
        drop(late);
        assert_eq!(bell.waiting(), 0, "who gives up leaves nothing behind");
    }
}
