//! The broker's memory for replies: what clients make it hold that have not read their answers.
//!
//! A slow reader is no enemy. What it was answered stays until it reads on, at most `connections.max.idle.ms` without a
//! byte of progress. For that many of them fit, a fetch reads less the more is held; and only when it does not fit in
//! spite of that, the largest holder goes. One budget for all cores.

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use crate::io::{OnTheWay, Pinned};

/// The number of fetches that find room when nothing is left for longer answers.
const CROWD: usize = 256;

/// One budget, shared by the cores.
#[derive(Debug)]
pub struct ReplyMemory {
    /// From here on a fetch reads a fixed small part only.
    bytes_max: usize,
    /// From here on the largest holders are closed.
    pressed_bytes: usize,
    /// Unsent replies with memory of their own: everything but records.
    own_bytes: AtomicUsize,
    /// Of each core, the records that only readers keep.
    pinned: Box<[OfCore<Pinned>]>,
    /// Of each core, unsent replies that the kernel has been given already.
    on_the_way: Box<[OfCore<OnTheWay>]>,
    /// Taken by the sweepers, once a second each.
    holders: Mutex<Holders>,
}

/// Where a core says how much it has.
struct OfCore<T>(OnceLock<T>);

impl<T> OfCore<T> {
    fn all(cores: usize) -> Box<[Self]> {
        (0..cores).map(|_| Self(OnceLock::new())).collect()
    }

    fn sum(all: &[Self], bytes: impl Fn(&T) -> usize) -> usize {
        all.iter().filter_map(|core| core.0.get()).map(bytes).sum()
    }
}

impl<T> std::fmt::Debug for OfCore<T> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}", self.0.get().is_some())
    }
}

#[derive(Debug)]
struct Holders {
    /// Of each core, what the connection holds that holds most.
    largest: Box<[usize]>,
    /// What those hold that are being closed and have not let go of it.
    leaving_bytes: usize,
}

impl ReplyMemory {
    /// A budget for so many cores, in bytes: up to `bytes_max` replies are as long as was asked for, more and more
    /// cautiously; above `pressed_bytes` somebody has to go.
    #[must_use]
    pub fn new(cores: usize, bytes_max: usize, pressed_bytes: usize) -> Arc<Self> {
        let holders = Holders { largest: vec![0; cores].into(), leaving_bytes: 0 };
        Arc::new(Self {
            bytes_max,
            pressed_bytes,
            own_bytes: AtomicUsize::new(0),
            pinned: OfCore::all(cores),
            on_the_way: OfCore::all(cores),
            holders: Mutex::new(holders),
        })
    }

    /// A budget that is never used up.
    #[must_use]
    pub fn boundless() -> Arc<Self> {
        Self::new(1, usize::MAX, usize::MAX)
    }

    /// Counts a core's records from now on. Once a core.
    pub fn count(&self, core: usize, pinned: Pinned) {
        // A second time would be the same core again.
        let _ = self.pinned[core].0.set(pinned);
    }

    /// Counts what a core has given to the kernel from now on. Once a core.
    pub fn count_on_the_way(&self, core: usize, on_the_way: OnTheWay) {
        // As above.
        let _ = self.on_the_way[core].0.set(on_the_way);
    }

    /// Bytes that unread replies hold and nobody else.
    #[must_use]
    pub fn held(&self) -> usize {
        let of_cores = OfCore::sum(&self.pinned, Pinned::bytes) + OfCore::sum(&self.on_the_way, OnTheWay::bytes);
        self.own_bytes.load(Ordering::Relaxed) + of_cores
    }

    /// How many bytes a fetch may read now: half of what is left, so that whoever comes next finds something as well. When
    /// nothing is left, so much that hundreds more find room before somebody has to go: those who do not read must not
    /// make the others crawl. 0 still gives the first batch (KIP-74).
    #[must_use]
    pub fn fetch_bytes_max(&self) -> usize {
        let held = self.held();
        let least = if held < self.pressed_bytes { (self.pressed_bytes - self.bytes_max) / CROWD } else { 0 };
        (self.bytes_max.saturating_sub(held) / 2).max(least)
    }

    /// Whether so much is held that fetches get noticeably less: time to know who holds most.
    #[must_use]
    pub fn is_tight(&self) -> bool {
        self.held() > self.bytes_max / 2
    }

    /// The bytes that must be given up now.
    #[must_use]
    pub fn excess(&self) -> usize {
        self.held().saturating_sub(self.pressed_bytes)
    }

