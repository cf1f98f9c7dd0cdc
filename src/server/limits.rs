//! The process' limit of open files, raised as far as it goes.

#![allow(unsafe_code)]

use std::{io, mem};

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
