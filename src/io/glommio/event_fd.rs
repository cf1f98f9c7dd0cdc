//! The bell that wakes a parked executor: an eventfd that it reads through its own ring.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use ::glommio::io::BufferedFile;

/// A bell that any thread may ring.
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A silent bell.
    /// # Panics
    /// If the process has no descriptor left, at start.
    #[must_use]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        // SAFETY: a plain system call without pointers.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        assert!(descriptor >= 0, "an eventfd for the mesh: {}", io::Error::last_os_error());
        // SAFETY: the descriptor is new and nobody else's.
        Self(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }

    /// Rings. Never blocks: the counter holds 2^64 - 2 rings.
    pub fn ring(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight readable bytes and an open descriptor.
        let written = unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        assert!(written == 8, "a bell rings: {}", io::Error::last_os_error());
    }

    /// The listening side, on the core whose bell it is.
    pub(in crate::io) fn attend(&self) -> Attendant {
        let descriptor = self.0.try_clone().expect("a descriptor for the mesh").into_raw_fd();
        // SAFETY: the descriptor is a fresh duplicate that the file owns from now on.
        Attendant(unsafe { BufferedFile::from_raw_fd(descriptor) })
    }
}

/// Hears a bell; stays on its core.
pub struct Attendant(BufferedFile);

impl Attendant {
    /// Waits until the bell has rung since the last time.
    pub async fn rung(&self) {
        let counter = self.0.read_at(0, 8).await;
        assert!(counter.is_ok_and(|bytes| bytes.len() == 8), "an eventfd is always readable in the end");
    }
}
