//! Open files: direct I/O through the ring; through threads where the file system has no direct I/O.
#![allow(unsafe_code)]

use std::{
    fs,
    io::{self, ErrorKind},
    ops::Range,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
    ptr::NonNull,
    rc::Rc,
    sync::atomic::{AtomicBool, Ordering},
};

use ::glommio::io::{DmaBuffer, DmaFile, OpenOptions as DmaOptions, ReadResult};

use super::{
    disk::{Disk, plain},
    sys,
    tasks::{offload, offload_and_forget},
};
use crate::io::{ALIGNMENT, Buffer, OpenOptions, SharedBuffer, Slice, align_up, channel::oneshot, ring::Ring};

/// Said once per process: every file of a directory would say the same.
static BUFFERED_WARNED: AtomicBool = AtomicBool::new(false);

enum Kind {
    /// `O_DIRECT`, through the ring. On a tmpfs without `O_DIRECT`, which glommio takes as it is.
    Direct(DmaFile),
    /// `O_DIRECT`, through a ring of ours.
    InRing(FileInRing),
    /// Page cache, through threads.
    Buffered(fs::File),
}

struct Handle {
    kind: Kind,
    path: PathBuf,
    disk: Disk,
}

impl Kind {
    fn descriptor(&self) -> RawFd {
        match self {
            Self::Direct(file) => file.as_raw_fd(),
            Self::InRing(file) => file.raw_fd(),
            Self::Buffered(file) => file.as_raw_fd(),
        }
    }
}

struct FileInRing {
    /// There until it is closed.
    descriptor: Option<OwnedFd>,
    ring: Ring,
}

impl FileInRing {
    fn raw_fd(&self) -> RawFd {
        self.descriptor.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }
}

impl Drop for FileInRing {
    fn drop(&mut self) {
        // The last close of a file that has been removed takes as long as its file system needs: not on the core.
        if let Some(descriptor) = self.descriptor.take() {
            offload_and_forget(move || drop(descriptor));
        }
    }
}

/// An open file of one core.
#[derive(Clone)]
pub struct File(Rc<Handle>);

