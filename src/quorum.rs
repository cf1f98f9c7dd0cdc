//! The driver behind the controller: one voter, whose log is `__cluster_metadata-0`.
//!
//! A change is committed when its records are durable. When there are more voters, only this room changes.

mod snapshot;

use std::{cell::Cell, path::PathBuf, rc::Rc};

use tracing::{info, warn};

use crate::{
    base::{ErrorCode, Offset},
    io::Io,
    protocol::{batch::BatchBuilder, metadata_records::MetadataRecord},
    replica::{Replica, built},
};

pub use snapshot::{Metadata, MetadataError, read_snapshot};

/// After this many bytes of records a snapshot is written and the log before the last one given up. Less in tests, so that simulated
/// brokers get there. A start after `kill -9` writes 40 bytes for each partition, and reads all that came since the last
/// snapshot: with 10,000 partitions this is five such starts.
const SNAPSHOT_BYTES: u64 = if cfg!(test) { 8 * 1024 } else { 2 * 1024 * 1024 };

/// The metadata log of a single node.
pub struct Quorum {
    io: Io,
    replica: Rc<Replica>,
    /// Where snapshots go: the metadata partition's directory.
    directory: PathBuf,
    since_snapshot: Cell<u64>,
}

impl Quorum {
    /// Drives the given metadata partition, whose log has so many bytes behind the last snapshot; snapshots go to
    /// `directory`.
    #[must_use]
    pub fn new(io: Io, replica: Rc<Replica>, directory: PathBuf, bytes_since_snapshot: u64) -> Self {
        Self { io, replica, directory, since_snapshot: Cell::new(bytes_since_snapshot) }
    }

    /// Makes records durable, as one batch: all of them or none. Gives the offset of the last one.
    ///
    /// # Errors
    /// `KafkaStorageError` if the log refused them.
    pub async fn commit(&self, records: &[MetadataRecord]) -> Result<Offset, ErrorCode> {
        let now = self.io.clock.wall();
        let mut batch = BatchBuilder::new();
        for record in records {
            batch.push(now, None, Some(&record.encode()));
        }
        let batch = built(batch);
        self.since_snapshot.set(self.since_snapshot.get() + batch.bytes.len() as u64);
        let appended = self.replica.append(batch).await.unwrap_or(Err(ErrorCode::KafkaStorageError))?;
        Ok(appended.base_offset.plus(records.len() as i64 - 1))
    }

    /// Whether the log has grown so far that a snapshot is worth its cost.
    #[must_use]
    pub fn wants_snapshot(&self) -> bool {
        self.since_snapshot.get() >= SNAPSHOT_BYTES
    }

    /// Writes the state that the log has led to as a snapshot, and gives up the log before the previous one: should the newest
    /// snapshot not be readable some day, that one and the log are the metadata. A failure leaves the log as it is.
    pub async fn snapshot(&self, records: &[MetadataRecord]) {
        self.since_snapshot.set(0);
        let end = self.replica.high_watermark();
        let epoch = self.replica.inspect(crate::partition::Partition::leader_epoch);
        let written = async {
            // The directory is the log's, and a log takes one that it did not make for somebody else's.
            self.replica.log().make_directory().await?;
            snapshot::write(&self.io, &self.directory, end, epoch, records).await
        };
        match written.await {
            Ok(()) => {}
            Err(error) => {
                warn!(%error, "metadata snapshot could not be written; the log stays long");
                return;
            }
        }
        info!(%end, records = records.len(), "metadata snapshot written");
        let previous = match snapshot::one_before(&self.io, &self.directory, end).await {
            Ok(Some(previous)) => previous,
            Ok(None) => return,
            Err(error) => {
                warn!(%error, "metadata snapshots could not be listed; the log stays long");
                return;
            }
        };
        match self.replica.delete_records(previous.0).await {
            Ok(_) => snapshot::remove_older(&self.io, &self.directory, previous).await,
            Err(error) => warn!(?error, "metadata log could not be shortened"),
        }
    }
}
