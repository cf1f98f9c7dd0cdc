//! A segment: names, when to roll, how its file grows.

use crate::{
    base::{Offset, Timestamp},
    log::{
        index::{NO_TIMESTAMP, OFFSET_ENTRY_BYTES, SegmentIndex, relative},
        settings::LogConfig,
    },
};

/// The smallest and the largest step in which a segment's file grows.
const GROWTH_MIN: u64 = 64 << 10;
const GROWTH_MAX: u64 = 16 << 20;

/// Segment positions are i32 in Kafka's index.
const POSITION_MAX: u64 = i32::MAX as u64;

/// Which segment of a partition, and which one of those that have been in its place: one that was cut shorter or replaced is
/// another, and nothing that was learned of the one before holds for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId {
    pub base: Offset,
    /// Counted for each partition, from its start on; on disk there is only one.
    pub generation: u32,
}

/// One segment of one partition.
#[derive(Clone, Debug)]
pub struct Segment {
    pub base: Offset,
    pub generation: u32,
    /// Bytes of whole batches, those still in memory included.
    pub size: u32,
    /// Bytes that have been written to the file; all below this lie there.
    pub written: u32,
    /// Length of the file as far as known; 0 until the file is opened.
    pub allocated: u64,
    /// Length of the file for which room on the disk has been promised.
    pub promised: u64,
    /// The largest timestamp of the first batch, which `segment.ms` counts from.
    pub first_timestamp: Timestamp,
    /// The largest timestamp, and the last offset of the batch that has it.
    pub largest: (Timestamp, Offset),
    /// When its file was written to last, if somebody has looked: what counts where no record has a timestamp.
    pub modified: Option<Timestamp>,
    /// No longer the active one.
    pub sealed: bool,
    /// Sealed, and file and index files are complete on disk.
    pub finished: bool,
    /// The sum of the segment's last bytes, those in a block that is not whole, while they are not in memory.
    pub tail_crc: Option<u32>,
    /// The sum of both index files, once it is finished.
    pub index_crc: Option<u32>,
    /// In memory while the segment is active, and until it is finished.
    pub index: Option<SegmentIndex>,
}

impl Segment {
    pub fn id(&self) -> SegmentId {
        SegmentId { base: self.base, generation: self.generation }
    }

    pub fn new(base: Offset, config: &LogConfig) -> Self {
        Self {
            base,
            generation: 0,
            size: 0,
            written: 0,
            allocated: 0,
            promised: 0,
            first_timestamp: NO_TIMESTAMP,
            largest: (NO_TIMESTAMP, base),
            modified: None,
            sealed: false,
            finished: false,
            tail_crc: None,
            index_crc: None,
            index: Some(SegmentIndex::new(config.index_interval_bytes)),
        }
    }

    /// Whether a batch must go to a new segment: Kafka's rules (size, time, index, offsets that do not fit).
    pub fn must_roll(&self, bytes: u32, last_offset: Offset, max_timestamp: Timestamp, config: &LogConfig) -> bool {
        if self.size == 0 {
            return false;
        }
        let grown = u64::from(self.size) + u64::from(bytes);
        let index_bytes = self.index.as_ref().map_or(0, |index| (index.entries() + 1) * OFFSET_ENTRY_BYTES);
        let waited = max_timestamp.saturating_sub(self.first_timestamp);
        grown > u64::from(config.segment_bytes).min(POSITION_MAX)
            || relative(self.base, last_offset).is_none()
            || index_bytes > config.segment_index_bytes as usize
            || (self.first_timestamp != NO_TIMESTAMP && max_timestamp != NO_TIMESTAMP && waited > config.segment_ms)
    }

    /// Takes a batch in. Returns its position.
    pub fn append(&mut self, bytes: u32, last_offset: Offset, max_timestamp: Timestamp) -> u32 {
        let position = self.size;
        self.modified = None;
        if self.size == 0 {
            self.first_timestamp = max_timestamp;
        }
        if max_timestamp > self.largest.0 {
            self.largest = (max_timestamp, last_offset);
        }
        let largest = (self.largest.0, relative(self.base, self.largest.1).expect("must_roll keeps offsets relative"));
        let last = relative(self.base, last_offset).expect("must_roll keeps offsets relative");
        if let Some(index) = &mut self.index {
            index.note(last, position, bytes, largest);
        }
        self.size += bytes;
        self.tail_crc = None;
        position
    }

    /// How long the file must be made so that it holds `needed` bytes: as long as was promised, so that the promise is
    /// kept; in steps that double up to 16 MiB where nothing was.
    pub fn growth(&self, needed: u64) -> Option<u64> {
        let promised = self.promised >= needed;
        (needed > self.allocated).then(|| if promised { self.promised } else { grown(self.allocated, needed) })
    }

