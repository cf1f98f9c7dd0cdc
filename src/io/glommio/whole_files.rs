//! A file in one go, for a thread that may block: opened, grown, written, closed; or left as it is to be.

use std::{
    fs,
    io::{self, ErrorKind},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::Path,
};

use super::sys;
use crate::io::{DirectoryMark, FileLeft, FileWrite, Left};

/// Does all that is to be done to one file. Returns its length.
pub(super) fn write(write: &FileWrite) -> io::Result<u64> {
    write.check()?;
    if let Some(mark) = &write.mark {
        ensure(mark)?;
    }
    let file = open(&write.path)?;
    let (mut length, needed) = (file.metadata()?.len(), write.needed());
    if needed > length {
        let grown = (write.grown)(length, needed);
        if let Err(error) = sys::allocate(file.as_raw_fd(), length, grown - length) {
            // ext4 keeps what it had found before it failed: others need of the little that there is.
            file.set_len(length)?;
            return Err(error);
        }
        length = grown;
    }
    for run in write.pieces.chunk_by(|before, after| before.end() == after.position) {
        sys::write_run(file.as_raw_fd(), run)?;
    }
    Ok(length)
}

/// Leaves a file as it is to be.
pub(super) fn leave(FileLeft { path, left }: &FileLeft) -> io::Result<()> {
    match left {
        Left::Whole(bytes) => fs::write(path, bytes),
        Left::Cut(length) => {
            let file = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o644).open(path)?;
            if file.metadata()?.len() == *length { Ok(()) } else { file.set_len(*length) }
        }
    }
}

/// Makes the directory with its mark, or looks whether it has it.
fn ensure(mark: &DirectoryMark) -> io::Result<()> {
    let directory = mark.path.parent().ok_or(ErrorKind::InvalidInput)?;
    match fs::read(&mark.path) {
        Ok(found) if found == mark.bytes => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound && !fs::exists(directory)? => {
            fs::create_dir_all(directory)?;
            fs::write(&mark.path, &mark.bytes)
        }
        Ok(_) => Err(mark.is_another()),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(mark.is_another()),
        Err(error) => Err(error),
    }
}

/// Past the page cache, where the file system can do that.
fn open(path: &Path) -> io::Result<fs::File> {
    let options = |flags| {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o644).custom_flags(flags);
        options
    };
    match options(libc::O_DIRECT).open(path) {
        Err(error) if error.kind() == ErrorKind::InvalidInput => options(0).open(path),
        opened => opened,
    }
}
