//! The production backend: glommio's executor, one per core. Nothing outside of this room names glommio.
//!
//! Living with glommio 0.9.0: every executor runs a ladder of timers, because it may park with runnable tasks;
//! files are never read past their known end, because it then returns bytes that were never read; and its errors of
//! starting come out of `join`, so [`start`] waits until every executor runs.

mod disk;
mod event_fd;
mod file;
mod ladder;
pub mod probe;
pub(in crate::io) mod socket;
mod start;
mod stream;
mod sys;
mod tasks;
mod whole_files;

pub use self::{
    disk::{Disk, Filesystem},
    event_fd::EventFd,
    file::File,
    start::{Door, start},
    stream::{BoundAddress, DetachedStream, Incoming, Stream},
    tasks::{Clock, Spawner},
};
pub(in crate::io) use self::{socket::addresses, tasks::now};

// The same file twice: what is shown through one door is shown through the other.
#[cfg(test)]
#[allow(clippy::duplicate_mod)]
mod through_glommio;
#[cfg(test)]
#[allow(clippy::duplicate_mod)]
mod through_the_ring;
