//! Creating topics: on request, and because somebody asked for one that is not there.
//!
//! Differs from Kafka: names of one request that differ only in `.` and `_` collide with one another, too.

use std::collections::BTreeSet;

use kafka_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, TopicName, create_topics_request::CreatableTopic,
    create_topics_response::CreatableTopicResult,
};
use uuid::Uuid;

use super::{ApiError, Controller, PARTITIONS_PER_REQUEST_MAX, repeated};
use crate::{
    base::{BrokerId, ErrorCode, METADATA_TOPIC, TopicId},
    config::{BrokerConfig, Overrides, describe},
    metadata::names::{self, CONSUMER_OFFSETS},
    protocol::metadata_records::{ConfigRecord, MetadataRecord, TOPIC_RESOURCE},
};

/// A topic as it was decided.
struct Plan {
    id: TopicId,
    assignments: Vec<Vec<BrokerId>>,
    overrides: Overrides,
}

/// Names that the request has taken, in the form in which they collide.
#[derive(Default)]
struct Taken(BTreeSet<String>);

impl Controller {
    /// CreateTopics, versions 2–7. `random` draws topic ids.
    pub fn create_topics(
        &mut self,
        request: &CreateTopicsRequest,
        random: &mut dyn FnMut() -> Uuid,
    ) -> (Vec<MetadataRecord>, CreateTopicsResponse) {
        let repeated = repeated(request.topics.iter().map(|topic| topic.name.as_str()));
        let mut results: Vec<_> = repeated
            .iter()
            .map(|name| {
                let refusal = ApiError::new(ErrorCode::InvalidRequest, "Duplicate topic name.");
                refused(TopicName((*name).to_owned().into()), &refusal)
            })
            .collect();
        let mut records = Vec::new();
        let mut taken = Taken::default();
        let too_many = self.check_total(request);
        for topic in request.topics.iter().filter(|topic| !repeated.contains(&topic.name.as_str())) {
            let plan = too_many.clone().and_then(|()| self.plan(topic, &mut taken, random));
            match plan {
                Ok(plan) => {
                    results.push(self.created(&topic.name, &plan, request.validate_only));
                    if !request.validate_only {
                        records.extend(self.topic_records(topic.name.as_str(), &plan));
                    }
                }
                Err(refusal) => results.push(refused(topic.name.clone(), &refusal)),
            }
        }
        self.apply(&records);
        (records, CreateTopicsResponse::default().with_topics(results))
    }

    /// Creates the topics of those names that are not there, with the broker's defaults, and `__consumer_offsets` with
    /// its own settings. Gives the id of each, new or not.
    pub fn auto_create(
        &mut self,
        names: &[&str],
        random: &mut dyn FnMut() -> Uuid,
    ) -> (Vec<MetadataRecord>, Vec<Result<TopicId, ErrorCode>>) {
        let mut records = Vec::new();
        let mut answers = Vec::with_capacity(names.len());
        let mut taken = Taken::default();
        // In a cluster that begins, the first broker to come waits for the others, or the groups would be its alone for ever.
        let brokers = self.image.brokers().count().max(self.config.cluster.voters.len());
        for name in names {
            if let Some(topic) = self.image.topic(name) {
                answers.push(Ok(topic.id));
                continue;
            }
            let plan = self.plan(&default_topic(&self.config, brokers, name), &mut taken, random);
            match plan {
                Ok(plan) => {
                    let new = self.topic_records(name, &plan);
                    self.apply(&new);
                    records.extend(new);
                    answers.push(Ok(plan.id));
                }
                Err(refusal) => answers.push(Err(refusal.code)),
            }
        }
        (records, answers)
    }

    /// Creates a topic as [`auto_create`](Self::auto_create) does, if it is not there.
    /// # Errors  As a client would be refused it.
    pub fn ensure_topic(
        &mut self,
        name: &str,
        random: &mut dyn FnMut() -> Uuid,
    ) -> Result<(Vec<MetadataRecord>, TopicId), ErrorCode> {
        let (records, mut answers) = self.auto_create(&[name], random);
        let id = answers.pop().expect("one name, one answer")?;
        Ok((records, id))
    }

    fn check_total(&self, request: &CreateTopicsRequest) -> Result<(), ApiError> {
        let partitions = request.topics.iter().map(|topic| match (topic.assignments.len(), topic.num_partitions) {
            (0, -1) => usize::try_from(self.config.topics.partitions).unwrap_or(0),
            (0, count) => usize::try_from(count).unwrap_or(0),
            (count, _) => count,
        });
        // The counts are below 2³¹ each and the request has a bound, but a sum may be forged to be large.
        if partitions.fold(0_usize, usize::saturating_add) > PARTITIONS_PER_REQUEST_MAX {
            let message = "Excessively large number of partitions per request.";
            return Err(ApiError::new(ErrorCode::PolicyViolation, message));
        }
        Ok(())
    }

