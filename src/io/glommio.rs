//! The production backend: glommio's executor, one per core. Nothing outside of this room and `net` names glommio.
//!
//! Living with glommio 0.9.0: every executor runs a ladder of timers, because it may park with runnable tasks;
//! files are never read past their known end, because it then returns bytes that were never read; and its errors of
//! starting come out of `join`, so [`start`] waits until every executor runs.

mod disk;
mod event_fd;
mod file;
mod ladder;
pub mod probe;
mod start;
mod sys;
mod tasks;
mod whole_files;

pub use disk::{Disk, Filesystem};
pub use event_fd::{Attendant, EventFd};
pub use file::File;
pub use start::{Executors, StartError, doors, start};
pub use tasks::{Clock, Spawner};

#[cfg(test)]
mod tests;
