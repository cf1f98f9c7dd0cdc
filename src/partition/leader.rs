//! A leader's side of [`super::in_sync`]: followers that fetch, and who is to be in sync.

use super::{
    FollowerFetch, Partition,
    in_sync::{IsrChange, IsrState, Leading, Other, Pending},
    role::Role,
};
use crate::base::{BrokerId, ErrorCode, Offset};

impl Partition {
    fn leading(&self) -> Option<&Leading> {
        match &self.role {
            Role::Leader(leading) => Some(leading),
            Role::Follower { .. } => None,
        }
    }

    /// What an append that is answered when all in-sync replicas have it needs before it is taken.
    /// # Errors  `NotEnoughReplicas`.
    pub fn check_enough_in_sync(&self) -> Result<(), ErrorCode> {
        match self.leading() {
            Some(leading) if !leading.has_enough_in_sync() => Err(ErrorCode::NotEnoughReplicas),
            Some(_) | None => Ok(()),
        }
    }

    /// A follower asks for the records from its offset on: what it has before it is on its stable storage, since it asks only
    /// then. A life of it that is over has nothing to say.
    ///
    /// Returns the new high watermark if it moved. `now_ms` is a clock that never goes back.
    pub fn follower_fetched(&mut self, fetch: &FollowerFetch, now_ms: i64) -> Option<Offset> {
        let log_end = self.state.log_end_offset;
        if let Role::Leader(leading) = &mut self.role {
            leading.now_ms = now_ms;
            let other = leading.others.iter_mut().find(|other| other.id == fetch.broker);
            if let Some(other) = other.filter(|other| fetch.broker_epoch >= other.broker_epoch) {
                other.fetch(fetch, log_end, now_ms);
            }
        }
        self.commit()
    }

    /// Whether a replica that is not in sync has what one needs to be, as far as the partition knows.
    #[must_use]
    pub fn may_join(&self, id: BrokerId) -> bool {
        let Some(leading) = self.leading().filter(|leading| leading.pending.is_none()) else { return false };
        let other = leading.others.iter().find(|other| other.id == id);
        other.is_some_and(|other| leading.may_join(other, self.state.high_watermark))
    }

    /// What the controller is to be asked for, if other replicas are in sync than the metadata says: those go that have not
    /// had all of the log for longer than `lag_max_ms`, and those come that have what is committed and what earlier terms
    /// left. `is_eligible` says whether the metadata lets a broker in, in that life of it. Nothing is asked while an answer is
    /// outstanding, but what has to be asked again.
    ///
    /// Returns the new high watermark as well if it moved: some are waited for only so long.
    pub fn propose_in_sync(
        &mut self,
        now_ms: i64,
        lag_max_ms: i64,
        is_eligible: impl Fn(BrokerId, i64) -> bool,
    ) -> (Option<IsrChange>, Option<Offset>) {
        let change = self.proposed(now_ms, lag_max_ms, is_eligible);
        (change, self.commit())
    }

    fn proposed(
        &mut self,
        now_ms: i64,
        lag_max_ms: i64,
        is_eligible: impl Fn(BrokerId, i64) -> bool,
    ) -> Option<IsrChange> {
        let (leader_epoch, partition_epoch) = (self.leader_epoch, self.partition_epoch);
        let (log_end, high_watermark) = (self.state.log_end_offset, self.state.high_watermark);
        let Role::Leader(leading) = &mut self.role else { return None };
        leading.now_ms = now_ms;
        if let Some(pending) = &mut leading.pending {
            return std::mem::take(&mut pending.ask_again).then(|| pending.change.clone());
        }
        let joining =
            |other: &Other| leading.may_join(other, high_watermark) && is_eligible(other.id, other.broker_epoch);
        let joining: Vec<bool> = leading.others.iter().map(joining).collect();
        let (mut others, mut changes) = (Vec::new(), false);
        for (other, joins) in leading.others.iter_mut().zip(joining) {
            let lags = other.in_sync && {
                // Nobody is late before the term has begun.
                let caught_up_ms = *other.caught_up_ms.get_or_insert(now_ms);
                other.durable_end != Some(log_end) && now_ms.saturating_sub(caught_up_ms) > lag_max_ms
            };
            other.joins = joins;
            changes |= joins || lags;
            if joins || (other.in_sync && !lags) {
                others.push((other.id, other.broker_epoch));
            }
        }
        let change = changes.then_some(IsrChange { leader_epoch, partition_epoch, others })?;
        leading.pending = Some(Pending { change: change.clone(), ask_again: false });
        Some(change)
    }

