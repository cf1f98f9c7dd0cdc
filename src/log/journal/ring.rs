//! The files of one core's journal: zero-filled in advance, written round and round.
//!
//! Writing over a block that has been written before costs a third of extending a file, so a file is filled with zeros
//! before it is used. The ring begins small and grows in the background up to its bound.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use crate::{
    io::{File, Io, OpenOptions, channel::Notify, is_full, is_passing},
    log::{names::journal_name, space::Space},
};

/// Zeros are written in pieces of this size.
const ZERO_BYTES: usize = 1 << 20;

/// How long a lock is waited for that recovery or a killed process has held.
const LOCK_TRIES: usize = 200;
const LOCK_DELAY: Duration = Duration::from_millis(5);

/// A journal file with both of its descriptors.
pub struct RingFile {
    number: usize,
    path: PathBuf,
    size: u64,
    /// Opened with O_DSYNC: a completed write is on stable storage.
    pub durable: File,
    /// Without: the device has it.
    pub plain: File,
}

/// Where a block goes.
pub struct Place {
    pub file: Rc<RingFile>,
    pub position: u64,
}

pub struct Ring {
    io: Io,
    directory: PathBuf,
    core: usize,
    file_bytes: u64,
    max_bytes: u64,
    space: Rc<Space>,
    state: RefCell<State>,
    growing: Cell<bool>,
    /// The last attempt to grow met a full disk; tried again after the next checkpoint.
    full: Cell<bool>,
    pub changed: Notify,
}

#[derive(Default)]
struct State {
    free: VecDeque<Rc<RingFile>>,
    active: Option<(Rc<RingFile>, u64)>,
    /// Files that are full, with the sequence of their last block.
    full: VecDeque<(Rc<RingFile>, u64)>,
    last_sequence: u64,
    total_bytes: u64,
    next_number: usize,
}

impl Ring {
    pub fn new(io: &Io, directory: &Path, core: usize, file_bytes: u64, max_bytes: u64, space: Rc<Space>) -> Self {
        Self {
            io: io.clone(),
            directory: directory.to_owned(),
            core,
            file_bytes,
            max_bytes,
            space,
            state: RefCell::default(),
            growing: Cell::new(false),
            full: Cell::new(false),
            changed: Notify::new(),
        }
    }

    /// Opens the files that an earlier life has left and makes what is missing up to `start_bytes`.
    pub async fn open(&self, existing: &[(usize, u64)], start_bytes: u64) -> io::Result<()> {
        for &(number, size) in existing {
            let path = self.directory.join(journal_name(self.core, number));
            let usable = size >= self.file_bytes && self.total_bytes() + size <= self.max_bytes;
            if usable {
                let file = self.open_file(number, path, size).await?;
                self.add(file);
            } else {
                self.io.disk.remove_file(&path).await?;
            }
            let mut state = self.state.borrow_mut();
            state.next_number = state.next_number.max(number + 1);
        }
        while self.total_bytes() < start_bytes.min(self.max_bytes) {
            self.make(self.file_bytes).await?;
        }
        Ok(())
    }

    fn add(&self, file: RingFile) {
        let mut state = self.state.borrow_mut();
        state.total_bytes += file.size;
        state.free.push_back(Rc::new(file));
        drop(state);
        self.changed.notify_all();
    }

    async fn open_file(&self, number: usize, path: PathBuf, size: u64) -> io::Result<RingFile> {
        let disk = &self.io.disk;
        let durable = disk.open(&path, OpenOptions { create: false, durable: true }).await?;
        self.lock(&durable).await?;
        let plain = disk.open(&path, OpenOptions { create: false, durable: false }).await?;
        Ok(RingFile { number, path, size, durable, plain })
    }

