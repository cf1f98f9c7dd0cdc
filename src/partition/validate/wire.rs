//! What can be told from the outside of a batch.

use super::Refusal;
use crate::{
    base::ErrorCode,
    protocol::{
        batch::{BatchError, BatchHeader, BatchInfo, LENGTH_END, MAGIC},
        compression::Compression,
    },
};

/// A batch's length is never below this, in any format that Kafka ever had.
const ANY_LENGTH_MIN: i32 = 14;
/// End of the magic byte, which lies at the same place in every format.
const MAGIC_END: usize = 17;
/// The first version whose clients may use zstd (KIP-110).
const ZSTD_VERSION_MIN: i16 = 7;

/// The header of the one batch that `bytes` must hold. An incomplete batch behind it is overlooked.
pub(super) fn only_batch(bytes: &[u8], produce_version: i16) -> Result<BatchHeader, Refusal> {
    let total = whole_batch(bytes)?.ok_or_else(|| Refusal::of(ErrorCode::InvalidRecord))?;
    let header = BatchHeader::parse(&bytes[..total])?;
    if produce_version < ZSTD_VERSION_MIN && header.compression == Compression::Zstd {
        return Err(Refusal::of(ErrorCode::UnsupportedCompressionType));
    }
    match whole_batch(&bytes[total..])? {
        Some(_) => Err(Refusal::of(ErrorCode::InvalidRecord)),
        None => Ok(header),
    }
}

/// Size of the batch, of any format, at the start of `bytes`, if all of it is there.
fn whole_batch(bytes: &[u8]) -> Result<Option<usize>, Refusal> {
    let Some(length) = bytes.get(LENGTH_END - 4..).and_then(<[u8]>::first_chunk::<4>) else { return Ok(None) };
    let length = i32::from_be_bytes(*length);
    if length < ANY_LENGTH_MIN {
        return Err(BatchError::BadLength(length).into());
    }
    let Some(magic) = bytes.get(MAGIC_END - 1) else { return Ok(None) };
    if !(0..=MAGIC).contains(&(*magic as i8)) {
        return Err(Refusal::of(ErrorCode::CorruptMessage));
    }
    let total = length as usize + LENGTH_END;
    Ok((bytes.len() >= total).then_some(total))
}

/// What a client may not write.
pub(super) fn check_header(header: &BatchHeader) -> Result<(), Refusal> {
    let offsets = i64::from(header.last_offset_delta) + 1;
    let counted = offsets > 0 && offsets == i64::from(header.record_count);
    let sequenced = !header.has_producer() || header.base_sequence >= 0;
    if counted && sequenced && !header.is_control() { Ok(()) } else { Err(Refusal::of(ErrorCode::InvalidRecord)) }
}

/// What the finished batch says.
pub(super) fn info(bytes: &[u8]) -> Result<BatchInfo, Refusal> {
    Ok(BatchInfo::of(&BatchHeader::parse(bytes)?))
}
