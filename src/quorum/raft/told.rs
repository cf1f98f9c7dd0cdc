//! What is committed: taken over into the metadata's log, and told once it is durable there.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::pending,
    rc::Rc,
};

use super::{RaftQuorum, entry, voting::epoch_of};
use crate::{
    base::{ErrorCode, LeaderEpoch, Offset},
    io::channel::Notify,
    log::LogError,
    metadata::CommittedBatch,
    partition::{AssignedRole, Assignment, Partition},
    quorum::{Event, raft::snapshots::Received},
    replica::FollowError,
};

/// So many committed entries are made durable in the metadata's log with one wait.
const ENTRIES_AT_ONCE: usize = 64;
/// So many bytes of them, and one in any case.
const BYTES_AT_ONCE: usize = 1024 * 1024;

/// How far was told what. Changed by whoever asks for what comes next.
pub(super) struct Told {
    /// The last entry that is in the metadata's log.
    pub applied: Cell<u64>,
    /// The offset behind what was told, or is in `events`.
    end_offset: Cell<Offset>,
    events: RefCell<VecDeque<CommittedBatch>>,
    /// The epoch that was told to be ours, until its end was told.
    pub leads: Cell<Option<LeaderEpoch>>,
    /// A proposal was not taken: whoever has made it begins anew.
    pub dropped: Cell<bool>,
    /// The offset of the next proposal.
    pub next_offset: Cell<Offset>,
    /// The metadata's log ends before what is known: a snapshot has the rest.
    is_short: Cell<bool>,
    /// The driver has to begin anew from these records.
    pub replaced: RefCell<Option<Received>>,
}

/// A committed entry on its way into the metadata's log.
struct Committed {
    term: u64,
    index: u64,
    data: Vec<u8>,
    end_offset: Offset,
}

impl Told {
    /// Everything before that offset is known, and everything up to that entry is; the metadata's log may end before it.
    pub(super) fn new(applied: u64, end_offset: Offset, is_short: bool) -> Self {
        Self {
            applied: Cell::new(applied),
            end_offset: Cell::new(end_offset),
            events: RefCell::default(),
            leads: Cell::new(None),
            dropped: Cell::new(false),
            next_offset: Cell::new(Offset::ZERO),
            is_short: Cell::new(is_short),
            replaced: RefCell::new(None),
        }
    }
}

impl RaftQuorum {
    pub(super) async fn next_event(self: &Rc<Self>) -> Event {
        loop {
            let progress = self.progress.notified();
            if let Some(batch) = self.told.events.borrow_mut().pop_front() {
                return Event::Committed(batch);
            }
            let leads = self.status.get().leads;
            if self.told.leads.get().is_some_and(|epoch| leads != Some(epoch) || self.told.dropped.get()) {
                self.told.leads.set(None);
                return Event::Lost(ErrorCode::NotController);
            }
            if self.told.is_short.replace(false)
                && let Err(error) = self.fill(self.told.end_offset.get()).await
            {
                self.fail(&error).await;
            }
            let replaced = self.told.replaced.borrow_mut().take();
            if let Some(replaced) = replaced {
                let filled = self.fill(replaced.base.end_offset).await;
                match filled {
                    Ok(()) => return self.replaced(replaced),
                    Err(error) => self.fail(&error).await,
                }
            }
            let committed = self.next_committed();
            if !committed.is_empty() {
                if let Err(error) = self.take_over(committed).await {
                    self.fail(&error).await;
                }
            } else if let Some(epoch) = leads.filter(|_| self.told.leads.get().is_none() && self.is_all_told()) {
                self.told.next_offset.set(self.told.end_offset.get());
                self.told.leads.set(Some(epoch));
                self.told.dropped.set(false);
                return Event::Gained(epoch);
            } else {
                progress.await;
            }
        }
    }

    /// Nothing may be committed in a term, once it is told to be ours, but what is proposed from then on: so the whole log is
    /// told first, the leader's first entry with it.
    fn is_all_told(&self) -> bool {
        let last = self.node.borrow().raft.raft_log.last_index();
        self.told.applied.get() == last && self.proposals.borrow().is_empty()
    }

    fn replaced(&self, replaced: Received) -> Event {
        let Received { base, records, .. } = replaced;
        self.told.applied.set(base.mark.index);
        self.told.end_offset.set(base.end_offset);
        self.bytes_since_snapshot.set(0);
        self.news.notify_all();
        Event::Replaced { position: base.position(), records }
    }

