//! What an entry of raft's log holds: a batch of metadata records, as it will lie in the metadata's log but for its offset
//! and its epoch, which neither its sum covers nor anybody knows when it is proposed. Or nothing: every leader begins its term
//! with an empty entry, which takes no offset.

use crate::{
    base::{LeaderEpoch, Offset},
    io::Io,
    protocol::{
        batch::{BatchBuilder, BatchHeader, HEADER_BYTES, batches, crc_ok, seal},
        compression::Compression,
        metadata_records::MetadataRecord,
    },
    quorum::snapshot::decode_batch,
};

/// The largest batch that may be proposed, as in Kafka's controllers.
pub const BYTES_MAX: usize = 8 * 1024 * 1024;

/// The bytes of an entry with these records; none if they are too many for one.
pub fn of_records(io: &Io, records: &[MetadataRecord]) -> Option<Vec<u8>> {
    let now = io.clock.wall();
    let mut batch = BatchBuilder::new();
    for record in records {
        batch.push(now, None, Some(&record.encode()));
    }
    let bytes = batch.build();
    (bytes.len() <= BYTES_MAX && !records.is_empty()).then(|| bytes.to_vec())
}

/// How many offsets an entry takes. None for bytes that are no entry; its records are not looked at.
pub fn record_count(data: &[u8]) -> Option<u32> {
    if data.is_empty() {
        return Some(0);
    }
    let batch = batches(data).next()?.ok()?;
    let header = &batch.header;
    let is_plain = !header.is_control() && header.compression == Compression::None;
    let counts = header.record_count > 0 && header.last_offset_delta == header.record_count - 1;
    let is_whole = batch.bytes.len() == data.len() && data.len() <= BYTES_MAX;
    (is_whole && is_plain && counts && crc_ok(batch.bytes)).then_some(header.record_count.unsigned_abs())
}

/// The records of an entry. None for bytes that are no entry.
pub fn records(data: &[u8]) -> Option<Vec<MetadataRecord>> {
    let count = record_count(data)?;
    if count == 0 {
        return Some(Vec::new());
    }
    let batch = batches(data).next()?.ok()?;
    let records = decode_batch(&batch)?;
    (records.len() == count as usize).then_some(records)
}

/// The batch of an entry at its place in the metadata's log.
pub fn stamped(data: &[u8], base_offset: Offset, leader_epoch: LeaderEpoch) -> Vec<u8> {
    let header = BatchHeader::parse(data).expect("an entry is checked before it gets into the log");
    let mut batch = data.to_vec();
    batch[..HEADER_BYTES].copy_from_slice(&BatchHeader { base_offset, leader_epoch, ..header }.encode());
    batch
}

/// A batch without records that takes the offsets of many.
pub fn filler(from: Offset, upto: Offset, leader_epoch: LeaderEpoch) -> Vec<u8> {
    let mut batch = BatchBuilder::new().control(true).at(from, leader_epoch);
    batch.push(-1, Some(&[0; 4]), None);
    let mut bytes = batch.build().to_vec();
    let header = BatchHeader::parse(&bytes).expect("the builder writes whole headers");
    let last_offset_delta = i32::try_from(upto.since(from) - 1).expect("no longer than a batch can be");
    bytes[..HEADER_BYTES].copy_from_slice(&BatchHeader { last_offset_delta, ..header }.encode());
    seal(&mut bytes);
    bytes
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An entry with so many records.
    pub fn data(records: usize) -> Vec<u8> {
        let mut batch = BatchBuilder::new();
        for _ in 0..records {
            batch.push(7, None, Some(&MetadataRecord::NoOp.encode()));
        }
        batch.build().to_vec()
    }

    #[test]
    fn an_entry_is_one_whole_batch_of_records_or_nothing() {
        assert_eq!(records(&data(3)), Some(vec![MetadataRecord::NoOp; 3]));
        assert_eq!(records(&[]), Some(Vec::new()));
        let two = [data(1), data(1)].concat();
        let mut control = BatchBuilder::new().control(true);
        control.push(0, Some(&[0, 0, 0, 3]), Some(&[0, 0, 0]));
        let mut foreign = BatchBuilder::new();
        foreign.push(0, None, Some(b"no record of ours"));
        for data in [two, vec![0; 100], data(0), control.build().to_vec(), foreign.build().to_vec()] {
            assert_eq!(records(&data), None, "{data:?}");
        }
        let mut damaged = data(2);
        *damaged.last_mut().expect("a batch") ^= 1;
        assert_eq!(record_count(&damaged), None);
    }

    #[test]
    fn only_offset_and_epoch_are_stamped() {
        let stamped = stamped(&data(2), Offset(40), LeaderEpoch(6));
        let batch = batches(&stamped).next().expect("one").expect("whole");
        assert!(crc_ok(batch.bytes));
        assert_eq!((batch.header.base_offset, batch.header.leader_epoch), (Offset(40), LeaderEpoch(6)));
        assert_eq!(decode_batch(&batch), Some(vec![MetadataRecord::NoOp; 2]));
    }
}
