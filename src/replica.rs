//! One partition on its core: its rules, its log, and who waits for them.
//!
//! Check → append → into memory runs without an await, so it is atomic on its core and needs no lock. What must wait
//! (memory, disk space) waits in the partition's own queue, in order, and blocks no other partition.

mod follow;
#[cfg(test)]
pub mod tests;
mod unanswered;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    pin::Pin,
    rc::Rc,
};

use tracing::error;

use self::unanswered::Unanswered;
pub use self::{follow::FollowError, unanswered::Acks};
use crate::{
    base::{BrokerId, ErrorCode, LeaderEpoch, Offset, PartitionKey, Timestamp},
    io::{
        Io, Slice,
        channel::{Notify, OneshotReceiver, OneshotSender, oneshot},
    },
    log::{Log, LogError, Read, Reservation},
    partition::{
        AppendPlan, Assignment, FetchPartition, FetchRefusal, Fetcher, FollowerFetch, IsrChange, IsrState, Partition,
        ValidBatch,
    },
    protocol::batch::{BatchBuilder, BatchHeader, BatchInfo},
};

/// What became of one batch.
pub type Appended = Result<Produced, ErrorCode>;

/// Where a batch was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Produced {
    /// The offset of the batch's first record.
    pub base_offset: Offset,
    /// The time the broker stamped, with `message.timestamp.type=LogAppendTime`. In milliseconds.
    pub log_append_time: Option<Timestamp>,
    /// The partition's first offset at that moment.
    pub log_start_offset: Offset,
}

/// A partition on the core that owns it.
pub struct Replica {
    io: Io,
    log: Rc<Log>,
    partition: RefCell<Partition>,
    /// Appends that found no room yet. Bounded by the connections' request memory, which their bytes still hold.
    waiting: RefCell<VecDeque<Waiting>>,
    draining: Cell<bool>,
    /// Appends that are answered when they are on stable storage here.
    until_durable: RefCell<Unanswered>,
    /// Appends that are answered when the high watermark has passed them.
    until_committed: RefCell<Unanswered>,
    watches: RefCell<Vec<Watch>>,
    next_watch: Cell<u64>,
    deleted: Cell<bool>,
}

/// Somebody who wants to know of news.
struct Watch {
    number: u64,
    bell: Notify,
    /// Of what is in memory, committed or not.
    of_appends: bool,
}

struct Waiting {
    batch: ValidBatch,
    acks: Acks,
    answer: OneshotSender<Appended>,
}

/// What one fetch of one partition gives.
#[derive(Debug, Default)]
pub struct Fetched {
    /// Why there is nothing.
    pub error: Option<ErrorCode>,
    /// The end of what consumers may see.
    pub high_watermark: Offset,
    /// The end of what `read_committed` consumers may see.
    pub last_stable_offset: Offset,
    /// The first offset that is kept.
    pub log_start_offset: Offset,
    /// Where the asker's log leaves ours (KIP-595).
    pub diverging: Option<(LeaderEpoch, Offset)>,
    /// Whole record batches, as they lie in memory or came from the disk.
    pub records: Vec<Slice>,
    /// The length of `records` in bytes.
    pub bytes: usize,
}

impl Fetched {
    /// An answer that carries an error and nothing else.
    #[must_use]
    pub fn refused(error: ErrorCode) -> Self {
        Self {
            error: Some(error),
            high_watermark: Offset(-1),
            last_stable_offset: Offset(-1),
            log_start_offset: Offset(-1),
            ..Self::default()
        }
    }
}

impl Replica {
    /// Puts a partition's rules and its log together. Everything in the log counts as durable.
    pub fn new(io: Io, log: Rc<Log>, partition: Partition) -> Rc<Self> {
        log.set_high_watermark(partition.high_watermark());
        Rc::new(Self {
            io,
            log,
            partition: RefCell::new(partition),
            waiting: RefCell::default(),
            draining: Cell::new(false),
            until_durable: RefCell::default(),
            until_committed: RefCell::default(),
            watches: RefCell::default(),
            next_watch: Cell::new(0),
            deleted: Cell::new(false),
        })
    }

    /// Which partition this is.
    pub fn key(&self) -> PartitionKey {
        self.log.key()
    }

    /// The partition's log.
    pub fn log(&self) -> &Rc<Log> {
        &self.log
    }

    /// Looks at the partition's rules.
    pub fn inspect<T>(&self, look: impl FnOnce(&Partition) -> T) -> T {
        self.follow_log_start();
        look(&self.partition.borrow())
    }

    /// The end of what is on disk and may be seen.
    pub fn high_watermark(&self) -> Offset {
        self.partition.borrow().high_watermark()
    }