    fn plan(
        &self,
        topic: &CreatableTopic,
        taken: &mut Taken,
        random: &mut dyn FnMut() -> Uuid,
    ) -> Result<Plan, ApiError> {
        let name = topic.name.as_str();
        if name == METADATA_TOPIC {
            let message = format!("Creation of internal topic {METADATA_TOPIC} is prohibited.");
            return Err(ApiError::new(ErrorCode::InvalidRequest, message));
        }
        names::check(name).map_err(|message| ApiError::new(ErrorCode::InvalidTopicException, message))?;
        if self.image.topic(name).is_some() {
            return Err(ApiError::new(ErrorCode::TopicAlreadyExists, format!("Topic '{name}' already exists.")));
        }
        self.check_collision(name, taken)?;
        let overrides = self.initial_overrides(topic)?;
        let id = random();
        let assignments = self.assignments(topic, id)?;
        taken.0.extend(names::collision_key(name));
        Ok(Plan { id: TopicId(id), assignments, overrides })
    }

    fn check_collision(&self, name: &str, taken: &Taken) -> Result<(), ApiError> {
        let existing = self.image.colliding_topic(name);
        let with = match existing {
            Some(topic) => &*topic.name,
            None if names::collision_key(name).is_some_and(|key| taken.0.contains(&key)) => {
                "another one of the request"
            }
            None => return Ok(()),
        };
        let message = format!("Topic '{name}' collides with existing topic: {with}");
        Err(ApiError::new(ErrorCode::InvalidTopicException, message))
    }

    fn initial_overrides(&self, topic: &CreatableTopic) -> Result<Overrides, ApiError> {
        let refuse = |message| Err(ApiError::new(ErrorCode::InvalidConfig, message));
        let mut overrides = Overrides::new();
        for config in &topic.configs {
            match &config.value {
                Some(value) => overrides.insert(config.name.to_string(), value.to_string()),
                None => return refuse(format!("Null value not supported for topic configs: {}", config.name)),
            };
        }
        self.check_topic_overrides(&overrides)?;
        Ok(overrides)
    }

    fn assignments(&self, topic: &CreatableTopic, id: Uuid) -> Result<Vec<Vec<BrokerId>>, ApiError> {
        if !topic.assignments.is_empty() {
            return self.manual_assignments(topic);
        }
        let count = match topic.num_partitions {
            -1 => self.config.topics.partitions,
            count if count < 1 => {
                let message = "Number of partitions was set to an invalid non-positive value.";
                return Err(ApiError::new(ErrorCode::InvalidPartitions, message));
            }
            count => count,
        };
        let replication_factor = match topic.replication_factor {
            -1 => self.config.topics.replication_factor,
            factor => factor,
        };
        if replication_factor < 1 {
            let message = "Replication factor must be larger than 0, or -1 to use the default value.";
            return Err(ApiError::new(ErrorCode::InvalidReplicationFactor, message));
        }
        self.place(TopicId(id), 0..usize::try_from(count).expect("it is above zero"), replication_factor)
    }

