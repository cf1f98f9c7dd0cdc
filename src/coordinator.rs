//! One driver for every state machine whose state is a partition: load, then active, until the log fails.
//!
//! A request is decided against current state; the records are appended; answers wait until everything the decision
//! could have seen is durable. A failed append drops the machine, which is loaded again from the log.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    fmt,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use tracing::{debug, error, info, warn};

use crate::{
    base::{ErrorCode, Map, Offset, Timestamp, TopicId},
    group::{Effects, GroupAnswer, GroupConfig, GroupRequest, Groups},
    io::{
        Instant, Io,
        channel::{Notify, OneshotReceiver, OneshotSender, oneshot},
    },
    log::LogError,
    metrics::Counter,
    protocol::batch::{self, BatchBuilder, Records},
    replica::{Acks, Appended, Replica, built},
};

/// How much of the log is read at once while loading. In bytes.
const LOAD_READ_BYTES: usize = 1024 * 1024;
/// Records are cut into batches of about this size. In bytes.
const BATCH_BYTES: usize = 512 * 1024;
/// The log is rewritten when it is larger than this and than [`REWRITE_RATIO`] times its live state. In bytes; less in
/// tests, so that simulated brokers get there.
const REWRITE_BYTES: u64 = if cfg!(test) { 16 * 1024 } else { 4 * 1024 * 1024 };
const REWRITE_RATIO: u64 = 8;

/// How long a machine that failed stays away before it is loaded again.
const RELOAD_AFTER: Duration = Duration::from_secs(1);

/// A coordinator that refuses for want of memory says so this often.
const FULL_SAID_EVERY: Duration = Duration::from_secs(10);

/// What the groups of a broker may hold in memory, all its coordinators together, and what they hold. One for all cores.
#[derive(Debug)]
pub struct GroupMemory {
    bytes_max: usize,
    held: AtomicUsize,
}

impl GroupMemory {
    /// Groups may hold so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, held: AtomicUsize::new(0) })
    }

    /// What is held, by our own books.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// What may still be taken. Cores that decide in the same moment see the same room, and may overdraw it by one request each.
    fn room(&self) -> usize {
        self.bytes_max.saturating_sub(self.held_bytes())
    }

    fn book(&self, before: usize, now: usize) {
        if now >= before {
            self.held.fetch_add(now - before, Ordering::Relaxed);
        } else {
            self.held.fetch_sub(before - now, Ordering::Relaxed);
        }
    }
}

/// What a topic's name stands for now.
pub type TopicIds = Rc<dyn Fn(&str) -> Option<TopicId>>;

/// Drives the groups of one partition of `__consumer_offsets`.
pub struct Coordinator {
    io: Io,
    /// The same moment on both clocks.
    began: (Instant, Timestamp),
    replica: Rc<Replica>,
    config: RefCell<GroupConfig>,
    memory: Arc<GroupMemory>,
    /// What of it this machine has in the books.
    booked: Cell<usize>,
    full_said: Cell<Option<Instant>>,
    topic_ids: TopicIds,
    /// None while it is being loaded.
    machine: RefCell<Option<Groups>>,
    /// Counts the machines: what belongs to an earlier one is void.
    term: Cell<u64>,
    loaded: Notify,
    /// The log could not be read the last time: nobody is kept waiting for it.
    unloadable: Cell<bool>,
    next_token: Cell<u64>,
    tokens: RefCell<Map<u64, OneshotSender<Result<GroupAnswer, ErrorCode>>>>,
    /// Decisions whose records are on their way to the disk, and the answers behind them, in order.
    held: RefCell<VecDeque<Held>>,
    releasing: Cell<bool>,
    rewriting: Cell<bool>,
    /// The machine was dropped, and is to be loaded again once nothing is held any more.
    reload: Cell<bool>,
    timer: Notify,
}

/// Why a partition's state could not be read.
#[derive(Debug)]
enum LoadError {
    Log(LogError),
    /// What lies at the offset is not a batch of records.
    Malformed(Offset),
}

impl fmt::Display for LoadError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(error) => error.fmt(out),
            Self::Malformed(offset) => write!(out, "what lies at offset {offset} is not a group's record"),
        }
    }
}

struct Held {
    term: u64,
    appends: Vec<OneshotReceiver<Appended>>,
    answers: Vec<(u64, GroupAnswer)>,
}

