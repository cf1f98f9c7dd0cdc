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
    /// # Errors  `NotLeaderOrFollower`, `OutOfOrderSequenceNumber`, `InvalidProducerEpoch`; `InvalidRecord` if the
    /// partition's offsets are used up.
    pub fn check_append(&self, info: &BatchInfo, _now: Timestamp) -> Result<AppendPlan, ErrorCode> {
        self.check_leads()?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{BrokerId, ProducerEpoch, ProducerId},
        partition::{
            AssignedRole, Assignment, FetchPartition, FetchRefusal, Fetcher, Isolation, PartitionState, StateError,
            fetch::FetchPlan,
        },
        protocol::{
            batch::{BatchInfo, TimestampType, sequence_after},
            compression::Compression,
        },
    };

    fn batch(producer: i64, epoch: i16, base_sequence: i32, count: i32) -> BatchInfo {
        BatchInfo {
            base_offset: Offset::ZERO,
            last_offset: Offset(i64::from(count) - 1),
            leader_epoch: LeaderEpoch(-1),
            producer_id: ProducerId(producer),
            producer_epoch: ProducerEpoch(epoch),
            base_sequence,
            last_sequence: sequence_after(base_sequence, count - 1),
            max_timestamp: 7,
            timestamp_type: TimestampType::CreateTime,
            record_count: count,
            bytes: 100,
            transactional: false,
            control: false,
            compression: Compression::None,
        }
    }

    fn empty() -> Partition {
        Partition::restored(&Assignment::alone(LeaderEpoch(0)), PartitionState::default())
    }

    /// Appends if it may: the outcome as text.
    fn append(partition: &mut Partition, info: &BatchInfo, now: Timestamp) -> String {
        match partition.check_append(info, now) {
            Ok(AppendPlan::Append { base_offset, leader_epoch }) => {
                partition.appended(&info.at(base_offset, leader_epoch), now);
                format!("at {base_offset}")
            }
            Ok(AppendPlan::Duplicate { base_offset, last_offset, .. }) => format!("again {base_offset}-{last_offset}"),
            Err(code) => format!("{code:?}"),
        }
    }

    #[test]
    fn sequences() {
        let mut partition = empty();
        for (producer, epoch, sequence, count, expected) in [
            (-1, -1, -1, 3, "at 0"),
            (-1, -1, -1, 3, "at 3"),
            // Nothing known of producer 1: it may begin anywhere.
            (1, 0, 4, 2, "at 6"),
            (1, 0, 6, 1, "at 8"),
            (1, 0, 6, 1, "again 8-8"),
            (1, 0, 4, 2, "again 6-7"),
            // Neither a repeat of a whole batch nor the next.
            (1, 0, 5, 2, "OutOfOrderSequenceNumber"),
            (1, 0, 4, 3, "OutOfOrderSequenceNumber"),
            (1, 0, 8, 1, "OutOfOrderSequenceNumber"),
            (1, 0, 0, 1, "OutOfOrderSequenceNumber"),
            (1, 0, 7, 1, "at 9"),
            (1, 0, 8, 1, "at 10"),
            (1, 0, 9, 1, "at 11"),
            // The first of six batches has left the window.
            (1, 0, 6, 1, "again 8-8"),
            (1, 0, 10, 1, "at 12"),
            (1, 0, 4, 2, "OutOfOrderSequenceNumber"),
            (2, 5, 0, 1, "at 13"),
            (1, 1, 3, 1, "OutOfOrderSequenceNumber"),
            (1, 1, 0, 1, "at 14"),
            (1, 1, 0, 1, "again 14-14"),
            (1, 0, 11, 1, "InvalidProducerEpoch"),
            (1, 0, 10, 1, "InvalidProducerEpoch"),
            (3, 0, i32::MAX - 1, 2, "at 15"),
            (3, 0, 0, 1, "at 17"),
            (3, 0, i32::MAX - 1, 2, "again 15-16"),
            (4, 0, i32::MAX, 3, "at 18"),
            (4, 0, i32::MAX, 3, "again 18-20"),
            (4, 0, 2, 1, "at 21"),
        ] {
            let info = batch(producer, epoch, sequence, count);
            assert_eq!(append(&mut partition, &info, 0), expected, "{producer}/{epoch} {sequence}+{count}");
        }
        assert_eq!(partition.log_end_offset(), Offset(22));
    }

    #[test]
    fn a_repeat_with_the_brokers_clock_has_its_time() {
        let mut partition = empty();
        let info = BatchInfo { timestamp_type: TimestampType::LogAppendTime, ..batch(1, 0, 0, 2) };
        append(&mut partition, &info, 0);
        let again = AppendPlan::Duplicate { base_offset: Offset(0), last_offset: Offset(1), log_append_time: Some(7) };
        assert_eq!(partition.check_append(&info, 9), Ok(again));
    }

    #[test]
    fn silence_is_measured_by_the_brokers_clock() {
        let mut partition = empty();
        append(&mut partition, &batch(1, 0, 0, 1), 1000);
        append(&mut partition, &batch(2, 0, 0, 1), 1500);
        partition.expire_producers(1999, 1000);
        assert_eq!(partition.state_ref().producers.len(), 2);
        partition.expire_producers(2000, 1000);
        assert_eq!(append(&mut partition, &batch(1, 0, 0, 1), 2000), "at 2", "forgotten: any sequence goes");
        assert_eq!(append(&mut partition, &batch(2, 0, 0, 1), 2000), "again 1-1");
    }

    #[test]
    fn state_survives_and_replay_repeats_itself() {
        let mut partition = empty();
        let mut log = Vec::new();
        for (epoch, info) in [
            (0, batch(-1, -1, -1, 4)),
            (0, batch(9, 0, 0, 2)),
            (0, batch(8, 3, 7, 1)),
            (2, batch(9, 0, 2, 1)),
            (3, batch(9, 1, 0, 5)),
        ] {
            let info = info.at(partition.log_end_offset(), LeaderEpoch(epoch));
            partition.appended(&info, 50);
            log.push(info);
        }
        assert_eq!(partition.flushed(Offset(13)), Some(Offset(13)));
        partition.move_log_start(Offset(5));
        let mut bytes = Vec::new();
        partition.state().encode(&mut bytes);
        let mut back = PartitionState::decode(&bytes).expect("as it was written");
        assert_eq!(back, partition.state());
        for info in &log {
            back.apply(info, 50);
        }
        assert_eq!(back, partition.state(), "batches that are counted already change nothing");
        assert_eq!(back.epochs.export(), "0\n3\n0 5\n2 7\n3 8\n");
        for cut in 0..bytes.len() {
            assert!(PartitionState::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        bytes.push(0);
        assert!(PartitionState::decode(&bytes).is_err());
        bytes.pop();
        assert_eq!(PartitionState::decode(&bytes[1..]), PartitionState::decode(&bytes), "version 1 had no byte for it");
        bytes[0] += 1;
        assert_eq!(PartitionState::decode(&bytes), Err(StateError::Newer(bytes[0])));
        // A forged count asks for nothing.
        let mut forged = vec![0; 24];
        forged.extend_from_slice(&i32::MAX.to_be_bytes());
        assert!(PartitionState::decode(&forged).is_err());
    }

    #[test]
    fn commit_and_delete() {
        let mut partition = empty();
        append(&mut partition, &batch(-1, -1, -1, 10), 0);
        for (end, expected) in [(0, None), (4, Some(4)), (4, None), (3, None), (10, Some(10))] {
            assert_eq!(partition.flushed(Offset(end)), expected.map(Offset), "{end}");
        }
        append(&mut partition, &batch(-1, -1, -1, 5), 0);
        for (target, expected) in [
            (0, Ok(0)),
            (6, Ok(6)),
            (-1, Ok(10)),
            (10, Ok(10)),
            (11, Err(ErrorCode::OffsetOutOfRange)),
            (-2, Err(ErrorCode::OffsetOutOfRange)),
        ] {
            assert_eq!(partition.delete_records(target), expected.map(Offset), "{target}");
        }
        partition.move_log_start(Offset(6));
        assert_eq!(partition.delete_records(3), Ok(Offset(6)), "what is gone stays gone");
        partition.move_log_start(Offset(2));
        assert_eq!(partition.log_start_offset(), Offset(6));
    }

    #[test]
    fn what_a_fetch_sees() {
        let mut partition = empty();
        for (epoch, count) in [(0, 10), (3, 10), (5, 10)] {
            let info = batch(-1, -1, -1, count).at(partition.log_end_offset(), LeaderEpoch(epoch));
            partition.appended(&info, 0);
        }
        partition.flushed(Offset(25));
        partition.move_log_start(Offset(4));
        let role = AssignedRole::Leader { others: vec![(BrokerId(2), true)] };
        let assignment = Assignment { role, ..Assignment::alone(LeaderEpoch(6)) };
        let mut partition = Partition::restored(&assignment, partition.state());
        append(&mut partition, &batch(-1, -1, -1, 5), 0);
        let plan = |from, upto| Ok(FetchPlan { from: Offset(from), upto: Offset(upto) });
        let error = |code| Err(FetchRefusal::Error(code));
        let diverging =
            |epoch, end| Err(FetchRefusal::Diverging { epoch: LeaderEpoch(epoch), end_offset: Offset(end) });
        use ErrorCode as E;
        let [uncommitted, committed] = [Isolation::ReadUncommitted, Isolation::ReadCommitted].map(Fetcher::Consumer);
        let follower = Fetcher::Follower { broker: BrokerId(2), broker_epoch: 7 };
        for (offset, current, fetched, reader, expected) in [
            (4, -1, -1, uncommitted, plan(4, 25)),
            (4, 6, -1, committed, plan(4, 25)),
            (4, 6, -1, follower, plan(4, 35)),
            (25, -1, -1, uncommitted, plan(25, 25)),
            (30, -1, -1, uncommitted, plan(30, 30)),
            (35, -1, -1, uncommitted, plan(35, 35)),
            (36, -1, -1, uncommitted, error(E::OffsetOutOfRange)),
            (3, -1, -1, uncommitted, error(E::OffsetOutOfRange)),
            (4, 5, -1, uncommitted, error(E::FencedLeaderEpoch)),
            (4, 7, -1, uncommitted, error(E::UnknownLeaderEpoch)),
            (15, 6, 3, uncommitted, plan(15, 25)),
            (20, 6, 3, uncommitted, plan(20, 25)),
            (21, 6, 3, uncommitted, diverging(3, 20)),
            (15, 6, 4, uncommitted, diverging(3, 20)),
            (15, 6, 7, uncommitted, error(E::OffsetOutOfRange)),
            (35, 6, 6, follower, plan(35, 35)),
            (3, 6, 4, follower, error(E::OffsetOutOfRange)),
            (4, 6, 3, Fetcher::Follower { broker: BrokerId(3), broker_epoch: 7 }, error(E::NotLeaderOrFollower)),
        ] {
            let request = FetchPartition {
                fetch_offset: Offset(offset),
                partition_max_bytes: 1,
                current_leader_epoch: Some(LeaderEpoch(current)),
                last_fetched_epoch: Some(LeaderEpoch(fetched)),
                log_start_offset: Offset(-1),
            };
            assert_eq!(partition.plan_fetch(&request, reader), expected, "{offset} {current} {fetched}");
        }
        let asked = partition.offset_for_leader_epoch(Some(LeaderEpoch(6)), LeaderEpoch(4));
        assert_eq!(asked, Ok((LeaderEpoch(3), Offset(20))));
        let fenced = partition.offset_for_leader_epoch(Some(LeaderEpoch(5)), LeaderEpoch(4));
        assert_eq!(fenced, Err(ErrorCode::FencedLeaderEpoch));
    }
}