    /// Makes the metadata's log go to where a snapshot ends that is on the disk, and then begin there. Logs of the metadata
    /// have no gaps: what is missing is stood in for by batches that no replay takes for anything else.
    async fn fill(&self, end: Offset) -> Result<(), FollowError> {
        loop {
            let (from, epoch) = self.replica.inspect(|partition| {
                (partition.log_end_offset(), partition.state().epochs.latest().unwrap_or(LeaderEpoch(0)))
            });
            if from >= end {
                break;
            }
            let upto = end.min(from.plus(i64::from(i32::MAX)));
            self.replica.follow(&entry::filler(from, upto, epoch), Offset::ZERO, Offset::ZERO).await?;
        }
        self.durable(end).await?;
        self.replica.follow(&[], end, end).await
    }

    fn next_committed(&self) -> Vec<Committed> {
        let node = self.node.borrow();
        let mut bytes = 0;
        let mut committed = Vec::new();
        let next = self.told.applied.get() + 1;
        for (entry, end_offset) in node.store().from(next).take(ENTRIES_AT_ONCE) {
            if entry.index > self.committed.get() || bytes > BYTES_AT_ONCE {
                break;
            }
            bytes += entry.data.len();
            let data = entry.data.to_vec();
            committed.push(Committed { term: entry.term, index: entry.index, data, end_offset });
        }
        committed
    }

    /// Appends what the metadata's log does not have yet, waits until it is durable there, and has it told.
    async fn take_over(&self, committed: Vec<Committed>) -> Result<(), FollowError> {
        let mut end = self.replica.inspect(Partition::log_end_offset);
        for Committed { term, data, end_offset, .. } in committed.iter().filter(|it| !it.data.is_empty()) {
            if *end_offset <= end {
                continue;
            }
            let epoch = epoch_of(*term);
            if self.replica.inspect(Partition::leader_epoch) < epoch {
                let role = AssignedRole::Follower { leader: None };
                self.replica.assign(&Assignment { role, ..Assignment::alone(epoch) });
            }
            let batch = entry::stamped(data, base_offset(data, *end_offset), epoch);
            self.replica.follow(&batch, Offset::ZERO, Offset::ZERO).await?;
            end = *end_offset;
        }
        let end = committed.last().map_or(end, |last| last.end_offset.min(end));
        self.durable(end).await?;
        // It is committed: readers may see it.
        self.replica.follow(&[], end, Offset::ZERO).await?;
        for Committed { term, index, data, end_offset } in committed {
            self.told.applied.set(index);
            if end_offset <= self.told.end_offset.get() {
                continue;
            }
            self.told.end_offset.set(end_offset);
            self.bytes_since_snapshot.set(self.bytes_since_snapshot.get() + data.len() as u64);
            let (base_offset, last_offset) = (base_offset(&data, end_offset), end_offset.plus(-1));
            let records = entry::records(&data).unwrap_or_default();
            let batch = CommittedBatch { base_offset, last_offset, epoch: epoch_of(term), records };
            self.told.events.borrow_mut().push_back(batch);
        }
        self.news.notify_all();
        Ok(())
    }

    async fn durable(&self, end: Offset) -> Result<(), FollowError> {
        let bell = Notify::new();
        let watch = self.replica.watch(&bell);
        let durable = loop {
            let rung = bell.notified();
            if self.replica.durable_end() >= end {
                break Ok(());
            }
            if let Some(error) = self.replica.log().offline() {
                break Err(FollowError::Log(error));
            }
            rung.await;
        };
        self.replica.unwatch(watch);
        durable
    }

    /// What is committed must be told, or nobody may be served: the process ends, or stops already.
    async fn fail(&self, error: &FollowError) {
        match error {
            FollowError::Log(LogError::Stopping) => {}
            FollowError::Log(_) | FollowError::Malformed | FollowError::Refused(_) => {
                (self.fatal)(format!("committed metadata cannot be taken over into its log: {error:?}"));
            }
        }
        pending().await
    }
}

fn base_offset(data: &[u8], end_offset: Offset) -> Offset {
    let count = entry::record_count(data).expect("an entry is checked before it gets into the log");
    end_offset.plus(-i64::from(count))
}
