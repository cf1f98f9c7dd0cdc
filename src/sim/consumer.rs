//! A consumer of several partitions: long polls with every kind of limit, with and without a session, by name and by id, and
//! a check of all that comes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use kafka_protocol::messages::{
    FetchRequest, FetchResponse, ListOffsetsRequest, TopicName,
    fetch_request::{FetchPartition, FetchTopic},
    fetch_response::PartitionData,
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
};

use crate::{
    base::{ErrorCode, Offset, PartitionKey, TopicId},
    sim::{
        connection::Gone,
        member::{TOPIC, text},
        records,
        wire::Wire,
        world::World,
    },
};

/// An answer may come so much later than the call allowed: slow disks and messages.
const LATE_MAX: Duration = Duration::from_secs(2);

/// More than there is.
const UNLIMITED: i32 = 1 << 20;

/// What was told about a partition before a fetch was sent.
struct Floor {
    high_watermark: i64,
    start: i64,
    losses: u32,
}

/// A fetch session (KIP-227): partitions that are not named are asked for as before.
#[derive(Default)]
struct Session {
    id: i32,
    epoch: i32,
    asked: Vec<PartitionKey>,
}

struct Consumer {
    /// Positions that went back since they were last asked from: a session still has the later ones.
    moved_back: BTreeSet<PartitionKey>,
    world: World,
    positions: BTreeMap<PartitionKey, i64>,
    session: Option<Session>,
}

pub async fn run(world: World) {
    let mut consumer = Consumer { world, positions: BTreeMap::new(), moved_back: BTreeSet::new(), session: None };
    loop {
        let connection = consumer.world.connect().await;
        consumer.session = consumer.world.one_in(2).then(Session::default);
        for _ in 0..1 + consumer.world.rand.below(30) {
            if consumer.world.finishing.get() {
                return;
            }
            if consumer.round(&connection).await.is_err() {
                break;
            }
        }
    }
}

/// A fetch of partitions from the given offsets: by id from v13 on, by name before. No limit but the partitions' own.
pub fn request(version: i16, name: &str, partitions: &[(PartitionKey, i64, i32)]) -> FetchRequest {
    let topics = partitions.chunk_by(|before, after| before.0.topic_id == after.0.topic_id).map(|partitions| {
        let parts = partitions.iter().map(|(key, offset, max_bytes)| {
            FetchPartition::default()
                .with_partition(key.partition)
                .with_fetch_offset(*offset)
                .with_partition_max_bytes(*max_bytes)
        });
        let topic = FetchTopic::default().with_partitions(parts.collect());
        if version >= 13 {
            topic.with_topic_id(partitions[0].0.topic_id.0)
        } else {
            topic.with_topic(TopicName(text(name)))
        }
    });
    FetchRequest::default()
        .with_max_wait_ms(0)
        .with_min_bytes(1)
        .with_max_bytes(UNLIMITED)
        .with_topics(topics.collect())
}

/// The partitions of an answer, by key.
pub fn answers(version: i16, id: TopicId, answer: FetchResponse) -> BTreeMap<PartitionKey, PartitionData> {
    let topics = answer.responses.into_iter().flat_map(|topic| {
        let topic_id = if version >= 13 { TopicId(topic.topic_id) } else { id };
        let keyed = move |partition: PartitionData| {
            (PartitionKey { topic_id, partition: partition.partition_index }, partition)
        };
        topic.partitions.into_iter().map(keyed)
    });
    topics.collect()
}

/// Where a log begins (-2), ends (-1), has its largest timestamp (-3), or first reaches a timestamp.
pub async fn list_offset(
    connection: &Wire,
    version: i16,
    name: &str,
    partition: i32,
    timestamp: i64,
) -> Result<Result<(i64, i64), ErrorCode>, Gone> {
    let asked = ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default().with_name(TopicName(text(name))).with_partitions(vec![asked]);
    let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
    let answer = connection.ask(version, &request).await?;
    let partition = &answer.topics[0].partitions[0];
    Ok(match ErrorCode::try_from_code(partition.error_code) {
        None => Ok((partition.offset, partition.timestamp)),
        Some(error) => Err(error),
    })
}

