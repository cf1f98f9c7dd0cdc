//! A topic's settings as values, all layers resolved.

use super::{layers::Layers, value, values::Values};
use crate::protocol::batch::TimestampType;

/// The settings that count for one topic. The compiler warns of one that nobody reads.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(PartialEq, Eq))] // outside of tests it would count as a read of every field
pub struct TopicConfig {
    /// `durability`.
    pub(crate) durability: Durability,
    /// `cleanup.policy`.
    pub(crate) cleanup_policy: CleanupPolicy,
    /// `compression.type`.
    pub(crate) compression_type: CompressionType,
    /// `compression.gzip.level`; -1 is the codec's own.
    pub(crate) gzip_level: i32,
    /// `compression.lz4.level`.
    pub(crate) lz4_level: i32,
    /// `compression.zstd.level`.
    pub(crate) zstd_level: i32,
    /// `max.message.bytes`: largest record batch.
    pub(crate) max_message_bytes: i32,
    /// `message.timestamp.type`.
    pub(crate) timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub(crate) timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub(crate) timestamp_after_max_ms: i64,
    /// `min.insync.replicas`.
    pub(crate) min_insync_replicas: i32,
    /// `unclean.leader.election.enable`.
    #[allow(dead_code, reason = "the cluster is being put together: who reads it comes with it")]
    pub(crate) unclean_leader_election: bool,
    /// `retention.ms`; none: for ever.
    pub(crate) retention_ms: Option<i64>,
    /// `retention.bytes`; none: without limit.
    pub(crate) retention_bytes: Option<u64>,
    /// `segment.bytes`.
    pub(crate) segment_bytes: u32,
    /// `segment.ms`.
    pub(crate) segment_ms: i64,
    /// `segment.index.bytes`.
    pub(crate) segment_index_bytes: u32,
    /// `index.interval.bytes`.
    pub(crate) index_interval_bytes: u32,
    /// `file.delete.delay.ms`.
    pub(crate) file_delete_delay_ms: u64,
}

/// When a record counts as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When it is on stable storage: it survives a power cut.
    #[default]
    Flush,
    /// When the device has accepted it: it survives a kill of the process and of the kernel.
    Write,
}

/// What happens to old records. Neither: they stay.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(test, derive(PartialEq, Eq))] // outside of tests it would count as a read of every field
pub struct CleanupPolicy {
    /// They are deleted by age and size.
    pub(crate) delete: bool,
    /// Only the last record of each key stays, so every record must have a key.
    pub(crate) compact: bool,
}

/// Codec of the batches in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionType {
    /// As the producer sent them.
    Producer,
    /// None.
    Uncompressed,
    /// gzip.
    Gzip,
    /// snappy.
    Snappy,
    /// lz4.
    Lz4,
    /// zstd.
    Zstd,
}

impl TopicConfig {
    /// When a record of the topic counts as written.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// The settings that the layers give.
    #[must_use]
    pub fn of(layers: &Layers<'_>) -> Self {
        let values = Values::of_topic(layers);
        Self {
            durability: match values.word("durability").as_str() {
                "write" => Durability::Write,
                _ => Durability::Flush,
            },
            cleanup_policy: cleanup_policy(&values.word("cleanup.policy")),
            compression_type: match values.word("compression.type").as_str() {
                "uncompressed" => CompressionType::Uncompressed,
                "gzip" => CompressionType::Gzip,
                "snappy" => CompressionType::Snappy,
                "lz4" => CompressionType::Lz4,
                "zstd" => CompressionType::Zstd,
                _ => CompressionType::Producer,
            },
            gzip_level: values.int("compression.gzip.level"),
            lz4_level: values.int("compression.lz4.level"),
            zstd_level: values.int("compression.zstd.level"),
            max_message_bytes: values.int("max.message.bytes"),
            timestamp_type: match values.word("message.timestamp.type").as_str() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            timestamp_before_max_ms: values.long("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: values.long("message.timestamp.after.max.ms"),
            min_insync_replicas: values.int("min.insync.replicas"),
            unclean_leader_election: values.boolean("unclean.leader.election.enable"),
            retention_ms: Some(values.long("retention.ms")).filter(|ms| *ms >= 0),
            retention_bytes: values.limit("retention.bytes"),
            segment_bytes: values.count("segment.bytes"),
            segment_ms: values.long("segment.ms"),
            segment_index_bytes: values.count("segment.index.bytes"),
            index_interval_bytes: values.count("index.interval.bytes"),
            file_delete_delay_ms: values.unsigned("file.delete.delay.ms"),
        }
    }
}

fn cleanup_policy(text: &str) -> CleanupPolicy {
    let has = |policy| value::list(text).any(|element| element == policy);
    CleanupPolicy { delete: has("delete"), compact: has("compact") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, Statics};

    fn map(pairs: &[(&str, &str)]) -> Overrides {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn defaults_are_kafkas() {
        let config = TopicConfig::of(&Layers::of(&Statics::new()));
        assert_eq!(
            config,
            TopicConfig {
                durability: Durability::Flush,
                cleanup_policy: CleanupPolicy { delete: true, compact: false },
                compression_type: CompressionType::Producer,
                gzip_level: -1,
                lz4_level: 9,
                zstd_level: 3,
                max_message_bytes: 1_048_588,
                timestamp_type: TimestampType::CreateTime,
                timestamp_before_max_ms: i64::MAX,
                timestamp_after_max_ms: 3_600_000,
                min_insync_replicas: 1,
                unclean_leader_election: false,
                retention_ms: Some(604_800_000),
                retention_bytes: None,
                segment_bytes: 1 << 30,
                segment_ms: 604_800_000,
                segment_index_bytes: 10_485_760,
                index_interval_bytes: 4096,
                file_delete_delay_ms: 60_000,
            }
        );
    }

    #[test]
    fn the_topic_wins_over_the_broker_and_damaged_values_do_not_count() {
        let statics = map(&[("durability", "write"), ("log.retention.hours", "-1"), ("log.segment.bytes", "2097152")]);
        let topic = map(&[("durability", "flush"), ("cleanup.policy", "compact, delete"), ("segment.bytes", "x")]);
        let layers = Layers::of(&statics).with_topic(&topic);
        let config = TopicConfig::of(&layers);
        assert_eq!(config.durability, Durability::Flush);
        assert_eq!(config.cleanup_policy, CleanupPolicy { delete: true, compact: true });
        assert_eq!(config.retention_ms, None);
        assert_eq!(config.segment_bytes, 1 << 30);
        assert_eq!(TopicConfig::of(&Layers::of(&statics)).durability, Durability::Write);
    }
}
