//! Files and buffers of a core. What has no place in the ring (names, space, whole file systems) runs in the core's
//! small pool of unpinned threads.
#![allow(unsafe_code)]

use std::{
    any::Any,
    cell::RefCell,
    fs,
    io::{self, ErrorKind, Write},
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    ptr::NonNull,
    rc::Rc,
    sync::Arc,
    time::UNIX_EPOCH,
};

use ::glommio::{
    GlommioError,
    io::{DmaBuffer, OpenOptions as DmaOptions},
};

use super::{
    file::File,
    sys,
    tasks::{Spawner, offload},
    whole_files,
};
use crate::{
    base::{Set, Timestamp},
    io::{ALIGNMENT, Buffer, DirEntry, FileLeft, FileWrite, OpenOptions, align_up, is_full, memory::Home},
};

/// The operating system's error inside of glommio's.
pub(in crate::io) fn plain(error: GlommioError<()>) -> io::Error {
    match error {
        GlommioError::IoError(source) | GlommioError::EnhancedIoError { source, .. } => source,
        // glommio's own kinds; it turns them into an error of the operating system's by itself.
        GlommioError::ExecutorError(_)
        | GlommioError::BuilderError(_)
        | GlommioError::Closed(_)
        | GlommioError::CanNotBeClosed(..)
        | GlommioError::WouldBlock(_)
        | GlommioError::ReactorError(_)
        | GlommioError::TimedOut(_) => error.into(),
    }
}

/// Leaks what comes home after the core has gone.
struct CoreHome(Arc<Home>);

impl Drop for CoreHome {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A directory that is kept open for the sake of its file system.
#[derive(Clone, Debug)]
pub struct Filesystem(Arc<fs::File>);

/// The machine's disks, seen from one core.
#[derive(Clone)]
pub struct Disk {
    home: Rc<CoreHome>,
    /// Devices of which glommio knows whether they can be polled.
    known_devices: Rc<RefCell<Set<u64>>>,
    pub(super) spawner: Spawner,
}

impl Disk {
    pub(super) fn here(spawner: Spawner) -> Self {
        Self { home: Rc::new(CoreHome(Home::here())), known_devices: Rc::default(), spawner }
    }

    pub(in crate::io) fn home(&self) -> &Arc<Home> {
        &self.home.0
    }

