//! The newest bytes of a partition, in memory: one line of chunks, each at its position in its segment.
//!
//! A chunk begins at an aligned position and is as long as a multiple of the block, so that it can be written to its
//! segment as it lies; a batch may span two of them. Chunks serve fetches and destaging; older ones, once written, are
//! the cache.

use std::collections::VecDeque;

use crate::{
    base::{Offset, copied},
    io::{Buffer, Slice, Tail},
    log::{
        locate::{HEAD_BYTES, Head},
        segment::SegmentId,
        settings::BLOCK_BYTES,
    },
};

pub const CHUNK_MIN: usize = BLOCK_BYTES;
pub const CHUNK_MAX: usize = 1 << 20;

/// Batches start at most this far behind a mark, unless one batch is longer.
const MARK_INTERVAL: u32 = 4096;

pub struct Chunk {
    pub segment: SegmentId,
    /// Position in the segment; aligned.
    pub start: u32,
    pub tail: Tail,
    /// Bytes of this chunk that lie in the segment's file.
    pub written: usize,
    /// The base offset of the batch that the chunk begins with, or begins within.
    floor: Offset,
    /// (base offset, position in the segment) of batches that start here, sparse, the first one always.
    marks: Vec<(Offset, u32)>,
}

impl Chunk {
    /// A chunk whose first `filled` bytes are there already. `floor` is the offset of what comes first after them.
    pub fn new(segment: SegmentId, start: u32, buffer: Buffer, filled: usize, floor: Offset) -> Self {
        assert!((start as usize).is_multiple_of(BLOCK_BYTES), "chunks are aligned");
        let tail = Tail::new(buffer, filled);
        Self { segment, start, tail, written: filled, floor, marks: Vec::new() }
    }

    /// The front of the chunk, up to a position in it, as one of the segment that the chunk's has become.
    pub fn cut(&self, segment: SegmentId, end: u32, allocate: impl FnOnce(usize) -> Buffer) -> Self {
        let kept = (end - self.start) as usize;
        let mut buffer = allocate(self.capacity());
        buffer.as_mut()[..kept].copy_from_slice(&self.tail.buffer().as_slice()[..kept]);
        copied(kept);
        let marks = self.marks.iter().copied().filter(|(_, position)| *position < end).collect();
        let tail = Tail::new(buffer, kept);
        Self { segment, start: self.start, tail, written: self.written.min(kept), floor: self.floor, marks }
    }

    /// Where it lies among the others: of each base offset one generation alone is in memory.
    fn place(&self) -> (Offset, u32) {
        (self.segment.base, self.start)
    }

    /// The position behind the last byte.
    pub fn end(&self) -> u32 {
        self.start + self.tail.published() as u32
    }

    pub fn is_clean(&self) -> bool {
        self.written == self.tail.published()
    }

    pub fn is_full(&self) -> bool {
        self.tail.room() == 0
    }

    pub fn capacity(&self) -> usize {
        self.tail.capacity()
    }

    fn note_batch(&mut self, offset: Offset, position: u32) {
        if self.marks.last().is_none_or(|last| position - last.1 >= MARK_INTERVAL) {
            self.marks.push((offset, position));
        }
    }
}

/// The line of chunks of one partition; the last one is being filled.
#[derive(Default)]
pub struct Chunks(pub VecDeque<Chunk>);

/// Where a batch lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub segment: SegmentId,
    pub position: u32,
    pub head: Head,
}

impl Chunks {
    /// Whether a batch at `position` of the segment can be appended without reading the file first.
    pub fn reaches(&self, segment: SegmentId, position: u32) -> bool {
        (position as usize).is_multiple_of(BLOCK_BYTES)
            || self.0.back().is_some_and(|last| last.segment == segment && last.end() == position)
    }

    /// Copies the pieces of one batch behind the last byte. `allocate` makes chunks as they are needed.
    pub fn append(
        &mut self,
        (segment, position): (SegmentId, u32),
        base_offset: Offset,
        pieces: [&[u8]; 2],
        mut allocate: impl FnMut(usize) -> Buffer,
    ) {
        let mut at = position;
        let mut left: usize = pieces.iter().map(|piece| piece.len()).sum();
        for mut piece in pieces {
            while !piece.is_empty() {
                let fits = self.0.back().is_some_and(|last| last.segment == segment && !last.is_full());
                if !fits {
                    let buffer = allocate(self.next_capacity(left));
                    self.0.push_back(Chunk::new(segment, at, buffer, 0, base_offset));
                }
                let last = self.0.back_mut().expect("one was pushed if there was none");
                assert_eq!(last.end(), at, "chunks are contiguous");
                if at == position {
                    last.note_batch(base_offset, position);
                }
                let part = piece.len().min(last.tail.room());
                last.tail.append(&piece[..part]);
                piece = &piece[part..];
                at += part as u32;
                left -= part;
            }
        }
    }

    /// Twice the last one, and enough for what is left of the batch, within the bounds.
    fn next_capacity(&self, left: usize) -> usize {
        let doubled = self.0.back().map_or(CHUNK_MIN, |last| last.capacity() * 2);
        doubled.max(left.next_multiple_of(BLOCK_BYTES)).clamp(CHUNK_MIN, CHUNK_MAX)
    }

