//! What a node's simulated disk holds: files and directories, faults, and what a kill or a power cut leaves.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Component, Path};

use super::file_image::{FileImage, SECTOR};
use super::names::Names;
use super::world::World;
use crate::io::channel::OneshotSender;
use crate::io::{ALIGNMENT, DirEntry};

/// What goes wrong on a disk, and how long things take. Chances are "once in so many"; zero is never.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Nanoseconds of an operation, drawn evenly.
    pub latency_ns: Range<u64>,
    /// How often an operation takes `slow_ns` more.
    pub slow_one_in: u64,
    /// Nanoseconds of a slow operation.
    pub slow_ns: u64,
    /// How often a write fails with EIO; any of its sectors may have landed.
    pub write_error_one_in: u64,
    /// How often a write stops half-way (`WriteZero`).
    pub short_write_one_in: u64,
    /// How often a read fails with EIO.
    pub read_error_one_in: u64,
    /// How often a sync fails with EIO; nothing becomes durable by it.
    pub sync_error_one_in: u64,
    /// Writes fail, or stop half-way, only in files whose names contain this; empty: in all.
    pub files_named: &'static str,
    /// Bytes the disk holds.
    pub capacity: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            latency_ns: 20_000..200_000,
            slow_one_in: 0,
            slow_ns: 20_000_000,
            write_error_one_in: 0,
            short_write_one_in: 0,
            read_error_one_in: 0,
            sync_error_one_in: 0,
            files_named: "",
            capacity: u64::MAX,
        }
    }
}

const ROOT: u64 = 0;

pub(super) enum Content {
    Directory(Names),
    File(FileImage),
}

pub(super) struct Inode {
    /// The name it was made under.
    name: String,
    pub(super) content: Content,
    /// Bytes taken on the disk.
    pub(super) allocated: u64,
    pub(super) linked: bool,
    pub(super) open: u32,
    pub(super) locked_by: Option<u64>,
}

pub(super) struct WriteInFlight {
    pub(super) inode: u64,
    pub(super) position: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) durable: bool,
    pub(super) done: OneshotSender<io::Result<()>>,
}

/// The disk of a node. It outlives the node's processes.
pub(super) struct DiskState {
    pub(super) faults: Faults,
    pub(super) inodes: BTreeMap<u64, Inode>,
    pub(super) next_inode: u64,
    pub(super) next_handle: u64,
    /// Number of the last write that landed.
    pub(super) writes: u64,
    pub(super) in_flight: BTreeMap<u64, WriteInFlight>,
    pub(super) next_in_flight: u64,
    pub(super) used: u64,
    /// Grows whenever a process ends, so that its late destructors change nothing.
    pub(super) generation: u64,
}

impl DiskState {
    pub(super) fn new() -> Self {
        let root = Inode {
            name: String::new(),
            content: Content::Directory(Names::default()),
            allocated: 0,
            linked: true,
            open: 0,
            locked_by: None,
        };
        Self {
            faults: Faults::default(),
            inodes: BTreeMap::from([(ROOT, root)]),
            next_inode: 1,
            next_handle: 0,
            writes: 0,
            in_flight: BTreeMap::new(),
            next_in_flight: 0,
            used: 0,
            generation: 0,
        }
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.used
    }

    // -- names ---------------------------------------------------------------------------------------------------------

