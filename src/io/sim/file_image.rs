//! What a simulated file holds, and what it may hold after a power cut: each 512-byte sector remembers the contents it
//! had since it was last made durable.

use std::collections::BTreeMap;

use super::world::World;

/// What a device writes as one: nothing smaller tears.
pub(super) const SECTOR: u64 = 512;
const SECTOR_BYTES: usize = 512;

/// Older contents kept of one sector. A sector overwritten more often than this between two syncs forgets some of them,
/// which makes the simulation a little kinder and never wrong.
const VERSIONS_MAX: usize = 6;

type Content = Box<[u8; SECTOR_BYTES]>;

/// Contents of one dirty sector besides the current one, oldest first; the first is durable.
#[derive(Clone)]
struct Dirty {
    older: Vec<(u64, Option<Content>)>,
    /// Number of the write that made the current content.
    current: u64,
    /// A sync of it failed: it counts as clean, so no sync makes it durable before it is written again.
    lost: bool,
}

/// A file's bytes. A sector that was never written is absent and reads as zero.
#[derive(Clone, Default)]
pub(super) struct FileImage {
    sectors: BTreeMap<u64, Content>,
    dirty: BTreeMap<u64, Dirty>,
    length: u64,
    /// Number of the write that made the current length.
    length_write: u64,
    /// Lengths besides the current one, oldest first; the first is durable.
    older_lengths: Vec<(u64, u64)>,
}

impl FileImage {
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Writes whole sectors; `write` numbers it. Makes the file longer if need be.
    pub(super) fn write(&mut self, write: u64, position: u64, bytes: &[u8]) {
        for (index, chunk) in bytes.chunks(SECTOR_BYTES).enumerate() {
            let sector = position / SECTOR + index as u64;
            let content = if chunk.len() == SECTOR_BYTES && chunk.iter().all(|byte| *byte == 0) {
                None
            } else {
                // The last sector of a plain (not direct) write may be a part of one.
                let mut content = match self.sectors.get(&sector) {
                    Some(old) if chunk.len() < SECTOR_BYTES => old.clone(),
                    Some(_) | None => Box::new([0; SECTOR_BYTES]),
                };
                content[..chunk.len()].copy_from_slice(chunk);
                Some(content)
            };
            self.put(write, sector, content);
        }
        let end = position + bytes.len() as u64;
        if end > self.length {
            self.resize(write, end);
        }
    }

    /// Changes the length; what is cut off reads as zero if the file grows again.
    pub(super) fn truncate(&mut self, write: u64, length: u64) {
        if length < self.length {
            let gone: Vec<u64> = self.sectors.range(length.div_ceil(SECTOR)..).map(|(sector, _)| *sector).collect();
            for sector in gone {
                self.put(write, sector, None);
            }
            let kept = usize::try_from(length % SECTOR).expect("less than a sector");
            if kept > 0
                && let Some(content) = self.sectors.get(&(length / SECTOR))
            {
                let mut content = content.clone();
                content[kept..].fill(0);
                self.put(write, length / SECTOR, Some(content));
            }
        }
        self.resize(write, length);
    }

    pub(super) fn resize(&mut self, write: u64, length: u64) {
        if length != self.length {
            self.older_lengths.push((self.length_write, self.length));
            if self.older_lengths.len() > VERSIONS_MAX {
                self.older_lengths.remove(1);
            }
            self.length = length;
            self.length_write = write;
        }
    }

    fn put(&mut self, write: u64, sector: u64, content: Option<Content>) {
        let old = match content {
            Some(content) => self.sectors.insert(sector, content),
            None => self.sectors.remove(&sector),
        };
        let dirty = self.dirty.entry(sector).or_insert_with(|| Dirty { older: Vec::new(), current: 0, lost: false });
        dirty.older.push((dirty.current, old));
        if dirty.older.len() > VERSIONS_MAX {
            dirty.older.remove(1);
        }
        dirty.current = write;
        dirty.lost = false;
    }

