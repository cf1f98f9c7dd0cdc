//! From memory into segments, in the background, and the checkpoints that free the journal.
//!
//! Whole chunks go out as they fill, large and aligned, without a flush each. When the journal or the memory fills, or
//! with time, a round writes everything that is dirty, syncs the file system once, and makes a checkpoint.

use std::{ops::Range, rc::Rc, time::Duration};

use crate::{
    io::{File, SharedBuffer, is_full, join_all},
    log::{
        checkpoint::{CheckpointHead, RoundError, write::write_checkpoint},
        chunk::Chunk,
        core::Core,
        image::LogImage,
        index::SegmentIndex,
        logs::Logs,
        names::checkpoint_name,
        offline,
        pace::Pace,
        partition_directory,
        partition_log::Log,
        placing::Placing,
        rescuing,
        segment::{SegmentId, file_name},
        settings::{BLOCK_BYTES, LogError},
        slots::Slot,
    },
    metrics::{Counter, Timer},
};

/// Partitions that are written at the same time: few while nobody waits, so that the journal keeps its latency.
const WRITES_CALM: usize = 2;
const WRITES_PRESSED: usize = 16;

/// After a full disk.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// The destager: runs until the core stops.
pub async fn run(logs: &Rc<Logs>) {
    let core = &logs.core;
    while !core.stopping.get() {
        if core.round_wanted.replace(false) {
            if let Err(error) = round(logs).await {
                handle(core, &error);
                core.round_wanted.set(true);
                core.io.clock.sleep(RETRY_DELAY).await;
            }
            continue;
        }
        if core.full.borrow().is_empty() {
            core.work.notified().await;
            continue;
        }
        let full = take_full(logs, WRITES_CALM);
        if let Err(error) = write_all(core, &full, What::WholeChunks).await {
            // The records are dirty still: the next round, at the latest, tries again.
            handle(core, &error);
            core.io.clock.sleep(RETRY_DELAY).await;
        }
    }
}

fn handle(core: &Core, error: &RoundError) {
    match error {
        RoundError::Full => {
            core.space.stick();
            core.memory.freed.notify_all();
        }
        RoundError::Disk(error) => (core.fatal)(format!("a checkpoint cannot be made: {error}")),
    }
}

fn take_full(logs: &Logs, max: usize) -> Vec<Rc<Log>> {
    let mut full = logs.core.full.borrow_mut();
    let count = full.len().min(max);
    let slots: Vec<Slot> = full.drain(..count).collect();
    let logs = logs.at(&slots);
    logs.iter().for_each(|log| log.state_mut().taken_off_full());
    logs
}

/// Writes everything that is dirty now, and makes a checkpoint that covers it.
pub async fn round(logs: &Rc<Logs>) -> Result<(), RoundError> {
    let core = &logs.core;
    let began = core.io.clock.now();
    let dirty_since = core.dirty_since.take();
    let first_sequence = core.journal.begin_checkpoint();
    let dirty = logs.at(&std::mem::take(&mut *core.dirty.borrow_mut()));
    let mut captured = Vec::with_capacity(dirty.len());
    let mut pace = Pace::new(&core.io);
    for log in &dirty {
        log.state_mut().taken_off_dirty();
        captured.push(capture(core, log));
        pace.step().await;
    }
    let written = write_all(core, &dirty, What::Everything).await;
    let outcome = match written {
        Ok(()) => finish_round(logs, &dirty, captured, first_sequence).await,
        Err(error) => Err(error),
    };
    if outcome.is_err() {
        core.dirty_since.set(dirty_since);
        dirty.iter().for_each(|log| log.change(Placing::list));
        return outcome;
    }
    core.io.metrics.count(Counter::Checkpoints);
    core.io.metrics.took(Timer::Checkpoint, core.io.clock.now().since(began));
    core.space.unstick();
    core.rounds_done.set(core.rounds_done.get() + 1);
    core.rounds_changed.notify_all();
    core.evict();
    Ok(())
}

/// A log as it was when a round began.
struct Captured {
    image: LogImage,
    generation: u32,
}

