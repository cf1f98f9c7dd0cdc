//! One `syncfs` at a time for all cores: it covers the file system, so whoever comes while one runs shares the next.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use crate::io::Io;

/// How often a waiting core looks. Destaging is in no hurry.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Shared by the cores of one broker.
#[derive(Debug, Default)]
pub struct SyncGate {
    running: AtomicBool,
    /// Syncs that have begun, and that have ended well. Never more than one apart.
    begun: AtomicU64,
    ended: AtomicU64,
}

impl SyncGate {
    /// Returns when a sync that began after the call has ended.
    /// # Errors
    /// The system's. Nothing is known about the disk then: the process must end.
    pub async fn sync(&self, io: &Io, directory: &Path) -> std::io::Result<()> {
        let needed = self.begun.load(Ordering::Acquire) + 1;
        loop {
            if self.ended.load(Ordering::Acquire) >= needed {
                return Ok(());
            }
            if self.running.compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                // Released when dropped, so that a task which dies with its core does not lock out the others.
                let _running = Running(&self.running);
                let number = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
                io.disk.sync_filesystem(directory).await?;
                self.ended.fetch_max(number, Ordering::AcqRel);
                continue;
            }
            io.clock.sleep(LOOK_INTERVAL).await;
        }
    }
}

struct Running<'a>(&'a AtomicBool);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
