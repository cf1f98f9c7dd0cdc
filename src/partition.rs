//! The rules of one partition: what may be appended, what may be fetched, what counts as committed.
//!
//! Plain data and synchronous functions. Log and replica hold a [`Partition`] and act on its answers.

mod append;
mod codec;
mod epochs;
mod fetch;
pub mod fetch_session;
mod follow;
mod in_sync;
mod leader;
mod producers;
mod role;
mod state;
mod validate;

use self::role::Role;
pub use self::{
    append::AppendPlan,
    epochs::EpochCache,
    fetch::{FetchPartition, FetchRefusal, Fetcher, Isolation},
    follow::FollowRefusal,
    in_sync::{FollowerFetch, IsrChange, IsrState},
    producers::{ActiveProducer, Producers},
    role::{AssignedRole, Assignment},
    state::{PartitionState, StateError},
    validate::{
        CompressionPolicy, REWRITTEN_BYTES_MAX, Refusal, SCANNED_BYTES_MAX, TopicRules, ValidBatch, rewriting_bytes,
        validate,
    },
};
use crate::base::{ErrorCode, LeaderEpoch, Offset, Timestamp};

/// One partition as a broker sees it that holds a replica of it. Lives on the partition's core.
///
/// `log_start_offset <= high_watermark <= log_end_offset`, always.
#[derive(Clone, Debug)]
pub struct Partition {
    leader_epoch: LeaderEpoch,
    partition_epoch: i32,
    role: Role,
    /// Everything below it is on stable storage here.
    durable_end: Offset,
    state: PartitionState,
}

impl Partition {
    /// A partition with what was found in its log, all of it durable, and with what the metadata says of it.
    #[must_use]
    pub fn restored(assignment: &Assignment, state: PartitionState) -> Self {
        state.check();
        let durable_end = state.log_end_offset;
        let role = Role::of(assignment, durable_end);
        let Assignment { leader_epoch, partition_epoch, .. } = *assignment;
        let mut partition = Self { leader_epoch, partition_epoch, role, durable_end, state };
        partition.begin_term();
        partition.commit();
        partition
    }

    /// What has to survive a restart.
    #[must_use]
    pub fn state(&self) -> PartitionState {
        self.state.clone()
    }

    /// What has to survive a restart, to look at.
    #[must_use]
    pub fn state_ref(&self) -> &PartitionState {
        &self.state
    }

    /// The leader's term, ours or that of whom we follow.
    #[must_use]
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    /// The first offset that still exists.
    #[must_use]
    pub fn log_start_offset(&self) -> Offset {
        self.state.log_start_offset
    }

    /// The offset that the next record gets.
    #[must_use]
    pub fn log_end_offset(&self) -> Offset {
        self.state.log_end_offset
    }

    /// Everything below it is committed and may be seen.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        self.state.high_watermark
    }

    /// Everything below it is committed and decided; without transactions that is the high watermark.
    #[must_use]
    pub fn last_stable_offset(&self) -> Offset {
        self.state.high_watermark
    }

    /// Compares the epoch a client believes in with ours (KIP-320). None, or a negative one, passes.
    /// # Errors  `FencedLeaderEpoch` if the client's is older, `UnknownLeaderEpoch` if it is newer.
    pub fn check_leader_epoch(&self, current: Option<LeaderEpoch>) -> Result<(), ErrorCode> {
        match current.filter(|epoch| epoch.0 >= 0) {
            Some(epoch) if epoch < self.leader_epoch => Err(ErrorCode::FencedLeaderEpoch),
            Some(epoch) if epoch > self.leader_epoch => Err(ErrorCode::UnknownLeaderEpoch),
            Some(_) | None => Ok(()),
        }
    }

    /// The largest epoch not above `epoch`, and where it ends (KIP-101); (-1, -1) if `epoch` is unknown.
    /// # Errors  As [`Partition::check_leader_epoch`] for `current`; `NotLeaderOrFollower`.
    pub fn offset_for_leader_epoch(
        &self,
        current: Option<LeaderEpoch>,
        epoch: LeaderEpoch,
    ) -> Result<(LeaderEpoch, Offset), ErrorCode> {
        self.check_leader_epoch(current)?;
        self.check_leads()?;
        Ok(self.state.epochs.end_of(epoch, self.state.log_end_offset))
    }

    /// Everything below it is on stable storage here.
    #[must_use]
    pub fn durable_end(&self) -> Offset {
        self.durable_end
    }

    /// Everything below `end` is on stable storage here. Without other in-sync replicas that commits it.
    ///
    /// Returns the new high watermark if it moved. It never moves back.
    pub fn flushed(&mut self, end: Offset) -> Option<Offset> {
        assert!(end <= self.state.log_end_offset, "nothing beyond the log end offset can be durable");
        self.durable_end = self.durable_end.max(end);
        self.commit()
    }

    /// What the log start offset becomes when a client deletes the records before `target`; -1 means all committed.
    /// # Errors  `OffsetOutOfRange` for any other negative target and above the high watermark; `NotLeaderOrFollower`.
    pub fn delete_records(&self, target: i64) -> Result<Offset, ErrorCode> {
        self.check_leads()?;
        let target = if target == -1 { self.state.high_watermark } else { Offset(target) };
        if target < Offset::ZERO || target > self.state.high_watermark {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        Ok(target.max(self.state.log_start_offset))
    }

    /// The log begins at `start` from now on: records were deleted, or retention ran. Never moves back.
    pub fn move_log_start(&mut self, start: Offset) {
        self.state.move_log_start(start);
    }

    /// Forgets producers that have been silent for longer than `expiration_ms` of the broker's time.
    pub fn expire_producers(&mut self, now: Timestamp, expiration_ms: i64) {
        self.state.producers.expire(now, expiration_ms);
    }
}
