//! One life of a simulated broker's log: recover, verify, work until something happens.

use std::{
    cell::{Cell, RefCell},
    path::Path,
    rc::Rc,
    time::Duration,
};

use super::model::Model;
use crate::{
    base::{METADATA_KEY, Offset, PartitionKey},
    config::Durability,
    io::{Io, sim::Simulation},
    log::{
        CoreLog, Log, LogConfig, LogError, LogSeed, LogSettings, MetadataLog, RecoverError, StopReport, core::joined,
        finish_clean_stop, recover, settings::Read,
    },
};

pub const NODE: usize = 0;
pub const DIRECTORY: &str = "data";

/// Small, so that everything happens often: rings go round, segments roll, chunks are evicted, files are closed.
pub fn settings() -> LogSettings {
    LogSettings {
        journal_max_bytes: 384 << 10,
        journal_start_bytes: 64 << 10,
        journal_file_bytes: 64 << 10,
        dirty_max_bytes: 128 << 10,
        cache_max_bytes: 96 << 10,
        open_files_max: 8,
        checkpoint_interval: Duration::from_millis(50),
        space_margin_bytes: 256 << 10,
        ballast_bytes: 64 << 10,
    }
}

pub fn config(sim: &Simulation) -> LogConfig {
    LogConfig {
        segment_bytes: 4096 << sim.below(6),
        durability: if sim.below(4) == 0 { Durability::Write } else { Durability::Flush },
        retention_ms: -1,
        file_delete_delay_ms: 5,
        ..LogConfig::default()
    }
}

/// What a life and the test outside of it tell each other.
#[derive(Default)]
pub struct Shared {
    /// Recovery is done and every core has verified its partitions.
    pub cores_ready: Cell<usize>,
    pub stop_wanted: Cell<bool>,
    pub reports: RefCell<Vec<StopReport>>,
    pub stopped: Cell<bool>,
    pub failed: RefCell<Option<RecoverError>>,
    pub fatal: RefCell<Option<String>>,
    pub power_was_cut: Cell<bool>,
    /// Something of the disk fails: partitions may be offline, and the process may end itself.
    pub disk_fails: Cell<bool>,
    pub acks: Cell<u64>,
    /// Clients of topics that were created meanwhile.
    pub late_clients: Cell<usize>,
}

#[derive(Clone)]
pub struct Life {
    pub sim: Simulation,
    pub model: Model,
    pub shared: Rc<Shared>,
    pub cores: usize,
}

impl Life {
    pub fn start(&self) {
        let life = self.clone();
        self.sim.spawn_on(NODE, 0, |io| async move { life.run(io).await });
    }

    fn context(&self, key: PartitionKey) -> String {
        format!("RINGTAIL_SEED={} partition {key}", self.sim.seed())
    }

    async fn run(self, io: Io) {
        let model = self.model.clone();
        let seed = self.sim.seed();
        let check = |log: MetadataLog| {
            let bytes = joined(&log.batches);
            model.with(METADATA_KEY, |it| {
                let all = it.bytes_from(it.asked_start, Offset(i64::MAX));
                let from_acked = it.bytes_from(it.acked_start, Offset(i64::MAX));
                let fits = from_acked.starts_with(&bytes) || bytes.is_empty() || from_acked.ends_with(&all);
                assert!(fits, "RINGTAIL_SEED={seed}: the metadata log is not what was written");
            });
            Ok(model.known())
        };
        // From files that many a batch is too large for, which then goes beside the others, to files that take all.
        let settings = LogSettings { journal_file_bytes: (16 << 10) << (seed % 3), ..settings() };
        match recover(&io, Path::new(DIRECTORY), &settings, self.cores, check).await {
            Ok(recovered) => {
                for seed in recovered.cores {
                    let life = self.clone();
                    let core = seed.core;
                    self.sim.spawn_on(NODE, core, |io| async move { life.core(io, seed).await });
                }
            }
            Err(error) => *self.shared.failed.borrow_mut() = Some(error),
        }
    }