    /// Appends a batch behind all that were handed over before it. The answer comes when the batch is as durable as `acks`
    /// says.
    pub fn append(self: &Rc<Self>, batch: ValidBatch, acks: Acks) -> OneshotReceiver<Appended> {
        let (answer, receiver) = oneshot();
        if self.deleted.get() {
            let _ = answer.send(Err(ErrorCode::UnknownTopicOrPartition));
            return receiver;
        }
        if let Err(error) = self.served() {
            let _ = answer.send(Err(error));
            return receiver;
        }
        if self.waiting.borrow().is_empty()
            && !self.draining.get()
            && let Some(room) = self.log.try_reserve(batch.bytes.len())
        {
            self.append_reserved(room, &batch, acks, answer);
            return receiver;
        }
        self.waiting.borrow_mut().push_back(Waiting { batch, acks, answer });
        self.drain_later();
        receiver
    }

    fn drain_later(self: &Rc<Self>) {
        if self.draining.replace(true) {
            return;
        }
        let this = self.clone();
        self.io.spawner.spawn(async move {
            loop {
                let Some(bytes) = this.waiting.borrow().front().map(|next| next.batch.bytes.len()) else { break };
                let room = this.log.reserve(bytes).await;
                let Some(next) = this.waiting.borrow_mut().pop_front() else { break };
                if next.batch.bytes.len() != bytes {
                    // Whoever it was for was refused meanwhile.
                    this.waiting.borrow_mut().push_front(next);
                    continue;
                }
                match room {
                    Ok(room) => this.append_reserved(room, &next.batch, next.acks, next.answer),
                    Err(error) => {
                        let _ = next.answer.send(Err(this.refusal(&error)));
                    }
                }
            }
            this.draining.set(false);
        });
    }

    /// Check, append, into memory: no await between, so nothing else of this core comes in between.
    fn append_reserved(&self, room: Reservation, batch: &ValidBatch, acks: Acks, answer: OneshotSender<Appended>) {
        let now = self.io.clock.wall();
        let mut partition = self.partition.borrow_mut();
        partition.move_log_start(self.log.log_start_offset());
        let enough = if acks == Acks::All { partition.check_enough_in_sync() } else { Ok(()) };
        let plan = match enough.and_then(|()| partition.check_append(&batch.info, now)) {
            Ok(plan) => plan,
            Err(error) => {
                let _ = answer.send(Err(error));
                return;
            }
        };
        let log_start_offset = partition.log_start_offset();
        let (end, produced) = match plan {
            AppendPlan::Append { base_offset, leader_epoch } => {
                let info = batch.info.at(base_offset, leader_epoch);
                self.log.append(room, &batch.bytes, &info);
                partition.appended(&info, now);
                self.wake_followers();
                let produced = Produced { base_offset, log_append_time: batch.log_append_time, log_start_offset };
                (info.next_offset(), produced)
            }
            // The original may still be on its way to the disk: the answer waits for it.
            AppendPlan::Duplicate { base_offset, last_offset, log_append_time } => {
                (last_offset.plus(1), Produced { base_offset, log_append_time, log_start_offset })
            }
        };
        let (counts, queue) = match acks {
            Acks::Leader => (partition.durable_end(), &self.until_durable),
            Acks::All => (partition.high_watermark(), &self.until_committed),
        };
        if end <= counts {
            let _ = answer.send(Ok(produced));
            return;
        }
        queue.borrow_mut().push(end, produced, answer);
    }

    /// Takes note that everything below `end` is durable here: answers go out, and as far as it is committed by that the high
    /// watermark moves and fetches wake.
    pub fn flushed(&self, end: Offset) {
        if self.log.is_offline() {
            self.wake_watches();
        }
        let (committed, durable) = {
            let mut partition = self.partition.borrow_mut();
            let before = partition.durable_end();
            let committed = partition.flushed(end);
            (committed, partition.durable_end() > before)
        };
        if durable {
            self.until_durable.borrow_mut().answer_until(end);
        }
        match committed {
            Some(_) => self.committed(committed),
            // What is committed its leader says: whoever waits at a follower waits for its disk.
            None if durable && !self.partition.borrow().is_leader() => self.wake_watches(),
            None => {}
        }
    }

    /// Takes the role that the metadata assigns. Who waits for an append to a partition that this broker no longer leads is
    /// told so: whether it stays, the new leader decides.
    pub fn assign(&self, assignment: &Assignment) {
        let committed = self.partition.borrow_mut().assign(assignment);
        self.committed(committed);
        if !self.partition.borrow().is_leader() {
            self.refuse_all(ErrorCode::NotLeaderOrFollower);
        }
        self.refuse_without_enough();
    }

