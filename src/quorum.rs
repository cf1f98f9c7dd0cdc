//! The quorum behind the controller: whoever leads it proposes records, and every broker is told what is committed.
//!
//! A broker alone is the only voter ([`SingleVoter`]); several are a raft ([`RaftQuorum`]).

mod raft;
mod single_voter;
mod snapshot;

use std::{future::Future, pin::Pin};

#[expect(unused_imports, reason = "as above")]
pub use self::raft::{Malformed, OpenError, PACKET_BYTES_MAX, RaftQuorum, RaftSettings, Seat, Transport};
pub use self::{
    single_voter::SingleVoter,
    snapshot::{MetadataError, StoredMetadata, Voters, read_snapshot},
};
use crate::{
    base::{ErrorCode, LeaderEpoch, Offset},
    metadata::{CommittedBatch, Position},
    protocol::metadata_records::MetadataRecord,
};

/// What the quorum tells the broker. It tells everything once and in order, but may repeat what was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Records are committed, whoever proposed them.
    Committed(CommittedBatch),
    /// What is committed has gone on too far to be told one by one: the image is to be these records. In between, records
    /// were committed that nobody tells any more.
    Replaced {
        /// How far they go.
        position: Position,
        /// All that make the image.
        records: Vec<MetadataRecord>,
    },
    /// This broker leads from now on, in that epoch. What earlier leaders had committed has been told before, and nothing
    /// is committed any more but what is proposed in this epoch.
    Gained(LeaderEpoch),
    /// This broker leads no more. What it has proposed, and was not told to be committed, is to be answered with that code; it
    /// may still be committed later.
    Lost(ErrorCode),
}

/// What takes as long as the quorum needs.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// The broker's part in the quorum. Lives on the core of the metadata log, which alone asks it.
pub trait Quorum {
    /// Proposes records as one batch: all of them are committed, or none. Gives the offset of the last of them, if they are
    /// committed in this epoch; whether they are, [`next`](Self::next) tells. Bounded by the caller, which has one
    /// proposal under way.
    /// # Errors  `NotController` if this broker does not lead in that epoch. `next` tells so, too.
    fn propose(&self, epoch: LeaderEpoch, records: Vec<MetadataRecord>) -> Result<Offset, ErrorCode>;

    /// Waits for what happens next. For one caller, who must not give it up half-way.
    fn next(&self) -> LocalFuture<'_, Event>;

    /// Whether so much was committed that a snapshot is worth its cost.
    fn wants_snapshot(&self) -> bool;

    /// Writes the image as a snapshot, as the records that make it, and gives up the log before the previous one. A
    /// failure leaves the log as it is.
    fn snapshot<'a>(&'a self, position: Position, records: &'a [MetadataRecord]) -> LocalFuture<'a, ()>;
}
