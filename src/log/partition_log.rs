//! The log of one partition, on its core.

use std::{
    cell::{Cell, Ref, RefCell, RefMut},
    collections::VecDeque,
    future::poll_fn,
    io,
    path::PathBuf,
    rc::Rc,
};

use crate::{
    base::{Offset, PartitionKey},
    io::{
        channel::{Notify, Semaphore},
        is_full,
    },
    log::{
        core::Core,
        image::LogImage,
        placing::{CoreChanges, Placing},
        segment::{SegmentId, directory_name, file_name},
        settings::{BLOCK_BYTES, LogConfig, LogError},
        slots::Slot,
    },
};

/// One partition's log. Lives on the partition's core; cheap to clone as an `Rc`.
pub struct Log {
    key: PartitionKey,
    name: String,
    pub(super) core: Rc<Core>,
    slot: Slot,
    state: Rc<RefCell<Placing>>,
    high_watermark: Cell<Option<Offset>>,
    /// Those who wait for the tail to be loaded, and their turn.
    loading: Cell<bool>,
    /// How many work on the partition's files at the moment.
    busy: Cell<usize>,
    pub(super) changed: Notify,
    pub(super) line: RefCell<VecDeque<u64>>,
    pub(super) next_ticket: Cell<u64>,
    /// Whoever makes the directory.
    pub(super) making_directory: Semaphore,
}

impl Log {
    pub(super) fn new(core: &Rc<Core>, key: PartitionKey, name: &str, config: LogConfig) -> Rc<Self> {
        let ends = (Offset::ZERO, Offset::ZERO);
        Self::with(core, name, Placing::new(key, config, ends, false, VecDeque::new()))
    }

    /// The log as a checkpoint has it: everything lies in the segments.
    pub(super) fn restored(core: &Rc<Core>, image: &LogImage, config: LogConfig) -> Rc<Self> {
        let segments = image.segments.iter().map(|segment| segment.clone().into_segment(&config)).collect();
        let ends = (image.log_start, image.log_end);
        Self::with(core, &image.name, Placing::new(image.key, config, ends, image.has_directory, segments))
    }

    fn with(core: &Rc<Core>, name: &str, placing: Placing) -> Rc<Self> {
        let key = placing.key();
        let (slot, state) = core.add(placing);
        Rc::new(Self {
            key,
            name: name.to_owned(),
            core: core.clone(),
            slot,
            state,
            high_watermark: Cell::new(None),
            loading: Cell::new(false),
            busy: Cell::new(0),
            changed: Notify::new(),
            line: RefCell::default(),
            next_ticket: Cell::new(0),
            making_directory: Semaphore::new(1),
        })
    }

    /// Its place on the core.
    pub(super) fn slot(&self) -> Slot {
        self.slot
    }

    /// Makes a change, and settles with the core what it brings with it.
    pub(super) fn change(&self, change: impl FnOnce(&mut Placing) -> CoreChanges) {
        let changes = change(&mut self.state_mut());
        self.core.settle(self.slot, changes);
    }

