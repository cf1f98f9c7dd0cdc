//! The doors to a node's simulated disk: each operation takes its time and happens somewhere within it.

use std::{
    cell::{Cell, RefCell},
    io::{self, ErrorKind},
    ops::Range,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    disk_state::{Bytes, Content, DiskState, WriteInFlight},
    faults::{Operation, errno, error, short_write},
    world::{Event, World},
};
use crate::{
    base::Timestamp,
    io::{
        ALIGNMENT, Buffer, DirEntry, DirectoryMark, FileLeft, FileWrite, Instant, Left, OpenOptions, SharedBuffer,
        Slice, align_up, channel::oneshot, memory::Home,
    },
};

/// A file system that is kept open: it hears once of each failed sync since then.
#[derive(Clone, Debug)]
pub struct Filesystem {
    path: PathBuf,
    seen_errors: Arc<AtomicU64>,
}

/// The door to a node's disk.
#[derive(Clone)]
pub struct Disk {
    world: Rc<World>,
    node: usize,
    state: Rc<RefCell<DiskState>>,
}

impl Disk {
    pub(super) fn new(world: Rc<World>, node: usize) -> Self {
        let state = world.disk(node);
        Self { world, node, state }
    }

    /// Lets an operation take its time.
    async fn take_time(&self) {
        let deadline = self.finish_time();
        super::Clock::new(self.world.clone()).sleep_until(deadline).await;
    }

    fn finish_time(&self) -> Instant {
        let state = self.state.borrow();
        let range = &state.faults.latency_ns;
        let mut latency = range.start + self.world.below(range.end.saturating_sub(range.start).max(1));
        if self.world.one_in(state.faults.slow_one_in) {
            latency += state.faults.slow_ns;
        }
        Instant(self.world.now().0 + latency)
    }

    /// An operation on names: it happens somewhere in the middle of the time that it takes.
    async fn change<R>(&self, kind: u64, change: impl FnOnce(&mut DiskState) -> io::Result<R>) -> io::Result<R> {
        self.take_time().await;
        let result = change(&mut self.state.borrow_mut());
        self.world.note(kind, u64::from(result.is_ok()));
        self.take_time().await;
        result
    }

    /// Fails, if this is the time for it.
    fn may_fail(&self, operation: Operation, path: &Path) -> io::Result<()> {
        let failure = self.state.borrow().faults.failure(&self.world, operation, &text(path));
        if let Some(failure) = failure {
            self.world.note(33, operation as u64);
            return Err(failure);
        }
        Ok(())
    }

    pub(in crate::io) async fn open(&self, path: &Path, options: OpenOptions) -> io::Result<File> {
        self.take_time().await;
        self.may_fail(Operation::Open, path)?;
        let handle = {
            let mut state = self.state.borrow_mut();
            if state.open_files >= state.faults.open_files_max {
                return Err(error(errno::EMFILE));
            }
            let inode = state.find_or_make_file(path, options.create)?;
            let entry = state.inodes.get_mut(&inode).expect("just found");
            entry.open += 1;
            let seen_errors = Cell::new(entry.sync_errors);
            state.open_files += 1;
            state.next_handle += 1;
            let (handle, generation) = (state.next_handle, state.generation);
            self.world.note(20, inode ^ (handle << 32));
            let path = text(path).into();
            Handle { disk: self.clone(), inode, path, handle, generation, durable: options.durable, seen_errors }
        };
        let file = File(Rc::new(handle));
        self.take_time().await;
        Ok(file)
    }

