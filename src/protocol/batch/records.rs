//! The records inside a batch, read where they lie: no allocation a record, duplicate header keys kept.

use std::io;

use super::BatchError;

/// Length, attributes and the two deltas.
const HEAD_BYTES_MAX: usize = 5 + 1 + 10 + 5;

/// Where record bytes come from: a slice, or a decompressor.
pub trait Feed {
    /// Takes one byte.
    /// # Errors  `BadRecord` at the end of the bytes or if they do not decompress; `TooLarge` beyond the feed's limit.
    fn byte(&mut self) -> Result<u8, BatchError>;
    /// Passes over `count` bytes. Errors as for [`Feed::byte`].
    fn skip(&mut self, count: usize) -> Result<(), BatchError>;
    /// Takes up to `count` bytes as they lie, at least one of them. Errors as for [`Feed::byte`].
    fn piece(&mut self, count: usize) -> Result<&[u8], BatchError>;
    /// Bytes taken or passed over so far.
    fn position(&self) -> usize;
    /// Whether nothing is left. Errors as for [`Feed::byte`].
    fn at_end(&mut self) -> Result<bool, BatchError>;
}

/// A feed over bytes in memory.
#[derive(Clone, Copy, Debug)]
pub struct SliceFeed<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> SliceFeed<'a> {
    /// Starts at the first byte of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    fn slice(&mut self, count: usize) -> Result<&'a [u8], BatchError> {
        let end = self.position.checked_add(count).filter(|end| *end <= self.bytes.len()).ok_or(ENDED)?;
        let slice = &self.bytes[self.position..end];
        self.position = end;
        Ok(slice)
    }
}

const ENDED: BatchError = BatchError::BadRecord("the records end in the middle of one");

impl Feed for SliceFeed<'_> {
    #[inline]
    fn byte(&mut self) -> Result<u8, BatchError> {
        let byte = *self.bytes.get(self.position).ok_or(ENDED)?;
        self.position += 1;
        Ok(byte)
    }

    #[inline]
    fn skip(&mut self, count: usize) -> Result<(), BatchError> {
        self.slice(count).map(|_| ())
    }

    fn piece(&mut self, count: usize) -> Result<&[u8], BatchError> {
        self.slice(count)
    }

    #[inline]
    fn position(&self) -> usize {
        self.position
    }

    #[inline]
    fn at_end(&mut self) -> Result<bool, BatchError> {
        Ok(self.position == self.bytes.len())
    }
}

/// What validation wants of a record; its bytes are only passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordShape {
    /// Offset minus the batch's base offset.
    pub offset_delta: i32,
    /// Timestamp minus the batch's base timestamp.
    pub timestamp_delta: i64,
    /// Whether the key is there; an empty key is.
    pub has_key: bool,
}

/// Passes over one record and checks that its parts fill its length exactly. Validation has it for itself, made part of its loop:
/// who else looks at records hands in a `dyn Feed`, since with two callers the optimiser keeps it apart, and validating a batch of
/// 1,000 records takes 30 % more instructions (`benches/instructions.txt`).
/// # Errors  `BadRecord`, or what the feed says.
#[inline]
pub fn next_shape<F: Feed + ?Sized>(feed: &mut F) -> Result<RecordShape, BatchError> {
    let length = length(varint(feed)?)?;
    let end = feed.position().saturating_add(length);
    feed.byte()?; // attributes: none is defined
    let timestamp_delta = varlong(feed)?;
    let offset_delta = varint(feed)?;
    let key = varint(feed)?;
    skip_nullable(feed, key)?;
    let value = varint(feed)?;
    skip_nullable(feed, value)?;
    let headers = header_count(varint(feed)?, length)?;
    for _ in 0..headers {
        let key = self::length(varint(feed)?)?;
        feed.skip(key)?;
        let value = varint(feed)?;
        skip_nullable(feed, value)?;
    }
    if feed.position() != end {
        return Err(BatchError::BadRecord("a record's length is not that of its parts"));
    }
    Ok(RecordShape { offset_delta, timestamp_delta, has_key: key >= 0 })
}

