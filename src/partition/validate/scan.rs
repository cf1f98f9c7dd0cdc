//! Once over every record.

use super::{RECORD_ERRORS_MAX, Refusal, SCANNED_BYTES_MAX, TopicRules};
use crate::{
    base::{ErrorCode, Timestamp},
    protocol::{
        batch::{BatchError, BatchHeader, Feed, HEADER_BYTES, RecordShape, SliceFeed, TimestampType, next_shape},
        compression::{Compression, StreamFeed},
    },
};

/// The timestamp of a record that has none.
const TIMESTAMP_NONE: Timestamp = -1;
/// Kafka's text names so many.
const ERRORS_SHOWN: usize = 3;

/// What the records of a good batch say.
pub(super) struct Scan {
    /// The largest timestamp. The header's is the client's word only.
    pub(super) max_timestamp: Timestamp,
    /// Whether the offsets are 0, 1, 2…
    pub(super) consecutive: bool,
}

pub(super) fn scan(header: &BatchHeader, batch: &[u8], topic: &TopicRules, now: Timestamp) -> Result<Scan, Refusal> {
    let body = &batch[HEADER_BYTES..];
    match header.compression {
        Compression::None => scan_feed(SliceFeed::new(body), header, topic, now),
        Compression::Gzip | Compression::Snappy | Compression::Lz4 | Compression::Zstd => {
            scan_feed(StreamFeed::new(header.compression, body, SCANNED_BYTES_MAX)?, header, topic, now)
        }
    }
}

fn scan_feed<F: Feed>(mut feed: F, header: &BatchHeader, topic: &TopicRules, now: Timestamp) -> Result<Scan, Refusal> {
    let limits = Limits::of(header, topic, now);
    let mut faults = Faults::default();
    let mut scan = Scan { max_timestamp: TIMESTAMP_NONE, consecutive: true };
    for index in 0..header.record_count {
        let shape = next_shape(&mut feed)?;
        let timestamp = limits.timestamp(&shape);
        if let Some(fault) = limits.fault(&shape, timestamp) {
            faults.note(index, fault, timestamp, &limits);
        }
        scan.max_timestamp = scan.max_timestamp.max(timestamp);
        scan.consecutive &= shape.offset_delta == index;
    }
    if !feed.at_end()? {
        return Err(BatchError::BadRecord("bytes after the last record").into());
    }
    faults.refusal().map_or(Ok(scan), Err)
}

/// What a record can do wrong.
#[derive(Clone, Copy)]
enum Fault {
    NoKey,
    TimestampOutOfRange,
    LogAppendTime,
}

/// The topic's demands, worked out once a batch.
struct Limits {
    compacted: bool,
    base_timestamp: Timestamp,
    /// The timestamp of every record, in a batch that claims the broker's clock.
    fixed: Option<Timestamp>,
    create_time: bool,
    earliest: Timestamp,
    latest: Timestamp,
}

impl Limits {
    fn of(header: &BatchHeader, topic: &TopicRules, now: Timestamp) -> Self {
        Self {
            compacted: topic.compacted,
            base_timestamp: header.base_timestamp,
            fixed: (header.timestamp_type() == TimestampType::LogAppendTime).then_some(header.max_timestamp),
            create_time: topic.timestamp_type == TimestampType::CreateTime,
            earliest: now.saturating_sub(topic.timestamp_before_max_ms),
            latest: now.saturating_add(topic.timestamp_after_max_ms),
        }
    }

    fn timestamp(&self, shape: &RecordShape) -> Timestamp {
        self.fixed.unwrap_or_else(|| self.base_timestamp.wrapping_add(shape.timestamp_delta))
    }

    fn fault(&self, shape: &RecordShape, timestamp: Timestamp) -> Option<Fault> {
        if self.compacted && !shape.has_key {
            return Some(Fault::NoKey);
        }
        if self.create_time && timestamp != TIMESTAMP_NONE {
            let inside = self.earliest <= timestamp && timestamp <= self.latest;
            return (!inside).then_some(Fault::TimestampOutOfRange);
        }
        self.fixed.map(|_| Fault::LogAppendTime)
    }

    fn describe(&self, index: i32, fault: Fault, timestamp: Timestamp) -> String {
        match fault {
            Fault::NoKey => "Compacted topic cannot accept message without key.".to_owned(),
            Fault::TimestampOutOfRange => format!(
                "Timestamp {timestamp} of message with offset {index} is out of range. The timestamp should be within \
                 [{}, {}]",
                self.earliest, self.latest
            ),
            Fault::LogAppendTime => {
                "Invalid timestamp type in message. Producer should not set timestamp type to LogAppendTime.".to_owned()
            }
        }
    }
}

/// The records at fault so far. Allocates at the first.
#[derive(Default)]
struct Faults {
    errors: Vec<(i32, Option<String>)>,
    count: usize,
    timestamps: bool,
}

impl Faults {
    #[cold]
    fn note(&mut self, index: i32, fault: Fault, timestamp: Timestamp, limits: &Limits) {
        self.count += 1;
        self.timestamps |= match fault {
            Fault::NoKey => false,
            Fault::TimestampOutOfRange | Fault::LogAppendTime => true,
        };
        if self.errors.len() < RECORD_ERRORS_MAX {
            self.errors.push((index, Some(limits.describe(index, fault, timestamp))));
        }
    }

    fn refusal(self) -> Option<Refusal> {
        if self.count == 0 {
            return None;
        }
        let (code, message) = if self.timestamps {
            (ErrorCode::InvalidTimestamp, "One or more records have been rejected due to invalid timestamp".to_owned())
        } else {
            (ErrorCode::InvalidRecord, self.message())
        };
        Some(Refusal { code, message: Some(message), record_errors: self.errors })
    }

    fn message(&self) -> String {
        let shown = self.errors.iter().take(ERRORS_SHOWN).map(|(index, text)| {
            let text = text.as_deref().map_or_else(|| "null".to_owned(), |text| format!("'{text}'"));
            format!("RecordError(batchIndex={index}, message={text})")
        });
        format!(
            "One or more records have been rejected due to {} record errors in total, and only showing the first three \
             errors at most: [{}]",
            self.count,
            shown.collect::<Vec<_>>().join(", ")
        )
    }
}