    /// What the controller is to be asked for; see [`Partition::propose_in_sync`].
    pub fn propose_in_sync(&self, lag_max_ms: i64, is_eligible: impl Fn(BrokerId, i64) -> bool) -> Option<IsrChange> {
        let (change, committed) = self.partition.borrow_mut().propose_in_sync(self.now_ms(), lag_max_ms, is_eligible);
        self.committed(committed);
        change
    }

    /// Takes the controller's answer; see [`Partition::in_sync_answered`].
    pub fn in_sync_answered(&self, change: &IsrChange, answer: Result<IsrState, ErrorCode>) {
        let committed = self.partition.borrow_mut().in_sync_answered(change, answer);
        self.committed(committed);
        self.refuse_without_enough();
    }

    /// With too few replicas in sync nothing is committed until more are: who waits for that is told, and has it in the log.
    fn refuse_without_enough(&self) {
        if self.partition.borrow().check_enough_in_sync().is_err() {
            self.until_committed.borrow_mut().refuse_all(ErrorCode::NotEnoughReplicasAfterAppend);
        }
    }

    /// Time that never goes back.
    fn now_ms(&self) -> i64 {
        (self.io.clock.now().0 / 1_000_000) as i64
    }

    /// The high watermark has moved, if it has: what it has passed is answered, fetches wake.
    fn committed(&self, high_watermark: Option<Offset>) {
        let Some(end) = high_watermark else { return };
        self.log.set_high_watermark(end);
        self.until_committed.borrow_mut().answer_until(end);
        self.wake_watches();
    }

    /// Everybody who waits for an append, or for news, is told.
    fn refuse_all(&self, error: ErrorCode) {
        for waiting in self.waiting.borrow_mut().drain(..) {
            let _ = waiting.answer.send(Err(error));
        }
        self.until_durable.borrow_mut().refuse_all(error);
        self.until_committed.borrow_mut().refuse_all(error);
        self.wake_watches();
    }

    /// Reads what a fetch may see; limits are in bytes. `min_one` gives the first batch even if it is larger.
    pub async fn fetch(&self, request: &FetchPartition, reader: Fetcher, max_bytes: usize, min_one: bool) -> Fetched {
        if let Some(error) = self.log.offline() {
            return Fetched::refused(fetch_code_of(&error));
        }
        self.follow_log_start();
        let plan = self.partition.borrow().plan_fetch(request, reader);
        if let (Ok(_), Fetcher::Follower { broker, broker_epoch }) = (&plan, reader) {
            let FetchPartition { fetch_offset: offset, log_start_offset, .. } = *request;
            let fetch = FollowerFetch { broker, broker_epoch, offset, log_start_offset };
            let committed = self.partition.borrow_mut().follower_fetched(&fetch, self.now_ms());
            self.committed(committed);
        }
        let mut fetched = {
            let partition = self.partition.borrow();
            Fetched {
                high_watermark: partition.high_watermark(),
                last_stable_offset: partition.last_stable_offset(),
                log_start_offset: partition.log_start_offset(),
                ..Fetched::default()
            }
        };
        let plan = match plan {
            Ok(plan) => plan,
            Err(FetchRefusal::Error(error)) => {
                return Fetched { error: Some(error), ..fetched };
            }
            Err(FetchRefusal::Diverging { epoch, end_offset }) => {
                return Fetched { diverging: Some((epoch, end_offset)), ..fetched };
            }
        };
        let limit = max_bytes.min(request.partition_max_bytes.max(0) as usize);
        if plan.from >= plan.upto || (limit == 0 && !min_one) {
            return fetched;
        }
        match self.read(plan.from, limit, plan.upto, min_one).await {
            Ok(read) => {
                fetched.bytes = read.bytes;
                fetched.records = read.slices;
            }
            // Retention may have passed by while the disk was read.
            Err(LogError::OffsetOutOfRange) => {
                fetched.error = Some(ErrorCode::OffsetOutOfRange);
                fetched.log_start_offset = self.inspect(Partition::log_start_offset);
            }
            Err(error) => {
                self.refusal(&error);
                fetched.error = Some(fetch_code_of(&error));
            }
        }
        fetched
    }

    /// Whether clients are served here: not by a follower, and not when the partition's files have failed.
    /// # Errors  `KafkaStorageError`, `NotLeaderOrFollower`.
    pub fn served(&self) -> Result<(), ErrorCode> {
        if self.log.is_offline() {
            return Err(ErrorCode::KafkaStorageError);
        }
        self.partition.borrow().check_leads()
    }

    /// Reads whole batches from the log, from memory where it can.
    /// # Errors  Those of the log.
    pub async fn read(&self, from: Offset, max_bytes: usize, upto: Offset, min_one: bool) -> Result<Read, LogError> {
        match self.log.read_cached(from, max_bytes, upto, min_one) {
            Some(read) => Ok(read),
            None => self.log.read(from, max_bytes, upto, min_one).await,
        }
    }

