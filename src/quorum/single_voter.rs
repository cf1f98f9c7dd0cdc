//! A quorum of one: what its log has made durable is committed.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    path::PathBuf,
    rc::Rc,
};

use tracing::warn;

use crate::{
    base::{ErrorCode, LeaderEpoch, Offset},
    io::{
        Io,
        channel::{Notify, OneshotReceiver},
    },
    metadata::{CommittedBatch, Position},
    partition::Partition,
    protocol::{batch::BatchBuilder, metadata_records::MetadataRecord},
    quorum::{Event, LocalFuture, Quorum, snapshot},
    replica::{Acks, Appended, Replica, built},
};

/// After this many bytes of records a snapshot is written and the log before the last one given up. Less in tests, so that simulated
/// brokers get there. A start after `kill -9` writes 40 bytes for each partition, and reads all that came since the last
/// snapshot: with 10,000 partitions this is five such starts.
const SNAPSHOT_BYTES: u64 = if cfg!(test) { 8 * 1024 } else { 2 * 1024 * 1024 };

/// The only voter, whose log is `__cluster_metadata-0`. It leads from its start on, but for the moment in which its log
/// refuses a proposal: then the controller, which has counted on it, has to begin anew.
pub struct SingleVoter {
    io: Io,
    replica: Rc<Replica>,
    /// Where snapshots go: the metadata partition's directory.
    directory: PathBuf,
    since_snapshot: Cell<u64>,
    leads: Cell<bool>,
    /// Where the next proposal begins in the log.
    next_offset: Cell<Offset>,
    /// What is on its way to the disk, in order.
    proposed: RefCell<VecDeque<Proposed>>,
    news: Notify,
}

struct Proposed {
    records: Vec<MetadataRecord>,
    appended: OneshotReceiver<Appended>,
}

impl SingleVoter {
    /// Drives the given metadata partition, whose log has so many bytes behind the last snapshot; snapshots go to
    /// `directory`.
    #[must_use]
    pub fn new(io: Io, replica: Rc<Replica>, directory: PathBuf, bytes_since_snapshot: u64) -> Self {
        Self {
            io,
            replica,
            directory,
            since_snapshot: Cell::new(bytes_since_snapshot),
            leads: Cell::new(false),
            next_offset: Cell::new(Offset::ZERO),
            proposed: RefCell::default(),
            news: Notify::new(),
        }
    }

    fn epoch(&self) -> LeaderEpoch {
        self.replica.inspect(Partition::leader_epoch)
    }

    /// Leads once everything that was proposed before is decided.
    fn gain(&self) -> Event {
        self.next_offset.set(self.replica.inspect(Partition::log_end_offset));
        self.leads.set(true);
        Event::Gained(self.epoch())
    }

    async fn next_event(&self) -> Event {
        loop {
            let first = self.proposed.borrow_mut().pop_front();
            let Some(Proposed { records, appended }) = first else {
                if !self.leads.get() {
                    return self.gain();
                }
                self.news.notified().await;
                continue;
            };
            match appended.await.unwrap_or(Err(ErrorCode::KafkaStorageError)) {
                Ok(produced) => {
                    let base_offset = produced.base_offset;
                    let last_offset = base_offset.plus(records.len() as i64 - 1);
                    return Event::Committed(CommittedBatch { base_offset, last_offset, epoch: self.epoch(), records });
                }
                Err(error) if self.leads.replace(false) => return Event::Lost(error),
                // What was proposed behind a failure was answered with it.
                Err(_) => {}
            }
        }
    }

    async fn take_snapshot(&self, position: Position, records: &[MetadataRecord]) {
        self.since_snapshot.set(0);
        let taken = snapshot::take(&self.io, &self.replica, &self.directory, position, records).await;
        let Some(previous) = taken else { return };
        match self.replica.delete_records(previous.0).await {
            Ok(_) => snapshot::remove_older(&self.io, &self.directory, previous).await,
            Err(error) => warn!(?error, "metadata log could not be shortened"),
        }
    }
}

impl Quorum for SingleVoter {
    fn propose(&self, epoch: LeaderEpoch, records: Vec<MetadataRecord>) -> Result<Offset, ErrorCode> {
        if !self.leads.get() || epoch != self.epoch() {
            return Err(ErrorCode::NotController);
        }
        let now = self.io.clock.wall();
        let mut batch = BatchBuilder::new();
        for record in &records {
            batch.push(now, None, Some(&record.encode()));
        }
        let batch = built(batch);
        self.since_snapshot.set(self.since_snapshot.get() + batch.bytes.len() as u64);
        let next_offset = self.next_offset.get().plus(records.len() as i64);
        self.next_offset.set(next_offset);
        let appended = self.replica.append(batch, Acks::All);
        self.proposed.borrow_mut().push_back(Proposed { records, appended });
        self.news.notify_all();
        Ok(next_offset.plus(-1))
    }

    fn next(&self) -> LocalFuture<'_, Event> {
        Box::pin(self.next_event())
    }

    fn wants_snapshot(&self) -> bool {
        self.since_snapshot.get() >= SNAPSHOT_BYTES
    }

    fn snapshot<'a>(&'a self, position: Position, records: &'a [MetadataRecord]) -> LocalFuture<'a, ()> {
        Box::pin(self.take_snapshot(position, records))
    }
}
