//! What state machines may hold in memory.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// What the state machines of a kind may hold in memory, all coordinators of a broker together, and what they hold. One for
/// all cores.
#[derive(Debug)]
pub struct MachineMemory {
    pub(super) bytes_max: usize,
    held: AtomicUsize,
}

impl MachineMemory {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, held: AtomicUsize::new(0) })
    }

    /// What is held, by our own books.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// What may still be taken. Cores that decide in the same moment see the same room, and may overdraw it by one request each.
    pub(super) fn room(&self) -> usize {
        self.bytes_max.saturating_sub(self.held_bytes())
    }

    pub(super) fn book(&self, before: usize, now: usize) {
        if now >= before {
            self.held.fetch_add(now - before, Ordering::Relaxed);
        } else {
            self.held.fetch_sub(before - now, Ordering::Relaxed);
        }
    }
}