    /// The time from which `retention.ms` counts, as in Kafka: the largest timestamp, or the file's time if there is none.
    pub fn age_from(&self) -> Option<Timestamp> {
        if self.largest.0 >= 0 { Some(self.largest.0) } else { self.modified }
    }

    /// What was promised and is not allocated yet.
    pub fn outstanding(&self) -> u64 {
        self.promised.saturating_sub(self.allocated)
    }

    /// The file is there, and nobody has looked how long it is.
    pub fn has_unknown_length(&self) -> bool {
        self.written > 0 && self.allocated == 0
    }

    /// Gives up what is promised beyond `needed` bytes and the step that leads there.
    pub fn need_no_more_than(&mut self, needed: u64) {
        if self.promised > self.allocated {
            let enough = if needed > self.allocated { grown(self.allocated, needed) } else { self.allocated };
            self.promised = self.promised.min(enough);
        }
    }
}

pub fn grown(allocated: u64, needed: u64) -> u64 {
    let step = allocated.next_power_of_two().clamp(GROWTH_MIN, GROWTH_MAX);
    needed.next_multiple_of(step)
}

/// `<20-digit base offset>.<suffix>`
pub fn file_name(base: Offset, suffix: &str) -> String {
    format!("{:020}.{suffix}", base.0)
}

/// `<topic>-<partition>`
pub fn directory_name(topic: &str, partition: i32) -> String {
    format!("{topic}-{partition}")
}

/// Kafka's limit of a file name.
const NAME_MAX: usize = 255;

/// `<topic>-<partition>.<id>-delete`, the topic cut short if that is too long for a file name.
pub fn deleted_directory_name(topic: &str, partition: i32, unique: u128) -> String {
    directory_name_marked(topic, partition, unique, "delete")
}

/// `<topic>-<partition>.<id>-stray`: of a partition that the metadata does not know. Nobody but its owner removes it.
pub fn stray_directory_name(topic: &str, partition: i32, unique: u128) -> String {
    directory_name_marked(topic, partition, unique, "stray")
}

fn directory_name_marked(topic: &str, partition: i32, unique: u128, mark: &str) -> String {
    let suffix = format!("-{partition}.{unique:032x}-{mark}");
    let topic = &topic[..topic.len().min(NAME_MAX - suffix.len())];
    format!("{topic}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> LogConfig {
        LogConfig { segment_bytes: 1000, segment_ms: 500, ..LogConfig::default() }
    }

    #[test]
    fn a_segment_rolls_by_size_time_index_and_offset() {
        let config = config();
        let mut segment = Segment::new(Offset(100), &config);
        assert!(!segment.must_roll(5000, Offset(100), 0, &config), "an empty segment takes anything");
        assert_eq!(segment.append(600, Offset(109), 10_000), 0);
        assert!(!segment.must_roll(400, Offset(110), 10_500, &config));
        assert!(segment.must_roll(401, Offset(110), 10_000, &config), "size");
        assert!(segment.must_roll(1, Offset(110), 10_501, &config), "time");
        assert!(!segment.must_roll(1, Offset(110), NO_TIMESTAMP, &config), "no timestamp, no time");
        assert!(segment.must_roll(1, Offset(101 + i64::from(i32::MAX)), 10_000, &config), "relative offset");
        let small_index = LogConfig { segment_index_bytes: 7, ..config.clone() };
        assert!(segment.must_roll(1, Offset(110), 10_000, &small_index), "index");
        assert_eq!(segment.append(10, Offset(119), 9_000), 600);
        assert_eq!(segment.largest, (10_000, Offset(109)));
    }

    #[test]
    fn files_grow_in_doubling_steps() {
        assert_eq!(grown(0, 1), 64 << 10);
        assert_eq!(grown(64 << 10, (64 << 10) + 1), 128 << 10);
        assert_eq!(grown(1 << 20, (1 << 20) + 1), 2 << 20);
        assert_eq!(grown(100 << 20, (100 << 20) + 1), 112 << 20);
    }

    #[test]
    fn names_are_kafkas() {
        assert_eq!(file_name(Offset(170), "log"), "00000000000000000170.log");
        assert_eq!(directory_name("a-b", 3), "a-b-3");
        let long = "x".repeat(249);
        assert_eq!(deleted_directory_name(&long, 7, 1).len(), NAME_MAX);
        assert!(deleted_directory_name("t", 0, 255).ends_with("ff-delete"));
        assert_eq!(stray_directory_name(&long, 7, 1).len(), NAME_MAX);
    }
}
