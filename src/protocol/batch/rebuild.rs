//! A batch made anew, record by record: with offsets without gaps, in another codec. However much it decompresses to, only what
//! comes out of it is held.

use std::io::{self, BufWriter, Write};

use bytes::Bytes;

use super::{
    BatchError, BatchHeader, HEADER_BYTES, TimestampType,
    header::attributes,
    records::{Feed, SliceFeed, next_head, write_head},
    seal,
};
use crate::{
    base::{LeaderEpoch, Offset, Timestamp},
    protocol::compression::{Compression, Compressor, StreamFeed},
};

/// Small pieces are gathered before they are compressed.
const GATHERED_BYTES: usize = 8 << 10;

/// What comes out is at most so many times as long as the records.
const GROWTH_MAX: usize = 3;
/// What a codec puts around what is as good as nothing.
const FRAMING_BYTES: usize = 1 << 10;

/// How a batch is to be made anew.
#[derive(Clone, Copy, Debug)]
pub struct Rebuild {
    /// The codec, and [`Compression::default_level`] if in doubt.
    pub codec: Compression,
    /// Of the codec.
    pub level: i32,
    /// The broker's time, if all records get it.
    pub log_append_time: Option<Timestamp>,
    /// Most bytes that its records may decompress to.
    pub unpacked_bytes_max: usize,
    /// Most bytes that may come out.
    pub bytes_max: usize,
}

impl Rebuild {
    /// A new batch of the records in `batch`, whose header that is, with offsets 0, 1, 2… The records are passed on as they
    /// lie; what a record says of itself that Kafka does not define goes. `None` if more than `bytes_max` would come out.
    /// # Errors  `BadRecord` for what does not parse or decompress, `TooLarge` beyond `unpacked_bytes_max`.
    pub fn of(&self, batch: &[u8], header: &BatchHeader) -> Result<Option<Bytes>, BatchError> {
        let body = &batch[HEADER_BYTES..];
        match header.compression {
            Compression::None => self.of_feed(SliceFeed::new(body), header),
            Compression::Gzip | Compression::Snappy | Compression::Lz4 | Compression::Zstd => {
                self.of_feed(StreamFeed::new(header.compression, body, self.unpacked_bytes_max)?, header)
            }
        }
    }

    /// The most memory that it takes to make a batch anew, in bytes, given its codec and length.
    #[must_use]
    pub fn memory_bytes(&self, codec: Compression, bytes: usize) -> usize {
        let most = match codec {
            // The smallest records are as long as their two deltas may grow; what does not compress grows a little.
            Compression::None => bytes.saturating_mul(GROWTH_MAX).saturating_add(FRAMING_BYTES).min(self.bytes_max),
            Compression::Gzip | Compression::Snappy | Compression::Lz4 | Compression::Zstd => self.bytes_max,
        };
        most.min(self.unpacked_bytes_max.saturating_mul(GROWTH_MAX)) + self.codec.compressor_bytes(self.level)
    }

    fn of_feed<F: Feed>(&self, feed: F, header: &BatchHeader) -> Result<Option<Bytes>, BatchError> {
        match self.passed_on(feed, header) {
            Ok((bytes, base_timestamp, max_timestamp)) => {
                Ok(Some(self.finished(bytes, header, base_timestamp, max_timestamp)))
            }
            Err(Ended::Batch(error)) => Err(error),
            Err(Ended::Full) => Ok(None),
        }
    }

    /// Header's room and records, and the first and the largest timestamp.
    fn passed_on<F: Feed>(&self, mut feed: F, header: &BatchHeader) -> Result<(Vec<u8>, Timestamp, Timestamp), Ended> {
        let out = Bounded { bytes: vec![0; HEADER_BYTES], bytes_max: self.bytes_max };
        let mut out = BufWriter::with_capacity(GATHERED_BYTES, Compressor::new(self.codec, self.level, out)?);
        let fixed = (header.timestamp_type() == TimestampType::LogAppendTime).then_some(header.max_timestamp);
        let (mut base_timestamp, mut max_timestamp) = (-1, -1);
        for index in 0..header.record_count {
            let head = next_head(&mut feed)?;
            let timestamp = fixed.unwrap_or_else(|| header.base_timestamp.wrapping_add(head.timestamp_delta));
            if index == 0 {
                (base_timestamp, max_timestamp) = (timestamp, timestamp);
            }
            max_timestamp = max_timestamp.max(timestamp);
            write_head(&mut out, timestamp.wrapping_sub(base_timestamp), index, head.rest)?;
            let mut rest = head.rest;
            while rest > 0 {
                let piece = feed.piece(rest)?;
                out.write_all(piece)?;
                rest -= piece.len();
            }
        }
        let out = out.into_inner().map_err(io::IntoInnerError::into_error)?.finish()?;
        Ok((out.bytes, base_timestamp, max_timestamp))
    }

    fn finished(&self, mut bytes: Vec<u8>, header: &BatchHeader, base: Timestamp, largest: Timestamp) -> Bytes {
        let (timestamps, max_timestamp) = match self.log_append_time {
            Some(now) => (TimestampType::LogAppendTime, now),
            None => (TimestampType::CreateTime, largest),
        };
        let header = BatchHeader {
            base_offset: Offset::ZERO,
            total_bytes: bytes.len(),
            leader_epoch: LeaderEpoch(-1),
            crc: 0,
            compression: self.codec,
            attributes: attributes(self.codec, timestamps, header.is_transactional(), header.is_control()),
            last_offset_delta: header.record_count - 1,
            base_timestamp: base,
            max_timestamp,
            ..*header
        };
        bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
        seal(&mut bytes);
        bytes.shrink_to_fit();
        Bytes::from(bytes)
    }
}

/// Why nothing was made.
enum Ended {
    Batch(BatchError),
    Full,
}

impl From<BatchError> for Ended {
    fn from(error: BatchError) -> Self {
        Self::Batch(error)
    }
}

impl From<io::Error> for Ended {
    /// Into memory every write succeeds but one that goes too far. A level that the codec does not have is none of a topic's.
    fn from(_: io::Error) -> Self {
        Self::Full
    }
}

/// Memory that takes so many bytes and no more.
struct Bounded {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let needed = self.bytes.len() + bytes.len();
        if needed > self.bytes_max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if needed > self.bytes.capacity() {
            let capacity = (2 * self.bytes.capacity()).clamp(needed, self.bytes_max);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
