//! What one core may still promise of the disk. An append is refused before it is accepted, never after.
//!
//! Files are made and grown in the background, so admission counts: free space when last asked, less what has been
//! promised to segments and is not allocated yet. What is promised is the sum of [`Segment::outstanding`] over all
//! segments of the core, at any moment.
//!
//! [`Segment::outstanding`]: crate::log::segment::Segment::outstanding

use std::{cell::Cell, path::PathBuf, time::Duration};

use crate::io::{Instant, Io, channel::Semaphore};

/// The file system is asked at most this often while there is too little.
const REFRESH_INTERVAL: Duration = Duration::from_millis(500);

pub struct Space {
    io: Io,
    directory: PathBuf,
    cores: u64,
    margin_bytes: u64,
    available: Cell<u64>,
    /// Promised to segments whose files have not grown yet.
    promised: Cell<u64>,
    /// Promised to a file of the journal that is being made.
    promised_to_journal: Cell<u64>,
    refreshed: Cell<Option<Instant>>,
    /// An append was refused for want of room.
    refusing: Cell<bool>,
    /// What was accepted cannot be brought into its segment for want of room, so memory and journal are not freed.
    stuck: Cell<bool>,
    asking: Semaphore,
}

impl Space {
    pub fn new(io: &Io, directory: PathBuf, cores: usize, margin_bytes: u64) -> Self {
        Self {
            io: io.clone(),
            directory,
            cores: cores as u64,
            margin_bytes,
            available: Cell::new(0),
            promised: Cell::new(0),
            promised_to_journal: Cell::new(0),
            refreshed: Cell::new(None),
            refusing: Cell::new(false),
            stuck: Cell::new(false),
            asking: Semaphore::new(1),
        }
    }

    /// Promises `bytes` if they are known to be there.
    pub fn try_promise(&self, bytes: u64) -> bool {
        let enough = self.available.get() >= bytes;
        if enough {
            self.available.set(self.available.get() - bytes);
            self.promised.set(self.promised.get() + bytes);
        }
        enough
    }

    /// As [`try_promise`](Self::try_promise), asking the file system if need be: `wanted`, or if there is not so much `least`.
    /// Returns what was promised.
    pub async fn promise(&self, wanted: u64, least: u64) -> Option<u64> {
        if self.try_promise(wanted) {
            return Some(wanted);
        }
        self.refresh().await;
        let promised = [wanted, least].into_iter().find(|bytes| self.try_promise(*bytes));
        match promised {
            Some(_) => self.accept(),
            None => self.refuse(),
        }
        promised
    }

    /// As [`promise`](Self::promise), for what a broker cannot do without on a full disk: it may have of the margin.
    pub async fn promise_from_margin(&self, bytes: u64) -> bool {
        if self.try_promise(bytes) {
            return true;
        }
        let free = self.io.disk.free_bytes(&self.directory).await.unwrap_or(0);
        let enough = free >= bytes;
        if enough {
            self.available.set(self.available.get().saturating_sub(bytes));
            self.promised.set(self.promised.get() + bytes);
        } else {
            self.refuse();
        }
        enough
    }

    /// Asks the file system how much room there is, unless that was done a moment ago.
    pub async fn refresh(&self) {
        // Whoever comes while the file system is being asked waits for what it says.
        let _turn = self.asking.acquire(1).await;
        let now = self.io.clock.now();
        if self.refreshed.get().is_some_and(|last| now.since(last) < REFRESH_INTERVAL) {
            return;
        }
        let free = self.io.disk.free_bytes(&self.directory).await;
        self.refreshed.set(Some(self.io.clock.now()));
        match free {
            Ok(free) => {
                let share = free.saturating_sub(self.margin_bytes) / self.cores;
                self.available.set(share.saturating_sub(self.promised.get() + self.promised_to_journal.get()));
            }
            Err(error) => tracing::warn!(%error, "the file system does not say how much room there is"),
        }
    }

