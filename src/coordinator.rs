//! One driver for every state machine whose state is a partition: load, then active, until the log fails or somebody else leads.
//!
//! A request is decided against current state; the records are appended; answers wait until everything the decision
//! could have seen is durable, and so does what the machine wants done elsewhere ([`Effects::actions`]), which comes back as a
//! request. A failed append drops the machine, which is loaded again from the log.
//!
//! [`Effects::actions`]: crate::base::Effects::actions

mod groups;
mod held;
mod load;
mod machine;
mod memory;
mod rewrite;
#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tracing::{error, warn};

use self::held::{Appends, Held};
pub use self::{
    machine::{EffectsOf, Moment, StateMachine},
    memory::MachineMemory,
};
use crate::{
    base::{ErrorCode, LeaderEpoch, Map, RawRecord, Seldom, Timestamp},
    io::{
        Instant, Io,
        channel::{Notify, OneshotSender, oneshot},
    },
    metadata::Image,
    metrics::Counter,
    protocol::batch::BatchBuilder,
    replica::{Acks, Local, Replica, built},
};

/// Records are cut into batches of about this size. In bytes.
const BATCH_BYTES: usize = 512 * 1024;
/// How long a machine that failed stays away before it is loaded again.
const RELOAD_AFTER: Duration = Duration::from_secs(1);

/// The cluster as this core knows it now. None: the core is gone.
pub type ImageSource = Rc<dyn Fn() -> Option<Rc<Image>>>;

/// Does what a machine wants done elsewhere, and gives the request that tells the machine of it.
pub type Actor<M> = Rc<dyn Fn(<M as StateMachine>::Action) -> Local<<M as StateMachine>::Request>>;

/// Who asked, by token.
type Askers<M> = Map<u64, OneshotSender<Result<<M as StateMachine>::Answer, ErrorCode>>>;

/// Drives the state machine of one partition, while this broker leads it. Lives on the partition's core.
pub struct Coordinator<M: StateMachine> {
    io: Io,
    /// The moment at which it was made, on both clocks.
    began: (Instant, Timestamp),
    replica: Rc<Replica>,
    config: RefCell<M::Config>,
    memory: Arc<MachineMemory>,
    /// What of it this machine has in the books.
    booked: Cell<usize>,
    full_said: Seldom,
    image: ImageSource,
    actor: Actor<M>,
    /// The newest leader epoch that was heard of.
    leader_epoch: Cell<LeaderEpoch>,
    /// Whether it is ours.
    leads: Cell<bool>,
    /// None while it is being loaded, and while somebody else leads.
    machine: RefCell<Option<M>>,
    /// Counts the machines: what belongs to an earlier one is void.
    term: Cell<u64>,
    loading: Cell<bool>,
    /// The log could not be read the last time: nobody is kept waiting for it.
    unloadable: Cell<bool>,
    next_token: Cell<u64>,
    askers: RefCell<Askers<M>>,
    /// In the order of their records.
    held: RefCell<VecDeque<Held<M>>>,
    releasing: Cell<bool>,
    rewriting: Cell<bool>,
    /// How long the log is from its start on, as far as it is durable. Its first segment may begin long before that.
    log_bytes: Cell<u64>,
    /// How long it may get before one looks whether to write it anew.
    rewrite_at: Cell<u64>,
    /// Rings when a machine comes or goes, and when nothing is held or rewritten any more.
    changed: Notify,
    timer: Notify,
}

