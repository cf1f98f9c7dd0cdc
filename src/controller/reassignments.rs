//! Replicas that move: AlterPartitionReassignments (45, KIP-455, KIP-860).
//!
//! Differs from Kafka: a replica that is on its way in stays so when the target changes and still has it, where Kafka takes it
//! for one that has everything.

use kafka_protocol::{
    messages::{
        AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
        alter_partition_reassignments_request::ReassignablePartition,
        alter_partition_reassignments_response::{ReassignablePartitionResponse, ReassignableTopicResponse},
    },
    protocol::StrBytes,
};

use super::{ApiError, Controller, PARTITIONS_PER_REQUEST_MAX, transition::Election};
use crate::{
    base::{BrokerId, ErrorCode, PartitionKey},
    metadata::PartitionRegistration,
    protocol::metadata_records::{MetadataRecord, PartitionChange},
};

impl Controller {
    /// AlterPartitionReassignments, versions 0–1. In version 0 the number of replicas may change.
    pub fn alter_partition_reassignments(
        &mut self,
        request: &AlterPartitionReassignmentsRequest,
    ) -> (Vec<MetadataRecord>, AlterPartitionReassignmentsResponse) {
        let mut records = Vec::new();
        let topics = request.topics.iter().map(|asked| {
            let partitions = asked.partitions.iter().map(|partition| {
                let answer = ReassignablePartitionResponse::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_message(None);
                // One partition may be named often, and each time go somewhere else.
                let decided = match records.len() < PARTITIONS_PER_REQUEST_MAX {
                    true => self.reassign(&asked.name, partition, request.allow_replication_factor_change),
                    false => {
                        let message = "Excessively large number of partitions per request.";
                        Err(ApiError::new(ErrorCode::PolicyViolation, message))
                    }
                };
                match decided {
                    Ok(change) => {
                        let change: Vec<_> = change.map(MetadataRecord::PartitionChange).into_iter().collect();
                        self.apply(&change);
                        records.extend(change);
                        answer
                    }
                    Err(refusal) => answer.with_error_code(refusal.code.code()).with_error_message(refusal.message()),
                }
            });
            ReassignableTopicResponse::default().with_name(asked.name.clone()).with_partitions(partitions.collect())
        });
        let topics = topics.collect();
        let answer = AlterPartitionReassignmentsResponse::default()
            .with_allow_replication_factor_change(request.allow_replication_factor_change)
            // Kafka's answer to nothing is the empty one.
            .with_error_message(request.topics.is_empty().then(StrBytes::new))
            .with_responses(topics);
        (records, answer)
    }

    fn reassign(
        &self,
        name: &str,
        asked: &ReassignablePartition,
        other_count: bool,
    ) -> Result<Option<PartitionChange>, ApiError> {
        let unknown = |message| ApiError::new(ErrorCode::UnknownTopicOrPartition, message);
        let topic = self.image.topic(name);
        let topic = topic.ok_or_else(|| unknown(format!("Unable to find a topic named {name}.")))?;
        let index = asked.partition_index;
        let partition =
            topic.partition(index).ok_or_else(|| unknown(format!("Unable to find partition {name}:{index}.")))?;
        let key = topic.key(index);
        match &asked.replicas {
            Some(replicas) => {
                let target: Vec<BrokerId> = replicas.iter().map(|broker| BrokerId(broker.0)).collect();
                self.move_to(key, partition, &target, other_count)
            }
            None => self.move_back(name, key, partition),
        }
    }

    /// A move begins, or goes somewhere else.
    fn move_to(
        &self,
        key: PartitionKey,
        partition: &PartitionRegistration,
        target: &[BrokerId],
        other_count: bool,
    ) -> Result<Option<PartitionChange>, ApiError> {
        self.check_assignment(target, None)?;
        let count = partition.replicas.len() - partition.removing_replicas.len();
        if !other_count && target.len() != count {
            let message = format!("The replication factor is changed from {count} to {}", target.len());
            return Err(ApiError::new(ErrorCode::InvalidReplicationFactor, message));
        }
        let mut removing: Vec<BrokerId> =
            partition.replicas.iter().copied().filter(|replica| !target.contains(replica)).collect();
        removing.sort_unstable();
        let has_all =
            |replica: &BrokerId| partition.replicas.contains(replica) && !partition.adding_replicas.contains(replica);
        let adding: Vec<BrokerId> = target.iter().copied().filter(|replica| !has_all(replica)).collect();
        Ok(self.transition(key, None, |transition| {
            transition.replicas = [target, &removing].concat();
            transition.removing = removing;
            transition.adding = adding;
        }))
    }