    pub(in crate::io) async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.may_fail(Operation::CreateDir, path)?;
        self.change(21, |state| state.create_dir_all(path)).await
    }

    pub(in crate::io) async fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.may_fail(Operation::ReadDir, path)?;
        self.change(22, |state| state.read_dir(path)).await
    }

    pub(in crate::io) async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.may_fail(Operation::Rename, from)?;
        self.change(23, |state| state.rename(from, to)).await
    }

    pub(in crate::io) async fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.may_fail(Operation::Remove, path)?;
        self.change(24, |state| state.remove_file(path)).await
    }

    pub(in crate::io) async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.may_fail(Operation::Remove, path)?;
        self.change(25, |state| state.remove_dir_all(path)).await
    }

    pub(in crate::io) async fn exists(&self, path: &Path) -> bool {
        self.change(26, |state| state.find(path)).await.is_ok()
    }

    pub(in crate::io) async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let (inode, mark) = {
            let state = self.state.borrow();
            let inode = state.find(path)?;
            (inode, state.names(inode)?.mark())
        };
        self.take_time().await;
        self.may_fail(Operation::Sync, path)?;
        self.state.borrow_mut().names_mut(inode)?.sync(mark);
        Ok(())
    }

    pub(in crate::io) async fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let failure = self.may_fail(Operation::Open, path).and_then(|()| self.may_fail(Operation::Read, path));
        let read = |state: &mut DiskState| {
            // A file is only looked for here; nothing is made.
            let inode = state.find_or_make_file(path, false)?;
            failure?;
            let image = state.image(inode);
            let mut bytes = vec![0; usize::try_from(image.length()).map_err(|_| ErrorKind::FileTooLarge)?];
            image.read(0, &mut bytes);
            Ok(bytes)
        };
        self.change(28, read).await
    }

    /// The steps of a thread, and what may come between them: the file is empty, then it has a part of the bytes.
    pub(in crate::io) async fn write_file(&self, path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
        self.may_fail(Operation::Open, path)?;
        let inode = self
            .change(29, |state| {
                let inode = state.find_or_make_file(path, true)?;
                let number = state.next_write();
                state.image_mut(inode).truncate(number, 0);
                state.cut_space(inode, 0);
                Ok(inode)
            })
            .await?;
        let failure = {
            let state = self.state.borrow();
            let failure = state.faults.failure(&self.world, Operation::Write, &text(path));
            failure.or_else(|| state.faults.is_short(&self.world, &text(path)).then(short_write))
        };
        // A killed thread ends between two pages.
        let pages = bytes.len().div_ceil(ALIGNMENT) as u64;
        let part = bytes.len().min(self.world.below(pages + 1) as usize * ALIGNMENT);
        let parts = if failure.is_some() { vec![&bytes[..part]] } else { vec![&bytes[..part], &bytes[part..]] };
        let mut position = 0;
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let write = |state: &mut DiskState| {
                state.take_space(inode, position + part.len() as u64)?;
                let number = state.next_write();
                state.image_mut(inode).write(number, position, part);
                Ok(())
            };
            self.change(34, write).await?;
            position += part.len() as u64;
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        if sync { self.sync_inode(inode, path).await } else { Ok(()) }
    }

    /// Makes durable what was written to a file before the call.
    async fn sync_inode(&self, inode: u64, path: &Path) -> io::Result<()> {
        let upto = self.state.borrow().writes;
        self.take_time().await;
        let failed = self.may_fail(Operation::Sync, path);
        let mut state = self.state.borrow_mut();
        match failed {
            Ok(()) => state.image_mut(inode).sync(upto, None),
            Err(_) => state.lose(&self.world, &[inode], upto),
        }
        failed
    }

    pub(in crate::io) async fn write_files(&self, files: Vec<FileWrite>) -> Vec<io::Result<u64>> {
        let mut results = Vec::with_capacity(files.len());
        for file in &files {
            results.push(self.write_whole(file).await);
        }
        results
    }

    pub(in crate::io) async fn leave_files(&self, files: Vec<FileLeft>) -> Result<(), (usize, io::Error)> {
        for (place, file) in files.iter().enumerate() {
            self.leave(file).await.map_err(|error| (place, error))?;
        }
        Ok(())
    }

    async fn leave(&self, FileLeft { path, left }: &FileLeft) -> io::Result<()> {
        match left {
            Left::Whole(bytes) => self.write_file(path, bytes, false).await,
            Left::Cut(length) => {
                let file = self.open(path, OpenOptions { create: true, durable: false }).await?;
                if file.len().await? == *length { Ok(()) } else { file.truncate(*length).await }
            }
        }
    }

    /// The single steps of a thread's job, each with a time and failures of its own.
    async fn write_whole(&self, write: &FileWrite) -> io::Result<u64> {
        write.check()?;
        if let Some(mark) = &write.mark {
            self.ensure_mark(mark).await?;
        }
        let file = self.open(&write.path, OpenOptions { create: true, durable: false }).await?;
        let (mut length, needed) = (file.len().await?, write.needed());
        if needed > length {
            let grown = (write.grown)(length, needed);
            if let Err(error) = file.allocate(length, grown - length).await {
                file.truncate(length).await?;
                return Err(error);
            }
            length = grown;
        }
        for piece in &write.pieces {
            file.write_range(piece.buffer.clone(), piece.range.clone(), piece.position).await?;
        }
        Ok(length)
    }

    async fn ensure_mark(&self, mark: &DirectoryMark) -> io::Result<()> {
        let directory = mark.path.parent().ok_or(ErrorKind::InvalidInput)?;
        match self.read_file(&mark.path).await {
            Ok(found) if found == mark.bytes => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound && !self.exists(directory).await => {
                self.create_dir_all(directory).await?;
                self.write_file(&mark.path, &mark.bytes, false).await
            }
            Ok(_) => Err(mark.is_another()),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(mark.is_another()),
            Err(error) => Err(error),
        }
    }

    pub(in crate::io) async fn open_filesystem(&self, path: &Path) -> io::Result<Filesystem> {
        self.take_time().await;
        self.may_fail(Operation::Open, path)?;
        let state = self.state.borrow();
        state.find(path)?;
        Ok(Filesystem { path: path.to_owned(), seen_errors: Arc::new(AtomicU64::new(state.sync_errors)) })
    }

    pub(in crate::io) async fn sync_filesystem(&self, filesystem: &Filesystem) -> io::Result<()> {
        let (upto, marks) = {
            let state = self.state.borrow();
            let marks = state.inodes.iter().filter_map(|(inode, entry)| match &entry.content {
                Content::Directory(names) => Some((*inode, names.mark())),
                Content::File(_) => None,
            });
            (state.writes, marks.collect::<Vec<_>>())
        };
        self.take_time().await;
        self.take_time().await;
        if let Err(failure) = self.may_fail(Operation::Sync, &filesystem.path) {
            let mut state = self.state.borrow_mut();
            let files: Vec<u64> = state.inodes.keys().copied().collect();
            state.lose(&self.world, &files, upto);
            filesystem.seen_errors.store(state.sync_errors, Ordering::Relaxed);
            return Err(failure);
        }
        let mut state = self.state.borrow_mut();
        for (inode, mark) in marks {
            if state.inodes.contains_key(&inode) {
                state.names_mut(inode)?.sync(mark);
            }
        }
        for entry in state.inodes.values_mut() {
            if let Content::File(image) = &mut entry.content {
                image.sync(upto, None);
            }
        }
        let seen_errors = filesystem.seen_errors.swap(state.sync_errors, Ordering::Relaxed);
        if state.sync_errors > seen_errors { Err(error(errno::EIO)) } else { Ok(()) }
    }

    pub(in crate::io) async fn modified(&self, path: &Path) -> io::Result<Timestamp> {
        self.take_time().await;
        let state = self.state.borrow();
        let modified = state.inodes[&state.find(path)?].modified;
        Ok(super::tasks::wall(modified))
    }

    pub(in crate::io) async fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.take_time().await;
        let state = self.state.borrow();
        state.find(path)?;
        Ok(state.faults.capacity.saturating_sub(state.used))
    }

    pub(in crate::io) async fn total_bytes(&self, path: &Path) -> io::Result<u64> {
        self.take_time().await;
        let state = self.state.borrow();
        state.find(path)?;
        Ok(state.faults.capacity)
    }

    pub(in crate::io) fn allocate(&self, length: usize) -> Buffer {
        Buffer::plain(length, &self.world.home(self.node))
    }

    pub(in crate::io) fn reclaim(&self) {
        self.world.home(self.node).reclaim();
    }

    #[cfg(test)]
    pub(in crate::io) fn live_bytes(&self) -> usize {
        self.home().live_bytes()
    }

    pub(in crate::io) fn home(&self) -> Arc<Home> {
        self.world.home(self.node)
    }
}