/// The log's image as it is now; no append may come between this and the state's own end.
fn capture(core: &Core, log: &Rc<Log>) -> Option<Captured> {
    log.state().alive().ok()?;
    let source = core.state_source.borrow().clone().expect("the state source is set before the first append");
    let state = source(log.key())?;
    let end = log.log_end_offset();
    assert_eq!(state.log_end_offset, end, "the rules and the log of {} agree on its end", log.key());
    let mut bytes = Vec::new();
    state.encode(&mut bytes);
    Some(Captured { image: log.image(bytes), generation: log.state().generation() })
}

async fn finish_round(
    logs: &Rc<Logs>,
    dirty: &[Rc<Log>],
    captured: Vec<Option<Captured>>,
    first_sequence: u64,
) -> Result<(), RoundError> {
    let core = &logs.core;
    let first_sequence = rescuing::rescue_failed(logs, first_sequence).await?;
    // No await in this loop: whoever fails after it has in its segments what its image says.
    for (log, captured) in dirty.iter().zip(captured) {
        // A partition that was deleted meanwhile, or whose files fail, keeps what the last checkpoint said.
        let Some(captured) = captured.filter(|_| log.state().alive().is_ok()) else { continue };
        let Captured { mut image, generation } = captured;
        image.has_directory = log.state().has_directory();
        // What was done since to a log that was cut was done to other segments.
        if log.state().generation() == generation {
            complete(&mut image, log);
        }
        let mut encoded = Vec::new();
        image.encode(&mut encoded);
        log.state_mut().keep_encoded(encoded);
    }
    core.gate.sync(&core.io).await.map_err(RoundError::Disk)?;
    next_checkpoint(logs, first_sequence).await?;
    core.covered.set(first_sequence);
    rescuing::checkpointed(core, first_sequence);
    core.journal.ring.free_below(first_sequence);
    core.memory.freed.notify_all();
    Ok(())
}

/// What has been done to the segments since the capture, and is about to be synced.
fn complete(image: &mut LogImage, log: &Log) {
    let state = log.state();
    for segment in &mut image.segments {
        let now = state.segments().iter().find(|other| other.base == segment.base);
        if now.is_some_and(|now| now.finished && now.size == segment.size) {
            segment.sealed = true;
            segment.finished = true;
            segment.index_crc = now.and_then(|now| now.index_crc);
            segment.offsets.clear();
            segment.times.clear();
        }
    }
}

/// Writes the next one of the two checkpoint files, durably.
async fn next_checkpoint(logs: &Logs, first_sequence: u64) -> Result<(), RoundError> {
    let core = &logs.core;
    let images: Vec<Rc<[u8]>> = logs.all().iter().filter_map(|log| log.state().encoded().clone()).collect();
    let generation = core.generation.get() + 1;
    let head = CheckpointHead { incarnation: &core.incarnation, core: core.number, generation, first_sequence };
    let path = core.directory.join(checkpoint_name(&core.incarnation, core.number, generation));
    let write = || core.files.patiently(async || write_checkpoint(&core.io, &path, &head, &images).await);
    let mut written = write().await;
    if written.as_ref().is_err_and(is_full) {
        core.give_up_ballast().await;
        written = write().await;
    }
    if written.as_ref().is_err_and(is_full) {
        return Err(RoundError::Full);
    }
    written.map_err(RoundError::Disk)?;
    // The first two checkpoints of a life make their files' names.
    if generation <= 2 {
        let synced = core.files.patiently(async || core.io.disk.sync_dir(&core.directory).await);
        synced.await.map_err(RoundError::Disk)?;
    }
    core.generation.set(generation);
    Ok(())
}

/// How much of a log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Chunks that nothing more will be added to.
    WholeChunks,
    /// The tail as well.
    Everything,
}

