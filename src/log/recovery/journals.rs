//! Reading the journals that an earlier life has left: which blocks are its log, and where it ends.

use std::{
    cell::RefCell,
    collections::VecDeque,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    base::{METADATA_TOPIC_ID, Map, Offset, PartitionKey, Set},
    io::{DirEntry, File, Io, OpenOptions, Slice},
    log::{
        checkpoint::Checkpoint,
        journal::{
            block::{self, BlockHeader, Incarnation},
            entry::{CutAt, Entry, end_of},
        },
        names::parse_journal_name,
        recovery::{
            cuts::CutsAhead,
            unreadable::{self, Place},
        },
        settings::{BLOCK_BYTES, RecoverError},
    },
};

/// A killed process's writes in flight hold its locks for a moment.
const LOCK_TRIES: usize = 100;
const LOCK_DELAY: Duration = Duration::from_millis(100);

/// Files that are being read at the same time, each into memory of its size.
const READS_MAX: usize = 4;

/// What is read a second time is read in pieces of this size: a block alone may be as small as 4 KiB.
const READ_AHEAD: u64 = 1 << 20;

pub struct JournalFile {
    pub core: usize,
    pub number: usize,
    pub size: u64,
    /// Of a name that is not used any more.
    pub old: bool,
    /// Whether it begins as a journal does: any file may have a name that is not used any more.
    is_journal: bool,
    pub path: PathBuf,
    file: File,
    /// The file's blocks that count, one behind the other without what pads them, if they were kept.
    kept: Option<Slice>,
}

/// A block that counts.
#[derive(Clone, Copy)]
struct BlockAt {
    header: BlockHeader,
    file: usize,
    position: u64,
    /// Where it begins in what was kept of its file.
    kept_at: usize,
    has_metadata: bool,
}

/// A part of a file that is in memory.
struct Window {
    file: usize,
    position: u64,
    bytes: Slice,
}

/// What was found of one core's journal: nobody knows yet where its log ends.
#[derive(Default)]
struct Found {
    blocks: Vec<BlockAt>,
    /// Where every block of this life ends, those that count no more included, with its sequence.
    ends: Vec<(u64, Place)>,
    /// What of the files cannot be read.
    unreadable: Vec<Place>,
    /// What was announced, each with the sequence of the block that has it.
    announced: Vec<(u64, PartitionKey, Announced)>,
}

/// What the journal says of a log before it is replayed.
#[derive(Clone, Copy)]
enum Announced {
    Start(Offset),
    Cut(CutAt),
}

/// Every journal file of a directory, locked.
pub struct Journals {
    pub files: Vec<JournalFile>,
    /// Bytes of blocks that may be kept in memory between the two passes, and those that are. The rest is read twice.
    keep_max: usize,
    kept_bytes: usize,
    /// What the second pass has read last.
    window: RefCell<Option<Window>>,
    /// The blocks of each core of the earlier life, in order.
    blocks: Vec<Vec<BlockAt>>,
    /// Partitions with appended records in those blocks.
    pub appended: Set<PartitionKey>,
    /// The largest log start announced for a partition.
    pub starts: Map<PartitionKey, Offset>,
    /// Where logs were cut, in order, as far as the journals and the rescue files know: these come first.
    cuts: Map<PartitionKey, Vec<CutAt>>,
    rescued_cuts: Map<PartitionKey, Vec<CutAt>>,
    /// How far the records of a segment reach, as far as the journal knows.
    pub segment_ends: Map<(PartitionKey, Offset), Offset>,
}

impl Journals {
    /// Opens and locks what is there. Waits for the locks: until then a killed process may still be writing.
    pub async fn open(io: &Io, directory: &Path, entries: &[DirEntry], keep_max: usize) -> Result<Self, RecoverError> {
        let mut files = Vec::new();
        for entry in entries {
            let Some(name) = parse_journal_name(&entry.name) else { continue };
            // A topic's directory may have an old name. None may have a new one: it is opened, and says so.
            if name.old && entry.is_dir {
                continue;
            }
            let path = directory.join(&entry.name);
            let file =
                io.disk.open(&path, OpenOptions::default()).await.map_err(|error| RecoverError::at(&path, &error))?;
            lock(io, &file, &path).await?;
            let (core, number, old) = (name.core, name.number, name.old);
            let is_journal =
                !old || begins_with_a_block(&file, entry.len).await.map_err(|error| RecoverError::at(&path, &error))?;
            files.push(JournalFile { core, number, size: entry.len, old, is_journal, path, file, kept: None });
        }
        Ok(Self {
            files,
            keep_max,
            kept_bytes: 0,
            window: RefCell::new(None),
            blocks: Vec::new(),
            appended: Set::default(),
            starts: Map::default(),
            cuts: Map::default(),
            rescued_cuts: Map::default(),
            segment_ends: Map::default(),
        })
    }

