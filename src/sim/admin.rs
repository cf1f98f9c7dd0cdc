//! The one client that changes topics, and knows what there should be.

use std::{collections::BTreeMap, rc::Rc};

use kafka_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest, DescribeConfigsRequest,
    IncrementalAlterConfigsRequest, MetadataRequest, TopicName,
    create_partitions_request::CreatePartitionsTopic,
    create_topics_request::{CreatableTopic, CreatableTopicConfig},
    delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
    delete_topics_request::DeleteTopicState,
    describe_configs_request::DescribeConfigsResource,
    incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
};

use crate::{
    base::{ErrorCode, Offset, PartitionKey, TopicId},
    metadata::{Image, names::CONSUMER_OFFSETS},
    sim::{
        broker::Life,
        connection::Gone,
        consumer::{self, list_offset},
        member,
        member::text,
        model::Topic,
        producer,
        wire::Wire,
        world::World,
    },
};

const NAMES: [&str; 3] = [member::TOPIC, "red", "blue"];
/// Names that look like the broker's own files, like directories that it deletes or sets aside, or that are as long as can be.
const HOSTILE: [&str; 10] = [
    "ringtail-journal-0",
    "ringtail-checkpoint-0",
    "ringtail-manifest",
    "ringtail-0-0.journal",
    "meta.properties",
    "a.0123456789abcdef0123456789abcdef-delete",
    "a-0.0123456789abcdef0123456789abcdef-stray",
    "x.tmp",
    "...",
    "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn\
     nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn\
     nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn",
];
const PARTITIONS_MAX: i32 = 4;
/// Kafka's number for topics in requests about settings.
const TOPIC_RESOURCE: i8 = 2;
/// Kafka's number for what was set for a topic.
const TOPIC_SOURCE: i8 = 1;

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
    /// Who was asked for what is in doubt: as long as it lives, it may happen yet.
    asked: Option<Rc<Life>>,
    names: Vec<&'static str>,
}

