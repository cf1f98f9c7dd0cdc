//! What of a partition has to survive a restart.

use super::{EpochCache, Producers, codec::Reader};
use crate::base::Offset;

/// Offsets, epochs and producers of one partition, as a checkpoint keeps them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionState {
    /// The first offset that still exists.
    pub log_start_offset: Offset,
    /// The offset that the next record gets.
    pub log_end_offset: Offset,
    /// Everything below it is committed.
    pub high_watermark: Offset,
    /// Where each leader's records begin.
    pub epochs: EpochCache,
    /// The last batches of each idempotent producer.
    pub producers: Producers,
}

/// Why bytes are no [`PartitionState`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// They are not what was written.
    #[error("not a partition's state")]
    Damaged,
    /// They are in this version of the format, which is newer than ours.
    #[error("a partition's state in version {0}, which is newer than this one")]
    Newer(u8),
}

/// What is written. Version 1 had no byte for it: it begins with the highest byte of an offset, which is zero. A new
/// field takes the next number; what an older one lacks is read as absent.
const VERSION: u8 = 2;

impl PartitionState {
    pub(super) fn check(&self) {
        assert!(self.log_start_offset >= Offset::ZERO, "offsets are never negative");
        assert!(self.log_start_offset <= self.high_watermark, "only committed records are deleted");
        assert!(self.high_watermark <= self.log_end_offset, "only what exists is committed");
    }

    /// The log begins at `start` from now on. Never moves back, so that replay may repeat itself.
    ///
    /// # Panics
    /// If `start` lies above the high watermark: only committed records are deleted.
    pub fn move_log_start(&mut self, start: Offset) {
        assert!(start <= self.high_watermark, "only committed records are deleted");
        if start > self.log_start_offset {
            self.log_start_offset = start;
            self.epochs.truncate_start(start);
        }
    }

    /// The log ends at `end` from now on: what came behind it is gone. A producer whose remembered batches are all gone is
    /// forgotten, although it may have had earlier ones.
    pub fn truncate(&mut self, end: Offset) {
        if end < self.log_end_offset {
            self.log_end_offset = end;
            self.high_watermark = self.high_watermark.min(end);
            self.epochs.truncate_end(end);
            self.producers.truncate(end);
        }
    }

    /// Appends the state to `out`: its version, three offsets, then epochs, then producers, all big-endian.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        for offset in [self.log_start_offset, self.log_end_offset, self.high_watermark] {
            out.extend_from_slice(&offset.0.to_be_bytes());
        }
        self.epochs.encode(out);
        self.producers.encode(out);
    }

    /// Reads what [`PartitionState::encode`] wrote, all of `bytes`; in version 1 as well.
    /// # Errors  If `bytes` are anything else, offsets out of order included.
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let mut reader = match bytes {
            [0, ..] => Reader(bytes),
            [VERSION, fields @ ..] => Reader(fields),
            [version, ..] if *version > VERSION => return Err(StateError::Newer(*version)),
            _ => return Err(StateError::Damaged),
        };
        let log_start_offset = Offset(reader.i64()?);
        let log_end_offset = Offset(reader.i64()?);
        let high_watermark = Offset(reader.i64()?);
        let epochs = EpochCache::decode(&mut reader)?;
        let producers = Producers::decode(&mut reader)?;
        let ordered = [Offset::ZERO, log_start_offset, high_watermark, log_end_offset].is_sorted();
        if !ordered || !reader.0.is_empty() {
            return Err(StateError::Damaged);
        }
        Ok(Self { log_start_offset, log_end_offset, high_watermark, epochs, producers })
    }
}
