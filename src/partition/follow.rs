//! What a follower takes over from its leader.

use super::{FetchPartition, Partition, role::Role};
use crate::{
    base::{LeaderEpoch, Offset, Timestamp},
    protocol::batch::BatchInfo,
};

/// Why a batch of the leader's is not taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowRefusal {
    /// This broker leads the partition.
    Leads,
    /// The term is over in which its leader was asked.
    Over,
    /// It begins below the end of the log: it, or a part of it, is there already.
    Overlaps {
        /// Where the log ends.
        log_end_offset: Offset,
    },
    /// It is of a term that begins only after the one in which it was fetched, or of an earlier one than the record before
    /// it: what was answered is not the log of the leader that was asked.
    Epoch,
}

impl Partition {
    /// Decides about a batch of the leader's, with the offsets and the epoch that it has there. Nothing changes until
    /// [`Partition::followed`]; no await may lie between the two. Offsets may be missing, as cleaned logs have it.
    /// # Errors  Why it is not taken over.
    pub fn check_follow(&self, info: &BatchInfo) -> Result<(), FollowRefusal> {
        match self.role {
            Role::Leader(_) => return Err(FollowRefusal::Leads),
            Role::Follower { .. } => {}
        }
        if info.base_offset < self.state.log_end_offset {
            return Err(FollowRefusal::Overlaps { log_end_offset: self.state.log_end_offset });
        }
        let goes_back = self.state.epochs.latest().is_some_and(|latest| info.leader_epoch < latest);
        if info.leader_epoch > self.leader_epoch || goes_back {
            return Err(FollowRefusal::Epoch);
        }
        Ok(())
    }

    /// What the leader is to be asked for: what follows the end of the log, if all of that is on stable storage here.
    #[must_use]
    pub fn next_fetch(&self, partition_max_bytes: i32) -> Option<FetchPartition> {
        self.followed_leader().filter(|_| self.durable_end == self.state.log_end_offset)?;
        Some(FetchPartition {
            fetch_offset: self.state.log_end_offset,
            partition_max_bytes,
            current_leader_epoch: Some(self.leader_epoch),
            last_fetched_epoch: self.state.epochs.latest(),
            log_start_offset: self.state.log_start_offset,
        })
    }

    /// Whether this broker follows somebody in that term.
    #[must_use]
    pub fn follows_in(&self, leader_epoch: LeaderEpoch) -> bool {
        self.leader_epoch == leader_epoch && self.followed_leader().is_some()
    }

    /// Where the log is to end, when the leader's has diverged from it: the largest epoch there that is not above our last one
    /// is `epoch`, and ends at `end_offset` (KIP-101, KIP-279). Never told by the high watermark.
    #[must_use]
    pub fn diverging_end(&self, epoch: LeaderEpoch, end_offset: Offset) -> Offset {
        let log_end = self.state.log_end_offset;
        let (known, end) = self.state.epochs.end_of(epoch, log_end);
        let ours = if known.0 < 0 { log_end } else { end };
        ours.min(end_offset).min(log_end).max(self.state.log_start_offset)
    }

    /// A follower's log ends at `end` from now on: what came behind it the leader does not have.
    pub fn cut_off(&mut self, end: Offset) {
        assert!(!self.is_leader(), "what a leader has is the partition's log");
        self.state.truncate(end);
        self.durable_end = self.durable_end.min(end);
    }

    /// A batch of the leader's has gone into memory.
    pub fn followed(&mut self, info: &BatchInfo, now: Timestamp) {
        assert!(info.base_offset >= self.state.log_end_offset, "a follower's log only grows at its end");
        assert!(info.last_offset >= info.base_offset, "a batch takes at least one offset");
        self.state.apply(info, now);
    }

    /// The leader says how far its high watermark is. What is not on our stable storage yet does not count here.
    ///
    /// Returns the new high watermark if it moved. It never moves back.
    pub fn leader_committed(&mut self, high_watermark: Offset) -> Option<Offset> {
        let end = high_watermark.min(self.durable_end);
        if self.is_leader() || end <= self.state.high_watermark {
            return None;
        }
        self.state.high_watermark = end;
        Some(end)
    }
}
