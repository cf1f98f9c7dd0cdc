//! What the topic wants otherwise than the client sent it.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

use super::{CompressionPolicy, REWRITTEN_BYTES_MAX, Refusal, TopicRules, scan::Scan};
use crate::{
    base::{Timestamp, copied},
    protocol::{
        batch::{BatchBuilder, BatchHeader, HEADER_BYTES, Records, TimestampType, set_timestamp},
        compression::{Compression, decompress},
    },
};

/// The batch as it will be stored: untouched if it can be, else with another timestamp, else rebuilt.
pub(super) fn as_topic_wants(
    batch: Bytes,
    header: &BatchHeader,
    scan: &Scan,
    topic: &TopicRules,
    now: Timestamp,
) -> Result<Bytes, Refusal> {
    let (codec, level) = match topic.compression {
        CompressionPolicy::Producer => (header.compression, header.compression.default_level()),
        CompressionPolicy::Fixed { codec, level } => (codec, level),
    };
    // A client that set the broker's bit gets its max timestamp into every record: that is what was checked.
    let bit_to_clear =
        (header.timestamp_type(), topic.timestamp_type) == (TimestampType::LogAppendTime, TimestampType::CreateTime);
    if codec != header.compression || !scan.consecutive || bit_to_clear {
        let now = (topic.timestamp_type == TimestampType::LogAppendTime).then_some(now);
        return rebuilt(&batch, header, codec, level, now);
    }
    let max_timestamp = match topic.timestamp_type {
        TimestampType::CreateTime => scan.max_timestamp,
        TimestampType::LogAppendTime => now,
    };
    if (topic.timestamp_type, max_timestamp) == (header.timestamp_type(), header.max_timestamp) {
        return Ok(batch);
    }
    // Copies only if something else still holds the frame.
    let mut batch = batch.try_into_mut().unwrap_or_else(|batch| {
        copied(batch.len());
        BytesMut::from(&batch[..])
    });
    set_timestamp(&mut batch, topic.timestamp_type, max_timestamp);
    Ok(batch.freeze())
}

/// The same records, with offsets 0, 1, 2… and in another codec.
fn rebuilt(
    batch: &[u8],
    header: &BatchHeader,
    codec: Compression,
    level: i32,
    log_append_time: Option<Timestamp>,
) -> Result<Bytes, Refusal> {
    let body = &batch[HEADER_BYTES..];
    let body = match header.compression {
        Compression::None => Cow::Borrowed(body),
        Compression::Gzip | Compression::Snappy | Compression::Lz4 | Compression::Zstd => {
            Cow::Owned(decompress(header.compression, body, REWRITTEN_BYTES_MAX)?)
        }
    };
    let mut builder = BatchBuilder::new()
        .producer(header.producer_id, header.producer_epoch, header.base_sequence)
        .transactional(header.is_transactional())
        .compressed(codec, level);
    if let Some(now) = log_append_time {
        builder = builder.log_append_time(now);
    }
    let fixed = (header.timestamp_type() == TimestampType::LogAppendTime).then_some(header.max_timestamp);
    for record in Records::new(&body, header.record_count) {
        let record = record?;
        let timestamp = fixed.unwrap_or_else(|| record.timestamp(header.base_timestamp));
        builder.push_with_headers(timestamp, record.key, record.value, record.headers);
    }
    let bytes = builder.build();
    copied(bytes.len());
    Ok(bytes)
}
