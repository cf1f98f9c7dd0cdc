//! The queue from one core to another: a ring with one writer and one reader, `rtrb`'s. And a core's queue to itself, which
//! nobody else sees.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rtrb::{Consumer, Producer, PushError, RingBuffer};

use crate::io::Instant;

/// A message and when it arrives (simulator).
pub(super) type Timed<M> = (Instant, M);

/// The writing core's end.
pub(super) struct Sender<M> {
    ring: Producer<Timed<M>>,
    /// Arrival of the last message, so that none overtakes another (simulator).
    last_arrival: Instant,
    /// The writer waits for room.
    room_wanted: Arc<AtomicBool>,
}

/// The reading core's end.
pub(super) struct Receiver<M> {
    ring: Consumer<Timed<M>>,
    room_wanted: Arc<AtomicBool>,
}

pub(super) fn pair<M>(slots: usize) -> (Sender<M>, Receiver<M>) {
    let (producer, consumer) = RingBuffer::new(slots);
    let room_wanted = Arc::new(AtomicBool::new(false));
    let sender = Sender { ring: producer, last_arrival: Instant(0), room_wanted: room_wanted.clone() };
    (sender, Receiver { ring: consumer, room_wanted })
}

impl<M> Sender<M> {
    /// Puts a message in.
    pub(super) fn push(&mut self, arrival: Instant, message: M) -> Result<(), M> {
        let arrival = arrival.max(self.last_arrival);
        match self.ring.push((arrival, message)) {
            Ok(()) => {
                self.last_arrival = arrival;
                Ok(())
            }
            Err(PushError::Full((_, message))) => Err(message),
        }
    }

    /// The writer found no room and asks for the bell. To be followed by one more `push`.
    pub(super) fn want_room(&self) {
        self.room_wanted.store(true, Ordering::SeqCst);
    }
}

impl<M> Receiver<M> {
    /// When the first message arrives, if there is one.
    pub(super) fn arrival(&self) -> Option<Instant> {
        self.ring.peek().ok().map(|(arrival, _)| *arrival)
    }

    /// Takes the first message out.
    pub(super) fn pop(&mut self) -> Option<M> {
        self.ring.pop().ok().map(|(_, message)| message)
    }

    /// Whether the bell of the writer must ring: it waits, and half of the queue is free, so that one ring is good for
    /// many messages. The writer waits only while the queue is full, so the reader always comes by here.
    pub(super) fn take_room_wanted(&self) -> bool {
        self.room_wanted.load(Ordering::SeqCst)
            && self.ring.slots() <= self.ring.buffer().capacity() / 2
            && self.room_wanted.swap(false, Ordering::SeqCst)
    }
}

/// A core's messages to itself. As bounded as the others.
pub(super) struct Own<M> {
    queue: VecDeque<Timed<M>>,
    slots: usize,
    last_arrival: Instant,
    room_wanted: bool,
}

impl<M> Own<M> {
    pub(super) fn new(slots: usize) -> Self {
        Self { queue: VecDeque::new(), slots, last_arrival: Instant(0), room_wanted: false }
    }

    pub(super) fn push(&mut self, arrival: Instant, message: M) -> Result<(), M> {
        if self.queue.len() >= self.slots {
            return Err(message);
        }
        self.last_arrival = self.last_arrival.max(arrival);
        self.queue.push_back((self.last_arrival, message));
        Ok(())
    }

    pub(super) fn arrival(&self) -> Option<Instant> {
        self.queue.front().map(|(arrival, _)| *arrival)
    }

    pub(super) fn pop(&mut self) -> Option<M> {
        self.queue.pop_front().map(|(_, message)| message)
    }

    pub(super) fn want_room(&mut self) {
        self.room_wanted = true;
    }

    pub(super) fn take_room_wanted(&mut self) -> bool {
        self.queue.len() <= self.slots / 2 && std::mem::take(&mut self.room_wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_is_full_and_order_is_kept_across_laps() {
        let (mut sender, mut receiver) = pair(3);
        let mut own = Own::new(3);
        for lap in 0..10 {
            for number in 0..3 {
                sender.push(Instant(0), lap * 3 + number).unwrap();
                own.push(Instant(0), lap * 3 + number).unwrap();
            }
            assert_eq!((sender.push(Instant(0), -1), own.push(Instant(0), -1)), (Err(-1), Err(-1)));
            for number in 0..3 {
                let expected = Some(lap * 3 + number);
                assert_eq!((receiver.pop(), own.pop()), (expected, expected));
            }
            assert_eq!((receiver.pop(), own.pop()), (None, None));
        }
    }

    #[test]
    fn who_waits_for_room_is_told_when_half_is_free() {
        let (mut sender, mut receiver) = pair(4);
        let mut own = Own::new(4);
        for number in 0..4 {
            sender.push(Instant(0), number).unwrap();
            own.push(Instant(0), number).unwrap();
        }
        assert!(!receiver.take_room_wanted() && !own.take_room_wanted(), "nobody waits");
        sender.want_room();
        own.want_room();
        let mut told = Vec::new();
        for _ in 0..3 {
            receiver.pop();
            own.pop();
            told.push((receiver.take_room_wanted(), own.take_room_wanted()));
        }
        assert_eq!(told, [(false, false), (true, true), (false, false)]);
    }

    #[test]
    fn two_threads_see_all_messages_in_order() {
        let (mut sender, mut receiver) = pair(8);
        let writer = std::thread::spawn(move || {
            for number in 0..20_000u32 {
                let mut message = Box::new(number);
                while let Err(back) = sender.push(Instant(0), message) {
                    message = back;
                    std::thread::yield_now();
                }
            }
        });
        for number in 0..20_000u32 {
            let message = loop {
                match receiver.pop() {
                    Some(message) => break message,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(*message, number);
        }
        writer.join().unwrap();
        assert_eq!(receiver.pop(), None);
    }

    #[test]
    fn a_late_message_delays_those_behind_it() {
        let (mut sender, mut receiver) = pair(2);
        let mut own = Own::new(2);
        for (arrival, number) in [(50, 1), (10, 2)] {
            sender.push(Instant(arrival), number).unwrap();
            own.push(Instant(arrival), number).unwrap();
        }
        assert_eq!((receiver.arrival(), own.arrival()), (Some(Instant(50)), Some(Instant(50))));
        receiver.pop();
        own.pop();
        assert_eq!((receiver.arrival(), own.arrival()), (Some(Instant(50)), Some(Instant(50))));
    }
}
