//! The journal of one core: every append of every partition goes through it, one write for all of them.
//!
//! Appends are copied into the block that is being filled. While a block is being written the next one fills, so the
//! device's latency sets the size of a group, and there is no timer. Only one block is in flight: the device serialises
//! flushes anyway, and a larger write beats two.

pub mod block;
pub mod entry;
pub mod reread;
mod ring;
mod statement;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    io,
    path::Path,
    rc::Rc,
    task::{Poll, Waker},
};

use self::{
    block::{BlockBuilder, HEADER_BYTES, Incarnation, padded},
    entry::{AppendHead, Entry},
    ring::Ring,
};
use crate::{
    base::{Offset, copied},
    config::Durability,
    io::{Instant, Io, channel::Notify},
    log::{slots::Slot, space::Space},
    metrics::{Counter, Timer},
};

/// The smallest and the largest buffer of a block that more may be added to; the largest fits every file of the ring as
/// well. A larger batch gets one of its own size.
const BLOCK_MIN: usize = 16 << 10;
const BLOCK_MAX: usize = 1 << 20;

pub struct Journal {
    io: Io,
    pub ring: Ring,
    incarnation: Incarnation,
    state: RefCell<State>,
    /// Every block below this one is as durable as its records asked for.
    done_below: Cell<u64>,
    /// As many ordinary blocks are.
    ordinary_done: Cell<u64>,
    done: Notify,
    stopping: Cell<bool>,
    /// Something was written since the last statement that everything is durable.
    unstated: Cell<bool>,
    /// Somebody waits for a quiet moment to state it.
    watched: Cell<bool>,
}

struct State {
    filling: Option<Block>,
    /// Full, waiting for the block in flight. Bounded by the memory that appends reserve.
    sealed: VecDeque<Block>,
    /// Large batches, and what follows them in their partitions. Between two of them an ordinary block is written, so that
    /// small appends of others do not wait for all of them.
    large: VecDeque<Large>,
    large_was_last: bool,
    /// Ordinary blocks begun, and those that the writer has taken.
    ordinary_begun: u64,
    ordinary_taken: u64,
    block_max: usize,
    next_sequence: u64,
    previous_crc: u32,
    /// Blocks from here on are with the device, but perhaps not on stable storage.
    durable_below: u64,
    /// Capacity of the next block: twice what the last one used.
    capacity: usize,
    pending_bytes: usize,
    /// Unless something else is to be written.
    statement_wanted: bool,
    writer: Option<Waker>,
}

/// What the writer does next.
enum Next {
    Block(Block),
    Statement,
}

/// A block that is being filled or waits.
struct Block {
    bytes: BlockBuilder,
    /// Its place among the ordinary ones, if it is one.
    ordinary: Option<u64>,
    durability: Durability,
    /// How far each partition has come with this block.
    marks: Vec<Mark>,
}

/// A block that waits beside the ordinary ones, for one partition. It has its sequence when it is written.
struct Large {
    slot: Slot,
    block: Block,
    /// It comes behind so many ordinary blocks, which may have entries of its partition.
    after: u64,
}

/// Everything of the log below `end` is durable with the block.
pub struct Mark {
    pub slot: Slot,
    pub end: Offset,
}

impl Journal {
    pub fn new(
        io: &Io,
        directory: &Path,
        core: usize,
        incarnation: Incarnation,
        file_bytes: u32,
        max_bytes: u64,
        space: Rc<Space>,
    ) -> Self {
        let state = State {
            filling: None,
            sealed: VecDeque::new(),
            large: VecDeque::new(),
            large_was_last: false,
            ordinary_begun: 0,
            ordinary_taken: 0,
            block_max: BLOCK_MAX.min(file_bytes as usize),
            next_sequence: 0,
            previous_crc: 0,
            durable_below: 0,
            capacity: BLOCK_MIN.min(file_bytes as usize),
            pending_bytes: 0,
            statement_wanted: false,
            writer: None,
        };
        Self {
            io: io.clone(),
            ring: Ring::new(io, directory, core, u64::from(file_bytes), max_bytes, space),
            incarnation,
            state: RefCell::new(state),
            done_below: Cell::new(0),
            ordinary_done: Cell::new(0),
            done: Notify::new(),
            stopping: Cell::new(false),
            unstated: Cell::new(false),
            watched: Cell::new(false),
        }
    }

