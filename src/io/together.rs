//! Waiting for several futures at once, within one task.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
};

/// What the first of two futures gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Either<L, R> {
    /// The first one was ready (it wins when both are).
    Left(L),
    /// The second one was ready.
    Right(R),
}

/// Waits for the first of two futures and drops the other.
pub async fn either<L, R>(left: impl Future<Output = L>, right: impl Future<Output = R>) -> Either<L, R> {
    let (mut left, mut right) = (pin!(left), pin!(right));
    poll_fn(|context| {
        if let Poll::Ready(value) = left.as_mut().poll(context) {
            return Poll::Ready(Either::Left(value));
        }
        right.as_mut().poll(context).map(Either::Right)
    })
    .await
}

enum Slot<F: Future> {
    Running(Pin<Box<F>>),
    Done(F::Output),
}

/// Waits for all futures; values in the order of the futures. Each wake-up polls all that are unfinished, so it is for
/// tens of futures (the parts of one request), not for thousands.
pub async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut slots: Vec<Slot<F>> = futures.into_iter().map(|future| Slot::Running(Box::pin(future))).collect();
    poll_fn(|context| {
        let mut running = 0;
        for slot in &mut slots {
            if let Slot::Running(future) = slot {
                match future.as_mut().poll(context) {
                    Poll::Ready(value) => *slot = Slot::Done(value),
                    Poll::Pending => running += 1,
                }
            }
        }
        if running == 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let done = slots.into_iter().map(|slot| match slot {
        Slot::Done(value) => value,
        Slot::Running(_) => unreachable!("all futures have finished"),
    });
    done.collect()
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, pending, yield_now};

    use super::*;

    #[test]
    fn all_are_waited_for_in_order() {
        let futures = (0..5).map(|number| async move {
            for _ in number..5 {
                yield_now().await;
            }
            number
        });
        assert_eq!(block_on(join_all(futures)), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn the_first_wins() {
        assert_eq!(block_on(either(pending::<u8>(), async { 2 })), Either::Right(2));
        assert_eq!(block_on(either(async { 1 }, async { 2 })), Either::Left(1));
    }
}
