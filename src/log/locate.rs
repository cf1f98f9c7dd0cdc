//! The front of a record batch: as much of it as finding one's way takes.

use crate::base::Offset;

/// Base offset, length, and the last offset's delta at byte 23.
pub const HEAD_BYTES: usize = 27;

/// Base offset and length come before what the length counts.
const LENGTH_END: u32 = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub base_offset: Offset,
    pub last_offset: Offset,
    /// The whole batch.
    pub bytes: u32,
}

impl Head {
    /// `None` if there are too few bytes, or they cannot be a batch: preallocated space reads as zero.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEAD_BYTES] = bytes.first_chunk()?;
        let base_offset = Offset(i64::from_be_bytes(*bytes[0..8].first_chunk()?));
        let length = u32::from_be_bytes(*bytes[8..12].first_chunk()?);
        let delta = i32::from_be_bytes(*bytes[23..27].first_chunk()?);
        if length < HEAD_BYTES as u32 || length > i32::MAX as u32 - LENGTH_END || delta < 0 {
            return None;
        }
        Some(Self { base_offset, last_offset: base_offset.plus(i64::from(delta)), bytes: length + LENGTH_END })
    }
}
