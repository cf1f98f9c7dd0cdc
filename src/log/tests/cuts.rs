//! Logs that are cut, and segments that are replaced: what readers, restarts and those who append find.

use std::{
    cell::{Cell, RefCell},
    path::Path,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;

use super::{DIRECTORY, Rig, bytes_of, key, live, story::settings};
use crate::{
    base::{LeaderEpoch, Offset},
    io::{
        Io,
        sim::{Failure, Faults, Operation, Simulation, errno},
    },
    log::{
        Log, LogConfig, LogError, LogSettings, Truncated, partition_directory,
        segment::{Segment, file_name},
    },
    protocol::batch::{BatchBuilder, BatchHeader, BatchInfo, batches, stamp},
};

const SEEDS: u64 = 30;

fn config() -> LogConfig {
    LogConfig { segment_bytes: 12_000, retention_ms: -1, file_delete_delay_ms: 1, ..LogConfig::default() }
}

/// Nearly everything is read from the disk.
fn cold() -> LogSettings {
    LogSettings { cache_max_bytes: 1, ..settings() }
}

fn slow() -> Faults {
    Faults { slow_one_in: 4, slow_ns: 3_000_000, ..Faults::default() }
}

/// A batch that was in the log.
#[derive(Clone)]
struct Kept {
    info: BatchInfo,
    bytes: Bytes,
    /// The change that brought it, and the one that took it away.
    since: u64,
    upto: u64,
}

/// What has been in the log, outside of the simulated machine.
#[derive(Clone, Default)]
struct History {
    kept: Rc<RefCell<Vec<Kept>>>,
    changes: Rc<Cell<u64>>,
}

impl History {
    fn change(&self) -> u64 {
        self.changes.set(self.changes.get() + 1);
        self.changes.get()
    }

    fn end(&self) -> Offset {
        let kept = self.kept.borrow();
        kept.iter().filter(|it| it.upto == u64::MAX).map(|it| it.info.next_offset()).max().unwrap_or(Offset::ZERO)
    }

    fn note(&self, info: BatchInfo, bytes: Bytes) {
        let since = self.change();
        self.kept.borrow_mut().push(Kept { info, bytes, since, upto: u64::MAX });
    }

    /// Everything from `from` to `to` goes.
    fn remove(&self, from: Offset, to: Offset) {
        let change = self.change();
        let mut kept = self.kept.borrow_mut();
        let goes = |it: &&mut Kept| it.upto == u64::MAX && (from..to).contains(&it.info.base_offset);
        kept.iter_mut().filter(goes).for_each(|it| it.upto = change);
    }

    /// What the last change has taken away is there all the same.
    fn undo(&self) {
        let last = self.changes.get();
        self.kept.borrow_mut().iter_mut().filter(|it| it.upto == last).for_each(|it| it.upto = u64::MAX);
    }

    fn now(&self) -> Vec<Kept> {
        let mut now: Vec<Kept> = self.kept.borrow().iter().filter(|it| it.upto == u64::MAX).cloned().collect();
        now.sort_by_key(|it| it.info.base_offset);
        now
    }

    /// Holds what a read, begun after the change `since`, brought from `from` on against what has been there at one moment.
    fn check(&self, from: Offset, bytes: &[u8], since: u64, context: &str) {
        let kept = self.kept.borrow();
        let (mut position, mut latest, mut earliest) = (0, 0, u64::MAX);
        for batch in batches(bytes) {
            let batch = batch.unwrap_or_else(|error| panic!("{context}: {error:?}"));
            let was = kept.iter().rev().find(|it| it.bytes == batch.bytes);
            let was = was.unwrap_or_else(|| panic!("{context}: nobody wrote what is at {position}"));
            assert!(position > 0 || (was.info.base_offset <= from && from <= was.info.last_offset), "{context}");
            (latest, earliest) = (latest.max(was.since), earliest.min(was.upto));
            position += batch.bytes.len();
        }
        assert!(latest < earliest && since < earliest, "{context}: {latest}..{earliest} were not there together");
    }
}

/// A log with its history.
#[derive(Clone)]
struct Told {
    io: Io,
    rig: Rig,
    log: Rc<Log>,
    history: History,
}

impl Told {
    async fn open(io: &Io, settings: &LogSettings, history: &History) -> Self {
        let rig = Rig::open(io, settings, &live(key(1), "t", &config())).await.unwrap();
        let log = rig.core_log.log(key(1)).unwrap();
        Self { io: io.clone(), rig, log, history: history.clone() }
    }

    /// Like no batch before it.
    fn batch(&self) -> Bytes {
        let mut batch = BatchBuilder::new();
        let value = self.io.rand.next_u64().to_be_bytes().repeat(1 + self.io.rand.below(300) as usize);
        for _ in 0..1 + self.io.rand.below(3) {
            batch.push(self.io.rand.below(1000) as i64, None, Some(&value));
        }
        batch.build()
    }

    async fn append(&self) -> Result<(), LogError> {
        let batch = self.batch();
        // In one step with what is known of it.
        let reservation = self.log.reserve(batch.len()).await?;
        let info = BatchInfo::of(&BatchHeader::parse(&batch).unwrap()).at(self.log.log_end_offset(), LeaderEpoch(0));
        self.log.append(reservation, &batch, &info);
        self.rig.states.borrow_mut().get_mut(&self.log.key()).unwrap().apply(&info, 0);
        self.history.note(info, stamped(&batch, &info));
        self.log.flushed(info.next_offset()).await
    }

    /// Cuts the log before the batch that holds `offset`.
    async fn cut(&self, offset: Offset) -> Option<Truncated> {
        loop {
            let cut = match self.log.find_cut(offset).await {
                // The batch is cut in two by the log start.
                Err(LogError::OffsetOutOfRange) => return None,
                found => found.unwrap()?,
            };
            let end = cut.end();
            if let Some(truncated) = self.log.truncate(cut) {
                self.rig.states.borrow_mut().get_mut(&self.log.key()).unwrap().truncate(end);
                self.history.remove(end, Offset(i64::MAX));
                return Some(truncated);
            }
            self.io.clock.sleep(Duration::from_micros(50)).await;
        }
    }

    fn below_end(&self) -> Offset {
        let (start, end) = (self.log.log_start_offset(), self.log.log_end_offset());
        start.plus(self.io.rand.below(1 + end.since(start) as u64) as i64)
    }

    /// Reads everything.
    async fn check(&self, context: &str) {
        let (start, end) = (self.log.log_start_offset(), self.log.log_end_offset());
        let expected: Vec<Kept> = self.history.now().into_iter().filter(|it| it.info.last_offset >= start).collect();
        assert_eq!(expected.last().map_or(start, |it| it.info.next_offset()), end, "{context}");
        let (mut from, mut found) = (start, Vec::new());
        while from < end {
            let read = self.log.read(from, 5000, end, true).await.unwrap_or_else(|error| panic!("{context}: {error}"));
            let bytes = bytes_of(&read.slices);
            from = batches(&bytes).flatten().last().unwrap().header.last_offset().plus(1);
            found.extend(bytes);
        }
        let expected: Vec<u8> = expected.iter().flat_map(|it| it.bytes.to_vec()).collect();
        assert!(found == expected, "{context}: {} bytes are not what was written", found.len());
    }

    /// No file is there but those of the log's segments.
    async fn check_names(&self, context: &str) {
        let entries = self.io.disk.read_dir(Path::new(DIRECTORY).join("t-0").as_path()).await.unwrap_or_default();
        let state = self.log.state();
        for base in entries.iter().filter_map(|it| it.name.strip_suffix(".log")?.parse().ok()).map(Offset) {
            let is_known = state.segments().iter().any(|segment| segment.base == base && segment.size > 0);
            assert!(is_known || base < state.segments()[0].base, "{context}: {base}.log is of no segment");
        }
    }

    /// Reads at random places until it is told to stop.
    async fn read_on(&self, stop: &Cell<bool>, context: &str) {
        while !stop.get() {
            let from = self.below_end();
            let (since, end) = (self.history.changes.get(), self.log.log_end_offset());
            if from == end {
                self.io.clock.sleep(Duration::from_micros(50)).await;
                continue;
            }
            match self.log.read(from, 1 + self.io.rand.below(9000) as usize, end, true).await {
                // Cut off meanwhile, and nothing has come in its place.
                Ok(read) if read.bytes == 0 => assert!(self.was_cut(from, since), "{context}: nothing at {from}"),
                Ok(read) => self.history.check(from, &bytes_of(&read.slices), since, context),
                Err(LogError::OffsetOutOfRange) => assert!(self.was_cut(from, since), "{context}: {from} was there"),
                Err(error) => panic!("{context}: {error}"),
            }
        }
    }

    /// Whether what holds `offset` has gone after the change `since`.
    fn was_cut(&self, offset: Offset, since: u64) -> bool {
        let kept = self.history.kept.borrow();
        kept.iter().any(|it| it.info.last_offset >= offset && it.upto > since && it.upto < u64::MAX)
    }
}

fn stamped(batch: &[u8], info: &BatchInfo) -> Bytes {
    let mut bytes = batch.to_vec();
    stamp(&mut bytes, info.base_offset, info.leader_epoch);
    bytes.into()
}

#[test]
fn appends_wait_for_a_cut_to_be_durable_also_if_nobody_else_does() {
    let sim = Simulation::new(1);
    let disk = sim.clone();
    sim.block_on(0, 0, move |io| async move {
        let told = Told::open(&io, &settings(), &History::default()).await;
        told.append().await.unwrap();
        told.append().await.unwrap();
        let end = told.history.now()[1].info.base_offset;
        disk.set_faults(0, slow());
        drop(told.cut(end).await.expect("there is something to cut"));
        assert!(told.log.try_reserve(100).is_none(), "it would be written over what was there");
        told.append().await.unwrap();
        assert!(told.log.log_end_offset() > end);
        told.check("after it").await;
        let before = told.log.log_end_offset();
        assert!(told.cut(before).await.is_none(), "there is nothing behind the end");
        told.rig.core_log.stop().await.unwrap();
        assert_eq!(told.log.find_cut(Offset::ZERO).await.err(), Some(LogError::Stopping));
    });
}

#[test]
fn who_waits_for_what_was_cut_off_since_does_not_wait_for_what_comes_in_its_place() {
    let sim = Simulation::new(1);
    sim.block_on(0, 0, |io| async move {
        let told = Told::open(&io, &settings(), &History::default()).await;
        told.append().await.unwrap();
        let end = told.log.log_end_offset();
        // It was durable before.
        let (there, to_come) = (told.log.flushed(end), told.log.flushed(end.plus(1)));
        let mut to_come = Box::pin(to_come);
        told.cut(Offset::ZERO).await.expect("there is something to cut").durable().await.unwrap();
        there.await.unwrap();
        assert!(futures_lite::future::poll_once(&mut to_come).await.is_none());
    });
}

#[test]
fn whatever_is_cut_a_start_has_it_or_has_it_not() {
    for seed in 0..SEEDS {
        let sim = Simulation::new(seed);
        let history = History::default();
        let context = format!("seed {seed}");
        for life in 0..5 {
            let (past, context, disk) = (history.clone(), context.clone(), sim.clone());
            sim.block_on(0, 0, move |io| async move {
                let told = Told::open(&io, &settings(), &past).await;
                // The last cut of a life may be one that nobody has waited for.
                if told.log.log_end_offset() > past.end() {
                    past.undo();
                }
                told.check(&format!("{context}, life {life}")).await;
                told.check_names(&format!("{context}, life {life}")).await;
                disk.set_faults(0, slow());
                for _ in 0..io.rand.below(80) {
                    match io.rand.below(20) {
                        0..12 => told.append().await.unwrap(),
                        12..15 => told.rig.core_log.checkpoint().await.unwrap(),
                        15 => {
                            let (to, end) = (told.below_end(), told.log.log_end_offset());
                            told.log.move_start(to, end).await.unwrap();
                        }
                        _ => {
                            if let Some(truncated) = told.cut(told.below_end()).await {
                                truncated.durable().await.unwrap();
                            }
                        }
                    }
                    told.rig.core_log.recount().unwrap_or_else(|why| panic!("{context}: {why}"));
                }
                if io.rand.below(2) == 0 {
                    drop(told.cut(told.below_end()).await);
                    io.clock.sleep(Duration::from_micros(io.rand.below(3000))).await;
                }
            });
            if sim.below(2) == 0 {
                sim.kill(0)
            } else {
                sim.power_cut(0)
            }
            sim.set_faults(0, Faults::default());
        }
    }
}

/// What is left of the active segment lies below the log start then, and what was cut off lies in the same file.
#[test]
fn a_log_that_is_cut_where_it_is_about_to_start_keeps_its_segment_until_the_cut_is_durable() {
    let (mut cut, mut uncut) = (0, 0);
    for seed in 0..200 {
        let sim = Simulation::new(seed);
        let history = History::default();
        let past = history.clone();
        sim.block_on(0, 0, move |io| async move {
            let told = Told::open(&io, &settings(), &past).await;
            for _ in 0..4 {
                told.append().await.unwrap();
            }
            told.rig.core_log.checkpoint().await.unwrap();
            let end = told.history.now()[2].info.base_offset;
            let found = told.log.find_cut(end).await.unwrap().unwrap();
            let (log, committed) = (told.log.clone(), told.log.log_end_offset());
            io.spawner.spawn(async move { drop(log.move_start(end, committed).await) });
            io.clock.sleep(Duration::from_micros(io.rand.below(300))).await;
            if let Some(truncated) = told.log.truncate(found) {
                told.rig.states.borrow_mut().get_mut(&told.log.key()).unwrap().truncate(end);
                told.history.remove(end, Offset(i64::MAX));
                drop(truncated);
            }
            io.clock.sleep(Duration::from_micros(io.rand.below(1000))).await;
        });
        sim.power_cut(0);
        let counts = sim.block_on(0, 0, move |io| async move {
            let told = Told::open(&io, &settings(), &history).await;
            let is_cut = told.log.log_end_offset() == history.end();
            if !is_cut {
                history.undo();
            }
            told.check(&format!("seed {seed}")).await;
            is_cut
        });
        if counts { cut += 1 } else { uncut += 1 }
    }
    assert!(cut > 20 && uncut > 20, "both are seen: {cut} and {uncut}");
}

#[test]
fn what_was_cut_off_has_gone_though_it_kept_its_name() {
    for checkpointed in [false, true] {
        let sim = Simulation::new(3);
        let history = History::default();
        let (past, disk) = (history.clone(), sim.clone());
        sim.block_on(0, 0, move |io| async move {
            let told = Told::open(&io, &settings(), &past).await;
            for _ in 0..60 {
                told.append().await.unwrap();
            }
            told.rig.core_log.checkpoint().await.unwrap();
            let failure = Failure { operation: Operation::Rename, files_named: ".log", error: errno::EIO, one_in: 1 };
            disk.set_faults(0, Faults { failures: vec![failure], ..Faults::default() });
            let cut = told.cut(told.history.now()[7].info.base_offset).await.unwrap();
            cut.durable().await.unwrap();
            if checkpointed {
                told.rig.core_log.checkpoint().await.unwrap();
            }
            told.append().await.unwrap();
        });
        let names = sim.files(0).into_iter().filter(|(path, _)| path.extension().is_some_and(|it| it == "log"));
        assert!(names.count() > 2, "they are there");
        sim.power_cut(0);
        sim.set_faults(0, Faults::default());
        sim.block_on(0, 0, move |io| async move {
            let told = Told::open(&io, &settings(), &history).await;
            told.check("after a restart").await;
            told.check_names(&format!("checkpointed {checkpointed}")).await;
        });
    }
}

#[test]
fn a_reader_of_a_log_that_is_cut_finds_what_was_there_at_one_moment() {
    for seed in 0..SEEDS {
        let sim = Simulation::new(seed);
        let disk = sim.clone();
        sim.block_on(0, 0, move |io| async move {
            let context = format!("seed {seed}");
            let told = Told::open(&io, &cold(), &History::default()).await;
            for _ in 0..40 {
                told.append().await.unwrap();
            }
            disk.set_faults(0, slow());
            let (stop, left) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(4)));
            for _ in 0..left.get() {
                let (told, stop, left, context) = (told.clone(), stop.clone(), left.clone(), context.clone());
                io.spawner.spawn(async move {
                    told.read_on(&stop, &context).await;
                    left.set(left.get() - 1);
                });
            }
            for _ in 0..12 {
                let cut = told.cut(told.below_end()).await;
                for _ in 0..io.rand.below(8) {
                    told.append().await.unwrap();
                }
                told.rig.core_log.checkpoint().await.unwrap();
                drop(cut);
            }
            stop.set(true);
            while left.get() > 0 {
                io.clock.sleep(Duration::from_millis(1)).await;
            }
            told.check(&context).await;
        });
    }
}

