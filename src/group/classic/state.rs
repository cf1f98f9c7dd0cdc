//! A classic group: its state, its members, and the arithmetic over them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use indexmap::IndexMap;
use kafka_protocol::{
    messages::{OffsetCommitRequest, join_group_request::JoinGroupRequestProtocol},
    protocol::StrBytes,
};

use crate::{
    base::{ErrorCode, Map, Timestamp},
    group::{
        classic::{member::Member, subscription},
        state::Step,
    },
    protocol::offsets_records::{self, GroupValue, MemberValue},
};

/// Kafka's generation of a group without members that has never had any.
const FIRST_GENERATION: i32 = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::group) enum State {
    Empty,
    /// Waiting for members to join. `initial`: the group had none, and only time ends the wait.
    PreparingRebalance {
        initial: bool,
    },
    /// Waiting for the leader's assignment.
    CompletingRebalance,
    Stable,
}

impl State {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance { .. } => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// When to end the wait for members to join.
#[derive(Clone, Copy, Debug)]
pub(in crate::group) enum JoinTimer {
    /// A first rebalance waits in steps, as long as new members come and the longest rebalance time-out is not used up.
    Initial {
        deadline: Timestamp,
        delay_ms: i64,
        remaining_ms: i64,
    },
    Rebalance {
        deadline: Timestamp,
    },
}

impl JoinTimer {
    pub const fn deadline(self) -> Timestamp {
        match self {
            Self::Initial { deadline, .. } | Self::Rebalance { deadline } => deadline,
        }
    }
}

pub(in crate::group) type Members = IndexMap<StrBytes, Member, foldhash::fast::FixedState>;

/// What its last record says changes only by [`Self::replay`]. What leads to the next record (who joins, who has fetched its
/// part) and all deadlines die with the machine.
#[derive(Clone, Debug)]
pub(in crate::group) struct Classic {
    pub state: State,
    pub state_timestamp: Option<Timestamp>,
    pub generation: i32,
    pub protocol_type: Option<StrBytes>,
    pub protocol_name: Option<StrBytes>,
    pub leader: Option<StrBytes>,
    /// By member id, in the order of joining.
    pub members: Members,
    /// Member ids of static members, by instance id.
    pub static_members: Map<StrBytes, StrBytes>,
    /// Member ids that were given out and have not joined yet, with the time at which they lapse (KIP-394).
    pub pending_members: BTreeMap<StrBytes, Timestamp>,
    /// A member came since the initial delay last began.
    pub new_member_added: bool,
    pub join_timer: Option<JoinTimer>,
    /// When members that have not sent SyncGroup are removed.
    pub sync_deadline: Option<Timestamp>,
    /// The topics of all members; None if the group is no consumer group, has no protocol, or is not readable.
    pub subscribed: Option<BTreeSet<StrBytes>>,
    /// The value of the group's last record: what a restart would find.
    pub written: Option<Bytes>,
    /// What it holds in memory.
    pub bytes: usize,
    /// The earliest deadline since the last look, or an earlier time: sessions move on without telling.
    pub wakes_at: Option<Timestamp>,
}

impl Default for Classic {
    fn default() -> Self {
        Self {
            state: State::Empty,
            state_timestamp: None,
            generation: FIRST_GENERATION,
            protocol_type: None,
            protocol_name: None,
            leader: None,
            members: Members::default(),
            static_members: Map::default(),
            pending_members: BTreeMap::new(),
            new_member_added: false,
            join_timer: None,
            sync_deadline: None,
            subscribed: None,
            written: None,
            bytes: 0,
            wakes_at: None,
        }
    }
}

impl Classic {
    /// Takes in what its record says. What members wait for, what else they offer, and when they are taken for dead stays.
    pub fn replay(&mut self, value: GroupValue, bytes: Bytes) {
        self.state = if value.members.is_empty() { State::Empty } else { State::Stable };
        self.state_timestamp = value.state_timestamp;
        self.generation = value.generation.max(FIRST_GENERATION);
        self.protocol_type = (!value.protocol_type.is_empty()).then_some(value.protocol_type);
        self.protocol_name = value.protocol_name;
        if self.are_members(&value.members) {
            for (member, value) in self.members.values_mut().zip(value.members) {
                *member = Member::replayed(Some(std::mem::take(member)), value, self.protocol_name.as_ref());
            }
        } else {
            self.replay_members(value.members);
        }
        // A leader that is no member would never be heard of, and nobody else could lead.
        self.leader = value.leader.filter(|leader| self.members.contains_key(leader)).or_else(|| self.first_member());
        self.written = Some(bytes);
        self.subscribe();
        self.weigh();
    }

