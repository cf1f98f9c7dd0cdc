//! Logs that were cut, in recovery: an entry of the journal counts if no later one of its log takes away again what it brings.
//!
//! So nothing is replayed only to be cut off. What is left goes on where the checkpoint's image ends, and the image ends no
//! later than the lowest of the cuts: from there on its segments may have other bytes by now, and the journal has all of them.

use crate::{
    base::Offset,
    log::{
        image::{LogImage, SegmentImage},
        journal::entry::{CutAt, Entry},
    },
};

/// The cuts of a log that lie ahead of where one is in its entries.
#[derive(Debug, Default)]
pub struct CutsAhead {
    /// For each of them, the lowest end of it and of all behind it; the next one last.
    lowest: Vec<Offset>,
}

impl CutsAhead {
    /// Before the first entry. `cuts` are in the order of the journal.
    pub fn of(cuts: &[CutAt]) -> Self {
        let mut lowest = Offset(i64::MAX);
        let ends = cuts.iter().rev().map(|at| {
            lowest = lowest.min(at.end);
            lowest
        });
        Self { lowest: ends.collect() }
    }

    /// Goes past an entry. Gives whether what it brings is still there at the end.
    pub fn pass(&mut self, entry: &Entry) -> bool {
        match entry {
            Entry::Append { head, .. } => self.keep(head.base_offset),
            // It was made for the append that comes behind it.
            Entry::Seal { next_base, .. } => self.keep(*next_base),
            Entry::Truncate { .. } => {
                self.lowest.pop();
                true
            }
            Entry::LogStart { .. } => true,
        }
    }

    fn keep(&self, offset: Offset) -> bool {
        self.lowest.last().is_none_or(|lowest| offset < *lowest)
    }
}

/// The cut at the lowest end, the first of them if there are several.
pub fn lowest(cuts: &[CutAt]) -> Option<CutAt> {
    cuts.iter().min_by_key(|at| at.end).copied()
}

/// Takes out of an image what lies behind the cut. Gives whether the last segment that is left was cut: its file may be shorter
/// than the image says by now, and what else the image knows of it has to be found out anew.
pub fn cut_image(image: &mut LogImage, at: &CutAt) -> bool {
    if at.end >= image.log_end {
        return false;
    }
    let kept = image.segments.partition_point(|segment| segment.base < at.end);
    let end = image.segments.get(kept).map_or(image.log_end, |next| next.base);
    image.segments.truncate(kept);
    image.log_end = at.end;
    match image.segments.last_mut().filter(|_| at.end < end) {
        Some(last) => {
            *last = SegmentImage {
                size: last.size.min(at.position),
                sealed: false,
                finished: false,
                tail_crc: None,
                ..last.clone()
            };
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        base::{LeaderEpoch, PartitionKey, TopicId},
        log::{journal::entry::AppendHead, segment::Segment, settings::LogConfig},
    };

    fn key() -> PartitionKey {
        PartitionKey { topic_id: TopicId(Uuid::from_u128(5)), partition: 0 }
    }

    fn cut(end: i64) -> CutAt {
        CutAt { segment_base: Offset(0), position: 0, end: Offset(end) }
    }

    /// Which of the entries count: `a5` is an append at offset 5, `s5` a seal before it, `c5` a cut there.
    fn counting(entries: &str) -> String {
        let offset = |entry: &str| entry[1..].parse().unwrap();
        let cuts: Vec<CutAt> = entries.split(' ').filter(|it| it.starts_with('c')).map(|it| cut(offset(it))).collect();
        let mut ahead = CutsAhead::of(&cuts);
        let counts = |entry: &&str| {
            let base_offset = Offset(offset(entry));
            let (key, segment_base, position, length) = (key(), Offset(0), 0, 0);
            let head = AppendHead { key, base_offset, leader_epoch: LeaderEpoch(0), segment_base, position, length };
            ahead.pass(&match &entry[..1] {
                "a" => Entry::Append { head, batch: &[] },
                "s" => Entry::Seal { key, segment_base, length, next_base: base_offset },
                _ => Entry::Truncate { key, at: cut(base_offset.0) },
            })
        };
        entries.split(' ').filter(counts).filter(|it| !it.starts_with('c')).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn an_entry_counts_unless_a_later_cut_takes_it_away() {
        assert_eq!(counting("a1 a2 s3 a3"), "a1 a2 s3 a3");
        assert_eq!(counting("a1 a2 s3 a3 c2"), "a1");
        assert_eq!(counting("a1 a2 c2 a2 a3"), "a1 a2 a3");
        assert_eq!(counting("a1 a2 s3 a3 c3 a3 a4"), "a1 a2 a3 a4", "the seal was for what is gone");
        assert_eq!(counting("a5 s6 a6 c6 a6 a7 c3 a3 c4 s4 a4"), "a3 s4 a4", "the lowest counts for all before it");
        assert_eq!(counting("a5 a6 c1 a1 a2 a3 c2 a2"), "a1 a2");
    }

    #[test]
    fn an_image_ends_at_the_cut() {
        let segment = |base: i64| SegmentImage {
            size: 900,
            sealed: base < 20,
            ..SegmentImage::of(&Segment::new(Offset(base), &LogConfig::default()))
        };
        let at = |end: i64| CutAt { segment_base: Offset(end / 10 * 10), position: 400, end: Offset(end) };
        let cases = [
            (40, (vec![0, 10, 20], 30, false), "nothing lies behind it"),
            (30, (vec![0, 10, 20], 30, false), "nothing lies behind it"),
            (25, (vec![0, 10, 20], 25, true), "in the last one"),
            (20, (vec![0, 10], 20, false), "between two"),
            (15, (vec![0, 10], 15, true), "in one before it"),
            (0, (vec![], 0, false), "everything goes"),
        ];
        for (end, expected, what) in cases {
            let mut image = LogImage::empty(key(), "t");
            image.log_end = Offset(30);
            image.segments = vec![segment(0), segment(10), segment(20)];
            let was_cut = cut_image(&mut image, &at(end));
            let bases: Vec<i64> = image.segments.iter().map(|segment| segment.base.0).collect();
            assert_eq!((bases, image.log_end.0, was_cut), expected, "cut at {end}: {what}");
            if let Some(last) = image.segments.last() {
                let (size, sealed) = if was_cut { (400, false) } else { (900, last.base < Offset(20)) };
                assert_eq!((last.size, last.sealed), (size, sealed), "cut at {end}: {what}");
            }
        }
    }
}
