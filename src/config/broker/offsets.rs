//! Committed offsets and the topic that has them.

use crate::config::values::Values;

/// What committed offsets are held to.
#[derive(Clone, Debug)]
pub(crate) struct OffsetsConfig {
    /// `offsets.topic.num.partitions`.
    pub(crate) topic_partitions: i32,
    /// `offsets.topic.replication.factor`.
    pub(crate) topic_replication_factor: i16,
    /// `offsets.topic.segment.bytes`.
    pub(crate) topic_segment_bytes: i32,
    /// `offsets.retention.minutes`, in milliseconds.
    pub(crate) retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub(crate) retention_check_interval_ms: u64,
    /// `offset.metadata.max.bytes`.
    pub(crate) metadata_max_bytes: usize,
}

impl OffsetsConfig {
    pub(super) fn read(values: &Values<'_>) -> Self {
        Self {
            topic_partitions: values.int("offsets.topic.num.partitions"),
            topic_replication_factor: values.short("offsets.topic.replication.factor"),
            topic_segment_bytes: values.int("offsets.topic.segment.bytes"),
            retention_ms: values.long("offsets.retention.minutes").saturating_mul(60_000),
            retention_check_interval_ms: values.unsigned("offsets.retention.check.interval.ms"),
            metadata_max_bytes: values.count("offset.metadata.max.bytes") as usize,
        }
    }
}
