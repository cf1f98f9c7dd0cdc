//! The bell that wakes a parked executor: an eventfd that it reads through its own ring.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use ::glommio::io::BufferedFile;
use rustix::event::EventfdFlags;

/// A bell that any thread may ring.
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A silent bell.
    /// # Panics
    /// If the process has no descriptor left, at start.
    #[must_use]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(rustix::event::eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd for the mesh"))
    }

    /// Rings. Never blocks: the counter holds 2^64 - 2 rings.
    pub fn ring(&self) {
        let written = rustix::io::write(&self.0, &1u64.to_ne_bytes());
        assert!(written == Ok(8), "a bell rings: {written:?}");
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
