//! Record batches, format v2 (KIP-98): the unit in which records are produced, stored and fetched.
//!
//! A broker never decodes a batch into records of its own and back: it reads the header, walks the records where they
//! lie, and stamps offset and epoch, which the CRC does not cover.

mod builder;
mod header;
mod info;
mod rebuild;
mod records;
mod walk;

pub use self::{
    builder::BatchBuilder,
    header::{BatchHeader, HEADER_BYTES, LENGTH_END, MAGIC, TimestampType, crc_ok, seal, set_timestamp},
    info::{BatchInfo, SEQUENCE_NONE},
    rebuild::Rebuild,
    records::{Feed, Header, RecordShape, Records, SliceFeed, next_shape},
    walk::{BatchView, batches},
};
#[cfg(test)]
pub use self::{header::stamp, info::sequence_after, records::write_record};
use crate::base::ErrorCode;

/// What can be wrong with the bytes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchError {
    /// The bytes end before the batch does. `needed` counts from the batch's first byte.
    Truncated {
        /// Bytes that the header, or the batch by its own length, takes.
        needed: usize,
    },
    /// The length field cannot be that of a batch. Zero is what preallocated space reads as.
    BadLength(i32),
    /// Another format than v2. Kafka 4 stores nothing else.
    UnsupportedMagic(i8),
    /// Codec bits 5, 6 and 7 mean nothing.
    UnknownCompression(u8),
    /// The records do not parse or decompress; the text says why.
    BadRecord(&'static str),
    /// Decompressed, the records take more bytes than we are willing to look at.
    TooLarge {
        /// The bound that was reached.
        limit: usize,
    },
}

impl BatchError {
    /// Kafka's code for a batch that a client sent.
    #[must_use]
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Truncated { .. } | Self::UnsupportedMagic(_) | Self::BadRecord(_) => ErrorCode::InvalidRecord,
            Self::BadLength(_) => ErrorCode::CorruptMessage,
            // Producers answer this code by splitting the batch, which is what helps here.
            Self::TooLarge { .. } => ErrorCode::MessageTooLarge,
            Self::UnknownCompression(_) => ErrorCode::UnsupportedCompressionType,
        }
    }
}

#[cfg(test)]
mod tests;