    fn manual_assignments(&self, topic: &CreatableTopic) -> Result<Vec<Vec<BrokerId>>, ApiError> {
        for (given, what) in [
            (i32::from(topic.replication_factor), "replication factor was"),
            (topic.num_partitions, "numPartitions was"),
        ] {
            if given != -1 {
                let message = format!("A manual partition assignment was specified, but {what} not set to -1.");
                return Err(ApiError::new(ErrorCode::InvalidRequest, message));
            }
        }
        let mut assignments: Vec<(i32, Vec<BrokerId>)> = Vec::with_capacity(topic.assignments.len());
        for assignment in &topic.assignments {
            let brokers: Vec<_> = assignment.broker_ids.iter().map(|id| BrokerId(id.0)).collect();
            self.check_assignment(&brokers, assignments.first().map(|(_, brokers)| brokers.len()))?;
            assignments.push((assignment.partition_index, brokers));
        }
        assignments.sort_unstable_by_key(|(index, _)| *index);
        let refuse = |message| Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, message));
        if let Some(pair) = assignments.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return refuse(format!("Found multiple manual partition assignments for partition {}", pair[0].0));
        }
        if (0..).zip(&assignments).any(|(expected, (index, _))| *index != expected) {
            return refuse("partitions should be a consecutive 0-based integer sequence".to_owned());
        }
        let assignments: Vec<Vec<BrokerId>> = assignments.into_iter().map(|(_, brokers)| brokers).collect();
        (0..).zip(&assignments).try_for_each(|(partition, brokers)| self.check_leader(partition, brokers))?;
        Ok(assignments)
    }

    fn topic_records(&self, name: &str, plan: &Plan) -> Vec<MetadataRecord> {
        let mut records = vec![MetadataRecord::Topic { name: name.to_owned(), topic_id: plan.id }];
        records.extend(plan.overrides.iter().map(|(key, value)| {
            MetadataRecord::Config(ConfigRecord {
                resource_type: TOPIC_RESOURCE,
                resource_name: name.to_owned(),
                name: key.clone(),
                value: Some(value.clone()),
            })
        }));
        records.extend(
            plan.assignments
                .iter()
                .enumerate()
                .map(|(index, brokers)| MetadataRecord::Partition(self.partition_record(plan.id, index, brokers))),
        );
        records
    }

    fn created(&self, name: &TopicName, plan: &Plan, validate_only: bool) -> CreatableTopicResult {
        let replicas = plan.assignments.first().map_or(0, Vec::len);
        CreatableTopicResult::default()
            .with_name(name.clone())
            // A topic that was only looked at has no id.
            .with_topic_id(if validate_only { Uuid::nil() } else { plan.id.0 })
            .with_num_partitions(i32::try_from(plan.assignments.len()).expect("checked against a bound"))
            .with_replication_factor(i16::try_from(replicas).expect("never more than there are brokers"))
            .with_error_message(None)
            .with_configs(Some(describe::created_topic(&self.layers().with_topic(&plan.overrides))))
    }
}

fn refused(name: TopicName, refusal: &ApiError) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_name(name)
        .with_error_code(refusal.code.code())
        .with_error_message(refusal.message())
}