    /// Reads `bytes.len()` bytes; the caller has checked that they lie within the file.
    pub(super) fn read(&self, position: u64, bytes: &mut [u8]) {
        bytes.fill(0);
        let end = position + bytes.len() as u64;
        for (sector, content) in self.sectors.range(position / SECTOR..end.div_ceil(SECTOR)) {
            let start = sector * SECTOR;
            let (from, to) = (start.max(position), (start + SECTOR).min(end));
            let at = |file: u64, base: u64| usize::try_from(file - base).expect("within a buffer");
            bytes[at(from, position)..at(to, position)].copy_from_slice(&content[at(from, start)..at(to, start)]);
        }
    }

    /// Makes durable what was written up to and with write number `upto`: all of it, or one range and the length.
    pub(super) fn sync(&mut self, upto: u64, range: Option<std::ops::Range<u64>>) {
        let sectors = match range {
            Some(range) => range.start / SECTOR..range.end.div_ceil(SECTOR),
            None => 0..u64::MAX,
        };
        let mut clean = Vec::new();
        for (sector, dirty) in self.dirty.range_mut(sectors).filter(|(_, dirty)| !dirty.lost) {
            if dirty.current <= upto {
                clean.push(*sector);
            } else if let Some(newest) = dirty.older.iter().rposition(|(write, _)| *write <= upto) {
                dirty.older.drain(..newest);
            }
        }
        for sector in clean {
            self.dirty.remove(&sector);
        }
        if self.length_write <= upto {
            self.older_lengths.clear();
        } else if let Some(newest) = self.older_lengths.iter().rposition(|(write, _)| *write <= upto) {
            self.older_lengths.drain(..newest);
        }
    }

    /// A sync of what was written up to and with number `upto` failed. False if there was nothing to sync.
    pub(super) fn lose(&mut self, upto: u64) -> bool {
        let mut some = false;
        for dirty in self.dirty.values_mut().filter(|dirty| dirty.current <= upto && !dirty.lost) {
            dirty.lost = true;
            some = true;
        }
        some
    }

    /// What was lost in a sync is read from the device again, which has any of the contents.
    pub(super) fn drop_lost(&mut self, world: &World) {
        let lost: Vec<u64> = self.dirty.iter().filter(|(_, dirty)| dirty.lost).map(|(sector, _)| *sector).collect();
        for sector in lost {
            let mut dirty = self.dirty.remove(&sector).expect("just listed");
            let choice = usize::try_from(world.below(dirty.older.len() as u64 + 1)).expect("an index");
            if choice < dirty.older.len() {
                match dirty.older.swap_remove(choice).1 {
                    Some(content) => self.sectors.insert(sector, content),
                    None => self.sectors.remove(&sector),
                };
            }
        }
        self.sectors.split_off(&self.length.div_ceil(SECTOR));
    }

    /// Everything is durable as it is.
    pub(super) fn settle(&mut self) {
        self.dirty.clear();
        self.older_lengths.clear();
    }

    /// Loses power: each dirty sector keeps one of the contents that may have reached the device. In one cut in four all
    /// of them are lost and in one in four all are kept, the rest is mixed.
    pub(super) fn power_cut(&mut self, world: &World) {
        let mood = world.below(4);
        let choose = |older: usize| match mood {
            0 => 0,
            1 => older,
            _ => usize::try_from(world.below(older as u64 + 1)).expect("an index"),
        };
        for (sector, mut dirty) in std::mem::take(&mut self.dirty) {
            let choice = choose(dirty.older.len());
            if choice == dirty.older.len() {
                continue;
            }
            match dirty.older.swap_remove(choice).1 {
                Some(content) => self.sectors.insert(sector, content),
                None => self.sectors.remove(&sector),
            };
        }
        let lengths = std::mem::take(&mut self.older_lengths);
        let choice = choose(lengths.len());
        if let Some((_, length)) = lengths.get(choice) {
            self.length = *length;
        }
        let beyond = self.length.div_ceil(SECTOR);
        self.sectors.split_off(&beyond);
        world.note(6, self.length ^ self.sectors.len() as u64);
    }
}
