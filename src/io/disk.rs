//! Files, opened for direct I/O, and the few operations on names that a log needs.

use std::{
    io::{self, ErrorKind},
    ops::Range,
    path::{Path, PathBuf},
};

use super::{ALIGNMENT, Buffer, FileLeft, FileWrite, Pinned, SharedBuffer, Slice, forward, sim};
use crate::base::Timestamp;

/// How a file is opened. Always for reading and writing, always past the page cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// Make the file if it is not there.
    pub create: bool,
    /// A completed write is on stable storage (`O_DSYNC`).
    pub durable: bool,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// Its name; names that are not UTF-8 are not ours and are left out.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Length of a file in bytes.
    pub len: u64,
}

/// The disk as one core sees it. Cheap to clone.
#[derive(Clone)]
pub enum Disk {
    /// The machine's.
    #[cfg(feature = "glommio")]
    Glommio(super::glommio::Disk),
    /// A simulated one.
    Sim(sim::Disk),
}

impl Disk {
    /// Opens a file. A new file's name is durable only after [`sync_dir`](Self::sync_dir) of its directory.
    /// # Errors  The operating system's; `NotFound` without `create`.
    pub async fn open(&self, path: &Path, options: OpenOptions) -> io::Result<File> {
        Ok(match self {
            #[cfg(feature = "glommio")]
            Self::Glommio(disk) => File::Glommio(disk.open(path, options).await?),
            Self::Sim(disk) => File::Sim(disk.open(path, options).await?),
        })
    }