/// What stands before the key of a record.
pub(super) struct Head {
    pub(super) timestamp_delta: i64,
    /// Bytes from the key to the record's end.
    pub(super) rest: usize,
}

/// Takes a record up to its key. What follows is not looked at.
/// # Errors  `BadRecord`, or what the feed says.
pub(super) fn next_head<F: Feed>(feed: &mut F) -> Result<Head, BatchError> {
    let length = length(varint(feed)?)?;
    let end = feed.position().saturating_add(length);
    feed.byte()?; // attributes: none is defined
    let timestamp_delta = varlong(feed)?;
    varint(feed)?; // its place in the batch, which is counted
    let rest = end.checked_sub(feed.position());
    let rest = rest.ok_or(BatchError::BadRecord("a record's length is not that of its parts"))?;
    Ok(Head { timestamp_delta, rest })
}

/// One record where it lies.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(test), expect(dead_code, reason = "of a record that is its own the broker wants key and value"))]
pub struct Record<'a> {
    /// Offset minus the batch's base offset.
    pub offset_delta: i32,
    /// Timestamp minus the batch's base timestamp.
    pub timestamp_delta: i64,
    /// `None` is Kafka's null.
    pub key: Option<&'a [u8]>,
    /// `None` is Kafka's null: a tombstone in a compacted topic.
    pub value: Option<&'a [u8]>,
    /// In the order written; keys may repeat.
    pub headers: Headers<'a>,
}

/// One header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// UTF-8 by convention; not checked, as in Kafka.
    pub key: &'a [u8],
    /// `None` is Kafka's null.
    pub value: Option<&'a [u8]>,
}

/// The headers of a record whose structure has been checked.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    feed: SliceFeed<'a>,
    left: usize,
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        self.left = self.left.checked_sub(1)?;
        header(&mut self.feed).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// Iterates over the records of an uncompressed (or decompressed) batch; see [`Records::new`].
#[derive(Clone, Debug)]
pub struct Records<'a> {
    feed: SliceFeed<'a>,
    left: usize,
}

impl<'a> Records<'a> {
    /// The `count` records in `body`, which is what follows the batch header. Ends after the first error. Bytes
    /// beyond the last record are an error after it. A negative count is an empty batch.
    #[must_use]
    pub fn new(body: &'a [u8], count: i32) -> Self {
        Self { feed: SliceFeed::new(body), left: usize::try_from(count).unwrap_or(0) }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            let rest = self.feed.position < self.feed.bytes.len();
            self.feed.position = self.feed.bytes.len();
            return rest.then_some(Err(BatchError::BadRecord("bytes after the last record")));
        }
        self.left -= 1;
        let record = record(&mut self.feed);
        if record.is_err() {
            self.left = 0;
            self.feed.position = self.feed.bytes.len();
        }
        Some(record)
    }
}

fn record<'a>(feed: &mut SliceFeed<'a>) -> Result<Record<'a>, BatchError> {
    let length = length(varint(feed)?)?;
    let mut body = SliceFeed::new(feed.slice(length)?);
    body.byte()?;
    let timestamp_delta = varlong(&mut body)?;
    let offset_delta = varint(&mut body)?;
    let key = nullable(&mut body)?;
    let value = nullable(&mut body)?;
    let count = header_count(varint(&mut body)?, length)?;
    let headers = Headers { feed: body, left: count };
    for _ in 0..count {
        header(&mut body)?;
    }
    if !body.at_end()? {
        return Err(BatchError::BadRecord("a record's length is not that of its parts"));
    }
    Ok(Record { offset_delta, timestamp_delta, key, value, headers })
}

fn header<'a>(feed: &mut SliceFeed<'a>) -> Result<Header<'a>, BatchError> {
    let key = length(varint(feed)?)?;
    Ok(Header { key: feed.slice(key)?, value: nullable(feed)? })
}

