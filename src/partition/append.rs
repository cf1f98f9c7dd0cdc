//! Whether a batch may be appended, and what changes when it was.

use super::Partition;
use crate::{
    base::{ErrorCode, LeaderEpoch, Offset, Timestamp},
    protocol::batch::BatchInfo,
};

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendPlan {
    /// Stamp it with these and append it.
    Append {
        /// Offset of its first record.
        base_offset: Offset,
        /// Our epoch.
        leader_epoch: LeaderEpoch,
    },
    /// It is there already (KIP-98): answer with what it got then, once the high watermark is past `last_offset`.
    Duplicate {
        /// Offset of its first record.
        base_offset: Offset,
        /// Offset of its last record.
        last_offset: Offset,
        /// With the broker's clock: when it was appended.
        log_append_time: Option<Timestamp>,
    },
}

impl Partition {
    /// Decides about a validated batch, whose offsets are relative to 0. Nothing changes until [`Partition::appended`];
    /// no await may lie between the two.
    ///
    /// # Errors
    /// `OutOfOrderSequenceNumber`, `InvalidProducerEpoch`; `InvalidRecord` if the partition's offsets are used up.
    pub fn check_append(&self, info: &BatchInfo, _now: Timestamp) -> Result<AppendPlan, ErrorCode> {
        if info.has_producer() {
            if let Some(original) = self.state.producers.duplicate_of(info) {
                return Ok(AppendPlan::Duplicate {
                    base_offset: original.base_offset(),
                    last_offset: original.last_offset,
                    log_append_time: original.log_append_time(),
                });
            }
            self.state.producers.check(info)?;
        }
        let base_offset = self.state.log_end_offset;
        if info.at(base_offset, self.leader_epoch).next_offset().0 == i64::MAX {
            return Err(ErrorCode::InvalidRecord);
        }
        Ok(AppendPlan::Append { base_offset, leader_epoch: self.leader_epoch })
    }

    /// A batch, with its final offsets and epoch, has gone into memory.
    pub fn appended(&mut self, info: &BatchInfo, now: Timestamp) {
        assert_eq!(info.base_offset, self.state.log_end_offset, "batches are appended where the log ends");
        assert!(info.last_offset >= info.base_offset, "a batch takes at least one offset");
        self.state.apply(info, now);
    }
}

impl super::PartitionState {
    /// Moves log end offset, epochs and producers past a batch: after an append, and in recovery for each batch
    /// replayed. A batch below the log end offset changes nothing, so replay may repeat itself.
    ///
    /// `now` is the broker's time, also in recovery: a producer's silence is measured by our clock, never by the
    /// timestamps of its records, or a producer of old data would be forgotten at once.
    pub fn apply(&mut self, info: &BatchInfo, now: Timestamp) {
        if info.last_offset < self.log_end_offset {
            return;
        }
        self.epochs.assign(info.leader_epoch, info.base_offset);
        self.producers.apply(info, now);
        self.log_end_offset = info.next_offset();
    }
}