    /// Makes a directory and those above it; fine if it is there.
    /// # Errors  The operating system's.
    pub async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        forward!(self, disk => disk.create_dir_all(path).await)
    }

    /// What is in a directory, sorted by name.
    /// # Errors  The operating system's.
    pub async fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        forward!(self, disk => disk.read_dir(path).await)
    }

    /// Renames a file or directory, replacing a file of the new name. Durable after `sync_dir`.
    /// # Errors  The operating system's.
    pub async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        forward!(self, disk => disk.rename(from, to).await)
    }

    /// Removes a file; those who have it open keep it. Durable after `sync_dir`.
    /// # Errors  The operating system's.
    pub async fn remove_file(&self, path: &Path) -> io::Result<()> {
        forward!(self, disk => disk.remove_file(path).await)
    }

    /// Removes a directory with all that is in it. Durable after `sync_dir` of the directory above.
    /// # Errors  The operating system's.
    pub async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        forward!(self, disk => disk.remove_dir_all(path).await)
    }

    /// Makes the names in a directory durable: files created, renamed and removed before the call.
    /// # Errors  The operating system's; after one, nothing is known about what is durable.
    pub async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        forward!(self, disk => disk.sync_dir(path).await)
    }

    /// Whether something of this name is there.
    pub async fn exists(&self, path: &Path) -> bool {
        forward!(self, disk => disk.exists(path).await)
    }

    /// When a file was written to last, by the wall clock.
    /// # Errors  The operating system's.
    pub async fn modified(&self, path: &Path) -> io::Result<Timestamp> {
        forward!(self, disk => disk.modified(path).await)
    }

    /// The whole of a small side file.
    /// # Errors  The operating system's.
    pub async fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        forward!(self, disk => disk.read_file(path).await)
    }

    /// Makes or overwrites a small side file; with `sync` its bytes (not its name) are durable afterwards.
    /// A crash may leave a part of it: see [`replace_file`](Self::replace_file).
    /// # Errors  The operating system's.
    pub async fn write_file(&self, path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
        forward!(self, disk => disk.write_file(path, bytes, sync).await)
    }

    /// Replaces a small side file as a whole: written as `<name>.tmp`, synced, renamed, directory synced. After a crash
    /// there is the old one or the new one.
    /// # Errors  The operating system's; `InvalidInput` for a path without a directory.
    pub async fn replace_file(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::new(ErrorKind::InvalidInput, "a file's path names a directory and a file"));
        };
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let mut temporary = name.to_os_string();
        temporary.push(".tmp");
        let temporary: PathBuf = directory.join(temporary);
        self.write_file(&temporary, bytes, true).await?;
        self.rename(&temporary, path).await?;
        self.sync_dir(directory).await
    }

    /// Writes many files, one after the other: opened (made if they are not there), grown, written, closed. With glommio
    /// all of it is one job on a thread, which costs a small part of the single steps' trips through the ring; a job at a
    /// time for each thread is enough. Durable after [`sync_filesystem`](Self::sync_filesystem). Gives the length of each
    /// file, which has a failure of its own: the others are written all the same.
    /// # Errors  The operating system's (`StorageFull` leaves the file as long as it was); `AlreadyExists` if the mark
    /// of its directory is another; `InvalidInput` if a position or a length is not aligned.
    pub async fn write_files(&self, files: Vec<FileWrite>) -> Vec<io::Result<u64>> {
        forward!(self, disk => disk.write_files(files).await)
    }

    /// Leaves many files as they are to be, one after the other, up to the first that fails; with glommio in one job, as
    /// [`write_files`](Self::write_files). Durable after [`sync_filesystem`](Self::sync_filesystem).
    /// # Errors  The operating system's, for the file at the given place.
    pub async fn leave_files(&self, files: Vec<FileLeft>) -> Result<(), (usize, io::Error)> {
        forward!(self, disk => disk.leave_files(files).await)
    }

    /// Opens the file system which holds `path`, a directory. An error of writing back is told once to each who has it open
    /// then, whoever has asked for the sync: so it is opened before anything is written, and kept.
    /// # Errors  The operating system's.
    pub async fn open_filesystem(&self, path: &Path) -> io::Result<Filesystem> {
        Ok(match self {
            #[cfg(feature = "glommio")]
            Self::Glommio(disk) => Filesystem::Glommio(disk.open_filesystem(path).await?),
            Self::Sim(disk) => Filesystem::Sim(disk.open_filesystem(path).await?),
        })
    }

    /// Makes everything durable that was written to a file system before the call.
    /// # Errors  The operating system's, and those of others' syncs since it was opened; after one, nothing is known
    /// about what is durable, and the next call may say that all is well.
    /// # Panics
    /// If the file system is another backend's.
    pub async fn sync_filesystem(&self, filesystem: &Filesystem) -> io::Result<()> {
        match (self, filesystem) {
            #[cfg(feature = "glommio")]
            (Self::Glommio(disk), Filesystem::Glommio(filesystem)) => disk.sync_filesystem(filesystem).await,
            (Self::Sim(disk), Filesystem::Sim(filesystem)) => disk.sync_filesystem(filesystem).await,
            #[cfg(feature = "glommio")]
            (Self::Glommio(_), Filesystem::Sim(_)) | (Self::Sim(_), Filesystem::Glommio(_)) => {
                unreachable!("a process has one backend")
            }
        }
    }

    /// As [`sync_filesystem`](Self::sync_filesystem), opened for this once.
    #[cfg(test)]
    pub async fn sync_filesystem_of(&self, path: &Path) -> io::Result<()> {
        self.sync_filesystem(&self.open_filesystem(path).await?).await
    }

    /// Bytes that may still be written to the file system which holds `path`.
    /// # Errors  The operating system's.
    pub async fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        forward!(self, disk => disk.free_bytes(path).await)
    }

    /// The size of the file system which holds `path`, in bytes.
    /// # Errors  The operating system's.
    pub async fn total_bytes(&self, path: &Path) -> io::Result<u64> {
        forward!(self, disk => disk.total_bytes(path).await)
    }

    /// Zero-filled, aligned memory of this core. Zeroed because what pads a block would otherwise put old memory on
    /// the disk. Also frees what other cores have sent back.
    #[must_use]
    pub fn allocate(&self, length: usize) -> Buffer {
        forward!(self, disk => disk.allocate(length))
    }

    /// Frees this core's memory whose last reference was dropped on another core; for housekeeping, when nothing is allocated.
    pub fn reclaim(&self) {
        forward!(self, disk => disk.reclaim());
    }

    /// Bytes of buffers of this core that are not freed yet, results of reads included.
    #[cfg(test)]
    #[must_use]
    pub fn live_bytes(&self) -> usize {
        forward!(self, disk => disk.live_bytes())
    }

    /// What only readers keep alive of this core's buffers.
    #[must_use]
    pub fn pinned(&self) -> Pinned {
        Pinned::of(&forward!(self, disk => disk.home().clone()))
    }
}

