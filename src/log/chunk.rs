//! The newest bytes of a partition, in memory: one line of chunks, each at its position in its segment.
//!
//! A chunk begins at an aligned position and is as long as a multiple of the block, so that it can be written to its
//! segment as it lies; a batch may span two of them. Chunks serve fetches and destaging; older ones, once written, are
//! the cache.

use std::collections::VecDeque;

use crate::{
    base::Offset,
    io::{Buffer, Slice, Tail},
    log::{
        locate::{HEAD_BYTES, Head},
        settings::BLOCK_BYTES,
    },
};

pub const CHUNK_MIN: usize = BLOCK_BYTES;
pub const CHUNK_MAX: usize = 1 << 20;

/// Batches start at most this far behind a mark, unless one batch is longer.
const MARK_INTERVAL: u32 = 4096;

pub struct Chunk {
    pub segment_base: Offset,
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
    pub fn new(segment_base: Offset, start: u32, buffer: Buffer, filled: usize, floor: Offset) -> Self {
        assert!((start as usize).is_multiple_of(BLOCK_BYTES), "chunks are aligned");
        let tail = Tail::new(buffer, filled);
        Self { segment_base, start, tail, written: filled, floor, marks: Vec::new() }
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
    pub segment_base: Offset,
    pub position: u32,
    pub head: Head,
}

impl Chunks {
    /// Whether a batch at `position` of the segment can be appended without reading the file first.
    pub fn reaches(&self, segment_base: Offset, position: u32) -> bool {
        (position as usize).is_multiple_of(BLOCK_BYTES)
            || self.0.back().is_some_and(|last| last.segment_base == segment_base && last.end() == position)
    }

    /// Copies the pieces of one batch behind the last byte. `allocate` makes chunks as they are needed.
    pub fn append(
        &mut self,
        (segment_base, position): (Offset, u32),
        base_offset: Offset,
        pieces: [&[u8]; 2],
        mut allocate: impl FnMut(usize) -> Buffer,
    ) {
        let mut at = position;
        let mut left: usize = pieces.iter().map(|piece| piece.len()).sum();
        for mut piece in pieces {
            while !piece.is_empty() {
                let fits = self.0.back().is_some_and(|last| last.segment_base == segment_base && !last.is_full());
                if !fits {
                    let buffer = allocate(self.next_capacity(left));
                    self.0.push_back(Chunk::new(segment_base, at, buffer, 0, base_offset));
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
    fn chunk_at(&self, segment_base: Offset, position: u32) -> Option<usize> {
        let after = self.0.partition_point(|chunk| (chunk.segment_base, chunk.start) <= (segment_base, position));
        let index = after.checked_sub(1)?;
        let chunk = &self.0[index];
        (chunk.segment_base == segment_base && position < chunk.end()).then_some(index)
    }

    /// Whether the byte at `position` is in memory.
    pub fn holds(&self, segment_base: Offset, position: u32) -> bool {
        self.chunk_at(segment_base, position).is_some()
    }

    /// The first position of the segment that is in memory.
    pub fn first_position(&self, segment_base: Offset) -> Option<u32> {
        let index = self.0.partition_point(|chunk| chunk.segment_base < segment_base);
        self.0.get(index).filter(|chunk| chunk.segment_base == segment_base).map(|chunk| chunk.start)
    }

    /// Slices of `start..end`, all of which must be in memory. Copies nothing.
    pub fn slices(&self, segment_base: Offset, start: u32, end: u32) -> Vec<Slice> {
        let mut slices = Vec::new();
        let mut at = start;
        let mut index = self.chunk_at(segment_base, start).expect("the caller knows that this is in memory");
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
    pub fn tail_crc(&self, segment_base: Offset, end: u32) -> Option<u32> {
        let start = end / BLOCK_BYTES as u32 * BLOCK_BYTES as u32;
        // Chunks hold whole blocks.
        let chunk = &self.0[(start < end).then(|| self.chunk_at(segment_base, start)).flatten()?];
        let bytes = &chunk.tail.buffer().as_slice()[(start - chunk.start) as usize..];
        Some(crc32c::crc32c(bytes.get(..(end - start) as usize)?))
    }

    /// The front of the batch at `position`, which may lie in two chunks. `None` at the end.
    pub fn head(&self, segment_base: Offset, position: u32) -> Option<Head> {
        let index = self.chunk_at(segment_base, position)?;
        let chunk = &self.0[index];
        let from = (position - chunk.start) as usize;
        let here = &chunk.tail.buffer().as_slice()[from..];
        if here.len() >= HEAD_BYTES {
            return Head::parse(here);
        }
        let mut bytes = here.to_vec();
        let next = self.0.get(index + 1).filter(|next| next.segment_base == segment_base)?;
        bytes.extend(next.tail.buffer().as_slice().iter().take(HEAD_BYTES - here.len()));
        Head::parse(&bytes)
    }

    /// The batch that contains `offset`. `None` if it is not in memory.
    pub fn find(&self, offset: Offset) -> Option<Place> {
        let after = self.0.partition_point(|chunk| chunk.floor <= offset);
        let mark = self.0.iter().take(after).rev().find_map(|chunk| {
            let marks = chunk.marks.partition_point(|mark| mark.0 <= offset);
            marks.checked_sub(1).map(|last| (chunk.segment_base, chunk.marks[last].1))
        });
        let (mut segment_base, mut position) = mark?;
        loop {
            let Some(head) = self.head(segment_base, position) else {
                // The rest of the segment is over: go on in the next one. Offsets may have gaps.
                let next = self.0.partition_point(|chunk| chunk.segment_base <= segment_base);
                segment_base = self.0.get(next)?.segment_base;
                position = 0;
                continue;
            };
            if head.last_offset >= offset {
                return Some(Place { segment_base, position, head });
            }
            position += head.bytes;
        }
    }

    /// The last mark in the segment at or before `position_max`, below `upto`: a short cut over many small batches.
    pub fn mark_before(&self, segment_base: Offset, position_max: u32, upto: Offset) -> Option<(Offset, u32)> {
        let after = self.0.partition_point(|chunk| (chunk.segment_base, chunk.start) <= (segment_base, position_max));
        let chunks = self.0.iter().take(after).rev().take_while(|chunk| chunk.segment_base == segment_base);
        chunks
            .filter_map(|chunk| {
                let marks = chunk.marks.partition_point(|mark| mark.1 <= position_max && mark.0 < upto);
                marks.checked_sub(1).map(|last| chunk.marks[last])
            })
            .next()
    }
}