    /// Held until the last write in flight is done, also when the process is killed: whoever comes next waits for it.
    async fn lock(&self, file: &File) -> io::Result<()> {
        let mut tries = 0;
        loop {
            match file.try_lock_exclusive() {
                // Recovery held the lock until a moment ago, and closing a file takes its time.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && tries < LOCK_TRIES => {
                    tries += 1;
                    self.io.clock.sleep(LOCK_DELAY).await;
                }
                other => return other,
            }
        }
    }

    /// Makes a file of zeros and adds it to the free ones.
    async fn make(&self, size: u64) -> io::Result<()> {
        let number = {
            let mut state = self.state.borrow_mut();
            state.next_number += 1;
            state.next_number - 1
        };
        let path = self.directory.join(journal_name(self.core, number));
        let made = self.fill(&path, size).await;
        if made.is_err() {
            // Half a file is of no use; if even this fails the next start removes it.
            let _ = self.io.disk.remove_file(&path).await;
        }
        made?;
        let file = self.open_file(number, path, size).await?;
        self.add(file);
        Ok(())
    }

    async fn fill(&self, path: &Path, size: u64) -> io::Result<()> {
        let disk = &self.io.disk;
        let file = disk.open(path, OpenOptions { create: true, durable: false }).await?;
        file.allocate(0, size).await?;
        let zeros = disk.allocate(ZERO_BYTES.min(size as usize)).share();
        let mut position = 0;
        while position < size {
            let part = (size - position).min(zeros.len() as u64) as usize;
            file.write_range(zeros.clone(), 0..part, position).await?;
            position += part as u64;
        }
        file.sync().await?;
        disk.sync_dir(&self.directory).await?;
        file.close().await
    }

    /// Finds room for a block, growing the ring or waiting until a checkpoint has freed a file.
    /// `wanted` is called when a checkpoint is needed.
    pub async fn place(&self, bytes: u64, sequence: u64, wanted: impl Fn()) -> io::Result<Place> {
        loop {
            // Taken up before the look, so that no change in between is missed.
            let changed = self.changed.notified();
            if let Some(place) = self.try_place(bytes, sequence) {
                return Ok(place);
            }
            if self.growing.get() {
                changed.await;
                continue;
            }
            self.drop_free_for(bytes).await?;
            let tried = self.full.get() && self.total_bytes() > 0;
            if self.may_grow(bytes) && !tried {
                match self.grow(bytes.next_multiple_of(self.file_bytes)).await {
                    Ok(()) => continue,
                    // A full disk, or too many open files, is no reason to die: what is in the ring is freed by the next
                    // checkpoint. Until then nobody tries again: an attempt that fails rings for all, and for itself.
                    Err(error) if (is_full(&error) || is_passing(&error)) && self.total_bytes() > 0 => {
                        self.full.set(true)
                    }
                    Err(error) => return Err(error),
                }
            }
            wanted();
            changed.await;
        }
    }

    /// Makes one more file of what no append has been promised.
    async fn grow(&self, size: u64) -> io::Result<()> {
        let growing = Growing::begin(self);
        let promised = self.space.promise_to_journal(size).await;
        // Without any file there is nothing that a checkpoint could free.
        if !promised && self.total_bytes() > 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let made = self.make(size).await;
        if promised {
            self.space.kept_to_journal(size, made.is_ok());
        }
        drop(growing);
        made
    }

    /// Room for a block in the active file or a free one.
    pub fn try_place(&self, bytes: u64, sequence: u64) -> Option<Place> {
        let mut state = self.state.borrow_mut();
        let fits = state.active.as_ref().is_some_and(|(file, position)| position + bytes <= file.size);
        if !fits {
            let index = state.free.iter().position(|file| file.size >= bytes)?;
            let next = state.free.remove(index).expect("the index was just found");
            let last_sequence = state.last_sequence;
            if let Some((file, _)) = state.active.replace((next, 0)) {
                state.full.push_back((file, last_sequence));
            }
        }
        state.last_sequence = sequence;
        let (file, position) = state.active.as_mut().expect("set above");
        let place = Place { file: file.clone(), position: *position };
        *position += bytes;
        Some(place)
    }

    /// Bytes of the file that must be made so that a block of `bytes` has one to go to. `None` if there is one.
    pub fn missing_for(&self, bytes: u64) -> Option<u64> {
        let enough = bytes <= self.file_bytes || self.largest() >= bytes;
        (!enough).then(|| bytes.next_multiple_of(self.file_bytes))
    }

    fn largest(&self) -> u64 {
        let state = self.state.borrow();
        let busy = state.full.iter().map(|(file, _)| file).chain(state.active.iter().map(|(file, _)| file));
        state.free.iter().chain(busy).map(|file| file.size).max().unwrap_or_default()
    }

    /// Makes sure, before a batch is accepted, that its block of `bytes` will find a file that is large enough: when it is
    /// in the journal's row nothing else can be written before it, and a checkpoint would free no file of its size.
    /// The ring may become larger than its bound for as long as its small files are in use.
    pub async fn ensure(&self, bytes: u64) -> io::Result<()> {
        while let Some(size) = self.missing_for(bytes) {
            let changed = self.changed.notified();
            if self.growing.get() {
                changed.await;
                continue;
            }
            let growing = Growing::begin(self);
            self.make(size).await?;
            drop(growing);
        }
        self.trim().await
    }

    /// Gives up free files while the ring is larger than its bound, small ones first and never the largest.
    pub async fn trim(&self) -> io::Result<()> {
        while self.total_bytes() > self.max_bytes {
            let file = {
                let largest = self.largest();
                let mut state = self.state.borrow_mut();
                let smallest = (0..state.free.len()).min_by_key(|index| state.free[*index].size);
                let file = smallest.filter(|index| state.free[*index].size < largest);
                let Some(file) = file.and_then(|index| state.free.remove(index)) else { return Ok(()) };
                state.total_bytes -= file.size;
                file
            };
            self.io.disk.remove_file(&file.path).await?;
        }
        Ok(())
    }

    fn may_grow(&self, bytes: u64) -> bool {
        let total = self.total_bytes();
        total == 0 || total + bytes.next_multiple_of(self.file_bytes) <= self.max_bytes
    }

    /// Gives up free files that are too small for a large block, so that the ring stays within its bound.
    async fn drop_free_for(&self, bytes: u64) -> io::Result<()> {
        while !self.may_grow(bytes) {
            let Some(file) = self.take_free() else { return Ok(()) };
            self.io.disk.remove_file(&file.path).await?;
        }
        Ok(())
    }

    fn take_free(&self) -> Option<Rc<RingFile>> {
        let mut state = self.state.borrow_mut();
        let file = state.free.pop_front()?;
        state.total_bytes -= file.size;
        Some(file)
    }

    /// Adds a file in the background before the last free one is taken. An error waits for `place` to report it.
    pub async fn grow_ahead(&self) {
        let wanted = self.state.borrow().free.is_empty() && self.may_grow(self.file_bytes) && self.total_bytes() > 0;
        if wanted
            && !self.growing.get()
            && let Err(error) = self.grow(self.file_bytes).await
        {
            tracing::warn!(%error, core = self.core, "the journal could not grow");
            self.full.set(true);
        }
    }

    pub fn wants_to_grow(&self) -> bool {
        self.state.borrow().free.is_empty() && !self.growing.get() && !self.full.get() && self.may_grow(self.file_bytes)
    }

    /// A checkpoint covers every block below `sequence`.
    pub fn free_below(&self, sequence: u64) {
        self.full.set(false);
        let mut state = self.state.borrow_mut();
        while let Some((file, _)) = state.full.pop_front_if(|(_, last)| *last < sequence) {
            state.free.push_back(file);
        }
        if state.last_sequence < sequence
            && let Some((file, _)) = state.active.take()
        {
            state.free.push_back(file);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The files with blocks from `sequence` on.
    pub fn files_since(&self, sequence: u64) -> Vec<Rc<RingFile>> {
        let state = self.state.borrow();
        let full = state.full.iter().filter(|(_, last)| *last >= sequence).map(|(file, _)| file.clone());
        full.chain(state.active.as_ref().map(|(file, _)| file.clone())).collect()
    }

    pub fn total_bytes(&self) -> u64 {
        self.state.borrow().total_bytes
    }

    /// Bytes that no checkpoint has freed.
    pub fn used_bytes(&self) -> u64 {
        let state = self.state.borrow();
        let full: u64 = state.full.iter().map(|(file, _)| file.size).sum();
        full + state.active.as_ref().map_or(0, |(_, position)| *position)
    }

    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Closes every file, one that is being made as well: its lock would keep the next life out.
    pub async fn close(&self) -> io::Result<()> {
        while self.growing.get() {
            self.changed.notified().await;
        }
        let state = self.state.take();
        let files = state.free.into_iter().chain(state.active.map(|(file, _)| file));
        for file in files.chain(state.full.into_iter().map(|(file, _)| file)) {
            if let Ok(file) = Rc::try_unwrap(file) {
                file.durable.close().await?;
                file.plain.close().await?;
            }
        }
        Ok(())
    }
}

/// A file is being made. Given up when dropped, so that a cancelled append keeps nobody from growing.
struct Growing<'a>(&'a Ring);

