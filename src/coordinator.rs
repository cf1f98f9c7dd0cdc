//! One driver for every state machine whose state is a partition: load, then active, until the log fails.
//!
//! A request is decided against current state; the records are appended; answers wait until everything the decision
//! could have seen is durable. A failed append drops the machine, which is loaded again from the log.

mod held;
mod load;
mod memory;
mod rewrite;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use tracing::{error, warn};

use crate::{
    base::{ErrorCode, Map, Timestamp, TopicId},
    group::{Effects, GroupAnswer, GroupConfig, GroupRequest, Groups},
    io::{
        Instant, Io,
        channel::{Notify, OneshotReceiver, OneshotSender, oneshot},
    },
    metrics::Counter,
    protocol::batch::BatchBuilder,
    replica::{Acks, Appended, Replica, built},
};

pub use memory::GroupMemory;

use held::Held;

/// Records are cut into batches of about this size. In bytes.
const BATCH_BYTES: usize = 512 * 1024;
/// How long a machine that failed stays away before it is loaded again.
const RELOAD_AFTER: Duration = Duration::from_secs(1);

/// A coordinator that refuses for want of memory says so this often.
const FULL_SAID_EVERY: Duration = Duration::from_secs(10);

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

    /// The log refused a record that the machine already counts on: the machine is dropped and loaded again.
    fn fail(&self, error: ErrorCode) {
        error!(partition = %self.replica.key(), ?error, "group coordinator lost an append; loading its log again");
        self.term.set(self.term.get() + 1);
        self.machine.borrow_mut().take();
        self.book();
        self.refuse_all(ErrorCode::CoordinatorNotAvailable);
        self.reload.set(true);
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