    /// The controller has answered, or nobody knows what it did. Returns the new high watermark if it moved.
    pub fn in_sync_answered(&mut self, change: &IsrChange, answer: Result<IsrState, ErrorCode>) -> Option<Offset> {
        let leader_epoch = self.leader_epoch;
        let Role::Leader(leading) = &mut self.role else { return None };
        let pending = leading.pending.as_mut().filter(|pending| pending.change == *change)?;
        match answer {
            Ok(state) if state.leader_epoch == leader_epoch && state.partition_epoch > self.partition_epoch => {
                self.partition_epoch = state.partition_epoch;
                leading.pending = None;
                for other in &mut leading.others {
                    other.decided(state.in_sync_replicas.contains(&other.id));
                }
            }
            // It was not done, and will not be.
            Err(ErrorCode::IneligibleReplica | ErrorCode::OperationNotAttempted) => {
                leading.pending = None;
                leading.others.iter_mut().for_each(|other| other.joins = false);
            }
            // The controller is ahead of us: perhaps by what an earlier one of these asks has done. The metadata will say.
            Ok(_)
            | Err(
                ErrorCode::InvalidUpdateVersion
                | ErrorCode::FencedLeaderEpoch
                | ErrorCode::NewLeaderElected
                | ErrorCode::UnknownTopicOrPartition
                | ErrorCode::UnknownTopicId
                | ErrorCode::InvalidRequest,
            ) => {}
            // It may have been done, and must not be forgotten before that is known.
            Err(_) => pending.ask_again = true,
        }
        self.commit()
    }

    /// The first offset that the leader and all who are in sync keep at most: what lies below is gone for good.
    #[must_use]
    pub fn low_watermark(&self) -> Offset {
        let others = self.leading().into_iter().flat_map(|leading| &leading.others);
        let starts = others.filter(|other| other.in_sync).map(|other| other.log_start);
        starts.fold(self.state.log_start_offset, Offset::min)
    }

    /// Moves the high watermark of a leader to what every replica that counts has on stable storage. It never moves back.
    pub(super) fn commit(&mut self) -> Option<Offset> {
        let end = self.leading()?.committed(self.durable_end)?;
        if end <= self.state.high_watermark {
            return None;
        }
        self.state.high_watermark = end;
        Some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{LeaderEpoch, ProducerEpoch, ProducerId},
        partition::{AssignedRole, Assignment, PartitionState, in_sync::JOIN_WAIT_MS},
        protocol::{
            batch::{BatchInfo, TimestampType},
            compression::Compression,
        },
    };

    const LAG_MAX_MS: i64 = 10_000;
    const TERM: LeaderEpoch = LeaderEpoch(4);

    fn assignment(partition_epoch: i32, min_in_sync_replicas: i32, others: &[(i32, bool)]) -> Assignment {
        let others = others.iter().map(|(id, in_sync)| (BrokerId(*id), *in_sync)).collect();
        let role = AssignedRole::Leader { others };
        Assignment { leader_epoch: TERM, partition_epoch, min_in_sync_replicas, role }
    }

    /// Leads with 10 durable records of earlier terms, of which 5 are known to be committed.
    fn leader(min_in_sync_replicas: i32, others: &[(i32, bool)]) -> Partition {
        let state =
            PartitionState { log_end_offset: Offset(10), high_watermark: Offset(5), ..PartitionState::default() };
        Partition::restored(&assignment(0, min_in_sync_replicas, others), state)
    }

    fn append(partition: &mut Partition, records: i64) {
        let base = partition.log_end_offset();
        let info = BatchInfo {
            base_offset: base,
            last_offset: base.plus(records - 1),
            leader_epoch: TERM,
            producer_id: ProducerId::NONE,
            producer_epoch: ProducerEpoch(-1),
            base_sequence: -1,
            last_sequence: -1,
            max_timestamp: 7,
            timestamp_type: TimestampType::CreateTime,
            record_count: records as i32,
            bytes: 100,
            transactional: false,
            control: false,
            compression: Compression::None,
        };
        partition.appended(&info, 0);
        partition.flushed(partition.log_end_offset());
    }

    fn fetch(partition: &mut Partition, id: i32, offset: i64, now_ms: i64) -> Option<i64> {
        fetch_in_life(partition, id, 70, offset, now_ms)
    }

    fn fetch_in_life(partition: &mut Partition, id: i32, broker_epoch: i64, offset: i64, now_ms: i64) -> Option<i64> {
        let (offset, log_start_offset) = (Offset(offset), Offset(offset / 2));
        let fetch = FollowerFetch { broker: BrokerId(id), broker_epoch, offset, log_start_offset };
        partition.follower_fetched(&fetch, now_ms).map(|end| end.0)
    }