impl<'a> Growing<'a> {
    fn begin(ring: &'a Ring) -> Self {
        ring.growing.set(true);
        Self(ring)
    }
}

impl Drop for Growing<'_> {
    fn drop(&mut self) {
        self.0.growing.set(false);
        self.0.changed.notify_all();
    }
}

impl RingFile {
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn number(&self) -> usize {
        self.number
    }

    pub fn size(&self) -> u64 {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sim::{Faults, Simulation};

    const FILE: u64 = 64 << 10;

    #[test]
    fn the_ring_grows_of_what_no_append_was_promised() {
        let simulation = Simulation::new(1);
        simulation.set_faults(0, Faults { capacity: 8 * FILE, ..Faults::default() });
        simulation.block_on(0, 0, |io| async move {
            let directory = Path::new("data");
            io.disk.create_dir_all(directory).await.unwrap();
            let space = Rc::new(Space::new(&io, directory.into(), 1, 0));
            let ring = Rc::new(Ring::new(&io, directory, 0, FILE, 4 * FILE, space.clone()));
            ring.open(&[], FILE).await.unwrap();
            space.refresh().await;
            let mut promised = 0;
            while space.try_promise(4096) {
                promised += 4096;
            }
            ring.place(FILE, 0, || ()).await.unwrap();
            // Before the one block that is written is covered by a checkpoint there is no room: that is waited for, not tried
            // again and again.
            let (asked, placed) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
            let (waits, asks, done) = (ring.clone(), asked.clone(), placed.clone());
            io.spawner.spawn(async move {
                let ask = || {
                    asks.set(asks.get() + 1);
                    assert!(asks.get() < 100, "it asks for a checkpoint over and over");
                };
                waits.place(FILE, 1, ask).await.unwrap();
                done.set(true);
            });
            io.clock.sleep(Duration::from_secs(5)).await;
            assert!(asked.get() > 0 && !placed.get());
            ring.grow_ahead().await;
            assert_eq!(ring.total_bytes(), FILE, "it has taken what was promised");
            // So the next finds room without a second file.
            ring.free_below(1);
            io.clock.sleep(Duration::from_secs(5)).await;
            assert!(placed.get());
            space.give_back(FILE);
            assert!(ring.wants_to_grow());
            ring.grow_ahead().await;
            assert_eq!(ring.total_bytes(), 2 * FILE);
            assert!(!space.try_promise(4096), "the file was made of what was given back");
            let file =
                io.disk.open(Path::new("data/promised"), OpenOptions { create: true, durable: false }).await.unwrap();
            file.allocate(0, promised - FILE).await.expect("what was promised is there");
        });
    }
}
