//! What was read from segments lately, and what is being read ahead. There is no page cache to do it.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

use crate::{
    base::{Offset, PartitionKey, Set},
    io::Slice,
    log::{index::SegmentIndex, segment::SegmentId},
};

/// Indexes of sealed segments kept in memory; each is at most 80 KiB.
const INDEXES_MAX: usize = 64;

/// Remembered ends of reads: where the next read of the same consumer begins.
const HINTS_MAX: usize = 256;

/// A partition and one of its segments.
type SegmentKey = (PartitionKey, SegmentId);

/// A partition and an offset, and the segment and position where its batch begins.
type Hint = ((PartitionKey, Offset), (SegmentId, u32));

/// A stretch of one segment's file.
#[derive(Clone)]
pub struct Extent {
    pub key: PartitionKey,
    pub segment: SegmentId,
    pub position: u32,
    pub bytes: Slice,
}

impl Extent {
    pub fn end(&self) -> u32 {
        self.position + self.bytes.len() as u32
    }
}

pub struct Cold {
    bytes_max: usize,
    bytes: Cell<usize>,
    /// Most recently used last.
    extents: RefCell<VecDeque<Extent>>,
    indexes: RefCell<VecDeque<(SegmentKey, Rc<SegmentIndex>)>>,
    hints: RefCell<VecDeque<Hint>>,
    /// Partitions for which a stretch is being read ahead.
    ahead: RefCell<Set<PartitionKey>>,
}

impl Cold {
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            bytes: Cell::new(0),
            extents: RefCell::default(),
            indexes: RefCell::default(),
            hints: RefCell::default(),
            ahead: RefCell::default(),
        }
    }

    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }

    #[cfg(test)]
    pub fn recount(&self) -> usize {
        self.extents.borrow().iter().map(|extent| extent.bytes.held_bytes()).sum()
    }

    /// A stretch that holds `position..position + at_least`.
    pub fn find(&self, key: PartitionKey, segment: SegmentId, position: u32, at_least: u32) -> Option<Extent> {
        let mut extents = self.extents.borrow_mut();
        let index = extents.iter().position(|extent| {
            (extent.key, extent.segment) == (key, segment)
                && extent.position <= position
                && position.saturating_add(at_least) <= extent.end()
        })?;
        let found = extents.remove(index).expect("the index was just found");
        extents.push_back(found.clone());
        Some(found)
    }

    pub fn insert(&self, extent: Extent) {
        let mut extents = self.extents.borrow_mut();
        self.bytes.set(self.bytes.get() + extent.bytes.held_bytes());
        extents.push_back(extent);
        while self.bytes.get() > self.bytes_max {
            let Some(oldest) = extents.pop_front() else { break };
            self.bytes.set(self.bytes.get() - oldest.bytes.held_bytes());
            oldest.bytes.let_go();
        }
    }

    pub fn index(&self, key: PartitionKey, segment: SegmentId) -> Option<Rc<SegmentIndex>> {
        let mut indexes = self.indexes.borrow_mut();
        let at = indexes.iter().position(|(of, _)| *of == (key, segment))?;
        let found = indexes.remove(at).expect("the index was just found");
        let index = found.1.clone();
        indexes.push_back(found);
        Some(index)
    }

    pub fn keep_index(&self, key: PartitionKey, segment: SegmentId, index: Rc<SegmentIndex>) {
        let mut indexes = self.indexes.borrow_mut();
        indexes.push_back(((key, segment), index));
        while indexes.len() > INDEXES_MAX {
            indexes.pop_front();
        }
    }

    /// Where the batch with `offset` begins, if a read ended right before it.
    pub fn hint(&self, key: PartitionKey, offset: Offset) -> Option<(SegmentId, u32)> {
        let mut hints = self.hints.borrow_mut();
        let at = hints.iter().rposition(|(of, _)| *of == (key, offset))?;
        hints.remove(at).map(|(_, place)| place)
    }

    pub fn keep_hint(&self, key: PartitionKey, offset: Offset, place: (SegmentId, u32)) {
        let mut hints = self.hints.borrow_mut();
        hints.push_back(((key, offset), place));
        if hints.len() > HINTS_MAX {
            hints.pop_front();
        }
    }

    /// Whether a stretch may be read ahead now: one at a time for each partition.
    pub fn begin_ahead(&self, key: PartitionKey) -> bool {
        self.ahead.borrow_mut().insert(key)
    }

    pub fn end_ahead(&self, key: PartitionKey) {
        self.ahead.borrow_mut().remove(&key);
    }

    /// Forgets a partition, or one of its segments.
    pub fn forget(&self, key: PartitionKey, segment: Option<SegmentId>) {
        let concerns = |of: PartitionKey, other: SegmentId| of == key && segment.is_none_or(|it| it == other);
        let mut extents = self.extents.borrow_mut();
        extents.retain(|extent| !concerns(extent.key, extent.segment));
        self.bytes.set(extents.iter().map(|extent| extent.bytes.held_bytes()).sum());
        self.indexes.borrow_mut().retain(|((of, segment), _)| !concerns(*of, *segment));
        self.hints.borrow_mut().retain(|((of, _), (segment, _))| !concerns(*of, *segment));
    }
}