fn nullable<'a>(feed: &mut SliceFeed<'a>) -> Result<Option<&'a [u8]>, BatchError> {
    let length = varint(feed)?;
    usize::try_from(length).ok().map(|length| feed.slice(length)).transpose()
}

#[inline]
fn skip_nullable<F: Feed + ?Sized>(feed: &mut F, length: i32) -> Result<(), BatchError> {
    if length > 0 { feed.skip(length as usize) } else { Ok(()) }
}

#[inline]
fn length(length: i32) -> Result<usize, BatchError> {
    usize::try_from(length).map_err(|_| BatchError::BadRecord("a negative length"))
}

/// A header takes two bytes at least, so more of them than bytes are forged.
#[inline]
fn header_count(count: i32, record_bytes: usize) -> Result<usize, BatchError> {
    let count = length(count)?;
    if count > record_bytes { Err(BatchError::BadRecord("more headers than bytes")) } else { Ok(count) }
}

/// A zig-zag number of up to 5 bytes.
#[inline]
fn varint<F: Feed + ?Sized>(feed: &mut F) -> Result<i32, BatchError> {
    let mut value = 0_u32;
    for shift in (0..35).step_by(7) {
        let byte = feed.byte()?;
        value |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((value >> 1) as i32 ^ -((value & 1) as i32));
        }
    }
    Err(BatchError::BadRecord("a number of more than 5 bytes"))
}

/// A zig-zag number of up to 10 bytes.
#[inline]
fn varlong<F: Feed + ?Sized>(feed: &mut F) -> Result<i64, BatchError> {
    let mut value = 0_u64;
    for shift in (0..70).step_by(7) {
        let byte = feed.byte()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err(BatchError::BadRecord("a number of more than 10 bytes"))
}

/// Appends one record to `out`.
pub fn write_record<'h>(
    out: &mut Vec<u8>,
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: impl ExactSizeIterator<Item = Header<'h>> + Clone,
) {
    let fields = headers
        .clone()
        .map(|header| varlong_bytes(header.key.len() as i64) + header.key.len() + nullable_bytes(header.value));
    let length = 1
        + varlong_bytes(timestamp_delta)
        + varlong_bytes(i64::from(offset_delta))
        + nullable_bytes(key)
        + nullable_bytes(value)
        + varlong_bytes(headers.len() as i64)
        + fields.sum::<usize>();
    write_varlong(out, length as i64);
    out.push(0);
    write_varlong(out, timestamp_delta);
    write_varlong(out, i64::from(offset_delta));
    write_nullable(out, key);
    write_nullable(out, value);
    write_varlong(out, headers.len() as i64);
    for header in headers {
        write_nullable(out, Some(header.key));
        write_nullable(out, header.value);
    }
}

/// Writes what stands before the key of a record that goes on for `rest` bytes.
pub(super) fn write_head(
    out: &mut impl io::Write,
    timestamp_delta: i64,
    offset_delta: i32,
    rest: usize,
) -> io::Result<()> {
    let length = 1 + varlong_bytes(timestamp_delta) + varlong_bytes(i64::from(offset_delta)) + rest;
    let mut head = Vec::with_capacity(HEAD_BYTES_MAX);
    write_varlong(&mut head, length as i64);
    head.push(0);
    write_varlong(&mut head, timestamp_delta);
    write_varlong(&mut head, i64::from(offset_delta));
    out.write_all(&head)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn varlong_bytes(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

fn nullable_bytes(value: Option<&[u8]>) -> usize {
    value.map_or(1, |value| varlong_bytes(value.len() as i64) + value.len())
}

fn write_varlong(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn write_nullable(out: &mut Vec<u8>, value: Option<&[u8]>) {
    write_varlong(out, value.map_or(-1, |value| value.len() as i64));
    out.extend_from_slice(value.unwrap_or_default());
}
