//! More partitions for a topic.
//!
//! Differs from Kafka: `__consumer_offsets` keeps its number, because a group's partition depends on it and its offsets
//! would be lost; one request that adds too many is refused before, not after, some of them are there.

use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, create_partitions_request::CreatePartitionsTopic,
    create_partitions_response::CreatePartitionsTopicResult,
};

use super::{ApiError, Controller, PARTITIONS_PER_REQUEST_MAX, repeated};
use crate::{
    base::{BrokerId, ErrorCode},
    metadata::{Topic, names::CONSUMER_OFFSETS},
    protocol::metadata_records::MetadataRecord,
};

impl Controller {
    /// CreatePartitions, versions 0–3.
    pub fn create_partitions(
        &mut self,
        request: &CreatePartitionsRequest,
    ) -> (Vec<MetadataRecord>, CreatePartitionsResponse) {
        let repeated = repeated(request.topics.iter().map(|topic| topic.name.as_str()));
        let mut records = Vec::new();
        let mut results = Vec::with_capacity(request.topics.len());
        let mut told: Vec<&str> = Vec::new();
        for topic in &request.topics {
            let name = topic.name.as_str();
            let result = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
            let plan = if repeated.contains(&name) {
                if told.contains(&name) {
                    continue;
                }
                told.push(name);
                Err(ApiError::new(ErrorCode::InvalidRequest, "Duplicate topic name."))
            } else {
                self.new_partitions(topic, PARTITIONS_PER_REQUEST_MAX - records.len())
            };
            results.push(match plan {
                Ok(new) => {
                    records.extend(new);
                    result
                }
                Err(refusal) => result.with_error_code(refusal.code.code()).with_error_message(refusal.message()),
            });
        }
        if request.validate_only {
            records.clear();
        }
        self.apply(&records);
        (records, CreatePartitionsResponse::default().with_results(results))
    }

    fn new_partitions(&self, wanted: &CreatePartitionsTopic, room: usize) -> Result<Vec<MetadataRecord>, ApiError> {
        let topic = self.image.topic(wanted.name.as_str());
        let topic = topic.ok_or_else(|| ApiError::bare(ErrorCode::UnknownTopicOrPartition))?;
        let additional = additional(topic, wanted.count)?;
        if additional > room {
            let message = "Excessively large number of partitions per request.";
            return Err(ApiError::new(ErrorCode::PolicyViolation, message));
        }
        if &*topic.name == CONSUMER_OFFSETS {
            let message = "The number of partitions of __consumer_offsets cannot change.";
            return Err(ApiError::new(ErrorCode::InvalidRequest, message));
        }
        // While a reassignment is under way a partition has more replicas than it will have.
        let replicas = topic.partitions.first().map_or(1, |it| it.replicas.len() - it.removing_replicas.len());
        let assignments = match &wanted.assignments {
            Some(given) => {
                if given.len() != additional {
                    let message = format!(
                        "Attempted to add {additional} additional partition(s), but only {} assignment(s) were \
                         specified.",
                        given.len()
                    );
                    return Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, message));
                }
                let brokers = given.iter().map(|one| one.broker_ids.iter().map(|id| BrokerId(id.0)).collect());
                let brokers: Vec<Vec<BrokerId>> = brokers.collect();
                brokers.iter().try_for_each(|brokers| self.check_assignment(brokers, Some(replicas)))?;
                let indexes = topic.partitions.len()..;
                indexes.zip(&brokers).try_for_each(|(index, brokers)| self.check_leader(index, brokers))?;
                brokers
            }
            None => {
                let replicas = i16::try_from(replicas).expect("never more than there are brokers");
                let all = topic.partitions.len() + additional;
                self.place(topic.id, topic.partitions.len()..all, replicas)?
            }
        };
        let next = topic.partitions.len()..;
        let records = next.zip(&assignments).map(|(index, brokers)| self.partition_record(topic.id, index, brokers));
        Ok(records.map(MetadataRecord::Partition).collect())
    }
}

