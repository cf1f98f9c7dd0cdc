//! Kafka's primitive types for the formats that we read and write by hand: records of the internal topics, checkpoints.
//!
//! Numbers are big-endian. "Compact" forms (KIP-482) carry an unsigned varint of length + 1, with 0 for null.
//! Record forms carry a zig-zag varint, with -1 for null. Requests and responses use the `kafka-protocol` crate.

mod reader;
mod writer;

pub use self::{reader::Reader, writer::Writer};

/// The longest string Kafka takes, in bytes, in every form: the plain form has no more bits for it.
pub const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// Why bytes do not mean anything. None of these is ever a panic: the bytes came from a network or a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A field needs `wanted` bytes and only `left` are there.
    #[error("a field of {wanted} bytes where {left} are left")]
    Truncated {
        /// Bytes the field needs.
        wanted: usize,
        /// Bytes that were left.
        left: usize,
    },
    /// A length below zero where null is not allowed, or below -1 where it is; also a compact null.
    #[error("impossible length {0}")]
    Length(i64),
    /// A string longer than [`STRING_BYTES_MAX`].
    #[error("a string of {0} bytes")]
    LongString(usize),
    /// More array elements than the bytes that are left could hold.
    #[error("{count} array elements in {left} bytes")]
    Count {
        /// Elements announced.
        count: usize,
        /// Bytes that were left.
        left: usize,
    },
    /// A varint that does not fit its type.
    #[error("a varint that is too long")]
    Varint,
    /// A string that is not UTF-8.
    #[error("a string that is not UTF-8")]
    Utf8,
    /// Tags that do not ascend, or a tagged field that does not fill its declared size.
    #[error("tagged field {0} out of order or of the wrong size")]
    Tags(u32),
    /// Bytes behind the last field.
    #[error("{0} bytes behind the last field")]
    Trailing(usize),
    /// A version of a struct that is not known here.
    #[error("unknown version {0}")]
    Version(i16),
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut writer = Writer::new();
        writer.i8(-1);
        writer.i16(-2);
        writer.u16(65_535);
        writer.i32(i32::MIN);
        writer.i64(i64::MIN);
        writer.bool(true);
        writer.uuid(Uuid::from_u128(7));
        for value in [0, 127, 128, 16_383, 16_384, u32::MAX] {
            writer.uvarint(value);
        }
        writer.string("zug");
        writer.nullable_string(None);
        writer.compact_string("fähre");
        writer.compact_nullable_string(None);
        writer.compact_nullable_string(Some(""));
        writer.bytes(b"abc");
        writer.nullable_bytes(None);
        writer.compact_bytes(&[9; 200]);
        writer.compact_nullable_bytes(None);
        writer.array_count(2);
        writer.compact_array_count(2);
        writer.nullable_array_count(None);
        writer.compact_nullable_array_count(None);
        writer.tagged_fields(&[(0, vec![1, 2]), (300, vec![])]);
        writer.no_tagged_fields();
        let bytes = writer.into_vec();

        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.i8(), Ok(-1));
        assert_eq!(reader.i16(), Ok(-2));
        assert_eq!(reader.u16(), Ok(65_535));
        assert_eq!(reader.i32(), Ok(i32::MIN));
        assert_eq!(reader.i64(), Ok(i64::MIN));
        assert_eq!(reader.bool(), Ok(true));
        assert_eq!(reader.uuid(), Ok(Uuid::from_u128(7)));
        for value in [0, 127, 128, 16_383, 16_384, u32::MAX] {
            assert_eq!(reader.uvarint(), Ok(value));
        }
        assert_eq!(reader.string(), Ok("zug"));
        assert_eq!(reader.nullable_string(), Ok(None));
        assert_eq!(reader.compact_string(), Ok("fähre"));
        assert_eq!(reader.compact_nullable_string(), Ok(None));
        assert_eq!(reader.compact_nullable_string(), Ok(Some("")));
        assert_eq!(reader.bytes(), Ok(&b"abc"[..]));
        assert_eq!(reader.nullable_bytes(), Ok(None));
        assert_eq!(reader.compact_bytes(), Ok(&[9; 200][..]));
        assert_eq!(reader.compact_nullable_bytes(), Ok(None));
        assert_eq!(reader.array_count(1), Ok(2));
        assert_eq!(reader.compact_array_count(1), Ok(2));
        assert_eq!(reader.nullable_array_count(1), Ok(None));
        assert_eq!(reader.compact_nullable_array_count(1), Ok(None));
        let mut tags = Vec::new();
        reader
            .tagged_fields(|tag, field| {
                let left = field.left();
                tags.push((tag, field.take(left)?.to_vec()));
                Ok(())
            })
            .expect("tags as written");
        assert_eq!(tags, [(0, vec![1, 2]), (300, vec![])]);
        assert_eq!(reader.skip_tagged_fields(), Ok(()));
        assert_eq!(reader.end(), Ok(()));
    }

    #[test]
    fn forged_lengths_are_errors() {
        let forged = |bytes: &[u8], read: fn(&mut Reader<'_>) -> Result<(), DecodeError>| {
            read(&mut Reader::new(bytes)).expect_err("forged")
        };
        assert_eq!(
            forged(&[0x7f, 0xff, 0xff, 0xff], |r| r.array_count(1).map(drop)),
            DecodeError::Count { count: i32::MAX as usize, left: 0 }
        );
        assert_eq!(
            forged(&[0xff, 0xff, 0xff, 0xff, 0x0f], |r| r.compact_array_count(1).map(drop)),
            DecodeError::Count { count: u32::MAX as usize - 1, left: 0 }
        );
        assert_eq!(
            forged(&[0, 0, 0, 2, 1, 2, 3], |r| r.array_count(2).map(drop)),
            DecodeError::Count { count: 2, left: 3 }
        );
        assert_eq!(forged(&[0xff, 0xfe], |r| r.nullable_string().map(drop)), DecodeError::Length(-2));
        assert_eq!(forged(&[0xff, 0xff], |r| r.string().map(drop)), DecodeError::Length(-1));
        assert_eq!(forged(&[0], |r| r.compact_string().map(drop)), DecodeError::Length(-1));
        assert_eq!(forged(&[0, 3, 65], |r| r.string().map(drop)), DecodeError::Truncated { wanted: 3, left: 1 });
        assert_eq!(forged(&[0, 1, 0xff], |r| r.string().map(drop)), DecodeError::Utf8);
        assert_eq!(forged(&[0xff; 5], |r| r.uvarint().map(drop)), DecodeError::Varint);
        assert_eq!(forged(&[0xff, 0xff, 0xff, 0xff, 0x1f], |r| r.uvarint().map(drop)), DecodeError::Varint);
        assert_eq!(forged(&[0x81, 0x80, 0x02], |r| r.compact_string().map(drop)), DecodeError::LongString(32_768));
        // Tags must ascend, and a field must lie within what is left.
        assert_eq!(forged(&[2, 1, 0, 1, 0], |r| r.skip_tagged_fields()), DecodeError::Tags(1));
        assert_eq!(forged(&[1, 0, 9, 1], |r| r.skip_tagged_fields()), DecodeError::Truncated { wanted: 9, left: 1 });
        assert_eq!(forged(&[1, 0, 1, 1], |r| r.tagged_fields(|_, _| Ok(()))), DecodeError::Tags(0));
    }
}