    /// Adds one batch, given in two pieces. Returns at once; the log hears when it is durable.
    pub fn append(&self, slot: Slot, head: &AppendHead, batch: [&[u8]; 2], end: Offset, durability: Durability) {
        let mut state = self.state.borrow_mut();
        let [front, rest] = batch;
        let block = state.add(&self.io, Some(slot), &[&head.encode(), front, rest], durability);
        block.mark(slot, end);
        copied(front.len() + rest.len());
        state.wake();
    }

    /// Adds an entry without a batch, always to stable storage. Returns the number of its block, for
    /// [`durable`](Self::durable). It may overtake large batches.
    pub fn announce(&self, entry: &Entry) -> u64 {
        let mut state = self.state.borrow_mut();
        state.add(&self.io, None, &[&entry.encoded()], Durability::Flush);
        state.wake();
        state.ordinary_begun - 1
    }

    /// Adds an entry without a batch behind everything of the log's that was added before, and before what comes after.
    pub fn announce_in_order(&self, slot: Slot, entry: &Entry) {
        let mut state = self.state.borrow_mut();
        state.add(&self.io, Some(slot), &[&entry.encoded()], Durability::Flush);
        state.wake();
    }

    /// Waits until the block of this number is durable.
    pub async fn durable(&self, number: u64) {
        while self.ordinary_done.get() <= number {
            self.done.notified().await;
        }
    }

    /// Waits until everything added so far is durable. Nothing may be added meanwhile.
    pub async fn drain(&self) {
        while !self.is_idle() {
            self.done.notified().await;
        }
    }

    fn is_idle(&self) -> bool {
        let state = self.state.borrow();
        let waits = state.filling.is_some() || !state.sealed.is_empty() || !state.large.is_empty();
        !waits && self.done_below.get() == state.next_sequence
    }

    /// Closes the block being filled and puts large batches that wait behind it. Returns the sequence that the next entry
    /// will have at the least; everything added so far has a smaller one.
    pub fn seal(&self) -> u64 {
        let mut state = self.state.borrow_mut();
        state.seal();
        while let Some(Large { mut block, .. }) = state.large.pop_front() {
            block.ordinary = Some(state.ordinary_begun);
            state.ordinary_begun += 1;
            state.sealed.push_back(block);
        }
        state.filling_sequence()
    }

    /// Closes the block being filled. Returns a sequence for a checkpoint of everything added so far: what is added from
    /// now on has it at the least. Large batches that wait may get it or a larger one; replay finds that the checkpoint
    /// has them.
    pub fn begin_checkpoint(&self) -> u64 {
        let mut state = self.state.borrow_mut();
        state.seal();
        state.filling_sequence()
    }

    /// How long the block of a batch of so many bytes may be.
    pub fn block_bytes(batch_bytes: usize) -> u64 {
        padded(HEADER_BYTES + entry::APPEND_HEAD_BYTES + batch_bytes) as u64
    }

    /// Whether there is room for `bytes` more without waiting for a checkpoint.
    pub fn has_room(&self, bytes: usize) -> bool {
        let pending = self.state.borrow().pending_bytes as u64;
        let held = self.ring.used_bytes() + pending;
        held == 0 || held + bytes as u64 <= self.ring.max_bytes() / 4 * 3
    }

    /// Whether a checkpoint should free files before appends have to wait.
    pub fn is_pressed(&self) -> bool {
        self.ring.used_bytes() > self.ring.max_bytes() / 2
    }

    pub fn next_sequence(&self) -> u64 {
        self.state.borrow().filling_sequence()
    }

