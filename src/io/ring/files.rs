//! Reads and writes of files that are open for direct I/O.

use std::{
    ffi::CString,
    io::{self, ErrorKind},
    ops::Range,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
};

use super::{
    Ring, error,
    op::{FileMemory, FileOp, Op, OpenOp},
};
use crate::io::{Buffer, SharedBuffer, channel::oneshot, glommio::File};

impl Ring {
    /// Opens a file.
    /// # Errors  The operating system's.
    pub(in crate::io) async fn open(&self, path: &Path, flags: i32) -> io::Result<OwnedFd> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let (done, finished) = oneshot();
        self.start(Op::Open(Box::new(OpenOp { path, flags: flags | libc::O_CLOEXEC, done })));
        finished.await.ok_or(ErrorKind::Interrupted)?
    }

    /// Reads from an aligned position into an aligned buffer, whose length is aligned as well. The buffer, and how many
    /// bytes of it were read: fewer at the end of the file.
    /// # Errors  The operating system's.
    pub(in crate::io) async fn read(&self, file: File, buffer: Buffer, position: u64) -> io::Result<(Buffer, usize)> {
        let (bytes, memory) = self.transfer(file, FileMemory::Read(buffer), position).await?;
        match memory {
            FileMemory::Read(buffer) => Ok((buffer, bytes)),
            FileMemory::Write(..) => unreachable!("an operation gives back what it got"),
        }
    }

    /// Writes a part of a buffer. How many bytes were written.
    /// # Errors  The operating system's.
    pub(in crate::io) async fn write(
        &self,
        file: File,
        buffer: SharedBuffer,
        range: Range<usize>,
        position: u64,
    ) -> io::Result<usize> {
        self.transfer(file, FileMemory::Write(buffer, range), position).await.map(|(bytes, _)| bytes)
    }

    async fn transfer(&self, file: File, memory: FileMemory, position: u64) -> io::Result<(usize, FileMemory)> {
        let (done, finished) = oneshot();
        self.start(Op::File(Box::new(FileOp { file, position, memory, done })));
        let (result, memory) = finished.await.ok_or(ErrorKind::Interrupted)?;
        Ok((usize::try_from(result).map_err(|_| error(result))?, memory))
    }
}