    pub(super) fn state(&self) -> Ref<'_, Placing> {
        self.state.borrow()
    }

    pub(super) fn state_mut(&self) -> RefMut<'_, Placing> {
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
        self.state().log_start()
    }

    /// The offset that the next record gets.
    #[must_use]
    pub fn log_end_offset(&self) -> Offset {
        self.state().end()
    }

    /// Everything below is as durable as the partition's `durability` asks for.
    #[must_use]
    pub fn durable_end(&self) -> Offset {
        self.state().durable()
    }

    /// Bytes of record batches.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.state().size_bytes()
    }

    /// New settings; they act from the next append and the next housekeeping on.
    pub fn set_config(&self, config: LogConfig) {
        self.state_mut().set_config(config);
    }

    /// What retention may not pass. Without it everything durable counts as committed, as with a single replica.
    pub fn set_high_watermark(&self, offset: Offset) {
        self.high_watermark.set(Some(offset));
    }

    /// The log was cut: what comes in the place of what was cut off is not committed yet.
    pub(super) fn high_watermark_at_most(&self, end: Offset) {
        self.high_watermark.set(self.high_watermark.get().map(|offset| offset.min(end)));
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
            let (segment, size) = {
                let state = self.state();
                state.alive()?;
                if state.tail_is_loaded() {
                    return Ok(());
                }
                (state.active().id(), state.active().size)
            };
            if self.loading.replace(true) {
                self.changed.notified().await;
                continue;
            }
            let _loading = Loading(self);
            let loaded = self.load_block(segment, size).await;
            // The segment may have been deleted meanwhile; then there is another one, and nothing to load.
            if self.state().active().id() == segment {
                loaded?;
            }
        }
    }

    async fn load_block(&self, segment: SegmentId, size: u32) -> Result<(), LogError> {
        let start = size / BLOCK_BYTES as u32 * BLOCK_BYTES as u32;
        let filled = (size - start) as usize;
        let bytes = self.read_file(segment, u64::from(start), filled).await?;
        let expected = self.state().segment(segment).and_then(|it| it.tail_crc);
        if expected.is_some_and(|expected| expected != crc32c::crc32c(&bytes)) {
            return Err(LogError::Corrupt { segment: segment.base, position: u64::from(start) });
        }
        let disk = &self.core.io.disk;
        self.change(|state| state.load_tail(segment, size, &bytes, |capacity| disk.allocate(capacity)));
        Ok(())
    }

    /// Keeps the tail in memory, as a reservation does; for recovery.
    pub(super) fn pin(&self) {
        self.state_mut().pin();
    }

    pub(super) fn unpin(&self) {
        self.state_mut().unpin();
    }

    /// Resolves when everything below `end` is as durable as the partition's `durability` asks for, also if it was cut off since.
    /// # Errors  `Deleted`, `Io` if the partition went offline. If the journal fails it never resolves: the process
    /// ends.
    pub fn flushed(&self, end: Offset) -> impl Future<Output = Result<(), LogError>> {
        let cuts = {
            let state = self.state();
            (end <= state.end()).then_some(state.cuts())
        };
        poll_fn(move |context| self.state_mut().poll_durable(end, cuts, context.waker()))
    }

    /// Ends the log's life: whoever waits for it hears why.
    pub(super) fn kill(&self, why: LogError) {
        self.change(|state| state.end_life(why));
        self.changed.notify_all();
        self.core.memory.freed.notify_all();
    }

    /// Drops what is in memory of a log that has ended.
    pub(super) fn forget_memory(&self) {
        self.change(Placing::drop_chunks);
    }

    /// What became of a segment's file.
    pub(super) fn file_error(&self, base: Offset, error: &io::Error) -> LogError {
        if is_full(error) {
            return LogError::Full;
        }
        LogError::at(&self.file(&file_name(base, "log")), error)
    }

    /// The file of a segment is `length` bytes long now, so that much of what was promised to it has been kept.
    pub(super) fn allocated(&self, segment: SegmentId, length: u64) {
        let (kept, changes) = self.state_mut().allocated(segment, length);
        self.core.space.kept(kept);
        self.core.settle(self.slot, changes);
    }

    /// Why nothing of the partition is served until the next start, if its files have failed.
    #[must_use]
    pub fn offline(&self) -> Option<LogError> {
        self.state().dead().cloned().filter(|why| matches!(why, LogError::Io { .. } | LogError::Corrupt { .. }))
    }

    /// Whether the partition's files have failed.
    #[must_use]
    pub fn is_offline(&self) -> bool {
        matches!(self.state().dead(), Some(LogError::Io { .. } | LogError::Corrupt { .. }))
    }

    /// Says that somebody works on the partition's files by their names, until the guard is dropped. A deletion waits
    /// for it: afterwards the names may be a newer topic's.
    pub(super) fn busy(self: &Rc<Self>) -> Busy {
        self.busy.set(self.busy.get() + 1);
        Busy { log: self.clone() }
    }

    /// Whether somebody works on the partition's files.
    pub(super) fn is_busy(&self) -> bool {
        self.busy.get() > 0
    }

    /// Waits until nobody works on the partition's files.
    pub(super) async fn at_rest(&self) {
        while self.is_busy() {
            self.changed.notified().await;
        }
    }

    /// The log as it is in memory now. `state` is what the partition's rules know.
    pub(super) fn image(&self, state: Vec<u8>) -> LogImage {
        self.state().image(&self.name, state)
    }
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