    async fn core(self, io: Io, seed: LogSeed) {
        let shared = self.shared.clone();
        let sim = self.sim.clone();
        let fatal = Rc::new(move |reason: String| {
            shared.fatal.borrow_mut().get_or_insert(reason);
            // The process ends at once.
            sim.kill(NODE);
        });
        let (core_log, restored) = match CoreLog::start(&io, seed, fatal).await {
            Ok(started) => started,
            Err(error) => {
                *self.shared.failed.borrow_mut() = Some(error);
                return;
            }
        };
        let core_log = Rc::new(core_log);
        let model = self.model.clone();
        core_log.set_state_source(Rc::new(move |key| model.with(key, |it| it.state.clone())));
        let mut logs = Vec::new();
        for partition in restored {
            let context = self.context(partition.key);
            let cut = self.shared.power_was_cut.get();
            self.model
                .with(partition.key, |it| it.accept(&partition.state, cut, &context))
                .unwrap_or_else(|| panic!("{context}: not live"));
            verify(&self.model, &partition.log, &context).await;
            logs.push(partition.log);
        }
        self.shared.cores_ready.set(self.shared.cores_ready.get() + 1);
        let working = Rc::new(Cell::new(0));
        for log in &logs {
            for _ in 0..1 + io.rand.below(2) {
                working.set(working.get() + 1);
                let (life, io2, core_log, log, working) =
                    (self.clone(), io.clone(), core_log.clone(), log.clone(), working.clone());
                io.spawner.spawn(async move {
                    life.work(&io2, &core_log, &log).await;
                    working.set(working.get() - 1);
                });
            }
        }
        while !self.shared.stop_wanted.get() || working.get() > 0 {
            io.clock.sleep(Duration::from_millis(1 + io.rand.below(20))).await;
            core_log.housekeeping().await;
            core_log.recount().unwrap_or_else(|why| panic!("RINGTAIL_SEED={}: {why}", self.sim.seed()));
        }
        if self.shared.late_clients.get() == 0 {
            let reserved = core_log.core.memory.reserved();
            assert_eq!(reserved, 0, "RINGTAIL_SEED={}: nobody is left who could use it", self.sim.seed());
        }
        match core_log.stop().await {
            Ok(report) => self.shared.reports.borrow_mut().push(report),
            Err(LogError::Full) => return,
            Err(error) if self.shared.disk_fails.get() => {
                self.shared.fatal.borrow_mut().get_or_insert(error.to_string());
                self.sim.stop(NODE);
                return;
            }
            Err(error) => panic!("RINGTAIL_SEED={}: stop: {error}", self.sim.seed()),
        }
        if self.shared.reports.borrow().len() == self.cores {
            let reports = self.shared.reports.take();
            match finish_clean_stop(&io, Path::new(DIRECTORY), &reports).await {
                Ok(()) => self.shared.stopped.set(true),
                // A full disk has no room for Kafka's side files either: the next start recovers from the journal.
                Err(error) if is_full(&error.to_string()) || self.shared.disk_fails.get() => {}
                Err(error) => panic!("RINGTAIL_SEED={}: the last step of the stop: {error}", self.sim.seed()),
            }
        }
    }

    /// One client of one partition.
    async fn work(&self, io: &Io, core_log: &Rc<CoreLog>, log: &Rc<Log>) {
        let key = log.key();
        while !self.shared.stop_wanted.get() {
            let goes_on = match io.rand.below(100) {
                0..=69 => self.append(io, log).await,
                70..=84 => self.read_some(io, log).await,
                85..=87 => self.delete_records(io, log).await,
                88 if key != METADATA_KEY => self.replace_topic(io, core_log, log).await,
                89..=90 => core_log.checkpoint().await.is_ok(),
                91..=92 if key != METADATA_KEY => self.truncate(io, log).await,
                _ => {
                    io.clock.sleep(Duration::from_micros(io.rand.below(3000))).await;
                    true
                }
            };
            if !goes_on {
                return;
            }
        }
    }