    fn propose(partition: &mut Partition, now_ms: i64) -> Option<(i32, Vec<i32>)> {
        let change = partition.propose_in_sync(now_ms, LAG_MAX_MS, |_, _| true).0;
        change.map(|change| (change.partition_epoch, change.others.iter().map(|(id, _)| id.0).collect()))
    }

    fn change(partition_epoch: i32, others: &[i32]) -> IsrChange {
        IsrChange { leader_epoch: TERM, partition_epoch, others: others.iter().map(|id| (BrokerId(*id), 70)).collect() }
    }

    fn state(partition_epoch: i32, in_sync: &[i32]) -> IsrState {
        let in_sync_replicas = in_sync.iter().copied().map(BrokerId).collect();
        IsrState { leader_epoch: TERM, partition_epoch, in_sync_replicas }
    }

    #[test]
    fn no_more_replicas_are_wanted_than_there_are() {
        for (min, in_sync, others, enough) in [
            (1, 0, 0, true),
            (2, 0, 0, true),
            (2, 0, 2, false),
            (2, 1, 2, true),
            (5, 1, 2, false),
            (5, 2, 2, true),
            (0, 0, 2, true),
        ] {
            let others: Vec<(i32, bool)> = (0..others).map(|id| (id + 2, id < in_sync)).collect();
            let expected = if enough { Ok(()) } else { Err(ErrorCode::NotEnoughReplicas) };
            assert_eq!(leader(min, &others).check_enough_in_sync(), expected, "{min} of {others:?}");
        }
    }

    #[test]
    fn with_too_few_in_sync_nothing_is_committed() {
        let mut partition = leader(2, &[(2, false), (3, false)]);
        assert_eq!(partition.high_watermark(), Offset(5), "a new leader keeps its high watermark");
        append(&mut partition, 1);
        assert_eq!(fetch(&mut partition, 2, 11, 0), None, "it has everything, and is not in sync");
        assert_eq!(partition.assign(&assignment(1, 2, &[(2, true), (3, false)])), Some(Offset(11)));
        append(&mut partition, 1);
        assert_eq!(partition.assign(&assignment(2, 2, &[(2, false), (3, false)])), None);
        assert_eq!(partition.check_enough_in_sync(), Err(ErrorCode::NotEnoughReplicas));
        let by_setting = partition.assign(&assignment(2, 1, &[(2, false), (3, false)]));
        assert_eq!(by_setting, Some(Offset(12)), "one is enough now");
    }

    #[test]
    fn who_was_at_the_end_is_waited_for_a_while_and_who_was_put_out_is_not() {
        let mut partition = leader(1, &[(2, true), (3, false)]);
        assert_eq!(fetch(&mut partition, 2, 10, 0), Some(10));
        fetch(&mut partition, 3, 10, 0);
        append(&mut partition, 2);
        assert_eq!(fetch(&mut partition, 2, 12, 5), None, "3 is about to join");
        let waited = partition.propose_in_sync(JOIN_WAIT_MS + 1, LAG_MAX_MS, |_, _| false);
        assert_eq!(waited, (None, Some(Offset(12))));
        append(&mut partition, 1);
        assert_eq!(fetch(&mut partition, 2, 12, JOIN_WAIT_MS + 2), None);
        let dead = partition.assign(&assignment(1, 1, &[(2, false), (3, false)]));
        assert_eq!(dead, Some(Offset(13)), "2 was at the end a moment ago");
    }

    #[test]
    fn who_has_not_been_at_the_end_for_long_leaves_and_who_has_caught_up_comes() {
        let mut partition = leader(1, &[(2, true), (3, true)]);
        assert_eq!(propose(&mut partition, 100), None, "the term has just begun");
        append(&mut partition, 5);
        // 2 is always one fetch behind, and never late; 3 is silent.
        for (now_ms, offset) in [(1000, 10), (2000, 15), (9000, 15)] {
            assert_eq!(fetch(&mut partition, 2, offset, now_ms), None);
            append(&mut partition, 1);
        }
        assert_eq!(propose(&mut partition, 100 + LAG_MAX_MS), None);
        assert_eq!(propose(&mut partition, 101 + LAG_MAX_MS), Some((0, vec![2])));
        assert_eq!(propose(&mut partition, 102 + LAG_MAX_MS), None, "one ask at a time");
        assert_eq!(fetch(&mut partition, 2, 18, 10_200), None, "3 counts until the controller has said");
        assert_eq!(partition.in_sync_answered(&change(0, &[2]), Ok(state(1, &[1, 2]))), Some(Offset(18)));
        assert_eq!(partition.assign(&assignment(0, 1, &[(2, true), (3, true)])), None, "the metadata comes later");
        append(&mut partition, 2);
        assert_eq!(fetch(&mut partition, 2, 20, 10_300), Some(20), "3 is out");

        // What it has is below what is committed, then not.
        fetch(&mut partition, 3, 19, 10_400);
        assert!(!partition.may_join(BrokerId(3)));
        fetch(&mut partition, 3, 20, 10_400);
        assert!(partition.may_join(BrokerId(3)));
        let refused = partition.propose_in_sync(10_400, LAG_MAX_MS, |id, epoch| (id.0, epoch) != (3, 70));
        assert_eq!(refused.0, None, "in that life it is fenced");
        assert_eq!(propose(&mut partition, 10_400), Some((1, vec![2, 3])));
    }