impl<M: StateMachine> Coordinator<M> {
    /// A coordinator that does nothing until it is told to [`lead`](Self::lead).
    pub fn new(
        io: Io,
        replica: Rc<Replica>,
        config: M::Config,
        memory: Arc<MachineMemory>,
        image: ImageSource,
        actor: Actor<M>,
    ) -> Rc<Self> {
        let began = (io.clock.now(), io.clock.wall());
        let this = Rc::new(Self {
            io,
            began,
            replica,
            config: RefCell::new(config),
            memory,
            booked: Cell::new(0),
            full_said: Seldom::default(),
            image,
            actor,
            leader_epoch: Cell::new(LeaderEpoch(-1)),
            leads: Cell::new(false),
            machine: RefCell::default(),
            term: Cell::new(0),
            loading: Cell::new(false),
            unloadable: Cell::new(false),
            next_token: Cell::new(0),
            askers: RefCell::default(),
            held: RefCell::default(),
            releasing: Cell::new(false),
            rewriting: Cell::new(false),
            log_bytes: Cell::new(0),
            rewrite_at: Cell::new(rewrite::REWRITE_BYTES),
            changed: Notify::new(),
            timer: Notify::new(),
        });
        this.io.spawner.spawn(this.clone().keep_time());
        this
    }

    /// This broker leads the partition in that epoch: its log is read, and requests that come meanwhile wait. If it led before,
    /// the machine stays what it is, since nobody else has written to the log. Old news changes nothing.
    pub fn lead(self: &Rc<Self>, epoch: LeaderEpoch) {
        if epoch < self.leader_epoch.get() {
            return;
        }
        self.leader_epoch.set(epoch);
        if !self.leads.replace(true) {
            self.unloadable.set(false);
            self.load_later(Duration::ZERO);
        }
    }

    /// Somebody else leads the partition in that epoch, or nobody: the machine is dropped, and everybody who waits is told to
    /// look for the coordinator again. Old news changes nothing.
    pub fn unload(&self, epoch: LeaderEpoch) {
        if epoch <= self.leader_epoch.get() {
            return;
        }
        self.leader_epoch.set(epoch);
        self.leads.set(false);
        self.drop_machine(ErrorCode::NotCoordinator);
    }

    /// The partition itself is gone: everybody who waits is told. Its replica knows already.
    pub fn deleted(&self) {
        assert!(self.replica.is_deleted(), "the replica is told first");
        self.drop_machine(ErrorCode::NotCoordinator);
    }

    /// Decides a request. The answer comes when everything it depends on is durable; a join or sync may take long.
    /// # Errors  `NotCoordinator` if the partition is gone or led elsewhere, `CoordinatorNotAvailable` if its log has
    /// failed.
    pub async fn request(self: &Rc<Self>, request: M::Request) -> Result<M::Answer, ErrorCode> {
        loop {
            let changed = self.changed.notified();
            if self.replica.is_deleted() || !self.leads.get() {
                return Err(ErrorCode::NotCoordinator);
            }
            if self.machine.borrow().is_some() && !self.must_rest() {
                break;
            }
            if self.unloadable.get() {
                return Err(ErrorCode::CoordinatorNotAvailable);
            }
            changed.await;
        }
        let (sender, receiver) = oneshot();
        let token = self.next_token();
        self.askers.borrow_mut().insert(token, sender);
        self.decide(|machine, moment| machine.request(token, request, moment));
        let abandoned = Abandon { coordinator: self, token };
        let answer = receiver.await.unwrap_or(Err(ErrorCode::CoordinatorNotAvailable));
        drop(abandoned);
        answer
    }

    /// Decides a request that nobody waits for. Without a machine nothing happens.
    fn tell(self: &Rc<Self>, request: M::Request) {
        let token = self.next_token();
        self.decide(|machine, moment| machine.request(token, request, moment));
    }

    fn next_token(&self) -> u64 {
        self.next_token.replace(self.next_token.get() + 1)
    }

    /// Forgets what belonged to a deleted topic. While the log is being read this does nothing: the end of that looks for
    /// topics that are gone.
    pub fn topic_deleted(self: &Rc<Self>, name: &str) {
        self.decide(|machine, moment| machine.topic_deleted(name, moment));
    }

