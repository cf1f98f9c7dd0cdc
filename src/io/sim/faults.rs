//! What goes wrong on a simulated disk.

use std::{
    io::{self, ErrorKind},
    ops::Range,
};

use super::world::World;

/// Linux's numbers of the errors that a disk has.
pub mod errno {
    /// The device failed.
    pub const EIO: i32 = 5;
    /// The machine has too many files open.
    #[cfg(test)]
    pub const ENFILE: i32 = 23;
    /// The process has too many files open.
    pub const EMFILE: i32 = 24;
    /// The disk is full.
    pub const ENOSPC: i32 = 28;
    /// A name is longer than 255 bytes.
    pub const ENAMETOOLONG: i32 = 36;
    /// The quota is used up.
    #[cfg(test)]
    pub const EDQUOT: i32 = 122;
}

/// What is done to a file or a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A file is opened or made.
    Open,
    /// Bytes are read, or a small file as a whole.
    Read,
    /// Bytes are written; any of the sectors may have landed.
    Write,
    /// Space is taken.
    Allocate,
    /// The length is changed.
    Truncate,
    /// A file, the names in a directory, or the whole file system is made durable.
    Sync,
    /// A name is changed: the old one counts.
    Rename,
    /// A file or a directory is removed.
    Remove,
    /// A directory is made.
    CreateDir,
    /// The names in a directory are read.
    ReadDir,
}

/// One kind of failure.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What fails.
    pub operation: Operation,
    /// Only where the file's name contains this; the path, if there is a `/` in it. Empty: everywhere.
    pub files_named: &'static str,
    /// Linux's number of the error.
    pub error: i32,
    /// How often: once in so many; zero is never.
    pub one_in: u64,
}

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
    /// How often a sync fails with EIO; see [`Operation::Sync`].
    pub sync_error_one_in: u64,
    /// The four above hit only files whose names contain this (the path, if there is a `/` in it); empty: all.
    pub files_named: &'static str,
    /// Everything else that fails.
    pub failures: Vec<Failure>,
    /// Stretches of open files, named as above, that cannot be read.
    pub unreadable: Vec<(&'static str, Range<u64>)>,
    /// Bytes the disk holds.
    pub capacity: u64,
    /// The error of a full disk: ENOSPC, or EDQUOT.
    pub full_error: i32,
    /// Files that a process may have open.
    pub open_files_max: u64,
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
            failures: Vec::new(),
            unreadable: Vec::new(),
            capacity: u64::MAX,
            full_error: errno::ENOSPC,
            open_files_max: u64::MAX,
        }
    }
}

impl Faults {
    /// The error of an operation on the file or directory at `path`, if it fails this time.
    pub(super) fn failure(&self, world: &World, operation: Operation, path: &str) -> Option<io::Error> {
        let chance = match operation {
            Operation::Write => self.write_error_one_in,
            Operation::Read => self.read_error_one_in,
            Operation::Sync => self.sync_error_one_in,
            Operation::Open
            | Operation::Allocate
            | Operation::Truncate
            | Operation::Rename
            | Operation::Remove
            | Operation::CreateDir
            | Operation::ReadDir => 0,
        };
        if is_named(path, self.files_named) && world.one_in(chance) {
            return Some(error(errno::EIO));
        }
        let failing = self.failures.iter().filter(|it| it.operation == operation && is_named(path, it.files_named));
        failing.into_iter().find(|it| world.one_in(it.one_in)).map(|it| error(it.error))
    }

    /// Whether a write to the file at `path` stops half-way this time.
    pub(super) fn is_short(&self, world: &World, path: &str) -> bool {
        is_named(path, self.files_named) && world.one_in(self.short_write_one_in)
    }

    pub(super) fn full(&self) -> io::Error {
        error(self.full_error)
    }
}

pub(super) fn error(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

pub(super) fn short_write() -> io::Error {
    io::Error::new(ErrorKind::WriteZero, "only a part was written")
}

fn is_named(path: &str, pattern: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    if pattern.contains('/') { path.contains(pattern) } else { name.contains(pattern) }
}
