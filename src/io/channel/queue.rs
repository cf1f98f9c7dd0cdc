//! A bounded queue from many tasks to one. Full means wait.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
};

use super::semaphore::{Permit, Semaphore};

struct State<T> {
    room: Semaphore,
    // Each item holds its slot; taking the item out gives the slot to the next who waits.
    items: RefCell<VecDeque<(T, Permit)>>,
    receiver_gone: Cell<bool>,
    senders: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

impl<T> State<T> {
    fn wake_receiver(&self) {
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A queue of at most `capacity` items.
#[must_use]
pub fn queue<T>(capacity: usize) -> (QueueSender<T>, QueueReceiver<T>) {
    let state = Rc::new(State {
        room: Semaphore::new(capacity),
        items: RefCell::default(),
        receiver_gone: Cell::new(false),
        senders: Cell::new(1),
        waker: RefCell::default(),
    });
    (QueueSender { state: state.clone() }, QueueReceiver { state })
}

/// Why an item was not taken, with the item.
#[derive(Debug, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// No room now.
    Full(T),
    /// The receiver is gone.
    Closed(T),
}

/// The sending end; clone it for more senders.
pub struct QueueSender<T> {
    state: Rc<State<T>>,
}

impl<T> QueueSender<T> {
    /// Puts an item into the queue if there is room and nobody waits for it.
    /// # Errors  The item, if the queue is full or the receiver gone.
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        if self.is_closed() {
            return Err(TrySendError::Closed(item));
        }
        match self.state.room.try_acquire(1) {
            Some(slot) => {
                self.push(item, slot);
                Ok(())
            }
            None => Err(TrySendError::Full(item)),
        }
    }

    /// Waits for room, first come first served, then puts the item in.
    /// # Errors  The item, if the receiver is gone.
    #[cfg(test)]
    pub async fn send(&self, item: T) -> Result<(), T> {
        let slot = self.state.room.acquire(1).await;
        if self.is_closed() {
            return Err(item);
        }
        self.push(item, slot);
        Ok(())
    }

    /// Whether the receiver is gone.
    fn is_closed(&self) -> bool {
        self.state.receiver_gone.get()
    }

    fn push(&self, item: T, slot: Permit) {
        self.state.items.borrow_mut().push_back((item, slot));
        self.state.wake_receiver();
    }
}

impl<T> Clone for QueueSender<T> {
    fn clone(&self) -> Self {
        self.state.senders.set(self.state.senders.get() + 1);
        Self { state: self.state.clone() }
    }
}

impl<T> Drop for QueueSender<T> {
    fn drop(&mut self) {
        self.state.senders.set(self.state.senders.get() - 1);
        if self.state.senders.get() == 0 {
            self.state.wake_receiver();
        }
    }
}

/// The receiving end.
pub struct QueueReceiver<T> {
    state: Rc<State<T>>,
}

impl<T> QueueReceiver<T> {
    /// The next item if there is one.
    pub fn try_recv(&mut self) -> Option<T> {
        let next = self.state.items.borrow_mut().pop_front();
        next.map(|(item, _slot)| item)
    }

    /// Waits for the next item; `None` when all senders are gone and the queue is empty.
    pub async fn recv(&mut self) -> Option<T> {
        poll_fn(|context| {
            if let Some(item) = self.try_recv() {
                return Poll::Ready(Some(item));
            }
            if self.state.senders.get() == 0 {
                return Poll::Ready(None);
            }
            *self.state.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl<T> Drop for QueueReceiver<T> {
    fn drop(&mut self) {
        self.state.receiver_gone.set(true);
        // Dropping the items gives their slots to the senders that wait, who then see that the queue is closed.
        // Each of them gives its slot to the next.
        let items = std::mem::take(&mut *self.state.items.borrow_mut());
        drop(items);
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn full_means_wait_and_order_is_kept() {
        let (sender, mut receiver) = queue(2);
        sender.try_send(1).unwrap();
        sender.try_send(2).unwrap();
        assert_eq!(sender.try_send(9), Err(TrySendError::Full(9)));
        let mut third = Box::pin(sender.send(3));
        assert!(block_on(poll_once(&mut third)).is_none());
        assert_eq!(block_on(receiver.recv()), Some(1));
        assert_eq!(sender.try_send(9), Err(TrySendError::Full(9)), "the slot is promised to the one that waits");
        block_on(third).unwrap();
        drop(sender);
        assert_eq!(block_on(receiver.recv()), Some(2));
        assert_eq!(block_on(receiver.recv()), Some(3));
        assert_eq!(block_on(receiver.recv()), None);
    }

    #[test]
    fn a_gone_receiver_is_seen_by_those_who_wait() {
        let (sender, receiver) = queue(1);
        sender.try_send(1).unwrap();
        let mut waits = Box::pin(sender.send(2));
        assert!(block_on(poll_once(&mut waits)).is_none());
        drop(receiver);
        assert_eq!(block_on(waits), Err(2));
        assert_eq!(sender.try_send(3), Err(TrySendError::Closed(3)));
    }
}
