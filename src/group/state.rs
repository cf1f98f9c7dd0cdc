//! A group: what it has committed, and who is in it.

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{Effects, GroupAnswer, GroupConfig, classic::Classic, offsets::Offsets};
use crate::{
    base::{RawRecord, Set, Timestamp},
    protocol::offsets_records::{self, GroupValue, OffsetValue},
};

/// A group. Changes only by [`Self::replay`], but for what dies with the machine: who waits, and for how long.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub group_id: StrBytes,
    pub offsets: Offsets,
    pub membership: Membership,
}

/// Who is in a group, by the protocol that the members speak.
#[derive(Clone, Debug, Default)]
pub(super) enum Membership {
    /// Nobody, and nothing of earlier members is remembered: the group only keeps offsets.
    #[default]
    Empty,
    /// Members that speak JoinGroup and SyncGroup, or what they left.
    Classic(Box<Classic>),
}

/// What a record changes in its group.
pub(super) enum Change {
    /// An offset that was committed; None: forgotten.
    Offset { topic: StrBytes, partition: i32, value: Option<OffsetValue> },
    /// The classic group that there is from now on, and the same as it was written; None: there is none.
    Classic(Option<(GroupValue, Bytes)>),
}

/// What one step of the machine may use, and where its consequences go.
pub(super) struct Step<'a> {
    pub group_id: &'a str,
    pub config: &'a GroupConfig,
    pub now: Timestamp,
    pub random: Uuid,
    pub effects: &'a mut Effects,
    /// Tokens of parked requests that somebody still waits for.
    pub parked: &'a mut Set<u64>,
}

impl Step<'_> {
    pub fn answer(&mut self, token: u64, answer: GroupAnswer) {
        self.effects.answers.push((token, answer));
    }

    pub fn park(&mut self, token: u64) {
        self.parked.insert(token);
    }

    /// Answers a parked request, unless it was abandoned.
    pub fn answer_parked(&mut self, token: u64, answer: GroupAnswer) {
        if self.parked.remove(&token) {
            self.answer(token, answer);
        }
    }

    /// Appends a record. Whoever does so replays it.
    pub fn record(&mut self, key: Bytes, value: Option<Bytes>) {
        self.effects.records.push((key, value));
    }
}

impl Group {
    pub fn new(group_id: StrBytes) -> Self {
        Self { group_id, offsets: Offsets::default(), membership: Membership::Empty }
    }

    /// Takes in a record, of the log or of a decision.
    pub fn replay(&mut self, change: Change) {
        match change {
            Change::Offset { topic, partition, value } => self.offsets.replay(&topic, partition, value),
            Change::Classic(Some((value, bytes))) => self.classic_or_new().replay(value, bytes),
            Change::Classic(None) => self.membership = Membership::Empty,
        }
    }

    /// The classic group, if it is one.
    pub fn classic(&self) -> Option<&Classic> {
        match &self.membership {
            Membership::Classic(classic) => Some(classic),
            Membership::Empty => None,
        }
    }

    pub fn classic_mut(&mut self) -> Option<&mut Classic> {
        match &mut self.membership {
            Membership::Classic(classic) => Some(classic),
            Membership::Empty => None,
        }
    }

    /// The classic group, which this one is from now on.
    pub fn classic_or_new(&mut self) -> &mut Classic {
        if let Membership::Empty = self.membership {
            self.membership = Membership::Classic(Box::default());
        }
        self.classic_mut().expect("it is one since the lines above")
    }

    /// Forgets a membership that neither a record nor anybody who comes back knows of.
    pub fn settle(&mut self) {
        if self.classic().is_some_and(Classic::is_void) {
            self.membership = Membership::Empty;
        }
    }

    /// Whether there is nothing to remember. Of a settled group.
    pub fn is_void(&self) -> bool {
        matches!(self.membership, Membership::Empty) && self.offsets.is_empty()
    }

    /// Does what is due in it.
    pub fn tick(&mut self, step: &mut Step<'_>) {
        match &mut self.membership {
            Membership::Empty => {}
            Membership::Classic(classic) => classic.tick(step),
        }
    }

    /// When to look at it next: the earliest deadline, or an earlier time.
    pub fn wakes_at(&self) -> Option<Timestamp> {
        match &self.membership {
            Membership::Empty => None,
            Membership::Classic(classic) => classic.wakes_at,
        }
    }

    /// Forgets everything, and appends the tombstones.
    pub fn delete(&mut self, step: &mut Step<'_>) {
        self.offsets.forget_all(step);
        if self.classic().is_some_and(Classic::is_written) {
            step.record(offsets_records::group_key(step.group_id), None);
        }
        self.replay(Change::Classic(None));
    }

    /// What of the group is durable.
    pub fn records(&self) -> impl Iterator<Item = RawRecord> {
        let written = match &self.membership {
            Membership::Empty => None,
            Membership::Classic(classic) => classic.written.clone(),
        };
        let group = written.map(|value| (offsets_records::group_key(&self.group_id), Some(value)));
        group.into_iter().chain(self.offsets.records(&self.group_id))
    }

    /// What a group of this name weighs while it has neither members nor offsets.
    pub fn bytes_of_empty(id: &str) -> usize {
        GROUP_BYTES + 4 * id.len()
    }

    pub fn bytes(&self) -> usize {
        let members = match &self.membership {
            Membership::Empty => 0,
            Membership::Classic(classic) => classic.bytes,
        };
        Self::bytes_of_empty(&self.group_id) + members + self.offsets.bytes()
    }
}

/// What a group weighs without members and offsets, whatever its membership.
const GROUP_BYTES: usize = size_of::<Group>() + size_of::<Classic>() + 128;