/// Writes several logs at a time. A log whose files fail goes offline by itself; only a full disk concerns all.
pub async fn write_all(core: &Rc<Core>, logs: &[Rc<Log>], what: What) -> Result<(), RoundError> {
    let mut full = false;
    let mut left = logs;
    while !left.is_empty() {
        let pressed = core.memory.is_pressed() || core.journal.is_pressed() || what == What::Everything;
        let (now, later) = left.split_at(left.len().min(if pressed { WRITES_PRESSED } else { WRITES_CALM }));
        left = later;
        for (log, written) in now.iter().zip(join_all(now.iter().map(|log| write_log(core, log, what))).await) {
            match written {
                Ok(()) => {}
                Err(LogError::Full) => full = true,
                Err(LogError::Deleted | LogError::Stopping | LogError::OffsetOutOfRange) => {}
                Err(_) if log.state().dead().is_some() => {}
                Err(error @ (LogError::Io { .. } | LogError::Corrupt { .. })) => {
                    offline::fail(log, error);
                }
            }
        }
    }
    if full { Err(RoundError::Full) } else { Ok(()) }
}

/// A piece of a chunk on its way into its segment.
pub struct Piece {
    pub segment: SegmentId,
    chunk_start: u32,
    pub buffer: SharedBuffer,
    from: usize,
    /// Published when the write began; later bytes of the last block may be written too, and are again later.
    upto: usize,
}

impl Piece {
    fn of(chunk: &Chunk) -> Self {
        Self {
            segment: chunk.segment,
            chunk_start: chunk.start,
            buffer: chunk.tail.buffer().clone(),
            from: chunk.written / BLOCK_BYTES * BLOCK_BYTES,
            upto: chunk.tail.published(),
        }
    }

    /// Where it goes in the segment's file.
    pub fn position(&self) -> u64 {
        u64::from(self.chunk_start) + self.from as u64
    }

    /// Where it lies in the buffer: whole blocks.
    pub fn range(&self) -> Range<usize> {
        self.from..self.upto.next_multiple_of(BLOCK_BYTES)
    }
}

async fn write_log(core: &Rc<Core>, log: &Rc<Log>, what: What) -> Result<(), LogError> {
    let _busy = log.busy();
    let written = write_pieces(core, log, what).await;
    // What fails on a partition that was deleted meanwhile is of no concern.
    log.state().alive().and(written)
}

/// Writes what is there when it begins: a partition that is appended to all the time would otherwise keep a round for ever.
async fn write_pieces(core: &Rc<Core>, log: &Rc<Log>, what: What) -> Result<(), LogError> {
    let upto = {
        let state = log.state();
        (state.active().id(), state.active().size)
    };
    while let Some(piece) = next_piece(log, what, upto)? {
        match write_piece(core, log, &piece).await {
            Ok(()) => wrote(core, log, &piece),
            // The segment was deleted meanwhile, and its chunks with it.
            Err(_) if !has_segment(log, piece.segment) => {}
            Err(error) => return Err(error),
        }
    }
    finish_segments(core, log).await
}

fn has_segment(log: &Log, segment: SegmentId) -> bool {
    log.state().segment(segment).is_some()
}

async fn write_piece(core: &Rc<Core>, log: &Rc<Log>, piece: &Piece) -> Result<(), LogError> {
    let file = open_for_write(core, log, piece.segment).await?;
    let (position, range) = (piece.position(), piece.range());
    grow(core, log, &file, piece.segment, position + range.len() as u64).await?;
    let whole = range == (0..piece.buffer.len());
    let written = core.files.patiently(async || {
        if whole {
            file.write(piece.buffer.clone(), position).await
        } else {
            file.write_range(piece.buffer.clone(), range.clone(), position).await
        }
    });
    written.await.map_err(|error| log.file_error(piece.segment.base, &error))
}

/// The first piece that is dirty below `upto`, a segment and a position in it.
fn next_piece(log: &Log, what: What, upto: (SegmentId, u32)) -> Result<Option<Piece>, LogError> {
    let state = log.state();
    state.alive()?;
    let active = state.active().id();
    let piece = state.chunks().0.iter().find(|chunk| {
        let whole = chunk.is_full() || chunk.segment != active;
        let dirty = !chunk.is_clean() && (chunk.segment, chunk.start + chunk.written as u32) < upto;
        dirty && (whole || what == What::Everything)
    });
    Ok(piece.map(Piece::of))
}