/// Puts another segment in the place of a finished one: with the same offsets, and other bytes. As a cleaner would.
async fn replace(told: &Told, index: usize) {
    let (old, base, end) = {
        let state = told.log.state();
        (state.segments()[index].id(), state.segments()[index].base, state.segments()[index + 1].base)
    };
    let mut segment = Segment::new(base, &config());
    let (mut bytes, mut new) = (Vec::new(), Vec::new());
    for was in told.history.now().iter().filter(|it| (base..end).contains(&it.info.base_offset)) {
        let mut batch = BatchBuilder::new();
        let value = told.io.rand.next_u64().to_be_bytes().repeat(1 + told.io.rand.below(100) as usize);
        (0..=was.info.last_offset.since(was.info.base_offset)).for_each(|_| batch.push(7, None, Some(&value)));
        let batch = batch.build();
        let info = BatchInfo::of(&BatchHeader::parse(&batch).unwrap()).at(was.info.base_offset, LeaderEpoch(0));
        segment.append(info.bytes, info.last_offset, info.max_timestamp);
        new.push((info, stamped(&batch, &info)));
        bytes.extend_from_slice(&new.last().unwrap().1);
    }
    let index = segment.index.take().unwrap();
    let segment = Segment { written: segment.size, sealed: true, finished: true, ..segment };
    let path = told.log.directory().join(file_name(base, "log"));
    let cleaned = path.with_extension("log.cleaned");
    told.io.disk.write_file(&cleaned, &bytes, true).await.unwrap();
    told.io.disk.rename(&cleaned, &path).await.unwrap();
    let files = partition_directory::index_files(&told.log, base, &index).into();
    told.io.disk.leave_files(files).await.map_err(|(_, error)| error).unwrap();
    let (_, changes) = told.log.state_mut().replace(&[old], vec![segment]).expect("it is what it was");
    told.rig.core_log.core.settle(told.log.slot(), changes);
    told.history.remove(base, end);
    // In one change with what it was.
    told.history.changes.set(told.history.changes.get() - 1);
    let since = told.history.change();
    let kept = new.into_iter().map(|(info, bytes)| Kept { info, bytes, since, upto: u64::MAX });
    told.history.kept.borrow_mut().extend(kept);
}

/// What the reader has learned of the segment that was there before does not hold, though nobody makes it forget.
#[test]
fn a_reader_of_a_segment_that_was_replaced_finds_the_new_one() {
    for seed in 0..SEEDS {
        let sim = Simulation::new(seed);
        sim.block_on(0, 0, move |io| async move {
            let context = format!("seed {seed}");
            let settings = LogSettings { cache_max_bytes: 400_000, ..settings() };
            let told = Told::open(&io, &settings, &History::default()).await;
            for _ in 0..60 {
                told.append().await.unwrap();
            }
            told.rig.core_log.checkpoint().await.unwrap();
            let count = told.log.state().segments().len();
            assert!(count > 3, "several are finished");
            for _ in 0..6 {
                told.check(&context).await;
                // A hint leads into the midst of it.
                let from = told.below_end();
                let end = told.log.log_end_offset();
                let _ = told.log.read(from, 2000, end, true).await.unwrap();
                replace(&told, io.rand.below(count as u64 - 1) as usize).await;
                told.check(&context).await;
            }
        });
    }
}
