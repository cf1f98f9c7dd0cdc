//! The one client that changes topics, and knows what there should be.

use std::collections::BTreeMap;

use kafka_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, IncrementalAlterConfigsRequest, TopicName,
    create_partitions_request::CreatePartitionsTopic,
    create_topics_request::{CreatableTopic, CreatableTopicConfig},
    incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
};

use crate::{
    base::{ErrorCode, PartitionKey, TopicId},
    coordinator::OFFSETS_TOPIC,
    metadata::Image,
    partition::Isolation,
    shard::{ControlAnswer, ControlRequest, OffsetsCall},
    sim::{
        connection::{Connection, Gone},
        consumer, member,
        member::text,
        model::Topic,
        producer,
        world::World,
    },
};

const NAMES: [&str; 3] = ["kept", "red", "blue"];
const PARTITIONS_MAX: i32 = 4;
/// Kafka's number for topics in requests about settings.
const TOPIC_RESOURCE: i8 = 2;

/// What was asked for and not answered: it may have happened.
enum Doubt {
    None,
    /// Everything as it should be afterwards.
    After(BTreeMap<String, Topic>),
    /// A topic whose id is not known yet.
    Created(String, i32, BTreeMap<String, String>),
}

struct Admin {
    world: World,
    doubt: Doubt,
}

pub async fn run(world: World) {
    let mut admin = Admin { world, doubt: Doubt::None };
    loop {
        let connection = admin.world.connect().await;
        if admin.compare(&connection).await.is_err() {
            continue;
        }
        loop {
            if admin.world.finishing.get() {
                return;
            }
            admin.world.pause(8000).await;
            if admin.change(&connection).await.is_err() {
                break;
            }
        }
    }
}

/// Topics as an image has them, but for the groups' own.
pub fn topics_of(image: &Image) -> BTreeMap<String, Topic> {
    let topics = image.topics().filter(|topic| &*topic.name != OFFSETS_TOPIC).map(|topic| {
        let configs = image.topic_overrides(&topic.name).iter();
        let configs = configs.map(|(name, value)| (name.to_string(), value.to_string())).collect();
        (topic.name.to_string(), Topic { id: topic.id, partitions: topic.partitions.len() as i32, configs })
    });
    topics.collect()
}

impl Admin {
    /// After a restart: everything is as it was answered, or as it was asked for last.
    async fn compare(&mut self, connection: &Connection) -> Result<(), Gone> {
        let there = connection.ask(|router| async move { topics_of(&router.image()) }).await?;
        let known = self.world.model.topics.borrow().clone();
        let seed = self.world.seed();
        match std::mem::replace(&mut self.doubt, Doubt::None) {
            Doubt::None => assert_eq!(there, known, "{seed}"),
            Doubt::After(after) => {
                assert!(there == known || there == after, "{seed}: {there:?} is neither {known:?} nor {after:?}");
                self.became(there);
            }
            Doubt::Created(name, partitions, configs) => {
                let mut before = there.clone();
                if let Some(topic) = before.remove(&name) {
                    assert_eq!((topic.partitions, &topic.configs), (partitions, &configs), "{seed}: {name}");
                }
                assert_eq!(before, known, "{seed}");
                self.became(there);
            }
        }
        Ok(())
    }

    /// Takes note of how things are now.
    fn became(&self, topics: BTreeMap<String, Topic>) {
        let model = &self.world.model;
        let gone: Vec<TopicId> = model.topics.borrow().values().map(|topic| topic.id).collect();
        for topic in topics.values() {
            let flush = topic.configs.get("durability").is_none_or(|value| value == "flush");
            let retention = topic.configs.contains_key("retention.bytes");
            for partition in 0..topic.partitions {
                let key = PartitionKey { topic_id: topic.id, partition };
                let mut partitions = model.partitions.borrow_mut();
                let known = partitions.contains_key(&key);
                let promised = partitions.entry(key).or_default();
                promised.flush = flush;
                promised.retention |= retention;
                drop(partitions);
                if !known {
                    self.world.client(|world| producer::run(world, key));
                }
            }
        }
        for id in gone {
            if !topics.values().any(|topic| topic.id == id) {
                model.deleted.borrow_mut().insert(id);
            }
        }
        *model.topics.borrow_mut() = topics;
        model.changes.set(model.changes.get() + 1);
    }