pub async fn run(world: World) {
    let hostile = HOSTILE[world.rand.below(HOSTILE.len() as u64) as usize];
    let names = NAMES.into_iter().chain([hostile]).collect();
    let mut admin = Admin { world, doubt: Doubt::None, asked: None, names };
    loop {
        let connection = admin.world.connect().await;
        if admin.compare(&connection).await.is_err() {
            continue;
        }
        admin.asked = Some(connection.life.clone());
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
    let topics = image.topics().filter(|topic| &*topic.name != CONSUMER_OFFSETS).map(|topic| {
        let configs = image.topic_overrides(&topic.name).iter();
        let configs = configs.map(|(name, value)| (name.to_string(), value.to_string())).collect();
        (topic.name.to_string(), Topic { id: topic.id, partitions: topic.partitions.len() as i32, configs })
    });
    topics.collect()
}

impl Admin {
    /// After a restart, or on another connection: everything is as it was answered, or as it was asked for last. What may
    /// happen yet is waited for, until it has or the broker has ended.
    async fn compare(&mut self, connection: &Wire) -> Result<(), Gone> {
        let mut there = self.topics_told(connection).await?;
        while self.may_happen_yet(connection, there.as_ref()) {
            self.world.pause(20_000).await;
            there = self.topics_told(connection).await?;
        }
        let there = there.unwrap_or_else(|| panic!("{}: a topic is not described", self.world.seed()));
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

    /// Whether what is in doubt was asked of this very life, and is not to be seen.
    fn may_happen_yet(&self, connection: &Wire, there: Option<&BTreeMap<String, Topic>>) -> bool {
        let here = self.asked.as_ref().is_some_and(|asked| Rc::ptr_eq(asked, &connection.life));
        here && match (&self.doubt, there) {
            (Doubt::None, _) => false,
            // It has happened between two questions.
            (Doubt::After(_) | Doubt::Created(..), None) => true,
            (Doubt::After(after), Some(there)) => there != after,
            (Doubt::Created(name, ..), Some(there)) => !there.contains_key(name),
        }
    }

    /// Topics as a client is told of them, but for the groups' own. None: one of them has gone meanwhile.
    async fn topics_told(&self, connection: &Wire) -> Result<Option<BTreeMap<String, Topic>>, Gone> {
        let request = MetadataRequest::default().with_topics(None).with_allow_auto_topic_creation(false);
        let answer = connection.ask(self.world.version(10, 13), &request).await?;
        let mut topics = BTreeMap::new();
        for topic in answer.topics {
            assert_eq!(topic.error_code, 0, "{}: {topic:?}", self.world.seed());
            let name = topic.name.expect("a topic has a name").to_string();
            if name == CONSUMER_OFFSETS {
                continue;
            }
            let Some(configs) = self.configs_told(connection, &name).await? else { return Ok(None) };
            let topic = Topic { id: TopicId(topic.topic_id), partitions: topic.partitions.len() as i32, configs };
            topics.insert(name, topic);
        }
        Ok(Some(topics))
    }

    /// What was set for a topic, if it is there.
    async fn configs_told(&self, connection: &Wire, name: &str) -> Result<Option<BTreeMap<String, String>>, Gone> {
        let resource = DescribeConfigsResource::default()
            .with_resource_type(TOPIC_RESOURCE)
            .with_resource_name(text(name))
            .with_configuration_keys(None);
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        let answer = connection.ask(self.world.version(1, 4), &request).await?;
        let result = &answer.results[0];
        if result.error_code == ErrorCode::UnknownTopicOrPartition.code() {
            return Ok(None);
        }
        assert_eq!(result.error_code, 0, "{}: {result:?}", self.world.seed());
        let set = result.configs.iter().filter(|config| config.config_source == TOPIC_SOURCE);
        let set =
            set.map(|config| (config.name.to_string(), config.value.as_ref().map_or(String::new(), |v| v.to_string())));
        Ok(Some(set.collect()))
    }

    /// Takes note of how things are now.
    fn became(&self, topics: BTreeMap<String, Topic>) {
        let model = &self.world.model;
        let gone: Vec<TopicId> = model.topics.borrow().values().map(|topic| topic.id).collect();
        for (name, topic) in &topics {
            model.named.borrow_mut().entry(name.clone()).or_default().insert(topic.id);
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

    async fn change(&mut self, connection: &Wire) -> Result<(), Gone> {
        let topics = self.world.model.topics.borrow().clone();
        let name = self.names[self.world.rand.below(self.names.len() as u64) as usize];
        match topics.get(name) {
            None => self.create(connection, name).await,
            Some(topic) => match self.world.rand.below(10) {
                0 if name != member::TOPIC => self.delete(connection, name, topic.id, topics.clone()).await,
                1 if topic.partitions < PARTITIONS_MAX => self.grow(connection, name, topics.clone()).await,
                2 | 3 => self.configure(connection, name, topics.clone()).await,
                4 | 5 => self.delete_records(connection, name, topic).await,
                6 => self.look(connection, name, topic).await,
                _ => Ok(()),
            },
        }
    }

    async fn create(&mut self, connection: &Wire, name: &str) -> Result<(), Gone> {
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
        let request = CreateTopicsRequest::default().with_timeout_ms(10_000).with_topics(vec![topic]);
        self.doubt = Doubt::Created(name.to_owned(), partitions, configs.clone());
        let version = self.world.version(2, 7);
        let answer = connection.ask(version, &request).await?;
        let result = &answer.topics[0];
        if self.refused(result.error_code, result) {
            return Ok(());
        }
        let id = match version {
            7 => TopicId(result.topic_id),
            _ => {
                let there = self.topics_told(connection).await?.expect("nobody else changes topics");
                there.get(name).map(|topic| topic.id).expect("it was just made")
            }
        };
        self.doubt = Doubt::None;
        let mut topics = self.world.model.topics.borrow().clone();
        let topic = Topic { id, partitions, configs };
        assert!(topics.insert(name.to_owned(), topic).is_none(), "{}: {name} twice", self.world.seed());
        self.became(topics);
        Ok(())
    }

    /// A change may be refused by a full or failing disk only, and then has not happened.
    fn refused(&mut self, code: i16, answer: &impl std::fmt::Debug) -> bool {
        let Some(error) = ErrorCode::try_from_code(code) else { return false };
        assert!(self.world.may_refuse(error), "{}: {answer:?}", self.world.seed());
        self.doubt = Doubt::None;
        true
    }

    async fn delete(
        &mut self,
        connection: &Wire,
        name: &str,
        id: TopicId,
        mut topics: BTreeMap<String, Topic>,
    ) -> Result<(), Gone> {
        topics.remove(name);
        self.world.model.deleted.borrow_mut().insert(id);
        self.doubt = Doubt::After(topics.clone());
        let version = self.world.version(1, 6);
        let request = DeleteTopicsRequest::default().with_timeout_ms(10_000);
        let request = if version < 6 {
            request.with_topic_names(vec![TopicName(text(name))])
        } else {
            request.with_topics(vec![DeleteTopicState::default().with_name(Some(TopicName(text(name))))])
        };
        let answer = connection.ask(version, &request).await?;
        if self.refused(answer.responses[0].error_code, &answer) {
            self.world.model.deleted.borrow_mut().remove(&id);
            return Ok(());
        }
        self.doubt = Doubt::None;
        self.became(topics);
        Ok(())
    }

    async fn grow(&mut self, connection: &Wire, name: &str, mut topics: BTreeMap<String, Topic>) -> Result<(), Gone> {
        let topic = topics.get_mut(name).expect("it is there");
        topic.partitions += 1;
        let wanted = CreatePartitionsTopic::default()
            .with_name(TopicName(text(name)))
            .with_count(topic.partitions)
            .with_assignments(None);
        self.doubt = Doubt::After(topics.clone());
        let request = CreatePartitionsRequest::default().with_timeout_ms(10_000).with_topics(vec![wanted]);
        let answer = connection.ask(self.world.version(0, 3), &request).await?;
        if self.refused(answer.results[0].error_code, &answer) {
            return Ok(());
        }
        self.doubt = Doubt::None;
        self.became(topics);
        Ok(())
    }

    async fn configure(
        &mut self,
        connection: &Wire,
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
        let answer = connection.ask(self.world.version(0, 1), &request).await?;
        if self.refused(answer.responses[0].error_code, &answer) {
            return Ok(());
        }
        self.doubt = Doubt::None;
        self.became(topics);
        Ok(())
    }

    async fn delete_records(&self, connection: &Wire, name: &str, topic: &Topic) -> Result<(), Gone> {
        let partition = self.world.rand.below(topic.partitions as u64) as i32;
        let key = PartitionKey { topic_id: topic.id, partition };
        let model = &self.world.model;
        let (floor, top) = model.with(key, |it| (it.start, it.high_watermark));
        let target = floor + self.world.rand.below((top - floor).max(0) as u64 + 1) as i64;
        model.with(key, |it| it.start_asked = it.start_asked.max(target));
        let part = DeleteRecordsPartition::default().with_partition_index(partition).with_offset(target);
        let asked = DeleteRecordsTopic::default().with_name(TopicName(text(name))).with_partitions(vec![part]);
        let request = DeleteRecordsRequest::default().with_timeout_ms(10_000).with_topics(vec![asked]);
        let answer = connection.ask(self.world.version(0, 2), &request).await?;
        let part = &answer.topics[0].partitions[0];
        match ErrorCode::try_from_code(part.error_code) {
            None => {
                assert!(part.low_watermark >= target, "{}: {part:?} for {target}", model.hint(key));
                model.log_start(key, floor, Offset(part.low_watermark));
            }
            Some(error) if self.world.may_refuse(error) => {}
            Some(other) => panic!("{}: {other:?} for {target} of {floor}..{top}", model.hint(key)),
        }
        Ok(())
    }

    /// Asks where the partitions begin and end.
    async fn look(&self, connection: &Wire, name: &str, topic: &Topic) -> Result<(), Gone> {
        let model = &self.world.model;
        let keys: Vec<_> =
            (0..topic.partitions).map(|partition| PartitionKey { topic_id: topic.id, partition }).collect();
        for key in &keys {
            for timestamp in [-2, -1] {
                let floor = model.with(*key, |it| (it.start, it.high_watermark));
                let version = self.world.version(1, 10);
                let listed = list_offset(connection, version, name, key.partition, timestamp).await?;
                let (offset, _) = match listed {
                    Ok(listed) => listed,
                    Err(error) if self.world.may_refuse(error) => continue,
                    Err(error) => panic!("{}: {error:?}", model.hint(*key)),
                };
                match timestamp {
                    -2 => model.log_start(*key, floor.0, Offset(offset)),
                    _ => model.high_watermark(*key, floor.1, Offset(offset)),
                }
            }
        }
        // One that nobody waits for: it is dropped with the next connection.
        let parts: Vec<_> = keys.iter().map(|key| (*key, 0, 1)).collect();
        let max_wait_ms = self.world.rand.below(50) as i32;
        let request = consumer::request(13, name, &parts).with_min_bytes(1 << 30).with_max_wait_ms(max_wait_ms);
        drop(connection.begin(13, &request));
        Ok(())
    }
}