    /// Lets glommio find out how the device behind `path` works, before the first file there is opened.
    ///
    /// It does so by a polled read of the first file that it opens on a device. If that file is empty the read succeeds
    /// without asking the device, and from then on all I/O of this core is polled and fails (EOPNOTSUPP) on devices that
    /// cannot be. So the first file is one of ours with a block in it.
    pub(super) async fn know_device(&self, path: &Path) -> io::Result<()> {
        let directory = match path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory.to_owned(),
            Some(_) | None => PathBuf::from("."),
        };
        // Known to the kernel from the open that follows or has just been: no thread for it.
        let device = fs::metadata(&directory)?.dev();
        if self.known_devices.borrow().contains(&device) {
            return Ok(());
        }
        match offload(move || unnamed_block(&directory)).await {
            Ok(file) => {
                let name = format!("/proc/self/fd/{}", file.as_raw_fd());
                let probed = DmaOptions::new().read(true).write(true).dma_open(name).await.map_err(plain);
                match probed {
                    Ok(probed) => probed.close().await.map_err(plain)?,
                    // No direct I/O, so nothing is polled either.
                    Err(error) if error.kind() == ErrorKind::InvalidInput => {}
                    Err(error) => return Err(error),
                }
            }
            // A full disk: the file itself has to do, and usually its first block has been written.
            Err(error) if is_full(&error) && fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0) => {}
            Err(error) => return Err(error),
        }
        self.known_devices.borrow_mut().insert(device);
        Ok(())
    }

    pub(in crate::io) fn allocate(&self, length: usize) -> Buffer {
        self.reclaim();
        if length == 0 {
            return Buffer::plain(0, self.home());
        }
        let mut memory = ::glommio::allocate_dma_buffer(align_up(length));
        // glommio's memory holds what was in it before.
        memory.as_bytes_mut().fill(0);
        let start = NonNull::new(memory.as_mut_ptr()).expect("glommio allocates or aborts");
        let value: Box<dyn Any> = Box::new(Rc::new(memory));
        let shrink = |value: &mut dyn Any, length: usize| {
            let memory = value.downcast_mut::<Rc<DmaBuffer>>().and_then(Rc::get_mut);
            memory.expect("a buffer that is being filled is in no write").trim_to_size(length);
        };
        // SAFETY: the memory lies on the heap or in glommio's arena, does not move with the value, is zeroed above and
        // lives as long as the value, whose clones (writes in flight) only read.
        unsafe { Buffer::homed(start, length, value, shrink, self.home()) }
    }

    pub(in crate::io) fn reclaim(&self) {
        self.home().reclaim();
    }

    #[cfg(test)]
    pub(in crate::io) fn live_bytes(&self) -> usize {
        self.home().live_bytes()
    }

    pub(in crate::io) async fn open(&self, path: &Path, options: OpenOptions) -> io::Result<File> {
        File::open(self, path, options).await
    }

    pub(in crate::io) async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        offload(move || fs::create_dir_all(path)).await
    }

    pub(in crate::io) async fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let path = path.to_owned();
        offload(move || {
            let mut entries = Vec::new();
            for entry in fs::read_dir(path)? {
                let entry = entry?;
                let Ok(name) = entry.file_name().into_string() else { continue };
                // The directory itself says which of its entries are directories. With 10,000 partitions, asking each of
                // them is a quarter of the CPU time of a start.
                let is_dir = match entry.file_type() {
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    kind => kind?.is_dir(),
                };
                let len = if is_dir {
                    0
                } else {
                    // A file removed since the directory was read is not there any more.
                    match entry.metadata() {
                        Err(error) if error.kind() == ErrorKind::NotFound => continue,
                        metadata => metadata?.len(),
                    }
                };
                entries.push(DirEntry { name, is_dir, len });
            }
            entries.sort_unstable();
            Ok(entries)
        })
        .await
    }

    pub(in crate::io) async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        offload(move || fs::rename(from, to)).await
    }

    pub(in crate::io) async fn remove_file(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        offload(move || fs::remove_file(path)).await
    }

    pub(in crate::io) async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        offload(move || fs::remove_dir_all(path)).await
    }

    pub(in crate::io) async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        offload(move || fs::File::open(path)?.sync_all()).await
    }

    pub(in crate::io) async fn exists(&self, path: &Path) -> bool {
        let path = path.to_owned();
        offload(move || fs::exists(path).unwrap_or(false)).await
    }

    pub(in crate::io) async fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let path = path.to_owned();
        offload(move || fs::read(path)).await
    }

    pub(in crate::io) async fn modified(&self, path: &Path) -> io::Result<Timestamp> {
        let path = path.to_owned();
        let modified = offload(move || fs::metadata(path)?.modified()).await?;
        let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Timestamp::try_from(since.as_millis()).unwrap_or(Timestamp::MAX))
    }

    pub(in crate::io) async fn write_file(&self, path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
        let (path, bytes) = (path.to_owned(), bytes.to_vec());
        offload(move || {
            let mut file = fs::File::create(path)?;
            file.write_all(&bytes)?;
            if sync { file.sync_all() } else { Ok(()) }
        })
        .await
    }

    pub(in crate::io) async fn write_files(&self, files: Vec<FileWrite>) -> Vec<io::Result<u64>> {
        offload(move || files.iter().map(whole_files::write).collect()).await
    }

    pub(in crate::io) async fn leave_files(&self, files: Vec<FileLeft>) -> Result<(), (usize, io::Error)> {
        let leave = |(place, file)| whole_files::leave(&file).map_err(|error| (place, error));
        offload(move || files.into_iter().enumerate().try_for_each(leave)).await
    }

    pub(in crate::io) async fn open_filesystem(&self, path: &Path) -> io::Result<Filesystem> {
        let path = path.to_owned();
        Ok(Filesystem(Arc::new(offload(move || fs::File::open(path)).await?)))
    }

    pub(in crate::io) async fn sync_filesystem(&self, filesystem: &Filesystem) -> io::Result<()> {
        let directory = filesystem.0.clone();
        offload(move || sys::sync_filesystem(&directory)).await
    }

    pub(in crate::io) async fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let path = path.to_owned();
        offload(move || sys::free_bytes(&path)).await
    }

    pub(in crate::io) async fn total_bytes(&self, path: &Path) -> io::Result<u64> {
        let path = path.to_owned();
        offload(move || sys::total_bytes(&path)).await
    }
}

/// A file without a name, with one block that is on the device.
fn unnamed_block(directory: &Path) -> io::Result<fs::File> {
    let options = |flags| {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).custom_flags(flags);
        options
    };
    let mut file = match options(libc::O_TMPFILE).open(directory) {
        Ok(file) => file,
        // Old file systems cannot make a file without a name: its name goes at once.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)) => {
            let name = format!(".device-probe-{}-{:?}", std::process::id(), std::thread::current().id());
            let path = directory.join(name);
            let file = options(0).create_new(true).open(&path)?;
            fs::remove_file(&path)?;
            file
        }
        Err(error) => return Err(error),
    };
    file.write_all(&[1; ALIGNMENT])?;
    file.sync_all()?;
    Ok(file)
}
