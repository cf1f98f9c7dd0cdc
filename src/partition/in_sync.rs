//! What a leader knows of the other replicas, and which of them count for the high watermark.
//!
//! KIP-497 (the leader asks the controller for other in-sync replicas) · KIP-903 (with their broker epochs) · KIP-966 (with
//! fewer than `min.insync.replicas` nothing is committed). Until an ask is answered, those count that are in sync by the
//! metadata, and those that were asked to be added: whichever of the two the controller goes on with, no leader that it elects
//! lacks what was committed meanwhile.

use crate::base::{BrokerId, LeaderEpoch, Offset};

/// So long the high watermark waits for a replica that was at the end of the log and is not in sync yet. Otherwise it would
/// never get there while others append: the mark would always be ahead of its next fetch.
pub(super) const JOIN_WAIT_MS: i64 = 1000;

/// What a follower says of itself when it fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerFetch {
    /// Who it is.
    pub broker: BrokerId,
    /// In which of its lives; -1 if it does not say.
    pub broker_epoch: i64,
    /// Everything below it is on its stable storage.
    pub offset: Offset,
    /// The first offset that it keeps; negative if it does not say.
    pub log_start_offset: Offset,
}

/// Other in-sync replicas, as the controller is asked for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrChange {
    /// The term of the leader that asks.
    pub leader_epoch: LeaderEpoch,
    /// Which state of the partition it would change.
    pub partition_epoch: i32,
    /// Those who are to be in sync beside the leader, each with its broker epoch as the leader knows it.
    pub others: Vec<(BrokerId, i64)>,
}

/// What the controller made of an [`IsrChange`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrState {
    /// The partition's term.
    pub leader_epoch: LeaderEpoch,
    /// Which state of the partition it is.
    pub partition_epoch: i32,
    /// Who is in sync in it.
    pub in_sync_replicas: Vec<BrokerId>,
}

/// A leader's knowledge in its term.
#[derive(Clone, Debug)]
pub(super) struct Leading {
    pub others: Vec<Other>,
    pub min_in_sync_replicas: i32,
    /// Where the log ended when the term began: who has not got there may have what the term has not.
    pub term_start: Offset,
    pub pending: Option<Pending>,
    pub now_ms: i64,
}

#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub change: IsrChange,
    pub ask_again: bool,
}

/// Another replica.
#[derive(Clone, Debug)]
pub(super) struct Other {
    pub id: BrokerId,
    /// By the metadata.
    pub in_sync: bool,
    /// Asked to be added to those in sync, and not answered.
    pub joins: bool,
    /// Everything below it is on its stable storage. Absent until it has fetched in this term.
    pub durable_end: Option<Offset>,
    pub log_start: Offset,
    pub broker_epoch: i64,
    /// When it last had what the log then had.
    pub caught_up_ms: Option<i64>,
    /// When it fetched last, and where our log ended then.
    pub fetched: Option<(i64, Offset)>,
}

impl Other {
    fn of((id, in_sync): (BrokerId, bool)) -> Self {
        Self {
            id,
            in_sync,
            joins: false,
            durable_end: None,
            log_start: Offset::ZERO,
            broker_epoch: -1,
            caught_up_ms: None,
            fetched: None,
        }
    }

    pub fn fetch(&mut self, fetch: &FollowerFetch, log_end: Offset, now_ms: i64) {
        let had = |end| fetch.offset >= end;
        if had(log_end) {
            self.caught_up_ms = Some(now_ms);
        } else if let Some((then, _)) = self.fetched.filter(|(_, end)| had(*end)) {
            self.caught_up_ms = self.caught_up_ms.max(Some(then));
        }
        self.fetched = Some((now_ms, log_end));
        self.durable_end = Some(fetch.offset.min(log_end));
        self.log_start = fetch.log_start_offset.max(Offset::ZERO);
        self.broker_epoch = fetch.broker_epoch;
    }

    /// The controller has decided about it. Who is out is not waited for until it has fetched again: most often it is dead.
    pub fn decided(&mut self, in_sync: bool) {
        if self.in_sync && !in_sync {
            self.caught_up_ms = None;
            self.fetched = None;
        }
        self.in_sync = in_sync;
        self.joins = false;
    }

    fn counts(&self, now_ms: i64) -> bool {
        self.in_sync || self.joins || self.caught_up_ms.is_some_and(|then| now_ms.saturating_sub(then) <= JOIN_WAIT_MS)
    }
}

impl Leading {
    pub fn new(others: &[(BrokerId, bool)], min_in_sync_replicas: i32, term_start: Offset) -> Self {
        let others = others.iter().copied().map(Other::of).collect();
        Self { others, min_in_sync_replicas, term_start, pending: None, now_ms: i64::MIN }
    }

    /// Takes a later state of the partition in the same term: what is known of those who stay is kept. Whatever was asked for
    /// is overtaken.
    pub fn adjust(&mut self, assigned: &[(BrokerId, bool)]) {
        let mut before = std::mem::take(&mut self.others);
        let stays = |(id, in_sync): &(BrokerId, bool)| match before.iter().position(|other| other.id == *id) {
            Some(index) => {
                let mut other = before.swap_remove(index);
                other.decided(*in_sync);
                other
            }
            None => Other::of((*id, *in_sync)),
        };
        self.others = assigned.iter().map(stays).collect();
        self.pending = None;
    }

    pub fn set_min_in_sync_replicas(&mut self, min_in_sync_replicas: i32) {
        self.min_in_sync_replicas = min_in_sync_replicas;
    }

    /// Whether a broker has a replica, and this is not an earlier life of it.
    pub fn knows(&self, id: BrokerId, broker_epoch: i64) -> bool {
        self.others.iter().any(|other| other.id == id && broker_epoch >= other.broker_epoch)
    }

    /// Never more than the partition has, as with Kafka: on one broker `min.insync.replicas=2` is 1.
    pub fn has_enough_in_sync(&self) -> bool {
        let in_sync = 1 + self.others.iter().filter(|other| other.in_sync).count();
        let wanted = usize::try_from(self.min_in_sync_replicas).unwrap_or(0).min(self.others.len() + 1);
        in_sync >= wanted
    }

    /// What every replica that counts has on stable storage; `durable_end` is our own.
    pub fn committed(&self, durable_end: Offset) -> Option<Offset> {
        let mut counting = self.others.iter().filter(|other| other.counts(self.now_ms));
        let least = counting.try_fold(durable_end, |least, other| Some(least.min(other.durable_end?)));
        least.filter(|_| self.has_enough_in_sync())
    }

    pub fn may_join(&self, other: &Other, high_watermark: Offset) -> bool {
        let from = high_watermark.max(self.term_start);
        !other.in_sync && other.durable_end.is_some_and(|end| end >= from)
    }
}
