//! Rot: what lies on a node's disk is changed behind everybody's back, durably, between two lives.

use std::path::{Path, PathBuf};

use super::{
    Simulation,
    disk_state::{Content, DiskState, Inode, ROOT},
    file_image::{FileImage, SECTOR},
    names::Names,
};

/// Everything that lay on a disk at some moment.
#[derive(Clone)]
pub struct Saved {
    inodes: std::collections::BTreeMap<u64, Inode>,
    used: u64,
}

impl Simulation {
    /// All files of a node's disk, by path, and how long they are.
    #[must_use]
    pub fn files(&self, node: usize) -> Vec<(PathBuf, u64)> {
        let mut files = Vec::new();
        self.world.disk(node).borrow().list(ROOT, &mut PathBuf::new(), &mut |path, content| {
            if let Content::File(image) = content {
                files.push((path.to_owned(), image.length()));
            }
        });
        files
    }

    /// All directories of a node's disk, by path.
    #[must_use]
    pub fn directories(&self, node: usize) -> Vec<PathBuf> {
        let mut directories = Vec::new();
        self.world.disk(node).borrow().list(ROOT, &mut PathBuf::new(), &mut |path, content| {
            if let Content::Directory(_) = content {
                directories.push(path.to_owned());
            }
        });
        directories
    }

    /// What a file holds.
    /// # Panics
    /// If there is no such file.
    #[must_use]
    pub fn bytes_at_rest(&self, node: usize, path: &Path) -> Vec<u8> {
        let disk = self.world.disk(node);
        let state = disk.borrow();
        let image = state.image(state.find(path).expect("the file is there"));
        let mut bytes = vec![0; usize::try_from(image.length()).expect("a test's size")];
        image.read(0, &mut bytes);
        bytes
    }

    /// Overwrites bytes of a file.
    /// # Panics
    /// If there is no such file or it is too short.
    pub fn overwrite(&self, node: usize, path: &Path, position: u64, bytes: &[u8]) {
        self.world.disk(node).borrow_mut().overwrite(path, position, bytes);
    }

    /// Flips one bit of a file.
    /// # Panics
    /// If there is no such file or it is too short.
    pub fn flip_bit(&self, node: usize, path: &Path, bit: u64) {
        let mut byte = self.bytes_at_rest(node, path)[usize::try_from(bit / 8).expect("a test's size")];
        byte ^= 1 << (bit % 8);
        self.overwrite(node, path, bit / 8, &[byte]);
    }

    /// Cuts a file.
    /// # Panics
    /// If there is no such file.
    pub fn cut(&self, node: usize, path: &Path, length: u64) {
        let disk = self.world.disk(node);
        let mut state = disk.borrow_mut();
        let inode = state.find(path).expect("the file is there");
        let number = state.next_write();
        state.image_mut(inode).truncate(number, length);
        state.cut_space(inode, length);
        state.settle_all();
    }

    /// Takes away a file, or a directory with all that is in it.
    /// # Panics
    /// If there is nothing of this name.
    pub fn take_away(&self, node: usize, path: &Path) {
        let disk = self.world.disk(node);
        let mut state = disk.borrow_mut();
        let inode = state.find(path).expect("it is there");
        let removed = match state.inodes[&inode].content {
            Content::File(_) => state.remove_file(path),
            Content::Directory(_) => state.remove_dir_all(path),
        };
        removed.expect("it was found");
        state.settle_all();
    }

    /// Puts an empty directory where a file is, or an empty file where a directory is.
    /// # Panics
    /// If there is nothing of this name.
    pub fn exchange(&self, node: usize, path: &Path) {
        let disk = self.world.disk(node);
        let other = {
            let state = disk.borrow();
            match state.inodes[&state.find(path).expect("it is there")].content {
                Content::File(_) => Content::Directory(Names::default()),
                Content::Directory(_) => Content::File(FileImage::default()),
            }
        };
        self.take_away(node, path);
        let mut state = disk.borrow_mut();
        let (parent, name) = state.find_parent(path).expect("it was there");
        state.make(parent, name, other).expect("its name is free");
        state.settle_all();
    }

    /// What lies on a node's disk, to begin again from there. For a node whose process has ended.
    #[must_use]
    pub fn save(&self, node: usize) -> Saved {
        let disk = self.world.disk(node);
        let state = disk.borrow();
        Saved { inodes: state.inodes.clone(), used: state.used }
    }

    /// Puts back what lay on a node's disk. For a node whose process has ended.
    pub fn put_back(&self, node: usize, saved: &Saved) {
        let disk = self.world.disk(node);
        let mut state = disk.borrow_mut();
        state.in_flight.clear();
        state.left_locked.clear();
        (state.inodes, state.used) = (saved.inodes.clone(), saved.used);
    }
}

impl DiskState {
    fn list(&self, inode: u64, path: &mut PathBuf, see: &mut impl FnMut(&Path, &Content)) {
        let Ok(names) = self.names(inode) else { return };
        for (name, inode) in names.iter() {
            path.push(name);
            see(path, &self.inodes[&inode].content);
            self.list(inode, path, see);
            path.pop();
        }
    }

    /// Everything is durable as it is.
    fn settle_all(&mut self) {
        for inode in self.inodes.values_mut() {
            match &mut inode.content {
                Content::Directory(names) => names.settle(),
                Content::File(image) => image.settle(),
            }
        }
    }

    fn overwrite(&mut self, path: &Path, position: u64, bytes: &[u8]) {
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