    /// First pass: finds each core's blocks from its checkpoint on.
    /// # Errors  `JournalCorrupt` if a block is missing that was durable when a later one was written.
    pub async fn scan(
        &mut self,
        io: &Io,
        incarnation: &Incarnation,
        checkpoints: &[Checkpoint],
    ) -> Result<(), RecoverError> {
        let mut found: Vec<Found> = checkpoints.iter().map(|_| Found::default()).collect();
        let life_of = |file: &JournalFile| checkpoints.iter().position(|it| it.core == file.core);
        let mut waiting = (0..self.files.len())
            .filter_map(|index| Some((index, life_of(&self.files[index])?)))
            .collect::<Vec<_>>()
            .into_iter();
        let mut reading = VecDeque::new();
        loop {
            for (index, life) in waiting.by_ref().take(READS_MAX - reading.len()) {
                let JournalFile { file, size, .. } = &self.files[index];
                let (file, size) = (file.clone(), *size as usize);
                reading.push_back((index, life, io.spawner.spawn_with_handle(async move { file.read(0, size).await })));
            }
            let Some((index, life, bytes)) = reading.pop_front() else { break };
            let bytes = match bytes.await {
                Ok(bytes) => bytes,
                Err(error) => {
                    let JournalFile { file, size, path, .. } = &self.files[index];
                    let read = unreadable::read_around(file, *size, error).await;
                    let (bytes, positions) = read.map_err(|error| RecoverError::at(path, &error))?;
                    tracing::warn!(path = %path.display(), ?positions, "parts of a journal cannot be read");
                    found[life]
                        .unreadable
                        .extend(positions.into_iter().map(|position| Place { file: index, position }));
                    bytes
                }
            };
            self.look_through(index, &bytes, incarnation, checkpoints[life].first_sequence, &mut found[life])?;
        }
        for (checkpoint, mut found) in checkpoints.iter().zip(found) {
            found.blocks.sort_unstable_by_key(|block| block.header.sequence);
            let chained = self.chain(found.blocks, checkpoint.first_sequence, &found.ends);
            let log = match (chained, found.unreadable.first()) {
                (Err(_), Some(place)) => return Err(self.unreadable(*place)),
                (Err(RecoverError::JournalCorrupt { path, position, .. }), None) => {
                    let damaged = checkpoint.in_place_of.as_ref().map(|path| path.display().to_string());
                    return Err(RecoverError::JournalCorrupt { path, position, checkpoint: damaged });
                }
                (chained, _) => chained?,
            };
            if !found.unreadable.is_empty() {
                let next = unreadable::Next {
                    incarnation,
                    sequence: checkpoint.first_sequence + log.len() as u64,
                    ends: &found.ends,
                    unreadable: &found.unreadable,
                };
                let files = self.files.iter().enumerate().filter(|(_, file)| file.core == checkpoint.core);
                if let Some(place) = next.may_be_lost(files.map(|(index, it)| (index, &it.file, it.size))).await {
                    return Err(self.unreadable(place));
                }
            }
            // Behind the end nothing counts: the records up to such a start may be missing, and none of its files is.
            let end = checkpoint.first_sequence + log.len() as u64;
            // Files are read in the order of their names, and the ring has gone round.
            found.announced.sort_by_key(|(sequence, ..)| *sequence);
            for (_, key, announced) in found.announced.into_iter().filter(|(sequence, ..)| *sequence < end) {
                match announced {
                    Announced::Start(offset) => self.heed_start(key, offset),
                    Announced::Cut(at) => self.cuts.entry(key).or_default().push(at),
                }
            }
            self.blocks.push(log);
        }
        Ok(())
    }

