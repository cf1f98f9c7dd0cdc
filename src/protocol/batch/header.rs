//! The 61 bytes at the head of every batch.

use super::BatchError;
use crate::{
    base::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp},
    protocol::compression::Compression,
};

/// Size of a batch header, which is also the size of an empty batch.
pub const HEADER_BYTES: usize = 61;
/// End of the length field: a batch takes this many bytes more than its length says.
pub const LENGTH_END: usize = 12;
/// The smallest legal value of the length field.
pub const BATCH_LENGTH_MIN: i32 = (HEADER_BYTES - LENGTH_END) as i32;
/// Where the bytes begin that the CRC covers.
pub const CRC_START: usize = 21;
/// The format version.
pub const MAGIC: i8 = 2;

const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const MAX_TIMESTAMP_AT: usize = 35;

const CODEC_BITS: i16 = 0x07;
const LOG_APPEND_TIME_BIT: i16 = 0x08;
const TRANSACTIONAL_BIT: i16 = 0x10;
const CONTROL_BIT: i16 = 0x20;

/// Whose clock a batch's timestamps come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    #[default]
    CreateTime,
    /// The broker's: every record has the batch's max timestamp.
    LogAppendTime,
}

/// Every field of a batch header. The batch's bytes need not be complete to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record; 0 in a produce request.
    pub base_offset: Offset,
    /// Size of the whole batch, header included.
    pub total_bytes: usize,
    /// The leader that appended the batch.
    pub leader_epoch: LeaderEpoch,
    /// CRC-32C over everything from [`CRC_START`] on.
    pub crc: u32,
    /// Codec of the records, which are compressed as one block.
    pub compression: Compression,
    /// Bits of the attributes field, the codec among them.
    pub attributes: i16,
    /// Last offset minus base offset; also last sequence minus base sequence.
    pub last_offset_delta: i32,
    /// What record timestamps are relative to; the delete horizon if the attributes say so.
    pub base_timestamp: Timestamp,
    /// The largest timestamp, or the time of append.
    pub max_timestamp: Timestamp,
    /// -1 without an idempotent producer.
    pub producer_id: ProducerId,
    /// -1 without an idempotent producer.
    pub producer_epoch: ProducerEpoch,
    /// -1 without an idempotent producer.
    pub base_sequence: i32,
    /// Records in the batch; compaction may leave 0.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`.
    /// # Errors  Anything but `BadRecord`. `Truncated` only if the header itself is not there.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        if bytes.len() <= MAGIC_AT {
            return Err(BatchError::Truncated { needed: HEADER_BYTES });
        }
        let magic = bytes[MAGIC_AT] as i8;
        let length = i32::from_be_bytes(take(bytes, 8));
        // Length before magic: preallocated space is all zeros, and should say so.
        if length <= 0 {
            return Err(BatchError::BadLength(length));
        }
        if magic != MAGIC {
            return Err(BatchError::UnsupportedMagic(magic));
        }
        if length < BATCH_LENGTH_MIN {
            return Err(BatchError::BadLength(length));
        }
        if bytes.len() < HEADER_BYTES {
            return Err(BatchError::Truncated { needed: HEADER_BYTES });
        }
        let attributes = i16::from_be_bytes(take(bytes, ATTRIBUTES_AT));
        let codec = (attributes & CODEC_BITS) as u8;
        Ok(Self {
            base_offset: Offset(i64::from_be_bytes(take(bytes, 0))),
            total_bytes: length as usize + LENGTH_END,
            leader_epoch: LeaderEpoch(i32::from_be_bytes(take(bytes, 12))),
            crc: u32::from_be_bytes(take(bytes, CRC_AT)),
            compression: Compression::of_id(codec).ok_or(BatchError::UnknownCompression(codec))?,
            attributes,
            last_offset_delta: i32::from_be_bytes(take(bytes, 23)),
            base_timestamp: i64::from_be_bytes(take(bytes, 27)),
            max_timestamp: i64::from_be_bytes(take(bytes, MAX_TIMESTAMP_AT)),
            producer_id: ProducerId(i64::from_be_bytes(take(bytes, 43))),
            producer_epoch: ProducerEpoch(i16::from_be_bytes(take(bytes, 51))),
            base_sequence: i32::from_be_bytes(take(bytes, 53)),
            record_count: i32::from_be_bytes(take(bytes, 57)),
        })
    }

    /// Offset of the last record; saturates on a forged delta.
    #[must_use]
    pub fn last_offset(&self) -> Offset {
        self.base_offset.plus(i64::from(self.last_offset_delta))
    }

    /// Whose clock the timestamps come from.
    #[must_use]
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & LOG_APPEND_TIME_BIT == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the batch belongs to a transaction.
    #[must_use]
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// Whether the records are markers of the broker's, not a client's data.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// Whether an idempotent producer wrote the batch.
    #[must_use]
    pub fn has_producer(&self) -> bool {
        self.producer_id.0 >= 0
    }

    /// The 61 bytes; the inverse of [`BatchHeader::parse`].
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..8].copy_from_slice(&self.base_offset.0.to_be_bytes());
        out[8..12].copy_from_slice(&((self.total_bytes - LENGTH_END) as i32).to_be_bytes());
        out[12..16].copy_from_slice(&self.leader_epoch.0.to_be_bytes());
        out[MAGIC_AT] = MAGIC as u8;
        out[CRC_AT..21].copy_from_slice(&self.crc.to_be_bytes());
        out[ATTRIBUTES_AT..23].copy_from_slice(&self.attributes.to_be_bytes());
        out[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        out[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        out[MAX_TIMESTAMP_AT..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        out[43..51].copy_from_slice(&self.producer_id.0.to_be_bytes());
        out[51..53].copy_from_slice(&self.producer_epoch.0.to_be_bytes());
        out[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        out[57..61].copy_from_slice(&self.record_count.to_be_bytes());
        out
    }
}

/// The attributes field from its parts.
pub(super) fn attributes(codec: Compression, timestamps: TimestampType, transactional: bool, control: bool) -> i16 {
    let mut bits = i16::from(codec.id());
    if timestamps == TimestampType::LogAppendTime {
        bits |= LOG_APPEND_TIME_BIT;
    }
    if transactional {
        bits |= TRANSACTIONAL_BIT;
    }
    if control {
        bits |= CONTROL_BIT;
    }
    bits
}

/// Whether the CRC of the one whole batch in `batch` is right. False for fewer bytes than a header.
#[must_use]
pub fn crc_ok(batch: &[u8]) -> bool {
    batch.len() >= HEADER_BYTES && u32::from_be_bytes(take(batch, CRC_AT)) == crc32c::crc32c(&batch[CRC_START..])
}

/// Writes base offset and leader epoch into a batch. They lie outside the CRC, so there is nothing to sum again.
///
/// # Panics
/// If `batch` is shorter than a header: the caller has parsed it.
#[cfg(test)]
pub fn stamp(batch: &mut [u8], base_offset: Offset, leader_epoch: LeaderEpoch) {
    assert!(batch.len() >= HEADER_BYTES, "only a parsed batch is stamped");
    batch[..8].copy_from_slice(&base_offset.0.to_be_bytes());
    batch[12..16].copy_from_slice(&leader_epoch.0.to_be_bytes());
}

/// Sums one whole batch again and writes the CRC.
///
/// # Panics
/// If `batch` is shorter than a header.
pub fn seal(batch: &mut [u8]) {
    assert!(batch.len() >= HEADER_BYTES, "only a whole batch is sealed");
    let crc = crc32c::crc32c(&batch[CRC_START..]);
    batch[CRC_AT..CRC_START].copy_from_slice(&crc.to_be_bytes());
}

/// Writes timestamp type and max timestamp, and the CRC, which covers both.
///
/// # Panics
/// If `batch` is shorter than a header.
pub fn set_timestamp(batch: &mut [u8], timestamps: TimestampType, max_timestamp: Timestamp) {
    assert!(batch.len() >= HEADER_BYTES, "only a parsed batch is changed");
    let mut attributes = i16::from_be_bytes(take(batch, ATTRIBUTES_AT)) & !LOG_APPEND_TIME_BIT;
    if timestamps == TimestampType::LogAppendTime {
        attributes |= LOG_APPEND_TIME_BIT;
    }
    batch[ATTRIBUTES_AT..23].copy_from_slice(&attributes.to_be_bytes());
    batch[MAX_TIMESTAMP_AT..43].copy_from_slice(&max_timestamp.to_be_bytes());
    seal(batch);
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the range is N long")
}