impl Coordinator {
    /// Starts to load the partition's groups. Requests that come meanwhile wait.
    pub fn start(
        io: Io,
        replica: Rc<Replica>,
        config: GroupConfig,
        memory: Arc<GroupMemory>,
        topic_ids: TopicIds,
    ) -> Rc<Self> {
        let began = (io.clock.now(), io.clock.wall());
        let this = Rc::new(Self {
            io,
            began,
            replica,
            config: RefCell::new(config),
            memory,
            booked: Cell::new(0),
            full_said: Cell::new(None),
            topic_ids,
            machine: RefCell::default(),
            term: Cell::new(0),
            loaded: Notify::new(),
            unloadable: Cell::new(false),
            next_token: Cell::new(0),
            tokens: RefCell::default(),
            held: RefCell::default(),
            releasing: Cell::new(false),
            rewriting: Cell::new(false),
            reload: Cell::new(false),
            timer: Notify::new(),
        });
        this.io.spawner.spawn(this.clone().load_until_it_works());
        this.io.spawner.spawn(this.clone().keep_time());
        this
    }

    /// Decides a request. The answer comes when everything it depends on is durable; a join or sync may take long.
    ///
    /// # Errors
    /// `NotCoordinator` once the partition is gone, `CoordinatorNotAvailable` if its log has failed.
    pub async fn request(self: &Rc<Self>, request: GroupRequest) -> Result<GroupAnswer, ErrorCode> {
        while self.machine.borrow().is_none() {
            if self.replica.is_deleted() {
                return Err(ErrorCode::NotCoordinator);
            }
            if self.unloadable.get() {
                return Err(ErrorCode::CoordinatorNotAvailable);
            }
            self.loaded.notified().await;
        }
        let token = self.next_token.get();
        self.next_token.set(token + 1);
        let (sender, receiver) = oneshot();
        self.tokens.borrow_mut().insert(token, sender);
        let random = self.io.rand.uuid();
        self.decide(|machine, now| machine.request(token, request, now, random));
        let abandoned = Abandon { coordinator: self, token };
        let answer = receiver.await.unwrap_or(Err(ErrorCode::CoordinatorNotAvailable));
        drop(abandoned);
        answer
    }

    /// Forgets what was committed for a deleted topic. While the log is being read this does nothing: the end of that looks
    /// for topics that are gone.
    pub fn topic_deleted(self: &Rc<Self>, name: &str) {
        let name = StrBytes::from_string(name.to_owned());
        self.decide(|machine, now| machine.topic_deleted(&name, now));
    }

    /// The partition itself is gone: everybody who waits is told. Its replica knows already.
    pub fn deleted(&self) {
        assert!(self.replica.is_deleted(), "the replica is told first");
        self.term.set(self.term.get() + 1);
        self.machine.borrow_mut().take();
        self.book();
        self.refuse_all(ErrorCode::NotCoordinator);
        self.loaded.notify_all();
        self.timer.notify_all();
    }

    fn refuse_all(&self, error: ErrorCode) {
        let tokens = std::mem::take(&mut *self.tokens.borrow_mut());
        for (_, asker) in tokens {
            let _ = asker.send(Err(error));
        }
    }

    /// Settings changed while the broker runs.
    pub fn configure(&self, config: GroupConfig) {
        if let Some(machine) = self.machine.borrow_mut().as_mut() {
            machine.configure(config.clone());
        }
        *self.config.borrow_mut() = config;
        self.timer.notify_all();
    }

    /// Milliseconds since the Unix epoch that never go back: a step of the wall clock must not end every session.
    fn now(&self) -> Timestamp {
        let (began, wall) = self.began;
        wall + i64::try_from(self.io.clock.now().since(began).as_millis()).unwrap_or(i64::MAX / 2)
    }

    /// Runs a decision on the machine, appends its records and holds its answers back until they are durable.
    fn decide(self: &Rc<Self>, decision: impl FnOnce(&mut Groups, Timestamp) -> Effects) {
        let now = self.now();
        let (effects, full) = {
            let mut machine = self.machine.borrow_mut();
            let Some(machine) = machine.as_mut() else { return };
            machine.bound(machine.held_bytes() + self.memory.room());
            (decision(machine, now), machine.take_full())
        };
        self.book();
        if full {
            self.say_full();
        }
        self.timer.notify_all();
        let appends = self.append(&effects.records, now);
        if appends.is_empty() && effects.answers.is_empty() {
            return;
        }
        self.held.borrow_mut().push_back(Held { term: self.term.get(), appends, answers: effects.answers });
        self.release_some();
        if !effects.records.is_empty() {
            self.rewrite_if_long(now);
        }
    }