    /// A move ends, and everything is where it was before.
    fn move_back(
        &self,
        name: &str,
        key: PartitionKey,
        partition: &PartitionRegistration,
    ) -> Result<Option<PartitionChange>, ApiError> {
        if partition.adding_replicas.is_empty() && partition.removing_replicas.is_empty() {
            return Err(ApiError::bare(ErrorCode::NoReassignmentInProgress));
        }
        let stays = |replica: &BrokerId| !partition.adding_replicas.contains(replica);
        let in_sync: Vec<BrokerId> = partition.in_sync_replicas.iter().copied().filter(stays).collect();
        // Whoever has all that was committed: while nobody is in sync, those who were last.
        let whole = match partition.in_sync_replicas.is_empty() {
            true => &partition.eligible_leader_replicas,
            false => &partition.in_sync_replicas,
        };
        let unclean = !whole.is_empty() && !whole.iter().any(stays);
        if unclean && !self.allows_unclean(name) {
            let message = format!(
                "Unable to revert partition assignment for {name}:{} because it would require an unclean \
                 leader election.",
                key.partition
            );
            return Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, message));
        }
        let election = unclean.then_some(Election::Unclean);
        Ok(self.transition(key, election, |transition| {
            transition.replicas.retain(stays);
            transition.in_sync = in_sync;
            transition.removing.clear();
            transition.adding.clear();
        }))
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{TopicName, alter_partition_reassignments_request::ReassignableTopic};

    use super::*;
    use crate::controller::rig::Rig;

    /// What becomes of partition 0 of `t`, and the code.
    fn reassign(rig: &mut Rig, target: Option<&[i32]>) -> (i16, String) {
        let target = target.map(|target| target.iter().map(|id| (*id).into()).collect());
        let partition = ReassignablePartition::default().with_replicas(target);
        let topic = ReassignableTopic::default().with_name(TopicName("t".into())).with_partitions(vec![partition]);
        let request = AlterPartitionReassignmentsRequest::default()
            .with_allow_replication_factor_change(true)
            .with_topics(vec![topic]);
        let answer = rig.decide(|controller| controller.alter_partition_reassignments(&request));
        (answer.responses[0].partitions[0].error_code, shown(rig))
    }

    fn shown(rig: &Rig) -> String {
        let replicas = &rig.partition(0).replicas;
        let replicas: Vec<_> = replicas.iter().map(ToString::to_string).collect();
        format!("{}: {}", replicas.join(","), rig.show(0))
    }

    fn done(shown: &str) -> (i16, String) {
        (0, shown.to_owned())
    }

    #[test]
    fn replicas_move_once_the_new_ones_are_in_sync() {
        let mut rig = Rig::of(&[1, 2, 3, 4]);
        rig.topic(&[&[1, 2]], &[]);
        let began = done("3,4,1,2: 1 e0 isr=1,2 adding=3,4 removing=1,2");
        assert_eq!(reassign(&mut rig, Some(&[3, 4])), began);
        assert_eq!(rig.alter(0, 1, &[1, 2, 3]), 0);
        assert_eq!(shown(&rig), "3,4,1,2: 1 e0 isr=1,2,3 adding=3,4 removing=1,2");
        // The last one completes it, and takes the leadership from who says so.
        assert_eq!(rig.alter(0, 1, &[1, 2, 3, 4]), ErrorCode::NewLeaderElected.code());
        assert_eq!(shown(&rig), "3,4: 3 e1 isr=3,4");
        assert_eq!(reassign(&mut rig, None).0, ErrorCode::NoReassignmentInProgress.code());
        // One that has nowhere to go is done at once; the epoch keeps those away who left.
        assert_eq!(reassign(&mut rig, Some(&[3])), done("3: 3 e2 isr=3"));
        assert_eq!(reassign(&mut rig, Some(&[3])), done("3: 3 e2 isr=3"));
    }

    #[test]
    fn a_move_goes_elsewhere_or_back() {
        let mut rig = Rig::of(&[1, 2, 3, 4]);
        rig.topic(&[&[1, 2]], &[]);
        reassign(&mut rig, Some(&[1, 3]));
        // 3 has not caught up yet, whatever is asked.
        assert_eq!(reassign(&mut rig, Some(&[3, 1])), done("3,1,2: 1 e0 isr=1,2 adding=3 removing=2"));
        assert_eq!(reassign(&mut rig, Some(&[1, 4])), done("1,4,2,3: 1 e0 isr=1,2 adding=4 removing=2,3"));
        assert_eq!(rig.alter(0, 1, &[1, 2, 3]), 0);
        assert_eq!(reassign(&mut rig, None), done("1,2,3: 1 e1 isr=1,2,3"));
    }

    #[test]
    fn a_move_ends_though_its_leader_is_dead() {
        let mut rig = Rig::of(&[1, 2, 3]);
        rig.topic(&[&[1, 2]], &[("min.insync.replicas", "2")]);
        reassign(&mut rig, Some(&[3, 2]));
        rig.kill(1);
        assert_eq!(shown(&rig), "3,2,1: 2 e1 isr=2 elr=1 adding=3 removing=1");
        assert_eq!(rig.alter(0, 2, &[2, 3]), 0);
        assert_eq!(shown(&rig), "3,2: 2 e2 isr=2,3");
    }

    #[test]
    fn nobody_is_elected_uncleanly_by_a_move_back() {
        let mut rig = Rig::of(&[1, 2]);
        rig.topic(&[&[1]], &[]);
        reassign(&mut rig, Some(&[1, 2]));
        rig.in_sync(0, &[2]);
        let refused = ErrorCode::InvalidReplicaAssignment.code();
        assert_eq!(reassign(&mut rig, None).0, refused);
        rig.kill(2);
        assert_eq!(reassign(&mut rig, None), (refused, "1,2: none e1 isr= elr=2 adding=2".to_owned()));
    }

    #[test]
    fn one_request_writes_so_much_and_no_more() {
        let mut rig = Rig::of(&[1, 2]);
        rig.topic(&[&[1, 2]], &[]);
        let target = |ids: [i32; 2]| ReassignablePartition::default().with_replicas(Some(ids.map(Into::into).to_vec()));
        let partitions = [target([2, 1]), target([1, 2])].into_iter().cycle().take(PARTITIONS_PER_REQUEST_MAX + 1);
        let topic = ReassignableTopic::default().with_name(TopicName("t".into())).with_partitions(partitions.collect());
        let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]);
        let answer = rig.decide(|controller| controller.alter_partition_reassignments(&request));
        let refused = answer.responses[0].partitions.iter().filter(|it| it.error_code != 0);
        let refused: Vec<_> = refused.map(|it| it.error_code).collect();
        assert_eq!(refused, [ErrorCode::PolicyViolation.code()]);
    }

    #[test]
    fn what_cannot_be() {
        let mut rig = Rig::of(&[1, 2]);
        rig.topic(&[&[1]], &[]);
        let refused = ErrorCode::InvalidReplicaAssignment.code();
        for target in [&[][..], &[1, 1], &[9], &[-1]] {
            assert_eq!(reassign(&mut rig, Some(target)), (refused, "1: 1 e0 isr=1".to_owned()), "{target:?}");
        }
        let partition = ReassignablePartition::default().with_replicas(Some(vec![1.into(), 2.into()]));
        let unknown = partition.clone().with_partition_index(1);
        let topic = |name: &'static str, partition: &ReassignablePartition| {
            ReassignableTopic::default().with_name(TopicName(name.into())).with_partitions(vec![partition.clone()])
        };
        let topics = vec![topic("t", &partition), topic("t", &unknown), topic("x", &partition)];
        let request = AlterPartitionReassignmentsRequest::default()
            .with_allow_replication_factor_change(false)
            .with_topics(topics);
        let answer = rig.decide(|controller| controller.alter_partition_reassignments(&request));
        let codes: Vec<_> = answer.responses.iter().map(|topic| topic.partitions[0].error_code).collect();
        assert_eq!(codes, [ErrorCode::InvalidReplicationFactor.code(), 3, 3]);
    }
}
