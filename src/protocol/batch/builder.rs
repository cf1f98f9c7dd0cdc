//! Builds a batch from records: for the broker's own topics, for rebuilt batches, for tests.

use bytes::Bytes;

use super::{
    BatchHeader, HEADER_BYTES, Header, SEQUENCE_NONE, TimestampType, header::attributes, records::write_record, seal,
};
use crate::{
    base::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp},
    protocol::compression::{self, Compression},
};

/// A batch in the making. Offsets of its records are consecutive from the base offset.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    base_offset: Offset,
    leader_epoch: LeaderEpoch,
    compression: Compression,
    level: i32,
    producer_id: ProducerId,
    producer_epoch: ProducerEpoch,
    base_sequence: i32,
    transactional: bool,
    control: bool,
    record_count: i32,
    base_timestamp: Timestamp,
    max_timestamp: Timestamp,
    /// Room for the header, then the records, uncompressed.
    bytes: Vec<u8>,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    /// An empty batch at offset 0 without a producer.
    #[must_use]
    pub fn new() -> Self {
        Self {
            base_offset: Offset::ZERO,
            leader_epoch: LeaderEpoch(-1),
            compression: Compression::None,
            level: 0,
            producer_id: ProducerId::NONE,
            producer_epoch: ProducerEpoch(-1),
            base_sequence: SEQUENCE_NONE,
            transactional: false,
            control: false,
            record_count: 0,
            base_timestamp: -1,
            max_timestamp: -1,
            bytes: vec![0; HEADER_BYTES],
        }
    }

    /// Where the batch goes.
    #[must_use]
    pub fn at(mut self, base_offset: Offset, leader_epoch: LeaderEpoch) -> Self {
        self.base_offset = base_offset;
        self.leader_epoch = leader_epoch;
        self
    }

    /// The idempotent producer that wrote it.
    #[must_use]
    pub fn producer(mut self, id: ProducerId, epoch: ProducerEpoch, base_sequence: i32) -> Self {
        self.producer_id = id;
        self.producer_epoch = epoch;
        self.base_sequence = base_sequence;
        self
    }

    /// Codec and level; [`Compression::default_level`] if in doubt.
    #[must_use]
    pub fn compressed(mut self, compression: Compression, level: i32) -> Self {
        self.compression = compression;
        self.level = level;
        self
    }

    /// Makes it part of a transaction.
    #[must_use]
    pub fn transactional(mut self, transactional: bool) -> Self {
        self.transactional = transactional;
        self
    }

    /// Makes its records markers.
    #[must_use]
    pub fn control(mut self, control: bool) -> Self {
        self.control = control;
        self
    }

    /// Adds a record without headers.
    pub fn push(&mut self, timestamp: Timestamp, key: Option<&[u8]>, value: Option<&[u8]>) {
        self.push_with_headers(timestamp, key, value, std::iter::empty());
    }

    /// Adds a record.
    pub fn push_with_headers<'h>(
        &mut self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl ExactSizeIterator<Item = Header<'h>> + Clone,
    ) {
        if self.record_count == 0 {
            self.base_timestamp = timestamp;
            self.max_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let delta = timestamp.wrapping_sub(self.base_timestamp);
        write_record(&mut self.bytes, delta, self.record_count, key, value, headers);
        self.record_count += 1;
    }

    /// The finished batch.
    #[must_use]
    pub fn build(mut self) -> Bytes {
        if self.compression != Compression::None {
            let body = self.bytes.split_off(HEADER_BYTES);
            compression::compress(self.compression, self.level, &body, &mut self.bytes);
        }
        let header = BatchHeader {
            base_offset: self.base_offset,
            total_bytes: self.bytes.len(),
            leader_epoch: self.leader_epoch,
            crc: 0,
            compression: self.compression,
            attributes: attributes(self.compression, TimestampType::CreateTime, self.transactional, self.control),
            // An empty batch has last offset delta -1 here; only compaction writes others.
            last_offset_delta: self.record_count - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            base_sequence: self.base_sequence,
            record_count: self.record_count,
        };
        self.bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
        seal(&mut self.bytes);
        Bytes::from(self.bytes)
    }
}
