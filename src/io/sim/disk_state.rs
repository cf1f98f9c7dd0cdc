//! What a node's simulated disk holds: files and directories, faults, and what a kill or a power cut leaves.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, ErrorKind},
    ops::Range,
    path::{Component, Path, PathBuf},
    rc::Rc,
};

use super::{
    faults::{Faults, Operation, errno, error, short_write},
    file_image::{FileImage, SECTOR},
    names::Names,
    world::World,
};
use crate::io::{ALIGNMENT, DirEntry, Instant, SharedBuffer, channel::OneshotSender};

pub(super) const ROOT: u64 = 0;

/// Bytes of the longest name.
const NAME_BYTES_MAX: usize = 255;

#[derive(Clone)]
pub(super) enum Content {
    Directory(Names),
    File(FileImage),
}

#[derive(Clone)]
pub(super) struct Inode {
    pub(super) content: Content,
    /// Bytes taken on the disk.
    pub(super) allocated: u64,
    pub(super) linked: bool,
    pub(super) open: u32,
    pub(super) locked_by: Option<u64>,
    /// How often bytes of it were lost in a sync: whoever has it open hears of each once.
    pub(super) sync_errors: u64,
    /// When it was written to last.
    pub(super) modified: Instant,
}

impl Inode {
    fn new(content: Content) -> Self {
        Self {
            content,
            allocated: 0,
            linked: true,
            open: 0,
            locked_by: None,
            sync_errors: 0,
            modified: Instant::default(),
        }
    }
}

/// A name that was taken away on purpose: not by a power cut, and not by rot.
#[derive(Clone, Debug)]
pub enum NameTaken {
    /// What had it was removed.
    Removed(PathBuf),
    /// What had the first has the second now.
    Renamed(PathBuf, PathBuf),
}

/// What a write puts on the disk.
pub(super) enum Bytes {
    /// What the buffer holds when the device gets to it.
    Of(SharedBuffer, Range<usize>),
    /// What it held when its process was killed.
    Left(Vec<u8>),
}

impl Bytes {
    fn now(&self) -> Vec<u8> {
        match self {
            Self::Of(buffer, range) => buffer.device_view(range.clone()),
            Self::Left(bytes) => bytes.clone(),
        }
    }
}

pub(super) struct WriteInFlight {
    pub(super) inode: u64,
    pub(super) path: Rc<str>,
    pub(super) position: u64,
    pub(super) bytes: Bytes,
    pub(super) durable: bool,
    pub(super) done: OneshotSender<io::Result<()>>,
    /// Its process was killed.
    pub(super) late: bool,
}

/// The disk of a node. It outlives the node's processes.
pub(super) struct DiskState {
    pub(super) faults: Faults,
    pub(super) inodes: BTreeMap<u64, Inode>,
    pub(super) names_taken: Vec<NameTaken>,
    pub(super) next_inode: u64,
    pub(super) next_handle: u64,
    /// Number of the last write that landed.
    pub(super) writes: u64,
    pub(super) in_flight: BTreeMap<u64, WriteInFlight>,
    pub(super) next_in_flight: u64,
    /// Files that killed processes had locked: they stay so until the last of their writes has landed.
    pub(super) left_locked: BTreeSet<u64>,
    /// How often bytes were lost in a sync, of any file.
    pub(super) sync_errors: u64,
    /// Files that the present process has open, each as often as it does.
    pub(super) open_files: u64,
    pub(super) used: u64,
    /// Grows whenever a process ends, so that its late destructors change nothing.
    pub(super) generation: u64,
}