    /// Whether a record has the members that are known, each under its instance, in their order: mostly nobody has come or
    /// gone, and nobody needs to be found anew.
    fn are_members(&self, values: &[MemberValue]) -> bool {
        let is = |member: &Member, value: &MemberValue| {
            let instance = value.group_instance_id.as_ref();
            member.member_id == value.member_id
                && member.group_instance_id.as_ref() == instance
                && instance.is_none_or(|instance| self.static_members.get(instance) == Some(&value.member_id))
        };
        let instances = values.iter().filter(|value| value.group_instance_id.is_some()).count();
        self.members.len() == values.len()
            && self.static_members.len() == instances
            && self.members.values().zip(values).all(|(member, value)| is(member, value))
    }

    fn replay_members(&mut self, values: Vec<MemberValue>) {
        let mut before = std::mem::take(&mut self.members);
        self.static_members.clear();
        for value in values {
            // We never write a member or an instance twice, but the disk may say what it likes.
            let instance_known =
                value.group_instance_id.as_ref().is_some_and(|id| self.static_members.contains_key(id));
            if instance_known || self.members.contains_key(&value.member_id) {
                continue;
            }
            let known = before.swap_remove(&value.member_id);
            let member = Member::replayed(known, value, self.protocol_name.as_ref());
            if let Some(instance) = &member.group_instance_id {
                self.static_members.insert(instance.clone(), member.member_id.clone());
            }
            self.members.insert(member.member_id.clone(), member);
        }
    }

    /// Decides what the group is from here on, also after a restart: appends its record and takes it in.
    pub fn decide(&mut self, value: GroupValue, step: &mut Step<'_>) {
        let bytes = value.write();
        step.record(offsets_records::group_key(step.group_id), Some(bytes.clone()));
        self.replay(value, bytes);
    }

    /// Whether there is nothing to remember.
    pub fn is_void(&self) -> bool {
        self.state == State::Empty && self.written.is_none() && self.pending_members.is_empty()
    }

    /// Whether a restart would find it.
    pub fn is_written(&self) -> bool {
        self.written.is_some()
    }

    /// The group as its record would hold it now.
    pub fn value(&self) -> GroupValue {
        GroupValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol_name: self.protocol_name.clone(),
            leader: self.leader.clone(),
            state_timestamp: self.state_timestamp,
            members: self.members.values().map(|member| member.value(self.protocol_name.as_ref())).collect(),
        }
    }

    /// How long the group's record would be with these assignments in it, within a few bytes.
    pub fn record_bytes(&self, group_id: &str, assignments_bytes: usize) -> usize {
        let members: usize = self
            .members
            .values()
            .map(|member| {
                let subscription = self.protocol_name.as_ref().map_or(0, |name| member.metadata(name).len());
                let instance = member.group_instance_id.as_ref().map_or(0, |id| id.len());
                32 + member.member_id.len()
                    + instance
                    + member.client_id.len()
                    + member.client_host.len()
                    + subscription
            })
            .sum();
        256 + 2 * group_id.len() + members + assignments_bytes
    }

    /// Whether the group's record with the assignments that stand can be appended.
    pub fn fits_record(&self, step: &Step<'_>) -> bool {
        self.record_bytes(step.group_id, self.assignments_bytes()) <= step.config.record_bytes_max
    }

    pub fn assignments_bytes(&self) -> usize {
        self.members.values().map(|member| member.assignment.len()).sum()
    }

    pub fn enter(&mut self, state: State, now: Timestamp) {
        self.state = state;
        self.state_timestamp = Some(now);
    }

    pub fn is_leader(&self, member_id: &StrBytes) -> bool {
        self.leader.as_ref() == Some(member_id)
    }