impl Consumer {
    async fn round(&mut self, connection: &Wire) -> Result<(), Gone> {
        let world = self.world.clone();
        let mut keys = world.model.keys();
        keys.retain(|_| !world.one_in(3));
        let kept = world.model.topics.borrow().get(TOPIC).map(|topic| topic.id);
        let named = self.session.is_none() && world.one_in(3);
        if named {
            keys.retain(|key| Some(key.topic_id) == kept);
        }
        if keys.is_empty() {
            world.pause(3000).await;
            return Ok(());
        }
        let version = if named { world.version(4, 12) } else { world.version(13, 18) };
        self.moved_back.retain(|key| !keys.contains(key));
        let request = self.ask_for(version, &keys);
        // What a session has is asked for as well.
        let mut all = keys.clone();
        if let Some(session) = &self.session {
            all.extend(session.asked.iter().filter(|key| !keys.contains(key)));
        }
        let floors: BTreeMap<PartitionKey, Floor> = all.iter().map(|key| (*key, floor(&world, *key))).collect();
        let begun = world.now();
        let answer = connection.ask(version, &request).await?;
        let taken = world.now().since(begun);
        if !self.session_goes_on(&answer, &all) {
            return Ok(());
        }
        let fetched = answers(version, kept.unwrap_or(TopicId::ZERO), answer);
        self.check_wait(&request, &all, &fetched, taken);
        if self.session.is_none() {
            assert_eq!(fetched.len(), keys.len(), "{}", world.seed());
        }
        for (key, fetched) in fetched {
            let floor = floors.get(&key).unwrap_or_else(|| panic!("{}: nobody asked for it", world.model.hint(key)));
            let elsewhere = fetched.error_code == ErrorCode::OffsetOutOfRange.code() || self.moved_back.contains(&key);
            if !keys.contains(&key) && elsewhere {
                // The session asks from where it asked last, and that may be gone, or not be where we are any more.
                continue;
            }
            self.take(connection, key, floor, version, &fetched).await?;
        }
        Ok(())
    }

    fn ask_for(&mut self, version: i16, keys: &[PartitionKey]) -> FetchRequest {
        let world = &self.world;
        let partitions: Vec<_> = keys
            .iter()
            .map(|key| {
                let max_bytes = if world.one_in(4) { world.rand.below(2000) as i32 } else { UNLIMITED };
                (*key, *self.positions.entry(*key).or_default(), max_bytes)
            })
            .collect();
        let request = request(version, TOPIC, &partitions)
            .with_isolation_level(world.rand.below(2) as i8)
            .with_max_bytes(if world.one_in(4) { world.rand.below(5000) as i32 } else { UNLIMITED })
            .with_min_bytes(if world.one_in(3) { world.rand.below(4000) as i32 } else { 1 })
            .with_max_wait_ms(world.rand.below(60) as i32);
        match &self.session {
            Some(session) => request.with_session_id(session.id).with_session_epoch(session.epoch),
            None if version >= 7 => request.with_session_id(0).with_session_epoch(-1),
            None => request,
        }
    }

    /// False: the session has ended, and the next request begins another.
    fn session_goes_on(&mut self, answer: &FetchResponse, asked: &[PartitionKey]) -> bool {
        let Some(session) = &mut self.session else { return true };
        match ErrorCode::try_from_code(answer.error_code) {
            None => {}
            // Others came since; or the topics that it names have come and gone.
            Some(
                ErrorCode::FetchSessionIdNotFound
                | ErrorCode::InvalidFetchSessionEpoch
                | ErrorCode::FetchSessionTopicIdError,
            ) => {
                *session = Session::default();
                return false;
            }
            Some(other) => panic!("{}: a fetch was refused with {other:?}", self.world.seed()),
        }
        if answer.session_id == 0 {
            *session = Session::default();
        } else {
            assert!(session.id == 0 || session.id == answer.session_id, "{}: another session", self.world.seed());
            *session = Session { id: answer.session_id, epoch: session.epoch + 1, asked: asked.to_vec() };
        }
        true
    }