impl DiskState {
    pub(super) fn new() -> Self {
        let root = Inode::new(Content::Directory(Names::default()));
        Self {
            faults: Faults::default(),
            inodes: BTreeMap::from([(ROOT, root)]),
            names_taken: Vec::new(),
            next_inode: 1,
            next_handle: 0,
            writes: 0,
            in_flight: BTreeMap::new(),
            next_in_flight: 0,
            left_locked: BTreeSet::new(),
            sync_errors: 0,
            open_files: 0,
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
    pub(super) fn find_parent<'a>(&self, path: &'a Path) -> io::Result<(u64, &'a str)> {
        let mut names = parts(path)?;
        let last = names.pop().ok_or(ErrorKind::InvalidInput)?;
        let mut inode = ROOT;
        for name in names {
            inode = self.names(inode)?.find(name).ok_or(ErrorKind::NotFound)?;
        }
        self.names(inode)?;
        Ok((inode, last))
    }

    pub(super) fn make(&mut self, parent: u64, name: &str, content: Content) -> io::Result<u64> {
        if name.len() > NAME_BYTES_MAX {
            return Err(error(errno::ENAMETOOLONG));
        }
        let inode = self.next_inode;
        self.names_mut(parent)?.set(name, inode);
        self.next_inode += 1;
        self.inodes.insert(inode, Inode::new(content));
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
        if to_name.len() > NAME_BYTES_MAX {
            return Err(error(errno::ENAMETOOLONG));
        }
        if let Some(replaced) = self.names(to_parent)?.find(to_name) {
            if replaced == inode {
                return Ok(());
            }
            match (&self.inodes[&inode].content, &self.inodes[&replaced].content) {
                (Content::File(_), Content::File(_)) => {}
                (Content::File(_), Content::Directory(_)) => return Err(ErrorKind::IsADirectory.into()),
                (Content::Directory(_), Content::File(_)) => return Err(ErrorKind::NotADirectory.into()),
                (Content::Directory(_), Content::Directory(names)) => {
                    if !names.is_empty() {
                        return Err(ErrorKind::DirectoryNotEmpty.into());
                    }
                }
            }
            self.unlink(replaced);
        }
        self.names_taken.push(NameTaken::Renamed(from.to_owned(), to.to_owned()));
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
        self.names_taken.push(NameTaken::Removed(path.to_owned()));
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
        self.names_taken.push(NameTaken::Removed(path.to_owned()));
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
            return Err(self.faults.full());
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
        let bytes = write.bytes.now();
        let mut length = bytes.len();
        let mut result = Ok(());
        if let Some(failure) = self.faults.failure(world, Operation::Write, &write.path) {
            self.tear(&write, world);
            length = 0;
            result = Err(failure);
        } else if self.faults.is_short(world, &write.path) {
            length = usize::try_from(world.below(length as u64)).expect("less than a length");
            length = length / ALIGNMENT * ALIGNMENT;
            result = Err(short_write());
        }
        if let Err(full) = self.take_space(write.inode, write.position + length as u64) {
            (length, result) = (0, Err(full));
        }
        self.put(write.inode, write.position, &bytes[..length], write.durable);
        self.inodes.get_mut(&write.inode).expect("an open file has an inode").modified = world.now();
        world.note(8, id ^ ((length as u64) << 32));
        if write.late {
            self.inodes.get_mut(&write.inode).expect("a late write has its file").open -= 1;
            self.free_if_unused(write.inode);
            if !self.in_flight.values().any(|write| write.late) {
                self.left_locked.clear();
            }
        }
        // The writer may have stopped waiting.
        let _unwanted = write.done.send(result);
    }

    pub(super) fn lock(&mut self, inode: u64, handle: u64) -> io::Result<()> {
        if self.left_locked.contains(&inode) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let inode = self.inodes.get_mut(&inode).expect("an open file has an inode");
        match inode.locked_by {
            Some(holder) if holder != handle => Err(ErrorKind::WouldBlock.into()),
            Some(_) | None => {
                inode.locked_by = Some(handle);
                Ok(())
            }
        }
    }

    /// A sync of files fails as Linux has it: what was to become durable counts as clean from now on, so that no later sync
    /// makes it durable; some of it may be gone at once. Each open file hears of it once.
    pub(super) fn lose(&mut self, world: &World, inodes: &[u64], upto: u64) {
        let gone_at_once = world.one_in(2);
        for id in inodes {
            let Some(inode) = self.inodes.get_mut(id) else { continue };
            let Content::File(image) = &mut inode.content else { continue };
            if image.lose(upto) {
                inode.sync_errors += 1;
                if gone_at_once {
                    image.drop_lost(world);
                }
            }
        }
        self.sync_errors += 1;
    }

    pub(super) fn put(&mut self, inode: u64, position: u64, bytes: &[u8], durable: bool) {
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
        for (index, chunk) in write.bytes.now().chunks(usize::try_from(SECTOR).expect("small")).enumerate() {
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
            self.put(write.inode, write.position, &write.bytes.now(), write.durable);
        }
        self.close_all();
        world.note(10, self.writes);
    }

    /// A process is about to be killed: what it has locked stays so for as long as writes of it are in flight.
    pub(super) fn process_ends(&mut self) {
        let locked = self.inodes.iter().filter(|(_, inode)| inode.locked_by.is_some()).map(|(id, _)| *id);
        self.left_locked.extend(locked.collect::<Vec<_>>());
    }

    /// Each write in flight lands now, or never, or late: when a successor may have begun. What has landed stays.
    pub(super) fn process_ended(&mut self, world: &World) {
        let mut late = BTreeMap::new();
        for (id, mut write) in std::mem::take(&mut self.in_flight) {
            match world.below(3) {
                _ if write.late => drop(late.insert(id, write)),
                0 => self.put(write.inode, write.position, &write.bytes.now(), write.durable),
                1 => {}
                _ => {
                    write.bytes = Bytes::Left(write.bytes.now());
                    write.late = true;
                    late.insert(id, write);
                }
            }
        }
        if late.is_empty() {
            self.left_locked.clear();
        }
        self.in_flight = late;
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
        self.left_locked.clear();
        std::mem::take(&mut self.in_flight).into_values().collect()
    }

    fn close_all(&mut self) {
        self.generation += 1;
        self.open_files = 0;
        let mut late: BTreeMap<u64, u32> = BTreeMap::new();
        for write in self.in_flight.values() {
            *late.entry(write.inode).or_default() += 1;
        }
        let open: Vec<u64> = self.inodes.iter().filter(|(_, inode)| inode.open > 0).map(|(id, _)| *id).collect();
        for id in open {
            let inode = self.inodes.get_mut(&id).expect("just listed");
            (inode.open, inode.locked_by) = (late.get(&id).copied().unwrap_or(0), None);
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
