//! What may go: records below the log start offset, and segments that are too old or too many.

use std::rc::Rc;

use crate::{
    base::{Offset, PartitionKey, Timestamp},
    log::{
        ballast, core::Core, core_log::CoreLog, journal::entry::Entry, pace::Pace, partition_log::Log,
        placing::Placing, removal, segment::file_name, settings::LogError,
    },
};

/// Directories that one call looks through.
const SWEEPS_MAX: usize = 16;

/// The ballast is looked at in one of so many calls.
const BALLAST_EVERY: u64 = 16;

/// Segments of one partition whose files' times are asked for in one look.
const LOOKS_MAX: usize = 64;

impl Placing {
    /// Where the log would start if retention had its way: only whole segments below the high watermark go, the oldest
    /// first, up to the first that must stay.
    pub fn retained_start(&self, now: Timestamp, high_watermark: Offset) -> Offset {
        let mut start = self.log_start();
        let mut total = self.size_bytes();
        for (index, segment) in self.segments().iter().enumerate() {
            let next = self.segments().get(index + 1).map_or(self.end(), |next| next.base);
            let over_age = self.config().retention_ms >= 0
                && segment.age_from().is_some_and(|from| now.saturating_sub(from) > self.config().retention_ms);
            let surplus = i64::try_from(total).unwrap_or(i64::MAX) - self.config().retention_bytes;
            let over_size = self.config().retention_bytes >= 0 && surplus >= i64::from(segment.size);
            let goes = next <= self.log_start() || (self.config().delete && (over_age || over_size));
            if !goes || next > high_watermark || segment.size == 0 {
                break;
            }
            total -= u64::from(segment.size);
            start = start.max(next);
        }
        start
    }
}

impl CoreLog {
    /// Regular work of a core: a checkpoint when the oldest record in the journal is old, memory, room on the disk. Call it
    /// about once a second.
    pub async fn housekeeping(&self) {
        let core = &self.core;
        core.io.disk.reclaim();
        core.evict();
        core.space.refresh().await;
        let old = core.io.clock.now();
        if core.dirty_since.get().is_some_and(|since| old.since(since) >= core.settings.checkpoint_interval) {
            core.want_round();
        }
        core.looks.set(core.looks.get() + 1);
        if core.number == 0 && core.looks.get().is_multiple_of(BALLAST_EVERY) {
            ballast::restore(&core.io, &core.directory, core.settings.ballast_bytes).await;
        }
        if let Err(error) = core.journal.ring.trim().await {
            tracing::warn!(%error, core = core.number, "a file that the journal does not need could not be removed");
        }
        self.sweep_some().await;
    }

    /// Looks through the directories of a few partitions for what an earlier life has left.
    async fn sweep_some(&self) {
        let core = &self.core;
        let unswept = |log: &Rc<Log>| {
            let state = log.state();
            state.is_to_be_swept()
        };
        let logs: Vec<Rc<Log>> = self.logs.all().into_iter().filter(|log| unswept(log)).take(SWEEPS_MAX).collect();
        for log in logs {
            log.state_mut().begin_sweep();
            if let Err(error) = removal::sweep(core, &log).await {
                tracing::warn!(topic = log.name(), %error, "a partition's directory could not be swept");
            }
        }
    }

    /// Applies retention to every partition of the core.
    pub async fn retain(&self, now: Timestamp) -> Vec<(PartitionKey, Offset)> {
        let core = &self.core;
        let logs = self.logs.all();
        let mut pace = Pace::new(&core.io);
        let mut moved = Vec::new();
        let mut last = None;
        for log in logs {
            pace.step().await;
            if log.state().dead().is_some() {
                continue;
            }
            log.look_at_files(now).await;
            let start = log.state().retained_start(now, log.high_watermark());
            if start > log.state().announced_start() {
                last = Some(announce(&log, start));
                moved.push((log, start));
            }
        }
        // One wait for all of them: the blocks become durable in order.
        if let Some(sequence) = last {
            core.journal.durable(sequence).await;
        }
        for (log, start) in &moved {
            settle(core, log, *start);
        }
        moved.into_iter().map(|(log, start)| (log.key(), start)).collect()
    }
}

impl Log {
    /// Looks when the files of the oldest segments without timestamps were written, as far as they are old enough to go.
    async fn look_at_files(&self, now: Timestamp) {
        for _ in 0..LOOKS_MAX {
            let (path, segment) = {
                let state = self.state();
                let retention_ms = state.config().retention_ms;
                if retention_ms < 0 || !state.config().delete || state.dead().is_some() {
                    return;
                }
                let stays = |from: Option<Timestamp>| from.is_none_or(|from| now.saturating_sub(from) <= retention_ms);
                let Some(first) = state.segments().iter().find(|segment| stays(segment.age_from())) else { return };
                if first.age_from().is_some() || first.written == 0 || first.written < first.size {
                    return;
                }
                (self.file(&file_name(first.base, "log")), first.id())
            };
            match self.core.io.disk.modified(&path).await {
                Ok(modified) => {
                    if !self.state_mut().note_modified(segment, modified) {
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!(path = %path.display(), %error, "nobody knows how old a segment is");
                    return;
                }
            }
        }
    }

    /// Moves the log start offset (DeleteRecords). Durable when it returns; whole segments below it are removed.
    /// # Errors  `OffsetOutOfRange` beyond the high watermark; `Deleted`, `Io`.
    pub async fn move_start(self: &Rc<Self>, offset: Offset, high_watermark: Offset) -> Result<(), LogError> {
        {
            let state = self.state();
            state.alive()?;
            if offset > high_watermark || offset > state.end() {
                return Err(LogError::OffsetOutOfRange);
            }
            if offset <= state.log_start() {
                return Ok(());
            }
        }
        let sequence = announce(self, offset);
        self.core.journal.durable(sequence).await;
        self.state().alive()?;
        settle(&self.core, self, offset);
        Ok(())
    }
}

fn announce(log: &Rc<Log>, start: Offset) -> u64 {
    log.change(|state| state.announce_start(start));
    log.core.journal.announce(&Entry::LogStart { key: log.key(), offset: start })
}

/// The new start is durable: act upon it.
fn settle(core: &Rc<Core>, log: &Rc<Log>, start: Offset) {
    log.state_mut().move_start(start);
    removal::drop_segments(core, log);
}
