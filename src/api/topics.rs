//! Topics and partitions as requests name them.

use kafka_protocol::messages::BrokerId as WireBroker;

use crate::{
    base::{BrokerId, ErrorCode, PartitionKey},
    metadata::{Topic, names},
};

/// Why a topic is not answered: one that is not there may have a name that no topic can have.
pub(super) fn why(error: ErrorCode, name: &str) -> ErrorCode {
    if error == ErrorCode::UnknownTopicOrPartition && names::check(name).is_err() {
        ErrorCode::InvalidTopicException
    } else {
        error
    }
}

/// One partition of a topic.
/// # Errors  `UnknownTopicOrPartition` if the topic has no such partition.
pub(super) fn partition(topic: &Topic, index: i32) -> Result<PartitionKey, ErrorCode> {
    topic.partition(index).map(|_| topic.key(index)).ok_or(ErrorCode::UnknownTopicOrPartition)
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
pub(super) fn test_image() -> crate::metadata::Image {
    use uuid::Uuid;

    use crate::{
        base::TopicId,
        metadata::Image,
        protocol::metadata_records::{MetadataRecord, PartitionRecord},
    };

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
