//! Reading primitives out of borrowed bytes.

use uuid::Uuid;

use super::{DecodeError, STRING_BYTES_MAX};

type Result<T> = std::result::Result<T, DecodeError>;

/// A place in some bytes. Every call reads one field and moves on; after an error the place is undefined.
/// Allocates nothing: strings and bytes are borrowed from the input.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.rest.len()
    }

    /// Checks that every byte was read.
    pub const fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing(self.rest.len())) }
    }

    /// The next `length` bytes.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let truncated = DecodeError::Truncated { wanted: length, left: self.rest.len() };
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("take gives the length asked for"))
    }

    /// One signed byte.
    pub fn i8(&mut self) -> Result<i8> {
        Ok(i8::from_be_bytes(self.array()?))
    }

    /// Two bytes, signed.
    pub fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    /// Two bytes, unsigned.
    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// Four bytes, signed.
    pub fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    /// Eight bytes, signed.
    pub fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// A boolean: any byte but 0 is true, as in Kafka.
    pub fn bool(&mut self) -> Result<bool> {
        Ok(self.i8()? != 0)
    }

    /// Sixteen bytes.
    pub fn uuid(&mut self) -> Result<Uuid> {
        Ok(Uuid::from_bytes(self.array()?))
    }

    /// An unsigned varint of at most five bytes.
    pub fn uvarint(&mut self) -> Result<u32> {
        let mut value = 0_u64;
        for index in 0..5 {
            let byte = self.array::<1>()?[0];
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                return u32::try_from(value).map_err(|_| DecodeError::Varint);
            }
        }
        Err(DecodeError::Varint)
    }

    /// A string with a two-byte length.
    pub fn string(&mut self) -> Result<&'a str> {
        self.nullable_string()?.ok_or(DecodeError::Length(-1))
    }

    /// A string with a two-byte length, -1 for null.
    pub fn nullable_string(&mut self) -> Result<Option<&'a str>> {
        let length = self.i16()?;
        self.body(length.into())?.map(utf8).transpose()
    }

    /// A compact string.
    pub fn compact_string(&mut self) -> Result<&'a str> {
        self.compact_nullable_string()?.ok_or(DecodeError::Length(-1))
    }

    /// A compact string, 0 for null.
    pub fn compact_nullable_string(&mut self) -> Result<Option<&'a str>> {
        let length = self.compact_length()?;
        if length > STRING_BYTES_MAX as i64 {
            return Err(DecodeError::LongString(length as usize));
        }
        self.body(length)?.map(utf8).transpose()
    }

    /// Bytes with a four-byte length.
    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        self.nullable_bytes()?.ok_or(DecodeError::Length(-1))
    }

    /// Bytes with a four-byte length, -1 for null.
    pub fn nullable_bytes(&mut self) -> Result<Option<&'a [u8]>> {
        let length = self.i32()?;
        self.body(length.into())
    }

    /// Compact bytes.
    pub fn compact_bytes(&mut self) -> Result<&'a [u8]> {
        self.compact_nullable_bytes()?.ok_or(DecodeError::Length(-1))
    }

    /// Compact bytes, 0 for null.
    pub fn compact_nullable_bytes(&mut self) -> Result<Option<&'a [u8]>> {
        let length = self.compact_length()?;
        self.body(length)
    }

    fn compact_length(&mut self) -> Result<i64> {
        Ok(i64::from(self.uvarint()?) - 1)
    }

    fn body(&mut self, length: i64) -> Result<Option<&'a [u8]>> {
        match length {
            -1 => Ok(None),
            ..-1 => Err(DecodeError::Length(length)),
            0.. => self.take(usize::try_from(length).map_err(|_| DecodeError::Length(length))?).map(Some),
        }
    }

    /// The count of an array whose elements take at least `element_bytes_min` bytes each.
    /// A count that the bytes left could not hold is an error, so that nobody allocates for a forged one.
    pub fn array_count(&mut self, element_bytes_min: usize) -> Result<usize> {
        self.nullable_array_count(element_bytes_min)?.ok_or(DecodeError::Length(-1))
    }

    /// As [`Self::array_count`], with -1 for null.
    pub fn nullable_array_count(&mut self, element_bytes_min: usize) -> Result<Option<usize>> {
        let count = self.i32()?;
        self.guarded(count.into(), element_bytes_min)
    }

    /// As [`Self::array_count`], in the compact form.
    pub fn compact_array_count(&mut self, element_bytes_min: usize) -> Result<usize> {
        self.compact_nullable_array_count(element_bytes_min)?.ok_or(DecodeError::Length(-1))
    }

    /// As [`Self::array_count`], in the compact form, with 0 for null.
    pub fn compact_nullable_array_count(&mut self, element_bytes_min: usize) -> Result<Option<usize>> {
        let count = self.compact_length()?;
        self.guarded(count, element_bytes_min)
    }

    fn guarded(&self, count: i64, element_bytes_min: usize) -> Result<Option<usize>> {
        let count = match count {
            -1 => return Ok(None),
            ..-1 => return Err(DecodeError::Length(count)),
            0.. => usize::try_from(count).map_err(|_| DecodeError::Length(count))?,
        };
        // An element without bytes would make the guard useless; no array of ours has one.
        if count > self.rest.len() / element_bytes_min.max(1) {
            return Err(DecodeError::Count { count, left: self.rest.len() });
        }
        Ok(Some(count))
    }

    /// Reads the tagged fields at a struct's end (KIP-482). `field` is called for each with a reader over its bytes and
    /// must read all of them; it skips a tag that it does not know by taking what is left.
    pub fn tagged_fields(&mut self, mut field: impl FnMut(u32, &mut Reader<'a>) -> Result<()>) -> Result<()> {
        let count = self.uvarint()?;
        let mut previous = None;
        for _ in 0..count {
            let tag = self.uvarint()?;
            if previous.is_some_and(|previous| tag <= previous) {
                return Err(DecodeError::Tags(tag));
            }
            previous = Some(tag);
            let length = self.uvarint()? as usize;
            let mut body = Reader::new(self.take(length)?);
            field(tag, &mut body)?;
            if body.left() > 0 {
                return Err(DecodeError::Tags(tag));
            }
        }
        Ok(())
    }

    /// Reads past tagged fields of which none is known.
    pub fn skip_tagged_fields(&mut self) -> Result<()> {
        self.tagged_fields(|_, field| field.take(field.left()).map(drop))
    }
}

fn utf8(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::Utf8)
}
