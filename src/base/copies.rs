//! Counts what is copied in user space, so that a test can prove how often record bytes are: twice on produce, never on
//! fetch.

use std::cell::Cell;

// The one thread-local of rules and flows: nobody decides anything by it, and one counter for all cores would be a cache
// line that every append of every core fights for.
thread_local! {
    static COPIED: Cell<u64> = const { Cell::new(0) };
}

/// Notes that `bytes` of record batches were copied.
pub fn copied(bytes: usize) {
    COPIED.set(COPIED.get() + bytes as u64);
}

/// Bytes of record batches that this thread has copied since it started. Production has a core in each thread, the
/// simulator has all of them in one.
#[must_use]
pub fn copied_bytes() -> u64 {
    COPIED.get()
}
