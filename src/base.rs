//! The words every room shares: offsets, epochs, ids, errors, seeded containers.

mod copies;
mod effects;
mod ids;
mod loggers;
mod numbers;
mod seldom;

pub use self::{
    copies::{copied, copied_bytes},
    effects::{Effects, RawRecord},
    ids::{ClusterId, METADATA_KEY, METADATA_TOPIC, METADATA_TOPIC_ID, PartitionKey, TopicId},
    loggers::{LOGGERS, ROOT_LOGGER},
    numbers::{BrokerId, LeaderEpoch, Offset, ProducerEpoch, ProducerId},
    seldom::Seldom,
};

/// Kafka's error codes are the domain errors of every rule.
pub type ErrorCode = kafka_protocol::ResponseError;

/// A hash map with a fixed seed, so that one simulator seed always gives one order of events.
pub type Map<K, V> = std::collections::HashMap<K, V, foldhash::fast::FixedState>;

/// A hash set with a fixed seed; see [`Map`].
pub type Set<K> = std::collections::HashSet<K, foldhash::fast::FixedState>;

/// Milliseconds since the Unix epoch, as Kafka writes time into records.
pub type Timestamp = i64;
