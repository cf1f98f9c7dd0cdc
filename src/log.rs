//! The log: journal, segments, checkpoints, recovery. Runs on `io` alone, so production and simulator share every line.
//!
//! An append goes into its partition's tail chunk and into the journal's current block; the block's write is what
//! makes it count. Segments are filled from the chunks in the background, and checkpoints free the journal.
//!
//! Start: [`recover`] on one core, then [`CoreLog::start`] on each. Stop: [`CoreLog::stop`] on each, then
//! [`finish_clean_stop`] on one.

mod append;
mod ballast;
mod bulk;
mod check;
mod checkpoint;
mod chunk;
mod clean_stop;
mod cold;
mod core;
mod core_log;
mod destage;
pub mod directory;
mod files;
mod image;
// Open for the benches alone.
#[doc(hidden)]
pub mod index;
#[doc(hidden)]
pub mod journal;
mod locate;
mod logs;
mod memory;
mod names;
mod offline;
mod pace;
mod partition_directory;
mod partition_log;
mod placing;
mod reader;
mod recovery;
mod removal;
mod rescue;
mod rescuing;
mod retention;
mod room;
mod segment;
mod settings;
mod slots;
mod space;
mod sync_gate;
#[cfg(test)]
mod tests;
mod timestamps;
mod truncation;
mod wire;

#[cfg(test)]
pub use self::truncation::Truncated;
pub use self::{
    ballast::put_ballast,
    check::{CheckReport, Finding, Start, check},
    clean_stop::{StopReport, finish_clean_stop},
    core::{Fatal, LogSeed},
    core_log::{CoreLog, RestoredPartition},
    partition_log::Log,
    recovery::{RecoveryReport, recover},
    room::Reservation,
    settings::{KnownPartitions, LivePartitions, LogConfig, LogError, LogSettings, MetadataLog, Read, RecoverError},
};