    fn heed_start(&mut self, key: PartitionKey, offset: Offset) {
        let start = self.starts.entry(key).or_default();
        *start = offset.max(*start);
    }

    /// Where a log was cut, in order.
    pub fn cuts_of(&self, key: PartitionKey) -> Vec<CutAt> {
        [&self.rescued_cuts, &self.cuts].into_iter().filter_map(|cuts| cuts.get(&key)).flatten().copied().collect()
    }

    pub fn was_cut(&self, key: PartitionKey) -> bool {
        self.cuts.contains_key(&key) || self.rescued_cuts.contains_key(&key)
    }

    pub fn has_cuts(&self) -> bool {
        !self.cuts.is_empty() || !self.rescued_cuts.is_empty()
    }

    /// The cuts of every log that has any, from its first entry on.
    pub fn cuts_ahead(&self) -> Map<PartitionKey, CutsAhead> {
        let keys = self.cuts.keys().chain(self.rescued_cuts.keys());
        keys.map(|key| (*key, CutsAhead::of(&self.cuts_of(*key)))).collect()
    }

    /// Finds the blocks in a file's bytes, and keeps them if there is room.
    fn look_through(
        &mut self,
        index: usize,
        bytes: &[u8],
        incarnation: &Incarnation,
        first_sequence: u64,
        found: &mut Found,
    ) -> Result<(), RecoverError> {
        let first = found.blocks.len();
        let (mut position, mut kept_at) = (0, 0);
        while position + BLOCK_BYTES <= bytes.len() {
            let Ok((header, block)) = BlockHeader::parse(&bytes[position..]) else {
                position += BLOCK_BYTES;
                continue;
            };
            if header.incarnation == *incarnation {
                let end = Place { file: index, position: (position + header.padded()) as u64 };
                found.ends.push((header.sequence, end));
            }
            if header.incarnation == *incarnation && header.sequence >= first_sequence {
                let has_metadata = self.note(index, position as u64, header.sequence, block, &mut found.announced)?;
                found.blocks.push(BlockAt { header, file: index, position: position as u64, kept_at, has_metadata });
                kept_at += block.len();
            }
            position += header.padded();
        }
        if self.kept_bytes + kept_at <= self.keep_max {
            let mut kept = Vec::with_capacity(kept_at);
            for block in &found.blocks[first..] {
                let start = block.position as usize;
                kept.extend_from_slice(&bytes[start..start + block.header.length as usize]);
            }
            self.kept_bytes += kept_at;
            self.files[index].kept = Some(kept.into());
        }
        Ok(())
    }

    /// Looks through a block's entries once, so that the second pass knows what to expect.
    fn note(
        &mut self,
        file: usize,
        position: u64,
        sequence: u64,
        block: &[u8],
        announced: &mut Vec<(u64, PartitionKey, Announced)>,
    ) -> Result<bool, RecoverError> {
        let mut has_metadata = false;
        for entry in block::entries(block) {
            let Ok(entry) = entry else {
                let path = self.files[file].path.display().to_string();
                return Err(RecoverError::JournalCorrupt { path, position, checkpoint: None });
            };
            has_metadata |= entry.key().topic_id == METADATA_TOPIC_ID;
            let key = entry.key();
            announced.extend(self.note_entry(entry).map(|it| (sequence, key, it)));
        }
        Ok(has_metadata)
    }

    /// Looks through a block of a rescue file, whose entries are applied before those of the journals. False if one of them
    /// cannot be understood.
    pub fn note_rescued(&mut self, block: &[u8]) -> bool {
        for entry in block::entries(block) {
            match entry {
                Ok(entry) => {
                    let key = entry.key();
                    match self.note_entry(entry) {
                        Some(Announced::Start(offset)) => self.heed_start(key, offset),
                        Some(Announced::Cut(at)) => self.rescued_cuts.entry(key).or_default().push(at),
                        None => {}
                    }
                }
                Err(_) => return false,
            }
        }
        true
    }

    fn note_entry(&mut self, entry: Entry) -> Option<Announced> {
        match entry {
            Entry::Append { head, batch } => {
                let end = self.segment_ends.entry((head.key, head.segment_base)).or_default();
                *end = end_of(&head, batch).max(*end);
                self.appended.insert(head.key);
                None
            }
            Entry::LogStart { offset, .. } => Some(Announced::Start(offset)),
            Entry::Truncate { at, .. } => Some(Announced::Cut(at)),
            Entry::Seal { .. } => None,
        }
    }

