//! One value from one task to another.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

struct State<T> {
    value: Option<T>,
    sender_gone: bool,
    receiver_gone: bool,
    waker: Option<Waker>,
}

/// A pair that carries one value.
#[must_use]
pub fn oneshot<T>() -> (OneshotSender<T>, OneshotReceiver<T>) {
    let state = State { value: None, sender_gone: false, receiver_gone: false, waker: None };
    let state = Rc::new(RefCell::new(state));
    (OneshotSender { state: state.clone() }, OneshotReceiver { state })
}

/// The sending end.
pub struct OneshotSender<T> {
    state: Rc<RefCell<State<T>>>,
}

impl<T> OneshotSender<T> {
    /// Hands the value over; never waits.
    /// # Errors  The value, if the receiver is gone.
    pub fn send(self, value: T) -> Result<(), T> {
        let mut state = self.state.borrow_mut();
        if state.receiver_gone {
            return Err(value);
        }
        state.value = Some(value);
        Ok(())
        // The drop that follows wakes the receiver.
    }
}

impl<T> Drop for OneshotSender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.state.borrow_mut();
            state.sender_gone = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The receiving end: a future of the value, or of `None` if the sender was dropped without sending.
pub struct OneshotReceiver<T> {
    state: Rc<RefCell<State<T>>>,
}

impl<T> OneshotReceiver<T> {
    /// The value, if it is there already.
    pub fn try_recv(&mut self) -> Option<T> {
        self.state.borrow_mut().value.take()
    }
}

impl<T> Future for OneshotReceiver<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.state.borrow_mut();
        if let Some(value) = state.value.take() {
            return Poll::Ready(Some(value));
        }
        if state.sender_gone {
            return Poll::Ready(None);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for OneshotReceiver<T> {
    fn drop(&mut self) {
        let (value, waker) = {
            let mut state = self.state.borrow_mut();
            state.receiver_gone = true;
            (state.value.take(), state.waker.take())
        };
        drop((value, waker));
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn a_value_arrives_once_and_a_dropped_sender_is_seen() {
        let (sender, mut receiver) = oneshot();
        assert!(block_on(poll_once(&mut receiver)).is_none());
        sender.send(7).unwrap();
        assert_eq!(block_on(receiver), Some(7));

        let (sender, receiver) = oneshot::<u8>();
        drop(sender);
        assert_eq!(block_on(receiver), None);

        let (sender, receiver) = oneshot();
        drop(receiver);
        assert_eq!(sender.send(1), Err(1));
    }
}
