//! Rescue files: what of an offline partition lies in no segment.
//!
//! A journal is not kept for the sake of one partition. So the entries that it has of a partition whose files fail go, as
//! they are, into a file of their own in the data directory, before a checkpoint frees the journal behind them:
//!
//! ```text
//! ringtail-<topic id, 32 hex digits>-<partition>.rescue     blocks as in a journal; the topic's id as incarnation, sequences
//!                                                           from 0, each block with the sum of the one before
//! ```
//! The partition's image says how many bytes of the file count, and the sum of the block with which they end. What lies
//! behind was written for a checkpoint that was never finished; the journal has it still. A file that no image names counts
//! for nothing. It is written under another name, synced, renamed, and longer ones replace it the same way.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    base::PartitionKey,
    io::{File, Io, OpenOptions, Slice},
    log::{
        journal::{
            block::{BlockBuilder, BlockHeader, HEADER_BYTES, padded},
            reread::BlockReader,
        },
        names::{rescue_name, temporary_name},
        settings::LogError,
    },
};

/// Entries are gathered into blocks of about this size.
const BLOCK_BYTES: usize = 64 << 10;

/// How much of a rescue file counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RescueMark {
    pub bytes: u64,
    /// The sum of the block that ends there.
    pub crc: u32,
}

/// A rescue file that is whole.
pub struct Rescue {
    path: PathBuf,
    file: File,
    /// Position, and length without what pads it, of each block.
    blocks: Vec<(u64, usize)>,
    mark: RescueMark,
}

impl Rescue {
    /// Opens and verifies a file, and shows each block to `look`.
    /// # Errors  `Io`, which names the file: it cannot be read, or is not what was written there.
    pub async fn open(
        io: &Io,
        directory: &Path,
        key: PartitionKey,
        mark: RescueMark,
        mut look: impl FnMut(&[u8]),
    ) -> Result<Self, LogError> {
        let path = directory.join(rescue_name(key));
        let failed = |error: io::Error| LogError::at(&path, &error);
        let file = io.disk.open(&path, OpenOptions::default()).await.map_err(failed)?;
        let size = file.len().await.map_err(failed)?;
        let mut reader = BlockReader::new(file.clone(), size.min(mark.bytes));
        let (mut blocks, mut position, mut previous_crc) = (Vec::new(), 0, 0);
        while position < mark.bytes {
            let block = reader.at(position).await.map_err(failed)?.filter(|(header, _)| {
                (header.incarnation, header.sequence, header.previous_crc)
                    == (*key.topic_id.0.as_bytes(), blocks.len() as u64, previous_crc)
            });
            let Some((header, bytes)) = block else { return Err(damaged(&path, position)) };
            look(&bytes);
            blocks.push((position, bytes.len()));
            position += header.padded() as u64;
            previous_crc = header.crc;
        }
        if (position, previous_crc) != (mark.bytes, mark.crc) {
            return Err(damaged(&path, position));
        }
        Ok(Self { path, file, blocks, mark })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    pub fn mark(&self) -> RescueMark {
        self.mark
    }

    /// A block's bytes once more, verified again.
    pub async fn block(&self, index: usize) -> Result<Slice, LogError> {
        let (position, length) = self.blocks[index];
        let bytes = self.file.read(position, padded(length)).await.map_err(|error| LogError::at(&self.path, &error))?;
        match BlockHeader::parse(&bytes) {
            Ok((header, _)) if header.length as usize == length => Ok(bytes.slice(0..length)),
            Ok(_) | Err(_) => Err(damaged(&self.path, position)),
        }
    }
}

fn damaged(path: &Path, position: u64) -> LogError {
    LogError::Io {
        path: path.display().to_string(),
        kind: io::ErrorKind::InvalidData,
        message: format!("the rescue file is damaged at {position}; restore it from a copy, or delete the topic"),
    }
}

/// Writes a rescue file anew.
pub struct RescueWriter {
    io: Io,
    directory: PathBuf,
    key: PartitionKey,
    temporary: PathBuf,
    file: File,
    position: u64,
    sequence: u64,
    previous_crc: u32,
    filling: Option<BlockBuilder>,
}

impl RescueWriter {
    /// Begins a file that is empty so far.
    pub async fn begin(io: &Io, directory: &Path, key: PartitionKey) -> io::Result<Self> {
        let temporary = directory.join(temporary_name(&rescue_name(key)));
        let file = io.disk.open(&temporary, OpenOptions { create: true, durable: false }).await?;
        file.truncate(0).await?;
        let directory = directory.to_owned();
        let io = io.clone();
        Ok(Self { io, directory, key, temporary, file, position: 0, sequence: 0, previous_crc: 0, filling: None })
    }

    /// Begins with what an earlier file has.
    pub async fn copy(&mut self, rescue: &Rescue) -> io::Result<()> {
        for index in 0..rescue.len() {
            let block = rescue.block(index).await.map_err(|error| io::Error::other(error.to_string()))?;
            let mut buffer = self.io.disk.allocate(padded(block.len()));
            buffer.as_mut()[..block.len()].copy_from_slice(&block);
            self.put(buffer).await?;
            self.sequence += 1;
        }
        self.previous_crc = rescue.mark().crc;
        Ok(())
    }

