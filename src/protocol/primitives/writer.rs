//! Writing primitives into a growing vector.

use bytes::Bytes;
use uuid::Uuid;

use super::STRING_BYTES_MAX;

/// Writes fields one after the other. What it writes is ours, so a value that its form cannot hold is a bug and panics:
/// names that come from clients are checked at the door.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl From<Vec<u8>> for Writer {
    /// Goes on behind bytes that are already there.
    fn from(out: Vec<u8>) -> Self {
        Self { out }
    }
}

impl Writer {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self { out: Vec::new() }
    }

    /// What was written.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        self.out
    }

    /// What was written.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        Bytes::from(self.out)
    }

    /// Bytes as they are, without a length.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// One signed byte.
    pub fn i8(&mut self, value: i8) {
        self.raw(&value.to_be_bytes());
    }

    /// Two bytes, signed.
    pub fn i16(&mut self, value: i16) {
        self.raw(&value.to_be_bytes());
    }

    /// Two bytes, unsigned.
    pub fn u16(&mut self, value: u16) {
        self.raw(&value.to_be_bytes());
    }

    /// Four bytes, signed.
    pub fn i32(&mut self, value: i32) {
        self.raw(&value.to_be_bytes());
    }

    /// Eight bytes, signed.
    pub fn i64(&mut self, value: i64) {
        self.raw(&value.to_be_bytes());
    }

    /// A boolean: 0 or 1.
    pub fn bool(&mut self, value: bool) {
        self.i8(value.into());
    }

    /// Sixteen bytes.
    pub fn uuid(&mut self, value: Uuid) {
        self.raw(value.as_bytes());
    }

    /// An unsigned varint.
    pub fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    /// A string with a two-byte length.
    pub fn string(&mut self, value: &str) {
        self.nullable_string(Some(value));
    }

    /// A string with a two-byte length, -1 for null.
    pub fn nullable_string(&mut self, value: Option<&str>) {
        let Some(value) = value else { return self.i16(-1) };
        self.i16(i16::try_from(value.len()).expect("strings are checked at the door against STRING_BYTES_MAX"));
        self.raw(value.as_bytes());
    }

    /// A compact string.
    pub fn compact_string(&mut self, value: &str) {
        self.compact_nullable_string(Some(value));
    }

    /// A compact string, 0 for null.
    pub fn compact_nullable_string(&mut self, value: Option<&str>) {
        assert!(
            value.is_none_or(|value| value.len() <= STRING_BYTES_MAX),
            "strings are checked at the door against STRING_BYTES_MAX"
        );
        self.compact_nullable_bytes(value.map(str::as_bytes));
    }

    /// Bytes with a four-byte length.
    pub fn bytes(&mut self, value: &[u8]) {
        self.nullable_bytes(Some(value));
    }

    /// Bytes with a four-byte length, -1 for null.
    pub fn nullable_bytes(&mut self, value: Option<&[u8]>) {
        let Some(value) = value else { return self.i32(-1) };
        self.array_count(value.len());
        self.raw(value);
    }

    /// Compact bytes.
    #[cfg(test)]
    pub fn compact_bytes(&mut self, value: &[u8]) {
        self.compact_nullable_bytes(Some(value));
    }

    /// Compact bytes, 0 for null.
    pub fn compact_nullable_bytes(&mut self, value: Option<&[u8]>) {
        let Some(value) = value else { return self.uvarint(0) };
        self.compact_array_count(value.len());
        self.raw(value);
    }

    /// The count before an array's elements.
    pub fn array_count(&mut self, count: usize) {
        self.nullable_array_count(Some(count));
    }

    /// The count before an array's elements, -1 for null.
    pub fn nullable_array_count(&mut self, count: Option<usize>) {
        self.i32(count.map_or(-1, |count| i32::try_from(count).expect("frames are far below 2 GiB")));
    }

    /// The count before an array's elements, in the compact form.
    pub fn compact_array_count(&mut self, count: usize) {
        self.compact_nullable_array_count(Some(count));
    }

    /// The count before an array's elements, in the compact form, 0 for null.
    pub fn compact_nullable_array_count(&mut self, count: Option<usize>) {
        self.uvarint(count.map_or(0, |count| u32::try_from(count + 1).expect("frames are far below 2 GiB")));
    }

    /// A struct's tagged fields, each with its bytes, in ascending order of tag.
    pub fn tagged_fields(&mut self, fields: &[(u32, Vec<u8>)]) {
        assert!(fields.is_sorted_by(|left, right| left.0 < right.0), "tags ascend");
        self.uvarint(fields.len() as u32);
        for (tag, body) in fields {
            self.uvarint(*tag);
            self.uvarint(u32::try_from(body.len()).expect("frames are far below 2 GiB"));
            self.raw(body);
        }
    }

    /// The end of a flexible struct without tagged fields.
    pub fn no_tagged_fields(&mut self) {
        self.uvarint(0);
    }
}