    pub fn first_member(&self) -> Option<StrBytes> {
        self.members.keys().next().cloned()
    }

    /// How long a rebalance waits: as long as the most patient member asked for.
    pub fn rebalance_timeout_ms(&self) -> i64 {
        self.members.values().map(|member| i64::from(member.rebalance_timeout_ms.max(0))).max().unwrap_or(0)
    }

    pub fn joining_count(&self) -> usize {
        self.members.values().filter(|member| member.joining.is_some()).count()
    }

    pub fn all_joined(&self) -> bool {
        self.pending_members.is_empty() && self.members.values().all(|member| member.joining.is_some())
    }

    /// Checks that the member exists and that no newer instance has taken its place.
    pub fn check_member(&self, member_id: &StrBytes, instance: Option<&StrBytes>) -> Result<(), ErrorCode> {
        if let Some(instance) = instance {
            let known = self.static_members.get(instance).ok_or(ErrorCode::UnknownMemberId)?;
            if known != member_id {
                return Err(ErrorCode::FencedInstanceId);
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    /// Whether a member with these protocols can live with those who are there.
    pub fn supports(&self, protocol_type: &StrBytes, protocols: &[JoinGroupRequestProtocol]) -> bool {
        if self.state == State::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_ref() == Some(protocol_type)
            && protocols.iter().any(|one| self.members.values().all(|member| member.supports(&one.name)))
    }

    /// The protocol that most members like best among those that all support. None if there is none.
    /// Between equals, the one whose first voter joined first.
    pub fn select_protocol(&self) -> Option<StrBytes> {
        let common = |name: &StrBytes| self.members.values().all(|member| member.supports(name));
        let first = self.members.values().next()?;
        let candidates: Vec<&StrBytes> =
            first.protocols.iter().map(|(name, _)| name).filter(|name| common(name)).collect();
        let mut votes: IndexMap<&StrBytes, usize, foldhash::fast::FixedState> = IndexMap::default();
        for member in self.members.values() {
            if let Some((name, _)) = member.protocols.iter().find(|(name, _)| candidates.contains(&name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        let most = *votes.values().max()?;
        votes.into_iter().find(|(_, count)| *count == most).map(|(name, _)| name.clone())
    }

    /// Takes a member out. Answers nothing: that is up to the caller.
    pub fn remove_member(&mut self, member_id: &StrBytes) -> Option<Member> {
        self.pending_members.remove(member_id);
        let member = self.members.shift_remove(member_id)?;
        if let Some(instance) = &member.group_instance_id {
            self.static_members.remove(instance);
        }
        if self.is_leader(member_id) {
            self.leader = self.first_member();
        }
        Some(member)
    }

    /// Starts the member's session anew.
    pub fn touch(&mut self, member_id: &StrBytes, now: Timestamp) {
        if let Some(member) = self.members.get_mut(member_id) {
            let deadline = now + i64::from(member.session_timeout_ms);
            member.session_deadline = Some(deadline);
            self.wake_at(deadline);
        }
    }

    pub fn wake_at(&mut self, deadline: Timestamp) {
        self.wakes_at = Some(self.wakes_at.map_or(deadline, |earlier| earlier.min(deadline)));
    }

    /// The earliest deadline of all.
    pub fn earliest_deadline(&self) -> Option<Timestamp> {
        let sessions = self.members.values().filter_map(|member| member.session_deadline);
        let pending = self.pending_members.values().copied();
        let timers = self.join_timer.map(JoinTimer::deadline).into_iter().chain(self.sync_deadline);
        sessions.chain(pending).chain(timers).min()
    }

    pub fn uses_consumer_protocol(&self) -> bool {
        self.protocol_type.as_deref() == Some("consumer")
    }

    /// Reads out of the members' metadata which topics the group is subscribed to.
    pub fn subscribe(&mut self) {
        self.subscribed = match &self.protocol_name {
            _ if !self.uses_consumer_protocol() => None,
            _ if self.members.is_empty() => Some(BTreeSet::new()),
            Some(name) => subscription::topics(self.members.values().map(|member| member.metadata(name))),
            None => None,
        };
    }

    /// Whether the group reads the topic, or may do so for all that we know.
    pub fn is_subscribed(&self, topic: &StrBytes) -> bool {
        self.subscribed.as_ref().map_or(self.uses_consumer_protocol(), |topics| topics.contains(topic))
    }

    /// Whether it can be told which offsets members still need.
    pub fn tells_subscriptions(&self) -> bool {
        self.state == State::Empty || self.uses_consumer_protocol()
    }

    /// Sums up what the members hold in memory.
    pub fn weigh(&mut self) {
        let members: usize = self.members.values().map(Member::bytes).sum();
        let pending: usize = self.pending_members.keys().map(|id| 2 * id.len() + 64).sum();
        self.bytes = members + pending;
    }

    pub fn check_commit(&self, request: &OffsetCommitRequest) -> Result<(), ErrorCode> {
        let generation = request.generation_id_or_member_epoch;
        // An administrator, or a consumer that assigns its partitions itself.
        if generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        if generation < 0 && request.member_id.is_empty() && request.group_instance_id.is_none() {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.check_member(&request.member_id, request.group_instance_id.as_ref())?;
        if generation != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        match self.state {
            // The member knows the generation and not yet its part of it.
            State::CompletingRebalance => Err(ErrorCode::RebalanceInProgress),
            State::Empty | State::PreparingRebalance { .. } | State::Stable => Ok(()),
        }
    }

    /// A commit is a sign of life.
    pub fn committed(&mut self, member_id: &StrBytes, now: Timestamp) {
        if matches!(self.state, State::Stable | State::PreparingRebalance { .. }) {
            self.touch(member_id, now);
        }
    }

    /// The log has been replayed to its end: sessions begin.
    pub fn loaded(&mut self, step: &mut Step<'_>) {
        let members: Vec<StrBytes> = self.members.keys().cloned().collect();
        members.iter().for_each(|member_id| self.touch(member_id, step.now));
        // The bound may have shrunk: whoever does not get in again has to go.
        if self.members.len() > step.config.size_max {
            self.prepare_rebalance(step);
        }
    }
}

#[cfg(test)]
impl Classic {
    /// Holds the books against what they count, and what is durable against its record.
    pub fn check(&self, hint: &str) {
        let earliest = self.earliest_deadline();
        assert!(earliest.is_none() || self.wakes_at.is_some_and(|wakes_at| Some(wakes_at) <= earliest), "{hint}");
        let durable = matches!(self.state, State::Stable | State::Empty);
        if let Some(written) = self.written.as_ref().filter(|_| durable) {
            let read = GroupValue::read(written).expect("our own record");
            let mut again = Self::default();
            again.replay(read, written.clone());
            assert_eq!(again.state, self.state, "{hint}");
            assert_eq!(again.generation, self.generation, "{hint}");
            assert_eq!(again.protocol_type, self.protocol_type, "{hint}");
            assert_eq!(again.protocol_name, self.protocol_name, "{hint}");
            assert_eq!(again.leader, self.leader, "{hint}");
            assert_eq!(again.static_members, self.static_members, "{hint}");
            assert_eq!(again.subscribed, self.subscribed, "{hint}");
            assert_eq!(again.value().members, self.value().members, "{hint}");
        }
        assert_eq!(
            self.state == State::Empty,
            self.members.is_empty() && !matches!(self.state, State::PreparingRebalance { .. }),
            "{hint}"
        );
        assert!(self.leader.as_ref().is_none_or(|leader| self.members.contains_key(leader)), "{hint}");
        let statics = self.members.values().filter(|member| member.group_instance_id.is_some()).count();
        assert_eq!(statics, self.static_members.len(), "{hint}");
        // Nobody may wait in a state that answers nobody.
        let joining = self.members.values().any(|member| member.joining.is_some());
        assert!(
            !joining || matches!(self.state, State::PreparingRebalance { .. }),
            "{hint}: joining in {:?}",
            self.state
        );
        let syncing = self.members.values().any(|member| member.syncing.is_some());
        assert!(!syncing || self.state == State::CompletingRebalance, "{hint}: syncing in {:?}", self.state);
        assert_eq!(self.join_timer.is_some(), matches!(self.state, State::PreparingRebalance { .. }), "{hint}");
    }
}
