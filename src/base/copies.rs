//! Counts what is copied in user space, so that a test can prove how often record bytes are: twice on produce, never on
//! fetch.

use std::sync::atomic::{AtomicU64, Ordering};

static COPIED: AtomicU64 = AtomicU64::new(0);

/// Notes that `bytes` of record batches were copied.
pub fn copied(bytes: usize) {
    COPIED.fetch_add(bytes as u64, Ordering::Relaxed);
}

/// Bytes of record batches that this process has copied since it started.
#[must_use]
pub fn copied_bytes() -> u64 {
    COPIED.load(Ordering::Relaxed)
}
