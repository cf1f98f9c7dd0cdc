//! Who votes, and from when on.
//!
//! A voter whose disk is empty may be a new one, or one whose disk was wiped: it may have voted in this term already, and
//! what was committed with its help may lie on one other disk alone. Nothing tells the one from the other. So it asks all
//! others how far they are, with the number that its disk has just been given, and until it knows takes no part at all.
//! Whoever is asked takes no packet of an earlier disk of that voter any more. Then
//! - whatever it has voted before was in a term that one of the others has reached: it takes the highest one, as if it had
//!   voted in it;
//! - whatever it has helped to commit lies in the log of one of the others: it votes and stands only when its own log,
//!   which it gets from a leader that the others have elected, goes as far as the farthest of theirs.
//!
//! If all disks are empty that is at once. The first start of a quorum needs all its voters therefore, once.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::wire::{Answer, Mark};
use crate::base::{BrokerId, LeaderEpoch};

/// Voters of a quorum, at most.
pub const VOTERS_MAX: usize = 7;

/// How fast a lost leader is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaftSettings {
    /// The unit of the others.
    pub tick: Duration,
    /// A leader tells that it is there every so many.
    pub heartbeat_ticks: usize,
    /// Whoever has not heard of a leader for so many stands for election, or for up to twice as many, drawn anew each time.
    pub election_ticks: usize,
}

impl Default for RaftSettings {
    /// Another leader is there within about a second.
    fn default() -> Self {
        Self { tick: Duration::from_millis(50), heartbeat_ticks: 2, election_ticks: 10 }
    }
}

/// Which voter this is, and where it keeps what it knows.
#[derive(Clone, Debug)]
pub struct Seat {
    /// This broker.
    pub me: BrokerId,
    /// All voters, this one among them, in the order of their ids.
    pub voters: Vec<BrokerId>,
    /// Where the quorum's log lies.
    pub directory: PathBuf,
    /// Where snapshots lie: the metadata partition's directory.
    pub snapshots: PathBuf,
    /// How fast a lost leader is noticed.
    pub settings: RaftSettings,
}

impl Seat {
    /// The voters as raft names them.
    pub fn raft_ids(&self) -> Vec<u64> {
        self.voters.iter().map(|voter| raft_id(*voter)).collect()
    }

    /// The other voters.
    pub fn others(&self) -> impl Iterator<Item = BrokerId> {
        self.voters.iter().copied().filter(|voter| *voter != self.me)
    }

    /// What tells this list of voters from another one.
    pub fn quorum(&self) -> u32 {
        let ids: Vec<u8> = self.voters.iter().flat_map(|voter| voter.0.to_be_bytes()).collect();
        crc32c::crc32c(&ids)
    }
}

/// Raft has no voter 0, and Kafka has a broker 0.
pub fn raft_id(broker: BrokerId) -> u64 {
    u64::from(broker.0.unsigned_abs()) + 1
}

/// The broker that raft names so; none for raft's 0.
pub fn broker_of(raft_id: u64) -> Option<BrokerId> {
    raft_id.checked_sub(1).and_then(|id| i32::try_from(id).ok()).map(BrokerId)
}

/// The epoch that raft's term is to Kafka.
pub fn epoch_of(term: u64) -> LeaderEpoch {
    LeaderEpoch(i32::try_from(term).expect("terms are checked where they come in"))
}

/// How far the others were when this disk was new: the last entry of the farthest of their logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined(pub Mark);

/// What a voter may do.
#[derive(Debug)]
pub enum Stage {
    /// It asks the others, and does nothing else.
    Asks(BTreeMap<BrokerId, Answer>),
    /// It follows a leader.
    Follows(Joined),
    /// It votes and stands for election.
    Votes,
}

impl Stage {
    /// The stage of a voter whose log goes so far.
    pub fn of(joined: Option<Joined>, last: Mark) -> Self {
        match joined {
            None => Self::Asks(BTreeMap::new()),
            Some(joined) if joined.0 <= last => Self::Votes,
            Some(joined) => Self::Follows(joined),
        }
    }