    pub(super) fn names(&self, inode: u64) -> io::Result<&Names> {
        match &self.inodes[&inode].content {
            Content::Directory(names) => Ok(names),
            Content::File(_) => Err(ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn names_mut(&mut self, inode: u64) -> io::Result<&mut Names> {
        match &mut self.inodes.get_mut(&inode).expect("a name leads to an inode").content {
            Content::Directory(names) => Ok(names),
            Content::File(_) => Err(ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<u64> {
        let mut inode = ROOT;
        for name in parts(path)? {
            inode = self.names(inode)?.find(name).ok_or(ErrorKind::NotFound)?;
        }
        Ok(inode)
    }

    /// The directory a path lies in, and its last name.
    fn find_parent<'a>(&self, path: &'a Path) -> io::Result<(u64, &'a str)> {
        let mut names = parts(path)?;
        let last = names.pop().ok_or(ErrorKind::InvalidInput)?;
        let mut inode = ROOT;
        for name in names {
            inode = self.names(inode)?.find(name).ok_or(ErrorKind::NotFound)?;
        }
        self.names(inode)?;
        Ok((inode, last))
    }

    fn make(&mut self, parent: u64, name: &str, content: Content) -> io::Result<u64> {
        let inode = self.next_inode;
        self.names_mut(parent)?.set(name, inode);
        self.next_inode += 1;
        self.inodes.insert(
            inode,
            Inode { name: name.to_owned(), content, allocated: 0, linked: true, open: 0, locked_by: None },
        );
        Ok(inode)
    }

    pub(super) fn find_or_make_file(&mut self, path: &Path, create: bool) -> io::Result<u64> {
        let (parent, name) = self.find_parent(path)?;
        match self.names(parent)?.find(name) {
            Some(inode) => match self.inodes[&inode].content {
                Content::File(_) => Ok(inode),
                Content::Directory(_) => Err(ErrorKind::IsADirectory.into()),
            },
            None if create => self.make(parent, name, Content::File(FileImage::default())),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut inode = ROOT;
        for name in parts(path)? {
            inode = match self.names(inode)?.find(name) {
                Some(found) => found,
                None => self.make(inode, name, Content::Directory(Names::default()))?,
            };
        }
        self.names(inode).map(|_| ())
    }

    pub(super) fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let names = self.names(self.find(path)?)?;
        let entries = names.iter().map(|(name, inode)| {
            let (is_dir, len) = match &self.inodes[&inode].content {
                Content::Directory(_) => (true, 0),
                Content::File(image) => (false, image.length()),
            };
            DirEntry { name: name.clone(), is_dir, len }
        });
        Ok(entries.collect())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.find(from)?;
        let (from_parent, from_name) = self.find_parent(from)?;
        let (to_parent, to_name) = self.find_parent(to)?;
        if let Some(replaced) = self.names(to_parent)?.find(to_name) {
            if replaced == inode {
                return Ok(());
            }
            if let Content::Directory(names) = &self.inodes[&replaced].content
                && !names.is_empty()
            {
                return Err(ErrorKind::DirectoryNotEmpty.into());
            }
            self.unlink(replaced);
        }
        if from_parent == to_parent {
            self.names_mut(from_parent)?.rename(from_name, to_name, inode);
        } else {
            // Two changes, each durable with its own directory: harsher than a journaling file system.
            self.names_mut(to_parent)?.set(to_name, inode);
            self.names_mut(from_parent)?.unset(from_name);
        }
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let inode = self.find(path)?;
        if let Content::Directory(_) = self.inodes[&inode].content {
            return Err(ErrorKind::IsADirectory.into());
        }
        let (parent, name) = self.find_parent(path)?;
        self.names_mut(parent)?.unset(name);
        self.unlink(inode);
        Ok(())
    }

    pub(super) fn remove_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let inode = self.find(path)?;
        let names: Vec<String> = self.names(inode)?.iter().map(|(name, _)| name.clone()).collect();
        for name in names {
            let below = path.join(name);
            match self.inodes[&self.find(&below)?].content {
                Content::Directory(_) => self.remove_dir_all(&below)?,
                Content::File(_) => self.remove_file(&below)?,
            }
        }
        let (parent, name) = self.find_parent(path)?;
        self.names_mut(parent)?.unset(name);
        self.unlink(inode);
        Ok(())
    }

    // -- files ---------------------------------------------------------------------------------------------------------

    pub(super) fn image(&self, inode: u64) -> &FileImage {
        match &self.inodes[&inode].content {
            Content::File(image) => image,
            Content::Directory(_) => unreachable!("only files are opened"),
        }
    }

    pub(super) fn image_mut(&mut self, inode: u64) -> &mut FileImage {
        match &mut self.inodes.get_mut(&inode).expect("an open file has an inode").content {
            Content::File(image) => image,
            Content::Directory(_) => unreachable!("only files are opened"),
        }
    }

    fn unlink(&mut self, inode: u64) {
        self.inodes.get_mut(&inode).expect("a name leads to an inode").linked = false;
        self.free_if_unused(inode);
    }

    /// Gives up the space of a file that has no name and that nobody has open. Its bytes stay, because its name may come
    /// back with a power cut.
    pub(super) fn free_if_unused(&mut self, inode: u64) {
        let inode = self.inodes.get_mut(&inode).expect("an inode of this disk");
        if !inode.linked && inode.open == 0 {
            self.used -= std::mem::take(&mut inode.allocated);
        }
    }

    /// Takes space for a file up to `end`.
    pub(super) fn take_space(&mut self, inode: u64, end: u64) -> io::Result<()> {
        let end = end.next_multiple_of(ALIGNMENT as u64);
        let inode = self.inodes.get_mut(&inode).expect("an open file has an inode");
        let more = end.saturating_sub(inode.allocated);
        if self.used.saturating_add(more) > self.faults.capacity {
            return Err(ErrorKind::StorageFull.into());
        }
        inode.allocated += more;
        self.used += more;
        Ok(())
    }

    pub(super) fn cut_space(&mut self, inode: u64, end: u64) {
        let end = end.next_multiple_of(ALIGNMENT as u64);
        let inode = self.inodes.get_mut(&inode).expect("an open file has an inode");
        self.used -= inode.allocated.saturating_sub(end);
        inode.allocated = inode.allocated.min(end);
    }

    pub(super) fn next_write(&mut self) -> u64 {
        self.writes += 1;
        self.writes
    }

    /// Lets a write reach the disk, with whatever goes wrong.
    pub(super) fn land(&mut self, id: u64, world: &World) {
        let Some(write) = self.in_flight.remove(&id) else { return };
        let mut length = write.bytes.len();
        let mut result = Ok(());
        let exposed = self.inodes[&write.inode].name.contains(self.faults.files_named);
        if exposed && world.one_in(self.faults.write_error_one_in) {
            self.tear(&write, world);
            length = 0;
            result = Err(eio());
        } else if exposed && world.one_in(self.faults.short_write_one_in) {
            length = usize::try_from(world.below(length as u64)).expect("less than a length");
            length = length / ALIGNMENT * ALIGNMENT;
            result = Err(io::Error::new(ErrorKind::WriteZero, "only a part was written"));
        }
        if let Err(full) = self.take_space(write.inode, write.position + length as u64) {
            (length, result) = (0, Err(full));
        }
        self.put(write.inode, write.position, &write.bytes[..length], write.durable);
        world.note(8, id ^ ((length as u64) << 32));
        // The writer may have stopped waiting.
        let _unwanted = write.done.send(result);
    }

    fn put(&mut self, inode: u64, position: u64, bytes: &[u8], durable: bool) {
        let write = self.next_write();
        let image = self.image_mut(inode);
        if !bytes.is_empty() {
            image.write(write, position, bytes);
        }
        if durable {
            image.sync(write, Some(position..position + bytes.len() as u64));
        }
    }

    /// Lets any of a write's sectors land, not durably.
    fn tear(&mut self, write: &WriteInFlight, world: &World) {
        let number = self.next_write();
        let mut landed = 0u64;
        for (index, chunk) in write.bytes.chunks(usize::try_from(SECTOR).expect("small")).enumerate() {
            if world.below(2) == 0 {
                let position = write.position + index as u64 * SECTOR;
                self.image_mut(write.inode).write(number, position, chunk);
                landed += 1;
            }
        }
        world.note(9, landed);
    }

    // -- the ends of processes -----------------------------------------------------------------------------------------

    /// All writes in flight land.
    pub(super) fn settle(&mut self, world: &World) {
        for write in self.take_in_flight() {
            self.put(write.inode, write.position, &write.bytes, write.durable);
        }
        self.close_all();
        world.note(10, self.writes);
    }

    /// Each write in flight lands or not; what has landed stays.
    pub(super) fn process_ended(&mut self, world: &World) {
        for write in self.take_in_flight() {
            if world.below(2) == 0 {
                self.put(write.inode, write.position, &write.bytes, write.durable);
            }
        }
        self.close_all();
        world.note(11, self.writes);
    }

    /// Only what was synced is certain.
    pub(super) fn power_cut(&mut self, world: &World) {
        for write in self.take_in_flight() {
            self.tear(&write, world);
        }
        self.close_all();
        for inode in self.inodes.values_mut() {
            match &mut inode.content {
                Content::Directory(names) => names.power_cut(world),
                Content::File(image) => image.power_cut(world),
            }
        }
        self.forget_unreachable();
    }

    fn take_in_flight(&mut self) -> Vec<WriteInFlight> {
        std::mem::take(&mut self.in_flight).into_values().collect()
    }

    fn close_all(&mut self) {
        self.generation += 1;
        let open: Vec<u64> = self.inodes.iter().filter(|(_, inode)| inode.open > 0).map(|(id, _)| *id).collect();
        for id in open {
            let inode = self.inodes.get_mut(&id).expect("just listed");
            (inode.open, inode.locked_by) = (0, None);
            self.free_if_unused(id);
        }
    }

    fn forget_unreachable(&mut self) {
        let mut reachable = BTreeMap::new();
        let mut waiting = vec![ROOT];
        while let Some(id) = waiting.pop() {
            if let Some(mut inode) = self.inodes.remove(&id) {
                match &inode.content {
                    Content::Directory(names) => waiting.extend(names.iter().map(|(_, inode)| inode)),
                    Content::File(image) => {
                        // What a journal of the file system would know: at least the bytes up to its length.
                        inode.allocated = image.length().next_multiple_of(ALIGNMENT as u64);
                    }
                }
                inode.linked = true;
                reachable.insert(id, inode);
            }
        }
        self.inodes = reachable;
        self.used = self.inodes.values().map(|inode| inode.allocated).sum();
    }

    pub(super) fn overwrite(&mut self, path: &Path, position: u64, bytes: &[u8]) {
        let inode = self.find(path).expect("the file to overwrite is there");
        let image = self.image(inode);
        assert!(position + bytes.len() as u64 <= image.length(), "the file to overwrite is long enough");
        let start = position / SECTOR * SECTOR;
        let end = (position + bytes.len() as u64).next_multiple_of(SECTOR);
        let length = image.length();
        let mut sectors = vec![0; usize::try_from(end - start).expect("a test's size")];
        let known = usize::try_from(end.min(length) - start).expect("a test's size");
        image.read(start, &mut sectors[..known]);
        let at = usize::try_from(position - start).expect("less than a sector");
        sectors[at..at + bytes.len()].copy_from_slice(bytes);
        self.put(inode, start, &sectors[..known], true);
    }
}

pub(super) fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

/// The names in a path; relative and absolute paths lead to the same place.
fn parts(path: &Path) -> io::Result<Vec<&str>> {
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => names.push(name.to_str().ok_or(ErrorKind::InvalidInput)?),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(ErrorKind::InvalidInput.into()),
        }
    }
    Ok(names)
}
