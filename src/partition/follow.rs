//! What a follower takes over from its leader.

use super::{Partition, role::Role};
use crate::{
    base::{Offset, Timestamp},
    protocol::batch::BatchInfo,
};

/// Why a batch of the leader's is not taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowRefusal {
    /// This broker leads the partition.
    Leads,
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
