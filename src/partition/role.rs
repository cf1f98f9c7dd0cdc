//! What this broker is to a partition: its leader, or one of those who follow.

use super::Partition;
use crate::{
    base::{BrokerId, ErrorCode, LeaderEpoch, Offset},
    metadata,
};

/// What the metadata says of a partition to a broker that holds a replica of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The leader's term.
    pub leader_epoch: LeaderEpoch,
    /// Whether the broker leads in that term, or follows.
    pub role: AssignedRole,
}

/// The part of an [`Assignment`] that differs between leader and follower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AssignedRole {
    /// Leads; the other replicas follow.
    Leader {
        /// The other replicas, and whether each is in sync.
        others: Vec<(BrokerId, bool)>,
    },
    /// Follows.
    Follower {
        /// Whom; nobody while the partition has no leader.
        leader: Option<BrokerId>,
    },
}

impl Assignment {
    /// The assignment of a partition's only replica.
    #[must_use]
    pub fn alone(leader_epoch: LeaderEpoch) -> Self {
        Self { leader_epoch, role: AssignedRole::Leader { others: Vec::new() } }
    }

    /// What `partition` is to broker `me`; nothing if it holds no replica.
    #[must_use]
    pub fn of(partition: &metadata::PartitionRegistration, me: BrokerId) -> Option<Self> {
        if !partition.replicas.contains(&me) {
            return None;
        }
        let role = if partition.leader == Some(me) {
            let others = partition.replicas.iter().filter(|id| **id != me);
            let in_sync = |id: &BrokerId| partition.in_sync_replicas.contains(id);
            AssignedRole::Leader { others: others.map(|id| (*id, in_sync(id))).collect() }
        } else {
            AssignedRole::Follower { leader: partition.leader }
        };
        Some(Self { leader_epoch: partition.leader_epoch, role })
    }
}

/// The role that a partition plays, with what is known of the other replicas.
#[derive(Clone, Debug)]
pub(super) enum Role {
    Leader { others: Vec<Other> },
    Follower { leader: Option<BrokerId> },
}

/// Another replica, as the leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Other {
    id: BrokerId,
    in_sync: bool,
    /// Everything below it is on its stable storage. Absent until it has fetched in this term.
    durable_end: Option<Offset>,
}

impl Role {
    pub fn of(assigned: &AssignedRole) -> Self {
        match assigned {
            AssignedRole::Leader { others } => {
                let other = |(id, in_sync): &(BrokerId, bool)| Other { id: *id, in_sync: *in_sync, durable_end: None };
                Self::Leader { others: others.iter().map(other).collect() }
            }
            AssignedRole::Follower { leader } => Self::Follower { leader: *leader },
        }
    }

    /// Takes another list of replicas in the same term: what is known of those who stay is kept.
    fn adjust(&mut self, assigned: &AssignedRole) {
        let before = std::mem::replace(self, Self::of(assigned));
        if let (Self::Leader { others: before }, Self::Leader { others }) = (before, self) {
            for other in others {
                other.durable_end = before.iter().find(|it| it.id == other.id).and_then(|it| it.durable_end);
            }
        }
    }
}

impl Partition {
    /// Takes the role that the metadata assigns. An assignment of an earlier term changes nothing: a later one is known.
    ///
    /// Returns the new high watermark if it moved: it does when a replica that was behind leaves the in-sync ones.
    pub fn assign(&mut self, assignment: &Assignment) -> Option<Offset> {
        if assignment.leader_epoch < self.leader_epoch {
            return None;
        }
        if assignment.leader_epoch == self.leader_epoch {
            self.role.adjust(&assignment.role);
        } else {
            self.leader_epoch = assignment.leader_epoch;
            self.role = Role::of(&assignment.role);
        }
        self.begin_term();
        self.commit()
    }

    /// A leader's records are of its term from the end of its log on.
    pub(super) fn begin_term(&mut self) {
        if self.is_leader() {
            self.state.epochs.assign(self.leader_epoch, self.state.log_end_offset);
        }
    }

