//! Questions about offsets, and DeleteRecords.

use std::rc::Rc;

use crate::{
    base::{ErrorCode, LeaderEpoch, Offset, PartitionKey},
    partition::Isolation,
    replica::{Replica, code_of},
    shard::{
        call::{Answer, Call, ListedOffset, OffsetsCall},
        core::Core,
    },
};

/// Kafka's words for offsets that have no timestamp of their own.
mod special {
    pub const LATEST: i64 = -1;
    pub const EARLIEST: i64 = -2;
    pub const MAX_TIMESTAMP: i64 = -3;
    pub const EARLIEST_LOCAL: i64 = -4;
    pub const LATEST_TIERED: i64 = -5;
}

type Answers = Vec<Result<ListedOffset, ErrorCode>>;

impl OffsetsCall {
    fn keys(&self) -> Vec<PartitionKey> {
        match self {
            Self::List(parts, _) => parts.iter().map(|part| part.0).collect(),
            Self::ForLeaderEpoch(parts) => parts.iter().map(|part| part.0).collect(),
            Self::DeleteRecords(parts) => parts.iter().map(|part| part.0).collect(),
        }
    }

    /// The question for those partitions that have these places in it.
    fn part(&self, places: &[usize]) -> Self {
        fn pick<T: Clone>(all: &[T], places: &[usize]) -> Vec<T> {
            places.iter().map(|place| all[*place].clone()).collect()
        }
        match self {
            Self::List(parts, isolation) => Self::List(pick(parts, places), *isolation),
            Self::ForLeaderEpoch(parts) => Self::ForLeaderEpoch(pick(parts, places)),
            Self::DeleteRecords(parts) => Self::DeleteRecords(pick(parts, places)),
        }
    }
}

impl Core {
    /// Asks every owning core; answers in the order asked.
    pub(super) async fn offsets(self: &Rc<Self>, call: OffsetsCall) -> Answers {
        let keys = call.keys();
        let mut answers: Answers = vec![Err(ErrorCode::KafkaStorageError); keys.len()];
        let mut pending = Vec::new();
        let mut here = Vec::new();
        for core in 0..self.mesh.cores() {
            let places: Vec<usize> = (0..keys.len()).filter(|place| self.owner(keys[*place]) == core).collect();
            if places.is_empty() {
                continue;
            }
            let part = call.part(&places);
            if core == self.index() {
                here.push((places, part));
            } else {
                pending.push((places, self.call(core, Call::Offsets(part)).await.1));
            }
        }
        for (places, part) in here {
            for (place, answer) in places.iter().zip(self.offsets_here(part).await) {
                answers[*place] = answer;
            }
        }
        for (places, answer) in pending {
            if let Some(Answer::Offsets(part)) = answer.await {
                for (place, answer) in places.iter().zip(part) {
                    answers[*place] = answer;
                }
            }
        }
        answers
    }

    /// Answers for replicas of this core.
    pub(super) async fn offsets_here(&self, call: OffsetsCall) -> Answers {
        let mut answers = Vec::new();
        match call {
            OffsetsCall::List(parts, isolation) => {
                for (key, current_epoch, timestamp) in parts {
                    answers.push(match self.replica(key) {
                        Ok(replica) => list_offset(&replica, current_epoch, timestamp, isolation).await,
                        Err(error) => Err(error),
                    });
                }
            }
            OffsetsCall::ForLeaderEpoch(parts) => {
                for (key, current_epoch, epoch) in parts {
                    answers.push(self.replica(key).and_then(|replica| {
                        replica.served()?;
                        replica
                            .inspect(|partition| {
                                partition.offset_for_leader_epoch(Some(LeaderEpoch(current_epoch)), LeaderEpoch(epoch))
                            })
                            .map(|(leader_epoch, offset)| ListedOffset { timestamp: -1, offset, leader_epoch })
                    }));
                }
            }
            OffsetsCall::DeleteRecords(parts) => {
                for (key, target) in parts {
                    answers.push(match self.replica(key) {
                        Ok(replica) => replica.delete_records(target).await.map(|offset| ListedOffset {
                            timestamp: -1,
                            offset,
                            leader_epoch: LeaderEpoch(-1),
                        }),
                        Err(error) => Err(error),
                    });
                }
            }
        }
        answers
    }
}

/// One partition of ListOffsets.
async fn list_offset(
    replica: &Replica,
    current_epoch: i32,
    timestamp: i64,
    _isolation: Isolation,
) -> Result<ListedOffset, ErrorCode> {
    replica.served()?;
    replica.inspect(|partition| partition.check_leader_epoch(Some(LeaderEpoch(current_epoch))))?;
    let none = ListedOffset { timestamp: -1, offset: Offset(-1), leader_epoch: LeaderEpoch(-1) };
    let (high_watermark, log_start_offset) =
        replica.inspect(|partition| (partition.high_watermark(), partition.log_start_offset()));
    let (timestamp, offset) = match timestamp {
        // Without transactions the last stable offset is the high watermark.
        special::LATEST => (-1, high_watermark),
        special::EARLIEST | special::EARLIEST_LOCAL => (-1, log_start_offset),
        special::LATEST_TIERED => return Ok(none),
        special::MAX_TIMESTAMP => match replica.log().max_timestamp_offset(high_watermark).await {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(none),
            Err(error) => return Err(code_of(&error)),
        },
        timestamp if timestamp < 0 => return Err(ErrorCode::UnsupportedVersion),
        timestamp => match replica.log().offset_for_timestamp(timestamp, high_watermark).await {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(none),
            Err(error) => return Err(code_of(&error)),
        },
    };
    let leader_epoch =
        replica.inspect(|partition| partition.state_ref().epochs.epoch_of(offset)).unwrap_or(LeaderEpoch(-1));
    Ok(ListedOffset { timestamp, offset, leader_epoch })
}