    fn book(&self) {
        let held = self.machine.borrow().as_ref().map_or(0, Groups::held_bytes);
        self.memory.book(self.booked.replace(held), held);
    }

    fn say_full(&self) {
        let now = self.io.clock.now();
        if self.full_said.get().is_some_and(|said| now.since(said) < FULL_SAID_EVERY) {
            return;
        }
        self.full_said.set(Some(now));
        let (held, bytes_max) = (self.memory.held_bytes(), self.memory.bytes_max);
        warn!(
            partition = %self.replica.key(),
            held,
            bytes_max,
            "groups hold as much memory as they may: what adds to it is answered COORDINATOR_NOT_AVAILABLE; \
             give the broker more with memory.bytes or --memory"
        );
    }

    fn append(&self, records: &[Record], now: Timestamp) -> Vec<OneshotReceiver<Appended>> {
        let mut appends = Vec::new();
        let mut batch = BatchBuilder::new();
        let mut bytes = 0;
        for (key, value) in records {
            batch.push(now, Some(key), value.as_deref());
            bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
            if bytes >= BATCH_BYTES {
                let full = std::mem::take(&mut batch);
                appends.push(self.replica.append(built(full), Acks::All));
                bytes = 0;
            }
        }
        if bytes > 0 {
            appends.push(self.replica.append(built(batch), Acks::All));
        }
        self.io.metrics.add(Counter::CoordinatorAppends, appends.len() as u64);
        appends
    }

    /// Sends what may go. Answers without records go at once if nothing is before them.
    fn release_some(self: &Rc<Self>) {
        if self.releasing.get() {
            return;
        }
        loop {
            let next = {
                let mut held = self.held.borrow_mut();
                match held.front() {
                    Some(first) if first.appends.is_empty() => held.pop_front(),
                    Some(_) | None => None,
                }
            };
            let Some(next) = next else { break };
            self.send(next.answers);
        }
        if !self.held.borrow().is_empty() {
            self.releasing.set(true);
            self.io.spawner.spawn(self.clone().release());
        }
    }

    async fn release(self: Rc<Self>) {
        loop {
            let Some(next) = self.held.borrow_mut().pop_front() else { break };
            for append in next.appends {
                let appended = append.await.unwrap_or(Err(ErrorCode::KafkaStorageError));
                if let (Err(error), true) = (appended, next.term == self.term.get()) {
                    self.fail(error);
                }
            }
            if next.term == self.term.get() {
                self.send(next.answers);
            }
        }
        self.releasing.set(false);
        // Only now: what the lost machine had appended behind the failure is in the log by now, or never will be.
        if self.reload.take() {
            self.io.clock.sleep(RELOAD_AFTER).await;
            while self.rewriting.get() {
                self.io.clock.sleep(RELOAD_AFTER).await;
            }
            self.load_until_it_works().await;
        }
    }

    fn send(&self, answers: Vec<(u64, GroupAnswer)>) {
        for (token, answer) in answers {
            let asker = self.tokens.borrow_mut().remove(&token);
            if let Some(asker) = asker {
                let _ = asker.send(Ok(answer));
            }
        }
    }

    /// The log refused a record that the machine already counts on: the machine is dropped and loaded again.
    fn fail(&self, error: ErrorCode) {
        error!(partition = %self.replica.key(), ?error, "group coordinator lost an append; loading its log again");
        self.term.set(self.term.get() + 1);
        self.machine.borrow_mut().take();
        self.book();
        self.refuse_all(ErrorCode::CoordinatorNotAvailable);
        self.reload.set(true);
    }

    async fn load_until_it_works(self: Rc<Self>) {
        while !self.replica.is_deleted() {
            match self.load().await {
                Ok(records) => {
                    debug!(partition = %self.replica.key(), records, "group coordinator loaded");
                    self.unloadable.set(false);
                    break;
                }
                Err(error) => {
                    if !self.unloadable.replace(true) {
                        error!(partition = %self.replica.key(), %error, "group coordinator could not read its log");
                    }
                    self.loaded.notify_all();
                    // An offline partition comes back with the next start.
                    if self.replica.log().is_offline() {
                        break;
                    }
                    self.io.clock.sleep(RELOAD_AFTER).await;
                }
            }
        }
        self.loaded.notify_all();
        self.timer.notify_all();
    }

