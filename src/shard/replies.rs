//! The broker's memory for replies: what clients make it hold that have not read their answers.
//!
//! A slow reader is no enemy. What it was answered stays until it reads on, at most `connections.max.idle.ms` without a
//! byte of progress. For that many of them fit, a fetch reads less the more is held; and only when it does not fit in
//! spite of that, the largest holder goes. One budget for all cores.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use crate::io::Pinned;

/// So many fetches find room when nothing is left for longer answers.
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
    cores: Box<[OfCore]>,
}

#[derive(Default)]
struct OfCore {
    /// Records that only readers keep.
    pinned: OnceLock<Pinned>,
    /// What the connection of this core holds that holds most.
    largest: AtomicUsize,
}

impl std::fmt::Debug for OfCore {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}", self.pinned.get().map_or(0, Pinned::bytes))
    }
}

impl ReplyMemory {
    /// A budget for so many cores, in bytes: up to `bytes_max` replies are as long as was asked for, more and more
    /// cautiously; above `pressed_bytes` somebody has to go.
    #[must_use]
    pub fn new(cores: usize, bytes_max: usize, pressed_bytes: usize) -> Arc<Self> {
        let cores = (0..cores).map(|_| OfCore::default()).collect();
        Arc::new(Self { bytes_max, pressed_bytes, own_bytes: AtomicUsize::new(0), cores })
    }

    /// A budget that is never used up.
    #[must_use]
    pub fn boundless() -> Arc<Self> {
        Self::new(1, usize::MAX, usize::MAX)
    }

    /// Counts a core's records from now on. Once a core.
    pub fn count(&self, core: usize, pinned: Pinned) {
        // A second time would be the same core again.
        let _ = self.cores[core].pinned.set(pinned);
    }

    /// Bytes that unread replies hold and nobody else.
    #[must_use]
    pub fn held(&self) -> usize {
        let pinned = self.cores.iter().filter_map(|core| core.pinned.get());
        self.own_bytes.load(Ordering::Relaxed) + pinned.map(Pinned::bytes).sum::<usize>()
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

    /// Says what the largest holder of a core holds, and whether no other core's holds more.
    #[must_use]
    pub fn is_largest(&self, core: usize, bytes: usize) -> bool {
        self.cores[core].largest.store(bytes, Ordering::Relaxed);
        let others = self.cores.iter().enumerate().filter(|(other, _)| *other != core);
        others.map(|(_, other)| other.largest.load(Ordering::Relaxed)).max().is_none_or(|other| other <= bytes)
    }

    /// What one connection's replies hold in memory of their own.
    #[must_use]
    pub fn holder(self: &Arc<Self>) -> Held {
        Held { memory: self.clone(), bytes: 0 }
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
        assert_eq!((memory.held(), memory.excess(), memory.is_tight()), (1600, 100, true));
        holders[2].set(10);
        assert_eq!((memory.held(), memory.excess()), (710, 0));
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
        assert!(memory.is_largest(0, 10), "nobody else has said anything");
        assert!(!memory.is_largest(1, 9));
        assert!(memory.is_largest(2, 11));
        assert!(!memory.is_largest(0, 10));
        // It was closed; the next in line.
        assert!(!memory.is_largest(2, 3));
        assert!(memory.is_largest(0, 10));
    }
}
