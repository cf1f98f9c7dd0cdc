//! The codecs of record batches, bounded: what is decompressed never takes more memory than the caller allows.

mod compressor;
mod feed;
mod gzip;
mod snappy;

use std::io::{self, Read, Write};

pub use self::{compressor::Compressor, feed::StreamFeed};
use crate::protocol::batch::BatchError;

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Raw snappy (librdkafka) or Xerial's framing of it (Java).
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// RFC 8878 (KIP-110).
    Zstd,
}

impl Compression {
    /// Every codec, by id.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The number that stands for the codec in a batch's attributes.
    #[must_use]
    pub const fn id(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// The codec with this number.
    #[must_use]
    pub const fn of_id(id: u8) -> Option<Self> {
        match id {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Its name in `compression.type`.
    #[cfg(test)]
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "uncompressed",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Kafka's level where none is set.
    #[must_use]
    pub const fn default_level(self) -> i32 {
        match self {
            Self::None | Self::Snappy => 0,
            Self::Gzip => -1,
            Self::Lz4 => 9,
            Self::Zstd => 3,
        }
    }
}

/// Decompressors ask for memory by what the data announces. Kafka's own decoder allows zstd windows of this many bits;
/// pages of the window that are never written cost nothing.
const ZSTD_WINDOW_BITS_MAX: u32 = 27;

/// A decompressor over bytes in memory.
pub enum Decompressor<'a> {
    /// The bytes themselves.
    None(&'a [u8]),
    /// See [`Compression::Gzip`].
    Gzip(Box<gzip::GzipReader<'a>>),
    /// See [`Compression::Snappy`].
    Snappy(snappy::SnappyReader<'a>),
    /// See [`Compression::Lz4`].
    Lz4(Box<lz4_flex::frame::FrameDecoder<&'a [u8]>>),
    /// See [`Compression::Zstd`].
    Zstd(Box<zstd::stream::read::Decoder<'static, &'a [u8]>>),
}

impl<'a> Decompressor<'a> {
    /// Starts at the first byte of `bytes`. A block that has to be held whole and is larger than `block_max` is an error of the
    /// kind `FileTooLarge`.
    /// # Errors  `BadRecord` if the bytes cannot be the codec's.
    pub fn new(codec: Compression, bytes: &'a [u8], block_max: usize) -> Result<Self, BatchError> {
        Ok(match codec {
            Compression::None => Self::None(bytes),
            Compression::Gzip => Self::Gzip(Box::new(gzip::GzipReader::new(bytes))),
            Compression::Snappy => Self::Snappy(snappy::SnappyReader::new(bytes, block_max)),
            Compression::Lz4 => Self::Lz4(Box::new(lz4_flex::frame::FrameDecoder::new(bytes))),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(|_| GARBAGE)?;
                decoder.window_log_max(ZSTD_WINDOW_BITS_MAX).map_err(|_| GARBAGE)?;
                Self::Zstd(Box::new(decoder))
            }
        })
    }
}

impl Read for Decompressor<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::None(bytes) => bytes.read(out),
            Self::Gzip(reader) => reader.read(out),
            Self::Snappy(reader) => reader.read(out),
            Self::Lz4(reader) => reader.read(out),
            Self::Zstd(reader) => reader.read(out),
        }
    }
}

const GARBAGE: BatchError = BatchError::BadRecord("the records do not decompress");

/// What a decompressor's failure means, if so many bytes are allowed.
fn failure(error: &io::Error, limit: usize) -> BatchError {
    if error.kind() == io::ErrorKind::FileTooLarge { BatchError::TooLarge { limit } } else { GARBAGE }
}

/// Decompresses all of `bytes`.
/// # Errors  `BadRecord` for what does not decompress, `TooLarge` if it would take more than `limit` bytes.
#[cfg(test)]
pub fn decompress(codec: Compression, bytes: &[u8], limit: usize) -> Result<Vec<u8>, BatchError> {
    let mut out = Vec::new();
    // One byte more than allowed tells too large from just right.
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let source = Decompressor::new(codec, bytes, limit)?;
    source.take(bound).read_to_end(&mut out).map_err(|error| failure(&error, limit))?;
    if out.len() > limit { Err(BatchError::TooLarge { limit }) } else { Ok(out) }
}

/// Appends `bytes`, compressed, to `out`. Levels as in [`Compressor::new`].
pub fn compress(codec: Compression, level: i32, bytes: &[u8], out: &mut Vec<u8>) {
    let mut compressor = Compressor::new(codec, level, out).expect("writing into memory does not fail");
    compressor.write_all(bytes).and_then(|()| compressor.finish()).expect("writing into memory does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::batch::Feed;

    fn text(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|index| (index / 7 % 251) as u8).collect()
    }

    fn compressed(codec: Compression, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        compress(codec, codec.default_level(), bytes, &mut out);
        out
    }

    #[test]
    fn what_goes_in_comes_out_up_to_the_limit() {
        for codec in Compression::ALL {
            assert_eq!(Compression::of_id(codec.id()), Some(codec));
            for size in [0, 1, 1000, 200_000] {
                let bytes = text(size);
                let small = compressed(codec, &bytes);
                assert_eq!(decompress(codec, &small, size).as_deref(), Ok(&bytes[..]), "{codec:?} {size}");
                if size > 0 {
                    let limit = size - 1;
                    assert_eq!(decompress(codec, &small, limit), Err(BatchError::TooLarge { limit }), "{codec:?}");
                }
            }
        }
    }

    #[test]
    fn raw_snappy_is_read_too() {
        let bytes = text(100_000);
        let raw = snap::raw::Encoder::new().compress_vec(&bytes).unwrap();
        assert_eq!(decompress(Compression::Snappy, &raw, 1 << 20), Ok(bytes));
    }

    #[test]
    fn a_feed_passes_over_windows_and_stops_at_its_limit() {
        let bytes = text(150_000);
        for codec in Compression::ALL {
            let small = compressed(codec, &bytes);
            let mut feed = StreamFeed::new(codec, &small, 150_000).unwrap();
            for at in [0_usize, 1, 40_000, 99_999, 149_999] {
                feed.skip(at - feed.position()).unwrap();
                assert_eq!(feed.byte(), Ok(bytes[at]), "{codec:?} at {at}");
            }
            assert_eq!(feed.at_end(), Ok(true), "{codec:?}");
            assert!(feed.byte().is_err() && feed.skip(1).is_err(), "{codec:?}");
            let mut feed = StreamFeed::new(codec, &small, 60_000).unwrap();
            assert_eq!(feed.skip(149_999), Err(BatchError::TooLarge { limit: 60_000 }), "{codec:?}");
        }
    }

    #[test]
    fn a_raw_snappy_block_larger_than_the_limit_is_not_even_begun() {
        let raw = snap::raw::Encoder::new().compress_vec(&vec![7; 1 << 20]).unwrap();
        let limit = (1 << 20) - 1;
        assert_eq!(decompress(Compression::Snappy, &raw, limit), Err(BatchError::TooLarge { limit }));
        let mut feed = StreamFeed::new(Compression::Snappy, &raw, limit).unwrap();
        assert_eq!(feed.skip(1), Err(BatchError::TooLarge { limit }));
        assert!(decompress(Compression::Snappy, &raw, 1 << 20).is_ok());
    }

    #[test]
    fn what_follows_a_gzip_member_counts_if_it_is_one() {
        let member = compressed(Compression::Gzip, b"one");
        for (rest, expected) in [
            (&b""[..], Ok(&b"one"[..])),
            (b"x", Ok(b"one")),
            (b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", Ok(b"one")),
            (b"\x1f\x8b", Ok(b"one")),
            (&member, Ok(b"oneone")),
            // A member that begins and is none.
            (&member[..member.len() - 6], Err(GARBAGE)),
        ] {
            let bytes = [&member, rest].concat();
            assert_eq!(decompress(Compression::Gzip, &bytes, 100).as_deref(), expected.as_deref(), "{rest:?}");
        }
        assert_eq!(decompress(Compression::Gzip, b"x", 100), Err(GARBAGE), "nothing at all is no member");
    }

    #[test]
    fn a_snappy_block_cannot_announce_more_than_it_can_hold() {
        // 2^32-1 bytes announced in 5.
        let forged = [0xff, 0xff, 0xff, 0xff, 0x0f, 0];
        assert_eq!(decompress(Compression::Snappy, &forged, usize::MAX), Err(GARBAGE));
    }
}