    /// Replays the log into a fresh machine. Gives the number of records.
    async fn load(self: &Rc<Self>) -> Result<u64, LoadError> {
        // What is known of an offline partition is not all that there is.
        if let Some(error) = self.replica.log().offline() {
            return Err(LoadError::Log(error));
        }
        let mut machine = Groups::new(self.config.borrow().clone());
        let mut next = self.replica.inspect(crate::partition::Partition::log_start_offset);
        let mut records = 0;
        loop {
            let upto = self.replica.high_watermark();
            if next >= upto {
                break;
            }
            let read = self.replica.read(next, LOAD_READ_BYTES, upto, true).await.map_err(LoadError::Log)?;
            let before = next;
            // A batch may lie across two slices.
            let bytes = read.slices.iter().flat_map(|slice| slice.iter().copied()).collect::<Vec<u8>>();
            for batch in batch::batches(&bytes) {
                let batch = batch.map_err(|_| LoadError::Malformed(next))?;
                for record in Records::new(&batch.bytes[batch::HEADER_BYTES..], batch.header.record_count) {
                    let record = record.map_err(|_| LoadError::Malformed(next))?;
                    if let Some(key) = record.key {
                        records += 1;
                        if machine.replay(key, record.value).is_err() {
                            warn!(partition = %self.replica.key(), offset = %next, "a record of no group is passed over");
                        }
                    }
                }
                next = batch.header.last_offset().plus(1);
            }
            if next == before {
                return Err(LoadError::Malformed(next));
            }
            self.io.clock.yield_now().await;
        }
        *self.machine.borrow_mut() = Some(machine);
        self.decide(Groups::loaded);
        let topic_ids = self.topic_ids.clone();
        self.decide(|machine, now| machine.forget_deleted(now, |name| topic_ids(name).map(|id| id.0)));
        Ok(records)
    }

    /// Calls the machine when one of its deadlines has come.
    async fn keep_time(self: Rc<Self>) {
        while !self.replica.is_deleted() {
            let deadline = self.machine.borrow().as_ref().and_then(Groups::next_deadline);
            match deadline {
                None => self.timer.notified().await,
                Some(deadline) => {
                    let wait = deadline.saturating_sub(self.now()).max(0) as u64;
                    let expired = self.io.clock.sleep(Duration::from_millis(wait));
                    futures_lite::future::or(expired, self.timer.notified()).await;
                    let due = self.machine.borrow().as_ref().and_then(Groups::next_deadline);
                    if due.is_some_and(|due| due <= self.now()) {
                        self.decide(Groups::tick);
                    }
                }
            }
        }
    }

    /// Until a cleaner exists the log is kept short by writing the live state again and giving up what was before.
    fn rewrite_if_long(self: &Rc<Self>, now: Timestamp) {
        let size = self.replica.log().size_bytes();
        if self.rewriting.get() || size < REWRITE_BYTES {
            return;
        }
        let live = self.machine.borrow().as_ref().map(Groups::snapshot).unwrap_or_default();
        let live_bytes: usize = live.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len)).sum();
        if size < REWRITE_RATIO * live_bytes as u64 {
            return;
        }
        let upto = self.replica.inspect(crate::partition::Partition::log_end_offset);
        if live.is_empty() && upto != self.replica.high_watermark() {
            return;
        }
        self.rewriting.set(true);
        let appends = self.append(&live, now);
        let this = self.clone();
        self.io.spawner.spawn(async move {
            let mut start = upto;
            let mut whole = true;
            for (index, append) in appends.into_iter().enumerate() {
                match append.await {
                    Some(Ok(produced)) if index == 0 => start = produced.base_offset,
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => whole = false,
                }
            }
            if whole {
                match this.replica.delete_records(start.0).await {
                    Ok(start) => info!(partition = %this.replica.key(), %start, "group log rewritten"),
                    Err(error) => error!(partition = %this.replica.key(), ?error, "group log could not be shortened"),
                }
            }
            this.rewriting.set(false);
        });
    }
}

type Record = (Bytes, Option<Bytes>);

/// A request whose connection went away is taken out of the machine.
struct Abandon<'a> {
    coordinator: &'a Rc<Coordinator>,
    token: u64,
}

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        let waiting = self.coordinator.tokens.borrow_mut().remove(&self.token).is_some();
        if waiting && let Some(machine) = self.coordinator.machine.borrow_mut().as_mut() {
            machine.abandon(self.token);
        }
    }
}
