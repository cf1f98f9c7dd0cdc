//! What becomes of a partition when its replicas come and go: who is in sync, who may lead again (KIP-966), who leads.
//!
//! Differs from Kafka: a replica that was killed keeps its place among those who may lead, since what it has acknowledged is on
//! its disk; it loses it with the disk. The last one known is written down, and elected by nobody.

use uuid::Uuid;

use crate::{
    base::{BrokerId, PartitionKey},
    metadata::PartitionRegistration,
    protocol::metadata_records::PartitionChange,
};

/// `LeaderRecoveryState`: the leader has all that was committed, as far as anybody knows.
pub(super) const RECOVERED: i8 = 0;
/// The leader was elected though it was not in sync, and has not said yet that it has gone on from what it has.
pub(super) const RECOVERING: i8 = 1;

/// Who may be elected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Election {
    /// The leader stays if it may, or else the first replica leads that is in sync, or was when the others left.
    Online,
    /// As online, but the first replica comes first.
    Preferred,
    /// As online, and any replica that is alive rather than nobody.
    Unclean,
}

/// What is known of the brokers while a partition changes.
pub(super) struct Brokers<'a> {
    /// Whether a broker may lead.
    pub may_lead: &'a dyn Fn(BrokerId) -> bool,
    /// The data directory of a broker.
    pub directory: &'a dyn Fn(BrokerId) -> Uuid,
    /// The broker whose disk is gone: what it had acknowledged, it has no more.
    pub lost: Option<BrokerId>,
}

/// A partition on its way to the next state.
pub(super) struct Transition<'a> {
    before: &'a PartitionRegistration,
    /// Below so many in-sync replicas nothing is committed.
    min_insync_replicas: usize,
    pub election: Election,
    pub in_sync: Vec<BrokerId>,
    pub replicas: Vec<BrokerId>,
    pub removing: Vec<BrokerId>,
    pub adding: Vec<BrokerId>,
    pub leader_recovery_state: i8,
}

impl<'a> Transition<'a> {
    /// Changes nothing yet, but elects a leader if there is none and one can be had.
    pub fn of(before: &'a PartitionRegistration, min_insync_replicas: usize, election: Election) -> Self {
        Self {
            before,
            min_insync_replicas,
            election,
            in_sync: before.in_sync_replicas.clone(),
            replicas: before.replicas.clone(),
            removing: before.removing_replicas.clone(),
            adding: before.adding_replicas.clone(),
            leader_recovery_state: before.leader_recovery_state,
        }
    }

    /// The record that makes it so; none if nothing changes.
    pub fn record(mut self, key: PartitionKey, brokers: &Brokers<'_>) -> Option<PartitionChange> {
        self.complete_reassignment();
        let before = self.before;
        let eligible = self.eligible(brokers);
        let leader = self.elect(&eligible, brokers);
        let outsider = leader.filter(|leader| !self.in_sync.contains(leader));
        // What an unclean leader has is what counts from here on: whoever had more may only follow.
        let unclean = outsider.is_some_and(|leader| !eligible.contains(&leader));
        if unclean {
            self.leader_recovery_state = RECOVERING;
        }
        self.in_sync = outsider.map_or(self.in_sync, |leader| vec![leader]);
        let enough = self.is_enough();
        let out_of_sync = eligible.into_iter().filter(|replica| !self.in_sync.contains(replica));
        let eligible: Vec<BrokerId> = out_of_sync.filter(|_| !enough && !unclean).collect();
        let last_known = if enough { Vec::new() } else { self.last_known(&eligible) };
        let moved = before.replicas.iter().any(|replica| !self.replicas.contains(replica));
        let mut change = PartitionChange::of(key.topic_id, key.partition);
        let set = |before: &[BrokerId], after: &[BrokerId]| {
            (before != after).then(|| after.iter().map(|replica| replica.0).collect::<Vec<i32>>())
        };
        change.isr = set(&before.in_sync_replicas, &self.in_sync);
        change.replicas = set(&before.replicas, &self.replicas);
        change.removing_replicas = set(&before.removing_replicas, &self.removing);
        change.adding_replicas = set(&before.adding_replicas, &self.adding);
        change.eligible_leader_replicas = set(&before.eligible_leader_replicas, &eligible);
        change.last_known_elr = set(&before.last_known_elr, &last_known);
        // A leader whose replicas leave begins a new term, so that they are not heard any more.
        change.leader = (leader != before.leader || moved).then(|| leader.map_or(-1, |leader| leader.0));
        change.leader_recovery_state =
            (self.leader_recovery_state != before.leader_recovery_state).then_some(self.leader_recovery_state);
        change.directories = self.directories(brokers);
        (change != PartitionChange::of(key.topic_id, key.partition)).then_some(change)
    }