    fn unreadable(&self, place: Place) -> RecoverError {
        RecoverError::JournalUnreadable {
            path: self.files[place.file].path.display().to_string(),
            position: place.position,
        }
    }

    /// The unbroken row of blocks. What is missing was either never promised, or the journal is damaged. `ends` are those of
    /// all blocks of this life.
    fn chain(
        &self,
        found: Vec<BlockAt>,
        first_sequence: u64,
        ends: &[(u64, Place)],
    ) -> Result<Vec<BlockAt>, RecoverError> {
        let mut log: Vec<BlockAt> = Vec::new();
        for block in found {
            let expected = first_sequence + log.len() as u64;
            if block.header.sequence == expected {
                let chained = log.last().is_none_or(|last| last.header.crc == block.header.previous_crc);
                if !chained {
                    return Err(self.corrupt(Place { file: block.file, position: block.position }));
                }
                log.push(block);
            } else if block.header.durable_below > expected {
                let before = ends.iter().find(|(sequence, _)| sequence + 1 == expected).map(|(_, end)| *end);
                return Err(self.corrupt(missing_before(&block, before)));
            }
        }
        Ok(log)
    }

    fn corrupt(&self, place: Place) -> RecoverError {
        let path = self.files[place.file].path.display().to_string();
        RecoverError::JournalCorrupt { path, position: place.position, checkpoint: None }
    }

    /// Journals that the new life does not need: of cores that it has not, and of names that it does not use.
    pub fn superseded(&self, cores: usize) -> impl Iterator<Item = &Path> {
        let superseded = self.files.iter().filter(move |it| it.is_journal && (it.old || it.core >= cores));
        superseded.map(|it| it.path.as_path())
    }

    pub fn cores(&self) -> usize {
        self.blocks.len()
    }

    pub fn block_count(&self) -> usize {
        self.blocks.iter().map(Vec::len).sum()
    }

    /// How many blocks a core has, and whether the one at `index` is worth reading.
    pub fn len(&self, core: usize) -> usize {
        self.blocks[core].len()
    }

    pub fn has_metadata(&self, core: usize, index: usize) -> bool {
        self.blocks[core][index].has_metadata
    }

    /// Second pass: a block's bytes.
    pub async fn block(&self, core: usize, index: usize) -> Result<Slice, RecoverError> {
        let at = self.blocks[core][index];
        let file = &self.files[at.file];
        let length = at.header.length as usize;
        if let Some(kept) = &file.kept {
            return Ok(kept.slice(at.kept_at..at.kept_at + length));
        }
        if let Some(found) = self.window.borrow().as_ref().and_then(|window| window.find(at.file, at.position, length))
        {
            return Ok(found);
        }
        // The blocks that follow are asked for next.
        let ahead = READ_AHEAD.min(file.size.saturating_sub(at.position)) as usize;
        let bytes = match file.file.read(at.position, ahead.max(length)).await {
            // What lies behind the block may be what cannot be read.
            Err(_) if ahead > length => file.file.read(at.position, length).await,
            read => read,
        };
        let bytes = bytes.map_err(|error| RecoverError::at(&file.path, &error))?;
        let found = bytes[..length].to_vec().into();
        *self.window.borrow_mut() = Some(Window { file: at.file, position: at.position, bytes });
        Ok(found)
    }
}

async fn begins_with_a_block(file: &File, size: u64) -> std::io::Result<bool> {
    let length = size.min(BLOCK_BYTES as u64) as usize;
    Ok(BlockHeader::peek(&file.read(0, length).await?).is_ok())
}

/// Where a block should begin that is missing between one that ends at `before` and a later one.
fn missing_before(later: &BlockAt, before: Option<Place>) -> Place {
    let in_file_of_later = Place { file: later.file, position: 0 };
    match before {
        Some(end) if end.file == later.file && end.position <= later.position => end,
        // A file is gone on with when the one before is full, so with nothing before the later one it lies there.
        Some(end) if later.position == 0 => end,
        Some(_) | None => in_file_of_later,
    }
}