    /// Says what the largest holder of a core holds. It must go, and what comes back is to be kept until it has, if no other
    /// core's holds more and there is too much even without those who are going already, on whatever core.
    #[must_use]
    pub fn close_largest(self: &Arc<Self>, core: usize, bytes: usize) -> Option<Leaving> {
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        holders.largest[core] = bytes;
        let is_largest = holders.largest.iter().all(|other| *other <= bytes);
        let too_much = self.excess() > holders.leaving_bytes;
        (bytes > 0 && is_largest && too_much).then(|| {
            holders.leaving_bytes += bytes;
            Leaving { memory: self.clone(), bytes }
        })
    }

    /// What one connection's replies hold in memory of their own.
    #[must_use]
    pub fn holder(self: &Arc<Self>) -> Held {
        Held { memory: self.clone(), bytes: 0 }
    }
}

/// A holder that is being closed; dropped when it has let go of its replies.
#[derive(Debug)]
pub struct Leaving {
    memory: Arc<ReplyMemory>,
    bytes: usize,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.memory.holders.lock().unwrap_or_else(PoisonError::into_inner).leaving_bytes -= self.bytes;
    }
}

/// Bytes counted in [`ReplyMemory`]; given back when dropped.
#[derive(Debug)]
pub struct Held {
    memory: Arc<ReplyMemory>,
    bytes: usize,
}

impl Held {
    /// Counts no more than so many from now on, if any are counted. Mostly none are: what is sent at once is not held.
    pub fn follow(&mut self, bytes: usize) {
        if self.bytes > bytes {
            self.set(bytes);
        }
    }

    /// Counts so many from now on.
    pub fn set(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.memory.own_bytes.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else if bytes < self.bytes {
            self.memory.own_bytes.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_gets_less_the_more_is_held_and_everything_comes_back() {
        let memory = ReplyMemory::new(2, 1000, 1500);
        let mut holders: Vec<Held> = (0..3).map(|_| memory.holder()).collect();
        let mut seen = vec![memory.fetch_bytes_max()];
        for (holder, bytes) in holders.iter_mut().zip([400, 300, 900]) {
            holder.set(bytes);
            seen.push(memory.fetch_bytes_max());
        }
        assert_eq!(seen, [500, 300, 150, 0]);
        assert_eq!((memory.held(), memory.is_tight()), (1600, true));
        assert!(memory.close_largest(0, 900).is_some());
        holders[2].set(10);
        assert_eq!((memory.held(), memory.excess()), (710, 0));
        assert!(memory.close_largest(0, 400).is_none(), "there is room");
        drop(holders);
        assert_eq!((memory.held(), memory.is_tight(), memory.fetch_bytes_max()), (0, false, 500));
    }

    #[test]
    fn those_who_do_not_read_do_not_make_the_others_crawl() {
        let memory = ReplyMemory::new(1, 1 << 20, 3 << 20);
        let mut unread = memory.holder();
        let mut allowed = |held: usize| {
            unread.set(held);
            memory.fetch_bytes_max()
        };
        let least = (2 << 20) / CROWD;
        assert_eq!([1 << 20, (3 << 20) - 1].map(&mut allowed), [least, least]);
        assert_eq!(allowed(3 << 20), 0);
    }

    #[test]
    fn the_largest_holder_of_all_cores_goes_first() {
        let memory = ReplyMemory::new(3, 0, 0);
        let mut all = memory.holder();
        all.set(1000);
        let goes = |core, bytes| memory.close_largest(core, bytes).is_some();
        assert!(goes(0, 10), "nobody else has said anything");
        assert!(!goes(1, 9));
        assert!(goes(2, 11));
        assert!(!goes(0, 10));
        // It was closed; the next in line.
        assert!(!goes(2, 3));
        assert!(goes(0, 10));
    }

    #[test]
    fn cores_that_look_at_once_close_no_more_than_is_needed() {
        let memory = ReplyMemory::new(2, 0, 100);
        let mut held: Vec<Held> = (0..2).map(|_| memory.holder()).collect();
        held.iter_mut().for_each(|holder| holder.set(60));
        let going = memory.close_largest(0, 60).expect("20 too much");
        assert!(memory.close_largest(1, 60).is_none(), "what the other gives up is enough");
        // A third one comes before the first has gone.
        let mut third = memory.holder();
        third.set(50);
        assert!(memory.close_largest(1, 60).is_some(), "now it is not");
        held.remove(0);
        drop(going);
        third.set(30);
        assert!(memory.close_largest(1, 60).is_none());
        third.set(60);
        assert!(memory.close_largest(1, 60).is_some(), "nothing counts as leaving that has left");
    }
}