    /// Replicas on their way out are gone once all those on their way in are in sync.
    fn complete_reassignment(&mut self) {
        if self.adding.is_empty() && self.removing.is_empty() {
            return;
        }
        let stays = |replica: &BrokerId| !self.removing.contains(replica);
        let in_sync: Vec<BrokerId> = self.in_sync.iter().copied().filter(stays).collect();
        if in_sync.is_empty() || !self.adding.iter().all(|replica| in_sync.contains(replica)) {
            return;
        }
        self.replicas.retain(|replica| !self.removing.contains(replica));
        self.in_sync = in_sync;
        self.removing.clear();
        self.adding.clear();
    }

    fn is_enough(&self) -> bool {
        self.in_sync.len() >= self.min_insync_replicas.min(self.replicas.len())
    }

    /// Replicas that are not in sync and have all that was committed: since the others left nothing was.
    fn eligible(&self, brokers: &Brokers<'_>) -> Vec<BrokerId> {
        if self.is_enough() {
            return Vec::new();
        }
        let mut eligible = self.before.eligible_leader_replicas.clone();
        let more = self.before.in_sync_replicas.iter().filter(|replica| !eligible.contains(replica));
        let more: Vec<BrokerId> = more.copied().collect();
        eligible.extend(more);
        eligible.retain(|replica| {
            self.replicas.contains(replica) && !self.in_sync.contains(replica) && brokers.lost != Some(*replica)
        });
        eligible
    }

    fn elect(&self, eligible: &[BrokerId], brokers: &Brokers<'_>) -> Option<BrokerId> {
        let alive = |replica: &BrokerId| (brokers.may_lead)(*replica);
        let has_all = |replica: &BrokerId| self.in_sync.contains(replica) || eligible.contains(replica);
        // In-sync replicas are replicas, also once a reassignment is complete.
        let clean = |replica: &BrokerId| has_all(replica) && alive(replica);
        let leader = self.before.leader.filter(clean);
        let first = self.replicas.first().copied().filter(clean);
        let stays = match self.election {
            Election::Online | Election::Unclean => leader,
            Election::Preferred => first.or(leader),
        };
        let chosen = stays.or_else(|| self.replicas.iter().copied().find(clean));
        match self.election {
            Election::Online | Election::Preferred => chosen,
            Election::Unclean => chosen.or_else(|| self.replicas.iter().copied().find(alive)),
        }
    }

    /// Those who were in sync or eligible last, and are neither: a person who chooses a leader wants to know them.
    fn last_known(&self, eligible: &[BrokerId]) -> Vec<BrokerId> {
        let before = self.before;
        let all = [&before.last_known_elr, &before.in_sync_replicas, &before.eligible_leader_replicas];
        let mut known = Vec::new();
        for replica in all.into_iter().flatten() {
            let left = !self.in_sync.contains(replica) && !eligible.contains(replica);
            if left && self.replicas.contains(replica) && !known.contains(replica) {
                known.push(*replica);
            }
        }
        known
    }

    /// The data directory of each replica, if it changes.
    fn directories(&self, brokers: &Brokers<'_>) -> Option<Vec<Uuid>> {
        let before = self.before;
        let lost = brokers.lost.is_some_and(|lost| self.replicas.contains(&lost));
        if self.replicas == before.replicas && !lost {
            return None;
        }
        let directory = |replica: &BrokerId| {
            let place = before.replicas.iter().position(|before| before == replica);
            let known = place.and_then(|place| before.directories.get(place));
            match known {
                Some(known) if brokers.lost != Some(*replica) => *known,
                Some(_) | None => (brokers.directory)(*replica),
            }
        };
        let directories: Vec<Uuid> = self.replicas.iter().map(directory).collect();
        (directories != before.directories).then_some(directories)
    }
}
