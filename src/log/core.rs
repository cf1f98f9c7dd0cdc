//! What the logs of one core share: journal, memory, files, room on the disk; and where their batches lie, by their slots.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
};

use crate::{
    base::PartitionKey,
    io::{Instant, Io, Slice, channel::Notify},
    log::{
        ballast,
        cold::Cold,
        files::Files,
        image::LogImage,
        journal::{Journal, JournalFailure, Mark, block::Incarnation},
        memory::Memory,
        placing::{CoreChanges, Placing},
        rescue::RescueMark,
        settings::{LogConfig, LogError, LogSettings},
        slots::{Slot, Slots},
        space::Space,
        sync_gate::SyncGate,
    },
    metrics::Counter,
    partition::PartitionState,
};

/// What the rules know about a partition at this very moment; asked for without an await after the last append.
pub type StateSource = Rc<dyn Fn(PartitionKey) -> Option<PartitionState>>;

/// Told once when the process must end, with the reason: a failed journal write is never retried and never answered.
pub type Fatal = Rc<dyn Fn(String)>;

/// What recovery hands to one core. Travels to the core's executor.
#[derive(Debug)]
pub struct LogSeed {
    pub(super) directory: PathBuf,
    pub(super) settings: LogSettings,
    pub(super) core: usize,
    pub(super) cores: usize,
    pub(super) incarnation: Incarnation,
    pub(super) generation: u64,
    pub(super) journals: Vec<(usize, u64)>,
    pub(super) partitions: Vec<PartitionSeed>,
    pub(super) gate: Arc<SyncGate>,
}

#[derive(Debug)]
pub(super) struct PartitionSeed {
    pub image: LogImage,
    pub config: LogConfig,
    pub state: PartitionState,
    /// Why nothing of it is served in this life.
    pub offline: Option<LogError>,
}

/// A partition that went offline while the journal had entries of it.
pub struct Failed {
    pub key: PartitionKey,
    /// All of its entries lie in blocks below this one.
    pub upto: u64,
    /// The rescue file has those of the blocks below this one.
    pub covered: u64,
    pub mark: Option<RescueMark>,
}

pub struct Core {
    pub io: Io,
    pub directory: PathBuf,
    pub settings: LogSettings,
    pub number: usize,
    pub incarnation: Incarnation,
    placings: RefCell<Slots<Rc<RefCell<Placing>>>>,
    pub journal: Journal,
    pub memory: Memory,
    pub space: Rc<Space>,
    pub files: Files,
    pub cold: Cold,
    pub gate: Arc<SyncGate>,
    /// Logs with records that no checkpoint covers.
    pub dirty: RefCell<Vec<Slot>>,
    /// Partitions that went offline and that the journal may not be freed behind yet.
    pub failed: RefCell<Vec<Failed>>,
    /// The last checkpoint covers the journal's blocks below this one.
    pub covered: Cell<u64>,
    /// Logs with whole chunks to write.
    pub full: RefCell<VecDeque<Slot>>,
    pub flushed: RefCell<Vec<Slot>>,
    pub flushed_news: Notify,
    /// There is something for the destager.
    pub work: Notify,
    pub round_wanted: Cell<bool>,
    pub rounds_done: Cell<u64>,
    pub rounds_changed: Notify,
    pub dirty_since: Cell<Option<Instant>>,
    pub generation: Cell<u64>,
    pub state_source: RefCell<Option<StateSource>>,
    pub stopping: Cell<bool>,
    /// How often the house was kept.
    pub looks: Cell<u64>,
    pub fatal: Fatal,
    running: Cell<usize>,
    ended: Notify,
}

impl Core {
    pub fn new(io: &Io, seed: &LogSeed, fatal: Fatal) -> Rc<Self> {
        let settings = seed.settings.clone();
        let share = |bytes: u64| bytes / seed.cores as u64;
        let cold_max = settings.cache_max_bytes / 4;
        let journal_max = share(settings.journal_max_bytes).max(u64::from(settings.journal_file_bytes) * 2);
        let space = Rc::new(Space::new(io, seed.directory.clone(), seed.cores, settings.space_margin_bytes));
        Rc::new(Self {
            io: io.clone(),
            directory: seed.directory.clone(),
            number: seed.core,
            incarnation: seed.incarnation,
            placings: RefCell::default(),
            journal: Journal::new(
                io,
                &seed.directory,
                seed.core,
                seed.incarnation,
                settings.journal_file_bytes,
                journal_max,
                space.clone(),
            ),
            memory: Memory::new(settings.dirty_max_bytes, settings.cache_max_bytes - cold_max, io.disk.pinned()),
            space,
            files: Files::new(io, settings.open_files_max),
            cold: Cold::new(cold_max),
            gate: seed.gate.clone(),
            dirty: RefCell::default(),
            failed: RefCell::default(),
            covered: Cell::new(0),
            full: RefCell::default(),
            flushed: RefCell::default(),
            flushed_news: Notify::new(),
            work: Notify::new(),
            round_wanted: Cell::new(false),
            rounds_done: Cell::new(0),
            rounds_changed: Notify::new(),
            dirty_since: Cell::new(None),
            generation: Cell::new(seed.generation),
            state_source: RefCell::new(None),
            stopping: Cell::new(false),
            looks: Cell::new(0),
            fatal,
            settings,
            running: Cell::new(0),
            ended: Notify::new(),
        })
    }