    /// The writer: writes block after block until [`stop`](Self::stop), or until a write fails.
    /// `done` is told how far the partitions of a durable block are; `wanted` asks for a checkpoint.
    /// # Errors  The failed write. Nothing more is ever written or answered: the process must end.
    pub async fn run(&self, done: impl Fn(Vec<Mark>), wanted: impl Fn()) -> Result<(), JournalFailure> {
        loop {
            match self.next().await {
                None => return Ok(()),
                Some(Next::Block(block)) => {
                    let marks = self.write(block, &wanted).await?;
                    done(marks);
                }
                Some(Next::Statement) => self.state_durable().await?,
            }
        }
    }

    /// Forgets what has not been written.
    pub fn forget(&self) {
        let forgotten = {
            let mut state = self.state.borrow_mut();
            (state.filling.take(), std::mem::take(&mut state.sealed), std::mem::take(&mut state.large))
        };
        drop(forgotten);
    }

    pub fn stop(&self) {
        self.stopping.set(true);
        self.state.borrow_mut().wake();
    }

    async fn next(&self) -> Option<Next> {
        poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            let wanted = std::mem::take(&mut state.statement_wanted);
            match state.next() {
                Some(block) => Poll::Ready(Some(Next::Block(block))),
                None if self.stopping.get() => Poll::Ready(None),
                None if wanted => Poll::Ready(Some(Next::Statement)),
                None => {
                    state.writer = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    async fn write(&self, mut block: Block, wanted: &impl Fn()) -> Result<Vec<Mark>, JournalFailure> {
        let used = block.bytes.length();
        let bytes = padded(used);
        let (sequence, durable_below, unsynced, crc) = self.finish(&mut block.bytes);
        let place = self.ring.place(bytes as u64, sequence, wanted).await.map_err(|error| JournalFailure {
            path: "the journal".into(),
            position: 0,
            error,
        })?;
        let (flush, ordinary) = (block.durability == Durability::Flush, block.ordinary);
        let shared = block.bytes.into_buffer().share();
        let began = self.io.clock.now();
        // After blocks that are only with the device, a flushed one takes them along: its successor would be of no
        // use after a power cut if one of them were missing.
        let written = if flush && !unsynced {
            place.file.durable.write(shared, place.position).await
        } else {
            let written = place.file.plain.write(shared, place.position).await;
            match written {
                Ok(()) if flush => self.sync_since(durable_below, &place).await,
                other => other,
            }
        };
        written.map_err(|error| JournalFailure::at(&place, error))?;
        self.unstated.set(true);
        self.count(bytes, began);
        let mut state = self.state.borrow_mut();
        state.previous_crc = crc;
        if flush {
            state.durable_below = sequence + 1;
        }
        state.pending_bytes -= used;
        state.capacity = (used * 2).next_power_of_two().clamp(BLOCK_MIN.min(state.block_max), state.block_max);
        drop(state);
        self.done_below.set(sequence + 1);
        if let Some(number) = ordinary {
            self.ordinary_done.set(number + 1);
        }
        self.done.notify_all();
        Ok(block.marks)
    }

    fn count(&self, block_bytes: usize, began: Instant) {
        let metrics = &self.io.metrics;
        metrics.count(Counter::JournalBlocks);
        metrics.add(Counter::JournalBytes, block_bytes as u64);
        metrics.took(Timer::JournalWrite, self.io.clock.now().since(began));
    }

    /// Writes the header. Returns sequence, what is durable below, whether blocks before are unsynced, and the sum.
    fn finish(&self, block: &mut BlockBuilder) -> (u64, u64, bool, u32) {
        let mut state = self.state.borrow_mut();
        let sequence = state.next_sequence;
        state.next_sequence += 1;
        let durable_below = state.durable_below;
        let crc = block.seal(self.incarnation, sequence, state.previous_crc, durable_below);
        (sequence, durable_below, durable_below < sequence, crc)
    }

    /// Syncs the file just written and those that hold unsynced blocks before.
    async fn sync_since(&self, durable_below: u64, place: &ring::Place) -> io::Result<()> {
        for file in self.ring.files_since(durable_below) {
            if file.number() != place.file.number() {
                file.plain.sync().await?;
            }
        }
        place.file.plain.sync().await
    }
}

/// Why the journal cannot go on.
#[derive(Debug)]
pub struct JournalFailure {
    pub path: String,
    pub position: u64,
    pub error: io::Error,
}

impl JournalFailure {
    fn at(place: &ring::Place, error: io::Error) -> Self {
        Self { path: place.file.path().display().to_string(), position: place.position, error }
    }
}

impl Block {
    fn mark(&mut self, slot: Slot, end: Offset) {
        match self.marks.last_mut() {
            Some(last) if last.slot == slot => last.end = end,
            _ => self.marks.push(Mark { slot, end }),
        }
    }
}

impl State {
    /// Adds an entry, in order with the others of its log, to the block where it belongs.
    fn add(&mut self, io: &Io, slot: Option<Slot>, pieces: &[&[u8]], durability: Durability) -> &mut Block {
        let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        let block = match slot.filter(|slot| self.goes_beside(*slot, bytes)) {
            Some(slot) => self.block_beside(io, slot, bytes),
            None => self.ordinary_block(io, bytes),
        };
        self.pending_bytes += bytes;
        let block = match block {
            Some(large) => &mut self.large[large].block,
            None => self.filling.as_mut().expect("made just now"),
        };
        block.bytes.add(pieces);
        if durability == Durability::Flush {
            block.durability = Durability::Flush;
        }
        block
    }

    /// Whether an entry waits beside the ordinary blocks: a large one, and what comes behind one in its partition.
    fn goes_beside(&self, slot: Slot, bytes: usize) -> bool {
        HEADER_BYTES + bytes > self.block_max || self.large.iter().any(|large| large.slot == slot)
    }

    /// Makes room for an entry in the block being filled.
    fn ordinary_block(&mut self, io: &Io, bytes: usize) -> Option<usize> {
        if self.filling.as_ref().is_some_and(|block| !block.bytes.fits(bytes)) {
            self.seal();
            self.capacity = (self.capacity * 2).min(self.block_max);
        }
        if self.filling.is_none() {
            self.filling = Some(self.fresh(io, bytes, Some(self.ordinary_begun)));
            self.ordinary_begun += 1;
        }
        None
    }

    /// Makes room for an entry beside the ordinary blocks. Returns which one has it.
    fn block_beside(&mut self, io: &Io, slot: Slot, bytes: usize) -> Option<usize> {
        let last = self.large.back().is_some_and(|last| last.slot == slot && last.block.bytes.fits(bytes));
        if !last {
            let block = self.fresh(io, bytes, None);
            self.large.push_back(Large { slot, block, after: self.ordinary_begun });
        }
        Some(self.large.len() - 1)
    }

    fn fresh(&mut self, io: &Io, bytes: usize, ordinary: Option<u64>) -> Block {
        let needed = padded(HEADER_BYTES + bytes).max(self.capacity);
        self.pending_bytes += HEADER_BYTES;
        let bytes = BlockBuilder::new(io.disk.allocate(needed));
        Block { bytes, ordinary, durability: Durability::Write, marks: Vec::new() }
    }

    /// The block that is written next.
    fn next(&mut self) -> Option<Block> {
        let due = self.large.front().is_some_and(|large| large.after <= self.ordinary_taken);
        let ordinary_waits = self.filling.is_some() || !self.sealed.is_empty();
        if due && !(ordinary_waits && self.large_was_last) {
            self.large_was_last = true;
            return self.large.pop_front().map(|large| large.block);
        }
        if self.sealed.is_empty() {
            self.seal();
        }
        let block = self.sealed.pop_front()?;
        self.large_was_last = false;
        self.ordinary_taken += 1;
        Some(block)
    }

    fn seal(&mut self) {
        self.sealed.extend(self.filling.take());
    }

    fn filling_sequence(&self) -> u64 {
        self.next_sequence + self.sealed.len() as u64
    }

    fn wake(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}
