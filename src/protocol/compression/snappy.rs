//! Snappy as Kafka clients write it: in Xerial's framing (Java) or raw (librdkafka).

use std::io::{self, Read, Write};

const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
/// Magic, version 1, oldest compatible version 1.
const XERIAL_HEADER_BYTES: usize = 16;
/// What Java's encoder puts into one block.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
/// Three bytes make at most 64, so a block that announces more than this many times its size is forged.
const EXPANSION_MAX: usize = 32;

/// Decompresses block by block; holds one block.
pub struct SnappyReader<'a> {
    rest: &'a [u8],
    framed: bool,
    block: Vec<u8>,
    position: usize,
    /// A larger block is not decompressed.
    block_max: usize,
}

impl<'a> SnappyReader<'a> {
    pub(super) fn new(bytes: &'a [u8], block_max: usize) -> Self {
        let framed = bytes.len() >= XERIAL_HEADER_BYTES && bytes.starts_with(XERIAL_MAGIC);
        let rest = if framed { &bytes[XERIAL_HEADER_BYTES..] } else { bytes };
        Self { rest, framed, block: Vec::new(), position: 0, block_max }
    }

    fn next_block(&mut self) -> io::Result<()> {
        let block = if self.framed { self.framed_block()? } else { std::mem::take(&mut self.rest) };
        let length = snap::raw::decompress_len(block).map_err(io::Error::other)?;
        if length > EXPANSION_MAX.saturating_mul(block.len()) {
            return Err(io::Error::other("a snappy block announces more than it can hold"));
        }
        if length > self.block_max {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "a snappy block is larger than allowed"));
        }
        self.block.resize(length, 0);
        self.position = 0;
        let written = snap::raw::Decoder::new().decompress(block, &mut self.block).map_err(io::Error::other)?;
        self.block.truncate(written);
        Ok(())
    }

    fn framed_block(&mut self) -> io::Result<&'a [u8]> {
        let cut = || io::Error::other("a snappy frame is cut off");
        let (length, rest) = self.rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = usize::try_from(i32::from_be_bytes(*length)).map_err(io::Error::other)?;
        let (block, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
        self.rest = rest;
        Ok(block)
    }
}

impl Read for SnappyReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.position == self.block.len() {
            if self.rest.is_empty() {
                return Ok(0);
            }
            self.next_block()?;
        }
        let count = out.len().min(self.block.len() - self.position);
        out[..count].copy_from_slice(&self.block[self.position..self.position + count]);
        self.position += count;
        Ok(count)
    }
}

/// Compresses in Xerial's framing, which every client reads. Holds one block.
pub struct SnappyWriter<W: Write> {
    out: W,
    block: Vec<u8>,
}

impl<W: Write> SnappyWriter<W> {
    pub(super) fn new(mut out: W) -> io::Result<Self> {
        out.write_all(XERIAL_MAGIC)?;
        out.write_all(&[0, 0, 0, 1, 0, 0, 0, 1])?;
        Ok(Self { out, block: Vec::with_capacity(XERIAL_BLOCK_BYTES) })
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.end_block()?;
        Ok(self.out)
    }

    fn end_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = snap::raw::Encoder::new().compress_vec(&self.block).map_err(io::Error::other)?;
        self.block.clear();
        self.out.write_all(&(block.len() as u32).to_be_bytes())?;
        self.out.write_all(&block)
    }
}

impl<W: Write> Write for SnappyWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(XERIAL_BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        if self.block.len() == XERIAL_BLOCK_BYTES {
            self.end_block()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