    /// Moves the log start offset to `target` (-1: the high watermark) and answers when that is durable (KIP-107).
    /// # Errors  `OffsetOutOfRange` above the high watermark, `KafkaStorageError` if the log failed.
    pub async fn delete_records(&self, target: i64) -> Result<Offset, ErrorCode> {
        self.served()?;
        self.follow_log_start();
        let (start, high_watermark) = {
            let partition = self.partition.borrow();
            (partition.delete_records(target)?, partition.high_watermark())
        };
        self.log.move_start(start, high_watermark).await.map_err(|error| self.refusal(&error))?;
        self.follow_log_start();
        Ok(self.partition.borrow().log_start_offset())
    }

    /// Forgets idempotent producers that were silent for longer than `expiration_ms`.
    pub fn expire_producers(&self, now: Timestamp, expiration_ms: i64) {
        self.partition.borrow_mut().expire_producers(now, expiration_ms);
    }

    /// Rings `bell` whenever more is committed, until [`Self::unwatch`] with the number this gives.
    pub fn watch(&self, bell: &Notify) -> u64 {
        self.watch_for(bell, false)
    }

    /// Rings `bell` also when a batch is in memory and no more: followers read beyond what is committed, so that their disks
    /// work at the same time as the leader's.
    pub fn watch_appends(&self, bell: &Notify) -> u64 {
        self.watch_for(bell, true)
    }

    fn watch_for(&self, bell: &Notify, of_appends: bool) -> u64 {
        let number = self.next_watch.get();
        self.next_watch.set(number + 1);
        self.watches.borrow_mut().push(Watch { number, bell: bell.clone(), of_appends });
        number
    }

    /// Ends a [`Self::watch`].
    pub fn unwatch(&self, number: u64) {
        self.watches.borrow_mut().retain(|watch| watch.number != number);
    }

    /// How many watch.
    #[cfg(test)]
    pub fn watches(&self) -> usize {
        self.watches.borrow().len()
    }

    /// The partition is gone: everybody who waits is told, nothing new is taken.
    pub fn deleted(&self) {
        self.deleted.set(true);
        self.refuse_all(ErrorCode::UnknownTopicOrPartition);
    }

    /// Whether the partition's topic was deleted.
    pub fn is_deleted(&self) -> bool {
        self.deleted.get()
    }

    /// Retention moves the start of the log by itself; the rules follow before they are asked.
    fn follow_log_start(&self) {
        self.partition.borrow_mut().move_log_start(self.log.log_start_offset());
    }

    fn wake_watches(&self) {
        self.watches.borrow().iter().for_each(|watch| watch.bell.notify_all());
    }

    fn wake_followers(&self) {
        let watches = self.watches.borrow();
        watches.iter().filter(|watch| watch.of_appends).for_each(|watch| watch.bell.notify_all());
    }

    fn refusal(&self, error: &LogError) -> ErrorCode {
        let code = code_of(error);
        // A partition that went offline has said so, once.
        if code == ErrorCode::KafkaStorageError && !self.log.is_offline() {
            error!(partition = %self.key(), ?error, "log refused");
        }
        code
    }
}

/// A batch of our own making, for the logs of the broker itself. Not held against a topic's rules.
#[must_use]
pub fn built(batch: BatchBuilder) -> ValidBatch {
    let bytes = batch.build();
    let header = BatchHeader::parse(&bytes).expect("the builder writes whole headers");
    ValidBatch { info: BatchInfo::of(&header), bytes, log_append_time: None }
}

/// Kafka's word for what went wrong in a log.
#[must_use]
pub fn code_of(error: &LogError) -> ErrorCode {
    match error {
        LogError::Full | LogError::Io { .. } | LogError::Corrupt { .. } => ErrorCode::KafkaStorageError,
        LogError::OffsetOutOfRange => ErrorCode::OffsetOutOfRange,
        LogError::Deleted => ErrorCode::UnknownTopicOrPartition,
        // Clients look for the leader again, and find the next process.
        LogError::Stopping => ErrorCode::NotLeaderOrFollower,
    }
}

/// Kafka's word to whoever fetches: a batch that is not what was written is told from files that fail. Consumers report it;
/// for a producer the same code would mean the batch that it sent.
fn fetch_code_of(error: &LogError) -> ErrorCode {
    match error {
        LogError::Corrupt { .. } => ErrorCode::CorruptMessage,
        LogError::Full | LogError::Io { .. } | LogError::OffsetOutOfRange | LogError::Deleted | LogError::Stopping => {
            code_of(error)
        }
    }
}

/// A boxed future of this core.
pub type Local<T> = Pin<Box<dyn Future<Output = T>>>;
