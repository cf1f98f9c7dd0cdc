//! One core's memory for requests that are being received or handled.
//!
//! A request is charged while its bytes arrive and until its reply is known. Three lanes keep clients out of each
//! other's way:
//! - **small**: whole frames that fit into a connection's own buffer. Nobody who has not sent his whole frame holds any.
//! - **shared**: larger frames, charged in doubling steps, so that nobody holds more than twice what he has really sent.
//! - **escape**: room for one frame of the largest size. Whoever waits longest for the shared lane gets it, so that
//!   frames which each hold a part and wait for more can never block each other.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
};

/// The budget of one core, in bytes.
pub struct RequestMemory {
    lanes: RefCell<Lanes>,
    small_bytes: usize,
    frame_bytes_max: usize,
}

struct Lanes {
    small: Lane,
    shared: Lane,
    escape_free: bool,
    last_ticket: u64,
}

struct Lane {
    /// Bytes; below zero for a moment when a connection goes away with an escape that it never used.
    free: isize,
    /// First come, first served. Bounded by the number of connections: each waits for at most one charge.
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    ticket: u64,
    wanted: usize,
    /// What the waiter holds in the shared lane, given back if it gets the escape.
    held: usize,
    granted: Option<LaneName>,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LaneName {
    Small,
    Shared,
    Escape,
}

/// Memory that is accounted for; given back when dropped.
pub struct Charge {
    memory: Rc<RequestMemory>,
    lane: LaneName,
    bytes: usize,
}

impl RequestMemory {
    /// Divides `total` bytes; frames of up to `frame_bytes_max` are possible if the budget allows them at all.
    #[must_use]
    pub fn new(total: usize, frame_bytes_max: usize) -> Rc<Self> {
        let small_bytes = total / 16;
        let escape = (total / 16 * 13).min(frame_bytes_max);
        let lane = |free| Lane { free, waiting: VecDeque::new() };
        let lanes = Lanes {
            small: lane(small_bytes as isize),
            shared: lane((total - small_bytes - escape) as isize),
            escape_free: true,
            last_ticket: 0,
        };
        Rc::new(Self { lanes: RefCell::new(lanes), small_bytes, frame_bytes_max: escape })
    }

    /// The largest frame that can ever be received, in bytes.
    #[must_use]
    pub fn frame_bytes_max(&self) -> usize {
        self.frame_bytes_max
    }

    /// Whether somebody waits for room in the lane of large frames: then those who hold some and send nothing must go.
    #[must_use]
    pub fn contended(&self) -> bool {
        !self.lanes.borrow().shared.waiting.is_empty()
    }

    /// Charges a whole frame that has arrived in a connection's own buffer. Waits for room, first come first served.
    pub async fn small(self: &Rc<Self>, bytes: usize) -> Charge {
        // More than the lane has would wait for ever; the frame lies in the connection's buffer in any case.
        let bytes = bytes.min(self.small_bytes);
        self.wait(LaneName::Small, bytes, 0).await;
        Charge { memory: self.clone(), lane: LaneName::Small, bytes }
    }

    /// An empty charge for a large frame, to be grown while its bytes arrive.
    #[must_use]
    pub fn large(self: &Rc<Self>) -> Charge {
        Charge { memory: self.clone(), lane: LaneName::Shared, bytes: 0 }
    }

    async fn wait(&self, lane: LaneName, wanted: usize, held: usize) -> LaneName {
        let ticket = {
            let mut lanes = self.lanes.borrow_mut();
            lanes.last_ticket += 1;
            let ticket = lanes.last_ticket;
            let waiting = Waiting { ticket, wanted, held, granted: None, waker: None };
            lanes.lane(lane).waiting.push_back(waiting);
            lanes.grant();
            ticket
        };
        let waiter = Waiter { memory: self, lane, ticket };
        poll_fn(|context| waiter.poll(context.waker())).await
    }
}

/// Takes its entry out of the queue however the wait ends.
struct Waiter<'a> {
    memory: &'a RequestMemory,
    lane: LaneName,
    ticket: u64,
}

