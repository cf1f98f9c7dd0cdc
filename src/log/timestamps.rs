//! From a timestamp to an offset (ListOffsets).

use std::{borrow::Cow, ops::ControlFlow, rc::Rc};

use crate::{
    base::{Offset, Timestamp},
    log::{
        core::joined,
        index::NO_TIMESTAMP,
        partition_log::Log,
        settings::{LogError, Read},
    },
    protocol::{
        batch::{BatchView, HEADER_BYTES, Records, TimestampType, batches},
        compression::{Compression, decompress},
    },
};

/// Bytes looked at in one go.
const SCAN_BYTES: usize = 1 << 20;

/// A batch that takes more than this when decompressed is taken as a whole: its first offset is answered.
const DECOMPRESSED_MAX: usize = 64 << 20;

impl Log {
    /// The first record at or after `timestamp` (ms) that lies below `upto`: its timestamp and offset.
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn offset_for_timestamp(
        self: &Rc<Self>,
        timestamp: Timestamp,
        upto: Offset,
    ) -> Result<Option<(Timestamp, Offset)>, LogError> {
        let candidates: Vec<Offset> = {
            let state = self.state();
            let recent = state.segments.iter().filter(|segment| segment.largest.0 >= timestamp);
            recent.map(|segment| segment.base).collect()
        };
        for base in candidates {
            let found = self.noted(self.find_in_segment(base, timestamp, upto).await)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    async fn find_in_segment(
        self: &Rc<Self>,
        base: Offset,
        timestamp: Timestamp,
        upto: Offset,
    ) -> Result<Option<(Timestamp, Offset)>, LogError> {
        let (in_memory, end, log_start) = {
            let state = self.state();
            let Some(index) = state.segments.iter().position(|segment| segment.base == base) else { return Ok(None) };
            let end = state.segments.get(index + 1).map_or(state.end, |next| next.base);
            let start = state.segments[index].index.as_ref().map(|index| index.offset_for(timestamp));
            (start, end, state.log_start)
        };
        let start = match in_memory {
            Some(start) => start,
            None => self.sealed_index(base).await?.offset_for(timestamp),
        };
        let from = base.plus(i64::from(start)).max(log_start);
        self.scan(from, end.min(upto), |batch| match first_at_or_after(batch, timestamp, log_start) {
            Some(found) => ControlFlow::Break(found),
            None => ControlFlow::Continue(()),
        })
        .await
    }

    /// The first record that has the largest timestamp of all below `upto`.
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn max_timestamp_offset(self: &Rc<Self>, upto: Offset) -> Result<Option<(Timestamp, Offset)>, LogError> {
        let (largest, log_start) = {
            let state = self.state();
            let mut largest = (NO_TIMESTAMP, Offset::ZERO);
            for segment in state.segments.iter().filter(|segment| segment.size > 0) {
                if segment.largest.0 > largest.0 {
                    largest = segment.largest;
                }
            }
            (largest, state.log_start)
        };
        if largest.0 == NO_TIMESTAMP {
            return Ok(None);
        }
        if largest.1 < upto && largest.1 >= log_start {
            return self.offset_for_timestamp_in_batch(largest, upto, log_start).await;
        }
        // The record with it is not committed yet, or deleted: look through what is left.
        let mut best: Option<(Timestamp, Offset)> = None;
        let end = upto.min(self.log_end_offset());
        self.scan(log_start, end, |batch| {
            if best.is_none_or(|best| batch.header.max_timestamp > best.0) {
                best = first_at_or_after(batch, batch.header.max_timestamp, log_start).or(best);
            }
            ControlFlow::<()>::Continue(())
        })
        .await?;
        Ok(best)
    }

    async fn offset_for_timestamp_in_batch(
        self: &Rc<Self>,
        (timestamp, last_offset): (Timestamp, Offset),
        upto: Offset,
        log_start: Offset,
    ) -> Result<Option<(Timestamp, Offset)>, LogError> {
        self.scan(last_offset, upto, |batch| {
            let found = first_at_or_after(batch, timestamp, log_start);
            // The batch is the first one; its header may promise what its records do not keep.
            ControlFlow::Break(found.unwrap_or((batch.header.max_timestamp, batch.header.base_offset)))
        })
        .await
    }

    /// Shows `look` every batch of `from..upto` until it has seen enough.
    async fn scan<T>(
        self: &Rc<Self>,
        from: Offset,
        upto: Offset,
        mut look: impl FnMut(&BatchView) -> ControlFlow<T>,
    ) -> Result<Option<T>, LogError> {
        let mut from = from;
        while from < upto {
            let read = self.read(from, SCAN_BYTES, upto, true).await?;
            if read.bytes == 0 {
                return Ok(None);
            }
            for batch in batches(&contiguous(&read)) {
                let Ok(batch) = batch else {
                    return Err(LogError::Corrupt { segment: from, position: 0 });
                };
                if let ControlFlow::Break(found) = look(&batch) {
                    return Ok(Some(found));
                }
                from = batch.header.last_offset().plus(1);
            }
        }
        Ok(None)
    }
}

fn contiguous(read: &Read) -> Cow<'_, [u8]> {
    match &read.slices[..] {
        [one] => Cow::Borrowed(&one[..]),
        several => Cow::Owned(joined(several)),
    }
}

/// The first record of the batch at or after `timestamp`, and not below the log start.
fn first_at_or_after(batch: &BatchView, timestamp: Timestamp, log_start: Offset) -> Option<(Timestamp, Offset)> {
    let header = &batch.header;
    if header.max_timestamp < timestamp {
        return None;
    }
    if header.timestamp_type() == TimestampType::LogAppendTime {
        return Some((header.max_timestamp, header.base_offset.max(log_start)));
    }
    let body = &batch.bytes[HEADER_BYTES..];
    let body = match header.compression {
        Compression::None => Cow::Borrowed(body),
        codec => match decompress(codec, body, DECOMPRESSED_MAX) {
            Ok(body) => Cow::Owned(body),
            Err(_) => return Some((header.max_timestamp, header.base_offset.max(log_start))),
        },
    };
    Records::new(&body, header.record_count).flatten().find_map(|record| {
        let offset = header.base_offset.plus(i64::from(record.offset_delta));
        let time = record.timestamp(header.base_timestamp);
        (time >= timestamp && offset >= log_start).then_some((time, offset))
    })
}