    /// Begins with the bytes of an earlier file that is not whole, so that what is left of it is not lost. It will not be
    /// taken for a whole one: the image's mark is the old one.
    pub async fn copy_damaged(&mut self) -> io::Result<()> {
        let path = self.directory.join(rescue_name(self.key));
        let file = match self.io.disk.open(&path, OpenOptions::default()).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let size = file.len().await?;
        while self.position < size {
            let length = (size - self.position).min(BLOCK_BYTES as u64) as usize;
            let bytes = file.read(self.position, length).await?;
            let mut buffer = self.io.disk.allocate(padded(length));
            buffer.as_mut()[..length].copy_from_slice(&bytes);
            self.put(buffer).await?;
        }
        Ok(())
    }

    /// Adds one entry of a journal, as it lies there.
    pub async fn add(&mut self, entry: &[u8]) -> io::Result<()> {
        if self.filling.as_ref().is_some_and(|block| !block.fits(entry.len())) {
            self.flush().await?;
        }
        let needed = padded(HEADER_BYTES + entry.len()).max(BLOCK_BYTES);
        let disk = &self.io.disk;
        self.filling.get_or_insert_with(|| BlockBuilder::new(disk.allocate(needed))).add(&[entry]);
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        let Some(mut block) = self.filling.take() else { return Ok(()) };
        let id = *self.key.topic_id.0.as_bytes();
        self.previous_crc = block.seal(id, self.sequence, self.previous_crc, self.sequence);
        self.sequence += 1;
        self.put(block.into_buffer()).await
    }

    async fn put(&mut self, buffer: crate::io::Buffer) -> io::Result<()> {
        let bytes = buffer.len() as u64;
        self.file.write(buffer.share(), self.position).await?;
        self.position += bytes;
        Ok(())
    }

    /// Makes the file durable under its name.
    pub async fn finish(mut self) -> io::Result<RescueMark> {
        self.flush().await?;
        self.file.sync().await?;
        let path = self.directory.join(rescue_name(self.key));
        self.io.disk.rename(&self.temporary, &path).await?;
        self.io.disk.sync_dir(&self.directory).await?;
        self.file.close().await?;
        Ok(RescueMark { bytes: self.position, crc: self.previous_crc })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        base::{Offset, TopicId},
        io::sim::Simulation,
        log::journal::{block::entries, entry::Entry},
    };

    fn key() -> PartitionKey {
        PartitionKey { topic_id: TopicId(Uuid::from_u128(7)), partition: 3 }
    }

    fn entry(start: i64) -> Vec<u8> {
        let mut bytes = Vec::new();
        Entry::LogStart { key: key(), offset: Offset(start) }.encode(&mut bytes);
        bytes
    }

    async fn starts(io: &Io, mark: RescueMark) -> Result<Vec<i64>, LogError> {
        let mut found = Vec::new();
        let look = |block: &[u8]| {
            for entry in entries(block) {
                let Ok(Entry::LogStart { offset, .. }) = entry else { panic!("only log starts were written") };
                found.push(offset.0);
            }
        };
        Rescue::open(io, Path::new("data"), key(), mark, look).await?;
        Ok(found)
    }

    #[test]
    fn a_file_reads_back_as_far_as_its_mark_and_damage_is_found() {
        let sim = Simulation::new(1);
        let (first, all) = sim.block_on(0, 0, |io| async move {
            let directory = Path::new("data");
            io.disk.create_dir_all(directory).await.unwrap();
            let mut writer = RescueWriter::begin(&io, directory, key()).await.unwrap();
            for start in 0..4000 {
                writer.add(&entry(start)).await.unwrap();
            }
            let first = writer.finish().await.unwrap();
            assert_eq!(starts(&io, first).await.unwrap(), (0..4000).collect::<Vec<i64>>());
            let rescue = Rescue::open(&io, directory, key(), first, |_| {}).await.unwrap();
            assert!(rescue.len() > 1, "several blocks");
            let mut longer = RescueWriter::begin(&io, directory, key()).await.unwrap();
            longer.copy(&rescue).await.unwrap();
            longer.add(&entry(4000)).await.unwrap();
            let all = longer.finish().await.unwrap();
            assert_eq!(starts(&io, first).await.unwrap().len(), 4000, "the longer file goes on where the first ended");
            assert_eq!(starts(&io, all).await.unwrap().len(), 4001);
            (first, all)
        });
        let other = RescueMark { bytes: first.bytes, crc: all.crc };
        assert!(sim.block_on(0, 0, move |io| async move { starts(&io, other).await }).is_err(), "another block's sum");
        sim.overwrite(0, &Path::new("data").join(rescue_name(key())), 70_000, b"rot");
        let error = sim.block_on(0, 0, move |io| async move { starts(&io, all).await }).unwrap_err();
        assert!(error.to_string().contains(".rescue"), "{error}");
    }
}