    async fn append(&self, io: &Io, log: &Rc<Log>) -> bool {
        let key = log.key();
        let now = io.clock.wall();
        let Some(estimate) = self.model.with(key, |it| it.next_batch(&io.rand, now)) else { return false };
        let reservation = match log.reserve(estimate.len() + 64).await {
            Ok(reservation) => reservation,
            Err(LogError::Full) => {
                io.clock.sleep(Duration::from_millis(5)).await;
                return true;
            }
            Err(LogError::Deleted | LogError::Stopping) => return false,
            Err(error) => {
                io.clock.sleep(Duration::from_millis(5)).await;
                return self.goes_on_after(log, &error);
            }
        };
        // As of a batch that the partition refuses.
        if io.rand.below(16) == 0 {
            return true;
        }
        // The sequence was drawn before the wait; another client of the partition may have come first.
        let appended = self.model.with(key, |it| {
            let bytes = resequenced(&estimate, it.sequence);
            let info = it.note(&bytes);
            assert_eq!(info.base_offset, log.log_end_offset(), "{}", self.context(key));
            log.append(reservation, &bytes, &info);
            it.state.apply(&info, now);
            (info.next_offset(), it.cuts)
        });
        let Some((end, cuts)) = appended else { return false };
        if io.rand.below(4) == 0 {
            let (life, log) = (self.clone(), log.clone());
            io.spawner.spawn(async move { life.wait(&log, end, cuts).await });
            return true;
        }
        self.wait(log, end, cuts).await;
        true
    }

    /// What the disk refuses: a partition that is offline, of which nothing more comes, or a large batch for which the
    /// journal has no file now. Gives whether to go on.
    fn goes_on_after(&self, log: &Log, error: &LogError) -> bool {
        let LogError::Io { path, .. } = error else { panic!("{}: {error}", self.context(log.key())) };
        let of_journal = path == DIRECTORY;
        // It may have been deleted since.
        let is_deleted = self.model.with(log.key(), |_| ()).is_none();
        let is_known = self.shared.disk_fails.get() && (of_journal || is_deleted || log.is_offline());
        assert!(is_known, "{}: {error}", self.context(log.key()));
        of_journal
    }

    async fn wait(&self, log: &Rc<Log>, end: Offset, cuts: u64) {
        if log.flushed(end).await.is_ok() {
            self.shared.acks.set(self.shared.acks.get() + 1);
            self.model.with(log.key(), |it| {
                // What comes in its place since may be what is durable.
                if it.cuts > cuts {
                    return;
                }
                it.acked_end = it.acked_end.max(end);
                it.state.high_watermark = it.acked_end.max(it.state.high_watermark);
            });
        }
    }

    async fn read_some(&self, io: &Io, log: &Rc<Log>) -> bool {
        let key = log.key();
        let (start, end) = (log.log_start_offset(), log.log_end_offset());
        if start >= end {
            return true;
        }
        let cuts = self.model.with(key, |it| it.cuts);
        let from = Offset(start.0 + io.rand.below(end.since(start) as u64) as i64);
        let max_bytes = 1 + io.rand.below(50_000) as usize;
        let read = match log.read(from, max_bytes, end, true).await {
            Ok(read) => read,
            Err(LogError::OffsetOutOfRange | LogError::Deleted) => return true,
            Err(error) => return self.goes_on_after(log, &error),
        };
        if self.model.with(key, |it| it.cuts) != cuts {
            return true;
        }
        self.model.with(key, |it| check_read(&read, &it.bytes_from(from, end), max_bytes, &self.context(key)));
        true
    }

    async fn delete_records(&self, io: &Io, log: &Rc<Log>) -> bool {
        let (start, end) = (log.log_start_offset(), log.durable_end());
        if start >= end {
            return true;
        }
        let target = Offset(start.0 + io.rand.below(end.since(start) as u64 + 1) as i64);
        self.model.with(log.key(), |it| it.asked_start = it.asked_start.max(target));
        if log.move_start(target, end).await.is_ok() {
            self.model.with(log.key(), |it| {
                it.acked_start = it.acked_start.max(target);
                it.state.high_watermark = it.state.high_watermark.max(target);
                it.state.log_start_offset = it.state.log_start_offset.max(target);
            });
        }
        true
    }