impl Waiter<'_> {
    fn poll(&self, waker: &Waker) -> Poll<LaneName> {
        let mut lanes = self.memory.lanes.borrow_mut();
        let queue = &mut lanes.lane(self.lane).waiting;
        let at =
            queue.iter().position(|entry| entry.ticket == self.ticket).expect("only this waiter removes its entry");
        match queue[at].granted {
            Some(granted) => {
                queue.remove(at);
                Poll::Ready(granted)
            }
            None => {
                queue[at].waker = Some(waker.clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut lanes = self.memory.lanes.borrow_mut();
        let queue = &mut lanes.lane(self.lane).waiting;
        let Some(at) = queue.iter().position(|entry| entry.ticket == self.ticket) else { return };
        let entry = queue.remove(at).expect("the position was just found");
        // Granted but never collected: the connection has gone in between. Its old share is given back by its charge,
        // which still believes to be in the shared lane.
        match entry.granted {
            Some(LaneName::Small) => lanes.small.free += entry.wanted as isize,
            Some(LaneName::Shared) => lanes.shared.free += entry.wanted as isize,
            Some(LaneName::Escape) => {
                lanes.escape_free = true;
                lanes.shared.free -= entry.held as isize;
            }
            None => {}
        }
        lanes.grant();
    }
}

impl Lanes {
    fn lane(&mut self, name: LaneName) -> &mut Lane {
        match name {
            LaneName::Small => &mut self.small,
            LaneName::Shared | LaneName::Escape => &mut self.shared,
        }
    }

    /// Serves the queues from their heads, as far as there is room.
    fn grant(&mut self) {
        while let Some(entry) = self.small.waiting.iter_mut().find(|entry| entry.granted.is_none()) {
            if self.small.free < entry.wanted as isize {
                break;
            }
            self.small.free -= entry.wanted as isize;
            entry.grant(LaneName::Small);
        }
        while let Some(entry) = self.shared.waiting.iter_mut().find(|entry| entry.granted.is_none()) {
            if self.shared.free >= entry.wanted as isize {
                self.shared.free -= entry.wanted as isize;
                entry.grant(LaneName::Shared);
            } else if self.escape_free {
                self.escape_free = false;
                self.shared.free += entry.held as isize;
                entry.grant(LaneName::Escape);
            } else {
                break;
            }
        }
    }
}

impl Waiting {
    fn grant(&mut self, lane: LaneName) {
        self.granted = Some(lane);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Charge {
    /// Raises the charge to `bytes`, which is at most [`RequestMemory::frame_bytes_max`]. Waits for room.
    /// If the caller gives up while waiting, the charge stays what it was.
    pub async fn grow_to(&mut self, bytes: usize) {
        assert!(bytes <= self.memory.frame_bytes_max, "a frame above the maximum must be refused, not received");
        if bytes <= self.bytes {
            return;
        }
        match self.lane {
            // The escape holds room for the largest frame from the beginning.
            LaneName::Escape => {}
            LaneName::Shared => {
                let memory = self.memory.clone();
                self.lane = memory.wait(LaneName::Shared, bytes - self.bytes, self.bytes).await;
            }
            LaneName::Small => unreachable!("a small frame is whole when it is charged"),
        }
        self.bytes = bytes;
    }

    /// The bytes charged.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut lanes = self.memory.lanes.borrow_mut();
        match self.lane {
            LaneName::Small => lanes.small.free += self.bytes as isize,
            LaneName::Shared => lanes.shared.free += self.bytes as isize,
            LaneName::Escape => lanes.escape_free = true,
        }
        lanes.grant();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};

    use futures_lite::future::{block_on, poll_once};

    use super::*;

    const KIB: usize = 1024;

    /// 4 KiB small, 8 KiB shared, 52 KiB escape.
    fn budget() -> Rc<RequestMemory> {
        RequestMemory::new(64 * KIB, 52 * KIB)
    }

    fn poll<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
        block_on(poll_once(future))
    }

    #[test]
    fn large_frames_that_wait_for_more_never_block_each_other() {
        let memory = budget();
        let mut charges: Vec<Charge> = (0..4).map(|_| memory.large()).collect();
        for charge in &mut charges {
            block_on(charge.grow_to(2 * KIB));
        }
        // All room is held in parts and everybody wants more: the first gets the escape and frees its part for the second.
        let mut fourth = charges.pop().expect("four");
        let mut third = charges.pop().expect("three");
        let mut second = charges.pop().expect("two");
        let mut first = charges.pop().expect("one");
        {
            let mut growing = pin!(first.grow_to(50 * KIB));
            assert!(poll(growing.as_mut()).is_some());
        }
        {
            let mut growing = pin!(second.grow_to(4 * KIB));
            assert!(poll(growing.as_mut()).is_some());
        }
        {
            let mut waits = pin!(third.grow_to(4 * KIB));
            assert!(poll(waits.as_mut()).is_none());
            assert!(memory.contended());
            let mut behind = pin!(fourth.grow_to(3 * KIB));
            assert!(poll(behind.as_mut()).is_none(), "nobody overtakes");
            drop(first);
            assert!(poll(waits.as_mut()).is_some());
            assert!(poll(behind.as_mut()).is_some());
        }
        assert!(!memory.contended());
        drop((second, third, fourth));
        let lanes = memory.lanes.borrow();
        assert_eq!((lanes.small.free, lanes.shared.free, lanes.escape_free), (4 << 10, 8 << 10, true));
    }

    #[test]
    fn small_frames_do_not_wait_for_large_ones() {
        let memory = budget();
        let mut large = memory.large();
        block_on(large.grow_to(8 * KIB));
        let mut largest = memory.large();
        block_on(largest.grow_to(52 * KIB));
        let mut third = memory.large();
        assert!(poll(pin!(third.grow_to(1))).is_none());
        let small = poll(pin!(memory.small(4 * KIB))).expect("its own lane");
        let mut next = pin!(memory.small(1));
        assert!(poll(next.as_mut()).is_none());
        drop(small);
        assert!(poll(next.as_mut()).is_some());
    }

    #[test]
    fn giving_up_gives_everything_back() {
        let memory = budget();
        let mut holder = memory.large();
        block_on(holder.grow_to(7 * KIB));
        let mut escape = memory.large();
        block_on(escape.grow_to(10 * KIB));
        let mut given_up = memory.large();
        block_on(given_up.grow_to(KIB));
        for release_first in [false, true] {
            let mut waits = Box::pin(given_up.grow_to(40 * KIB));
            assert!(poll(waits.as_mut()).is_none());
            if release_first {
                // Granted the escape, but dropped before it looks again.
                drop(std::mem::replace(&mut escape, memory.large()));
            }
            drop(waits);
            assert_eq!(given_up.bytes(), KIB);
        }
        drop((holder, escape, given_up));
        let lanes = memory.lanes.borrow();
        assert_eq!((lanes.shared.free, lanes.escape_free, lanes.shared.waiting.len()), (8 << 10, true, 0));
    }
}
