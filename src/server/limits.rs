//! What the system and its allocator let the process have: open files, and memory that is really given back.

#![allow(unsafe_code)]

use std::ffi::c_int;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the number of files that may be open to the hard limit and returns it; `None` is "no limit".
#[must_use]
pub fn raise_open_files() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // Refused in some sandboxes: then the old limit holds.
    let raised = current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    if raised { maximum } else { current }
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
