//! The log of one partition, on its core.

mod room;

use std::{
    cell::{Cell, Ref, RefCell, RefMut},
    collections::VecDeque,
    future::poll_fn,
    path::PathBuf,
    rc::Rc,
    task::{Poll, Waker},
};

pub use room::Reservation;

use crate::{
    base::{Offset, PartitionKey, copied},
    io::channel::{Notify, Semaphore},
    log::{
        chunk::{Chunk, Chunks},
        core::Core,
        image::{LogImage, SegmentImage},
        journal::entry::{AppendHead, Entry},
        memory::Memory,
        segment::{Segment, directory_name},
        settings::{BLOCK_BYTES, LogConfig, LogError},
    },
    metrics::Counter,
    protocol::batch::BatchInfo,
};

/// Base offset, length and leader epoch: the part of a batch that is stamped.
const STAMP_BYTES: usize = 16;

/// One partition's log. Lives on the partition's core; cheap to clone as an `Rc`.
pub struct Log {
    key: PartitionKey,
    name: String,
    pub(super) core: Rc<Core>,
    state: RefCell<State>,
    high_watermark: Cell<Option<Offset>>,
    /// Those who wait for the tail to be loaded, and their turn.
    loading: Cell<bool>,
    /// How many work on the partition's files at the moment.
    busy: Cell<usize>,
    changed: Notify,
    line: RefCell<VecDeque<u64>>,
    next_ticket: Cell<u64>,
    /// Whoever makes the directory.
    pub(super) making_directory: Semaphore,
}

pub struct State {
    pub config: LogConfig,
    pub log_start: Offset,
    /// A log start that the journal has heard of, but perhaps not durably.
    pub announced_start: Offset,
    pub end: Offset,
    pub durable: Offset,
    /// Ascending; there is always an active one, the last.
    pub segments: VecDeque<Segment>,
    pub chunks: Chunks,
    /// Reservations that have not become appends: bytes and number.
    pub reserved_bytes: usize,
    pub reservations: usize,
    waiters: Vec<(Offset, Waker)>,
    pub dead: Option<LogError>,
    pub has_directory: bool,
    /// In the core's list of logs that a checkpoint must cover.
    pub listed_dirty: bool,
    pub listed_full: bool,
    pub listed_flushed: bool,
    pub listed_tail: bool,
    /// The image that the last checkpoint holds.
    pub encoded: Option<Rc<[u8]>>,
    /// Kafka's side files do not tell the truth any more.
    pub exports_stale: bool,
    /// Leftovers of an earlier life in the directory have been looked for.
    pub swept: bool,
}

impl State {
    pub fn active(&self) -> &Segment {
        self.segments.back().expect("there is always an active segment")
    }

    pub fn active_mut(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("there is always an active segment")
    }

    pub fn alive(&self) -> Result<(), LogError> {
        self.dead.clone().map_or(Ok(()), Err)
    }

    fn tail_is_loaded(&self) -> bool {
        let active = self.active();
        self.chunks.reaches(active.base, active.size)
    }

    /// What was promised to segments and is not allocated yet.
    #[cfg(test)]
    pub fn outstanding(&self) -> u64 {
        self.segments.iter().map(Segment::outstanding).sum()
    }