    async fn change(&mut self, connection: &Connection) -> Result<(), Gone> {
        let topics = self.world.model.topics.borrow().clone();
        let name = NAMES[self.world.rand.below(NAMES.len() as u64) as usize];
        match topics.get(name) {
            None => self.create(connection, name).await,
            Some(topic) => match self.world.rand.below(10) {
                0 if name != member::TOPIC => self.delete(connection, name, topic.id, topics.clone()).await,
                1 if topic.partitions < PARTITIONS_MAX => self.grow(connection, name, topics.clone()).await,
                2 | 3 => self.configure(connection, name, topics.clone()).await,
                4 | 5 => self.delete_records(connection, topic).await,
                6 => self.look(connection, topic).await,
                _ => Ok(()),
            },
        }
    }

    async fn control(&self, connection: &Connection, request: ControlRequest) -> Result<ControlAnswer, Gone> {
        connection.ask(move |router| async move { router.control(request).await }).await
    }

    async fn create(&mut self, connection: &Connection, name: &str) -> Result<(), Gone> {
        let partitions = 1 + self.world.rand.below(3) as i32;
        let mut configs = BTreeMap::new();
        if self.world.one_in(4) {
            configs.insert("durability".to_owned(), "write".to_owned());
        }
        if self.world.one_in(2) {
            configs.insert("segment.ms".to_owned(), (1 + self.world.rand.below(40)).to_string());
        }
        if self.world.one_in(6) {
            configs.insert("retention.bytes".to_owned(), self.world.rand.below(60_000).to_string());
        }
        let settings = configs
            .iter()
            .map(|(name, value)| CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value))));
        let topic = CreatableTopic::default()
            .with_name(TopicName(text(name)))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(settings.collect());
        let request = CreateTopicsRequest::default().with_topics(vec![topic]);
        self.doubt = Doubt::Created(name.to_owned(), partitions, configs.clone());
        let answer = self.control(connection, ControlRequest::CreateTopics(request)).await?;
        self.doubt = Doubt::None;
        match answer {
            ControlAnswer::CreateTopics(answer) => {
                let result = &answer.topics[0];
                assert_eq!(result.error_code, 0, "{}: {result:?}", self.world.seed());
                let mut topics = self.world.model.topics.borrow().clone();
                let topic = Topic { id: TopicId(result.topic_id), partitions, configs };
                assert!(topics.insert(name.to_owned(), topic).is_none(), "{}: {name} twice", self.world.seed());
                self.became(topics);
            }
            other => self.refused(&other),
        }
        Ok(())
    }

    /// A change may be refused by a full disk only, and then has not happened.
    fn refused(&self, answer: &ControlAnswer) {
        let full =
            matches!(answer, ControlAnswer::Refused(ErrorCode::KafkaStorageError | ErrorCode::NotLeaderOrFollower));
        assert!(full, "{}: {answer:?}", self.world.seed());
    }

    async fn delete(
        &mut self,
        connection: &Connection,
        name: &str,
        id: TopicId,
        mut topics: BTreeMap<String, Topic>,
    ) -> Result<(), Gone> {
        topics.remove(name);
        self.world.model.deleted.borrow_mut().insert(id);
        self.doubt = Doubt::After(topics.clone());
        let request = DeleteTopicsRequest::default().with_topic_names(vec![TopicName(text(name))]);
        let answer = self.control(connection, ControlRequest::DeleteTopics(request, 5)).await?;
        self.doubt = Doubt::None;
        match answer {
            ControlAnswer::DeleteTopics(answer) => {
                assert_eq!(answer.responses[0].error_code, 0, "{}: {answer:?}", self.world.seed());
                self.became(topics);
            }
            other => {
                self.refused(&other);
                self.world.model.deleted.borrow_mut().remove(&id);
            }
        }
        Ok(())
    }

    async fn grow(
        &mut self,
        connection: &Connection,
        name: &str,
        mut topics: BTreeMap<String, Topic>,
    ) -> Result<(), Gone> {
        let topic = topics.get_mut(name).expect("it is there");
        topic.partitions += 1;
        let wanted = CreatePartitionsTopic::default()
            .with_name(TopicName(text(name)))
            .with_count(topic.partitions)
            .with_assignments(None);
        self.doubt = Doubt::After(topics.clone());
        let request = CreatePartitionsRequest::default().with_topics(vec![wanted]);
        let answer = self.control(connection, ControlRequest::CreatePartitions(request)).await?;
        self.doubt = Doubt::None;
        match answer {
            ControlAnswer::CreatePartitions(answer) => {
                assert_eq!(answer.results[0].error_code, 0, "{}: {answer:?}", self.world.seed());
                self.became(topics);
            }
            other => self.refused(&other),
        }
        Ok(())
    }

    async fn configure(
        &mut self,
        connection: &Connection,
        name: &str,
        mut topics: BTreeMap<String, Topic>,
    ) -> Result<(), Gone> {
        let value = (1 + self.world.rand.below(1000)).to_string();
        let configs = &mut topics.get_mut(name).expect("it is there").configs;
        configs.insert("file.delete.delay.ms".to_owned(), value.clone());
        let config = AlterableConfig::default().with_name(text("file.delete.delay.ms")).with_value(Some(text(&value)));
        let resource = AlterConfigsResource::default()
            .with_resource_type(TOPIC_RESOURCE)
            .with_resource_name(text(name))
            .with_configs(vec![config]);
        self.doubt = Doubt::After(topics.clone());
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let answer = self.control(connection, ControlRequest::IncrementalAlterConfigs(request)).await?;
        self.doubt = Doubt::None;
        match answer {
            ControlAnswer::IncrementalAlterConfigs(answer) => {
                assert_eq!(answer.responses[0].error_code, 0, "{}: {answer:?}", self.world.seed());
                self.became(topics);
            }
            other => self.refused(&other),
        }
        Ok(())
    }

    async fn delete_records(&self, connection: &Connection, topic: &Topic) -> Result<(), Gone> {
        let partition = self.world.rand.below(topic.partitions as u64) as i32;
        let key = PartitionKey { topic_id: topic.id, partition };
        let model = &self.world.model;
        let (floor, top) = model.with(key, |it| (it.start, it.high_watermark));
        let target = floor + self.world.rand.below((top - floor).max(0) as u64 + 1) as i64;
        model.with(key, |it| it.start_asked = it.start_asked.max(target));
        let call = OffsetsCall::DeleteRecords(vec![(key, target)]);
        let answer = connection.ask(move |router| async move { router.offsets(call).await }).await?[0];
        match answer {
            Ok(answer) => {
                assert!(answer.offset.0 >= target, "{}: {answer:?} for {target}", model.hint(key));
                model.log_start(key, floor, answer.offset);
            }
            Err(ErrorCode::KafkaStorageError) => {}
            Err(other) => panic!("{}: {other:?} for {target} of {floor}..{top}", model.hint(key)),
        }
        Ok(())
    }

    /// Asks where the partitions begin and end.
    async fn look(&self, connection: &Connection, topic: &Topic) -> Result<(), Gone> {
        let model = &self.world.model;
        let keys: Vec<_> =
            (0..topic.partitions).map(|partition| PartitionKey { topic_id: topic.id, partition }).collect();
        let floors: Vec<_> = keys.iter().map(|key| model.with(*key, |it| (it.start, it.high_watermark))).collect();
        for timestamp in [-2, -1] {
            let parts = keys.iter().map(|key| (*key, -1, timestamp)).collect();
            let call = OffsetsCall::List(parts, Isolation::ReadUncommitted);
            let answers = connection.ask(move |router| async move { router.offsets(call).await }).await?;
            for ((key, floor), answer) in keys.iter().zip(&floors).zip(answers) {
                let answer = match answer {
                    Ok(answer) => answer,
                    // The disk fails.
                    Err(ErrorCode::KafkaStorageError) => continue,
                    Err(error) => panic!("{}: {error:?}", model.hint(*key)),
                };
                match timestamp {
                    -2 => model.log_start(*key, floor.0, answer.offset),
                    _ => model.high_watermark(*key, floor.1, answer.offset),
                }
            }
        }
        // One that nobody waits for: it is dropped with the next connection.
        let call = crate::shard::FetchCall {
            partitions: keys.iter().map(|key| (*key, consumer::part(0, 1))).collect(),
            isolation: Isolation::ReadUncommitted,
            max_bytes: 1,
            min_bytes: 1 << 30,
            max_wait: std::time::Duration::from_millis(self.world.rand.below(50)),
        };
        drop(connection.begin(move |router| {
            Box::pin(async move {
                let waits: crate::replica::Local<()> = Box::pin(async move {
                    router.fetch(call).await;
                });
                waits
            })
        }));
        Ok(())
    }
}
