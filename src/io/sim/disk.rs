//! The doors to a node's simulated disk: each operation takes its time and happens somewhere within it.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::fd::RawFd;
use std::path::Path;
use std::rc::Rc;

use super::disk_state::{Content, DiskState, WriteInFlight, eio};
use super::world::{Event, World};
use crate::io::channel::oneshot;
use crate::io::{
    Buffer, DirEntry, FileLeft, FileWrite, Instant, Left, Mark, OpenOptions, SharedBuffer, Slice, align_up,
};

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

    pub(in crate::io) async fn open(&self, path: &Path, options: OpenOptions) -> io::Result<File> {
        self.take_time().await;
        let handle = {
            let mut state = self.state.borrow_mut();
            let inode = state.find_or_make_file(path, options.create)?;
            state.inodes.get_mut(&inode).expect("just found").open += 1;
            state.next_handle += 1;
            let (handle, generation) = (state.next_handle, state.generation);
            self.world.note(20, inode ^ (handle << 32));
            Handle { disk: self.clone(), inode, handle, generation, durable: options.durable }
        };
        let file = File(Rc::new(handle));
        self.take_time().await;
        Ok(file)
    }

    pub(in crate::io) async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.change(21, |state| state.create_dir_all(path)).await
    }

    pub(in crate::io) async fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.change(22, |state| state.read_dir(path)).await
    }

    pub(in crate::io) async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(23, |state| state.rename(from, to)).await
    }

    pub(in crate::io) async fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.change(24, |state| state.remove_file(path)).await
    }

    pub(in crate::io) async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
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
        self.fail_sync()?;
        self.state.borrow_mut().names_mut(inode)?.sync(mark);
        Ok(())
    }

    fn fail_sync(&self) -> io::Result<()> {
        let fails = self.world.one_in(self.state.borrow().faults.sync_error_one_in);
        self.world.note(27, u64::from(fails));
        if fails { Err(eio()) } else { Ok(()) }
    }

    pub(in crate::io) async fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let fails = self.world.one_in(self.state.borrow().faults.read_error_one_in);
        let read = |state: &mut DiskState| {
            let inode = state.find_or_make_file(path, false)?;
            let image = state.image(inode);
            let mut bytes = vec![0; usize::try_from(image.length()).map_err(|_| ErrorKind::FileTooLarge)?];
            image.read(0, &mut bytes);
            if fails { Err(eio()) } else { Ok(bytes) }
        };
        // A file is only looked for here; nothing is made.
        self.change(28, read).await
    }

    pub(in crate::io) async fn write_file(&self, path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
        let fails = {
            let faults = &self.state.borrow().faults;
            let exposed = path.to_str().is_some_and(|path| path.contains(faults.files_named));
            exposed && self.world.one_in(faults.write_error_one_in)
        };
        let write = |state: &mut DiskState| {
            let inode = state.find_or_make_file(path, true)?;
            state.take_space(inode, bytes.len() as u64)?;
            let number = state.next_write();
            state.image_mut(inode).truncate(number, 0);
            if fails {
                return Err(eio());
            }
            let number = state.next_write();
            let image = state.image_mut(inode);
            if !bytes.is_empty() {
                image.write(number, 0, bytes);
            }
            Ok((inode, number))
        };
        let (inode, number) = self.change(29, write).await?;
        if sync {
            self.fail_sync()?;
            self.state.borrow_mut().image_mut(inode).sync(number, None);
        }
        Ok(())
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

    async fn ensure_mark(&self, mark: &Mark) -> io::Result<()> {
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

    pub(in crate::io) async fn sync_filesystem(&self, path: &Path) -> io::Result<()> {
        let (upto, marks) = {
            let state = self.state.borrow();
            state.find(path)?;
            let marks = state.inodes.iter().filter_map(|(inode, entry)| match &entry.content {
                Content::Directory(names) => Some((*inode, names.mark())),
                Content::File(_) => None,
            });
            (state.writes, marks.collect::<Vec<_>>())
        };
        self.take_time().await;
        self.take_time().await;
        self.fail_sync()?;
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
        Ok(())
    }

    pub(in crate::io) async fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.take_time().await;
        let state = self.state.borrow();
        state.find(path)?;
        Ok(state.faults.capacity.saturating_sub(state.used))
    }

    pub(in crate::io) fn allocate(&self, length: usize) -> Buffer {
        Buffer::plain(length, &self.world.home(self.node))
    }

    pub(in crate::io) fn reclaim(&self) {
        self.world.home(self.node).reclaim();
    }

    pub(in crate::io) fn live_bytes(&self) -> usize {
        self.world.home(self.node).live_bytes()
    }
}

struct Handle {
    disk: Disk,
    inode: u64,
    handle: u64,
    generation: u64,
    durable: bool,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // A test that keeps a file beyond its process's end drops it here with nothing left to close; and a process
        // that ends while the disk is at work has closed it already.
        let Ok(mut state) = self.disk.state.try_borrow_mut() else { return };
        if state.generation != self.generation {
            return;
        }
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
            let bytes = buffer.device_view(range);
            state.in_flight.insert(id, WriteInFlight { inode, position, bytes, durable, done });
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
        let state = disk.state.borrow();
        if disk.world.one_in(state.faults.read_error_one_in) {
            disk.world.note(30, self.0.inode);
            return Err(eio());
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
        let disk = &self.0.disk;
        let upto = disk.state.borrow().writes;
        disk.take_time().await;
        disk.fail_sync()?;
        disk.state.borrow_mut().image_mut(self.0.inode).sync(upto, None);
        Ok(())
    }

    pub(in crate::io) async fn len(&self) -> io::Result<u64> {
        Ok(self.0.disk.state.borrow().image(self.0.inode).length())
    }

    pub(in crate::io) fn try_lock_exclusive(&self) -> io::Result<()> {
        let mut state = self.0.disk.state.borrow_mut();
        let inode = state.inodes.get_mut(&self.0.inode).expect("an open file has an inode");
        match inode.locked_by {
            Some(holder) if holder != self.0.handle => Err(ErrorKind::WouldBlock.into()),
            Some(_) | None => {
                inode.locked_by = Some(self.0.handle);
                Ok(())
            }
        }
    }

    pub(in crate::io) fn raw_fd(&self) -> RawFd {
        RawFd::try_from(self.0.handle).unwrap_or(RawFd::MAX)
    }

    pub(in crate::io) async fn close(self) -> io::Result<()> {
        let disk = self.0.disk.clone();
        drop(self);
        disk.take_time().await;
        Ok(())
    }
}
