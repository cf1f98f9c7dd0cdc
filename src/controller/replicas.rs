//! Elections (KIP-460) and reassignments (KIP-455), as far as one broker needs them: every partition has its leader and lies where it can.

use kafka_protocol::{
    messages::{
        AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ElectLeadersRequest,
        ElectLeadersResponse, TopicName,
        alter_partition_reassignments_request::ReassignablePartition,
        alter_partition_reassignments_response::{ReassignablePartitionResponse, ReassignableTopicResponse},
        elect_leaders_response::{PartitionResult, ReplicaElectionResult},
    },
    protocol::StrBytes,
};

use super::{ApiError, Controller};
use crate::{
    base::{BrokerId, ErrorCode},
    metadata::{PartitionRegistration, Topic},
};

/// `ElectionType` of the wire: whether the first replica is to lead, or anybody rather than nobody.
const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

impl Controller {
    /// ElectLeaders, versions 0–2. Version 0 has no type: its default is the preferred leader.
    #[must_use]
    pub fn elect_leaders(&self, request: &ElectLeadersRequest) -> ElectLeadersResponse {
        let election_type = request.election_type;
        if ![PREFERRED, UNCLEAN].contains(&election_type) {
            let message = format!("Unknown election type {election_type}");
            return refuse_elections(request, ErrorCode::InvalidRequest, &message);
        }
        let results = match &request.topic_partitions {
            Some(topics) => topics
                .iter()
                .map(|asked| {
                    let topic = self.image.topic(&asked.topic).map(AsRef::as_ref);
                    let elected = asked
                        .partitions
                        .iter()
                        .map(|index| told(*index, elect(&asked.topic, topic, *index, election_type)));
                    ReplicaElectionResult::default()
                        .with_topic(asked.topic.clone())
                        .with_partition_result(elected.collect())
                })
                .collect(),
            None => self.image.topics().map(|topic| self.elect_all(topic, election_type)).collect(),
        };
        ElectLeadersResponse::default().with_replica_election_results(results)
    }

    /// Of all partitions those are told that had need of a leader.
    fn elect_all(&self, topic: &Topic, election_type: i8) -> ReplicaElectionResult {
        let name = TopicName(StrBytes::from_string(topic.name.to_string()));
        let elected = (0..).zip(&topic.partitions).filter_map(|(index, _)| {
            let refusal = elect(&name, Some(topic), index, election_type);
            (refusal.code != ErrorCode::ElectionNotNeeded).then(|| told(index, refusal))
        });
        let elected = elected.collect();
        ReplicaElectionResult::default().with_topic(name).with_partition_result(elected)
    }

    /// AlterPartitionReassignments, versions 0–1.
    #[must_use]
    pub fn alter_partition_reassignments(
        &self,
        request: &AlterPartitionReassignmentsRequest,
    ) -> AlterPartitionReassignmentsResponse {
        let topics = request.topics.iter().map(|asked| {
            let topic = self.image.topic(&asked.name).map(AsRef::as_ref);
            let partitions = asked.partitions.iter().map(|partition| {
                let answer = ReassignablePartitionResponse::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_message(None);
                match self.reassign(&asked.name, topic, partition) {
                    Ok(()) => answer,
                    Err(refusal) => answer.with_error_code(refusal.code.code()).with_error_message(refusal.message()),
                }
            });
            ReassignableTopicResponse::default().with_name(asked.name.clone()).with_partitions(partitions.collect())
        });
        AlterPartitionReassignmentsResponse::default()
            .with_allow_replication_factor_change(request.allow_replication_factor_change)
            // Kafka's answer to nothing is the empty one.
            .with_error_message(request.topics.is_empty().then(StrBytes::new))
            .with_responses(topics.collect())
    }

