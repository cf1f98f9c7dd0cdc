//! Raft's log in memory, as far as it is on the disk. Bounded by the snapshots, which cut it off at its front.

use std::collections::VecDeque;

use ::raft::{
    GetEntriesContext, RaftState, Storage, StorageError,
    eraftpb::{ConfState, Entry, HardState, Snapshot},
    util::limit_size,
};

use super::{
    entry,
    wire::{self, Mark},
};
use crate::base::Offset;

/// Where the log begins: behind this entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// The last entry that is not there any more.
    pub mark: Mark,
    /// The offset in the metadata's log that comes behind it.
    pub end_offset: Offset,
}

/// An entry with its place in the metadata's log.
#[derive(Clone, Debug, PartialEq)]
struct Stored {
    entry: Entry,
    /// The offset that comes behind it.
    end_offset: Offset,
}

/// What raft reads. Only what is on stable storage is put here.
#[derive(Debug)]
pub struct Store {
    voters: Vec<u64>,
    hard_state: HardState,
    base: Base,
    entries: VecDeque<Stored>,
    /// The newest snapshot that can be given to others.
    snapshot: Option<Base>,
}

impl Store {
    /// A log without entries.
    pub fn new(voters: Vec<u64>) -> Self {
        let (hard_state, base) = Default::default();
        Self { voters, hard_state, base, entries: VecDeque::new(), snapshot: None }
    }

    /// Term, vote and what is committed.
    pub fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    /// Takes term, vote and what is committed.
    pub fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    /// What is committed.
    pub fn set_commit(&mut self, index: u64) {
        self.hard_state.commit = index;
    }

    /// Where the log begins.
    pub fn base(&self) -> Base {
        self.base
    }

    /// The last entry.
    pub fn last(&self) -> Mark {
        match self.entries.back() {
            Some(Stored { entry, .. }) => Mark { term: entry.term, index: entry.index },
            None => self.base.mark,
        }
    }

    /// The offset in the metadata's log that comes behind the last entry.
    pub fn end_offset(&self) -> Offset {
        self.entries.back().map_or(self.base.end_offset, |last| last.end_offset)
    }

    /// Adds entries, the first of which may lie anywhere behind the base: what was there from it on goes.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(first.index > self.base.mark.index && first.index <= self.last().index + 1, "entries leave no gap");
        self.entries.truncate((first.index - self.base.mark.index - 1) as usize);
        for entry in entries {
            let count = entry::record_count(&entry.data).expect("an entry is checked before it gets into the log");
            let end_offset = self.end_offset().plus(i64::from(count));
            self.entries.push_back(Stored { entry: entry.clone(), end_offset });
        }
    }

    /// Begins anew behind a snapshot.
    pub fn replace(&mut self, base: Base) {
        self.entries.clear();
        self.base = base;
        self.snapshot = Some(base);
        self.hard_state.commit = self.hard_state.commit.max(base.mark.index);
    }

    /// Forgets the entries up to `base`, which is one of them.
    pub fn compact(&mut self, base: Base) {
        let count = base.mark.index.saturating_sub(self.base.mark.index) as usize;
        self.entries.drain(..count.min(self.entries.len()));
        self.base = base;
    }

    /// The newest snapshot that can be given to others.
    pub fn snapshot_base(&self) -> Option<Base> {
        self.snapshot
    }

    /// Whom raft may bring up to date with a snapshot up to here.
    pub fn set_snapshot(&mut self, snapshot: Base) {
        self.snapshot = Some(snapshot);
    }

    /// The entries from an index on, each with where it ends in the metadata's log; none if it is not there.
    pub fn from(&self, index: u64) -> impl Iterator<Item = (&Entry, Offset)> {
        let skipped = index.saturating_sub(self.base.mark.index + 1) as usize;
        self.entries.iter().skip(skipped).map(|stored| (&stored.entry, stored.end_offset))
    }

    /// The last entry, up to the given index, that ends at that offset of the metadata's log or before.
    pub fn ending_at(&self, end_offset: Offset, upto: u64) -> Option<Base> {
        if self.base.end_offset > end_offset {
            return None;
        }
        let fits = |stored: &&Stored| stored.end_offset <= end_offset && stored.entry.index <= upto;
        Some(self.entries.iter().rev().find(fits).map_or(self.base, |Stored { entry, end_offset }| Base {
            mark: Mark { term: entry.term, index: entry.index },
            end_offset: *end_offset,
        }))
    }

    /// The configuration, which never changes.
    pub fn conf_state(&self) -> ConfState {
        ConfState { voters: self.voters.clone(), ..ConfState::default() }
    }

    /// The term of an entry; of the base as well.
    pub fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.base.mark.index {
            return Some(self.base.mark.term);
        }
        let place = index.checked_sub(self.base.mark.index + 1)?;
        self.entries.get(usize::try_from(place).ok()?).map(|stored| stored.entry.term)
    }
}

