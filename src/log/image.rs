//! Everything about one partition's log that must survive: what checkpoints hold and what a core starts from.

use crate::{
    base::{Offset, PartitionKey, Timestamp},
    log::{
        index::SegmentIndex,
        rescue::RescueMark,
        segment::Segment,
        settings::LogConfig,
        wire::{Damaged, Put, Reader, Unreadable},
    },
    partition::PartitionState,
};

/// Index entries of an active segment that a checkpoint keeps.
pub const HINTS_MAX: usize = 32;

/// What is written. Version 1 had no byte for it. A new field takes the next number; what an older one lacks is read as
/// absent.
const VERSION: u8 = 2;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogImage {
    pub key: PartitionKey,
    pub name: String,
    pub log_start: Offset,
    pub log_end: Offset,
    /// Whether the partition's directory has been made.
    pub has_directory: bool,
    /// Segments that were cut off may lie in it under their names still.
    pub has_cut_off: bool,
    /// Ascending; the last one is active.
    pub segments: Vec<SegmentImage>,
    /// `PartitionState`, encoded: epochs, producers, high watermark.
    pub state: Vec<u8>,
    /// The partition went offline: what came after this image lies in its rescue file.
    pub rescue: Option<RescueMark>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentImage {
    pub base: Offset,
    pub size: u32,
    pub first_timestamp: Timestamp,
    pub largest: (Timestamp, Offset),
    pub sealed: bool,
    pub finished: bool,
    pub offsets: Vec<(u32, u32)>,
    pub times: Vec<(Timestamp, u32)>,
    /// The sum of what the last block of an active segment has, if it is not whole: that block is read and written again.
    pub tail_crc: Option<u32>,
    /// The sum of both index files of a finished segment; none if a tree without it has finished it.
    pub index_crc: Option<u32>,
}

impl SegmentImage {
    pub fn of(segment: &Segment) -> Self {
        let hints = segment.index.as_ref().map(|index| index.hints(HINTS_MAX));
        let (offsets, times) = hints
            .as_ref()
            .map_or((Vec::new(), Vec::new()), |hints| (hints.parts().0.to_vec(), hints.parts().1.to_vec()));
        Self {
            base: segment.base,
            size: segment.size,
            first_timestamp: segment.first_timestamp,
            largest: segment.largest,
            sealed: segment.sealed,
            finished: segment.finished,
            offsets,
            times,
            tail_crc: segment.tail_crc,
            index_crc: segment.index_crc,
        }
    }

    /// The segment that a core starts with: all of it lies in its file.
    pub fn into_segment(self, config: &LogConfig) -> Segment {
        let index = SegmentIndex::from_parts(config.index_interval_bytes, self.offsets, self.times);
        Segment {
            base: self.base,
            generation: 0,
            size: self.size,
            written: self.size,
            allocated: 0,
            promised: 0,
            first_timestamp: self.first_timestamp,
            largest: self.largest,
            modified: None,
            sealed: self.sealed,
            finished: self.finished,
            tail_crc: self.tail_crc,
            index_crc: self.index_crc,
            index: (!self.finished).then_some(index),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_i64(self.base.0);
        out.put_u32(self.size);
        out.put_i64(self.first_timestamp);
        out.put_i64(self.largest.0);
        out.put_i64(self.largest.1.0);
        let (tail_crc, index_crc) = (u8::from(self.tail_crc.is_some()), u8::from(self.index_crc.is_some()));
        out.put_u8(u8::from(self.sealed) | u8::from(self.finished) << 1 | tail_crc << 2 | index_crc << 3);
        out.put_u32(self.offsets.len() as u32);
        for (offset, position) in &self.offsets {
            out.put_u32(*offset);
            out.put_u32(*position);
        }
        out.put_u32(self.times.len() as u32);
        for (timestamp, offset) in &self.times {
            out.put_i64(*timestamp);
            out.put_u32(*offset);
        }
        for crc in [self.tail_crc, self.index_crc].into_iter().flatten() {
            out.put_u32(crc);
        }
    }

    fn decode(input: &mut Reader) -> Result<Self, Damaged> {
        let (base, size, first_timestamp) = (input.offset()?, input.u32()?, input.i64()?);
        let largest = (input.i64()?, input.offset()?);
        let flags = input.u8()?;
        let offsets = (0..input.count(8)?).map(|_| Ok((input.u32()?, input.u32()?))).collect::<Result<_, Damaged>>()?;
        let times = (0..input.count(12)?).map(|_| Ok((input.i64()?, input.u32()?))).collect::<Result<_, Damaged>>()?;
        let (sealed, finished) = (flags & 1 != 0, flags & 2 != 0);
        let tail_crc = if flags & 4 != 0 { Some(input.u32()?) } else { None };
        let index_crc = if flags & 8 != 0 { Some(input.u32()?) } else { None };
        Ok(Self { base, size, first_timestamp, largest, sealed, finished, offsets, times, tail_crc, index_crc })
    }
}

impl LogImage {
    /// Of a partition that has never had a record.
    pub fn empty(key: PartitionKey, name: &str) -> Self {
        let mut state = Vec::new();
        PartitionState::default().encode(&mut state);
        Self {
            key,
            name: name.to_owned(),
            log_start: Offset::ZERO,
            log_end: Offset::ZERO,
            has_directory: false,
            has_cut_off: false,
            segments: Vec::new(),
            state,
            rescue: None,
        }
    }

    /// Whether a checkpoint has to say anything about the partition.
    pub fn is_kept(&self) -> bool {
        self.log_end > Offset::ZERO || self.rescue.is_some() || self.has_cut_off
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(VERSION);
        out.put_key(self.key);
        out.put_bytes(self.name.as_bytes());
        out.put_i64(self.log_start.0);
        out.put_i64(self.log_end.0);
        let (rescue, has_cut_off) = (u8::from(self.rescue.is_some()), u8::from(self.has_cut_off));
        out.put_u8(u8::from(self.has_directory) | rescue << 1 | has_cut_off << 2);
        out.put_u32(self.segments.len() as u32);
        for segment in &self.segments {
            segment.encode(out);
        }
        out.put_bytes(&self.state);
        if let Some(rescue) = self.rescue {
            out.put_u64(rescue.bytes);
            out.put_u32(rescue.crc);
        }
    }

    pub fn decode(input: &mut Reader) -> Result<Self, Unreadable> {
        match input.u8()? {
            VERSION => Ok(Self::fields(input)?),
            version if version > VERSION => Err(Unreadable::Newer(version)),
            _ => Err(Unreadable::Damaged),
        }
    }

    /// An image of version 1.
    pub fn decode_unversioned(input: &mut Reader) -> Result<Self, Unreadable> {
        Ok(Self::fields(input)?)
    }

    fn fields(input: &mut Reader) -> Result<Self, Damaged> {
        let key = input.key()?;
        let name = input.text()?.to_owned();
        let (log_start, log_end) = (input.offset()?, input.offset()?);
        let flags = input.u8()?;
        let (has_directory, has_cut_off) = (flags & 1 != 0, flags & 4 != 0);
        let segments =
            (0..input.count(45)?).map(|_| SegmentImage::decode(input)).collect::<Result<Vec<_>, Damaged>>()?;
        let state = input.bytes()?.to_vec();
        let rescue = if flags & 2 != 0 { Some(RescueMark { bytes: input.u64()?, crc: input.u32()? }) } else { None };
        Ok(Self { key, name, log_start, log_end, has_directory, has_cut_off, segments, state, rescue })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::base::TopicId;

    #[test]
    fn an_image_reads_back_and_a_cut_one_is_refused() {
        let config = LogConfig::default();
        let mut segment = Segment::new(Offset(100), &config);
        segment.tail_crc = Some(5);
        segment.index_crc = Some(6);
        for batch in 0..1000 {
            segment.append(1000, Offset(100 + batch), 5000 + batch);
        }
        let image = LogImage {
            key: PartitionKey { topic_id: TopicId(Uuid::from_u128(3)), partition: 4 },
            name: "events".into(),
            log_start: Offset(120),
            log_end: Offset(1100),
            has_directory: true,
            has_cut_off: true,
            segments: vec![SegmentImage::of(&segment)],
            state: b"state".to_vec(),
            rescue: Some(RescueMark { bytes: 8192, crc: 77 }),
        };
        assert!(image.segments[0].offsets.len() <= HINTS_MAX);
        let mut bytes = Vec::new();
        image.encode(&mut bytes);
        assert_eq!(LogImage::decode(&mut Reader(&bytes)).as_ref(), Ok(&image));
        for cut in 0..bytes.len() {
            assert!(LogImage::decode(&mut Reader(&bytes[..cut])).is_err(), "cut at {cut}");
        }
        assert_eq!(LogImage::decode_unversioned(&mut Reader(&bytes[1..])).as_ref(), Ok(&image));
        bytes[0] = VERSION + 1;
        assert_eq!(LogImage::decode(&mut Reader(&bytes)), Err(Unreadable::Newer(VERSION + 1)));
    }
}
