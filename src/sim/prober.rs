//! A client that asks everything else there is to ask, sends garbage, and appends without waiting for an answer.

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiVersionsRequest, DeleteGroupsRequest, DescribeClusterRequest, DescribeConfigsRequest, DescribeGroupsRequest,
    DescribeTopicPartitionsRequest, FindCoordinatorRequest, GroupId, HeartbeatRequest, ListGroupsRequest,
    MetadataRequest, OffsetFetchRequest, OffsetForLeaderEpochRequest, TopicName,
    describe_configs_request::DescribeConfigsResource,
    describe_topic_partitions_request::TopicRequest,
    offset_fetch_request::OffsetFetchRequestGroup,
    offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
};

use crate::{
    api,
    base::{ErrorCode, PartitionKey, ProducerId},
    io::{Either, either},
    protocol::compression::Compression,
    sim::{
        connection::Gone,
        consumer::{self, list_offset},
        member::{TOPIC, text},
        producer,
        records::{self, FIRST_TIMESTAMP, TIMESTAMPS, Value},
        wire::{self, Wire},
        world::World,
    },
};

/// Requests that change nothing that the checkers know, whatever becomes of their bytes; and Produce, whose records have a
/// checksum and are known by what they hold.
const HARMLESS: [i16; 10] = [1, 2, 9, 10, 15, 16, 23, 32, 60, 75];

/// Microseconds that an answer to garbage is waited for, at most.
const PATIENCE_US: u64 = 50_000;

pub async fn run(world: World) {
    loop {
        let connection = world.connect().await;
        loop {
            if world.finishing.get() {
                return;
            }
            world.pause(6000).await;
            if probe(&world, &connection).await.is_err() {
                break;
            }
        }
    }
}

/// A partition of the topic that nobody deletes.
fn kept(world: &World) -> Option<PartitionKey> {
    let topics = world.model.topics.borrow();
    let topic = topics.get(TOPIC)?;
    Some(PartitionKey { topic_id: topic.id, partition: world.rand.below(topic.partitions as u64) as i32 })
}

async fn probe(world: &World, connection: &Wire) -> Result<(), Gone> {
    match world.rand.below(16) {
        0 => {
            let version = world.version(0, 4);
            let request = ApiVersionsRequest::default();
            let request = if version < 3 {
                request
            } else {
                request.with_client_software_name(text("simulated")).with_client_software_version(text("1"))
            };
            let answer = connection.ask(version, &request).await?;
            assert_eq!((answer.error_code, answer.api_keys.len()), (0, api::requests().count()), "{}", world.seed());
        }
        1 => {
            let answer = connection.ask(world.version(0, 2), &DescribeClusterRequest::default()).await?;
            assert_eq!((answer.error_code, answer.brokers.len()), (0, 1), "{}", world.seed());
        }
        2 => {
            let request = MetadataRequest::default().with_topics(None);
            connection.ask(world.version(1, 13), &request).await?;
        }
        3 => topic_partitions(world, connection).await?,
        4 => groups(world, connection).await?,
        5 | 6 => epochs(world, connection).await?,
        7 | 8 => timestamps(world, connection).await?,
        9 => append_unheard(world, connection),
        10..=13 => return garbage(world, connection).await,
        _ => {
            let resource = DescribeConfigsResource::default().with_resource_type(4).with_resource_name(text("1"));
            let request =
                DescribeConfigsRequest::default().with_resources(vec![resource.with_configuration_keys(None)]);
            let answer = connection.ask(world.version(1, 4), &request).await?;
            assert!(answer.results[0].configs.len() > 100, "{}", world.seed());
        }
    }
    Ok(())
}

async fn topic_partitions(world: &World, connection: &Wire) -> Result<(), Gone> {
    let asked = TopicRequest::default().with_name(TopicName(text(TOPIC)));
    let request = DescribeTopicPartitionsRequest::default()
        .with_topics(vec![asked])
        .with_response_partition_limit(1 + world.rand.below(5) as i32)
        .with_cursor(None);
    let known = world.model.topics.borrow().get(TOPIC).map_or(0, |topic| topic.partitions);
    let answer = connection.ask(0, &request).await?;
    if known > 0 {
        assert_eq!(answer.topics[0].error_code, 0, "{}", world.seed());
    }
    Ok(())
}

async fn groups(world: &World, connection: &Wire) -> Result<(), Gone> {
    connection.ask(world.version(0, 5), &ListGroupsRequest::default()).await?;
    let names = vec![GroupId(text("group")), GroupId(text("nobody's"))];
    connection.ask(world.version(0, 6), &DescribeGroupsRequest::default().with_groups(names)).await?;
    let nobodys = vec![GroupId(text("nobody's"))];
    let answer =
        connection.ask(world.version(0, 2), &DeleteGroupsRequest::default().with_groups_names(nobodys)).await?;
    assert_ne!(answer.results[0].error_code, 0, "{}: nobody's group is deleted", world.seed());
    let heartbeat = HeartbeatRequest::default().with_group_id(GroupId(text("group"))).with_member_id(text("nobody"));
    let answer = connection.ask(world.version(0, 4), &heartbeat).await?;
    assert_ne!(answer.error_code, 0, "{}: nobody's heart beats", world.seed());
    let group = OffsetFetchRequestGroup::default().with_group_id(GroupId(text("group"))).with_topics(None);
    connection.ask(world.version(8, 9), &OffsetFetchRequest::default().with_groups(vec![group])).await?;
    Ok(())
}

