//! The queue from one core to another: a ring of slots with one writer and one reader.
//!
//! Each slot has a lock that nobody ever waits for: the writer touches a slot only before it moves `tail` over it, the
//! reader only afterwards, so at most one of them is at a slot. That buys a queue without unsafe code for about 10 ns.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::io::Instant;

type Slot<M> = Mutex<Option<(Instant, M)>>;

/// A field of its own cache line, since the two cores write different ones.
#[repr(align(128))]
struct Apart<T>(T);

pub(super) struct Pair<M> {
    slots: Box<[Slot<M>]>,
    /// Messages ever taken out; written by the reader.
    head: Apart<AtomicUsize>,
    /// Messages ever put in; written by the writer.
    tail: Apart<AtomicUsize>,
    /// The writer waits for room.
    room_wanted: AtomicBool,
    /// Arrival of the last message, so that none overtakes another (simulator).
    last_arrival: AtomicU64,
}

impl<M> Pair<M> {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            slots: (0..slots).map(|_| Mutex::new(None)).collect(),
            head: Apart(AtomicUsize::new(0)),
            tail: Apart(AtomicUsize::new(0)),
            room_wanted: AtomicBool::new(false),
            last_arrival: AtomicU64::new(0),
        }
    }

    fn slot(&self, number: usize) -> MutexGuard<'_, Option<(Instant, M)>> {
        self.slots[number % self.slots.len()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message in. Only the writing core.
    pub(super) fn push(&self, arrival: Instant, message: M) -> Result<(), M> {
        let tail = self.tail.0.load(Ordering::Relaxed);
        if tail.wrapping_sub(self.head.0.load(Ordering::Acquire)) >= self.slots.len() {
            return Err(message);
        }
        let arrival = arrival.0.max(self.last_arrival.load(Ordering::Relaxed));
        self.last_arrival.store(arrival, Ordering::Relaxed);
        *self.slot(tail) = Some((Instant(arrival), message));
        self.tail.0.store(tail.wrapping_add(1), Ordering::Release);
        Ok(())
    }

    fn len(&self) -> usize {
        self.tail.0.load(Ordering::Acquire).wrapping_sub(self.head.0.load(Ordering::Acquire))
    }

    /// When the first message arrives, if there is one. Only the reading core.
    pub(super) fn arrival(&self) -> Option<Instant> {
        if self.len() == 0 {
            return None;
        }
        self.slot(self.head.0.load(Ordering::Relaxed)).as_ref().map(|(arrival, _)| *arrival)
    }

    /// Takes the first message out. Only the reading core.
    pub(super) fn pop(&self) -> Option<M> {
        if self.len() == 0 {
            return None;
        }
        let head = self.head.0.load(Ordering::Relaxed);
        let message = self.slot(head).take();
        self.head.0.store(head.wrapping_add(1), Ordering::Release);
        message.map(|(_, message)| message)
    }

    /// The writer found no room and asks for the bell. To be followed by one more `push`.
    pub(super) fn want_room(&self) {
        self.room_wanted.store(true, Ordering::SeqCst);
    }

    /// Whether the bell of the writer must ring: it waits, and half of the queue is free, so that one ring is good for
    /// many messages. The writer waits only while the queue is full, so the reader always comes by here.
    pub(super) fn take_room_wanted(&self) -> bool {
        self.len() <= self.slots.len() / 2
            && self.room_wanted.load(Ordering::SeqCst)
            && self.room_wanted.swap(false, Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn full_is_full_and_order_is_kept_across_laps() {
        let pair = Pair::new(3);
        for lap in 0..10 {
            for number in 0..3 {
                pair.push(Instant(0), lap * 3 + number).unwrap();
            }
            assert_eq!(pair.push(Instant(0), -1), Err(-1));
            for number in 0..3 {
                assert_eq!(pair.pop(), Some(lap * 3 + number));
            }
            assert_eq!(pair.pop(), None);
        }
    }

    #[test]
    fn two_threads_see_all_messages_in_order() {
        let pair = Arc::new(Pair::new(8));
        let writer = std::thread::spawn({
            let pair = pair.clone();
            move || {
                for number in 0..20_000u32 {
                    while pair.push(Instant(0), Box::new(number)).is_err() {
                        std::thread::yield_now();
                    }
                }
            }
        });
        for number in 0..20_000u32 {
            let message = loop {
                match pair.pop() {
                    Some(message) => break message,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(*message, number);
        }
        writer.join().unwrap();
        assert_eq!(pair.pop(), None);
    }

    #[test]
    fn a_late_message_delays_those_behind_it() {
        let pair = Pair::new(2);
        pair.push(Instant(50), 1).unwrap();
        pair.push(Instant(10), 2).unwrap();
        assert_eq!(pair.arrival(), Some(Instant(50)));
        pair.pop();
        assert_eq!(pair.arrival(), Some(Instant(50)));
    }
}
