//! What the system and its allocator let the process have: open files, and memory that is really given back.

#![allow(unsafe_code)]

use std::{ffi::c_int, io, mem};

/// Raises the number of files that may be open to the hard limit and returns it; `None` is "no limit".
/// # Errors  whatever the system says.
pub fn raise_open_files() -> io::Result<Option<u64>> {
    // SAFETY: rlimit is plain data.
    let mut limit: libc::rlimit = unsafe { mem::zeroed() };
    // SAFETY: `limit` is writable for the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } < 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur != limit.rlim_max {
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, rlim_max: limit.rlim_max };
        // SAFETY: `raised` is readable for the call. Refused in some sandboxes: then the old limit holds.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0 {
            limit = raised;
        }
    }
    Ok((limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur))
}

/// Of the broker's memory, the part above which the allocator does not keep what was freed.
const KEPT_PART: u64 = 1024;
/// The allocator's own beginning.
const KEPT_BYTES_MIN: u64 = 128 << 10;
const KEPT_BYTES_MAX: u64 = 32 << 20;

/// Has the allocator give large pieces back to the system when they are freed. glibc takes them from there at first, but
/// after the first one that is freed keeps all up to that size, in an arena for each thread: with 64 MiB of memory and
/// requests of 900 KB that was 40 MiB that nobody used. Fetching a page again costs what a copy of it does, so pieces that
/// are small beside the memory are kept.
pub fn keep_no_large_memory(memory_bytes: u64) {
    let bytes = (memory_bytes / KEPT_PART).clamp(KEPT_BYTES_MIN, KEPT_BYTES_MAX);
    // SAFETY: no pointers. An older allocator that refuses only keeps more.
    #[cfg(target_env = "gnu")]
    let _ = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, bytes as c_int) };
    #[cfg(not(target_env = "gnu"))]
    let _ = bytes as c_int;
}
