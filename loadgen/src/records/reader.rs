//! Reads the batches of a fetch reply, record by record, without an allocation. Bytes come from the network: nothing panics.

use crate::records::{
    batch::HEADER_BYTES,
    compress::{self, Codec},
};

/// What a fetched batch can be wrong about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// Its CRC-32C is not that of its bytes.
    Checksum { base_offset: i64 },
    /// Its lengths or counts do not fit together, or it does not unpack.
    Malformed { base_offset: i64 },
    /// Not format 2, which every Kafka since 0.11 stores.
    Magic { base_offset: i64 },
}

/// One record, borrowed from the reply or from the unpacking buffer.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    pub offset: i64,
    pub value: &'a [u8],
}

/// What was read from a reply's records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub records: u64,
    pub batches: u64,
    /// The offset to fetch next; none if there was no whole batch.
    pub next_offset: Option<i64>,
}

/// Calls `visit` for every record at or after `from`, in order. A batch cut off at the end is left for the next fetch.
/// # Errors  the first bad batch; the records before it have been visited.
pub fn read_batches(
    mut bytes: &[u8],
    from: i64,
    check_crc: bool,
    scratch: &mut Vec<u8>,
    mut visit: impl FnMut(RecordView<'_>),
) -> Result<Summary, ReadError> {
    let mut summary = Summary::default();
    while let Some(header) = bytes.first_chunk::<HEADER_BYTES>() {
        let base_offset = be_i64(header, 0);
        let malformed = ReadError::Malformed { base_offset };
        let length = usize::try_from(be_i32(header, 8)).map_err(|_| malformed)?;
        if header[16] != 2 {
            return Err(ReadError::Magic { base_offset });
        }
        if length + 12 < HEADER_BYTES {
            return Err(malformed);
        }
        let Some(batch) = bytes.get(..length + 12) else {
            break;
        };
        bytes = &bytes[length + 12..];
        let crc = u32::from_be_bytes([header[17], header[18], header[19], header[20]]);
        if check_crc && crc != crc32c::crc32c(&batch[21..]) {
            return Err(ReadError::Checksum { base_offset });
        }
        summary.records += read_batch(batch, from, scratch, &mut visit).ok_or(malformed)?;
        summary.batches += 1;
        let last_delta = be_i32(header, 23);
        if last_delta < 0 {
            return Err(malformed);
        }
        summary.next_offset = Some(base_offset.checked_add(i64::from(last_delta) + 1).ok_or(malformed)?);
    }
    Ok(summary)
}

fn read_batch(batch: &[u8], from: i64, scratch: &mut Vec<u8>, visit: &mut impl FnMut(RecordView<'_>)) -> Option<u64> {
    let base_offset = be_i64(batch, 0);
    let attributes = i16::from_be_bytes([batch[21], batch[22]]);
    let count = be_i32(batch, 57);
    let codec = Codec::from_attributes(attributes)?;
    const CONTROL_BIT: i16 = 1 << 5;
    if attributes & CONTROL_BIT != 0 {
        return Some(0);
    }
    let packed = &batch[HEADER_BYTES..];
    let mut cursor = if codec == Codec::None {
        packed
    } else {
        compress::unpack(codec, packed, scratch).ok()?;
        scratch.as_slice()
    };
    let mut visited = 0;
    for _ in 0..count {
        let length = usize::try_from(varint(&mut cursor)?).ok()?;
        let mut body = cursor.get(..length)?;
        cursor = &cursor[length..];
        body = body.get(1..)?;
        varint(&mut body)?;
        let offset = base_offset.checked_add(varint(&mut body)?)?;
        field(&mut body)?;
        let value = field(&mut body)?;
        if offset >= from {
            visit(RecordView { offset, value });
            visited += 1;
        }
    }
    Some(visited)
}

/// A length-prefixed field; null reads as empty.
fn field<'a>(cursor: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = varint(cursor)?;
    if length < 0 {
        return Some(&[]);
    }
    let (field, rest) = cursor.split_at_checked(usize::try_from(length).ok()?)?;
    *cursor = rest;
    Some(field)
}

fn varint(cursor: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (&byte, rest) = cursor.split_first()?;
        *cursor = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

fn be_i64(bytes: &[u8], at: usize) -> i64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    i64::from_be_bytes(word)
}

fn be_i32(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::{
        records::batch::{BatchWriter, Identity, seal},
        rng::Rng,
    };

    fn batch(codec: Codec, base_offset: i64, values: &[&[u8]]) -> Vec<u8> {
        let mut writer = BatchWriter::start(BytesMut::new(), 5);
        for value in values {
            writer.push_parts(6, Some(b"k"), value, b"");
        }
        let mut bytes = writer.finish(codec, &mut Vec::new()).unwrap();
        bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
        seal(bytes, Identity::NONE).to_vec()
    }

    type Seen = Vec<(i64, Vec<u8>)>;

    fn read(bytes: &[u8], from: i64) -> (Result<Summary, ReadError>, Seen) {
        let mut seen = Vec::new();
        let summary = read_batches(bytes, from, true, &mut Vec::new(), |record| {
            seen.push((record.offset, record.value.to_vec()));
        });
        (summary, seen)
    }

    #[test]
    fn reads_what_the_writer_wrote_in_every_codec() {
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let mut bytes = batch(codec, 100, &[b"a", b"bb", b"ccc"]);
            let second = batch(codec, 103, &[b"d"]);
            bytes.extend_from_slice(&second[..second.len() - 1]);
            let (summary, seen) = read(&bytes, 101);
            assert_eq!(summary.unwrap().next_offset, Some(103), "{codec:?}: cut batch waits");
            assert_eq!(seen, [(101, b"bb".to_vec()), (102, b"ccc".to_vec())]);
        }
    }

    #[test]
    fn a_flipped_bit_is_found() {
        let mut bytes = batch(Codec::None, 7, &[b"abcdef"]);
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(read(&bytes, 0).0, Err(ReadError::Checksum { base_offset: 7 }));
    }

    #[test]
    fn forged_bytes_never_panic() {
        for seed in 0..2_000 {
            let mut rng = Rng::new(seed, 0);
            let mut bytes = batch(Codec::None, 7, &[b"abcdef", &[1; 90]]);
            for _ in 0..1 + rng.below(4) {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] = rng.next_u64() as u8;
            }
            let mut count = 0;
            let _ = read_batches(&bytes, i64::MIN, false, &mut Vec::new(), |_| count += 1);
            assert!(count <= 200, "seed {seed}");
        }
    }
}