    /// Ends the log somewhere before its end, as a follower of a new leader does.
    async fn truncate(&self, io: &Io, log: &Rc<Log>) -> bool {
        let key = log.key();
        let (start, end) = (log.log_start_offset(), log.log_end_offset());
        let start = self.model.with(key, |it| it.asked_start.max(start)).unwrap_or(start);
        if start >= end {
            return true;
        }
        let target = Offset(start.0 + io.rand.below(end.since(start) as u64) as i64);
        let cut = match log.find_cut(target).await {
            Ok(Some(cut)) => cut,
            Ok(None) | Err(LogError::OffsetOutOfRange | LogError::Full) => return true,
            Err(LogError::Deleted | LogError::Stopping) => return false,
            Err(error) => return self.goes_on_after(log, &error),
        };
        // In one step with what is known of it, unless its start was to move meanwhile or somebody is about to append.
        let end = cut.end();
        let truncated = self.model.with(key, |it| {
            let truncated = (it.asked_start <= end).then(|| log.truncate(cut)).flatten()?;
            it.cut(end);
            Some((truncated, it.cuts))
        });
        let Some((truncated, cuts)) = truncated.flatten() else { return true };
        // Whoever goes away leaves nobody waiting.
        if io.rand.below(4) == 0 {
            return true;
        }
        if truncated.durable().await.is_ok() {
            // Another client may have cut it again by now.
            self.model.with(key, |it| {
                if it.cuts == cuts {
                    it.cut_off.clear()
                }
            });
        }
        true
    }

    /// Deletes the topic and creates it again with another id, as a client would.
    async fn replace_topic(&self, io: &Io, core_log: &Rc<CoreLog>, log: &Rc<Log>) -> bool {
        let Some(old) = self.model.delete(log.key()) else { return false };
        core_log.delete(log.key()).await;
        // On any core: ours is as good as another, but a restart must find it where the id says.
        let key = self.model.create(&io.rand, &old.name, old.config.clone());
        if key.core(self.cores) == log.key().core(self.cores) {
            let fresh = core_log.create(key, &old.name, old.config);
            let (life, io2, core_log) = (self.clone(), io.clone(), core_log.clone());
            let clients = self.shared.clone();
            clients.late_clients.set(clients.late_clients.get() + 1);
            io.spawner.spawn(async move {
                Box::pin(life.work(&io2, &core_log, &fresh)).await;
                clients.late_clients.set(clients.late_clients.get() - 1);
            });
        }
        false
    }
}

/// Whether an error's words say that the disk is full, or a quota.
pub fn is_full(words: &str) -> bool {
    words.contains("space") || words.contains("quota")
}

fn resequenced(bytes: &bytes::Bytes, sequence: i32) -> bytes::Bytes {
    let mut bytes = bytes.to_vec();
    bytes[53..57].copy_from_slice(&sequence.to_be_bytes());
    crate::protocol::batch::seal(&mut bytes);
    bytes.into()
}

fn check_read(read: &Read, expected: &[u8], max_bytes: usize, context: &str) {
    let bytes = joined(&read.slices);
    assert_eq!(bytes.len(), read.bytes, "{context}");
    assert!(!bytes.is_empty(), "{context}: nothing was read");
    assert!(expected.starts_with(&bytes), "{context}: what was read is not what was written");
    let mut batches = crate::protocol::batch::batches(&bytes);
    let count = batches.by_ref().filter(|batch| batch.is_ok()).count();
    assert_eq!(batches.position(), bytes.len(), "{context}: whole batches");
    assert!(count == 1 || bytes.len() <= max_bytes, "{context}: {} of {max_bytes}", bytes.len());
}

/// Reads all of a log and compares it with what was written.
pub async fn verify(model: &Model, log: &Rc<Log>, context: &str) {
    let (start, end) = (log.log_start_offset(), log.log_end_offset());
    let expected = model.with(log.key(), |it| it.bytes_from(start, end)).expect("the partition is live");
    let mut from = start;
    let mut at = 0;
    while from < end {
        let read = log.read(from, 1 << 16, end, true).await.unwrap_or_else(|error| panic!("{context}: {error}"));
        check_read(&read, &expected[at..], 1 << 16, context);
        at += read.bytes;
        let bytes = joined(&read.slices);
        let last = crate::protocol::batch::batches(&bytes).flatten().last().expect("a read has a batch");
        from = last.header.last_offset().plus(1);
    }
    assert_eq!(at, expected.len(), "{context}: bytes are missing");
}