    #[test]
    fn a_replica_joins_not_before_it_has_what_earlier_terms_left() {
        let mut partition = leader(1, &[(2, false)]);
        assert_eq!(partition.high_watermark(), Offset(10));
        let mut partition_behind = leader(2, &[(2, true), (3, false)]);
        for (offset, joins) in [(4, false), (7, false), (9, false), (10, true)] {
            fetch(&mut partition_behind, 3, offset, 0);
            assert_eq!(
                partition_behind.may_join(BrokerId(3)),
                joins,
                "{offset}: 5 are committed, the term began at 10"
            );
            fetch(&mut partition, 2, offset, 0);
            assert_eq!(partition.may_join(BrokerId(2)), joins);
        }
    }

    #[test]
    fn who_is_asked_to_be_added_counts_until_it_is_known_that_it_is_not() {
        let ask = |partition: &mut Partition| {
            fetch(partition, 2, 10, 0);
            assert_eq!(propose(partition, 0), Some((0, vec![2])));
            append(partition, 3);
            // The one second in which it would be waited for anyway.
            propose(partition, 2 * JOIN_WAIT_MS);
            assert_eq!(partition.commit(), None, "2 has not got it");
        };
        let asked = change(0, &[2]);
        for (answer, high_watermark, again) in [
            (Ok(state(1, &[1, 2])), 10, false),
            (Err(ErrorCode::IneligibleReplica), 13, false),
            (Err(ErrorCode::OperationNotAttempted), 13, false),
            (Err(ErrorCode::InvalidUpdateVersion), 10, false),
            (Err(ErrorCode::FencedLeaderEpoch), 10, false),
            (Err(ErrorCode::NotController), 10, true),
            (Err(ErrorCode::RequestTimedOut), 10, true),
        ] {
            let mut partition = leader(1, &[(2, false)]);
            ask(&mut partition);
            partition.in_sync_answered(&asked, answer.clone());
            assert_eq!(partition.high_watermark(), Offset(high_watermark), "{answer:?}");
            let expected = again.then_some((0, vec![2]));
            assert_eq!(propose(&mut partition, 2 * JOIN_WAIT_MS), expected, "{answer:?}");
            // Whatever it was: a later state of the partition decides.
            partition.assign(&assignment(2, 1, &[(2, false)]));
            assert_eq!(partition.high_watermark(), Offset(13), "{answer:?}");
            assert_eq!(partition.in_sync_answered(&asked, Ok(state(1, &[1, 2]))), None);
            assert_eq!(partition.check_enough_in_sync(), Ok(()), "an answer that was overtaken");
        }
    }

    #[test]
    fn an_earlier_life_of_a_follower_has_nothing_to_say() {
        let mut partition = leader(1, &[(2, true)]);
        assert_eq!(fetch_in_life(&mut partition, 2, 70, 6, 0), Some(6));
        assert_eq!(fetch_in_life(&mut partition, 2, 80, 0, 0), None, "it has lost its disk");
        assert_eq!(fetch_in_life(&mut partition, 2, 70, 10, 0), None, "late word of what it had before");
        assert_eq!(partition.check_follower(BrokerId(2), 70), Err(ErrorCode::NotLeaderOrFollower));
        assert_eq!(partition.check_follower(BrokerId(2), 80), Ok(()));
        assert_eq!(fetch_in_life(&mut partition, 2, 80, 8, 0), Some(8));
    }

    #[test]
    fn what_all_in_sync_replicas_have_deleted_is_below_the_low_watermark() {
        let mut partition = leader(1, &[(2, true), (3, false)]);
        partition.move_log_start(Offset(4));
        assert_eq!(partition.low_watermark(), Offset(0), "nobody knows of 2");
        fetch(&mut partition, 2, 6, 0);
        assert_eq!(partition.low_watermark(), Offset(3));
        fetch(&mut partition, 2, 10, 0);
        assert_eq!(partition.low_watermark(), Offset(4));
    }
}
