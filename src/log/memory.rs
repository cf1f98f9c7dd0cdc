//! One core's memory for records: how much waits for its segment, how much is held at all, and what is evicted.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
};

use crate::{
    io::{Pinned, channel::Notify},
    log::slots::Slot,
};

pub struct Memory {
    dirty_max: usize,
    chunks_max: usize,
    /// What readers still hold of what was evicted: the cache makes room for it.
    pinned: Pinned,
    /// Bytes appended and not in a segment yet.
    dirty: Cell<usize>,
    /// Bytes promised to appends that have not come yet.
    reserved: Cell<usize>,
    /// Capacity of all chunks.
    chunks: Cell<usize>,
    /// Logs with a chunk that can be evicted, oldest first; a log is here once per such chunk.
    evictable: RefCell<VecDeque<Slot>>,
    /// Those who wait for room, in order.
    line: RefCell<VecDeque<Waiting>>,
    next_ticket: Cell<u64>,
    pub freed: Notify,
}

/// Somebody in the line.
struct Waiting {
    ticket: u64,
    bytes: usize,
    /// Bytes that came later and were let past.
    overtaken: usize,
}

/// Whoever wants so many times less than those who wait is let past them: a small append does not wait until there is room
/// for a large one. All who pass one take together no more than it wants itself, so that its turn comes.
const OVERTAKES: usize = 8;

impl Memory {
    pub fn new(dirty_max: usize, chunks_max: usize, pinned: Pinned) -> Self {
        Self {
            dirty_max,
            chunks_max,
            pinned,
            dirty: Cell::new(0),
            reserved: Cell::new(0),
            chunks: Cell::new(0),
            evictable: RefCell::default(),
            line: RefCell::default(),
            next_ticket: Cell::new(0),
            freed: Notify::new(),
        }
    }

    pub fn dirty(&self) -> usize {
        self.dirty.get()
    }

    pub fn chunk_bytes(&self) -> usize {
        self.chunks.get()
    }

    /// Whether segments should be filled with more haste.
    pub fn is_pressed(&self) -> bool {
        let dirty = self.dirty.get() + self.reserved.get() > self.dirty_max / 2;
        dirty || self.chunks.get() > self.chunks_max || !self.line.borrow().is_empty()
    }

    /// A batch larger than the whole budget passes when it is alone. Many small batches fill few bytes of many chunks, so
    /// chunks count as well.
    fn fits(&self, bytes: usize) -> bool {
        let held = self.dirty.get() + self.reserved.get();
        held == 0 || (held + bytes <= self.dirty_max && self.chunks.get() <= self.chunks_max)
    }

    /// Takes `bytes` if nobody waits before who must not be overtaken. What can be evicted has been.
    pub fn try_take(&self, bytes: usize, room_elsewhere: bool) -> bool {
        let before = self.line.borrow().len();
        let free = room_elsewhere && self.may_pass(before, bytes) && self.fits(bytes);
        if free {
            self.reserved.set(self.reserved.get() + bytes);
            self.pass(before, bytes);
        }
        free
    }

    /// Whether the first `before` of the line may be overtaken by one who wants `bytes`.
    fn may_pass(&self, before: usize, bytes: usize) -> bool {
        let passes = |it: &Waiting| bytes * OVERTAKES <= it.bytes && it.overtaken + bytes <= it.bytes;
        self.line.borrow().iter().take(before).all(passes)
    }

    fn pass(&self, before: usize, bytes: usize) {
        self.line.borrow_mut().iter_mut().take(before).for_each(|it| it.overtaken += bytes);
    }

    #[cfg(test)]
    pub fn reserved(&self) -> usize {
        self.reserved.get()
    }

    /// Waits in line for `bytes`; `room_elsewhere` evicts what can be, and is a further condition (the journal's); `wanted` asks for a checkpoint. Returns false when it is `hopeless`: the disk is full, or the log has ended.
    pub async fn take(
        &self,
        bytes: usize,
        room_elsewhere: impl Fn() -> bool,
        wanted: impl Fn(),
        hopeless: impl Fn() -> bool,
    ) -> bool {
        let ticket = self.next_ticket.get();
        self.next_ticket.set(ticket + 1);
        self.line.borrow_mut().push_back(Waiting { ticket, bytes, overtaken: 0 });
        let _place = InLine { memory: self, ticket };
        loop {
            let before = self.line.borrow().iter().take_while(|it| it.ticket != ticket).count();
            if self.may_pass(before, bytes) && room_elsewhere() && self.fits(bytes) {
                self.reserved.set(self.reserved.get() + bytes);
                self.pass(before, bytes);
                return true;
            }
            if hopeless() {
                return false;
            }
            wanted();
            self.freed.notified().await;
        }
    }

    /// A reservation was not used.
    pub fn give_back(&self, bytes: usize) {
        self.reserved.set(self.reserved.get() - bytes);
        self.freed.notify_all();
    }

    /// A reservation became an append.
    pub fn used(&self, reserved: usize) {
        self.reserved.set(self.reserved.get() - reserved);
    }

    /// `bytes` are in memory that no segment has.
    pub fn dirtied(&self, bytes: usize) {
        self.dirty.set(self.dirty.get() + bytes);
    }

    /// `bytes` have reached their segment, or are not wanted any more.
    pub fn cleaned(&self, bytes: usize) {
        self.dirty.set(self.dirty.get() - bytes);
        self.freed.notify_all();
    }

    pub fn chunk_made(&self, capacity: usize) {
        self.chunks.set(self.chunks.get() + capacity);
    }

    pub fn chunk_dropped(&self, capacity: usize) {
        self.chunks.set(self.chunks.get() - capacity);
    }

    /// The log's oldest chunk is in its segment: it may go when room is needed.
    pub fn evictable(&self, slot: Slot) {
        self.evictable.borrow_mut().push_back(slot);
    }

    /// The log has no chunks any more.
    pub fn not_evictable(&self, slot: Slot) {
        self.evictable.borrow_mut().retain(|listed| *listed != slot);
    }

    pub fn evictable_count(&self) -> usize {
        self.evictable.borrow().len()
    }

    /// The log whose oldest chunk should go, while the cache, together with what readers alone hold, is beyond its bound.
    pub fn evict(&self) -> Option<Slot> {
        let beyond = self.chunks.get() + self.pinned.bytes() > self.chunks_max;
        beyond.then(|| self.evictable.borrow_mut().pop_front()).flatten()
    }
}

/// A place in the line; given up when dropped, so that a cancelled append holds up nobody.
struct InLine<'a> {
    memory: &'a Memory,
    ticket: u64,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.memory.line.borrow_mut().retain(|it| it.ticket != self.ticket);
        self.memory.freed.notify_all();
    }
}
