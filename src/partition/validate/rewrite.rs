//! What the topic wants otherwise than the client sent it.

use bytes::{Bytes, BytesMut};

use super::{CompressionPolicy, REWRITTEN_BYTES_MAX, Refusal, TopicRules, scan::Scan};
use crate::{
    base::{ErrorCode, Timestamp, copied},
    protocol::{
        batch::{BatchHeader, Rebuild, TimestampType, set_timestamp},
        compression::Compression,
    },
};

/// How many times as long a batch may get that is compressed in its own codec once more, for other offsets in it: its client
/// compressed it better, but not by more. No memory is asked for it beside that of its request.
const RENUMBERED_GROWTH_MAX: usize = 2;
/// How many bytes more than that it may get, which small ones need.
const RENUMBERED_SLACK_BYTES: usize = 4 << 10;

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
        let mut rebuild = rebuild(codec, level, topic, now);
        if codec == header.compression {
            rebuild.bytes_max = rebuild.bytes_max.min(batch.len() * RENUMBERED_GROWTH_MAX + RENUMBERED_SLACK_BYTES);
        }
        let bytes = rebuild.of(&batch, header)?.ok_or_else(|| Refusal::of(ErrorCode::MessageTooLarge))?;
        copied(bytes.len());
        return Ok(bytes);
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

/// How a batch of the topic is made anew.
pub(super) fn rebuild(
    codec: Compression,
    level: i32,
    topic: &TopicRules,
    log_append_time: Option<Timestamp>,
) -> Rebuild {
    Rebuild {
        codec,
        level,
        log_append_time,
        unpacked_bytes_max: REWRITTEN_BYTES_MAX,
        bytes_max: topic.max_message_bytes,
    }
}