    /// Whether this broker leads the partition.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader { .. })
    }

    /// The broker that this one follows; none if it leads, or if the partition has no leader.
    #[must_use]
    pub fn followed_leader(&self) -> Option<BrokerId> {
        match self.role {
            Role::Leader { .. } => None,
            Role::Follower { leader } => leader,
        }
    }

    /// What only a leader may do.
    /// # Errors  `NotLeaderOrFollower`.
    pub fn check_leads(&self) -> Result<(), ErrorCode> {
        if self.is_leader() { Ok(()) } else { Err(ErrorCode::NotLeaderOrFollower) }
    }

    /// What only a replica of the partition may ask its leader.
    /// # Errors  `NotLeaderOrFollower` for any other broker.
    pub(super) fn check_follower(&self, id: BrokerId) -> Result<(), ErrorCode> {
        match &self.role {
            Role::Leader { others } if others.iter().any(|other| other.id == id) => Ok(()),
            Role::Leader { .. } | Role::Follower { .. } => Err(ErrorCode::NotLeaderOrFollower),
        }
    }

    /// A follower asks for the records from `offset` on: what it has before it is on its stable storage, since it asks only
    /// then.
    ///
    /// Returns the new high watermark if it moved.
    pub fn follower_fetched(&mut self, id: BrokerId, offset: Offset) -> Option<Offset> {
        if let Role::Leader { others } = &mut self.role
            && let Some(other) = others.iter_mut().find(|other| other.id == id)
        {
            other.durable_end = Some(offset.min(self.state.log_end_offset));
        }
        self.commit()
    }

    /// Moves the high watermark of a leader to what every in-sync replica has on stable storage. It never moves back.
    pub(super) fn commit(&mut self) -> Option<Offset> {
        let Role::Leader { others } = &self.role else { return None };
        let mut end = self.durable_end;
        for other in others.iter().filter(|other| other.in_sync) {
            end = end.min(other.durable_end?);
        }
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
        base::{ProducerEpoch, ProducerId},
        partition::{FollowRefusal, PartitionState},
        protocol::{
            batch::{BatchInfo, TimestampType},
            compression::Compression,
        },
    };

    const ME: BrokerId = BrokerId(1);

    fn batch(base_offset: i64, epoch: i32, count: i32) -> BatchInfo {
        BatchInfo {
            base_offset: Offset(base_offset),
            last_offset: Offset(base_offset + i64::from(count) - 1),
            leader_epoch: LeaderEpoch(epoch),
            producer_id: ProducerId::NONE,
            producer_epoch: ProducerEpoch(-1),
            base_sequence: -1,
            last_sequence: -1,
            max_timestamp: 7,
            timestamp_type: TimestampType::CreateTime,
            record_count: count,
            bytes: 100,
            transactional: false,
            control: false,
            compression: Compression::None,
        }
    }

    fn leads(epoch: i32, others: &[(i32, bool)]) -> Assignment {
        let others = others.iter().map(|(id, in_sync)| (BrokerId(*id), *in_sync)).collect();
        Assignment { leader_epoch: LeaderEpoch(epoch), role: AssignedRole::Leader { others } }
    }

    fn follows(epoch: i32, leader: i32) -> Assignment {
        let role = AssignedRole::Follower { leader: Some(BrokerId(leader)) };
        Assignment { leader_epoch: LeaderEpoch(epoch), role }
    }

    #[test]
    fn the_metadata_says_who_leads() {
        let mut partition = metadata::PartitionRegistration {
            replicas: [3, 1, 2].map(BrokerId).to_vec(),
            in_sync_replicas: [1, 2].map(BrokerId).to_vec(),
            removing_replicas: Vec::new(),
            adding_replicas: Vec::new(),
            leader: Some(ME),
            leader_epoch: LeaderEpoch(4),
            partition_epoch: 9,
            leader_recovery_state: 0,
            directories: Vec::new(),
            eligible_leader_replicas: Vec::new(),
            last_known_elr: Vec::new(),
        };
        assert_eq!(Assignment::of(&partition, ME), Some(leads(4, &[(3, false), (2, true)])));
        assert_eq!(Assignment::of(&partition, BrokerId(2)), Some(follows(4, 1)));
        assert_eq!(Assignment::of(&partition, BrokerId(7)), None);
        partition.leader = None;
        let nobody = AssignedRole::Follower { leader: None };
        assert_eq!(Assignment::of(&partition, ME).map(|it| it.role), Some(nobody));
    }

    #[test]
    fn what_every_in_sync_replica_has_is_committed() {
        let assignment = leads(1, &[(2, true), (3, true), (4, false)]);
        let mut partition = Partition::restored(&assignment, PartitionState::default());
        partition.appended(&batch(0, 1, 10), 0);
        for (step, moved) in [
            (partition.flushed(Offset(10)), None),
            (partition.follower_fetched(BrokerId(2), Offset(10)), None),
            (partition.follower_fetched(BrokerId(4), Offset(10)), None),
            (partition.follower_fetched(BrokerId(3), Offset(6)), Some(6)),
            (partition.follower_fetched(BrokerId(3), Offset(4)), None),
            (partition.follower_fetched(BrokerId(9), Offset(10)), None),
            // Whoever is behind and leaves the in-sync ones holds nobody up; who joins them counts from then on.
            (partition.assign(&leads(1, &[(2, true), (3, false), (4, true)])), Some(10)),
        ] {
            assert_eq!(step, moved.map(Offset));
        }
        partition.appended(&batch(10, 1, 5), 0);
        assert_eq!(partition.flushed(Offset(15)), None, "replica 2 has no more than 10");
        assert_eq!(partition.assign(&leads(2, &[(2, true)])), None, "in a new term nobody has fetched yet");
        assert_eq!(
            partition.follower_fetched(BrokerId(2), Offset(99)),
            Some(Offset(15)),
            "no further than the log goes"
        );
    }

    #[test]
    fn a_follower_takes_what_continues_its_log_and_serves_nobody() {
        let mut partition = Partition::restored(&follows(3, 2), PartitionState::default());
        assert_eq!(partition.followed_leader(), Some(BrokerId(2)));
        assert_eq!(partition.check_append(&batch(0, -1, 1), 0), Err(ErrorCode::NotLeaderOrFollower));
        assert_eq!(partition.delete_records(-1), Err(ErrorCode::NotLeaderOrFollower));
        let asked = partition.offset_for_leader_epoch(Some(LeaderEpoch(3)), LeaderEpoch(1));
        assert_eq!(asked, Err(ErrorCode::NotLeaderOrFollower));
        for (info, expected) in [
            (batch(0, 1, 4), Ok(())),
            (batch(4, 2, 1), Ok(())),
            (batch(4, 2, 2), Err(FollowRefusal::Overlaps { log_end_offset: Offset(5) })),
            // A cleaned log has gaps.
            (batch(9, 3, 1), Ok(())),
            (batch(10, 4, 1), Err(FollowRefusal::Epoch)),
            (batch(10, 2, 1), Err(FollowRefusal::Epoch)),
        ] {
            assert_eq!(partition.check_follow(&info), expected, "{}", info.base_offset);
            if expected.is_ok() {
                partition.followed(&info, 0);
            }
        }
        assert_eq!(partition.leader_committed(Offset(8)), None, "nothing is durable here yet");
        assert_eq!(partition.flushed(Offset(5)), None, "what is committed the leader says");
        assert_eq!(partition.leader_committed(Offset(8)), Some(Offset(5)));
        assert_eq!(partition.leader_committed(Offset(3)), None, "it never moves back");
        assert_eq!(partition.state_ref().epochs.export(), "0\n3\n1 0\n2 4\n3 9\n");
        // It takes over: what it has becomes committed once those who are in sync have it.
        assert_eq!(partition.assign(&follows(2, 3)), None, "an earlier term");
        assert_eq!(partition.followed_leader(), Some(BrokerId(2)));
        assert_eq!(partition.assign(&leads(4, &[])), None);
        assert_eq!(partition.flushed(Offset(10)), Some(Offset(10)));
        assert_eq!(partition.check_follow(&batch(10, 4, 1)), Err(FollowRefusal::Leads));
        assert_eq!(partition.state_ref().epochs.latest(), Some(LeaderEpoch(4)));
    }

    /// Whatever the order: nothing counts as committed that an in-sync replica may lack, nor on a follower what its leader
    /// has not committed, and neither goes back.
    #[test]
    fn the_high_watermark_is_never_too_high() {
        for seed in 0..200 {
            let mut state: u64 = seed;
            let mut below = |bound: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % bound
            };
            let mut leader = Partition::restored(&leads(0, &[(2, true), (3, true)]), PartitionState::default());
            let mut follower = Partition::restored(&follows(0, 1), PartitionState::default());
            let mut in_sync = [true, true];
            let mut fetched = [None::<i64>; 2];
            let mut batches = Vec::new();
            for _ in 0..200 {
                let (before, followers) = (leader.high_watermark(), follower.high_watermark());
                match below(7) {
                    0 | 1 => {
                        let info = batch(leader.log_end_offset().0, 0, 1 + below(5) as i32);
                        leader.appended(&info, 0);
                        batches.push(info);
                    }
                    2 => {
                        let ahead = leader.log_end_offset().since(leader.durable_end()) as u64;
                        leader.flushed(leader.durable_end().plus(below(ahead + 1) as i64));
                    }
                    3 => {
                        if let Some(next) = batches.iter().find(|it| it.base_offset >= follower.log_end_offset()) {
                            assert_eq!(follower.check_follow(next), Ok(()));
                            follower.followed(next, 0);
                        }
                    }
                    4 => {
                        follower.flushed(follower.log_end_offset());
                        leader.follower_fetched(BrokerId(2), follower.durable_end());
                        fetched[0] = Some(follower.durable_end().0);
                        follower.leader_committed(leader.high_watermark());
                    }
                    5 => {
                        let end = below(leader.log_end_offset().0 as u64 + 1) as i64;
                        leader.follower_fetched(BrokerId(3), Offset(end));
                        fetched[1] = Some(end);
                    }
                    _ => {
                        in_sync[1] = below(2) == 0;
                        leader.assign(&leads(0, &[(2, in_sync[0]), (3, in_sync[1])]));
                    }
                }
                let most = (0..2).filter(|other| in_sync[*other]).map(|other| fetched[other].unwrap_or(0)).min();
                let moved = leader.high_watermark() > before;
                assert!(!moved || leader.high_watermark() <= leader.durable_end(), "seed {seed}");
                assert!(!moved || most.is_none_or(|most| leader.high_watermark().0 <= most), "seed {seed}");
                assert!(leader.high_watermark() >= before && follower.high_watermark() >= followers, "seed {seed}");
                assert!(follower.high_watermark() <= leader.high_watermark(), "seed {seed}");
                assert!(follower.high_watermark() <= follower.durable_end(), "seed {seed}");
            }
            assert!(leader.high_watermark() > Offset::ZERO, "seed {seed}");
        }
    }
}
