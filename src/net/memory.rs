//! Memory for requests that are being received or handled.
//!
//! A request is charged while its bytes arrive and until its reply is known. Three lanes keep clients out of each
//! other's way:
//! - **small**, one a core: whole frames that fit into a connection's own buffer. Nobody who has not sent his whole frame
//!   holds any.
//! - **shared**, one for all cores: larger frames, charged in doubling steps, so that nobody holds more than twice what he
//!   has really sent.
//! - **escape**, one for all cores: room for one frame of the largest size. Whoever waits longest for the shared lane gets
//!   it, so that frames which each hold a part and wait for more can never block each other.
//!
//! Large frames share one budget, since a core's part of it would be less than the largest request that the settings
//! allow. Its lock is taken a few times for each of them and never held over anything that waits.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::poll_fn,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

/// Of the memory for large frames, the most that the escape takes: the rest is shared.
const ESCAPE_TENTHS_MAX: usize = 9;

/// The budget of all cores for large frames.
#[derive(Debug)]
pub struct LargeRequests {
    lanes: Mutex<Lanes>,
    total: usize,
    frame_bytes_max: usize,
}

/// The budget of one core.
pub struct RequestMemory {
    small: RefCell<Lane>,
    small_bytes: usize,
    large: Arc<LargeRequests>,
}

#[derive(Debug)]
struct Lanes {
    shared: Lane,
    escape_free: bool,
}

#[derive(Debug)]
struct Lane {
    /// Bytes; below zero for a moment when a connection goes away with an escape that it never used.
    free: isize,
    /// First come, first served. Bounded by the number of connections: each waits for at most one charge.
    waiting: VecDeque<Waiting>,
    last_ticket: u64,
}

#[derive(Debug)]
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

/// Which of the budgets a request is charged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// The core's own.
    Small,
    /// The broker's.
    Large,
}

/// A moment in the queues of a core's memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Queued {
    small: u64,
    large: u64,
}

/// Those who have been granted something: woken when no lock is held any more.
type Woken = Vec<Waker>;

/// Memory that is accounted for; given back when dropped.
pub struct Charge {
    memory: Rc<RequestMemory>,
    lane: LaneName,
    bytes: usize,
}

impl LargeRequests {
    /// Divides `total` bytes; frames of up to `frame_bytes_max` are possible if the budget allows them at all.
    #[must_use]
    pub fn new(total: usize, frame_bytes_max: usize) -> Arc<Self> {
        let escape = (total / 10 * ESCAPE_TENTHS_MAX).min(frame_bytes_max);
        let lanes = Lanes { shared: Lane::new(total - escape), escape_free: true };
        Arc::new(Self { lanes: Mutex::new(lanes), total, frame_bytes_max: escape })
    }