impl Window {
    /// A copy, so that whoever keeps a block does not keep the window.
    fn find(&self, file: usize, position: u64, length: usize) -> Option<Slice> {
        let from = usize::try_from(position.checked_sub(self.position)?).ok()?;
        (self.file == file).then(|| self.bytes.get(from..from + length)).flatten().map(|bytes| bytes.to_vec().into())
    }
}

async fn lock(io: &Io, file: &File, path: &Path) -> Result<(), RecoverError> {
    for _ in 0..LOCK_TRIES {
        match file.try_lock_exclusive() {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => io.clock.sleep(LOCK_DELAY).await,
            Err(error) => return Err(RecoverError::at(path, &error)),
        }
    }
    Err(RecoverError::Busy { path: path.display().to_string() })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{base::TopicId, io::sim::Simulation, log::journal::block::HEADER_BYTES};

    const LIFE: Incarnation = [7; 16];

    fn key() -> PartitionKey {
        PartitionKey { topic_id: TopicId(Uuid::from_u128(5)), partition: 0 }
    }

    /// A block that announces a log start.
    fn block(sequence: u64, start: i64) -> Vec<u8> {
        block_of(sequence, 0, &Entry::LogStart { key: key(), offset: Offset(start) })
    }

    fn block_of(sequence: u64, previous_crc: u32, entry: &Entry) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        entry.encode(&mut bytes);
        let length = bytes.len() as u32;
        bytes.resize(block::padded(bytes.len()), 0);
        let header =
            BlockHeader { crc: 0, incarnation: LIFE, sequence, previous_crc, length, durable_below: 0, entries: 1 };
        header.seal(&mut bytes);
        bytes
    }

    #[test]
    fn a_log_start_behind_the_end_of_the_journal_does_not_count() {
        Simulation::new(1).block_on(0, 0, |io| async move {
            let directory = Path::new("data");
            io.disk.create_dir_all(directory).await.unwrap();
            // The second block was lost before anybody was promised anything.
            let bytes = [block(0, 5), block(2, 9)].concat();
            io.disk.write_file(&directory.join("ringtail-0-0.journal"), &bytes, true).await.unwrap();
            let entries = io.disk.read_dir(directory).await.unwrap();
            let mut journals = Journals::open(&io, directory, &entries, 1 << 20).await.unwrap();
            let checkpoint = Checkpoint {
                incarnation: LIFE,
                core: 0,
                generation: 1,
                first_sequence: 0,
                images: Vec::new(),
                in_place_of: None,
            };
            journals.scan(&io, &LIFE, &[checkpoint]).await.unwrap();
            assert_eq!(journals.block_count(), 1);
            assert_eq!(journals.starts.get(&key()), Some(&Offset(5)));
        });
    }

    #[test]
    fn cuts_come_in_the_order_of_the_blocks_however_the_files_lie() {
        Simulation::new(1).block_on(0, 0, |io| async move {
            let directory = Path::new("data");
            io.disk.create_dir_all(directory).await.unwrap();
            let cut = |end: i64| CutAt { segment_base: Offset(0), position: 0, end: Offset(end) };
            let entry = |end: i64| Entry::Truncate { key: key(), at: cut(end) };
            let first = block_of(0, 0, &entry(5));
            let crc = BlockHeader::parse(&first).unwrap().0.crc;
            // The ring has gone round: the later block is in the file with the smaller number.
            for (number, bytes) in [(0, block_of(1, crc, &entry(45))), (1, first)] {
                let path = directory.join(format!("ringtail-0-{number}.journal"));
                io.disk.write_file(&path, &bytes, true).await.unwrap();
            }
            let entries = io.disk.read_dir(directory).await.unwrap();
            let mut journals = Journals::open(&io, directory, &entries, 1 << 20).await.unwrap();
            let checkpoint = Checkpoint {
                incarnation: LIFE,
                core: 0,
                generation: 1,
                first_sequence: 0,
                images: Vec::new(),
                in_place_of: None,
            };
            journals.scan(&io, &LIFE, &[checkpoint]).await.unwrap();
            // What a rescue file has was before.
            let mut rescued = vec![0; HEADER_BYTES];
            entry(70).encode(&mut rescued);
            assert!(journals.note_rescued(&rescued));
            assert_eq!(journals.cuts_of(key()), [cut(70), cut(5), cut(45)]);
        });
    }
}