    /// The chunk that holds the byte at `position`.
    fn chunk_at(&self, segment: SegmentId, position: u32) -> Option<usize> {
        let after = self.0.partition_point(|chunk| chunk.place() <= (segment.base, position));
        let index = after.checked_sub(1)?;
        let chunk = &self.0[index];
        (chunk.segment == segment && position < chunk.end()).then_some(index)
    }

    /// Whether the byte at `position` is in memory.
    pub fn holds(&self, segment: SegmentId, position: u32) -> bool {
        self.chunk_at(segment, position).is_some()
    }

    /// Whether a batch of the segment with `offset` would be in memory.
    pub fn reaches_back(&self, segment: SegmentId, offset: Offset) -> bool {
        let index = self.0.partition_point(|chunk| chunk.segment.base < segment.base);
        let first = self.0.get(index).filter(|chunk| chunk.segment == segment);
        first.is_some_and(|first| first.start == 0 || first.floor <= offset)
    }

    /// The first position of the segment that is in memory.
    pub fn first_position(&self, segment: SegmentId) -> Option<u32> {
        let index = self.0.partition_point(|chunk| chunk.segment.base < segment.base);
        self.0.get(index).filter(|chunk| chunk.segment == segment).map(|chunk| chunk.start)
    }

    /// Slices of `start..end`, all of which must be in memory. Copies nothing.
    pub fn slices(&self, segment: SegmentId, start: u32, end: u32) -> Vec<Slice> {
        let mut slices = Vec::new();
        let mut at = start;
        let mut index = self.chunk_at(segment, start).expect("the caller knows that this is in memory");
        while at < end {
            let chunk = &self.0[index];
            let to = chunk.end().min(end);
            slices.push(chunk.tail.slice((at - chunk.start) as usize..(to - chunk.start) as usize));
            at = to;
            index += 1;
        }
        slices
    }

    /// The sum of a segment's last bytes up to `end`, if they lie in a block that is not whole, and in memory.
    pub fn tail_crc(&self, segment: SegmentId, end: u32) -> Option<u32> {
        let start = end / BLOCK_BYTES as u32 * BLOCK_BYTES as u32;
        // Chunks hold whole blocks.
        let chunk = &self.0[(start < end).then(|| self.chunk_at(segment, start)).flatten()?];
        let bytes = &chunk.tail.buffer().as_slice()[(start - chunk.start) as usize..];
        Some(crc32c::crc32c(bytes.get(..(end - start) as usize)?))
    }

    /// The front of the batch at `position`, which may lie in two chunks. `None` at the end.
    pub fn head(&self, segment: SegmentId, position: u32) -> Option<Head> {
        self.head_in(self.chunk_at(segment, position)?, position)
    }

    /// As [`head`](Self::head), for batches one behind the other: `index` is the chunk of the one before, and becomes this one's.
    fn head_near(&self, index: &mut usize, segment: SegmentId, position: u32) -> Option<Head> {
        let chunk = &self.0[*index];
        if chunk.segment != segment || position < chunk.start || position >= chunk.end() {
            *index = self.chunk_at(segment, position)?;
        }
        self.head_in(*index, position)
    }

    fn head_in(&self, index: usize, position: u32) -> Option<Head> {
        let chunk = &self.0[index];
        let from = (position - chunk.start) as usize;
        let here = &chunk.tail.buffer().as_slice()[from..];
        if here.len() >= HEAD_BYTES {
            return Head::parse(here);
        }
        let mut bytes = here.to_vec();
        let next = self.0.get(index + 1).filter(|next| next.segment == chunk.segment)?;
        bytes.extend(next.tail.buffer().as_slice().iter().take(HEAD_BYTES - here.len()));
        Head::parse(&bytes)
    }

    /// The batch in memory that contains `offset`, or the next one there.
    pub fn find(&self, offset: Offset) -> Option<Place> {
        let after = self.0.partition_point(|chunk| chunk.floor <= offset);
        let mark = self.0.iter().enumerate().take(after).rev().find_map(|(index, chunk)| {
            let marks = chunk.marks.partition_point(|mark| mark.0 <= offset);
            marks.checked_sub(1).map(|last| (index, chunk.segment, chunk.marks[last].1))
        });
        let (mut index, mut segment, mut position) = mark?;
        loop {
            let Some(head) = self.head_near(&mut index, segment, position) else {
                // The rest of the segment is over: go on in the next one. Offsets may have gaps.
                let next = self.0.partition_point(|chunk| chunk.segment.base <= segment.base);
                segment = self.0.get(next)?.segment;
                position = 0;
                continue;
            };
            if head.last_offset >= offset {
                return Some(Place { segment, position, head });
            }
            position += head.bytes;
        }
    }

    /// The last mark in the segment at or before `position_max`, below `upto`: a short cut over many small batches.
    pub fn mark_before(&self, segment: SegmentId, position_max: u32, upto: Offset) -> Option<(Offset, u32)> {
        let after = self.0.partition_point(|chunk| chunk.place() <= (segment.base, position_max));
        let chunks = self.0.iter().take(after).rev().take_while(|chunk| chunk.segment == segment);
        chunks
            .filter_map(|chunk| {
                let marks = chunk.marks.partition_point(|mark| mark.1 <= position_max && mark.0 < upto);
                marks.checked_sub(1).map(|last| chunk.marks[last])
            })
            .next()
    }
}