    /// Takes an answer. Gives the highest term and the farthest log when it was the last one that was missing.
    pub fn answered(&mut self, from: BrokerId, answer: Answer, others: usize) -> Option<(u64, Joined)> {
        let Self::Asks(answers) = self else { return None };
        answers.insert(from, answer);
        if answers.len() < others {
            return None;
        }
        let term = answers.values().map(|answer| answer.term).max().unwrap_or_default();
        let last = answers.values().map(|answer| Mark { term: answer.last.0, index: answer.last.1 }).max();
        Some((term, Joined(last.unwrap_or_default())))
    }
}

/// The disks that the others are known to write to.
#[derive(Debug, Default)]
pub struct Disks(BTreeMap<BrokerId, Known>);

#[derive(Debug, Default)]
struct Known {
    /// Of the last packet.
    last: u64,
    /// Those that were new here, the newest last. All but that one are no more.
    new: Vec<u64>,
}

/// So many disks of one voter are told apart in one life of this broker.
const NEW_DISKS_MAX: usize = 16;

impl Disks {
    /// Whether a packet of that voter from that disk counts.
    pub fn heard(&mut self, from: BrokerId, disk: u64) -> bool {
        let known = self.0.entry(from).or_default();
        if known.new.last().is_some_and(|newest| *newest != disk) {
            return false;
        }
        known.last = disk;
        true
    }

    /// A voter says that its disk is new. Gives whether that was not known; nothing if it is an earlier one that is no more.
    pub fn is_new(&mut self, from: BrokerId, disk: u64) -> Option<bool> {
        let known = self.0.entry(from).or_default();
        if known.new.last() == Some(&disk) {
            return Some(false);
        }
        if known.new.contains(&disk) {
            return None;
        }
        if known.new.len() == NEW_DISKS_MAX {
            known.new.remove(0);
        }
        known.new.push(disk);
        known.last = disk;
        Some(true)
    }

    /// The disk that a packet to that voter is meant for; 0 if none was heard of.
    pub fn of(&self, voter: BrokerId) -> u64 {
        self.0.get(&voter).map_or(0, |known| known.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(term: u64, last: (u64, u64)) -> Answer {
        Answer { term, last }
    }

    #[test]
    fn a_new_disk_hears_all_others_before_it_votes() {
        let mut stage = Stage::of(None, Mark::default());
        assert_eq!(stage.answered(BrokerId(1), answer(7, (3, 40)), 2), None);
        assert_eq!(stage.answered(BrokerId(1), answer(7, (3, 41)), 2), None, "the same one again");
        let all = stage.answered(BrokerId(3), answer(5, (4, 20)), 2);
        let joined = Joined(Mark { term: 4, index: 20 });
        assert_eq!(all, Some((7, joined)));
        let at = |term, index| matches!(Stage::of(Some(joined), Mark { term, index }), Stage::Votes);
        assert_eq!([at(4, 19), at(3, 50), at(4, 20), at(5, 1)], [false, false, true, true]);
        assert!(matches!(Stage::of(Some(Joined(Mark::default())), Mark::default()), Stage::Votes), "all are new");
    }

    #[test]
    fn packets_of_a_disk_that_is_no_more_do_not_count() {
        let mut disks = Disks::default();
        let voter = BrokerId(3);
        assert!(disks.heard(voter, 5) && disks.of(voter) == 5);
        assert_eq!(disks.is_new(voter, 8), Some(true));
        assert_eq!(disks.is_new(voter, 8), Some(false));
        assert!(!disks.heard(voter, 5) && disks.heard(voter, 8) && disks.of(voter) == 8);
        assert_eq!(disks.is_new(voter, 9), Some(true));
        assert_eq!(disks.is_new(voter, 8), None, "late");
        assert!(!disks.heard(voter, 8));
    }
}
