//! A topic's settings as values, all layers resolved.

use super::keys::topic_key;
use super::layers::Layers;
use super::value;

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

/// Whose clock a record's timestamp is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The broker's, when it appends.
    LogAppendTime,
}

/// A topic setting as text. A value that is none, which only a damaged or newer metadata log can hold, counts as not set.
fn text(layers: &Layers<'_>, name: &str) -> String {
    let key = topic_key(name).expect("only keys of the table are asked for");
    layers
        .topic_text(key)
        .filter(|text| value::check(key, text).is_ok())
        .or_else(|| key.default.map(str::to_owned))
        .unwrap_or_default()
}

fn number(layers: &Layers<'_>, name: &str) -> i64 {
    value::number(&text(layers, name)).unwrap_or(0)
}

fn int(layers: &Layers<'_>, name: &str) -> i32 {
    i32::try_from(number(layers, name)).expect("the table bounds the key to 32 bits")
}

fn unsigned(layers: &Layers<'_>, name: &str) -> u32 {
    u32::try_from(number(layers, name)).expect("the table bounds the key to 31 bits")
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
        Self {
            durability: match text(layers, "durability").trim() {
                "write" => Durability::Write,
                _ => Durability::Flush,
            },
            cleanup_policy: cleanup_policy(&text(layers, "cleanup.policy")),
            compression_type: match text(layers, "compression.type").trim() {
                "uncompressed" => CompressionType::Uncompressed,
                "gzip" => CompressionType::Gzip,
                "snappy" => CompressionType::Snappy,
                "lz4" => CompressionType::Lz4,
                "zstd" => CompressionType::Zstd,
                _ => CompressionType::Producer,
            },
            gzip_level: int(layers, "compression.gzip.level"),
            lz4_level: int(layers, "compression.lz4.level"),
            zstd_level: int(layers, "compression.zstd.level"),
            max_message_bytes: int(layers, "max.message.bytes"),
            timestamp_type: match text(layers, "message.timestamp.type").trim() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            timestamp_before_max_ms: number(layers, "message.timestamp.before.max.ms"),
            timestamp_after_max_ms: number(layers, "message.timestamp.after.max.ms"),
            min_insync_replicas: int(layers, "min.insync.replicas"),
            retention_ms: Some(number(layers, "retention.ms")).filter(|ms| *ms >= 0),
            retention_bytes: u64::try_from(number(layers, "retention.bytes")).ok(),
            segment_bytes: unsigned(layers, "segment.bytes"),
            segment_ms: number(layers, "segment.ms"),
            segment_index_bytes: unsigned(layers, "segment.index.bytes"),
            index_interval_bytes: unsigned(layers, "index.interval.bytes"),
            file_delete_delay_ms: u64::try_from(number(layers, "file.delete.delay.ms")).unwrap_or(0),
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