/// Where an epoch ends is where the log ends or further down, and never below what is known of the first one.
async fn epochs(world: &World, connection: &Wire) -> Result<(), Gone> {
    let Some(key) = kept(world) else { return Ok(()) };
    let part = OffsetForLeaderPartition::default().with_partition(key.partition).with_leader_epoch(i32::MAX - 1);
    let topic = OffsetForLeaderTopic::default().with_topic(TopicName(text(TOPIC))).with_partitions(vec![part]);
    let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
    let answer = connection.ask(world.version(2, 4), &request).await?;
    let part = &answer.topics[0].partitions[0];
    let refused = ErrorCode::try_from_code(part.error_code);
    assert!(refused.is_none_or(|error| world.may_refuse(error)), "{}: {part:?}", world.model.hint(key));
    let refused = refused.is_some();
    assert!(refused || part.end_offset == -1, "{}: nobody knows that epoch: {part:?}", world.model.hint(key));
    Ok(())
}

/// Any timestamp leads to a record that is not older; what is known of the log below it is older.
async fn timestamps(world: &World, connection: &Wire) -> Result<(), Gone> {
    let Some(key) = kept(world) else { return Ok(()) };
    let timestamp = FIRST_TIMESTAMP + world.rand.below(u64::from(TIMESTAMPS)) as i64;
    let losses = world.model.with(key, |it| it.losses);
    let listed = list_offset(connection, world.version(1, 10), TOPIC, key.partition, timestamp).await?;
    let hint = world.model.hint(key);
    let (offset, told) = match listed {
        Ok(listed) => listed,
        Err(error) if world.may_refuse(error) => return Ok(()),
        Err(error) => panic!("{hint}: {error:?}"),
    };
    world.model.with(key, |it| {
        if it.losses != losses || offset < 0 {
            return;
        }
        assert!(told >= timestamp, "{hint}: {told} at {offset} for {timestamp}");
        if let Some(value) = it.known.get(&offset) {
            assert_eq!(records::timestamp_of(*value), told, "{hint}: at {offset}");
        }
        let start = it.start_asked;
        let passed =
            it.known.range(start..offset.max(start)).find(|(_, value)| records::timestamp_of(**value) >= timestamp);
        assert!(passed.is_none() || it.retention, "{hint}: {timestamp} leads to {offset}, past {passed:?}");
    });
    Ok(())
}

/// One batch of a new writer, with acks=0.
fn append_unheard(world: &World, connection: &Wire) {
    let Some(key) = kept(world) else { return };
    let version = world.version(3, 13);
    connection.tell(version, &producer::request(version, key, TOPIC, batch(world), 0));
}

fn batch(world: &World) -> Bytes {
    let writer = world.model.writer();
    let values = (0..1 + world.rand.below(4) as u32).map(|number| Value { writer, number });
    records::batch(values, (ProducerId::NONE, -1), Compression::None)
}

/// A frame that is cut, or has bits flipped, or was never one. It is answered, or ends the connection.
async fn garbage(world: &World, connection: &Wire) -> Result<(), Gone> {
    let mut frame = match world.rand.below(4) {
        0 => (0..world.rand.below(100)).map(|_| world.rand.below(256) as u8).collect(),
        _ => good_frame(world).to_vec(),
    };
    let key = frame.get(..2).map(<[u8]>::to_vec);
    match world.rand.below(3) {
        0 => frame.truncate(world.rand.below(frame.len() as u64 + 1) as usize),
        _ => {
            for _ in 0..1 + world.rand.below(3) {
                if frame.len() > 4 {
                    let place = 2 + world.rand.below(frame.len() as u64 - 2) as usize;
                    frame[place] ^= 1 << world.rand.below(8);
                }
            }
        }
    }
    // Any other key might be a request that changes things.
    if let Some(key) = key.filter(|_| frame.len() >= 2) {
        frame[..2].copy_from_slice(&key);
        let key = i16::from_be_bytes([key[0], key[1]]);
        if !HARMLESS.contains(&key) && key != 0 {
            frame[..2].copy_from_slice(&HARMLESS[world.rand.below(HARMLESS.len() as u64) as usize].to_be_bytes());
        }
    }
    // It may have become a long poll.
    let answer = connection.send(frame.into());
    match either(answer, world.pause(PATIENCE_US)).await {
        Either::Left(Some(_)) => Ok(()),
        Either::Left(None) | Either::Right(()) => Err(Gone),
    }
}

fn good_frame(world: &World) -> Bytes {
    let topic = || vec![OffsetForLeaderTopic::default().with_topic(TopicName(text(TOPIC)))];
    let group = OffsetFetchRequestGroup::default().with_group_id(GroupId(text("group"))).with_topics(None);
    let groups = vec![GroupId(text("group"))];
    match (world.rand.below(9), kept(world)) {
        (0 | 1, Some(key)) => {
            let version = world.version(3, 13);
            wire::frame(version, 1, &producer::request(version, key, TOPIC, batch(world), -1))
        }
        (2, Some(key)) => {
            let version = world.version(4, 18);
            wire::frame(version, 1, &consumer::request(version, TOPIC, &[(key, 0, 100)]))
        }
        (3, _) => wire::frame(4, 1, &OffsetForLeaderEpochRequest::default().with_topics(topic())),
        (4, _) => wire::frame(9, 1, &OffsetFetchRequest::default().with_groups(vec![group])),
        (5, _) => wire::frame(5, 1, &DescribeGroupsRequest::default().with_groups(groups)),
        (6, _) => wire::frame(5, 1, &ListGroupsRequest::default()),
        (7, _) => wire::frame(1, 1, &DescribeClusterRequest::default()),
        _ => wire::frame(4, 1, &FindCoordinatorRequest::default().with_coordinator_keys(vec![text("group")])),
    }
}