/// A file system that is kept open, for all cores.
#[derive(Clone, Debug)]
pub enum Filesystem {
    /// One of the machine.
    #[cfg(feature = "glommio")]
    Glommio(super::glommio::Filesystem),
    /// A simulated one.
    Sim(sim::Filesystem),
}

/// An open file of one core. Cheap to clone; closed when the last clone is gone.
#[derive(Clone)]
pub enum File {
    /// A file of the machine.
    #[cfg(feature = "glommio")]
    Glommio(super::glommio::File),
    /// A simulated one.
    Sim(sim::File),
}

impl File {
    /// Writes the whole buffer, the part that is not published yet included. From its first poll on it runs to its end
    /// even if the future is dropped.
    /// # Errors  The operating system's (`StorageFull`, …); `WriteZero` if only a part was written; `InvalidInput` if
    /// position or length is not aligned.
    pub async fn write(&self, buffer: SharedBuffer, position: u64) -> io::Result<()> {
        let range = 0..buffer.len();
        self.write_range(buffer, range, position).await
    }

    /// Writes a part of a buffer, without copying it. With glommio a part goes through a thread, the whole through the ring.
    /// # Errors  As [`write`](Self::write).
    pub async fn write_range(&self, buffer: SharedBuffer, range: Range<usize>, position: u64) -> io::Result<()> {
        let aligned = range.start.is_multiple_of(ALIGNMENT) && range.len().is_multiple_of(ALIGNMENT);
        if !aligned || !position.is_multiple_of(ALIGNMENT as u64) || range.end > buffer.len() {
            let what = format!("write of {range:?} at {position} from a buffer of {}", buffer.len());
            return Err(io::Error::new(ErrorKind::InvalidInput, what));
        }
        if range.is_empty() {
            return Ok(());
        }
        forward!(self, file => file.write_range(buffer, range, position).await)
    }

    /// Reads exactly `length` bytes, wherever they lie; whole blocks are read and the result is a view of them.
    /// # Errors  `UnexpectedEof` if the file ends before; the operating system's.
    pub async fn read(&self, position: u64, length: usize) -> io::Result<Slice> {
        if length == 0 {
            return Ok(Slice::default());
        }
        forward!(self, file => file.read(position, length).await)
    }

    /// Takes space for `from..from + length` and makes the file at least that long; new bytes read as zero.
    /// # Errors  `StorageFull`; the operating system's.
    pub async fn allocate(&self, from: u64, length: u64) -> io::Result<()> {
        forward!(self, file => file.allocate(from, length).await)
    }

    /// Cuts the file to `length`, or makes it longer with zeros.
    /// # Errors  The operating system's.
    pub async fn truncate(&self, length: u64) -> io::Result<()> {
        forward!(self, file => file.truncate(length).await)
    }

    /// Makes what was written before the call durable (`fdatasync`).
    /// # Errors  The operating system's; never to be retried: the failed pages count as clean afterwards.
    pub async fn sync(&self) -> io::Result<()> {
        forward!(self, file => file.sync().await)
    }

    /// Length of the file in bytes.
    /// # Errors  The operating system's.
    pub async fn len(&self) -> io::Result<u64> {
        forward!(self, file => file.len().await)
    }

    /// Locks the file against other processes (`flock`). Held until the last clone *and* the last operation in flight
    /// are gone, also those of a killed process.
    /// # Errors  `WouldBlock` if another one holds it.
    pub fn try_lock_exclusive(&self) -> io::Result<()> {
        forward!(self, file => file.try_lock_exclusive())
    }

    /// The descriptor (a made-up number in the simulator).
    #[cfg(test)]
    #[must_use]
    pub fn raw_fd(&self) -> std::os::fd::RawFd {
        forward!(self, file => file.raw_fd())
    }

    /// Waits until the file is closed, if this is the last clone; operations of dropped futures finish first.
    /// # Errors  The operating system's.
    pub async fn close(self) -> io::Result<()> {
        forward!(self, file => file.close().await)
    }
}
