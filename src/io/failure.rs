//! Which failures of the operating system mean what.

use std::io::{self, ErrorKind};

/// Whether there is no room: on the disk, or in the quota of whoever runs the broker. Both pass when something is removed.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Whether the same may succeed a moment later, without anything being wrong with the file: the process or the machine has
/// too many files open, too little memory, or was interrupted.
#[must_use]
pub fn is_passing(error: &io::Error) -> bool {
    let passing = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::EAGAIN, libc::EINTR];
    match error.raw_os_error() {
        Some(number) => passing.contains(&number),
        None => matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::OutOfMemory),
    }
}

/// Whether the machine has no such address, or none of that kind.
#[must_use]
pub fn is_no_address(error: &io::Error) -> bool {
    error.kind() == ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_a_full_disk_and_too_many_open_files_pass() {
        let of = io::Error::from_raw_os_error;
        assert!(is_full(&of(libc::ENOSPC)) && is_full(&of(libc::EDQUOT)));
        assert!(!is_full(&of(libc::EIO)) && !is_full(&of(libc::EFBIG)));
        assert!(is_passing(&of(libc::EMFILE)) && is_passing(&of(libc::ENFILE)) && is_passing(&of(libc::ENOMEM)));
        assert!(!is_passing(&of(libc::EIO)) && !is_passing(&of(libc::ENOSPC)));
    }
}
