//! A simulated directory: the names it shows, and those it would show after a power cut.

use std::collections::BTreeMap;

use super::world::World;

/// One change of a directory that is not durable yet.
#[derive(Clone)]
enum Change {
    Set(String, u64),
    Unset(String),
    /// Within one directory a rename is one change: after a crash there is the old name or the new one.
    Rename {
        from: String,
        to: String,
        inode: u64,
    },
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Set(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Unset(name) => {
                names.remove(name);
            }
            Self::Rename { from, to, inode } => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }
}

/// A directory's names.
#[derive(Clone, Default)]
pub(super) struct Names {
    names: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
    changes: Vec<Change>,
    /// How many changes were ever made.
    made: u64,
}

impl Names {
    pub(super) fn find(&self, name: &str) -> Option<u64> {
        self.names.get(name).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, u64)> {
        self.names.iter().map(|(name, inode)| (name, *inode))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub(super) fn set(&mut self, name: &str, inode: u64) {
        self.change(Change::Set(name.to_owned(), inode));
    }

    pub(super) fn unset(&mut self, name: &str) {
        self.change(Change::Unset(name.to_owned()));
    }

    pub(super) fn rename(&mut self, from: &str, to: &str, inode: u64) {
        self.change(Change::Rename { from: from.to_owned(), to: to.to_owned(), inode });
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.changes.push(change);
        self.made += 1;
    }

    /// The moment up to which a sync that begins now makes changes durable.
    pub(super) fn mark(&self) -> u64 {
        self.made
    }

    /// Makes the changes up to `mark` durable.
    pub(super) fn sync(&mut self, mark: u64) {
        let durable = self.made - self.changes.len() as u64;
        let count = usize::try_from(mark.saturating_sub(durable)).expect("a count of changes").min(self.changes.len());
        for change in self.changes.drain(..count) {
            change.apply(&mut self.durable);
        }
    }

    /// Everything is durable as it is.
    pub(super) fn settle(&mut self) {
        self.sync(self.made);
    }

    /// Loses power: the changes since the last sync happened up to some point, chosen by seed.
    pub(super) fn power_cut(&mut self, world: &World) {
        let lost = world.below(self.changes.len() as u64 + 1);
        self.sync(self.made - lost);
        self.changes.clear();
        self.names = self.durable.clone();
        world.note(7, lost);
    }
}
