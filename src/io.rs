//! The doors to disk, network, clock, tasks, randomness and other cores. The only room that knows where they lead:
//! to glommio in production, to a seeded simulator ([`sim`]) in tests. Everything here lives on one core and is not
//! `Send`, but for [`SharedBuffer`], [`Slice`], [`MeshSeed`] and what travels through a [`Mesh`].

pub mod channel;
mod clock;
mod disk;
mod failure;
mod file_write;
#[cfg(feature = "glommio")]
pub mod glommio;
mod memory;
mod mesh;
mod outbox;
mod rand;
mod received;
#[cfg(feature = "glommio")]
mod ring;
pub mod sim;
mod spawner;
mod stream;
mod together;

use std::rc::Rc;

pub use self::{
    clock::{Clock, Instant},
    disk::{DirEntry, Disk, File, Filesystem, OpenOptions},
    failure::{is_full, is_no_address, is_passing},
    file_write::{DirectoryMark, FileLeft, FileWrite, Left, PieceWrite},
    memory::{ALIGNMENT, Buffer, Pinned, SharedBuffer, Slice, Tail, align_up},
    mesh::{Mesh, MeshSeed, mesh, mesh_bytes},
    outbox::{BYTES_AT_ONCE_MAX, OnTheWay, Outbox, PIECES_AT_ONCE_MAX},
    rand::Rand,
    received::Received,
    spawner::{Spawner, StoppableTask},
    stream::{BoundAddress, DetachedStream, RECEIVED_BYTES_MAX, Stream, StreamOptions},
    together::{Either, either, join_all},
};
use crate::metrics::Metrics;

/// All doors of one core. Cheap to clone.
#[derive(Clone)]
pub struct Io {
    /// Files and buffers.
    pub disk: Disk,
    /// Time.
    pub clock: Clock,
    /// Tasks of this core.
    pub spawner: Spawner,
    /// Randomness.
    pub rand: Rand,
    /// What the core counts, for whoever asks.
    pub metrics: Rc<Metrics>,
}

/// Forwards a call to whichever backend the door leads to.
macro_rules! forward {
    ($door:expr, $backend:ident => $call:expr) => {
        match $door {
            #[cfg(feature = "glommio")]
            Self::Glommio($backend) => $call,
            Self::Sim($backend) => $call,
        }
    };
}
use forward;