impl Storage for Store {
    fn initial_state(&self) -> ::raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> ::raft::Result<Vec<Entry>> {
        if low <= self.base.mark.index {
            return Err(StorageError::Compacted.into());
        }
        let count = high.saturating_sub(low) as usize;
        let mut entries: Vec<Entry> = Vec::new();
        let max_size = max_size.into();
        let mut bytes = 0;
        for (entry, _) in self.from(low).take(count) {
            entries.push(entry.clone());
            bytes += entry.data.len() as u64;
            if max_size.is_some_and(|most| bytes > most) {
                break;
            }
        }
        limit_size(&mut entries, max_size);
        Ok(entries)
    }

    fn term(&self, index: u64) -> ::raft::Result<u64> {
        if index < self.base.mark.index {
            return Err(StorageError::Compacted.into());
        }
        self.term_of(index).ok_or_else(|| StorageError::Unavailable.into())
    }

    fn first_index(&self) -> ::raft::Result<u64> {
        Ok(self.base.mark.index + 1)
    }

    fn last_index(&self) -> ::raft::Result<u64> {
        Ok(self.last().index)
    }

    fn snapshot(&self, request_index: u64, _: u64) -> ::raft::Result<Snapshot> {
        let base = self.snapshot.filter(|base| base.mark.index >= request_index && base.mark.index > 0);
        let Some(base) = base else { return Err(StorageError::SnapshotTemporarilyUnavailable.into()) };
        // The configuration is always the present one: a voter ignores a snapshot of one that does not know it.
        let mut snapshot = wire::snapshot(base.mark, base.end_offset.0.unsigned_abs());
        snapshot.mut_metadata().set_conf_state(self.conf_state());
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64, records: usize) -> Entry {
        let data = if records == 0 { Vec::new() } else { entry::tests::data(records) };
        Entry { index, term, data: data.into(), ..Entry::default() }
    }

    #[test]
    fn offsets_follow_from_the_records() {
        let mut store = Store::new(vec![1, 2, 3]);
        store.append(&[entry(1, 1, 0), entry(2, 1, 3), entry(3, 1, 1), entry(4, 2, 0)]);
        assert_eq!((store.end_offset(), store.last()), (Offset(4), Mark { term: 2, index: 4 }));
        let at = |end, upto| store.ending_at(Offset(end), upto).map(|base| base.mark.index);
        assert_eq!([at(4, 9), at(4, 3), at(3, 9), at(2, 9), at(0, 9)], [4, 3, 2, 1, 1].map(Some));
        let base = store.ending_at(Offset(3), 9).expect("there");
        store.compact(base);
        assert_eq!((store.first_index(), store.term(2), store.end_offset()), (Ok(3), Ok(1), Offset(4)));
        assert!(store.term(1).is_err() && store.ending_at(Offset(2), 9).is_none());
        store.append(&[entry(4, 3, 5)]);
        assert_eq!((store.end_offset(), store.last()), (Offset(9), Mark { term: 3, index: 4 }));
        assert_eq!(store.from(4).count(), 1);
        let all = store.entries(3, 5, None, GetEntriesContext::empty(false)).expect("there");
        assert_eq!(all.len(), 2);
        // A voter ignores the snapshot of a configuration that does not know it.
        store.set_snapshot(base);
        let snapshot = Storage::snapshot(&store, 0, 3).expect("there");
        assert_eq!(snapshot.get_metadata().get_conf_state().voters, [1, 2, 3]);
        assert!(Storage::snapshot(&store, 4, 3).is_err(), "it ends before that");
        let some = store.entries(3, 5, Some(1), GetEntriesContext::empty(false)).expect("there");
        assert_eq!(some.len(), 1, "one is always given");
    }
}
