//! Reassignments (KIP-455), as far as one broker needs them: every partition lies where it can.

use kafka_protocol::{
    messages::{
        AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
        alter_partition_reassignments_request::ReassignablePartition,
        alter_partition_reassignments_response::{ReassignablePartitionResponse, ReassignableTopicResponse},
    },
    protocol::StrBytes,
};

use super::{ApiError, Controller};
use crate::{
    base::{BrokerId, ErrorCode},
    metadata::Topic,
};

impl Controller {
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
