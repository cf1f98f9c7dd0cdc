//! What a start looks at first, so that it can say in words what is wrong: io_uring, locked memory, direct I/O.

use std::{
    fmt, fs,
    io::{self, ErrorKind},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::Path,
};

use super::{start::Door, sys};
use crate::io::ring;

/// The kernel locks the I/O memory once for each of glommio's three rings.
const RINGS: u64 = 3;

/// Locked bytes that an executor needs besides its I/O memory. Since Linux 6.14 a ring counts by itself: 64 bytes for each
/// submission, 16 for each of twice as many completions, 4 for each index, and a page in front. Our own has the ring of its
/// buffers as well.
const fn rings_locked_bytes(door: Door) -> u64 {
    RINGS * (door.glommio_depth() as u64 * (64 + 2 * 16 + 4) + 4096) + own_ring_locked_bytes(door)
}

const fn own_ring_locked_bytes(door: Door) -> u64 {
    match door {
        Door::Ring => ring::ENTRIES as u64 * (64 + 4) + ring::COMPLETIONS as u64 * 16 + 2 * 4096,
        Door::Glommio => 0,
    }
}

/// The least I/O memory of an executor: with less nothing is gained by registering it.
const IO_MEMORY_MIN: u64 = 64 * 1024;

/// The most of it: with more nothing is gained either. Our own ring does not use that it is registered, so there it is as
/// much as the blocks of a journal take from it, which need not be asked for again and again then.
const fn io_memory_max(door: Door) -> u64 {
    match door {
        Door::Ring => 512 * 1024,
        Door::Glommio => 2 * 1024 * 1024,
    }
}

/// glommio starts with no less than this limit.
const MEMLOCK_MIN: u64 = 512 * 1024;

/// Why executors cannot run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// `kernel.io_uring_disabled` forbids it.
    Disabled {
        /// The setting: 1 leaves it to a group and to root, 2 to nobody.
        setting: u32,
    },
    /// A security filter forbids it, usually a container's.
    Forbidden,
    /// The kernel has no io_uring.
    Missing,
    /// Too little memory may be locked.
    Memlock {
        /// `RLIMIT_MEMLOCK` in bytes.
        limit: u64,
        /// For how many cores it is enough.
        cores_that_fit: usize,
    },
    /// Something else.
    Other(String),
}

impl fmt::Display for Unusable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled { setting } => write!(
                out,
                "io_uring is switched off (kernel.io_uring_disabled = {setting}): run `sysctl -w kernel.io_uring_disabled=0`"
            ),
            Self::Forbidden => write!(
                out,
                "io_uring is forbidden by a seccomp filter or security module: containers need a profile that allows \
                 io_uring_setup, io_uring_enter and io_uring_register (docker: --security-opt seccomp=unconfined)"
            ),
            Self::Missing => {
                write!(out, "this kernel has no io_uring: Linux 5.8 or later with CONFIG_IO_URING is needed")
            }
            Self::Memlock { limit, cores_that_fit: 0 } => write!(
                out,
                "only {} KiB may be locked: raise the limit (`ulimit -l unlimited`, systemd: LimitMEMLOCK=infinity)",
                limit / 1024
            ),
            Self::Memlock { limit, cores_that_fit } => write!(
                out,
                "only {} KiB may be locked, enough for {cores_that_fit} cores: raise the limit (`ulimit -l unlimited`, \
                 systemd: LimitMEMLOCK=infinity) or start with --cores {cores_that_fit}",
                limit / 1024
            ),
            Self::Other(message) => write!(out, "io_uring does not work here: {message}"),
        }
    }
}

impl std::error::Error for Unusable {}

/// Asks the kernel for a ring.
/// # Errors  Why there is none.
pub fn io_uring() -> Result<(), Unusable> {
    match sys::try_ring() {
        Ok(()) => Ok(()),
        Err(error) => Err(explain(&error, fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok().as_deref())),
    }
}

/// Asks the kernel for a ring of our own kind, which takes more than glommio's.
/// # Errors  The kernel's.
pub fn own_ring() -> io::Result<()> {
    ring::probe()
}

/// Says what an error of `io_uring_setup` means, given the setting that may forbid it.
fn explain(error: &io::Error, setting: Option<&str>) -> Unusable {
    let setting = setting.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) if setting > 0 => Unusable::Disabled { setting },
        Some(libc::EPERM | libc::EACCES) => Unusable::Forbidden,
        Some(libc::ENOSYS) => Unusable::Missing,
        Some(libc::ENOMEM) => {
            let limit = sys::raise_memlock().ok().flatten().unwrap_or(u64::MAX);
            Unusable::Memlock { limit, cores_that_fit: 0 }
        }
        Some(_) | None => Unusable::Other(error.to_string()),
    }
}