    /// Settings changed while the broker runs.
    pub fn configure(&self, config: M::Config) {
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
    fn decide(self: &Rc<Self>, decision: impl FnOnce(&mut M, &Moment<'_>) -> EffectsOf<M>) {
        let now = self.now();
        let mut effects = {
            let mut machine = self.machine.borrow_mut();
            let (Some(machine), Some(image)) = (machine.as_mut(), (self.image)()) else { return };
            let bytes_max = machine.held_bytes() + self.memory.room();
            let moment = Moment { now, random: self.io.rand.uuid(), image: &image, bytes_max };
            decision(machine, &moment)
        };
        self.book();
        if effects.full {
            self.say_full();
        }
        self.timer.notify_all();
        let records = std::mem::take(&mut effects.records);
        let appends = self.append(&records, now);
        self.hold(effects, appends);
    }

    fn book(&self) {
        let held = self.machine.borrow().as_ref().map_or(0, M::held_bytes);
        self.memory.book(self.booked.replace(held), held);
    }

    fn say_full(&self) {
        let running = self.io.clock.now().since(self.began.0);
        let Some(left_out) = self.full_said.due(running) else { return };
        let (held, bytes_max) = (self.memory.held_bytes(), self.memory.bytes_max);
        warn!(
            partition = %self.replica.key(),
            machine = M::NAME,
            held,
            bytes_max,
            left_out,
            "coordinators hold as much memory as they may: what adds to it is answered COORDINATOR_NOT_AVAILABLE; \
             give the broker more with memory.bytes or --memory"
        );
    }

    fn append(&self, records: &[RawRecord], now: Timestamp) -> Appends {
        let mut appends = Appends::default();
        let mut append = |batch| {
            let batch = built(batch);
            appends.bytes += batch.bytes.len() as u64;
            appends.pending.push(self.replica.append(batch, Acks::All));
        };
        let mut batch = BatchBuilder::new();
        let mut bytes = 0;
        for (key, value) in records {
            batch.push(now, Some(key), value.as_deref());
            bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
            if bytes >= BATCH_BYTES {
                append(std::mem::take(&mut batch));
                bytes = 0;
            }
        }
        if bytes > 0 {
            append(batch);
        }
        self.io.metrics.add(Counter::CoordinatorAppends, appends.pending.len() as u64);
        appends
    }

    /// The log refused a record that the machine already counts on: the machine is dropped, to be loaded again.
    fn fail(&self, error: ErrorCode) {
        error!(partition = %self.replica.key(), machine = M::NAME, ?error, "coordinator lost an append; loading its log again");
        self.drop_machine(ErrorCode::CoordinatorNotAvailable);
    }

    fn drop_machine(&self, error: ErrorCode) {
        self.term.set(self.term.get() + 1);
        self.machine.borrow_mut().take();
        self.book();
        let askers = std::mem::take(&mut *self.askers.borrow_mut());
        for (_, asker) in askers {
            let _ = asker.send(Err(error));
        }
        self.changed.notify_all();
        self.timer.notify_all();
    }

    /// Calls the machine when one of its deadlines has come.
    async fn keep_time(self: Rc<Self>) {
        while !self.replica.is_deleted() {
            let deadline = self.machine.borrow().as_ref().and_then(M::next_deadline);
            match deadline {
                None => self.timer.notified().await,
                Some(deadline) => {
                    let wait = deadline.saturating_sub(self.now()).max(0) as u64;
                    let expired = self.io.clock.sleep(Duration::from_millis(wait));
                    futures_lite::future::or(expired, self.timer.notified()).await;
                    let due = self.machine.borrow().as_ref().and_then(M::next_deadline);
                    if due.is_some_and(|due| due <= self.now()) {
                        self.decide(M::tick);
                    }
                }
            }
        }
    }
}

/// A request whose connection went away is taken out of the machine.
struct Abandon<'a, M: StateMachine> {
    coordinator: &'a Rc<Coordinator<M>>,
    token: u64,
}

impl<M: StateMachine> Drop for Abandon<'_, M> {
    fn drop(&mut self) {
        let waiting = self.coordinator.askers.borrow_mut().remove(&self.token).is_some();
        if waiting && let Some(machine) = self.coordinator.machine.borrow_mut().as_mut() {
            machine.abandon(self.token);
        }
    }
}
