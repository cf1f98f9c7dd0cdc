//! What a fetch may see.

use super::Partition;
use crate::base::{BrokerId, ErrorCode, LeaderEpoch, Offset};

/// What a client asks of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPartition {
    /// Where to begin.
    pub fetch_offset: Offset,
    /// Most bytes to send of this partition.
    pub partition_max_bytes: i32,
    /// The leader's epoch as the client believes; none or negative: not checked.
    pub current_leader_epoch: Option<LeaderEpoch>,
    /// Epoch of the record before `fetch_offset` (KIP-595); none or negative: not checked.
    pub last_fetched_epoch: Option<LeaderEpoch>,
    /// A follower's log start offset; -1 from consumers.
    pub log_start_offset: Offset,
}

/// How far a consumer sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// `read_uncommitted`: up to the high watermark.
    ReadUncommitted,
    /// `read_committed`: up to the last stable offset.
    ReadCommitted,
}

/// Who fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetcher {
    /// A consumer: what is committed.
    Consumer(Isolation),
    /// Another replica of the partition: all there is.
    Follower {
        /// Who holds it.
        broker: BrokerId,
        /// In which of its lives (KIP-903); -1 if it does not say.
        broker_epoch: i64,
    },
}

/// The offsets that may be sent: `from..upto`, beginning with the batch that holds `from`. Empty if they are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPlan {
    /// First offset asked for.
    pub from: Offset,
    /// First offset that must not be sent.
    pub upto: Offset,
}

/// Why nothing is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchRefusal {
    /// The code for the partition.
    Error(ErrorCode),
    /// The client's log is not a prefix of ours (KIP-595): it must truncate to this epoch and end offset.
    Diverging {
        /// The largest epoch of ours not above the client's.
        epoch: LeaderEpoch,
        /// Where it ends in our log.
        end_offset: Offset,
    },
}

impl Partition {
    /// How far this reader sees.
    #[must_use]
    pub fn visible_end(&self, reader: Fetcher) -> Offset {
        match reader {
            Fetcher::Follower { .. } => self.log_end_offset(),
            Fetcher::Consumer(Isolation::ReadUncommitted) => self.high_watermark(),
            Fetcher::Consumer(Isolation::ReadCommitted) => self.last_stable_offset(),
        }
    }

    /// Decides what a fetch gets. Between what is visible and the log end offset there is nothing yet, but no error.
    /// # Errors  `FencedLeaderEpoch`, `UnknownLeaderEpoch`, `NotLeaderOrFollower`, `OffsetOutOfRange`; or where the
    /// reader's log diverges.
    pub fn plan_fetch(&self, request: &FetchPartition, reader: Fetcher) -> Result<FetchPlan, FetchRefusal> {
        self.check_leader_epoch(request.current_leader_epoch).map_err(FetchRefusal::Error)?;
        let allowed = match reader {
            Fetcher::Consumer(_) => self.check_leads(),
            Fetcher::Follower { broker, broker_epoch } => self.check_follower(broker, broker_epoch),
        };
        allowed.map_err(FetchRefusal::Error)?;
        let from = request.fetch_offset;
        if from < self.log_start_offset() {
            return Err(FetchRefusal::Error(ErrorCode::OffsetOutOfRange));
        }
        self.check_divergence(request)?;
        if from > self.log_end_offset() {
            return Err(FetchRefusal::Error(ErrorCode::OffsetOutOfRange));
        }
        Ok(FetchPlan { from, upto: self.visible_end(reader).max(from) })
    }

    fn check_divergence(&self, request: &FetchPartition) -> Result<(), FetchRefusal> {
        let Some(fetched) = request.last_fetched_epoch.filter(|epoch| epoch.0 >= 0) else { return Ok(()) };
        let (epoch, end_offset) = self.state.epochs.end_of(fetched, self.log_end_offset());
        if epoch.0 < 0 || end_offset.0 < 0 {
            return Err(FetchRefusal::Error(ErrorCode::OffsetOutOfRange));
        }
        if epoch < fetched || end_offset < request.fetch_offset {
            return Err(FetchRefusal::Diverging { epoch, end_offset });
        }
        Ok(())
    }
}