    /// The largest frame that can ever be received, in bytes.
    #[must_use]
    pub fn frame_bytes_max(&self) -> usize {
        self.frame_bytes_max
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RequestMemory {
    /// A core's budget: `small_bytes` of its own, and what all share.
    #[must_use]
    pub fn new(small_bytes: usize, large: Arc<LargeRequests>) -> Rc<Self> {
        Rc::new(Self { small: RefCell::new(Lane::new(small_bytes)), small_bytes, large })
    }

    /// The largest frame that can ever be received, in bytes.
    #[must_use]
    pub fn frame_bytes_max(&self) -> usize {
        self.large.frame_bytes_max
    }

    /// The whole budget for large frames, in bytes.
    #[must_use]
    pub fn large_total(&self) -> usize {
        self.large.total
    }

    /// The place in both queues that whoever joins from now on comes behind.
    #[must_use]
    pub fn queued(&self) -> Queued {
        Queued { small: self.small.borrow().last_ticket, large: self.large.lock().shared.last_ticket }
    }

    /// Whether somebody waits still who had joined a queue by then.
    #[must_use]
    pub fn waits_since(&self, earlier: Queued, kind: RequestKind) -> bool {
        match kind {
            RequestKind::Small => self.small.borrow().waits_since(earlier.small),
            RequestKind::Large => self.large.lock().shared.waits_since(earlier.large),
        }
    }

    /// Whether somebody waits for room in the lane of large frames: then those who hold some and send nothing must go.
    #[must_use]
    pub fn contended(&self) -> bool {
        !self.large.lock().shared.waiting.is_empty()
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
        let ticket = self.change(lane, |queue| queue.join(wanted, held));
        let waiter = Waiter { memory: self, lane, ticket };
        poll_fn(|context| waiter.poll(context.waker())).await
    }

    /// Changes a lane, then serves its queue from the head, as far as there is room.
    fn change<T>(&self, lane: LaneName, change: impl FnOnce(&mut Lane) -> T) -> T {
        match lane {
            LaneName::Small => self.change_small(change),
            LaneName::Shared | LaneName::Escape => self.change_large(|lanes| change(&mut lanes.shared)),
        }
    }

    fn change_small<T>(&self, change: impl FnOnce(&mut Lane) -> T) -> T {
        let (changed, woken) = {
            let mut small = self.small.borrow_mut();
            let changed = change(&mut small);
            (changed, small.grant_small())
        };
        woken.into_iter().for_each(Waker::wake);
        changed
    }

    fn change_large<T>(&self, change: impl FnOnce(&mut Lanes) -> T) -> T {
        let (changed, woken) = {
            let mut lanes = self.large.lock();
            let changed = change(&mut lanes);
            (changed, lanes.grant_large())
        };
        woken.into_iter().for_each(Waker::wake);
        changed
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
        match self.lane {
            LaneName::Small => self.memory.small.borrow_mut().collect(self.ticket, waker),
            LaneName::Shared | LaneName::Escape => self.memory.large.lock().shared.collect(self.ticket, waker),
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        // Granted but never collected: the connection has gone in between. Its old share is given back by its charge,
        // which still believes to be in the shared lane.
        match self.lane {
            LaneName::Small => self.memory.change_small(|small| {
                if let Some(entry) = small.leave(self.ticket)
                    && entry.granted.is_some()
                {
                    small.free += entry.wanted as isize;
                }
            }),
            LaneName::Shared | LaneName::Escape => self.memory.change_large(|lanes| {
                let Some(entry) = lanes.shared.leave(self.ticket) else { return };
                match entry.granted {
                    Some(LaneName::Escape) => {
                        lanes.escape_free = true;
                        lanes.shared.free -= entry.held as isize;
                    }
                    Some(LaneName::Small | LaneName::Shared) => lanes.shared.free += entry.wanted as isize,
                    None => {}
                }
            }),
        }
    }
}

impl Lane {
    fn new(free: usize) -> Self {
        Self { free: free as isize, waiting: VecDeque::new(), last_ticket: 0 }
    }

    /// Tickets are given in order, so whoever waits longest has the smallest one.
    fn waits_since(&self, ticket: u64) -> bool {
        self.waiting.iter().find(|entry| entry.granted.is_none()).is_some_and(|entry| entry.ticket <= ticket)
    }

    fn join(&mut self, wanted: usize, held: usize) -> u64 {
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        self.waiting.push_back(Waiting { ticket, wanted, held, granted: None, waker: None });
        ticket
    }

    fn leave(&mut self, ticket: u64) -> Option<Waiting> {
        let at = self.waiting.iter().position(|entry| entry.ticket == ticket)?;
        self.waiting.remove(at)
    }

    /// What was granted under that ticket, which is used up with it.
    fn collect(&mut self, ticket: u64, waker: &Waker) -> Poll<LaneName> {
        let at =
            self.waiting.iter().position(|entry| entry.ticket == ticket).expect("only its waiter removes the entry");
        match self.waiting[at].granted {
            Some(granted) => {
                self.waiting.remove(at);
                Poll::Ready(granted)
            }
            None => {
                self.waiting[at].waker = Some(waker.clone());
                Poll::Pending
            }
        }
    }

    fn grant_small(&mut self) -> Woken {
        let mut woken = Woken::new();
        while let Some(entry) = self.waiting.iter_mut().find(|entry| entry.granted.is_none()) {
            if self.free < entry.wanted as isize {
                break;
            }
            self.free -= entry.wanted as isize;
            woken.extend(entry.grant(LaneName::Small));
        }
        woken
    }
}

impl Lanes {
    fn grant_large(&mut self) -> Woken {
        let mut woken = Woken::new();
        let shared = &mut self.shared;
        while let Some(entry) = shared.waiting.iter_mut().find(|entry| entry.granted.is_none()) {
            if shared.free >= entry.wanted as isize {
                shared.free -= entry.wanted as isize;
                woken.extend(entry.grant(LaneName::Shared));
            } else if self.escape_free {
                self.escape_free = false;
                shared.free += entry.held as isize;
                woken.extend(entry.grant(LaneName::Escape));
            } else {
                break;
            }
        }
        woken
    }
}

impl Waiting {
    fn grant(&mut self, lane: LaneName) -> Option<Waker> {
        self.granted = Some(lane);
        self.waker.take()
    }
}

impl Charge {
    /// Raises the charge to `bytes`, which is at most [`RequestMemory::frame_bytes_max`]. Waits for room.
    /// If the caller gives up while waiting, the charge stays what it was.
    pub async fn grow_to(&mut self, bytes: usize) {
        assert!(bytes <= self.memory.frame_bytes_max(), "a frame above the maximum must be refused, not received");
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

    /// The budget that it is charged to.
    #[must_use]
    pub fn kind(&self) -> RequestKind {
        match self.lane {
            LaneName::Small => RequestKind::Small,
            LaneName::Shared | LaneName::Escape => RequestKind::Large,
        }
    }

    /// The bytes charged.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let bytes = self.bytes as isize;
        match self.lane {
            LaneName::Small => self.memory.change_small(|small| small.free += bytes),
            // A large frame that never grew holds nothing.
            LaneName::Shared if bytes == 0 => {}
            LaneName::Shared => self.memory.change_large(|lanes| lanes.shared.free += bytes),
            LaneName::Escape => self.memory.change_large(|lanes| lanes.escape_free = true),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};

    use futures_lite::future::{block_on, poll_once};

    use super::*;

    const KIB: usize = 1024;

    /// 4 KiB small, 8 KiB shared, 8 KiB escape.
    fn budget() -> Rc<RequestMemory> {
        RequestMemory::new(4 * KIB, LargeRequests::new(16 * KIB, 8 * KIB))
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
            let mut growing = pin!(first.grow_to(7 * KIB));
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
        let lanes = memory.large.lock();
        assert_eq!((memory.small.borrow().free, lanes.shared.free, lanes.escape_free), (4 << 10, 8 << 10, true));
    }

    #[test]
    fn small_frames_do_not_wait_for_large_ones() {
        let memory = budget();
        let mut large = memory.large();
        block_on(large.grow_to(8 * KIB));
        let mut largest = memory.large();
        block_on(largest.grow_to(8 * KIB));
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
        block_on(escape.grow_to(8 * KIB));
        let mut given_up = memory.large();
        block_on(given_up.grow_to(KIB));
        for release_first in [false, true] {
            let mut waits = Box::pin(given_up.grow_to(5 * KIB));
            assert!(poll(waits.as_mut()).is_none());
            if release_first {
                // Granted the escape, but dropped before it looks again.
                drop(std::mem::replace(&mut escape, memory.large()));
            }
            drop(waits);
            assert_eq!(given_up.bytes(), KIB);
        }
        drop((holder, escape, given_up));
        let lanes = memory.large.lock();
        assert_eq!((lanes.shared.free, lanes.escape_free, lanes.shared.waiting.len()), (8 << 10, true, 0));
    }

    #[test]
    fn sixteen_cores_take_turns_at_a_frame_that_is_larger_than_any_one_s_part() {
        const FRAME: usize = 100 << 20;
        let large = LargeRequests::new(320 << 20, FRAME);
        assert_eq!(large.frame_bytes_max(), FRAME);
        let most = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let cores: Vec<_> = (0..16)
            .map(|_| {
                let (large, most) = (large.clone(), most.clone());
                std::thread::spawn(move || {
                    let memory = RequestMemory::new(4 << 20, large);
                    let mut charge = memory.large();
                    // As it arrives, in doubling steps, so that all hold parts and wait for more.
                    let mut bytes = 64 << 10;
                    while charge.bytes() < FRAME {
                        block_on(charge.grow_to(bytes));
                        bytes = FRAME.min(2 * bytes);
                    }
                    most.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                })
            })
            .collect();
        cores.into_iter().for_each(|core| core.join().expect("it got its frame"));
        assert_eq!(most.load(std::sync::atomic::Ordering::Relaxed), 16);
        let lanes = large.lock();
        assert_eq!((lanes.shared.free, lanes.escape_free, lanes.shared.waiting.len()), (220 << 20, true, 0));
    }

    #[test]
    fn a_small_budget_carries_what_it_can() {
        let large = LargeRequests::new(20 << 20, 100 << 20);
        assert_eq!(large.frame_bytes_max(), 18 << 20);
    }
}
