//! The system calls on descriptors that neither std nor glommio offers.
#![allow(unsafe_code)]

use std::{
    fs,
    io::{self, ErrorKind},
    mem::ManuallyDrop,
    ops::Range,
    os::{
        fd::{FromRawFd, RawFd},
        unix::fs::FileExt,
    },
    path::Path,
};

use rustix::{
    fs::{FallocateFlags, FlockOperation},
    io::Errno,
    process::{Resource, Rlimit},
};

use crate::io::{PieceWrite, SharedBuffer};

/// `f_type` of a tmpfs.
const TMPFS: i64 = 0x0102_1994;

/// The kernel's limit of the parts of one write.
const PIECES_MAX: usize = 1024;

/// The file behind a descriptor that somebody else keeps open for as long as the result is used, and closes.
fn borrowed(descriptor: RawFd) -> ManuallyDrop<fs::File> {
    // SAFETY: never closed through this value; all callers in this file are handed descriptors of files that their
    // callers hold (`File` keeps its handle in a task of its own until an offloaded call has returned).
    ManuallyDrop::new(unsafe { fs::File::from_raw_fd(descriptor) })
}

/// Writes a part of a buffer, the unpublished bytes included, or says how it failed.
pub(super) fn write(descriptor: RawFd, buffer: &SharedBuffer, range: Range<usize>, position: u64) -> io::Result<()> {
    assert!(range.start <= range.end && range.end <= buffer.len(), "a write lies within its buffer");
    let mut range = range;
    let mut position = position;
    while !range.is_empty() {
        let offset = i64::try_from(position).map_err(|_| ErrorKind::InvalidInput)?;
        // SAFETY: the range lies within memory that `buffer` keeps alive. The kernel alone reads it; bytes above the
        // published end may change meanwhile and are rewritten by their owner before they count.
        let written = unsafe { libc::pwrite(descriptor, buffer.start().add(range.start).cast(), range.len(), offset) };
        match usize::try_from(written) {
            Ok(0) => return Err(io::Error::new(ErrorKind::WriteZero, "only a part was written")),
            Ok(count) => {
                range.start += count;
                position += count as u64;
            }
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// Writes pieces that follow one another in the file, as few writes as may be.
pub(super) fn write_run(descriptor: RawFd, pieces: &[PieceWrite]) -> io::Result<()> {
    for part in pieces.chunks(PIECES_MAX) {
        let vectors: Vec<libc::iovec> = part.iter().map(vector).collect();
        let count = libc::c_int::try_from(vectors.len()).expect("not more than the limit");
        let offset = i64::try_from(part[0].position).map_err(|_| ErrorKind::InvalidInput)?;
        // SAFETY: each vector lies within memory that its piece keeps alive; see `write` for the unpublished bytes.
        let written = unsafe { libc::pwritev(descriptor, vectors.as_ptr(), count, offset) };
        let wanted: usize = part.iter().map(|piece| piece.range.len()).sum();
        if usize::try_from(written) == Ok(wanted) {
            continue;
        }
        // Interrupted, or too much for one call: the long way, which says what is wrong.
        for piece in part {
            write(descriptor, &piece.buffer, piece.range.clone(), piece.position)?;
        }
    }
    Ok(())
}

fn vector(piece: &PieceWrite) -> libc::iovec {
    let range = &piece.range;
    assert!(range.start <= range.end && range.end <= piece.buffer.len(), "a write lies within its buffer");
    // SAFETY: the range was just held against the buffer's length.
    let start = unsafe { piece.buffer.start().add(range.start) };
    libc::iovec { iov_base: start.cast_mut().cast(), iov_len: range.len() }
}

/// Fills `bytes` from a file.
pub(super) fn read(descriptor: RawFd, bytes: &mut [u8], position: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < bytes.len() {
        match borrowed(descriptor).read_at(&mut bytes[read..], position + read as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// Length of a file, by its descriptor: glommio asks by path, which is wrong after a rename.
pub(super) fn length(descriptor: RawFd) -> io::Result<u64> {
    Ok(borrowed(descriptor).metadata()?.len())
}

pub(super) fn truncate(descriptor: RawFd, length: u64) -> io::Result<()> {
    borrowed(descriptor).set_len(length)
}

pub(super) fn sync(descriptor: RawFd) -> io::Result<()> {
    borrowed(descriptor).sync_data()
}

/// Takes space and makes the file longer. A file system without `fallocate` only gets the length.
pub(super) fn allocate(descriptor: RawFd, from: u64, length: u64) -> io::Result<()> {
    let Some(end) = from.checked_add(length).filter(|end| i64::try_from(*end).is_ok()) else {
        return Err(ErrorKind::FileTooLarge.into());
    };
    match rustix::fs::fallocate(&*borrowed(descriptor), FallocateFlags::empty(), from, length) {
        Err(Errno::OPNOTSUPP) => {
            if self::length(descriptor)? < end {
                truncate(descriptor, end)?;
            }
            Ok(())
        }
        result => Ok(result?),
    }
}

pub(super) fn lock(descriptor: RawFd) -> io::Result<()> {
    Ok(rustix::fs::flock(&*borrowed(descriptor), FlockOperation::NonBlockingLockExclusive)?)
}

/// Makes durable what was written to the file system of an open directory.
pub(super) fn sync_filesystem(directory: &fs::File) -> io::Result<()> {
    Ok(rustix::fs::syncfs(directory)?)
}

pub(super) fn free_bytes(path: &Path) -> io::Result<u64> {
    let figures = rustix::fs::statvfs(path)?;
    Ok(figures.f_bavail.saturating_mul(figures.f_frsize))
}

pub(super) fn total_bytes(path: &Path) -> io::Result<u64> {
    let figures = rustix::fs::statvfs(path)?;
    Ok(figures.f_blocks.saturating_mul(figures.f_frsize))
}

/// Whether a file lies in memory only.
pub(super) fn is_tmpfs(descriptor: RawFd) -> io::Result<bool> {
    Ok(rustix::fs::fstatfs(&*borrowed(descriptor))?.f_type == TMPFS)
}

/// Asks the kernel for a ring and closes it again.
pub(super) fn try_ring() -> io::Result<()> {
    // `struct io_uring_params` is 120 bytes of numbers, for which zero is a valid answer to "nothing special".
    let mut parameters = [0u64; 15];
    // SAFETY: the pointer leads to the 120 bytes that the call reads and fills in.
    let descriptor = unsafe { libc::syscall(libc::SYS_io_uring_setup, 2, parameters.as_mut_ptr()) };
    let Ok(descriptor) = RawFd::try_from(descriptor) else { return Err(ErrorKind::InvalidData.into()) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    drop(unsafe { fs::File::from_raw_fd(descriptor) });
    Ok(())
}

/// The soft limit of locked memory in bytes, after raising it to the hard one; `None` is unlimited.
pub(super) fn raise_memlock() -> io::Result<Option<u64>> {
    let Rlimit { current, maximum } = rustix::process::getrlimit(Resource::Memlock);
    if current != maximum {
        rustix::process::setrlimit(Resource::Memlock, Rlimit { current: maximum, maximum })?;
    }
    Ok(maximum)
}