    /// A fetch answers when there is enough, or something to say, or when its time is up; and then it does answer.
    fn check_wait(
        &self,
        request: &FetchRequest,
        all: &[PartitionKey],
        fetched: &BTreeMap<PartitionKey, PartitionData>,
        taken: Duration,
    ) {
        let seed = self.world.seed();
        let sizes = all.iter().filter_map(|key| fetched.get(key)).map(|part| bytes_of(part).len() as i32);
        let bytes: i32 = sizes.clone().sum();
        let said = fetched.values().any(|part| part.error_code != 0);
        // A small limit may cut what was enough before.
        let enough = bytes >= request.min_bytes || said || request.max_bytes < UNLIMITED;
        let max_wait = Duration::from_millis(request.max_wait_ms as u64);
        assert!(enough || taken >= max_wait, "{seed}: {bytes} bytes after {taken:?} for {request:?}");
        assert!(taken <= max_wait + LATE_MAX, "{seed}: {taken:?} for {request:?}");
        // The first batch that is read comes whole, and with a session the order is the session's.
        let largest = sizes.max().unwrap_or(0);
        assert!(bytes <= request.max_bytes.max(largest), "{seed}: {bytes} bytes for {request:?}");
    }

    async fn take(
        &mut self,
        connection: &Wire,
        key: PartitionKey,
        floor: &Floor,
        version: i16,
        fetched: &PartitionData,
    ) -> Result<(), Gone> {
        let model = &self.world.model;
        let hint = model.hint(key);
        let position = self.positions.entry(key).or_default();
        match ErrorCode::try_from_code(fetched.error_code) {
            None => {}
            Some(ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId) => {
                assert!(model.is_deleted(key), "{hint}: the topic is there, but not for a consumer");
                return Ok(());
            }
            Some(ErrorCode::OffsetOutOfRange) => {
                let Some(name) = model.name_of(key.topic_id) else { return Ok(()) };
                let losses = model.with(key, |it| it.losses);
                let version = self.world.version(1, 10);
                let listed = list_offset(connection, version, &name, key.partition, -2).await?;
                // Another topic of that name may have come meanwhile.
                if let Ok((start, _)) = listed
                    && model.name_of(key.topic_id).is_some()
                {
                    let passed = *position < start || losses > 0;
                    assert!(passed, "{hint}: offset {position} was read up to, and is out of range now");
                    *position = start;
                    self.moved_back.insert(key);
                }
                return Ok(());
            }
            // The disk fails.
            Some(error) if self.world.partition_may_refuse(&connection.life, key, error) => return Ok(()),
            Some(other) => panic!("{hint}: fetch was refused with {other:?}"),
        }
        if model.with(key, |it| it.losses) == floor.losses {
            model.high_watermark(key, floor.high_watermark, Offset(fetched.high_watermark));
        }
        if version >= 5 {
            model.log_start(key, floor.start, Offset(fetched.log_start_offset));
        }
        let records = records::records_of(&bytes_of(fetched), &hint);
        if let Some((first, _)) = records.first() {
            assert!(first.0 <= *position, "{hint}: asked from {position}, got from {first}");
        }
        for (offset, value) in records {
            let below = offset.0 < fetched.high_watermark;
            assert!(below, "{hint}: {offset} is not below {}", fetched.high_watermark);
            model.lies(key, offset.0, value);
            if offset.0 >= *position {
                assert_eq!(offset.0, *position, "{hint}: offsets are skipped");
                *position += 1;
            }
        }
        model.reads.set(model.reads.get() + 1);
        Ok(())
    }
}

fn floor(world: &World, key: PartitionKey) -> Floor {
    world.model.with(key, |it| Floor { high_watermark: it.high_watermark, start: it.start, losses: it.losses })
}

/// The records of a partition's answer.
pub fn bytes_of(part: &PartitionData) -> Bytes {
    part.records.clone().unwrap_or_default()
}