    pub fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(segment.size)).sum()
    }

    /// Index of the segment that holds `offset`, or the first one.
    pub fn segment_of(&self, offset: Offset) -> usize {
        self.segments.partition_point(|segment| segment.base <= offset).saturating_sub(1)
    }

    pub fn segment_mut(&mut self, base: Offset) -> Option<&mut Segment> {
        self.segments.iter_mut().find(|segment| segment.base == base)
    }

    /// Everything below `end` counts. Wakes those who waited for it.
    fn move_durable(&mut self, end: Offset) {
        self.durable = self.durable.max(end);
        let durable = self.durable;
        let (ready, waiting) = self.waiters.drain(..).partition(|(offset, _)| *offset <= durable);
        self.waiters = waiting;
        let ready: Vec<(Offset, Waker)> = ready;
        ready.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

impl Log {
    pub(super) fn new(core: &Rc<Core>, key: PartitionKey, name: &str, config: LogConfig) -> Rc<Self> {
        let active = Segment::new(Offset::ZERO, &config);
        Self::with(core, key, name, config, (Offset::ZERO, Offset::ZERO), false, VecDeque::from([active]))
    }

    /// The log as a checkpoint has it: everything lies in the segments.
    pub(super) fn restored(core: &Rc<Core>, image: &LogImage, config: LogConfig) -> Rc<Self> {
        let mut segments: VecDeque<Segment> =
            image.segments.iter().map(|segment| segment.clone().into_segment(&config)).collect();
        // An active segment without a batch is in no image.
        if segments.back().is_none_or(|last| last.sealed) {
            segments.push_back(Segment::new(image.log_end, &config));
        }
        let ends = (image.log_start, image.log_end);
        Self::with(core, image.key, &image.name, config, ends, image.has_directory, segments)
    }

    fn with(
        core: &Rc<Core>,
        key: PartitionKey,
        name: &str,
        config: LogConfig,
        (log_start, end): (Offset, Offset),
        has_directory: bool,
        segments: VecDeque<Segment>,
    ) -> Rc<Self> {
        let state = State {
            config,
            log_start,
            announced_start: log_start,
            end,
            durable: end,
            segments,
            chunks: Chunks::default(),
            reserved_bytes: 0,
            reservations: 0,
            waiters: Vec::new(),
            dead: None,
            has_directory,
            listed_dirty: false,
            listed_full: false,
            listed_flushed: false,
            listed_tail: false,
            encoded: None,
            exports_stale: false,
            swept: false,
        };
        Rc::new(Self {
            key,
            name: name.to_owned(),
            core: core.clone(),
            state: RefCell::new(state),
            high_watermark: Cell::new(None),
            loading: Cell::new(false),
            busy: Cell::new(0),
            changed: Notify::new(),
            line: RefCell::default(),
            next_ticket: Cell::new(0),
            making_directory: Semaphore::new(1),
        })
    }

    pub(super) fn state(&self) -> Ref<'_, State> {
        self.state.borrow()
    }

    pub(super) fn state_mut(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    /// The partition.
    #[must_use]
    pub fn key(&self) -> PartitionKey {
        self.key
    }

    /// The topic's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first offset that is still there.
    #[must_use]
    pub fn log_start_offset(&self) -> Offset {
        self.state().log_start
    }

    /// The offset that the next record gets.
    #[must_use]
    pub fn log_end_offset(&self) -> Offset {
        self.state().end
    }

    /// Everything below is as durable as the partition's `durability` asks for.
    #[must_use]
    pub fn durable_end(&self) -> Offset {
        self.state().durable
    }

    /// Bytes of record batches.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.state().size_bytes()
    }

    /// New settings; they act from the next append and the next housekeeping on.
    pub fn set_config(&self, config: LogConfig) {
        self.state_mut().config = config;
    }

    /// What retention may not pass. Without it everything durable counts as committed, as with a single replica.
    pub fn set_high_watermark(&self, offset: Offset) {
        self.high_watermark.set(Some(offset));
    }

    pub(super) fn high_watermark(&self) -> Offset {
        let durable = self.durable_end();
        self.high_watermark.get().map_or(durable, |offset| offset.min(durable))
    }

    pub(super) fn directory(&self) -> PathBuf {
        self.core.directory.join(directory_name(&self.name, self.key.partition))
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// Makes sure that the block in which the active segment ends is in memory, so that the next batch can be put behind.
    pub(super) async fn load_tail(self: &Rc<Self>) -> Result<(), LogError> {
        loop {
            let (base, size) = {
                let state = self.state();
                state.alive()?;
                if state.tail_is_loaded() {
                    return Ok(());
                }
                (state.active().base, state.active().size)
            };
            if self.loading.replace(true) {
                self.changed.notified().await;
                continue;
            }
            let _loading = Loading(self);
            let loaded = self.load_block(base, size).await;
            // The segment may have been deleted meanwhile; then there is another one, and nothing to load.
            if self.state().active().base == base {
                loaded?;
            }
        }
    }

    async fn load_block(&self, base: Offset, size: u32) -> Result<(), LogError> {
        let start = size / BLOCK_BYTES as u32 * BLOCK_BYTES as u32;
        let filled = (size - start) as usize;
        let bytes = self.read_file(base, u64::from(start), filled).await?;
        let expected = self.state().segments.iter().find(|it| it.base == base).and_then(|it| it.tail_crc);
        if expected.is_some_and(|expected| expected != crc32c::crc32c(&bytes)) {
            return Err(LogError::Corrupt { segment: base, position: u64::from(start) });
        }
        let mut buffer = self.core.io.disk.allocate(BLOCK_BYTES);
        buffer.as_mut()[..filled].copy_from_slice(&bytes);
        copied(filled);
        let mut state = self.state_mut();
        let unchanged = state.active().base == base && state.active().size == size && state.dead.is_none();
        if unchanged && !state.tail_is_loaded() {
            let end = state.end;
            self.core.memory.chunk_made(BLOCK_BYTES);
            state.chunks.0.push_back(Chunk::new(base, start, buffer, filled, end));
        }
        Ok(())
    }

    /// Appends a batch: stamps it with its offset and epoch, and copies it into the tail chunk and into the journal's
    /// current block. `info` carries the final offsets. Never waits; it counts when [`flushed`](Self::flushed) says so.
    pub fn append(self: &Rc<Self>, mut reservation: Reservation, batch: &[u8], info: &BatchInfo) {
        let reserved = reservation.log.take();
        assert!(reserved.is_some_and(|log| Rc::ptr_eq(&log, self)), "a reservation is for one log");
        assert!(
            batch.len() <= reservation.bytes() && batch.len() == info.bytes as usize,
            "a reservation fits its batch"
        );
        let mut state = self.state_mut();
        assert!(info.base_offset >= state.end, "offsets only grow");
        let end = info.last_offset.plus(1);
        let config = state.config.clone();
        if state.active().must_roll(info.bytes, info.last_offset, info.max_timestamp, &config) {
            self.roll(&mut state, info.base_offset);
        }
        let head = self.place(&mut state, batch, info);
        let stamp = stamp(batch, info);
        self.core.journal.append(self, &head, [&stamp, &batch[STAMP_BYTES..]], end, config.durability);
        self.released(&mut state, reservation.bytes());
        self.core.memory.appended(reservation.bytes(), batch.len());
        self.list(&mut state);
    }

    /// Puts the batch into segment and chunks; the first of the two copies.
    fn place(&self, state: &mut State, batch: &[u8], info: &BatchInfo) -> AppendHead {
        let position = state.active_mut().append(info.bytes, info.last_offset, info.max_timestamp);
        let segment_base = state.active().base;
        let stamp = stamp(batch, info);
        let pieces: [&[u8]; 2] = [&stamp, &batch[STAMP_BYTES..]];
        let core = &self.core;
        state.chunks.append((segment_base, position), info.base_offset, pieces, |capacity| {
            core.memory.chunk_made(capacity);
            core.io.disk.allocate(capacity)
        });
        copied(batch.len());
        state.end = info.last_offset.plus(1);
        AppendHead {
            key: self.key,
            base_offset: info.base_offset,
            leader_epoch: info.leader_epoch,
            segment_base,
            position,
            length: info.bytes,
        }
    }

    /// Replays an append at exactly the place where it was; for recovery, which has no journal to write to.
    pub(super) fn replay(self: &Rc<Self>, head: &AppendHead, batch: &[u8], info: &BatchInfo) -> Result<(), LogError> {
        let mut state = self.state_mut();
        if head.segment_base != state.active().base {
            self.seal_active(&mut state, head.segment_base);
        }
        let misplaced = LogError::Corrupt { segment: head.segment_base, position: u64::from(head.position) };
        if state.active().size != head.position || info.base_offset < state.end {
            return Err(misplaced);
        }
        self.place(&mut state, batch, info);
        self.core.memory.appended(0, batch.len());
        state.durable = state.end;
        self.list(&mut state);
        Ok(())
    }

    /// Replays an append whose segment has been deleted since.
    pub(super) fn replay_gone(&self, head: &AppendHead, end: Offset) -> Result<(), LogError> {
        let mut state = self.state_mut();
        // What comes before a deleted segment is deleted as well.
        if state.active().size > 0 {
            return Err(LogError::Corrupt { segment: head.segment_base, position: u64::from(head.position) });
        }
        let config = state.config.clone();
        *state.active_mut() = Segment::new(end, &config);
        state.end = end;
        state.durable = end;
        Ok(())
    }

    /// Keeps the tail in memory, as a reservation does; for recovery.
    pub(super) fn pin(&self) {
        self.state_mut().reservations += 1;
    }

    pub(super) fn unpin(&self) {
        self.state_mut().reservations -= 1;
    }

    fn roll(self: &Rc<Self>, state: &mut State, next_base: Offset) {
        let active = state.active();
        let entry = Entry::Seal { key: self.key, segment_base: active.base, length: active.size, next_base };
        self.core.journal.announce_in_order(self, &entry);
        self.seal_active(state, next_base);
    }

    pub(super) fn seal_active(self: &Rc<Self>, state: &mut State, next_base: Offset) {
        if state.active().size == 0 {
            // An empty segment has no file and no name yet.
            let (config, promised) = (state.config.clone(), state.active().promised);
            *state.active_mut() = Segment { promised, ..Segment::new(next_base, &config) };
            return;
        }
        let active = state.active_mut();
        active.sealed = true;
        let largest = (active.largest.0, active.largest.1.since(active.base) as u32);
        if let Some(index) = &mut active.index {
            index.finish(largest);
        }
        // What was promised beyond the segment's end is not needed there, but in the next one by those who have reserved.
        let before = active.outstanding();
        active.promised = active.promised.min(in_blocks(u64::from(active.size)));
        self.core.space.give_back(before - active.outstanding());
        let promised = in_blocks(state.reserved_bytes as u64);
        self.core.space.promise_anyway(promised);
        let segment = Segment { promised, ..Segment::new(next_base, &state.config) };
        state.segments.push_back(segment);
        self.list(state);
        self.list_full(state);
    }

    /// Puts the log on the core's lists of what destaging has to look at.
    pub(super) fn list(self: &Rc<Self>, state: &mut State) {
        state.exports_stale = true;
        if !std::mem::replace(&mut state.listed_dirty, true) {
            self.core.list_dirty(self);
        }
        let full = state.chunks.0.iter().rev().take(2).any(|chunk| chunk.is_full() && !chunk.is_clean());
        if full {
            self.list_full(state);
        }
    }

    fn list_full(self: &Rc<Self>, state: &mut State) {
        if !std::mem::replace(&mut state.listed_full, true) {
            self.core.list_full(self);
        }
    }

    /// A block of the journal has become durable.
    pub(super) fn journaled(self: &Rc<Self>, end: Offset) {
        let mut state = self.state_mut();
        let before = state.durable;
        state.move_durable(end);
        self.core.io.metrics.add(Counter::FlushedRecords, (state.durable.0 - before.0).unsigned_abs());
        if !std::mem::replace(&mut state.listed_flushed, true) {
            self.core.list_flushed(self);
        }
    }

    /// Resolves when everything below `end` is as durable as the partition's `durability` asks for.
    /// # Errors
    /// `Deleted`, `Io` if the partition went offline. If the journal fails it never resolves: the process ends.
    pub async fn flushed(&self, end: Offset) -> Result<(), LogError> {
        poll_fn(|context| {
            let mut state = self.state_mut();
            if state.durable >= end {
                return Poll::Ready(Ok(()));
            }
            // What an offline partition has in the journal's flight counts when it is there: it goes into the rescue file.
            let on_its_way = end <= state.end && !matches!(state.dead, Some(LogError::Deleted | LogError::Stopping));
            if let (Err(error), false) = (state.alive(), on_its_way) {
                return Poll::Ready(Err(error));
            }
            let waker = context.waker();
            if !state.waiters.iter().any(|(offset, other)| *offset == end && other.will_wake(waker)) {
                state.waiters.push((end, waker.clone()));
            }
            Poll::Pending
        })
        .await
    }

    /// Ends the log's life: whoever waits for it hears why.
    pub(super) fn kill(&self, why: LogError) {
        let mut state = self.state_mut();
        state.dead = Some(why);
        self.give_back_promises(state.segments.iter_mut());
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        waiters.into_iter().for_each(|(_, waker)| waker.wake());
        self.changed.notify_all();
        self.core.memory.freed.notify_all();
    }

    /// Drops what is in memory of a log that has ended.
    pub(super) fn forget_memory(&self) {
        let (mut capacity, mut dirty) = (0, 0);
        let mut state = self.state_mut();
        for chunk in state.chunks.0.drain(..) {
            capacity += chunk.capacity();
            dirty += chunk.tail.published() - chunk.written;
        }
        drop(state);
        self.core.memory.chunk_dropped(capacity);
        self.core.memory.cleaned(dirty);
    }

    /// Why nothing of the partition is served until the next start, if its files have failed.
    #[must_use]
    pub fn offline(&self) -> Option<LogError> {
        self.state().dead.clone().filter(|why| matches!(why, LogError::Io { .. } | LogError::Corrupt { .. }))
    }

    /// Whether the partition's files have failed.
    #[must_use]
    pub fn is_offline(&self) -> bool {
        matches!(self.state().dead, Some(LogError::Io { .. } | LogError::Corrupt { .. }))
    }

    /// Says that somebody works on the partition's files by their names, until the guard is dropped. A deletion waits
    /// for it: afterwards the names may be a newer topic's.
    pub(super) fn busy(self: &Rc<Self>) -> Busy {
        self.busy.set(self.busy.get() + 1);
        Busy { log: self.clone() }
    }

    /// Waits until nobody works on the partition's files.
    pub(super) async fn at_rest(&self) {
        while self.busy.get() > 0 {
            self.changed.notified().await;
        }
    }

    /// Drops the oldest chunk if it is in its segment and nobody is about to write behind it. Whether the log stays listed:
    /// what is dirty now is listed when it has been written, and must be, so it is not listed any more.
    pub(super) fn evict_front(&self, memory: &Memory) -> bool {
        let mut state = self.state_mut();
        let last = state.chunks.0.len() == 1;
        let Some(front) = state.chunks.0.front() else { return false };
        let (clean, capacity) = (front.is_clean(), front.capacity());
        if clean && last && !front.is_full() && state.reservations > 0 {
            return true;
        }
        if last {
            state.listed_tail = false;
        }
        if clean && last {
            // It will be read, and written again with more behind it.
            let crc = state.chunks.tail_crc(state.active().base, state.active().size);
            state.active_mut().tail_crc = crc;
        }
        if clean {
            state.chunks.0.pop_front();
            memory.chunk_dropped(capacity);
        }
        false
    }

    /// A tail that is in its segment may be evicted, once it is listed; nothing else lists one that was only read.
    pub(super) fn list_clean_tail(self: &Rc<Self>) {
        let mut state = self.state_mut();
        let clean = state.chunks.0.back().is_some_and(|tail| tail.is_clean() && !tail.is_full());
        let list = clean && !std::mem::replace(&mut state.listed_tail, true);
        drop(state);
        if list {
            self.core.memory.evictable(self);
        }
    }

    /// The log as it is in memory now. `state` is what the partition's rules know.
    pub(super) fn image(&self, partition_state: Vec<u8>) -> LogImage {
        let state = self.state();
        let active = state.active().base;
        let image = |segment: &Segment| {
            let mut image = SegmentImage::of(segment);
            if segment.base == active {
                image.tail_crc = state.chunks.tail_crc(active, segment.size).or(image.tail_crc);
            }
            image
        };
        LogImage {
            key: self.key,
            name: self.name.clone(),
            log_start: state.announced_start,
            log_end: state.end,
            has_directory: state.has_directory,
            segments: state.segments.iter().filter(|segment| segment.size > 0).map(image).collect(),
            state: partition_state,
            rescue: None,
        }
    }
}

fn in_blocks(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES as u64)
}

/// The front of the batch with its final offset and epoch. Both lie outside of the batch's CRC.
fn stamp(batch: &[u8], info: &BatchInfo) -> [u8; STAMP_BYTES] {
    let mut stamp = [0; STAMP_BYTES];
    stamp[0..8].copy_from_slice(&info.base_offset.0.to_be_bytes());
    stamp[8..12].copy_from_slice(&batch[8..12]);
    stamp[12..16].copy_from_slice(&info.leader_epoch.0.to_be_bytes());
    stamp
}

/// The tail is being loaded. Given up when dropped, so that a cancelled append does not keep the next ones from it.
struct Loading<'a>(&'a Log);

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        self.0.loading.set(false);
        self.0.changed.notify_all();
    }
}

/// See [`Log::busy`].
pub(super) struct Busy {
    log: Rc<Log>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.log.busy.set(self.log.busy.get() - 1);
        self.log.changed.notify_all();
    }
}
