//! What this broker is to a partition: its leader, or one of those who follow.

use super::{Partition, in_sync::Leading};
use crate::{
    base::{BrokerId, ErrorCode, LeaderEpoch, Offset},
    metadata,
};

/// What the metadata says of a partition to a broker that holds a replica of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The leader's term.
    pub leader_epoch: LeaderEpoch,
    /// Which state of the partition it is; grows with each change of it.
    pub partition_epoch: i32,
    /// `min.insync.replicas` of the topic.
    pub min_in_sync_replicas: i32,
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
        let role = AssignedRole::Leader { others: Vec::new() };
        Self { leader_epoch, partition_epoch: 0, min_in_sync_replicas: 1, role }
    }

    /// What `partition` is to broker `me`; nothing if it holds no replica.
    #[must_use]
    pub fn of(partition: &metadata::PartitionRegistration, min_in_sync_replicas: i32, me: BrokerId) -> Option<Self> {
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
        let (leader_epoch, partition_epoch) = (partition.leader_epoch, partition.partition_epoch);
        Some(Self { leader_epoch, partition_epoch, min_in_sync_replicas, role })
    }
}

/// The role that a partition plays, with what a leader knows of the other replicas.
#[derive(Clone, Debug)]
pub(super) enum Role {
    Leader(Leading),
    Follower { leader: Option<BrokerId> },
}

impl Role {
    /// A role that begins where the log ends.
    pub fn of(assignment: &Assignment, log_end: Offset) -> Self {
        match &assignment.role {
            AssignedRole::Leader { others } => {
                Self::Leader(Leading::new(others, assignment.min_in_sync_replicas, log_end))
            }
            AssignedRole::Follower { leader } => Self::Follower { leader: *leader },
        }
    }
}

impl Partition {
    /// Takes the role that the metadata assigns. An assignment of an earlier term changes nothing, nor does an earlier state of
    /// the partition: a later one is known, perhaps from the controller's answer.
    ///
    /// Returns the new high watermark if it moved: it does when a replica that was behind leaves the in-sync ones.
    pub fn assign(&mut self, assignment: &Assignment) -> Option<Offset> {
        let (known, given) =
            ((self.leader_epoch, self.partition_epoch), (assignment.leader_epoch, assignment.partition_epoch));
        if given < known {
            return None;
        }
        (self.leader_epoch, self.partition_epoch) = given;
        match (&mut self.role, &assignment.role) {
            (Role::Leader(leading), AssignedRole::Leader { others }) if given.0 == known.0 => {
                leading.set_min_in_sync_replicas(assignment.min_in_sync_replicas);
                if given > known {
                    leading.adjust(others);
                }
            }
            (role, _) => *role = Role::of(assignment, self.state.log_end_offset),
        }
        self.begin_term();
        self.commit()
    }

    /// A leader's records are of its term from the end of its log on. A follower knows of the epochs that its records have: one
    /// that it led and in which nothing was appended is not in its leader's log, or begins elsewhere.
    pub(super) fn begin_term(&mut self) {
        let log_end = self.state.log_end_offset;
        match self.role {
            Role::Leader(_) => self.state.epochs.assign(self.leader_epoch, log_end),
            Role::Follower { .. } => self.state.epochs.truncate_end(log_end),
        }
    }

    /// Whether this broker leads the partition.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// The broker that this one follows; none if it leads, or if the partition has no leader.
    #[must_use]
    pub fn followed_leader(&self) -> Option<BrokerId> {
        match self.role {
            Role::Leader(_) => None,
            Role::Follower { leader } => leader,
        }
    }

    /// What only a leader may do.
    /// # Errors  `NotLeaderOrFollower`.
    pub fn check_leads(&self) -> Result<(), ErrorCode> {
        if self.is_leader() { Ok(()) } else { Err(ErrorCode::NotLeaderOrFollower) }
    }

