//! A journal block: one aligned write, summed as a whole.
//!
//! ```text
//!  0 magic u32 "RTJ1"      4 crc32c u32 over byte 8 to the end of the padding
//!  8 incarnation (16)     24 sequence u64          32 crc of the block before u32    36 length u32, without padding
//! 40 durable_below u64    48 entries u32           52 zero (12)                      64 entries, then zeros to 4096
//! ```
//! `durable_below` is the sequence below which every block was known to be on stable storage when this one was written.
//! A block that is missing below it was lost; one that is missing at or above it was never promised to anybody.

use std::ops::Range;

use crate::{
    io::Buffer,
    log::{
        journal::entry::Entry,
        settings::BLOCK_BYTES,
        wire::{Damaged, Put, Reader},
    },
};

pub const HEADER_BYTES: usize = 64;
const MAGIC: u32 = u32::from_be_bytes(*b"RTJ1");
const _: () = assert!(HEADER_BYTES < BLOCK_BYTES);

/// 128 random bits, drawn at each start: blocks of an earlier life are not ours.
pub type Incarnation = [u8; 16];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    pub crc: u32,
    pub incarnation: Incarnation,
    pub sequence: u64,
    pub previous_crc: u32,
    /// Header and entries, without the padding.
    pub length: u32,
    pub durable_below: u64,
    pub entries: u32,
}

/// Bytes that a block of `length` takes on disk.
pub const fn padded(length: usize) -> usize {
    length.next_multiple_of(BLOCK_BYTES)
}

/// A block in the making: entries one behind the other, with room for the header before them.
pub struct BlockBuilder {
    buffer: Buffer,
    used: usize,
    entries: u32,
}

impl BlockBuilder {
    /// An empty block that may become as long as `buffer`, which is zero-filled and longer than a header.
    pub fn new(buffer: Buffer) -> Self {
        Self { buffer, used: HEADER_BYTES, entries: 0 }
    }

    /// Whether an entry of so many bytes fits.
    pub fn fits(&self, bytes: usize) -> bool {
        self.used + bytes <= self.buffer.len()
    }

    /// Copies one entry, given in pieces, behind the others. It must fit.
    pub fn add(&mut self, pieces: &[&[u8]]) {
        let memory = self.buffer.as_mut();
        for piece in pieces {
            memory[self.used..self.used + piece.len()].copy_from_slice(piece);
            self.used += piece.len();
        }
        self.entries += 1;
    }

    /// Header and entries so far, in bytes, without the padding.
    pub fn length(&self) -> usize {
        self.used
    }

    /// Cuts the buffer to the padded length, writes the header and sums it all. Returns the sum.
    pub fn seal(&mut self, incarnation: Incarnation, sequence: u64, previous_crc: u32, durable_below: u64) -> u32 {
        let header = BlockHeader {
            crc: 0,
            incarnation,
            sequence,
            previous_crc,
            length: self.used as u32,
            durable_below,
            entries: self.entries,
        };
        // The whole of a buffer goes through the ring, a part of one through a thread. What pads it is zero already.
        self.buffer.truncate(padded(self.used));
        header.seal(self.buffer.as_mut())
    }

    /// The block's bytes.
    pub fn into_buffer(self) -> Buffer {
        self.buffer
    }
}

impl BlockHeader {
    /// Writes the header to the front of `block`, which is padded with zeros, and sums it all. Returns the sum.
    pub fn seal(mut self, block: &mut [u8]) -> u32 {
        assert_eq!(block.len(), padded(self.length as usize), "a block is padded before it is sealed");
        let mut head = Vec::with_capacity(HEADER_BYTES);
        head.put_u32(MAGIC);
        head.put_u32(0);
        head.put(&self.incarnation);
        head.put_u64(self.sequence);
        head.put_u32(self.previous_crc);
        head.put_u32(self.length);
        head.put_u64(self.durable_below);
        head.put_u32(self.entries);
        head.resize(HEADER_BYTES, 0);
        block[..HEADER_BYTES].copy_from_slice(&head);
        self.crc = crc32c::crc32c(&block[8..]);
        block[4..8].copy_from_slice(&self.crc.to_be_bytes());
        self.crc
    }

    /// Reads the header alone: nothing is known about the block's bytes yet.
    pub fn peek(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut input = Reader(bytes);
        if input.u32()? != MAGIC {
            return Err(Damaged);
        }
        let header = Self {
            crc: input.u32()?,
            incarnation: input.array()?,
            sequence: input.u64()?,
            previous_crc: input.u32()?,
            length: input.u32()?,
            durable_below: input.u64()?,
            entries: input.u32()?,
        };
        if (header.length as usize) < HEADER_BYTES { Err(Damaged) } else { Ok(header) }
    }

    /// Reads and verifies the block at the front of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), Damaged> {
        let header = Self::peek(bytes)?;
        let block = bytes.get(..padded(header.length as usize)).ok_or(Damaged)?;
        if crc32c::crc32c(&block[8..]) != header.crc {
            return Err(Damaged);
        }
        Ok((header, &block[..header.length as usize]))
    }

    pub fn padded(&self) -> usize {
        padded(self.length as usize)
    }
}

/// The entries of a verified block.
pub fn entries(block: &[u8]) -> impl Iterator<Item = Result<Entry<'_>, Damaged>> {
    placed_entries(block).map(|entry| entry.map(|(_, entry)| entry))
}

/// The entries of a verified block, each with the place in the block where its bytes lie.
pub fn placed_entries(block: &[u8]) -> impl Iterator<Item = Result<(Range<usize>, Entry<'_>), Damaged>> {
    let mut input = Reader(&block[HEADER_BYTES..]);
    std::iter::from_fn(move || {
        let start = block.len() - input.0.len();
        let entry = (!input.0.is_empty()).then(|| Entry::decode(&mut input))?;
        Some(entry.map(|entry| (start..block.len() - input.0.len(), entry)))
    })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::base::{Offset, PartitionKey, TopicId};

    fn block(sequence: u64) -> Vec<u8> {
        let key = PartitionKey { topic_id: TopicId(Uuid::from_u128(5)), partition: 0 };
        let mut bytes = vec![0; HEADER_BYTES];
        Entry::LogStart { key, offset: Offset(sequence as i64) }.encode(&mut bytes);
        Entry::LogStart { key, offset: Offset(1) }.encode(&mut bytes);
        let length = bytes.len();
        bytes.resize(padded(length), 0);
        let header = BlockHeader {
            crc: 0,
            incarnation: [7; 16],
            sequence,
            previous_crc: 11,
            length: length as u32,
            durable_below: sequence,
            entries: 2,
        };
        header.seal(&mut bytes);
        bytes
    }

    #[test]
    fn a_block_reads_back() {
        let bytes = block(42);
        let (header, block) = BlockHeader::parse(&bytes).unwrap();
        assert_eq!((header.sequence, header.previous_crc, header.incarnation), (42, 11, [7; 16]));
        assert_eq!(entries(block).filter(Result::is_ok).count(), 2);
    }

    #[test]
    fn a_torn_or_flipped_block_is_refused() {
        let good = block(42);
        for sector in 1..good.len() / 512 {
            let mut torn = good.clone();
            torn[sector * 512 - 1] ^= 1;
            assert!(BlockHeader::parse(&torn).is_err(), "sector {sector}");
        }
        assert!(BlockHeader::parse(&good[..2048]).is_err());
        assert!(BlockHeader::parse(&[0; BLOCK_BYTES]).is_err());
    }
}
