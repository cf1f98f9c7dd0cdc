//! The sparse indexes of one segment: offset to position, timestamp to offset.
//!
//! They live in memory while the segment is active and are written in Kafka's format when it is rolled or the broker
//! stops. An index never has more than [`ENTRIES_MAX`] entries: when it would, every second one is dropped and the
//! interval doubles. Kafka's files allow that, since an index may be as sparse as it likes.

use crate::base::{Offset, Timestamp};

/// Entries of an index in memory. At 1 GiB a lookup then reads 256 KiB at most.
pub const ENTRIES_MAX: usize = 4096;

/// Bytes of an entry of a `.index` file.
pub const OFFSET_ENTRY_BYTES: usize = 8;
/// Bytes of an entry of a `.timeindex` file.
pub const TIME_ENTRY_BYTES: usize = 12;

/// No record has this timestamp.
pub const NO_TIMESTAMP: Timestamp = -1;

/// (last offset of a batch, position of that batch).
pub type OffsetEntry = (u32, u32);
/// (largest timestamp so far, last offset of the batch that has it).
pub type TimeEntry = (Timestamp, u32);

/// Offsets are relative to the segment's base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentIndex {
    interval_bytes: u32,
    bytes_since_entry: u32,
    /// (last offset of a batch, position of that batch), ascending.
    offsets: Vec<(u32, u32)>,
    /// (largest timestamp so far, last offset of the batch that has it), both ascending.
    times: Vec<(Timestamp, u32)>,
}

impl SegmentIndex {
    pub fn new(interval_bytes: u32) -> Self {
        Self { interval_bytes, bytes_since_entry: 0, offsets: Vec::new(), times: Vec::new() }
    }

    /// Notes a batch. `largest` is the largest timestamp of the segment, this batch included, and the last offset of
    /// the batch that has it.
    pub fn note(&mut self, last_offset: u32, position: u32, bytes: u32, largest: (Timestamp, u32)) {
        if self.bytes_since_entry > self.interval_bytes {
            self.offsets.push((last_offset, position));
            self.note_time(largest);
            self.bytes_since_entry = 0;
            if self.offsets.len() >= ENTRIES_MAX {
                self.thin();
            }
        }
        self.bytes_since_entry = self.bytes_since_entry.saturating_add(bytes);
    }

    fn note_time(&mut self, (timestamp, offset): (Timestamp, u32)) {
        let last = self.times.last().map_or((NO_TIMESTAMP, 0), |last| *last);
        if timestamp > last.0 && offset >= last.1 {
            self.times.push((timestamp, offset));
        }
    }

    fn thin(&mut self) {
        every_second(&mut self.offsets);
        every_second(&mut self.times);
        self.interval_bytes = self.interval_bytes.saturating_mul(2);
    }

    /// Kafka writes a last time entry when it rolls a segment, so that the largest timestamp is never missing.
    pub fn finish(&mut self, largest: (Timestamp, u32)) {
        self.note_time(largest);
    }

    /// Where to start looking for `offset`: the position of a batch at or before it.
    pub fn position(&self, offset: u32) -> u32 {
        self.entry(offset).map_or(0, |entry| entry.1)
    }

    /// The entry of a batch that ends at or before `offset`. Without one, the segment's front is the place to start.
    pub fn entry(&self, offset: u32) -> Option<OffsetEntry> {
        let after = self.offsets.partition_point(|entry| entry.0 <= offset);
        after.checked_sub(1).map(|last| self.offsets[last])
    }

    /// From which offset on a record with a timestamp of at least `timestamp` may come.
    pub fn offset_for(&self, timestamp: Timestamp) -> u32 {
        let after = self.times.partition_point(|entry| entry.0 < timestamp);
        if after == 0 { 0 } else { self.times[after - 1].1 }
    }

    pub fn entries(&self) -> usize {
        self.offsets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty() && self.times.is_empty()
    }

    /// At most `max` entries of each kind, evenly spread: enough to find one's way after a crash.
    pub fn hints(&self, max: usize) -> Self {
        let mut hints = self.clone();
        while hints.offsets.len() > max {
            every_second(&mut hints.offsets);
            hints.interval_bytes = hints.interval_bytes.saturating_mul(2);
        }
        while hints.times.len() > max {
            every_second(&mut hints.times);
        }
        hints
    }

    /// The bytes of `.index`: (i32 offset, i32 position).
    pub fn offset_file(&self) -> Vec<u8> {
        self.offsets
            .iter()
            .flat_map(|(offset, position)| [offset.to_be_bytes(), position.to_be_bytes()])
            .flatten()
            .collect()
    }

