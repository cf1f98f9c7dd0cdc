//! Ending a log earlier than it ends: what a new leader does not have goes.
//!
//! A cut is placed in one step with what the rules know, and counts once the journal has it. Only then may anything be appended:
//! it is written over what was there, and a start that does not hear of the cut would take the one for the other.

use std::rc::Rc;

use crate::{
    base::Offset,
    log::{
        journal::entry::{CutAt, Entry},
        partition_log::Log,
        placing::Placing,
        removal,
        segment::{Segment, SegmentId},
        settings::LogError,
    },
};

/// Where a log may be cut.
pub struct Cut {
    segment: SegmentId,
    front: Segment,
    end: Offset,
}

/// A log that was cut, perhaps not durably yet. Appends wait until it is, whoever keeps or drops this.
#[must_use]
pub struct Truncated {
    log: Rc<Log>,
    /// Which one of the log's cuts it is.
    cuts: u64,
}

impl Cut {
    /// Where the log will end.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.end
    }
}

impl Log {
    /// Looks where the log is to be cut so that nothing from `offset` on is left: before the batch that contains it. Waits until
    /// all of the log is durable, and in its segments, and nobody works on its files: for long, if others go on appending. `None`
    /// if there is nothing to cut.
    /// # Errors  `OffsetOutOfRange` below the log start; `Deleted`; `Stopping`; `Full` if the segments cannot get all
    /// of it; `Io` and `Corrupt` if the segment cannot be read: the partition is offline then.
    pub async fn find_cut(self: &Rc<Self>, offset: Offset) -> Result<Option<Cut>, LogError> {
        loop {
            self.flushed(self.log_end_offset()).await?;
            self.cleaned().await?;
            self.at_rest().await;
            let segment = {
                let state = self.state();
                state.alive()?;
                if self.core.stopping.get() {
                    return Err(LogError::Stopping);
                }
                if offset < state.log_start() {
                    return Err(LogError::OffsetOutOfRange);
                }
                if offset >= state.end() {
                    return Ok(None);
                }
                state.segments()[state.segment_of(offset)].id()
            };
            match self.noted(self.front(segment, offset).await) {
                // Deleted by retention, or cut, while it was read.
                Err(LogError::OffsetOutOfRange) if self.state().segment(segment).is_none() => {}
                Ok((_, end)) if end < self.log_start_offset() => return Err(LogError::OffsetOutOfRange),
                front => return front.map(|(front, end)| Some(Cut { segment, front, end })),
            }
        }
    }

    /// Waits until all of the log is in its segments.
    async fn cleaned(&self) -> Result<(), LogError> {
        let core = &self.core;
        loop {
            let changed = core.memory.freed.notified();
            let is_clean = {
                let state = self.state();
                state.alive()?;
                state.is_clean()
            };
            if is_clean {
                return Ok(());
            }
            if core.stopping.get() {
                return Err(LogError::Stopping);
            }
            if core.space.is_stuck() {
                return Err(LogError::Full);
            }
            core.want_round();
            changed.await;
        }
    }

    /// Cuts the log, in memory at once. `None` if it is not what it was when the cut was found, if it starts behind it by
    /// now, or if somebody is about to append or works on its files: then it is found again.
    pub fn truncate(self: &Rc<Self>, cut: Cut) -> Option<Truncated> {
        let Cut { segment, front, end } = cut;
        let may_be_cut = {
            let state = self.state();
            state.dead().is_none() && end >= state.announced_start() && state.is_clean()
        };
        if !may_be_cut || self.is_busy() || self.core.stopping.get() {
            return None;
        }
        let at = CutAt { segment_base: front.base, position: front.size, end };
        let gone = self.place_cut(segment, front, end)?;
        self.high_watermark_at_most(end);
        let cuts = self.state_mut().begin_cut();
        let block = self.core.journal.announce(&Entry::Truncate { key: self.key(), at });
        let log = self.clone();
        self.core.spawn(async move { log.finish_cut(block, gone).await });
        Some(Truncated { log: self.clone(), cuts })
    }

    /// Lets appends go on when the journal has the cut, and no name leads to what was cut off.
    async fn finish_cut(self: &Rc<Self>, block: u64, gone: Vec<Segment>) {
        self.core.journal.durable(block).await;
        // Of a partition that was deleted meanwhile the names are a newer topic's, perhaps.
        if self.state().alive().is_ok() {
            let busy = self.busy();
            let renamed = removal::remove_segments(&self.core, self, gone).await;
            // The next checkpoint says so.
            if renamed {
                self.state_mut().names_are_left(false);
            }
            self.change(Placing::list);
            drop(busy);
        }
        self.state_mut().end_cut();
        // All that is left may lie below the log start.
        removal::drop_segments(&self.core, self);
        self.changed.notify_all();
    }

    fn place_cut(&self, segment: SegmentId, front: Segment, end: Offset) -> Option<Vec<Segment>> {
        let disk = &self.core.io.disk;
        let (gone, changes) = self.state_mut().truncate(segment, front, end, |capacity| disk.allocate(capacity))?;
        self.core.settle(self.slot(), changes);
        self.core.files.forget(self.key(), None);
        self.core.cold.forget(self.key(), None);
        Some(gone)
    }

    /// Finds out what there is to know of a segment that the journal has cut since the checkpoint; for recovery.
    /// # Errors  `Io`; `Corrupt` if no batch ends there.
    pub(super) async fn cut_restored(self: &Rc<Self>, at: &CutAt) -> Result<(), LogError> {
        let segment = self.state().active().id();
        let (front, end) = self.front(segment, at.end).await?;
        let corrupt = LogError::Corrupt { segment: front.base, position: u64::from(front.size) };
        if (CutAt { segment_base: front.base, position: front.size, end }) != *at {
            return Err(corrupt);
        }
        self.unpin();
        let cut = self.place_cut(segment, front, end);
        self.pin();
        cut.map(|_| ()).ok_or(corrupt)
    }
}

impl Truncated {
    /// Waits until the cut is durable.
    /// # Errors  `Deleted`, `Io` if the partition went offline.
    pub async fn durable(self) -> Result<(), LogError> {
        let Self { log, cuts } = self;
        loop {
            let changed = log.changed.notified();
            {
                let state = log.state();
                state.alive()?;
                // It is not cut again before.
                if !state.is_cutting() || state.cuts() > cuts {
                    return Ok(());
                }
            }
            changed.await;
        }
    }
}