struct Handle {
    disk: Disk,
    inode: u64,
    /// What it was opened as.
    path: Rc<str>,
    handle: u64,
    generation: u64,
    durable: bool,
    /// Failed syncs of the file that this handle knows of.
    seen_errors: Cell<u64>,
}

impl Handle {
    fn path(&self) -> &Path {
        Path::new(&*self.path)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // A test that keeps a file beyond its process's end drops it here with nothing left to close; and a process
        // that ends while the disk is at work has closed it already.
        let Ok(mut state) = self.disk.state.try_borrow_mut() else { return };
        if state.generation != self.generation {
            return;
        }
        state.open_files -= 1;
        let Some(inode) = state.inodes.get_mut(&self.inode) else { return };
        inode.open -= 1;
        if inode.locked_by == Some(self.handle) {
            inode.locked_by = None;
        }
        state.free_if_unused(self.inode);
    }
}

/// An open file.
#[derive(Clone)]
pub struct File(Rc<Handle>);

impl File {
    pub(in crate::io) async fn write_range(
        &self,
        buffer: SharedBuffer,
        range: Range<usize>,
        position: u64,
    ) -> io::Result<()> {
        let disk = &self.0.disk;
        let (done, landed) = oneshot();
        {
            let mut state = disk.state.borrow_mut();
            if state.generation != self.0.generation {
                return Err(ErrorKind::NotConnected.into());
            }
            let (id, inode, durable) = (state.next_in_flight, self.0.inode, self.0.durable);
            state.next_in_flight += 1;
            let (bytes, path) = (Bytes::Of(buffer, range), self.0.path.clone());
            state.in_flight.insert(id, WriteInFlight { inode, path, position, bytes, durable, done, late: false });
            drop(state);
            let call = {
                let file = self.clone();
                // The file stays open until the write has landed.
                move |world: &Rc<World>| {
                    let state = file.0.disk.state.clone();
                    state.borrow_mut().land(id, world);
                    drop(file);
                }
            };
            disk.world.schedule(disk.finish_time().0, Event::Call(Box::new(call)));
        }
        match landed.await {
            Some(result) => result,
            // Its process has ended; whoever still asks belongs to a test.
            None => Err(ErrorKind::NotConnected.into()),
        }
    }