    /// The bytes of `.timeindex`: (i64 timestamp, i32 offset).
    pub fn time_file(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.times.len() * TIME_ENTRY_BYTES);
        for (timestamp, offset) in &self.times {
            out.extend_from_slice(&timestamp.to_be_bytes());
            out.extend_from_slice(&offset.to_be_bytes());
        }
        out
    }

    /// The sum of what both files hold: neither has one of its own.
    pub fn sum(offsets: &[u8], times: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(offsets), times)
    }

    /// Reads both files of a sealed segment of `size` bytes. None if they cannot be right: they are exports, which
    /// anybody may have changed, and the segment can always be read instead.
    pub fn from_files(offsets: &[u8], times: &[u8], size: u32, interval_bytes: u32) -> Option<Self> {
        if !offsets.len().is_multiple_of(OFFSET_ENTRY_BYTES) || !times.len().is_multiple_of(TIME_ENTRY_BYTES) {
            return None;
        }
        let mut index = Self::new(interval_bytes);
        for entry in offsets.chunks_exact(OFFSET_ENTRY_BYTES) {
            let (offset, position) = (be_u32(&entry[..4]), be_u32(&entry[4..]));
            if position >= size || index.offsets.last().is_some_and(|last| last.0 >= offset || last.1 >= position) {
                return None;
            }
            index.offsets.push((offset, position));
        }
        for entry in times.chunks_exact(TIME_ENTRY_BYTES) {
            let timestamp = Timestamp::from_be_bytes(entry[..8].try_into().expect("eight bytes"));
            let offset = be_u32(&entry[8..]);
            if index.times.last().is_some_and(|last| last.0 >= timestamp || last.1 > offset) {
                return None;
            }
            index.times.push((timestamp, offset));
        }
        Some(index)
    }

    /// The parts, for a checkpoint.
    pub fn parts(&self) -> (&[OffsetEntry], &[TimeEntry]) {
        (&self.offsets, &self.times)
    }

    pub fn from_parts(interval_bytes: u32, offsets: Vec<(u32, u32)>, times: Vec<(Timestamp, u32)>) -> Self {
        Self { interval_bytes, bytes_since_entry: 0, offsets, times }
    }
}

fn every_second<T>(entries: &mut Vec<T>) {
    let mut keep = false;
    entries.retain(|_| {
        keep = !keep;
        keep
    });
}

fn be_u32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().expect("four bytes"))
}

/// The offset of a record relative to its segment. `None` if it does not fit Kafka's index format: roll first.
pub fn relative(base: Offset, offset: Offset) -> Option<u32> {
    u32::try_from(offset.since(base)).ok().filter(|relative| *relative <= i32::MAX as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(batches: u32) -> SegmentIndex {
        let mut index = SegmentIndex::new(4096);
        for batch in 0..batches {
            index.note(batch * 10 + 9, batch * 1000, 1000, (i64::from(batch) * 5, batch * 10 + 9));
        }
        index
    }

    #[test]
    fn entries_are_spaced_by_bytes_as_kafka_does() {
        let index = filled(12);
        // The sixth batch is the first with more than 4096 bytes before it.
        assert_eq!(index.parts().0, [(59, 5000), (109, 10000)]);
        assert_eq!(index.parts().1, [(25, 59), (50, 109)]);
        assert_eq!((index.position(58), index.position(59), index.position(500)), (0, 5000, 10000));
        assert_eq!((index.offset_for(25), index.offset_for(26), index.offset_for(1000)), (0, 59, 109));
    }

    #[test]
    fn files_read_back_and_damaged_ones_are_refused() {
        let mut index = filled(100);
        index.finish((7777, 999));
        let (offsets, times) = (index.offset_file(), index.time_file());
        assert_eq!(times.len() % TIME_ENTRY_BYTES, 0);
        let read = SegmentIndex::from_files(&offsets, &times, 100_000, 4096).unwrap();
        assert_eq!(read.parts(), index.parts());
        assert!(SegmentIndex::from_files(&offsets[1..], &times, 100_000, 4096).is_none());
        assert!(SegmentIndex::from_files(&offsets, &times, 5000, 4096).is_none(), "beyond the segment");
        assert!(SegmentIndex::from_files(&[0; 16], &times, 100_000, 4096).is_none(), "a zero tail");
    }

    #[test]
    fn a_large_index_is_thinned_and_still_finds_its_way() {
        let index = filled(40_000);
        assert!(index.entries() < ENTRIES_MAX);
        for batch in (0..40_000u32).step_by(777) {
            let position = index.position(batch * 10 + 9);
            assert!(position <= batch * 1000 && batch * 1000 - position < 64 * 1024, "batch {batch}: {position}");
        }
        assert!(index.hints(32).entries() <= 32);
    }
}
