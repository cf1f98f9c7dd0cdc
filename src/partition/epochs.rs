//! Where each leader's records begin (KIP-101).

use std::fmt::Write;

use super::{StateError, codec::Reader};
use crate::base::{LeaderEpoch, Offset};

/// Leader epochs and their start offsets, both strictly increasing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochCache {
    entries: Vec<(LeaderEpoch, Offset)>,
}

/// What Kafka answers for an epoch it does not know.
const UNKNOWN: (LeaderEpoch, Offset) = (LeaderEpoch(-1), Offset(-1));

impl EpochCache {
    /// Notes that records from `start` on are of `epoch`. Does nothing for an epoch already known or older, so that
    /// replay may repeat itself.
    pub fn assign(&mut self, epoch: LeaderEpoch, start: Offset) {
        if epoch.0 < 0 || self.latest().is_some_and(|latest| latest >= epoch) {
            return;
        }
        // Earlier leaders that left no record behind have no range of their own.
        while self.entries.last().is_some_and(|(_, last_start)| *last_start >= start) {
            self.entries.pop();
        }
        self.entries.push((epoch, start));
    }

    /// The newest epoch.
    #[must_use]
    pub fn latest(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|(epoch, _)| *epoch)
    }

    /// Every epoch with its start offset, oldest first.
    #[cfg(test)]
    #[must_use]
    pub fn entries(&self) -> &[(LeaderEpoch, Offset)] {
        &self.entries
    }

    /// The epoch of the record at `offset`.
    #[must_use]
    pub fn epoch_of(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|(_, start)| *start <= offset);
        Some(self.entries[after.checked_sub(1)?].0)
    }

    /// The largest epoch not above `epoch`, and where it ends. (-1, -1) for an epoch above all, or none.
    #[must_use]
    pub fn end_of(&self, epoch: LeaderEpoch, log_end_offset: Offset) -> (LeaderEpoch, Offset) {
        if epoch.0 < 0 {
            return UNKNOWN;
        }
        if self.latest() == Some(epoch) {
            return (epoch, log_end_offset);
        }
        let above = self.entries.partition_point(|(known, _)| *known <= epoch);
        let Some((_, end)) = self.entries.get(above) else { return UNKNOWN };
        // Below the oldest known epoch Kafka gives back the asked one.
        let floor = above.checked_sub(1).map_or(epoch, |index| self.entries[index].0);
        (floor, *end)
    }

    /// Forgets what lies wholly below `start`, the new log start offset.
    pub fn truncate_start(&mut self, start: Offset) {
        let after = self.entries.partition_point(|(_, epoch_start)| *epoch_start <= start);
        let Some(kept) = after.checked_sub(1) else { return };
        self.entries.drain(..kept);
        self.entries[0].1 = start;
    }

    /// Forgets what begins at or after `end`, the new log end offset.
    pub fn truncate_end(&mut self, end: Offset) {
        let kept = self.entries.partition_point(|(_, start)| *start < end);
        self.entries.truncate(kept);
    }

    /// Kafka's `leader-epoch-checkpoint` file.
    #[must_use]
    pub fn export(&self) -> String {
        let mut text = format!("0\n{}\n", self.entries.len());
        for (epoch, start) in &self.entries {
            writeln!(text, "{epoch} {start}").expect("writing into memory does not fail");
        }
        text
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.entries.len() as i32).to_be_bytes());
        for (epoch, start) in &self.entries {
            out.extend_from_slice(&epoch.0.to_be_bytes());
            out.extend_from_slice(&start.0.to_be_bytes());
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, StateError> {
        let count = reader.count(12)?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            entries.push((LeaderEpoch(reader.i32()?), Offset(reader.i64()?)));
        }
        let increasing = entries.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
        if increasing { Ok(Self { entries }) } else { Err(StateError::Damaged) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(entries: &[(i32, i64)]) -> EpochCache {
        let mut cache = EpochCache::default();
        for (epoch, start) in entries {
            cache.assign(LeaderEpoch(*epoch), Offset(*start));
        }
        cache
    }

    #[test]
    fn an_epoch_ends_where_the_next_begins() {
        let cache = cache(&[(2, 10), (4, 20), (7, 35)]);
        for (asked, expected) in [
            (-1, (-1, -1)),
            (0, (0, 10)),
            (2, (2, 20)),
            (3, (2, 20)),
            (4, (4, 35)),
            (6, (4, 35)),
            (7, (7, 50)),
            (8, (-1, -1)),
        ] {
            let (epoch, end) = cache.end_of(LeaderEpoch(asked), Offset(50));
            assert_eq!((epoch.0, end.0), expected, "asked for {asked}");
        }
        assert_eq!(EpochCache::default().end_of(LeaderEpoch(0), Offset(5)), UNKNOWN);
        for (offset, expected) in [(9, None), (10, Some(2)), (34, Some(4)), (35, Some(7)), (99, Some(7))] {
            assert_eq!(cache.epoch_of(Offset(offset)).map(|epoch| epoch.0), expected, "offset {offset}");
        }
    }

    #[test]
    fn epochs_never_go_back_and_empty_ones_vanish() {
        assert_eq!(cache(&[(3, 5), (2, 8), (3, 9)]).export(), "0\n1\n3 5\n");
        assert_eq!(cache(&[(3, 5), (4, 5), (5, 5), (6, 9)]).export(), "0\n2\n5 5\n6 9\n");
        assert_eq!(cache(&[(-1, 5)]).export(), "0\n0\n");
    }

    #[test]
    fn truncation_keeps_the_range_it_cuts() {
        for (start, expected) in [
            (5, "0\n3\n2 10\n4 20\n7 35\n"),
            (15, "0\n3\n2 15\n4 20\n7 35\n"),
            (20, "0\n2\n4 20\n7 35\n"),
            (99, "0\n1\n7 99\n"),
        ] {
            let mut cache = cache(&[(2, 10), (4, 20), (7, 35)]);
            cache.truncate_start(Offset(start));
            assert_eq!(cache.export(), expected, "start {start}");
        }
        let mut cache = cache(&[(2, 10), (4, 20), (7, 35)]);
        cache.truncate_end(Offset(20));
        assert_eq!(cache.export(), "0\n1\n2 10\n");
    }
}