    fn reassign(&self, name: &str, topic: Option<&Topic>, asked: &ReassignablePartition) -> Result<(), ApiError> {
        let unknown = |message| ApiError::new(ErrorCode::UnknownTopicOrPartition, message);
        let topic = topic.ok_or_else(|| unknown(format!("Unable to find a topic named {name}.")))?;
        let index = asked.partition_index;
        let partition =
            topic.partition(index).ok_or_else(|| unknown(format!("Unable to find partition {name}:{index}.")))?;
        let Some(replicas) = &asked.replicas else {
            // To end a move that is under way; none ever is.
            return Err(ApiError::bare(ErrorCode::NoReassignmentInProgress));
        };
        let replicas: Vec<BrokerId> = replicas.iter().map(|broker| BrokerId(broker.0)).collect();
        self.check_assignment(&replicas, None)?;
        if replicas != partition.replicas {
            let message = "Partitions cannot be moved to other brokers yet.";
            return Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, message));
        }
        Ok(())
    }
}

/// Every partition that is named with the same refusal, and the answer as a whole with it.
#[must_use]
pub fn refuse_elections(request: &ElectLeadersRequest, error: ErrorCode, message: &str) -> ElectLeadersResponse {
    let topics = request.topic_partitions.iter().flatten().map(|asked| {
        let partitions = asked.partitions.iter().map(|index| told(*index, ApiError::new(error, message)));
        ReplicaElectionResult::default().with_topic(asked.topic.clone()).with_partition_result(partitions.collect())
    });
    ElectLeadersResponse::default().with_error_code(error.code()).with_replica_election_results(topics.collect())
}

/// Why nobody is elected: there is no one to choose from.
fn elect(name: &str, topic: Option<&Topic>, index: i32, election_type: i8) -> ApiError {
    let unknown = |message| ApiError::new(ErrorCode::UnknownTopicOrPartition, message);
    let Some(topic) = topic else { return unknown(format!("No such topic as {name}")) };
    let Some(partition) = topic.partition(index) else {
        return unknown(format!("No such partition as {name}-{index}"));
    };
    if is_led(partition, election_type) {
        ApiError::new(ErrorCode::ElectionNotNeeded, "Leader election not needed for topic partition.")
    } else if election_type == PREFERRED {
        ApiError::new(ErrorCode::PreferredLeaderNotAvailable, "The preferred leader was not available.")
    } else {
        ApiError::new(ErrorCode::EligibleLeadersNotAvailable, "Eligible topic partition leaders are not available.")
    }
}

fn is_led(partition: &PartitionRegistration, election_type: i8) -> bool {
    partition.leader.is_some() && (election_type == UNCLEAN || partition.leader == partition.replicas.first().copied())
}

fn told(index: i32, refusal: ApiError) -> PartitionResult {
    PartitionResult::default()
        .with_partition_id(index)
        .with_error_code(refusal.code.code())
        .with_error_message(refusal.message())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        controller::tests::{controller, ids},
        protocol::metadata_records::{MetadataRecord, PartitionChange},
    };

    /// The answers are Apache Kafka 4.3.1's.
    #[test]
    fn whoever_is_led_needs_no_election() {
        let mut c = controller("num.partitions=2\n");
        c.auto_create(&["t"], &mut ids());
        let elect = |c: &Controller, election_type| {
            let answer = c.elect_leaders(
                &ElectLeadersRequest::default().with_election_type(election_type).with_topic_partitions(None),
            );
            let results = answer.replica_election_results.iter().flat_map(|topic| &topic.partition_result);
            results.map(|result| (result.partition_id, result.error_code)).collect::<Vec<_>>()
        };
        assert_eq!((elect(&c, PREFERRED), elect(&c, UNCLEAN)), (vec![], vec![]));
        let topic_id = c.image().topic("t").expect("it is there").id;
        c.apply(&[MetadataRecord::PartitionChange(PartitionChange {
            leader: Some(-1),
            ..PartitionChange::of(topic_id, 1)
        })]);
        assert_eq!((elect(&c, PREFERRED), elect(&c, UNCLEAN)), (vec![(1, 80)], vec![(1, 83)]));
    }
}
