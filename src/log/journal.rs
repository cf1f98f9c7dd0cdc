//! The journal of one core: every append of every partition goes through it, one write for all of them.
//!
//! Appends are copied into the block that is being filled. While a block is being written the next one fills, so the
//! device's latency sets the size of a group, and there is no timer. Only one block is in flight: the device serialises
//! flushes anyway, and a larger write beats two.

pub mod block;
pub mod entry;
pub mod reread;
mod ring;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    io,
    path::Path,
    rc::Rc,
    task::{Poll, Waker},
};

use block::{BlockBuilder, HEADER_BYTES, Incarnation, padded};
use entry::{AppendHead, Entry};
use ring::Ring;

use crate::{
    base::{Offset, copied},
    io::{Io, channel::Notify},
    log::{partition_log::Log, settings::Durability},
};

/// The smallest and the largest buffer of a block that more may be added to. A larger batch gets one of its own size.
const BLOCK_MIN: usize = 16 << 10;
const BLOCK_MAX: usize = 1 << 20;

pub struct Journal {
    io: Io,
    pub ring: Ring,
    incarnation: Incarnation,
    state: RefCell<State>,
    /// Every block below this one is as durable as its records asked for.
    done_below: Cell<u64>,
    done: Notify,
    stopping: Cell<bool>,
}

struct State {
    filling: Option<Block>,
    /// Full, waiting for the block in flight. Bounded by the memory that appends reserve.
    sealed: VecDeque<Block>,
    next_sequence: u64,
    previous_crc: u32,
    /// Blocks from here on are with the device, but perhaps not on stable storage.
    durable_below: u64,
    /// Capacity of the next block: twice what the last one used.
    capacity: usize,
    pending_bytes: usize,
    writer: Option<Waker>,
}

/// A block that is being filled or waits.
struct Block {
    bytes: BlockBuilder,
    durability: Durability,
    /// How far each partition has come with this block.
    marks: Vec<Mark>,
}

/// Everything of `log` below `end` is durable with the block.
pub struct Mark {
    pub log: Rc<Log>,
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
    ) -> Self {
        let state = State {
            filling: None,
            sealed: VecDeque::new(),
            next_sequence: 0,
            previous_crc: 0,
            durable_below: 0,
            capacity: BLOCK_MIN,
            pending_bytes: 0,
            writer: None,
        };
        Self {
            io: io.clone(),
            ring: Ring::new(io, directory, core, u64::from(file_bytes), max_bytes),
            incarnation,
            state: RefCell::new(state),
            done_below: Cell::new(0),
            done: Notify::new(),
            stopping: Cell::new(false),
        }
    }

    /// Adds one batch, given in two pieces. Returns at once; the log hears when it is durable.
    pub fn append(&self, log: &Rc<Log>, head: &AppendHead, batch: [&[u8]; 2], end: Offset, durability: Durability) {
        let mut state = self.state.borrow_mut();
        let [front, rest] = batch;
        state.add(&self.io, &[&head.encode(), front, rest], durability);
        copied(front.len() + rest.len());
        state.mark(log, end);
        state.wake();
    }

    /// Adds an entry without a batch, always to stable storage. Returns the sequence of its block.
    pub fn announce(&self, entry: &Entry) -> u64 {
        let mut bytes = Vec::with_capacity(entry::CONTROL_BYTES);
        entry.encode(&mut bytes);
        let mut state = self.state.borrow_mut();
        state.add(&self.io, &[&bytes], Durability::Flush);
        let sequence = state.filling_sequence();
        state.wake();
        sequence
    }

    /// Waits until the block `sequence` is durable.
    pub async fn durable(&self, sequence: u64) {
        while self.done_below.get() <= sequence {
            self.done.notified().await;
        }
    }

    /// Waits until everything added so far is durable.
    pub async fn drain(&self) {
        let last = {
            let state = self.state.borrow();
            state.filling_sequence() + u64::from(state.filling.is_some())
        };
        while self.done_below.get() < last {
            self.done.notified().await;
        }
    }

    /// Closes the block being filled. Returns the sequence that the next entry will have at the least.
    pub fn seal(&self) -> u64 {
        let mut state = self.state.borrow_mut();
        state.seal();
        state.filling_sequence()
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
    /// # Errors
    /// The failed write. Nothing more is ever written or answered: the process must end.
    pub async fn run(&self, done: impl Fn(Vec<Mark>), wanted: impl Fn()) -> Result<(), JournalFailure> {
        while let Some(block) = self.next_block().await {
            let marks = self.write(block, &wanted).await?;
            done(marks);
        }
        Ok(())
    }

    /// Forgets what has not been written; blocks name the logs that wait for them.
    pub fn forget(&self) {
        let (filling, sealed) = {
            let mut state = self.state.borrow_mut();
            (state.filling.take(), std::mem::take(&mut state.sealed))
        };
        drop((filling, sealed));
    }

    pub fn stop(&self) {
        self.stopping.set(true);
        self.state.borrow_mut().wake();
    }

    async fn next_block(&self) -> Option<Block> {
        poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            if state.sealed.is_empty() {
                state.seal();
            }
            match state.sealed.pop_front() {
                Some(block) => Poll::Ready(Some(block)),
                None if self.stopping.get() => Poll::Ready(None),
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
        let flush = block.durability == Durability::Flush;
        let shared = block.bytes.into_buffer().share();
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
        written.map_err(|error| JournalFailure {
            path: place.file.path().display().to_string(),
            position: place.position,
            error,
        })?;
        let mut state = self.state.borrow_mut();
        state.previous_crc = crc;
        if flush {
            state.durable_below = sequence + 1;
        }
        state.pending_bytes -= used;
        state.capacity = (used * 2).next_power_of_two().clamp(BLOCK_MIN, BLOCK_MAX);
        drop(state);
        self.done_below.set(sequence + 1);
        self.done.notify_all();
        Ok(block.marks)
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

impl State {
    fn add(&mut self, io: &Io, pieces: &[&[u8]], durability: Durability) {
        let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        if self.filling.as_ref().is_some_and(|block| !block.bytes.fits(bytes)) {
            self.seal();
            self.capacity = (self.capacity * 2).min(BLOCK_MAX);
        }
        if self.filling.is_none() {
            self.filling = Some(self.fresh(io, bytes));
        }
        let block = self.filling.as_mut().expect("made above");
        block.bytes.add(pieces);
        if durability == Durability::Flush {
            block.durability = Durability::Flush;
        }
        self.pending_bytes += bytes;
    }

    fn fresh(&mut self, io: &Io, bytes: usize) -> Block {
        let needed = padded(HEADER_BYTES + bytes).max(self.capacity);
        self.pending_bytes += HEADER_BYTES;
        let bytes = BlockBuilder::new(io.disk.allocate(needed));
        Block { bytes, durability: Durability::Write, marks: Vec::new() }
    }

    fn mark(&mut self, log: &Rc<Log>, end: Offset) {
        let marks = &mut self.filling.as_mut().expect("an entry was just added").marks;
        match marks.last_mut() {
            Some(last) if Rc::ptr_eq(&last.log, log) => last.end = end,
            _ => marks.push(Mark { log: log.clone(), end }),
        }
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