fn additional(topic: &Topic, count: i32) -> Result<usize, ApiError> {
    let current = topic.partitions.len();
    match usize::try_from(count).ok().and_then(|count| count.checked_sub(current)) {
        None => Err(ApiError::new(
            ErrorCode::InvalidPartitions,
            format!("The topic {} currently has {current} partition(s); {count} would not be an increase.", topic.name),
        )),
        Some(0) => {
            Err(ApiError::new(ErrorCode::InvalidPartitions, format!("Topic already has {current} partition(s).")))
        }
        Some(additional) => Ok(additional),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{TopicName, create_partitions_request::CreatePartitionsAssignment};

    use super::*;
    use crate::controller::tests::{controller, ids, replays};

    fn topic(name: &'static str, count: i32) -> CreatePartitionsTopic {
        CreatePartitionsTopic::default().with_name(TopicName(name.into())).with_count(count).with_assignments(None)
    }

    fn assigned(count: i32, brokers: &[&[i32]]) -> CreatePartitionsTopic {
        let one = |ids: &&[i32]| {
            let ids = ids.iter().copied().map(kafka_protocol::messages::BrokerId).collect();
            CreatePartitionsAssignment::default().with_broker_ids(ids)
        };
        topic("t", count).with_assignments(Some(brokers.iter().map(one).collect()))
    }

    fn check(topics: Vec<CreatePartitionsTopic>, expected: &[&str]) {
        let mut controller = controller("num.partitions=2\n");
        controller.auto_create(&["t", CONSUMER_OFFSETS], &mut ids());
        let before = controller.image().clone();
        let (records, response) =
            controller.create_partitions(&CreatePartitionsRequest::default().with_topics(topics.clone()));
        replays(&before, &records, &controller);
        let count = controller.image().topic("t").expect("it is there").partitions.len();
        let results = response.results.iter().map(|result| {
            let message = result.error_message.as_deref().unwrap_or_default();
            format!("{} {} {count} {message}", &*result.name, result.error_code).trim_end().to_owned()
        });
        assert_eq!(results.collect::<Vec<_>>(), expected);
        // Only looking changes nothing and says the same.
        let mut controller = super::super::Controller { image: before.clone(), ..controller };
        let request = CreatePartitionsRequest::default().with_topics(topics).with_validate_only(true);
        let (records, validated) = controller.create_partitions(&request);
        assert!(records.is_empty() && controller.image() == &before);
        assert_eq!(validated, response);
    }

    #[test]
    fn partitions_are_added_with_and_without_assignment() {
        check(vec![topic("t", 5)], &["t 0 5"]);
        check(vec![assigned(3, &[&[1]])], &["t 0 3"]);
    }

    /// The words are Apache Kafka 4.3.1's own.
    #[test]
    fn what_cannot_be() {
        check(vec![topic("x", 5)], &["x 3 2"]);
        check(vec![topic("t", 2)], &["t 37 2 Topic already has 2 partition(s)."]);
        for count in [1, 0, -1] {
            let why = format!("t 37 2 The topic t currently has 2 partition(s); {count} would not be an increase.");
            check(vec![topic("t", count)], &[&why]);
        }
        check(vec![topic("t", 3), topic("t", 4)], &["t 42 2 Duplicate topic name."]);
        check(vec![topic("t", i32::MAX)], &["t 44 2 Excessively large number of partitions per request."]);
        check(
            vec![topic(CONSUMER_OFFSETS, 51)],
            &["__consumer_offsets 42 2 The number of partitions of __consumer_offsets cannot change."],
        );
        check(
            vec![assigned(3, &[&[1], &[1]])],
            &["t 39 2 Attempted to add 1 additional partition(s), but only 2 assignment(s) were specified."],
        );
        check(
            vec![assigned(3, &[&[9]])],
            &["t 39 2 The manual partition assignment includes broker 9, but no such broker is registered."],
        );
        check(vec![assigned(3, &[&[]])], &["t 39 2 The manual partition assignment includes an empty replica list."]);
        check(
            vec![assigned(3, &[&[1, 1]])],
            &["t 39 2 The manual partition assignment includes the broker 1 more than once."],
        );
    }
}