impl File {
    pub(super) async fn open(disk: &Disk, path: &Path, options: OpenOptions) -> io::Result<Self> {
        let flags = if options.durable { libc::O_DSYNC } else { 0 };
        let opened = match disk.spawner.ring() {
            Some(ring) => open_in(ring, path, options.create, flags).await,
            None => {
                disk.know_device(path).await?;
                let mut open = DmaOptions::new();
                open.read(true).write(true).create(options.create).mode(0o644).custom_flags(flags);
                open.dma_open(path).await.map(Kind::Direct).map_err(plain)
            }
        };
        let kind = match opened {
            Ok(kind) => {
                if !BUFFERED_WARNED.load(Ordering::Relaxed) && sys::is_tmpfs(kind.descriptor())? {
                    warn_buffered(path, "a tmpfs: nothing in it survives a power cut");
                }
                kind
            }
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                warn_buffered(path, "a file system without O_DIRECT: slower, and its page cache is in the way");
                let path = path.to_owned();
                Kind::Buffered(offload(move || open_buffered(&path, options)).await?)
            }
            Err(error) => return Err(error),
        };
        Ok(Self(Rc::new(Handle { kind, path: path.to_owned(), disk: disk.clone() })))
    }

    /// Runs an operation to its end with the file kept open, whether or not somebody waits for it.
    async fn detached<T: 'static, F: Future<Output = io::Result<T>> + 'static>(
        &self,
        operation: impl FnOnce(Self) -> F,
    ) -> io::Result<T> {
        let (done, finished) = oneshot();
        let operation = operation(self.clone());
        self.0.disk.spawner.spawn(async move {
            // The one who asked may have gone.
            let _unwanted = done.send(operation.await);
        });
        finished.await.unwrap_or_else(|| Err(ErrorKind::Interrupted.into()))
    }

    async fn offloaded<T: Send + 'static>(
        &self,
        work: impl FnOnce(RawFd) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.detached(|file| async move {
            let descriptor = file.raw_fd();
            let result = offload(move || work(descriptor)).await;
            drop(file);
            result
        })
        .await
    }

    pub(in crate::io) async fn write_range(
        &self,
        buffer: SharedBuffer,
        range: Range<usize>,
        position: u64,
    ) -> io::Result<()> {
        if let Kind::InRing(FileInRing { ring, .. }) = &self.0.kind {
            let expected = range.len();
            let written = ring.write(self.clone(), buffer, range, position).await?;
            return if written == expected { Ok(()) } else { Err(short_write(written, expected)) };
        }
        let whole = range == (0..buffer.len());
        // glommio writes whole buffers of its own, made by this core. Anything else goes through a thread, uncopied.
        let memory =
            buffer.value::<Rc<DmaBuffer>>(self.0.disk.home()).filter(|memory| whole && memory.len() == range.len());
        match memory.cloned() {
            Some(memory) if matches!(self.0.kind, Kind::Direct(_)) => {
                self.detached(|file| async move {
                    let Kind::Direct(direct) = &file.0.kind else { unreachable!("matched above") };
                    let written = direct.write_rc_at(memory, position).await.map_err(plain)?;
                    // The buffer's count stays up until the kernel is done with its memory.
                    let expected = buffer.len();
                    drop(buffer);
                    if written == expected { Ok(()) } else { Err(short_write(written, expected)) }
                })
                .await
            }
            Some(_) | None => self.offloaded(move |descriptor| sys::write(descriptor, &buffer, range, position)).await,
        }
    }

    pub(in crate::io) async fn read(&self, position: u64, length: usize) -> io::Result<Slice> {
        let head = usize::try_from(position % ALIGNMENT as u64).expect("less than a block");
        let start = position - head as u64;
        let end = head.checked_add(length).ok_or(ErrorKind::InvalidInput)?;
        match &self.0.kind {
            Kind::InRing(FileInRing { ring, .. }) => {
                let buffer = self.0.disk.allocate(align_up(end));
                let (buffer, read) = ring.read(self.clone(), buffer, start).await?;
                if read >= end {
                    return Ok(buffer.share().slice(head..end));
                }
            }
            Kind::Direct(file) => {
                // Keeps the file open for as long as the read is in the ring.
                let _open = self.clone();
                let result = file.read_at_aligned(start, align_up(end)).await.map_err(plain)?;
                if result.len() >= end {
                    return Ok(shared(result, &self.0.disk).slice(head..end));
                }
            }
            Kind::Buffered(_) => (),
        }
        self.read_offloaded(start, head..end).await
    }

    /// Reads through a thread: after a short read, to tell the file's end from a mere interruption, and without direct I/O.
    async fn read_offloaded(&self, start: u64, range: Range<usize>) -> io::Result<Slice> {
        if start + range.end as u64 > sys::length(self.raw_fd())? {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let bytes = self
            .offloaded({
                let length = align_up(range.end);
                move |descriptor| {
                    // Direct I/O wants aligned memory; this path is too rare to lend it the core's own.
                    let mut memory = vec![0; length + ALIGNMENT];
                    let skip = memory.as_ptr().align_offset(ALIGNMENT);
                    let read = sys::read(descriptor, &mut memory[skip..skip + length], start)?;
                    memory.drain(..skip);
                    memory.truncate(read);
                    Ok(memory)
                }
            })
            .await?;
        if bytes.len() < range.end {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(Slice::from(bytes).slice(range))
    }

    pub(in crate::io) async fn allocate(&self, from: u64, length: u64) -> io::Result<()> {
        self.offloaded(move |descriptor| sys::allocate(descriptor, from, length)).await
    }

    pub(in crate::io) async fn truncate(&self, length: u64) -> io::Result<()> {
        self.offloaded(move |descriptor| sys::truncate(descriptor, length)).await
    }

    pub(in crate::io) async fn sync(&self) -> io::Result<()> {
        self.offloaded(sys::sync).await
    }

    pub(in crate::io) async fn len(&self) -> io::Result<u64> {
        // The inode is in memory: a thread would cost more than the call.
        sys::length(self.raw_fd())
    }

    pub(in crate::io) fn try_lock_exclusive(&self) -> io::Result<()> {
        sys::lock(self.raw_fd())
    }

    pub(in crate::io) fn raw_fd(&self) -> RawFd {
        self.0.kind.descriptor()
    }

    pub(in crate::io) async fn close(self) -> io::Result<()> {
        match Rc::try_unwrap(self.0) {
            Ok(Handle { kind: Kind::Direct(file), .. }) => file.close().await.map_err(plain),
            // A std file closes when dropped; other clones keep the file open.
            // May take long if the file has been removed.
            Ok(Handle { kind: Kind::InRing(mut file), .. }) => {
                let descriptor = file.descriptor.take();
                offload(move || drop(descriptor)).await;
                Ok(())
            }
            Ok(Handle { kind: Kind::Buffered(_), .. }) | Err(_) => Ok(()),
        }
    }
}

impl std::fmt::Debug for File {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "File({})", self.0.path.display())
    }
}

/// A read's result as memory that other cores may read.
fn shared(result: ReadResult, disk: &Disk) -> SharedBuffer {
    let start = NonNull::from(&*result).cast::<u8>();
    let length = result.len();
    // SAFETY: the bytes lie in glommio's buffer, which `result` keeps alive wherever it is moved; all of them were read
    // from the file; nobody writes them, since `share` follows.
    unsafe { Buffer::homed(start, length, Box::new(result), |_, _| {}, disk.home()) }.share()
}

fn short_write(written: usize, expected: usize) -> io::Error {
    io::Error::new(ErrorKind::WriteZero, format!("{written} of {expected} bytes were written"))
}

/// Opens a file for direct I/O in a ring of ours.
async fn open_in(ring: &Ring, path: &Path, create: bool, flags: i32) -> io::Result<Kind> {
    let create = if create { libc::O_CREAT } else { 0 };
    let file = ring.open(path, libc::O_RDWR | libc::O_DIRECT | create | flags).await?;
    Ok(Kind::InRing(FileInRing { descriptor: Some(file), ring: ring.clone() }))
}

fn open_buffered(path: &Path, options: OpenOptions) -> io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = if options.durable { libc::O_DSYNC } else { 0 };
    fs::OpenOptions::new().read(true).write(true).create(options.create).truncate(false).custom_flags(flags).open(path)
}

fn warn_buffered(path: &Path, why: &str) {
    if !BUFFERED_WARNED.swap(true, Ordering::Relaxed) {
        tracing::warn!(path = %path.display(), "no direct I/O: {why}");
    }
}
