//! From a timestamp to an offset (ListOffsets).
//!
//! Headers say in which batch a record is. A compressed batch is decompressed a window at a time, so that its size matters
//! to nobody's memory, and others get their turn meanwhile. Every batch was held against `partition::SCANNED_BYTES_MAX`
//! before it was stored.

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
        batch::{
            BatchError, BatchHeader, BatchView, Feed, HEADER_BYTES, SliceFeed, TimestampType, batches, next_shape,
        },
        compression::{Compression, StreamFeed},
    },
};

/// Bytes looked at in one go.
const SCAN_BYTES: usize = 1 << 20;

/// After so many bytes of records other tasks get a turn: a millisecond of decompressing.
const LOOKED_BEFORE_YIELD: usize = 256 << 10;

impl Log {
    /// The first record at or after `timestamp` (ms) that lies below `upto`: its timestamp and offset.
    /// # Errors  As [`read`](Self::read).
    pub async fn offset_for_timestamp(
        self: &Rc<Self>,
        timestamp: Timestamp,
        upto: Offset,
    ) -> Result<Option<(Timestamp, Offset)>, LogError> {
        self.looked_up(async || self.find_timestamp(timestamp, upto).await).await
    }

    async fn find_timestamp(
        self: &Rc<Self>,
        timestamp: Timestamp,
        upto: Offset,
    ) -> Result<Option<(Timestamp, Offset)>, LogError> {
        let candidates: Vec<Offset> = {
            let state = self.state();
            let recent = state.segments().iter().filter(|segment| segment.largest.0 >= timestamp);
            recent.map(|segment| segment.base).collect()
        };
        for base in candidates {
            let found = loop {
                let start = self.log_start_offset();
                match self.noted(self.find_in_segment(base, timestamp, upto).await) {
                    // Deleted while it was looked through: what is left begins further up.
                    Err(LogError::OffsetOutOfRange) if self.log_start_offset() > start => {}
                    found => break found?,
                }
            };
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
        let (segment, in_memory, end, log_start) = {
            let state = self.state();
            let Some(index) = state.segments().iter().position(|segment| segment.base == base) else { return Ok(None) };
            let end = state.segments().get(index + 1).map_or(state.end(), |next| next.base);
            let start = state.segments()[index].index.as_ref().map(|index| index.offset_for(timestamp));
            (state.segments()[index].id(), start, end, state.log_start())
        };
        let start = match in_memory {
            Some(start) => start,
            None => self.sealed_index(segment).await?.offset_for(timestamp),
        };
        let mut from = base.plus(i64::from(start)).max(log_start);
        loop {
            let candidate = self.scan(from, end.min(upto), |batch| {
                if batch.header.max_timestamp >= timestamp {
                    ControlFlow::Break(owned(batch))
                } else {
                    ControlFlow::Continue(())
                }
            });
            let Some((header, batch)) = candidate.await? else { return Ok(None) };
            let found = self.look_into(&header, &batch, timestamp, log_start).await?;
            if found.first.is_some() {
                return Ok(found.first);
            }
            from = header.last_offset().plus(1);
        }
    }

    /// The first record that has the largest timestamp of all below `upto`.
    /// # Errors  As [`read`](Self::read).
    pub async fn max_timestamp_offset(self: &Rc<Self>, upto: Offset) -> Result<Option<(Timestamp, Offset)>, LogError> {
        self.looked_up(async || self.find_max_timestamp(upto).await).await
    }

    async fn find_max_timestamp(self: &Rc<Self>, upto: Offset) -> Result<Option<(Timestamp, Offset)>, LogError> {
        let (largest, log_start) = {
            let state = self.state();
            let mut largest = (NO_TIMESTAMP, Offset::ZERO);
            for segment in state.segments().iter().filter(|segment| segment.size > 0) {
                if segment.largest.0 > largest.0 {
                    largest = segment.largest;
                }
            }
            (largest, state.log_start())
        };
        if largest.0 == NO_TIMESTAMP {
            return Ok(None);
        }
        // It may be gone though the batch that had it is not.
        if largest.1 < upto
            && largest.1 >= log_start
            && let Some(found) = self.first_in_batch(largest, upto, log_start).await?
        {
            return Ok(Some(found));
        }
        // The record with it is not committed yet, or deleted: look through the headers of what is left. Only of a batch that the
        // log start cuts in two the header may speak of a record that is gone.
        let end = upto.min(self.log_end_offset());
        let mut best: Option<(Timestamp, Offset)> = None;
        let mut cut = None;
        self.scan(log_start, end, |batch| {
            let header = &batch.header;
            if header.base_offset < log_start {
                cut = Some(owned(batch));
            } else if best.is_none_or(|best| header.max_timestamp > best.0) {
                best = Some((header.max_timestamp, header.base_offset));
            }
            ControlFlow::<()>::Continue(())
        })
        .await?;
        let cut = match cut {
            Some((header, batch)) => {
                let found = self.look_into(&header, &batch, Timestamp::MAX, log_start).await?;
                found.first.or(found.largest)
            }
            None => None,
        };
        match (cut, best) {
            (Some(cut), best) if best.is_none_or(|best| best.0 <= cut.0) => Ok(Some(cut)),
            (_, Some(best)) => self.first_in_batch(best, upto, log_start).await,
            (_, None) => Ok(None),
        }
    }

    /// The first record with this timestamp, or a later one, in the batch that holds `offset`.
    async fn first_in_batch(
        self: &Rc<Self>,
        (timestamp, offset): (Timestamp, Offset),
        upto: Offset,
        log_start: Offset,
    ) -> Result<Option<(Timestamp, Offset)>, LogError> {
        let Some((header, batch)) = self.scan(offset, upto, |batch| ControlFlow::Break(owned(batch))).await? else {
            return Ok(None);
        };
        Ok(self.look_into(&header, &batch, timestamp, log_start).await?.first)
    }

    /// Looks through the records of a batch from `log_start` on.
    /// # Errors  `Corrupt` if they are not what was checked when they were stored.
    async fn look_into(
        &self,
        header: &BatchHeader,
        batch: &[u8],
        timestamp: Timestamp,
        log_start: Offset,
    ) -> Result<Found, LogError> {
        if header.timestamp_type() == TimestampType::LogAppendTime {
            let first = (header.max_timestamp, header.base_offset.max(log_start));
            let reached = header.max_timestamp >= timestamp;
            return Ok(Found { first: reached.then_some(first), largest: Some(first) });
        }
        let body = &batch[HEADER_BYTES..];
        let found = match header.compression {
            Compression::None => self.look_through(&mut SliceFeed::new(body), header, timestamp, log_start).await,
            codec => match StreamFeed::new(codec, body, usize::MAX) {
                Ok(mut feed) => self.look_through(&mut feed, header, timestamp, log_start).await,
                Err(error) => Err(error),
            },
        };
        found.map_err(|_| LogError::Corrupt { segment: header.base_offset, position: 0 })
    }

    async fn look_through(
        &self,
        feed: &mut dyn Feed,
        header: &BatchHeader,
        timestamp: Timestamp,
        log_start: Offset,
    ) -> Result<Found, BatchError> {
        let mut found = Found::default();
        let mut turn = LOOKED_BEFORE_YIELD;
        for _ in 0..header.record_count {
            let shape = next_shape(feed)?;
            let offset = header.base_offset.plus(i64::from(shape.offset_delta));
            let time = header.base_timestamp.wrapping_add(shape.timestamp_delta);
            if offset >= log_start {
                if time >= timestamp {
                    found.first = Some((time, offset));
                    break;
                }
                if found.largest.is_none_or(|largest| time > largest.0) {
                    found.largest = Some((time, offset));
                }
            }
            if feed.position() >= turn {
                turn = feed.position() + LOOKED_BEFORE_YIELD;
                self.core.io.clock.yield_now().await;
            }
        }
        Ok(found)
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

/// A batch that is looked into after the bytes that it lay in are gone.
fn owned(batch: &BatchView<'_>) -> (BatchHeader, Vec<u8>) {
    (batch.header, batch.bytes.to_vec())
}

/// What looking through a batch gives: timestamps and offsets.
#[derive(Default)]
struct Found {
    /// The first record at or after the timestamp that was asked for.
    first: Option<(Timestamp, Offset)>,
    /// The first one with the largest timestamp, of those before that.
    largest: Option<(Timestamp, Offset)>,
}