    /// Takes a slot for a log.
    pub fn add(&self, placing: Placing) -> (Slot, Rc<RefCell<Placing>>) {
        let placing = Rc::new(RefCell::new(placing));
        let slot = self.placings.borrow_mut().insert(placing.clone());
        (slot, placing)
    }

    /// Forgets a log: what is written for it is of no concern any more.
    pub fn remove(&self, slot: Slot) {
        self.placings.borrow_mut().remove(slot);
        self.memory.not_evictable(slot);
    }

    /// Where the batches of a log lie, unless it was deleted.
    pub fn placing(&self, slot: Slot) -> Option<Rc<RefCell<Placing>>> {
        self.placings.borrow().get(slot).cloned()
    }

    /// Keeps the books, and puts the log on the lists.
    pub fn settle(&self, slot: Slot, changes: CoreChanges) {
        let CoreChanges { promised, unpromised, made, dropped, dirtied, cleaned, .. } = changes;
        if unpromised > 0 {
            self.space.give_back(unpromised);
        }
        if promised > 0 {
            self.space.promise_anyway(promised);
        }
        self.memory.chunk_made(made);
        self.memory.chunk_dropped(dropped);
        self.memory.dirtied(dirtied);
        if cleaned > 0 || dropped > 0 {
            self.memory.cleaned(cleaned);
        }
        if changes.list_dirty {
            self.dirty.borrow_mut().push(slot);
            if self.dirty_since.get().is_none() {
                self.dirty_since.set(Some(self.io.clock.now()));
            }
        }
        if changes.list_full {
            self.full.borrow_mut().push_back(slot);
            self.work.notify_all();
        }
        if changes.list_flushed {
            self.flushed.borrow_mut().push(slot);
        }
        if changes.list_evictable {
            self.memory.evictable(slot);
        }
    }

    /// Drops the oldest clean chunks until the cache is within its bound. No log's placing may be borrowed.
    pub fn evict(&self) {
        for _ in 0..self.memory.evictable_count() {
            let Some(slot) = self.memory.evict() else { return };
            let Some(placing) = self.placing(slot) else { continue };
            let changes = placing.borrow_mut().evict_front();
            self.memory.chunk_dropped(changes.dropped);
            if changes.list_evictable {
                self.memory.evictable(slot);
            }
        }
    }

    /// Gives up a part of the ballast, so that what was accepted finds room.
    pub async fn give_up_ballast(&self) {
        ballast::give_up(&self.io, &self.directory, self.settings.ballast_bytes).await;
    }

    /// Asks for a checkpoint that covers everything appended so far.
    pub fn want_round(&self) {
        if !self.round_wanted.replace(true) {
            self.work.notify_all();
        }
    }

    /// Blocks of the journal are durable.
    pub fn blocks_done(self: &Rc<Self>, marks: Vec<Mark>) {
        for Mark { slot, end } in marks {
            let Some(placing) = self.placing(slot) else { continue };
            let (changes, records) = {
                let mut placing = placing.borrow_mut();
                let before = placing.durable();
                (placing.journaled(end), placing.durable().0 - before.0)
            };
            self.io.metrics.add(Counter::FlushedRecords, records.unsigned_abs());
            self.settle(slot, changes);
        }
        self.flushed_news.notify_all();
        if self.journal.is_pressed() || self.memory.is_pressed() {
            self.want_round();
        }
        if self.journal.wants_watch() {
            let core = self.clone();
            self.io.spawner.spawn(async move {
                if let Err(failure) = core.journal.watch().await {
                    core.journal_failed(failure);
                }
            });
        }
        if self.journal.ring.wants_to_grow() {
            let core = self.clone();
            self.io.spawner.spawn(async move { core.journal.ring.grow_ahead().await });
        }
    }

    pub fn journal_failed(&self, JournalFailure { path, position, error }: JournalFailure) {
        (self.fatal)(format!("the journal cannot be written ({path} at {position}): {error}"));
    }

    /// Starts a task that a stop waits for.
    pub fn spawn(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        self.running.set(self.running.get() + 1);
        let core = self.clone();
        self.io.spawner.spawn(async move {
            task.await;
            core.running.set(core.running.get() - 1);
            core.ended.notify_all();
        });
    }

    /// Waits until the tasks have ended.
    pub async fn ended(&self) {
        while self.running.get() > 0 {
            self.ended.notified().await;
        }
    }
}

/// Slices as one piece of memory. Copies; for small things only.
pub(super) fn joined(slices: &[Slice]) -> Vec<u8> {
    let parts: Vec<&[u8]> = slices.iter().map(|slice| &slice[..]).collect();
    parts.concat()
}
