//! One core's whole log: its partitions, its journal, its memory, and the tasks that move bytes from one to the other.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use crate::{
    base::{Map, Offset, PartitionKey},
    io::{Instant, Io, Slice, channel::Notify},
    log::{
        cold::Cold,
        destage,
        files::Files,
        image::LogImage,
        journal::{Journal, JournalFailure, Mark, block::Incarnation},
        memory::Memory,
        offline::Failed,
        partition_log::Log,
        settings::{LogConfig, LogError, LogSettings, LogUsage, RecoverError},
        space::Space,
        sync_gate::SyncGate,
    },
    partition::PartitionState,
};

/// What the rules know about a partition at this very moment; asked for without an await after the last append.
pub type StateSource = Rc<dyn Fn(PartitionKey) -> Option<PartitionState>>;

/// Told once when the process must end, with the reason: a failed journal write is never retried and never answered.
pub type Fatal = Rc<dyn Fn(String)>;

/// What recovery hands to one core. Travels to the core's executor.
#[derive(Debug)]
pub struct CoreSeed {
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

/// A partition as it was found.
pub struct RestoredPartition {
    /// Which one.
    pub key: PartitionKey,
    /// Its topic's name.
    pub name: String,
    /// Offsets, epochs and producers, ready for `Partition::restored`.
    pub state: PartitionState,
    /// Its log.
    pub log: Rc<Log>,
}

/// One core's log. Dropping it forgets everything in memory; [`stop`](Self::stop) first.
pub struct CoreLog {
    pub(super) core: Rc<Core>,
}

pub struct Core {
    pub io: Io,
    pub directory: PathBuf,
    pub settings: LogSettings,
    pub number: usize,
    pub incarnation: Incarnation,
    pub logs: RefCell<Map<PartitionKey, Rc<Log>>>,
    pub journal: Journal,
    pub memory: Memory,
    pub space: Rc<Space>,
    pub files: Files,
    pub cold: Cold,
    pub gate: Arc<SyncGate>,
    /// Logs with records that no checkpoint covers.
    pub dirty: RefCell<Vec<Rc<Log>>>,
    /// Partitions that went offline and that the journal may not be freed behind yet.
    pub failed: RefCell<Vec<Failed>>,
    /// The last checkpoint covers the journal's blocks below this one.
    pub covered: Cell<u64>,
    /// Logs with whole chunks to write.
    pub full: RefCell<VecDeque<Rc<Log>>>,
    flushed: RefCell<Vec<Rc<Log>>>,
    flushed_news: Notify,
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
    pub fn new(io: &Io, seed: &CoreSeed, fatal: Fatal) -> Rc<Self> {
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
            logs: RefCell::default(),
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

    pub fn list_dirty(&self, log: &Rc<Log>) {
        self.dirty.borrow_mut().push(log.clone());
        if self.dirty_since.get().is_none() {
            self.dirty_since.set(Some(self.io.clock.now()));
        }
    }

    pub fn list_full(&self, log: &Rc<Log>) {
        self.full.borrow_mut().push_back(log.clone());
        self.work.notify_all();
    }

    pub fn list_flushed(&self, log: &Rc<Log>) {
        self.flushed.borrow_mut().push(log.clone());
    }

    /// Asks for a checkpoint that covers everything appended so far.
    pub fn want_round(&self) {
        if !self.round_wanted.replace(true) {
            self.work.notify_all();
        }
    }

    fn blocks_done(self: &Rc<Self>, marks: Vec<Mark>) {
        for mark in marks {
            mark.log.journaled(mark.end);
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

    fn journal_failed(&self, JournalFailure { path, position, error }: JournalFailure) {
        (self.fatal)(format!("the journal cannot be written ({path} at {position}): {error}"));
    }

    fn spawn(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        self.running.set(self.running.get() + 1);
        let core = self.clone();
        self.io.spawner.spawn(async move {
            task.await;
            core.running.set(core.running.get() - 1);
            core.ended.notify_all();
        });
    }

    fn start_tasks(self: &Rc<Self>) {
        let core = self.clone();
        self.spawn(async move {
            let done = |marks| core.blocks_done(marks);
            if let Err(failure) = core.journal.run(done, || core.want_round()).await {
                core.journal_failed(failure);
                // Nothing may be answered any more: hold on until the process is gone.
                std::future::pending::<()>().await;
            }
        });
        let core = self.clone();
        self.spawn(async move { destage::run(&core).await });
    }

    /// Logs, lists and core refer to each other; without this none of them would ever be freed.
    pub fn untie(&self) {
        self.logs.borrow_mut().clear();
        self.dirty.borrow_mut().clear();
        self.failed.borrow_mut().clear();
        self.full.borrow_mut().clear();
        self.flushed.borrow_mut().clear();
        self.memory.forget();
        self.journal.forget();
        self.state_source.borrow_mut().take();
    }

    /// Waits until the tasks have ended.
    pub async fn ended(&self) {
        while self.running.get() > 0 {
            self.ended.notified().await;
        }
    }
}

impl CoreLog {
    /// Starts one core's log from what recovery found. `fatal` is called when the process must end.
    /// # Errors
    /// A journal file cannot be opened or made.
    pub async fn start(io: &Io, seed: CoreSeed, fatal: Fatal) -> Result<(Self, Vec<RestoredPartition>), RecoverError> {
        let core = Core::new(io, &seed, fatal);
        let opened = core.journal.ring.open(&seed.journals, core.settings.journal_start_bytes).await;
        opened.map_err(|error| RecoverError::Io {
            path: core.directory.display().to_string(),
            message: error.to_string(),
        })?;
        core.space.refresh().await;
        let mut restored = Vec::with_capacity(seed.partitions.len());
        for PartitionSeed { image, config, state, offline } in seed.partitions {
            let log = Log::restored(&core, &image, config);
            let mut encoded = Vec::new();
            image.encode(&mut encoded);
            log.state_mut().encoded = image.is_kept().then(|| encoded.into());
            if let Some(error) = offline {
                log.kill(error);
            }
            core.logs.borrow_mut().insert(image.key, log.clone());
            restored.push(RestoredPartition { key: image.key, name: image.name, state, log });
        }
        core.start_tasks();
        Ok((Self { core }, restored))
    }

    /// Says where a partition's state comes from when a checkpoint is made. Before the first append.
    pub fn set_state_source(&self, source: StateSource) {
        *self.core.state_source.borrow_mut() = Some(source);
    }

    /// A new, empty partition. No file is touched until its first destage.
    #[must_use]
    pub fn create(&self, key: PartitionKey, topic_name: &str, config: LogConfig) -> Rc<Log> {
        let log = Log::new(&self.core, key, topic_name, config);
        self.core.logs.borrow_mut().insert(key, log.clone());
        log
    }

    /// The log of a partition that lives on this core.
    #[must_use]
    pub fn log(&self, key: PartitionKey) -> Option<Rc<Log>> {
        self.core.logs.borrow().get(&key).cloned()
    }

    /// Waits for news and returns the partitions whose durable end has moved, with that end.
    pub async fn next_flushed(&self) -> Vec<(PartitionKey, Offset)> {
        loop {
            let flushed = std::mem::take(&mut *self.core.flushed.borrow_mut());
            if !flushed.is_empty() {
                let news = flushed.iter().map(|log| {
                    let mut state = log.state_mut();
                    state.listed_flushed = false;
                    (log.key(), state.durable)
                });
                return news.collect();
            }
            self.core.flushed_news.notified().await;
        }
    }

    /// Moves everything appended so far into segments and makes a checkpoint.
    /// # Errors
    /// `Stopping`.
    pub async fn checkpoint(&self) -> Result<(), LogError> {
        let core = &self.core;
        // A round that is under way may have begun before the last append, so the one after it counts.
        let wanted = core.rounds_done.get() + 2;
        while core.rounds_done.get() < wanted {
            if core.stopping.get() {
                return Err(LogError::Stopping);
            }
            core.want_round();
            core.rounds_changed.notified().await;
        }
        Ok(())
    }

    /// What this core holds.
    #[must_use]
    pub fn usage(&self) -> LogUsage {
        let core = &self.core;
        LogUsage {
            logs: core.logs.borrow().len(),
            dirty_bytes: core.memory.dirty(),
            chunk_bytes: core.memory.chunk_bytes() + core.cold.bytes(),
            journal_used_bytes: core.journal.ring.used_bytes(),
            journal_bytes: core.journal.ring.total_bytes(),
            open_files: core.files.len(),
            checkpoints: core.rounds_done.get(),
        }
    }

    /// Holds the books against what they count, at any moment: room promised on the disk, records that are in no segment,
    /// memory of chunks and of cold reads. What is reserved is at least what the logs know of.
    /// # Errors
    /// Which one is wrong.
    #[cfg(test)]
    pub(crate) fn recount(&self) -> Result<(), String> {
        let core = &self.core;
        let (mut promised, mut dirty, mut chunks, mut reserved) = (0, 0, 0, 0);
        for log in core.logs.borrow().values() {
            let state = log.state();
            state.has_its_room().map_err(|why| format!("{}: {why}", log.name()))?;
            promised += state.outstanding();
            reserved += state.reserved_bytes;
            for chunk in &state.chunks.0 {
                dirty += chunk.tail.published() - chunk.written;
                chunks += chunk.capacity();
            }
        }
        let memory = &core.memory;
        let books = [
            ("promised", core.space.promised() as usize, promised as usize),
            ("dirty", memory.dirty(), dirty),
            ("chunks", memory.chunk_bytes(), chunks),
            ("cold", core.cold.bytes(), core.cold.recount()),
            ("reserved", memory.reserved(), memory.reserved().max(reserved)),
        ];
        match books.into_iter().find(|(_, book, counted)| book != counted) {
            Some((what, book, counted)) => Err(format!("{what}: the book says {book}, counted are {counted}")),
            None => Ok(()),
        }
    }

    /// Whether appends are refused because the disk is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.core.space.is_refusing()
    }

    /// The data directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.core.directory
    }
}

impl Drop for CoreLog {
    fn drop(&mut self) {
        self.core.untie();
    }
}

/// Slices as one piece of memory. Copies; for small things only.
pub(super) fn joined(slices: &[Slice]) -> Vec<u8> {
    let parts: Vec<&[u8]> = slices.iter().map(|slice| &slice[..]).collect();
    parts.concat()
}
