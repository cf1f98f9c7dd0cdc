//! What the rules need to know of a batch, without its bytes.

use super::{BatchHeader, TimestampType};
use crate::{
    base::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp},
    protocol::compression::Compression,
};

/// The sequence of a batch without an idempotent producer.
pub const SEQUENCE_NONE: i32 = -1;

/// A batch as log and partition see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchInfo {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Offset of the last record.
    pub last_offset: Offset,
    /// The leader that appended it.
    pub leader_epoch: LeaderEpoch,
    /// Negative without an idempotent producer.
    pub producer_id: ProducerId,
    /// The producer's epoch.
    pub producer_epoch: ProducerEpoch,
    /// Sequence of the first record.
    pub base_sequence: i32,
    /// Sequence of the last record; after 2^31-1 comes 0.
    pub last_sequence: i32,
    /// The largest timestamp, or the time of append.
    pub max_timestamp: Timestamp,
    /// Whose clock that is.
    pub timestamp_type: TimestampType,
    /// Records in the batch.
    pub record_count: i32,
    /// Size of the whole batch.
    pub bytes: u32,
    /// Whether it belongs to a transaction.
    pub transactional: bool,
    /// Whether it holds markers.
    pub control: bool,
    /// Codec of its records.
    pub compression: Compression,
}

impl BatchInfo {
    /// What `header` says.
    #[must_use]
    pub fn of(header: &BatchHeader) -> Self {
        Self {
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            leader_epoch: header.leader_epoch,
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
            last_sequence: sequence_after(header.base_sequence, header.last_offset_delta),
            max_timestamp: header.max_timestamp,
            timestamp_type: header.timestamp_type(),
            record_count: header.record_count,
            bytes: header.total_bytes as u32,
            transactional: header.is_transactional(),
            control: header.is_control(),
            compression: header.compression,
        }
    }

    /// What the batch says once it has its place in a partition: offsets and epoch change, all else stays.
    #[must_use]
    pub fn at(&self, base_offset: Offset, leader_epoch: LeaderEpoch) -> Self {
        let last_offset = base_offset.plus(self.last_offset.since(self.base_offset));
        Self { base_offset, last_offset, leader_epoch, ..*self }
    }

    /// The offset after the batch.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.last_offset.plus(1)
    }

    /// Whether an idempotent producer wrote it.
    #[must_use]
    pub fn has_producer(&self) -> bool {
        self.producer_id.0 >= 0
    }

    /// The time that a produce reply carries: only with the broker's clock.
    #[must_use]
    pub fn log_append_time(&self) -> Option<Timestamp> {
        (self.timestamp_type == TimestampType::LogAppendTime).then_some(self.max_timestamp)
    }
}

/// The sequence `delta` records after `sequence`. After 2^31-1 comes 0; without a sequence there is none.
#[must_use]
pub fn sequence_after(sequence: i32, delta: i32) -> i32 {
    if sequence < 0 || delta < 0 {
        return SEQUENCE_NONE;
    }
    ((i64::from(sequence) + i64::from(delta)) & i64::from(i32::MAX)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_to_zero_not_below() {
        for (sequence, delta, expected) in
            [(0, 0, 0), (5, 3, 8), (i32::MAX, 0, i32::MAX), (i32::MAX, 1, 0), (i32::MAX - 1, 3, 1), (-1, 4, -1)]
        {
            assert_eq!(sequence_after(sequence, delta), expected, "{sequence} + {delta}");
        }
    }
}