/// What is created when only a name is known, in a cluster that has, or is to have, so many brokers.
#[must_use]
pub fn default_topic(config: &BrokerConfig, brokers: usize, name: &str) -> CreatableTopic {
    let topic = CreatableTopic::default()
        .with_name(TopicName(name.to_owned().into()))
        .with_num_partitions(-1)
        .with_replication_factor(-1);
    if name != CONSUMER_OFFSETS {
        return topic;
    }
    let setting = |name: &'static str, value: String| {
        kafka_protocol::messages::create_topics_request::CreatableTopicConfig::default()
            .with_name(name.into())
            .with_value(Some(value.into()))
    };
    // Kafka's default of three replicas would leave one broker without groups.
    let brokers = i16::try_from(brokers).unwrap_or(i16::MAX);
    topic
        .with_num_partitions(config.offsets.topic_partitions)
        .with_replication_factor(config.offsets.topic_replication_factor.min(brokers.max(1)))
        .with_configs(vec![
            setting("cleanup.policy", "compact".to_owned()),
            setting("compression.type", "producer".to_owned()),
            // The topic's bound is stricter than that of the broker's setting.
            setting("segment.bytes", config.offsets.topic_segment_bytes.max(1 << 20).to_string()),
        ])
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{
        BrokerId as WireBrokerId,
        create_topics_request::{CreatableReplicaAssignment, CreatableTopicConfig},
    };

    use super::*;
    use crate::controller::tests::{controller, ids, replays};

    fn topic(name: &str, partitions: i32, replication_factor: i16) -> CreatableTopic {
        CreatableTopic::default()
            .with_name(TopicName(name.to_owned().into()))
            .with_num_partitions(partitions)
            .with_replication_factor(replication_factor)
    }

    fn configured(configs: &[(&'static str, Option<&'static str>)]) -> CreatableTopic {
        let config = |(name, value): &(&'static str, Option<&'static str>)| {
            CreatableTopicConfig::default().with_name((*name).into()).with_value(value.map(Into::into))
        };
        topic("t", 1, 1).with_configs(configs.iter().map(config).collect())
    }

    fn assigned(assignments: &[(i32, &[i32])]) -> CreatableTopic {
        let one = |(index, ids): &(i32, &[i32])| {
            CreatableReplicaAssignment::default()
                .with_partition_index(*index)
                .with_broker_ids(ids.iter().copied().map(WireBrokerId).collect())
        };
        topic("t", -1, -1).with_assignments(assignments.iter().map(one).collect())
    }

    fn show(response: &CreateTopicsResponse) -> Vec<String> {
        let results = response.topics.iter().map(|result| {
            let message = result.error_message.as_deref().unwrap_or_default();
            let (name, code) = (&*result.name, result.error_code);
            let (partitions, replicas) = (result.num_partitions, result.replication_factor);
            format!("{name} {code} p={partitions} r={replicas} {message}").trim_end().to_owned()
        });
        results.collect()
    }

    fn check(topics: Vec<CreatableTopic>, expected: &[&str]) {
        let mut controller = controller("num.partitions=4\n");
        controller.auto_create(&["old", "old.one"], &mut ids());
        let before = controller.image().clone();
        let request = CreateTopicsRequest::default().with_topics(topics);
        let mut looking = controller.clone();
        let (records, response) = looking.create_topics(&request.clone().with_validate_only(true), &mut ids());
        assert!(records.is_empty() && looking.image() == &before);
        assert_eq!(show(&response), expected);
        let (records, response) = controller.create_topics(&request, &mut ids_from(5000));
        replays(&before, &records, &controller);
        assert_eq!(show(&response), expected);
        for result in response.topics.iter().filter(|result| result.error_code == 0) {
            let topic = controller.image().topic(&result.name).expect("created");
            assert_eq!(topic.id.0, result.topic_id);
            assert_eq!(topic.partitions.len(), result.num_partitions as usize);
            assert!(topic.partitions.iter().all(|partition| partition.leader == Some(BrokerId(1))));
            assert!(topic.partitions.iter().all(|partition| partition.directories == [Uuid::from_u128(0xd1)]));
        }
    }

    fn ids_from(first: u128) -> impl FnMut() -> Uuid {
        let mut ids = (first..).map(Uuid::from_u128);
        move || ids.next().expect("it never ends")
    }

    #[test]
    fn topics_are_created_with_given_and_default_numbers() {
        check(vec![topic("a", 2, 1), topic("b", -1, -1)], &["a 0 p=2 r=1", "b 0 p=4 r=1"]);
        check(vec![assigned(&[(1, &[1]), (0, &[1])])], &["t 0 p=2 r=1"]);
    }

    /// The words are Apache Kafka 4.3.1's own.
    #[test]
    fn names_that_cannot_be() {
        check(
            vec![topic("", 1, 1)],
            &["17 p=-1 r=-1 Topic name is invalid: the empty string is not allowed"]
                .map(|text| format!(" {text}"))
                .each_ref()
                .map(String::as_str),
        );
        check(vec![topic("..", 1, 1)], &[".. 17 p=-1 r=-1 Topic name is invalid: '..' is not allowed"]);
        check(vec![topic("old", 1, 1)], &["old 36 p=-1 r=-1 Topic 'old' already exists."]);
        check(
            vec![topic("old_one", 1, 1)],
            &["old_one 17 p=-1 r=-1 Topic 'old_one' collides with existing topic: old.one"],
        );
        check(
            vec![topic("n.b", 1, 1), topic("n_b", 1, 1)],
            &["n.b 0 p=1 r=1", "n_b 17 p=-1 r=-1 Topic 'n_b' collides with existing topic: another one of the request"],
        );
        check(
            vec![topic("a", 1, 1), topic("a", 2, 1), topic("b", 1, 1)],
            &["a 42 p=-1 r=-1 Duplicate topic name.", "b 0 p=1 r=1"],
        );
        check(
            vec![topic(METADATA_TOPIC, 1, 1)],
            &["__cluster_metadata 42 p=-1 r=-1 Creation of internal topic __cluster_metadata is prohibited."],
        );
    }

    #[test]
    fn numbers_that_cannot_be() {
        for count in [0, -2] {
            check(
                vec![topic("t", count, 1)],
                &["t 37 p=-1 r=-1 Number of partitions was set to an invalid non-positive value."],
            );
        }
        for factor in [0, -2] {
            check(
                vec![topic("t", 1, factor)],
                &["t 38 p=-1 r=-1 Replication factor must be larger than 0, or -1 to use the default value."],
            );
        }
        check(
            vec![topic("t", 1, 2)],
            &[
                "t 38 p=-1 r=-1 Unable to replicate the partition 2 time(s): The target replication factor of 2 cannot be \
             reached because only 1 broker(s) are registered or some brokers have all their log directories cordoned.",
            ],
        );
        let many = "44 p=-1 r=-1 Excessively large number of partitions per request.";
        check(vec![topic("t", 10_001, 1)], &[&format!("t {many}")]);
        check(vec![topic("t", i32::MAX, 1), topic("u", i32::MAX, 1)], &[&format!("t {many}"), &format!("u {many}")]);
    }

    #[test]
    fn assignments_that_cannot_be() {
        let refused = |assignments: &[(i32, &[i32])], why: &str| {
            check(vec![assigned(assignments)], &[&format!("t 39 p=-1 r=-1 {why}")]);
        };
        refused(&[(0, &[1]), (2, &[1])], "partitions should be a consecutive 0-based integer sequence");
        refused(&[(1, &[1])], "partitions should be a consecutive 0-based integer sequence");
        refused(&[(0, &[1]), (0, &[1])], "Found multiple manual partition assignments for partition 0");
        refused(&[(0, &[1, 1])], "The manual partition assignment includes the broker 1 more than once.");
        refused(&[(0, &[7])], "The manual partition assignment includes broker 7, but no such broker is registered.");
        refused(&[(0, &[])], "The manual partition assignment includes an empty replica list.");
        check(
            vec![assigned(&[(0, &[1])]).with_replication_factor(1)],
            &["t 42 p=-1 r=-1 A manual partition assignment was specified, but replication factor was not set to -1."],
        );
        check(
            vec![assigned(&[(0, &[1])]).with_num_partitions(1)],
            &["t 42 p=-1 r=-1 A manual partition assignment was specified, but numPartitions was not set to -1."],
        );
    }

    #[test]
    fn configs_that_cannot_be() {
        let refused = |configs: &[(&'static str, Option<&'static str>)], why: &str| {
            check(vec![configured(configs)], &[&format!("t 40 p=-1 r=-1 {why}")]);
        };
        refused(&[("foo.bar", Some("1"))], "Unknown topic config name: foo.bar");
        refused(&[("retention.ms", None)], "Null value not supported for topic configs: retention.ms");
        refused(
            &[("retention.ms", Some("-2"))],
            "Invalid value -2 for configuration retention.ms: Value must be at least -1",
        );
        refused(
            &[("min.compaction.lag.ms", Some("100")), ("max.compaction.lag.ms", Some("50"))],
            "conflict topic config setting min.compaction.lag.ms (100) > max.compaction.lag.ms (50)",
        );
        refused(
            &[("remote.storage.enable", Some("true"))],
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.",
        );
    }

    #[test]
    fn configs_come_back_with_their_sources() {
        let mut controller = controller("min.insync.replicas=1\n");
        let request = CreateTopicsRequest::default().with_topics(vec![configured(&[("retention.ms", Some("5"))])]);
        let (_, response) = controller.create_topics(&request, &mut ids());
        let configs = response.topics[0].configs.as_ref().expect("always there");
        let source = |name: &str| {
            let config = configs.iter().find(|config| &*config.name == name).expect("it is there");
            (config.value.as_deref().unwrap_or("null").to_owned(), config.config_source)
        };
        assert_eq!(source("retention.ms"), ("5".to_owned(), 1));
        assert_eq!(source("min.insync.replicas"), ("1".to_owned(), 4));
        assert_eq!(source("segment.bytes"), ("1073741824".to_owned(), 5));
        assert_eq!(controller.image().topic_overrides("t").len(), 1);
    }

    #[test]
    fn offsets_topic_is_made_once_with_its_own_settings() {
        let mut controller = controller("offsets.topic.num.partitions=8\noffsets.topic.replication.factor=3\n");
        let before = controller.image().clone();
        let (records, id) = controller.ensure_topic(CONSUMER_OFFSETS, &mut ids()).expect("it can be made");
        replays(&before, &records, &controller);
        let topic = controller.image().topic(CONSUMER_OFFSETS).expect("created");
        assert_eq!((topic.partitions.len(), topic.partitions[0].replicas.len()), (8, 1));
        let overrides = controller.image().topic_overrides(CONSUMER_OFFSETS);
        let overrides: Vec<_> = overrides.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(overrides, ["cleanup.policy=compact", "compression.type=producer", "segment.bytes=104857600"]);
        assert_eq!(controller.ensure_topic(CONSUMER_OFFSETS, &mut ids_from(9000)), Ok((Vec::new(), id)));
    }

    #[test]
    fn bad_names_are_not_created_by_asking_for_them() {
        let mut controller = controller("");
        let (records, answers) = controller.auto_create(&["a b", "a.b", "a_b", "c"], &mut ids());
        assert_eq!(
            answers,
            [
                Err(ErrorCode::InvalidTopicException),
                Ok(TopicId(Uuid::from_u128(1000))),
                Err(ErrorCode::InvalidTopicException),
                Ok(TopicId(Uuid::from_u128(1001))),
            ]
        );
        assert_eq!(records.len(), 4);
    }
}
