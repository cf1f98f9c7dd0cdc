//! One `syncfs` at a time for all cores: it covers the file system, so whoever comes while one runs shares the next.

use std::{
    io,
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::io::{Filesystem, Io};

/// How often a waiting core looks. Destaging can wait so long.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Shared by the cores of one broker.
#[derive(Debug)]
pub struct SyncGate {
    filesystem: Filesystem,
    running: AtomicBool,
    /// Syncs that have begun, and that have ended well. Never more than one apart.
    begun: AtomicU64,
    ended: AtomicU64,
    /// Why a sync has failed. The next one would say that all is well, and it is not.
    failed: OnceLock<String>,
}

impl SyncGate {
    /// The gate to the file system of a directory. Opened before anything is written there, so that no error is missed.
    /// # Errors  The system's.
    pub async fn open(io: &Io, directory: &Path) -> io::Result<Self> {
        Ok(Self {
            filesystem: io.disk.open_filesystem(directory).await?,
            running: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            failed: OnceLock::new(),
        })
    }

    /// Returns when a sync that began after the call has ended.
    /// # Errors  The system's, and the same for every call that ends after it. Nothing is known about the disk then:
    /// the process must end.
    pub async fn sync(&self, io: &Io) -> io::Result<()> {
        let needed = self.begun.load(Ordering::Acquire) + 1;
        loop {
            if let Some(why) = self.failed.get() {
                return Err(io::Error::other(format!("a sync of the file system has failed: {why}")));
            }
            if self.ended.load(Ordering::Acquire) >= needed {
                return Ok(());
            }
            if self.running.compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                // Released when dropped, so that a task which dies with its core does not lock out the others.
                let _running = Running(&self.running);
                let number = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
                match io.disk.sync_filesystem(&self.filesystem).await {
                    Ok(()) => _ = self.ended.fetch_max(number, Ordering::AcqRel),
                    Err(error) => _ = self.failed.set(error.to_string()),
                }
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

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use super::*;
    use crate::io::{
        join_all,
        sim::{Faults, Simulation},
    };

    #[test]
    fn after_a_failed_sync_nobody_is_told_that_all_is_well() {
        let sim = Simulation::new(1);
        let disk = sim.clone();
        sim.block_on(0, 0, |io| async move {
            io.disk.create_dir_all(Path::new("data")).await.unwrap();
            let gate = SyncGate::open(&io, Path::new("data")).await.unwrap();
            gate.sync(&io).await.unwrap();
            disk.set_faults(0, Faults { sync_error_one_in: 1, ..Faults::default() });
            // The second waits for the first, and would then sync by itself, on a disk that is good again.
            let first = async {
                let outcome = gate.sync(&io).await;
                disk.set_faults(0, Faults::default());
                outcome
            };
            let both: [Pin<Box<dyn Future<Output = io::Result<()>>>>; 2] = [Box::pin(first), Box::pin(gate.sync(&io))];
            let outcomes = join_all(both).await;
            assert!(outcomes.iter().all(Result::is_err), "{outcomes:?}");
            assert!(gate.sync(&io).await.is_err(), "it stays failed");
        });
    }

    #[test]
    fn an_error_that_somebody_elses_sync_was_told_is_heard() {
        let sim = Simulation::new(2);
        let disk = sim.clone();
        sim.block_on(0, 0, |io| async move {
            io.disk.create_dir_all(Path::new("data")).await.unwrap();
            let gate = SyncGate::open(&io, Path::new("data")).await.unwrap();
            io.disk.write_file(Path::new("data/segment"), b"records", false).await.unwrap();
            disk.set_faults(0, Faults { sync_error_one_in: 1, ..Faults::default() });
            assert!(io.disk.sync_filesystem_of(Path::new("data")).await.is_err());
            disk.set_faults(0, Faults::default());
            io.disk.sync_filesystem_of(Path::new("data")).await.expect("who opens it now hears nothing");
            assert!(gate.sync(&io).await.is_err(), "the gate was open when it happened");
        });
    }
}