/// I/O memory for each of `cores` executors, in bytes, within what may be locked; raises the soft limit to the hard one.
/// # Errors  If the limit is too low for so many.
pub fn io_memory(cores: usize, door: Door) -> Result<usize, Unusable> {
    let limit = sys::raise_memlock().map_err(|error| Unusable::Other(error.to_string()))?;
    io_memory_within(limit, may_lock_anything(), cores, door)
}

fn io_memory_within(limit: Option<u64>, unlimited: bool, cores: usize, door: Door) -> Result<usize, Unusable> {
    let size = |bytes: u64| usize::try_from(bytes).expect("at most a few MiB");
    let may_be_locked = limit.unwrap_or(u64::MAX);
    let limit = match limit {
        // glommio looks at the limit even if the kernel would not.
        Some(limit) if limit < MEMLOCK_MIN => return Err(Unusable::Memlock { limit, cores_that_fit: 0 }),
        // The kernel takes its time to give back what the ring had that was made to see whether there is one.
        Some(limit) if !unlimited => limit - own_ring_locked_bytes(door),
        Some(_) | None => return Ok(size(io_memory_max(door))),
    };
    let each = limit / (cores.max(1) as u64);
    let memory = each.saturating_sub(rings_locked_bytes(door)) / RINGS / 4096 * 4096;
    if memory >= IO_MEMORY_MIN {
        return Ok(size(memory.min(io_memory_max(door))));
    }
    let needed = rings_locked_bytes(door) + RINGS * IO_MEMORY_MIN;
    Err(Unusable::Memlock {
        limit: may_be_locked,
        cores_that_fit: usize::try_from(limit / needed).unwrap_or(usize::MAX),
    })
}

/// Whether this process has CAP_IPC_LOCK, to which the limit does not apply.
fn may_lock_anything() -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> CAP_IPC_LOCK & 1 == 1)
}

/// How files of a directory can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectIo {
    /// Past the page cache.
    Direct,
    /// It lies in memory: everything works, and nothing survives a power cut.
    Tmpfs,
    /// Through the page cache and threads: slower.
    Buffered,
}

/// Tries direct I/O in a directory by making a file there for a moment.
/// # Errors  The operating system's: the directory is missing, not writable, on a read-only or full disk.
pub fn direct_io(directory: &Path) -> io::Result<DirectIo> {
    if sys::is_tmpfs(fs::File::open(directory)?.as_raw_fd())? {
        return Ok(DirectIo::Tmpfs);
    }
    let path = directory.join(format!(".direct-io-probe-{}", std::process::id()));
    let opened = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(libc::O_DIRECT)
        .open(&path);
    let answer = match opened {
        Ok(_) => Ok(DirectIo::Direct),
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(DirectIo::Buffered),
        Err(error) => return Err(error),
    };
    // The file was made even if it could not be opened for direct I/O.
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_kernel_in_words() {
        let said = |code, setting| explain(&io::Error::from_raw_os_error(code), setting).to_string();
        assert!(said(libc::EPERM, Some("2\n")).contains("kernel.io_uring_disabled = 2"));
        assert!(said(libc::EPERM, Some("0\n")).contains("seccomp"));
        assert!(said(libc::EPERM, None).contains("seccomp"));
        assert!(said(libc::ENOSYS, None).contains("no io_uring"));
        assert!(said(libc::ENOMEM, None).contains("locked"));
    }

    #[test]
    fn io_memory_fits_what_may_be_locked() {
        let mib = 1024 * 1024;
        for (door, most, fit) in [(Door::Glommio, 2 * mib, 2), (Door::Ring, mib / 2, 3)] {
            let within = |limit, unlimited, cores| io_memory_within(limit, unlimited, cores, door);
            assert_eq!(within(None, false, 64), Ok(most as usize));
            assert_eq!(within(Some(8 * mib), true, 64), Ok(most as usize));
            let two = within(Some(4 * mib), false, 2).unwrap() as u64;
            assert!(two * 3 * 2 + 2 * rings_locked_bytes(door) <= 4 * mib && two > mib / 3, "{two}");
            assert_eq!(within(Some(mib), false, 8), Err(Unusable::Memlock { limit: mib, cores_that_fit: fit }));
            let none = within(Some(65536), false, 1).unwrap_err();
            assert_eq!(none, Unusable::Memlock { limit: 65536, cores_that_fit: 0 });
            assert!(!none.to_string().contains("--cores"));
            // The figure that the message names does fit.
            assert!(within(Some(mib), false, fit).is_ok());
        }
    }
}
