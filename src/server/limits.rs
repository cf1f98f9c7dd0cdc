//! The process' resource limits: raised as far as they go, then held against what the executors need.

#![allow(unsafe_code)]

use std::{fs, io, mem};

/// What one executor's rings pin beside its buffers, in bytes. Measured: with 64 KiB of buffers, 512 KiB of memlock start
/// two executors and 2 MiB start eight.
const RING_BYTES: u64 = 240 * 1024;

/// glommio refuses to start an executor below this limit.
const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;

/// The registered buffers of one executor: a small gain each, and resident from the start, so not many.
const IO_MEMORY_BYTES_MAX: u64 = 2 << 20;

const IO_MEMORY_BYTES_MIN: u64 = 64 * 1024;

/// glommio registers its buffers with three rings, and each counts.
const RINGS: u64 = 3;

const CAP_IPC_LOCK: u32 = 14;

/// Raises the soft limit of a resource to its hard one, and returns what holds now; `None` is "no limit".
/// # Errors  whatever the system says.
fn raise(resource: libc::__rlimit_resource_t) -> io::Result<Option<u64>> {
    // SAFETY: rlimit is plain data.
    let mut limit: libc::rlimit = unsafe { mem::zeroed() };
    // SAFETY: `limit` is writable for the call.
    if unsafe { libc::getrlimit(resource, &raw mut limit) } < 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur != limit.rlim_max {
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, rlim_max: limit.rlim_max };
        // SAFETY: `raised` is readable for the call. Refused in some sandboxes: then the old limit holds.
        if unsafe { libc::setrlimit(resource, &raw const raised) } == 0 {
            limit = raised;
        }
    }
    Ok((limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur))
}

/// Raises the number of open files to the hard limit and returns it.
/// # Errors  whatever the system says.
pub fn raise_open_files() -> io::Result<Option<u64>> {
    raise(libc::RLIMIT_NOFILE)
}

/// The memory that may be locked, in bytes; `None` is no limit, as for root and whoever has CAP_IPC_LOCK.
/// # Errors  whatever the system says.
pub fn lockable_memory() -> io::Result<Option<u64>> {
    let limit = raise(libc::RLIMIT_MEMLOCK)?;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    Ok(if may_lock(&status) { None } else { limit })
}

fn may_lock(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    bits.is_some_and(|bits| bits >> CAP_IPC_LOCK & 1 == 1)
}

/// The registered buffers of each of `cores` executors, in bytes, within `lockable` memory.
/// # Errors  One sentence that names the `--cores` that fits.
pub fn io_memory(cores: usize, lockable: Option<u64>) -> Result<usize, String> {
    let Some(lockable) = lockable else { return Ok(IO_MEMORY_BYTES_MAX as usize) };
    let fits = if lockable < MEMLOCK_BYTES_MIN { 0 } else { lockable / RING_BYTES };
    if fits < cores as u64 {
        let remedy = match fits {
            0 => String::new(),
            fits => format!("start with --cores {fits}, or "),
        };
        return Err(format!(
            "{cores} executors need {} KiB of lockable memory, the limit is {} KiB: {remedy}raise it (ulimit -l, or \
             LimitMEMLOCK=infinity in a systemd unit, or --ulimit memlock=-1 for a container)",
            (cores as u64 * RING_BYTES).max(MEMLOCK_BYTES_MIN) / 1024,
            lockable / 1024,
        ));
    }
    let share = (lockable / (RINGS * cores as u64)).saturating_sub(IO_MEMORY_BYTES_MIN);
    let bounded = share.clamp(IO_MEMORY_BYTES_MIN, IO_MEMORY_BYTES_MAX);
    // A power of two, since the arena hands out nothing else.
    Ok(1 << bounded.ilog2())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_shrink_with_the_limit_until_no_executor_fits() {
        assert_eq!(io_memory(16, None), Ok(2 << 20));
        assert_eq!(io_memory(2, Some(8 << 20)), Ok(1 << 20));
        assert_eq!(io_memory(16, Some(8 << 20)), Ok(64 << 10));
        assert_eq!(io_memory(2, Some(512 << 10)), Ok(64 << 10));
        let error = io_memory(8, Some(512 << 10)).expect_err("eight do not fit");
        assert!(error.contains("--cores 2"), "{error}");
        let error = io_memory(1, Some(64 << 10)).expect_err("none fits");
        assert!(!error.contains("--cores") && error.contains("ulimit -l"), "{error}");
    }

    #[test]
    fn the_capability_is_read() {
        assert!(may_lock("Name: x\nCapEff:\t000001ffffffffff\n"));
        assert!(!may_lock("CapEff:\t0000000000000000\n"));
        assert!(!may_lock(""));
    }
}
