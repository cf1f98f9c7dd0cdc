//! Names that are unique for ever.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;

/// The id of a topic (KIP-516). A topic deleted and created again has another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub Uuid);

/// The name of the topic that holds the metadata itself. It is in no image.
pub const METADATA_TOPIC: &str = "__cluster_metadata";

/// Kafka's fixed id of that topic.
pub const METADATA_TOPIC_ID: TopicId = TopicId(Uuid::from_u128(1));

/// Its only partition, whose directory is `__cluster_metadata-0`.
pub const METADATA_KEY: PartitionKey = PartitionKey { topic_id: METADATA_TOPIC_ID, partition: 0 };

impl TopicId {
    /// The id that stands for "none" on the wire.
    pub const ZERO: Self = Self(Uuid::nil());
}

impl fmt::Display for TopicId {
    /// 22 characters of URL-safe base64, as Kafka prints ids.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&URL_SAFE_NO_PAD.encode(self.0.as_bytes()))
    }
}

impl FromStr for TopicId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| "not URL-safe base64")?;
        let bytes: [u8; 16] = bytes.try_into().map_err(|_| "not 16 bytes")?;
        Ok(Self(Uuid::from_bytes(bytes)))
    }
}

/// The cluster's id, as `kafka-storage.sh random-uuid` writes it. Kept as text: Kafka accepts any non-empty string.
pub type ClusterId = String;

/// One partition of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionKey {
    /// The topic.
    pub topic_id: TopicId,
    /// The partition's index in its topic, from 0.
    pub partition: i32,
}

impl PartitionKey {
    /// The core that owns the partition. Nothing on disk depends on it. The metadata lives with the controller, on core 0.
    #[must_use]
    pub fn core(&self, cores: usize) -> usize {
        if self.topic_id == METADATA_TOPIC_ID {
            return 0;
        }
        // Ids are random, so their low bytes are hash enough; adding the index spreads one topic evenly.
        let low = self.topic_id.0.as_u128() as u64;
        (low.wrapping_add(self.partition as u64) % cores as u64) as usize
    }
}

impl fmt::Display for PartitionKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", self.topic_id, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_as_written() {
        let id = TopicId(Uuid::from_u128(0x1234_5678_9abc_def0_1122_3344_5566_7788));
        assert_eq!(id.to_string().len(), 22);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("AAAA".parse::<TopicId>().is_err());
        assert!("not base64 at all!!!!!".parse::<TopicId>().is_err());
    }

    #[test]
    fn partitions_of_one_topic_spread_over_the_cores() {
        let id = TopicId(Uuid::from_u128(77));
        let cores: std::collections::BTreeSet<_> =
            (0..4).map(|partition| PartitionKey { topic_id: id, partition }.core(4)).collect();
        assert_eq!(cores.len(), 4);
    }
}
