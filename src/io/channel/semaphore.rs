//! A budget that is handed out first come, first served: permits, or bytes.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

struct State {
    total: usize,
    available: Cell<usize>,
    waiting: RefCell<VecDeque<Rc<Waiter>>>,
}

struct Waiter {
    amount: usize,
    granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// A budget. Strictly FIFO: a small request waits behind a large one that came first, so that nobody starves.
/// Cheap to clone; all clones are the same budget.
#[derive(Clone)]
pub struct Semaphore(Rc<State>);

impl Semaphore {
    /// A budget of `total`.
    #[must_use]
    pub fn new(total: usize) -> Self {
        Self(Rc::new(State { total, available: Cell::new(total), waiting: RefCell::default() }))
    }

    /// Takes `amount` at once, if it is free and nobody waits.
    #[must_use]
    pub fn try_acquire(&self, amount: usize) -> Option<Permit> {
        if !self.0.waiting.borrow().is_empty() || self.0.available.get() < amount {
            return None;
        }
        self.0.available.set(self.0.available.get() - amount);
        Some(Permit { state: self.0.clone(), amount })
    }

    /// Waits for `amount`; its place in the queue is taken at the first poll. Dropping the future gives the place up.
    /// # Panics
    /// If `amount` is more than the whole budget: it would wait for ever, so callers cut it down first.
    pub fn acquire(&self, amount: usize) -> Acquire {
        assert!(amount <= self.0.total, "asked for {amount} of a budget of {}", self.0.total);
        Acquire { state: self.0.clone(), amount, waiter: None, done: false }
    }
}

impl State {
    fn release(&self, amount: usize) {
        self.available.set(self.available.get() + amount);
        self.grant();
    }

    /// Serves the queue from its head for as long as the next one fits.
    fn grant(&self) {
        loop {
            let waiter = {
                let mut waiting = self.waiting.borrow_mut();
                match waiting.front() {
                    Some(first) if first.amount <= self.available.get() => waiting.pop_front(),
                    Some(_) | None => None,
                }
            };
            let Some(waiter) = waiter else { return };
            self.available.set(self.available.get() - waiter.amount);
            waiter.granted.set(true);
            let waker = waiter.waker.borrow_mut().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// Waits for a share of a budget; see [`Semaphore::acquire`].
pub struct Acquire {
    state: Rc<State>,
    amount: usize,
    waiter: Option<Rc<Waiter>>,
    done: bool,
}

impl Future for Acquire {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Permit> {
        match &self.waiter {
            None => {
                let free = self.state.waiting.borrow().is_empty() && self.state.available.get() >= self.amount;
                if !free {
                    let waker = RefCell::new(Some(context.waker().clone()));
                    let waiter = Rc::new(Waiter { amount: self.amount, granted: Cell::new(false), waker });
                    self.state.waiting.borrow_mut().push_back(waiter.clone());
                    self.waiter = Some(waiter);
                    return Poll::Pending;
                }
                self.state.available.set(self.state.available.get() - self.amount);
            }
            Some(waiter) if !waiter.granted.get() => {
                *waiter.waker.borrow_mut() = Some(context.waker().clone());
                return Poll::Pending;
            }
            Some(_) => {}
        }
        self.done = true;
        Poll::Ready(Permit { state: self.state.clone(), amount: self.amount })
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter.take() else { return };
        if self.done {
            return;
        }
        if waiter.granted.get() {
            return self.state.release(self.amount);
        }
        self.state.waiting.borrow_mut().retain(|other| !Rc::ptr_eq(other, &waiter));
        // The one that gave up may have been the large request at the head that the others waited behind.
        self.state.grant();
    }
}

/// A share of a budget; goes back when dropped.
pub struct Permit {
    state: Rc<State>,
    amount: usize,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.state.release(self.amount);
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    /// What would be had at once.
    fn available(budget: &Semaphore) -> usize {
        (1..=budget.0.total).rev().find(|amount| block_on(poll_once(budget.acquire(*amount))).is_some()).unwrap_or(0)
    }

    #[test]
    fn first_come_first_served_even_if_the_second_would_fit() {
        let budget = Semaphore::new(10);
        let held = block_on(budget.acquire(8));
        let mut large = budget.acquire(5);
        assert!(block_on(poll_once(&mut large)).is_none());
        let mut small = budget.acquire(1);
        assert!(block_on(poll_once(&mut small)).is_none());
        drop(held);
        let both = (block_on(large), block_on(small));
        assert_eq!(available(&budget), 4);
        drop(both);
        assert_eq!(available(&budget), 10);
    }

    #[test]
    fn who_gives_up_blocks_nobody_and_keeps_nothing() {
        let budget = Semaphore::new(4);
        let held = block_on(budget.acquire(2));
        let mut large = budget.acquire(4);
        let mut small = budget.acquire(1);
        assert!(block_on(poll_once(&mut large)).is_none());
        assert!(block_on(poll_once(&mut small)).is_none());
        drop(large);
        assert!(block_on(poll_once(&mut small)).is_some(), "the head of the queue has gone");

        let mut granted = budget.acquire(3);
        assert!(block_on(poll_once(&mut granted)).is_none());
        drop(held);
        drop(granted);
        assert_eq!(available(&budget), 4, "granted, never polled again, given back");
    }
}
