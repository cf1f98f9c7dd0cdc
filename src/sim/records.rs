//! The clients' records: each value is a number that exists once, padded to a length that follows from it.

use bytes::Bytes;

use crate::{
    base::{Offset, ProducerEpoch, ProducerId, Timestamp},
    io::Slice,
    protocol::{
        batch::{self, BatchBuilder, Records},
        compression::{self, Compression},
    },
};

/// Which producer wrote it, and its number among that producer's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value {
    pub writer: u32,
    pub number: u32,
}

/// About where the simulator's wall clock begins.
pub const FIRST_TIMESTAMP: Timestamp = 1_700_000_000_000;
/// All timestamps are below the first and so many more.
pub const TIMESTAMPS: u32 = 50_000;

fn length(value: Value) -> usize {
    let mixed = (u64::from(value.writer) << 32 | u64::from(value.number)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    8 + if mixed % 37 == 0 { (mixed >> 8) as usize % 12_000 } else { (mixed >> 8) as usize % 200 }
}

fn bytes_of(value: Value) -> Vec<u8> {
    let mut bytes = vec![value.number as u8; length(value)];
    bytes[..4].copy_from_slice(&value.writer.to_be_bytes());
    bytes[4..8].copy_from_slice(&value.number.to_be_bytes());
    bytes
}

fn value_of(bytes: &[u8]) -> Option<Value> {
    let number = |range: std::ops::Range<usize>| bytes.get(range)?.try_into().ok().map(u32::from_be_bytes);
    let value = Value { writer: number(0..4)?, number: number(4..8)? };
    (bytes == bytes_of(value)).then_some(value)
}

/// When a record is said to have happened: no order of its own, and the same whenever it is sent.
pub fn timestamp_of(value: Value) -> Timestamp {
    let mixed = (u64::from(value.number) << 32 | u64::from(value.writer)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    FIRST_TIMESTAMP + (mixed % u64::from(TIMESTAMPS)) as Timestamp
}

/// A batch as a client sends it, each record with the time that follows from it.
pub fn batch(values: impl Iterator<Item = Value>, producer: (ProducerId, i32), codec: Compression) -> Bytes {
    batch_at(values, producer, codec, timestamp_of)
}

/// A batch with other times.
pub fn batch_at(
    values: impl Iterator<Item = Value>,
    producer: (ProducerId, i32),
    codec: Compression,
    time_of: impl Fn(Value) -> Timestamp,
) -> Bytes {
    let mut batch = BatchBuilder::new().producer(producer.0, ProducerEpoch(0), producer.1);
    if codec != Compression::None {
        batch = batch.compressed(codec, codec.default_level());
    }
    for value in values {
        batch.push(time_of(value), None, Some(&bytes_of(value)));
    }
    batch.build()
}

/// Every record of what a fetch gave, with its offset.
/// # Panics
/// If the bytes are not whole batches of ours, one after the other.
pub fn records(slices: &[Slice], hint: &str) -> Vec<(Offset, Value)> {
    let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
    parse(&bytes, hint, |_, _| {})
}

/// The records of bytes in one piece, whose times must be those that follow from them.
pub fn records_of(bytes: &[u8], hint: &str) -> Vec<(Offset, Value)> {
    parse(bytes, hint, |value, timestamp| {
        assert_eq!(timestamp, timestamp_of(value), "{hint}: the timestamp of {value:?}");
    })
}

fn parse(bytes: &[u8], hint: &str, see: impl Fn(Value, Timestamp)) -> Vec<(Offset, Value)> {
    let mut records = Vec::new();
    let mut end = 0;
    for batch in batch::batches(bytes) {
        let batch = batch.unwrap_or_else(|error| panic!("{hint}: not a batch: {error:?}"));
        end += batch.bytes.len();
        assert!(batch::crc_ok(batch.bytes), "{hint}: a batch at {} is damaged", batch.header.base_offset);
        let info = batch::BatchInfo::of(&batch.header);
        let body = &batch.bytes[batch::HEADER_BYTES..];
        let plain = compression::decompress(info.compression, body, 8 << 20).expect("compressed by ourselves");
        for record in Records::new(&plain, batch.header.record_count) {
            let record = record.unwrap_or_else(|error| panic!("{hint}: not a record: {error:?}"));
            let value = record.value.and_then(value_of).unwrap_or_else(|| panic!("{hint}: not our value"));
            see(value, batch.header.base_timestamp + record.timestamp_delta);
            records.push((batch.header.base_offset.plus(i64::from(record.offset_delta)), value));
        }
    }
    assert_eq!(end, bytes.len(), "{hint}: whole batches");
    records
}
