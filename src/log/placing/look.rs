//! What others may know of where batches lie.

use std::{collections::VecDeque, rc::Rc};

use super::Placing;
use crate::{
    base::{Offset, PartitionKey},
    log::{
        chunk::{Chunks, Place},
        segment::{Segment, SegmentId},
        settings::{LogConfig, LogError},
    },
};

impl Placing {
    pub fn key(&self) -> PartitionKey {
        self.key
    }

    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    pub fn log_start(&self) -> Offset {
        self.log_start
    }

    /// A log start that the journal has heard of, but perhaps not durably.
    pub fn announced_start(&self) -> Offset {
        self.announced_start
    }

    pub fn end(&self) -> Offset {
        self.end
    }

    /// Everything below is durable.
    pub fn durable(&self) -> Offset {
        self.durable
    }

    /// Ascending; there is always an active one, the last.
    pub fn segments(&self) -> &VecDeque<Segment> {
        &self.segments
    }

    pub fn chunks(&self) -> &Chunks {
        &self.chunks
    }

    pub fn reserved_bytes(&self) -> usize {
        self.reserved_bytes
    }

    /// How often the log was cut.
    pub fn cuts(&self) -> u64 {
        self.cuts
    }

    /// Why the log has ended.
    pub fn dead(&self) -> Option<&LogError> {
        self.dead.as_ref()
    }

    pub fn has_directory(&self) -> bool {
        self.has_directory
    }

    /// The image that the last checkpoint holds.
    pub fn encoded(&self) -> Option<Rc<[u8]>> {
        self.encoded.clone()
    }

    /// Whether Kafka's side files do not tell the truth any more.
    pub fn exports_stale(&self) -> bool {
        self.exports_stale
    }

    pub fn active(&self) -> &Segment {
        self.segments.back().expect("there is always an active segment")
    }

    pub fn alive(&self) -> Result<(), LogError> {
        self.dead.clone().map_or(Ok(()), Err)
    }

    /// Whether the block in which the active segment ends is in memory.
    pub fn tail_is_loaded(&self) -> bool {
        let active = self.active();
        self.chunks.reaches(active.id(), active.size)
    }

    /// How often segments were cut or replaced: what was looked up before does not hold.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// What was promised to segments and is not allocated yet.
    #[cfg(test)]
    pub fn outstanding(&self) -> u64 {
        self.segments.iter().map(Segment::outstanding).sum()
    }

    pub fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(segment.size)).sum()
    }

    /// Index of the segment that holds `offset`, or the first one.
    pub fn segment_of(&self, offset: Offset) -> usize {
        self.segments.partition_point(|segment| segment.base <= offset).saturating_sub(1)
    }

    /// The segment, if it is still what it was.
    pub fn segment(&self, id: SegmentId) -> Option<&Segment> {
        self.segments.iter().find(|segment| segment.id() == id)
    }

    /// The batch that contains `offset`, or the next one if none does. `None` if it is not in memory.
    pub fn find(&self, offset: Offset) -> Option<Place> {
        let place = self.chunks.find(offset)?;
        if place.head.base_offset > offset {
            // What lies between them may not be in memory: it was replaced, or is the front of one that was cut.
            let between = self.segment_of(offset)..self.segment_of(place.head.base_offset);
            let in_memory = |segment: &Segment| self.chunks.reaches_back(segment.id(), offset);
            if !self.segments.range(between).all(in_memory) {
                return None;
            }
        }
        Some(place)
    }

    /// Whether an append has to wait: the log was cut, and the journal has not heard of it durably.
    pub fn is_cutting(&self) -> bool {
        self.cutting && self.dead.is_none()
    }

    /// Whether the directory may have what an earlier life has left.
    pub fn is_to_be_swept(&self) -> bool {
        self.has_directory && !self.swept && self.dead.is_none()
    }
}
