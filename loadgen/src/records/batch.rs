//! Writes one record batch. Buffers are reused; the records' due times travel beside the bytes.

use bytes::{BufMut, Bytes, BytesMut};

use crate::records::{
    compress::{self, Codec},
    stamp::STAMP_BYTES,
};

pub const HEADER_BYTES: usize = 61;
const CRC_AT: usize = 17;
const SUMMED_FROM: usize = 21;
/// More than any record's own header, with the longest varints.
pub const RECORD_OVERHEAD_MAX: usize = 32;

/// Who sent a batch, for an idempotent producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
}

impl Identity {
    /// A producer without idempotence.
    pub const NONE: Self = Self { producer_id: -1, producer_epoch: -1, base_sequence: -1 };
}

/// A batch under construction: the header's room, then the records.
#[derive(Debug, Default)]
pub struct BatchWriter {
    bytes: BytesMut,
    count: u32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
}

impl BatchWriter {
    /// Starts a batch in a used or new buffer.
    pub fn start(mut buffer: BytesMut, first_timestamp_ms: i64) -> Self {
        buffer.clear();
        buffer.put_bytes(0, HEADER_BYTES);
        Self { bytes: buffer, count: 0, base_timestamp_ms: first_timestamp_ms, max_timestamp_ms: first_timestamp_ms }
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes so far, header included, before compression.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Appends a record whose value is `stamp` followed by `payload`.
    pub fn push(&mut self, timestamp_ms: i64, key: Option<&[u8]>, stamp: &[u8; STAMP_BYTES], payload: &[u8]) {
        self.push_parts(timestamp_ms, key, stamp, payload);
    }

    /// Appends a record whose value is `head` followed by `tail`.
    pub fn push_parts(&mut self, timestamp_ms: i64, key: Option<&[u8]>, head: &[u8], tail: &[u8]) {
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
        let timestamp_delta = zigzag(timestamp_ms - self.base_timestamp_ms);
        let offset_delta = zigzag(i64::from(self.count));
        let value_length = head.len() + tail.len();
        let value_varint = zigzag(value_length as i64);
        let (key_varint, key_length) = match key {
            Some(key) => (zigzag(key.len() as i64), key.len()),
            None => (zigzag(-1), 0),
        };
        let body = 1
            + varint_length(timestamp_delta)
            + varint_length(offset_delta)
            + varint_length(key_varint)
            + key_length
            + varint_length(value_varint)
            + value_length
            + 1;
        self.bytes.reserve(body + 10);
        put_varint(&mut self.bytes, zigzag(body as i64));
        self.bytes.put_u8(0);
        put_varint(&mut self.bytes, timestamp_delta);
        put_varint(&mut self.bytes, offset_delta);
        put_varint(&mut self.bytes, key_varint);
        if let Some(key) = key {
            self.bytes.put_slice(key);
        }
        put_varint(&mut self.bytes, value_varint);
        self.bytes.put_slice(head);
        self.bytes.put_slice(tail);
        self.bytes.put_u8(0);
        self.count += 1;
    }

    /// Compresses and fills in all of the header but identity and CRC, which `seal` sets when the batch is sent.
    /// # Errors  a codec that fails; none of ours does on memory.
    pub fn finish(mut self, codec: Codec, scratch: &mut Vec<u8>) -> std::io::Result<BytesMut> {
        if codec != Codec::None {
            scratch.clear();
            compress::pack(codec, &self.bytes[HEADER_BYTES..], scratch)?;
            self.bytes.truncate(HEADER_BYTES);
            self.bytes.put_slice(scratch);
        }
        let length = (self.bytes.len() - 12) as i32;
        let header = &mut self.bytes[..HEADER_BYTES];
        header[8..12].copy_from_slice(&length.to_be_bytes());
        header[12..16].copy_from_slice(&(-1i32).to_be_bytes());
        header[16] = 2;
        header[21..23].copy_from_slice(&(codec as i16).to_be_bytes());
        header[23..27].copy_from_slice(&(self.count as i32 - 1).to_be_bytes());
        header[27..35].copy_from_slice(&self.base_timestamp_ms.to_be_bytes());
        header[35..43].copy_from_slice(&self.max_timestamp_ms.to_be_bytes());
        header[57..61].copy_from_slice(&self.count.to_be_bytes());
        Ok(self.bytes)
    }
}

/// Sets producer id, epoch and sequence of a finished batch and sums it.
pub fn seal(mut batch: BytesMut, identity: Identity) -> Bytes {
    batch[43..51].copy_from_slice(&identity.producer_id.to_be_bytes());
    batch[51..53].copy_from_slice(&identity.producer_epoch.to_be_bytes());
    batch[53..57].copy_from_slice(&identity.base_sequence.to_be_bytes());
    let crc = crc32c::crc32c(&batch[SUMMED_FROM..]);
    batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
    batch.freeze()
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn varint_length(value: u64) -> usize {
    // Seven bits a byte; zero takes one byte.
    (70 - (value | 1).leading_zeros() as usize) / 7
}

fn put_varint(buffer: &mut BytesMut, mut value: u64) {
    let mut bytes = [0u8; 10];
    let mut length = 0;
    while value >= 0x80 {
        bytes[length] = value as u8 | 0x80;
        value >>= 7;
        length += 1;
    }
    bytes[length] = value as u8;
    buffer.put_slice(&bytes[..=length]);
}

#[cfg(test)]
mod tests {
    use kafka_protocol::records::RecordBatchDecoder;

    use super::*;

    #[test]
    fn varint_lengths() {
        for (value, length) in [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (u64::MAX, 10)] {
            assert_eq!(varint_length(value), length, "{value}");
            let mut buffer = BytesMut::new();
            put_varint(&mut buffer, value);
            assert_eq!(buffer.len(), length, "{value}");
        }
    }

    /// The codec crate's own decoder, which checks the CRC, judges what we write.
    #[test]
    fn another_decoder_reads_our_batches() {
        let mut writer = BatchWriter::start(BytesMut::new(), 1_000);
        writer.push_parts(1_000, None, b"head", b"tail");
        writer.push_parts(1_300, Some(b"key"), b"", &[7; 300]);
        writer.push_parts(990, Some(b""), b"x", b"");
        let batch = writer.finish(Codec::None, &mut Vec::new()).unwrap();
        let identity = Identity { producer_id: 42, producer_epoch: 3, base_sequence: 17 };
        let mut bytes = seal(batch, identity);
        let set = RecordBatchDecoder::decode(&mut bytes).unwrap();
        let records = &set.records;
        assert_eq!(records.len(), 3);
        assert_eq!(records[0].value.as_deref(), Some(&b"headtail"[..]));
        assert_eq!(records[0].key, None);
        assert_eq!(records[1].key.as_deref(), Some(&b"key"[..]));
        assert_eq!(records[1].timestamp, 1_300);
        assert_eq!(records[2].timestamp, 990);
        assert_eq!(records[2].key.as_deref(), Some(&b""[..]));
        assert_eq!((records[1].producer_id, records[1].producer_epoch), (42, 3));
        assert_eq!(records[1].sequence, 18);
    }
}
