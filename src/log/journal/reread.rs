//! Reading the journal while it is being written: what it has of some partitions must outlive it.

use std::io;

use super::{Journal, block::BlockHeader};
use crate::{
    io::{File, Slice},
    log::settings::BLOCK_BYTES,
};

/// A file is read in pieces of this size, or of the size of one block.
const WINDOW_BYTES: u64 = 1 << 20;

/// Reads the blocks of a file one after the other.
pub struct BlockReader {
    file: File,
    size: u64,
    window: Slice,
    window_at: u64,
}

impl BlockReader {
    pub fn new(file: File, size: u64) -> Self {
        Self { file, size, window: Slice::default(), window_at: 0 }
    }

    /// The block that begins at `position`, without what pads it. `None` if there is none that is whole.
    pub async fn at(&mut self, position: u64) -> io::Result<Option<(BlockHeader, Slice)>> {
        if position + BLOCK_BYTES as u64 > self.size {
            return Ok(None);
        }
        self.hold(position, BLOCK_BYTES as u64).await?;
        let Ok(header) = BlockHeader::peek(self.from(position)) else { return Ok(None) };
        let padded = header.padded() as u64;
        if position.checked_add(padded).is_none_or(|end| end > self.size) {
            return Ok(None);
        }
        self.hold(position, padded).await?;
        let Ok((header, block)) = BlockHeader::parse(self.from(position)) else { return Ok(None) };
        let (start, length) = ((position - self.window_at) as usize, block.len());
        Ok(Some((header, self.window.slice(start..start + length))))
    }

    fn from(&self, position: u64) -> &[u8] {
        &self.window[(position - self.window_at) as usize..]
    }

    /// Makes sure that the window has these bytes, which lie within the file.
    async fn hold(&mut self, position: u64, bytes: u64) -> io::Result<()> {
        let held = self.window_at..self.window_at + self.window.len() as u64;
        if held.start <= position && position + bytes <= held.end {
            return Ok(());
        }
        let length = WINDOW_BYTES.max(bytes).min(self.size - position);
        self.window = Slice::default();
        self.window = self.file.read(position, length as usize).await?;
        self.window_at = position;
        Ok(())
    }
}

impl Journal {
    /// Every block below this one is as durable as its records asked for.
    pub fn done_below(&self) -> u64 {
        self.done_below.get()
    }

    /// Shows the blocks `from..below` in order. They must be written, and not be freed yet.
    /// # Errors  The system's; `InvalidData` if one of them is missing.
    pub async fn reread(
        &self,
        from: u64,
        below: u64,
        mut look: impl AsyncFnMut(Slice) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut next = from;
        for file in self.ring.files_since(from) {
            let mut reader = BlockReader::new(file.plain.clone(), file.size());
            let mut position = 0;
            while position + BLOCK_BYTES as u64 <= file.size() && next < below {
                let Some((header, block)) = reader.at(position).await? else {
                    position += BLOCK_BYTES as u64;
                    continue;
                };
                position += header.padded() as u64;
                if header.incarnation == self.incarnation && header.sequence == next {
                    look(block).await?;
                    next += 1;
                }
            }
        }
        if next < below {
            let what = format!("the journal has lost its block {next}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(())
    }
}