    pub(in crate::io) async fn read(&self, position: u64, length: usize) -> io::Result<Slice> {
        let disk = &self.0.disk;
        disk.take_time().await;
        disk.may_fail(Operation::Read, self.0.path())?;
        let state = disk.state.borrow();
        let end = position.saturating_add(length as u64);
        let path = text(self.0.path());
        let mut unreadable = state.faults.unreadable.iter().filter(|(named, _)| path.ends_with(named));
        if unreadable.any(|(_, bytes)| position < bytes.end && bytes.start < end) {
            return Err(io::Error::from_raw_os_error(errno::EIO));
        }
        let image = state.image(self.0.inode);
        if position.saturating_add(length as u64) > image.length() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let mut buffer = disk.allocate(align_up(length));
        image.read(position, &mut buffer.as_mut()[..length]);
        Ok(buffer.share().slice(0..length))
    }

    pub(in crate::io) async fn allocate(&self, from: u64, length: u64) -> io::Result<()> {
        self.0.disk.may_fail(Operation::Allocate, self.0.path())?;
        let inode = self.0.inode;
        let allocate = |state: &mut DiskState| {
            state.take_space(inode, from + length)?;
            if from + length > state.image(inode).length() {
                let number = state.next_write();
                state.image_mut(inode).resize(number, from + length);
            }
            Ok(())
        };
        self.0.disk.change(31, allocate).await
    }

    pub(in crate::io) async fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.disk.may_fail(Operation::Truncate, self.0.path())?;
        let inode = self.0.inode;
        let truncate = |state: &mut DiskState| {
            let number = state.next_write();
            state.image_mut(inode).truncate(number, length);
            state.cut_space(inode, length);
            Ok(())
        };
        self.0.disk.change(32, truncate).await
    }

    pub(in crate::io) async fn sync(&self) -> io::Result<()> {
        let (disk, inode) = (&self.0.disk, self.0.inode);
        let result = disk.sync_inode(inode, self.0.path()).await;
        let errors = disk.state.borrow().inodes.get(&inode).map_or(0, |inode| inode.sync_errors);
        if self.0.seen_errors.replace(errors) < errors && result.is_ok() {
            return Err(error(errno::EIO));
        }
        result
    }

    pub(in crate::io) async fn len(&self) -> io::Result<u64> {
        Ok(self.0.disk.state.borrow().image(self.0.inode).length())
    }

    pub(in crate::io) fn try_lock_exclusive(&self) -> io::Result<()> {
        self.0.disk.state.borrow_mut().lock(self.0.inode, self.0.handle)
    }

    #[cfg(test)]
    pub(in crate::io) fn raw_fd(&self) -> std::os::fd::RawFd {
        self.0.handle.try_into().unwrap_or(std::os::fd::RawFd::MAX)
    }

    pub(in crate::io) async fn close(self) -> io::Result<()> {
        let disk = self.0.disk.clone();
        drop(self);
        disk.take_time().await;
        Ok(())
    }
}

fn text(path: &Path) -> std::borrow::Cow<'_, str> {
    path.to_string_lossy()
}