/// All that the log's segments lack, in the order of the file.
pub fn dirty_pieces(log: &Log) -> Vec<Piece> {
    log.state().chunks().0.iter().filter(|chunk| !chunk.is_clean()).map(Piece::of).collect()
}

/// Notes that a piece lies in its segment.
pub fn wrote(core: &Core, log: &Rc<Log>, piece: &Piece) {
    log.change(|state| state.wrote(piece.segment, piece.chunk_start, piece.upto));
    core.evict();
}

/// Opens the segment's file, making the partition's directory if this is its first.
async fn open_for_write(core: &Rc<Core>, log: &Rc<Log>, segment: SegmentId) -> Result<File, LogError> {
    let path = log.file(&file_name(segment.base, "log"));
    let opened = core.files.patiently(async || {
        log.ensure_directory().await?;
        core.files.open(log.key(), segment, &path, true).await
    });
    let file = opened.await.map_err(|error| log.file_error(segment.base, &error))?;
    let known = log.state().segment(segment).is_some_and(|it| it.allocated > 0);
    if !known {
        let len = file.len().await.map_err(|error| log.file_error(segment.base, &error))?;
        log.allocated(segment, len);
    }
    Ok(file)
}

/// Makes the file long enough. A full disk gives up the ballast once.
async fn grow(core: &Core, log: &Log, file: &File, segment: SegmentId, needed: u64) -> Result<(), LogError> {
    let (from, mut to) = {
        let state = log.state();
        let there = state.segment(segment).ok_or(LogError::Deleted)?;
        let Some(to) = there.growth(needed) else { return Ok(()) };
        (there.allocated, to)
    };
    let mut grown = file.allocate(from, to - from).await;
    if grown.as_ref().is_err_and(is_full) {
        core.give_up_ballast().await;
        // No step ahead: others need of the little that there is now as well. ext4 keeps what it had found before it
        // failed, so that is given back first.
        to = needed;
        grown = match file.truncate(from).await {
            Ok(()) => file.allocate(from, to - from).await,
            failed => failed,
        };
    }
    grown.map_err(|error| log.file_error(segment.base, &error))?;
    log.allocated(segment, to);
    Ok(())
}

/// Cuts sealed segments to their size and writes their indexes.
async fn finish_segments(core: &Rc<Core>, log: &Rc<Log>) -> Result<(), LogError> {
    loop {
        let next = {
            let state = log.state();
            state.alive()?;
            let segment = state
                .segments()
                .iter()
                .find(|segment| segment.sealed && !segment.finished && segment.written == segment.size);
            segment.map(|segment| (segment.id(), segment.size, segment.index.clone()))
        };
        let Some((segment, size, index)) = next else { return Ok(()) };
        match finish_segment(core, log, segment, size, index).await {
            Ok(()) => {}
            Err(_) if !has_segment(log, segment) => {}
            Err(error) => return Err(error),
        }
    }
}

async fn finish_segment(
    core: &Rc<Core>,
    log: &Rc<Log>,
    segment: SegmentId,
    size: u32,
    index: Option<SegmentIndex>,
) -> Result<(), LogError> {
    let file = open_for_write(core, log, segment).await?;
    file.truncate(u64::from(size)).await.map_err(|error| log.file_error(segment.base, &error))?;
    let sum = index.as_ref().map(|index| SegmentIndex::sum(&index.offset_file(), &index.time_file()));
    if let Some(index) = index {
        let left = core.files.patiently(async || {
            let files = partition_directory::index_files(log, segment.base, &index).into();
            core.io.disk.leave_files(files).await.map_err(|(_, error)| error)
        });
        left.await.map_err(|error| log.file_error(segment.base, &error))?;
    }
    log.state_mut().finished(segment, sum);
    log.allocated(segment, u64::from(size));
    Ok(())
}
