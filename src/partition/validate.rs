//! Whether a client's batch may be stored: Kafka's checks, in Kafka's order, with Kafka's codes.
//!
//! Runs on the connection's core, before the batch is handed over. A well-formed uncompressed batch is neither copied
//! nor does it cost an allocation; a compressed one goes through a 32 KiB window.
//!
//! Differs from Kafka: records that do not decompress are INVALID_RECORD, not UNKNOWN_SERVER_ERROR; an unknown codec is
//! UNSUPPORTED_COMPRESSION_TYPE, not UNKNOWN_SERVER_ERROR; what decompresses to more than [`SCANNED_BYTES_MAX`] is
//! MESSAGE_TOO_LARGE; wrong inner offsets are mended in uncompressed batches too, unless that makes one more than twice as
//! long; at most [`RECORD_ERRORS_MAX`] records are named in a refusal.

mod rewrite;
mod scan;
mod wire;

use bytes::Bytes;

use crate::{
    base::{ErrorCode, Timestamp},
    protocol::{
        batch::{BatchError, BatchHeader, BatchInfo, TimestampType, crc_ok},
        compression::Compression,
    },
};

/// Most bytes that a batch may decompress to. Validation runs on the connection's core, which serves nobody meanwhile.
pub const SCANNED_BYTES_MAX: usize = 128 << 20;
/// Most bytes of decompressed records that are compressed anew: that takes the connection's core ten times as long as to look at
/// them.
pub const REWRITTEN_BYTES_MAX: usize = 32 << 20;
/// Most records that one refusal names: a reply must not be many times larger than its request.
pub const RECORD_ERRORS_MAX: usize = 1000;

/// What a topic allows. Made from its configs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRules {
    /// `max.message.bytes`: of a whole batch as it is stored, header included.
    pub max_message_bytes: usize,
    /// `cleanup.policy` has `compact`: every record needs a key.
    pub compacted: bool,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// `compression.type` and the level that goes with it.
    pub compression: CompressionPolicy,
    /// `segment.bytes`.
    pub segment_bytes: usize,
}

impl Default for TopicRules {
    /// Kafka's defaults.
    fn default() -> Self {
        Self {
            max_message_bytes: 1_048_588,
            compacted: false,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            compression: CompressionPolicy::Producer,
            segment_bytes: 1 << 30,
        }
    }
}

/// `compression.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CompressionPolicy {
    /// `producer`: as it comes.
    #[default]
    Producer,
    /// Anything else is compressed anew. What comes in this codec stays as it is, whatever its level.
    Fixed {
        /// `uncompressed` included.
        codec: Compression,
        /// As in [`Compression::default_level`].
        level: i32,
    },
}

/// A batch that may be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidBatch {
    /// The whole batch; the client's own bytes unless something had to be rewritten.
    pub bytes: Bytes,
    /// What it says; offsets relative to 0.
    pub info: BatchInfo,
    /// With the broker's clock: the time that it put in.
    pub log_append_time: Option<Timestamp>,
}

/// Why a batch may not be stored, as a produce reply says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The partition's error code.
    pub code: ErrorCode,
    /// With record errors, as in Kafka, and where a bound of ours is met.
    pub message: Option<String>,
    /// Index in the batch and reason, of records that are at fault. For replies from version 8 on.
    pub record_errors: Vec<(i32, Option<String>)>,
}

impl Refusal {
    fn of(code: ErrorCode) -> Self {
        Self { code, message: None, record_errors: Vec::new() }
    }
}

impl From<BatchError> for Refusal {
    fn from(error: BatchError) -> Self {
        let message = match error {
            BatchError::TooLarge { limit } => Some(format!(
                "The records take more than {limit} bytes when they are decompressed, which is as many as this broker takes; \
                 send smaller batches."
            )),
            _ => None,
        };
        Self { message, ..Self::of(error.code()) }
    }
}

/// Checks what a produce request of `produce_version` brings for one partition, and rewrites what the topic wants
/// otherwise: codec, timestamps, inner offsets.
/// # Errors  `CorruptMessage` (CRC, length, magic), `InvalidRecord` (structure, not exactly one batch, control batch,
/// magic 0 or 1, null key where compacted), `MessageTooLarge`, `RecordListTooLarge` (larger than a segment),
/// `InvalidTimestamp`, `UnsupportedCompressionType`.
pub fn validate(batch: Bytes, topic: &TopicRules, produce_version: i16, now: Timestamp) -> Result<ValidBatch, Refusal> {
    let header = wire::only_batch(&batch, produce_version)?;
    let mut batch = batch;
    // What follows is the beginning of a batch that is not there; Kafka cuts it off without a word.
    batch.truncate(header.total_bytes);
    if header.base_offset.0 != 0 {
        return Err(Refusal::of(ErrorCode::InvalidRecord));
    }
    check_size(batch.len(), topic)?;
    if !crc_ok(&batch) {
        return Err(Refusal::of(ErrorCode::CorruptMessage));
    }
    wire::check_header(&header)?;
    let scan = scan::scan(&header, &batch, topic, now)?;
    let bytes = rewrite::as_topic_wants(batch, &header, &scan, topic, now)?;
    check_size(bytes.len(), topic)?;
    if bytes.len() > topic.segment_bytes {
        return Err(Refusal::of(ErrorCode::RecordListTooLarge));
    }
    let info = wire::info(&bytes)?;
    Ok(ValidBatch { bytes, info, log_append_time: info.log_append_time() })
}

/// The memory that it may take to make a batch anew because its topic wants another codec, in bytes: to be asked for before it is
/// validated. Mostly 0. One that only gets other offsets stays about as long as it was.
#[must_use]
pub fn rewriting_bytes(batch: &[u8], topic: &TopicRules) -> usize {
    match (topic.compression, BatchHeader::parse(batch)) {
        (CompressionPolicy::Fixed { codec, level }, Ok(header)) if codec != header.compression => {
            rewrite::rebuild(codec, level, topic, None).memory_bytes(header.compression, batch.len())
        }
        (CompressionPolicy::Producer | CompressionPolicy::Fixed { .. }, _) => 0,
    }
}

fn check_size(bytes: usize, topic: &TopicRules) -> Result<(), Refusal> {
    if bytes > topic.max_message_bytes { Err(Refusal::of(ErrorCode::MessageTooLarge)) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