    /// What only a replica of the partition may ask its leader.
    /// # Errors  `NotLeaderOrFollower` for any other broker, or an earlier life of that one.
    pub(super) fn check_follower(&self, id: BrokerId, broker_epoch: i64) -> Result<(), ErrorCode> {
        match &self.role {
            Role::Leader(leading) if leading.knows(id, broker_epoch) => Ok(()),
            Role::Leader(_) | Role::Follower { .. } => Err(ErrorCode::NotLeaderOrFollower),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{ProducerEpoch, ProducerId},
        partition::{FollowRefusal, FollowerFetch, PartitionState},
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
        leads_in(epoch, 0, others)
    }

    fn leads_in(epoch: i32, partition_epoch: i32, others: &[(i32, bool)]) -> Assignment {
        let others = others.iter().map(|(id, in_sync)| (BrokerId(*id), *in_sync)).collect();
        let (leader_epoch, role) = (LeaderEpoch(epoch), AssignedRole::Leader { others });
        Assignment { leader_epoch, partition_epoch, min_in_sync_replicas: 1, role }
    }

    fn follows(epoch: i32, leader: i32) -> Assignment {
        let role = AssignedRole::Follower { leader: Some(BrokerId(leader)) };
        Assignment { leader_epoch: LeaderEpoch(epoch), partition_epoch: 0, min_in_sync_replicas: 1, role }
    }

    fn fetched_by(id: i32, offset: Offset) -> FollowerFetch {
        FollowerFetch { broker: BrokerId(id), broker_epoch: 7, offset, log_start_offset: Offset::ZERO }
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
        assert_eq!(Assignment::of(&partition, 1, ME), Some(leads_in(4, 9, &[(3, false), (2, true)])));
        assert_eq!(
            Assignment::of(&partition, 1, BrokerId(2)),
            Some(Assignment { partition_epoch: 9, ..follows(4, 1) })
        );
        assert_eq!(Assignment::of(&partition, 1, BrokerId(7)), None);
        partition.leader = None;
        let nobody = AssignedRole::Follower { leader: None };
        assert_eq!(Assignment::of(&partition, 1, ME).map(|it| it.role), Some(nobody));
    }

    #[test]
    fn what_every_in_sync_replica_has_is_committed() {
        let assignment = leads(1, &[(2, true), (3, true), (4, false)]);
        let mut partition = Partition::restored(&assignment, PartitionState::default());
        partition.appended(&batch(0, 1, 10), 0);
        for (step, moved) in [
            (partition.flushed(Offset(10)), None),
            (partition.follower_fetched(&fetched_by(2, Offset(10)), 0), None),
            (partition.follower_fetched(&fetched_by(4, Offset(10)), 0), None),
            (partition.follower_fetched(&fetched_by(3, Offset(6)), 0), Some(6)),
            (partition.follower_fetched(&fetched_by(3, Offset(4)), 0), None),
            (partition.follower_fetched(&fetched_by(9, Offset(10)), 0), None),
            // Whoever is behind and leaves the in-sync ones holds nobody up; who joins them counts from then on.
            (partition.assign(&leads_in(1, 1, &[(2, true), (3, false), (4, true)])), Some(10)),
        ] {
            assert_eq!(step, moved.map(Offset));
        }
        partition.appended(&batch(10, 1, 5), 0);
        assert_eq!(partition.flushed(Offset(15)), None, "replica 2 has no more than 10");
        assert_eq!(partition.assign(&leads(2, &[(2, true)])), None, "in a new term nobody has fetched yet");
        assert_eq!(
            partition.follower_fetched(&fetched_by(2, Offset(99)), 0),
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
            let (mut in_sync, mut changes) = ([true, true], 0);
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
                        leader.follower_fetched(&fetched_by(2, follower.durable_end()), 0);
                        fetched[0] = Some(follower.durable_end().0);
                        follower.leader_committed(leader.high_watermark());
                    }
                    5 => {
                        let end = below(leader.log_end_offset().0 as u64 + 1) as i64;
                        leader.follower_fetched(&fetched_by(3, Offset(end)), 0);
                        fetched[1] = Some(end);
                    }
                    _ => {
                        in_sync[1] = below(2) == 0;
                        changes += 1;
                        leader.assign(&leads_in(0, changes, &[(2, in_sync[0]), (3, in_sync[1])]));
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
