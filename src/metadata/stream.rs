//! The order in which committed batches of metadata are taken.

use std::fmt;

use super::image::Inconsistent;
use crate::{
    base::{LeaderEpoch, Offset},
    protocol::metadata_records::MetadataRecord,
};

/// A batch of metadata that is committed: it has happened, whoever proposed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedBatch {
    /// The offset of its first record in the metadata log.
    pub base_offset: Offset,
    /// The offset of its last record.
    pub last_offset: Offset,
    /// The epoch of the leader that proposed it.
    pub epoch: LeaderEpoch,
    /// One for each offset; none if the batch is the quorum's own business.
    pub records: Vec<MetadataRecord>,
}

/// How far an image goes in the metadata log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The offset of the last record in the image; -1: there is none.
    pub last_offset: Offset,
    /// The highest leader epoch that was heard of; -1: none was.
    pub epoch: LeaderEpoch,
}

/// What to do with a committed batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is the next one, and is to be applied.
    Next,
    /// The image has it.
    Known,
}

/// Why committed metadata cannot be applied. Whoever went on would serve a cluster that never was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamError {
    /// What lies between is missing.
    Gap {
        /// The offset that comes next.
        expected: Offset,
        /// Where the batch begins.
        found: Offset,
    },
    /// The image has a part of the batch, and a batch is applied as a whole.
    Overlap {
        /// The offset that comes next.
        expected: Offset,
        /// Where the batch begins.
        base_offset: Offset,
        /// Where it ends.
        last_offset: Offset,
    },
    /// A new batch of a leader that another one has followed.
    OldEpoch {
        /// The epoch that is reached.
        reached: LeaderEpoch,
        /// The batch's epoch.
        found: LeaderEpoch,
    },
    /// A batch whose offsets are not those of its records.
    Malformed {
        /// Where the batch begins.
        base_offset: Offset,
    },
    /// Records under our own leadership that we have not proposed.
    NotProposed {
        /// Where the batch begins.
        base_offset: Offset,
    },
    /// A record that does not fit what came before.
    Inconsistent(Inconsistent),
}

impl fmt::Display for StreamError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gap { expected, found } => {
                write!(out, "committed metadata goes on at offset {found}, and {expected} would be next")
            }
            Self::Overlap { expected, base_offset, last_offset } => write!(
                out,
                "committed metadata from offset {base_offset} to {last_offset} is known in part: {expected} would be next"
            ),
            Self::OldEpoch { reached, found } => {
                write!(out, "metadata of epoch {found} is committed behind that of epoch {reached}")
            }
            Self::Malformed { base_offset } => {
                write!(out, "the offsets of the metadata committed at {base_offset} are not those of its records")
            }
            Self::NotProposed { base_offset } => {
                write!(out, "the metadata committed at {base_offset} is of our epoch, and we have not proposed it")
            }
            Self::Inconsistent(error) => write!(out, "committed metadata contradicts what was before: {error}"),
        }
    }
}

impl std::error::Error for StreamError {}

impl From<Inconsistent> for StreamError {
    fn from(error: Inconsistent) -> Self {
        Self::Inconsistent(error)
    }
}

impl Position {
    /// Where a batch belongs.
    /// # Errors  A batch that must not be applied, now or later.
    pub fn place(&self, batch: &CommittedBatch) -> Result<Place, StreamError> {
        let CommittedBatch { base_offset, last_offset, epoch, records } = batch;
        let base_offset = *base_offset;
        let count = last_offset.since(base_offset).saturating_add(1);
        let meant = i64::try_from(records.len()).is_ok_and(|records| records == 0 || records == count);
        if base_offset < Offset::ZERO || count < 1 || !meant {
            return Err(StreamError::Malformed { base_offset });
        }
        if *last_offset <= self.last_offset {
            return Ok(Place::Known);
        }
        let expected = self.last_offset.plus(1);
        if base_offset > expected {
            return Err(StreamError::Gap { expected, found: base_offset });
        }
        if base_offset < expected {
            return Err(StreamError::Overlap { expected, base_offset, last_offset: *last_offset });
        }
        if *epoch < self.epoch {
            return Err(StreamError::OldEpoch { reached: self.epoch, found: *epoch });
        }
        Ok(Place::Next)
    }

    /// Goes on to the end of a batch that was next.
    pub fn pass(&mut self, batch: &CommittedBatch) {
        self.last_offset = batch.last_offset;
        self.epoch = batch.epoch;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch from `base` to `last` in `epoch`, with so many records.
    fn batch((base, last, epoch): (i64, i64, i32), records: usize) -> CommittedBatch {
        let (base_offset, last_offset, epoch) = (Offset(base), Offset(last), LeaderEpoch(epoch));
        CommittedBatch { base_offset, last_offset, epoch, records: vec![MetadataRecord::NoOp; records] }
    }

    /// Takes batches one after the other, each with all its records, until one is refused.
    fn check(batches: &[(i64, i64, i32)], expected: &str) {
        let mut position = Position { last_offset: Offset(-1), epoch: LeaderEpoch(-1) };
        let mut told = Vec::new();
        for ends in batches {
            let batch = batch(*ends, usize::try_from(ends.1 - ends.0 + 1).unwrap_or(0));
            match position.place(&batch) {
                Ok(Place::Next) => position.pass(&batch),
                Ok(Place::Known) => told.push("known".to_owned()),
                Err(error) => {
                    told.push(error.to_string());
                    break;
                }
            }
        }
        told.push(format!("{} in {}", position.last_offset, position.epoch));
        assert_eq!(told.join("; "), expected, "{batches:?}");
    }

    #[test]
    fn batches_follow_one_another_also_from_one_leader_to_the_next() {
        check(&[(0, 4, 1), (5, 5, 1), (6, 9, 3)], "9 in 3");
    }

    #[test]
    fn what_is_known_is_known_whoever_repeats_it() {
        check(&[(0, 4, 1), (5, 5, 2), (0, 4, 1), (5, 5, 2), (2, 3, 0), (6, 6, 2)], "known; known; known; 6 in 2");
    }

    #[test]
    fn what_is_out_of_order_is_refused() {
        check(&[(0, 4, 1), (6, 6, 1)], "committed metadata goes on at offset 6, and 5 would be next; 4 in 1");
        check(
            &[(0, 4, 1), (3, 6, 1)],
            "committed metadata from offset 3 to 6 is known in part: 5 would be next; 4 in 1",
        );
        check(&[(0, 4, 2), (5, 5, 1)], "metadata of epoch 1 is committed behind that of epoch 2; 4 in 2");
        check(&[(1, 1, 0)], "committed metadata goes on at offset 1, and 0 would be next; -1 in -1");
        let max = i64::MAX;
        check(&[(max, max, 1)], &format!("committed metadata goes on at offset {max}, and 0 would be next; -1 in -1"));
    }

    #[test]
    fn offsets_are_those_of_the_records() {
        let position = Position { last_offset: Offset(4), epoch: LeaderEpoch(0) };
        let place = |ends, records| position.place(&batch(ends, records));
        assert_eq!(place((5, 7, 0), 3), Ok(Place::Next));
        // The quorum's own batches take offsets as well.
        assert_eq!(place((5, 7, 0), 0), Ok(Place::Next));
        for (base, last, records) in [(5, 7, 2), (5, 7, 4), (5, 4, 0), (-3, -1, 3), (i64::MIN, i64::MAX, 1)] {
            let malformed = StreamError::Malformed { base_offset: Offset(base) };
            assert_eq!(place((base, last, 0), records), Err(malformed), "{base} to {last}");
        }
    }
}
