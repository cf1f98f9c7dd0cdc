//! Tasks that sleep.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use super::Ring;
use crate::io::Instant;

/// By deadline, and by who came first.
#[derive(Default)]
pub(super) struct Timers {
    sleepers: RefCell<BTreeMap<(Instant, u64), Waker>>,
    next: Cell<u64>,
}

impl Timers {
    /// When the first of them is to be woken.
    pub(super) fn first(&self) -> Option<Instant> {
        self.sleepers.borrow().first_key_value().map(|((deadline, _), _)| *deadline)
    }

    /// Wakes all whose time has come. Whether there were any.
    pub(super) fn fire(&self, now: Instant) -> bool {
        let mut fired = false;
        while self.first().is_some_and(|deadline| deadline <= now) {
            let sleeper = self.sleepers.borrow_mut().pop_first();
            if let Some((_, waker)) = sleeper {
                waker.wake();
                fired = true;
            }
        }
        fired
    }
}

/// Sleeps until a deadline.
pub(in crate::io) struct Sleep {
    ring: Ring,
    deadline: Instant,
    key: Option<u64>,
}

impl Sleep {
    pub(super) fn new(ring: Ring, deadline: Instant) -> Self {
        Self { ring, deadline, key: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let ring = self.ring.clone();
        let timers = ring.timers();
        let Some(key) = self.key else {
            let key = timers.next.get();
            timers.next.set(key + 1);
            self.key = Some(key);
            timers.sleepers.borrow_mut().insert((self.deadline, key), context.waker().clone());
            return Poll::Pending;
        };
        match timers.sleepers.borrow_mut().get_mut(&(self.deadline, key)) {
            // Fired.
            None => Poll::Ready(()),
            Some(waker) => {
                waker.clone_from(context.waker());
                Poll::Pending
            }
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let left = self.ring.timers().sleepers.borrow_mut().remove(&(self.deadline, key));
            drop(left);
        }
    }
}