    /// Promises `bytes` to the growing journal, of what no append has been promised. It can do without: nothing is refused.
    pub async fn promise_to_journal(&self, bytes: u64) -> bool {
        if self.available.get() < bytes {
            self.refresh().await;
        }
        let enough = self.available.get() >= bytes;
        if enough {
            self.available.set(self.available.get() - bytes);
            self.promised_to_journal.set(self.promised_to_journal.get() + bytes);
        }
        enough
    }

    /// The journal's file has its length, or there is none.
    pub fn kept_to_journal(&self, bytes: u64, made: bool) {
        self.promised_to_journal.set(self.promised_to_journal.get() - bytes);
        if !made {
            self.available.set(self.available.get() + bytes);
        }
    }

    /// Promises `bytes` to what has been accepted already and goes where nobody could foresee.
    pub fn promise_anyway(&self, bytes: u64) {
        self.available.set(self.available.get().saturating_sub(bytes));
        self.promised.set(self.promised.get() + bytes);
    }

    /// A promise was kept: the file has its length.
    pub fn kept(&self, bytes: u64) {
        debug_assert!(self.promised.get() >= bytes, "only what was promised is kept");
        self.promised.set(self.promised.get().saturating_sub(bytes));
    }

    /// A promise is not needed any more: somebody else may have it.
    pub fn give_back(&self, bytes: u64) {
        self.kept(bytes);
        self.available.set(self.available.get() + bytes);
    }

    /// Bytes promised and not allocated yet.
    #[cfg(test)]
    pub fn promised(&self) -> u64 {
        self.promised.get()
    }

    /// The disk is full. Said once, until there is room again.
    pub fn refuse(&self) {
        if !self.refusing.replace(true) {
            tracing::error!(directory = %self.directory.display(), "no room on the disk: appends are refused");
        }
    }

    /// There is room.
    pub fn accept(&self) {
        if self.refusing.replace(false) {
            tracing::info!(directory = %self.directory.display(), "there is room on the disk again");
        }
    }

    /// A full disk keeps what was accepted from its segments.
    pub fn stick(&self) {
        self.stuck.set(true);
        self.refuse();
    }

    /// Everything that was accepted is where it belongs.
    pub fn unstick(&self) {
        self.stuck.set(false);
        self.accept();
    }

    /// Whoever waits for memory or for the journal waits in vain.
    pub fn is_stuck(&self) -> bool {
        self.stuck.get()
    }

    /// Appends are being refused.
    pub fn is_refusing(&self) -> bool {
        self.refusing.get()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::io::{
        join_all,
        sim::{Faults, Simulation},
    };

    #[test]
    fn two_who_ask_at_once_both_hear_how_much_there_is() {
        let promised = Simulation::new(1).block_on(0, 0, |io| async move {
            io.disk.create_dir_all(Path::new("data")).await.expect("made");
            let space = Space::new(&io, "data".into(), 1, 0);
            join_all([space.promise(4096, 4096), space.promise(4096, 4096)]).await
        });
        assert_eq!(promised, [Some(4096), Some(4096)]);
    }

    #[test]
    fn the_margin_is_for_those_who_may_have_of_it() {
        let faults = Faults { capacity: 1 << 20, ..Faults::default() };
        let simulation = Simulation::new(1);
        simulation.set_faults(0, faults);
        let (refused, promised, too_much) = simulation.block_on(0, 0, |io| async move {
            io.disk.create_dir_all(Path::new("data")).await.expect("made");
            let space = Space::new(&io, "data".into(), 1, 2 << 20);
            let refused = space.promise(4096, 4096).await.is_none() && space.is_refusing();
            (refused, space.promise_from_margin(4096).await, space.promise_from_margin(2 << 20).await)
        });
        assert!(refused, "the margin is larger than what is free");
        assert!(promised && !too_much);
    }
}
