//! A topic's and a broker's settings, in the words of the rooms that act on them.

use crate::{
    config::{BrokerConfig, CompressionType, TopicConfig},
    group::GroupConfig,
    log::LogConfig,
    partition::{CompressionPolicy, TopicRules},
    protocol::compression::Compression,
};

/// What batches of the topic are held against.
pub fn topic_rules(config: &TopicConfig) -> TopicRules {
    TopicRules {
        max_message_bytes: config.max_message_bytes.max(0) as usize,
        compacted: config.cleanup_policy.compact,
        timestamp_type: config.timestamp_type,
        timestamp_before_max_ms: config.timestamp_before_max_ms,
        timestamp_after_max_ms: config.timestamp_after_max_ms,
        compression: compression(config),
        segment_bytes: config.segment_bytes as usize,
    }
}

fn compression(config: &TopicConfig) -> CompressionPolicy {
    let (codec, level) = match config.compression_type {
        CompressionType::Producer => return CompressionPolicy::Producer,
        CompressionType::Uncompressed => (Compression::None, 0),
        CompressionType::Gzip => (Compression::Gzip, config.gzip_level),
        CompressionType::Snappy => (Compression::Snappy, 0),
        CompressionType::Lz4 => (Compression::Lz4, config.lz4_level),
        CompressionType::Zstd => (Compression::Zstd, config.zstd_level),
    };
    CompressionPolicy::Fixed { codec, level }
}

/// How the topic's logs are kept.
pub fn log_config(config: &TopicConfig) -> LogConfig {
    LogConfig {
        segment_bytes: config.segment_bytes,
        segment_ms: config.segment_ms,
        segment_index_bytes: config.segment_index_bytes,
        index_interval_bytes: config.index_interval_bytes,
        retention_ms: config.retention_ms.unwrap_or(-1),
        retention_bytes: config.retention_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        delete: config.cleanup_policy.delete,
        file_delete_delay_ms: i64::try_from(config.file_delete_delay_ms).unwrap_or(i64::MAX),
        durability: config.durability,
    }
}

/// How the metadata log is kept: for ever, but for what a snapshot covers, and always on stable storage.
pub fn metadata_log_config() -> LogConfig {
    LogConfig { retention_ms: -1, retention_bytes: -1, delete: false, ..LogConfig::default() }
}

/// What the group coordinators keep to.
pub fn group_config(config: &BrokerConfig) -> GroupConfig {
    GroupConfig {
        min_session_timeout_ms: config.groups.session_timeout_min_ms,
        max_session_timeout_ms: config.groups.session_timeout_max_ms,
        initial_rebalance_delay_ms: config.groups.initial_rebalance_delay_ms,
        size_max: config.groups.members_max,
        offset_metadata_max: config.offsets.metadata_max_bytes,
        offsets_retention_ms: config.offsets.retention_ms,
        offsets_retention_check_interval_ms: i64::try_from(config.offsets.retention_check_interval_ms)
            .unwrap_or(i64::MAX),
        ..GroupConfig::default()
    }
}
