//! Topics and partitions as requests name them.

use kafka_protocol::messages::{BrokerId as WireBroker, TopicName};
use uuid::Uuid;

use crate::{
    base::{BrokerId, ErrorCode, PartitionKey, TopicId},
    metadata::{Image, Topic, names},
};

/// Why a topic that is not there is not there.
pub(super) fn why_absent(name: &str) -> ErrorCode {
    if names::check(name).is_ok() { ErrorCode::UnknownTopicOrPartition } else { ErrorCode::InvalidTopicException }
}

/// The topic that a request names: by id if `by_id`, else by name.
///
/// # Errors
/// `UnknownTopicId` or `UnknownTopicOrPartition`.
pub(super) fn find<'a>(image: &'a Image, name: &str, id: Uuid, by_id: bool) -> Result<&'a Topic, ErrorCode> {
    if by_id {
        image.topic_by_id(TopicId(id)).map(AsRef::as_ref).ok_or(ErrorCode::UnknownTopicId)
    } else {
        image.topic(name).map(AsRef::as_ref).ok_or(ErrorCode::UnknownTopicOrPartition)
    }
}

/// One partition of a topic.
///
/// # Errors
/// `UnknownTopicOrPartition` if the topic has no such partition.
pub(super) fn partition(topic: &Topic, index: i32) -> Result<PartitionKey, ErrorCode> {
    topic.partition(index).map(|_| topic.key(index)).ok_or(ErrorCode::UnknownTopicOrPartition)
}

/// The partition that a request names by topic name and index.
///
/// # Errors
/// `UnknownTopicOrPartition`.
pub(super) fn by_name(image: &Image, name: &TopicName, index: i32) -> Result<PartitionKey, ErrorCode> {
    partition(find(image, name, Uuid::nil(), false)?, index)
}

/// Broker ids for an answer.
pub(super) fn wire_brokers(brokers: &[BrokerId]) -> Vec<WireBroker> {
    brokers.iter().map(|broker| WireBroker(broker.0)).collect()
}

/// The leader of a partition for an answer; -1: none.
pub(super) fn wire_leader(leader: Option<BrokerId>) -> WireBroker {
    WireBroker(leader.map_or(-1, |leader| leader.0))
}

/// Metadata for tests: a topic `a` with three partitions, one `b` with two, and `__consumer_offsets` with one.
#[cfg(test)]
pub(super) fn test_image() -> Image {
    use crate::protocol::metadata_records::{MetadataRecord, PartitionRecord};

    let mut image = Image::default();
    for (number, name, partitions) in [(1, "a", 3), (2, "b", 2), (3, names::CONSUMER_OFFSETS, 1)] {
        let topic_id = TopicId(Uuid::from_u128(number));
        image.apply(&MetadataRecord::Topic { name: name.to_owned(), topic_id }).expect("a fresh topic");
        for partition_id in 0..partitions {
            let record = PartitionRecord {
                partition_id,
                topic_id,
                replicas: vec![1],
                isr: vec![1],
                leader: 1,
                leader_epoch: 5,
                directories: vec![Uuid::from_u128(9)],
                ..PartitionRecord::default()
            };
            image.apply(&MetadataRecord::Partition(record)).expect("a partition of it");
        }
    }
    image
}
