//! The machine: finds the group, lets it decide, keeps count of time and memory.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, OffsetCommitRequest, OffsetDeleteRequest,
        SyncGroupRequest,
    },
    protocol::StrBytes,
};
use uuid::Uuid;

use super::{
    Effects, GroupAnswer, GroupConfig, GroupRequest, Joiner, admin,
    classic::{
        join::{self, Join},
        member::{MEMBER_BYTES, Member},
        session, sync,
    },
    offsets, owned,
    state::{Change, Group, Step},
};
use crate::{
    base::{ErrorCode, RawRecord, Set, Timestamp},
    metadata::Image,
    protocol::{
        offsets_records::{self, GroupValue, OffsetValue, RecordKey},
        primitives::{DecodeError, STRING_BYTES_MAX},
    },
};

/// The answer when there is no memory: clients look for the coordinator again and ask again, while a code that they take for
/// final would end them.
pub(super) const FULL: ErrorCode = ErrorCode::CoordinatorNotAvailable;

/// Groups whose time has come that one step looks at, so that no step takes long.
const GROUPS_PER_TICK_MAX: usize = 1_000;

/// All groups of one partition of `__consumer_offsets`. Lives on that partition's core.
pub struct Groups {
    config: GroupConfig,
    pub(super) groups: BTreeMap<StrBytes, Group>,
    /// When to look at which group: `Group::wakes_at` of each.
    deadlines: BTreeSet<(Timestamp, StrBytes)>,
    parked: Set<u64>,
    bytes: usize,
    next_expiry: Option<Timestamp>,
    /// The group behind which an expiry that is under way goes on.
    expiry_from: Option<StrBytes>,
}

impl Groups {
    /// A machine without groups. Replay the log into it, then call [`Self::loaded`].
    #[must_use]
    pub fn new(config: GroupConfig) -> Self {
        Self {
            config,
            groups: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            parked: Set::default(),
            bytes: 0,
            next_expiry: None,
            expiry_from: None,
        }
    }

    /// Replaces the settings; they hold from the next request on.
    pub fn configure(&mut self, config: GroupConfig) {
        self.config = config;
    }

    /// What this machine may hold from now on. The bound is the broker's, so it moves with what other machines hold.
    pub fn bound(&mut self, bytes_max: usize) {
        self.config.bytes_max = bytes_max;
    }

    /// About how many bytes the groups hold.
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        self.bytes
    }

    /// Decides a request. Its answer, under `token`, is in the effects, or comes later if the request is parked. `now` must not
    /// go back. `random` becomes part of a new member's id.
    pub fn request(&mut self, token: u64, request: GroupRequest, now: Timestamp, random: Uuid) -> Effects {
        let mut effects = Effects::default();
        let answer = match request {
            GroupRequest::Join(request, joiner) => self.join(token, request, joiner, now, random, &mut effects),
            GroupRequest::Sync(request, version) => self.sync(token, &request, version, now, &mut effects),
            GroupRequest::Heartbeat(request) => Some(self.heartbeat(&request, now, &mut effects)),
            GroupRequest::Leave(request, version) => Some(self.leave(&request, version, now, &mut effects)),
            GroupRequest::Commit(request, version) => Some(self.commit(&request, version, now, &mut effects)),
            GroupRequest::Fetch(request) => Some(
                self.groups
                    .get(&request.group_id.0)
                    .map_or_else(|| offsets::fetch_nothing(&request), |group| group.offsets.fetch(&request)),
            ),
            GroupRequest::Describe(group_id, version) => Some(
                self.groups
                    .get(&group_id.0)
                    .map_or_else(|| admin::describe_nothing(group_id.clone(), version), Group::describe),
            ),
            GroupRequest::List(states, types) => Some(GroupAnswer::List(
                self.groups.values().filter_map(|group| group.listed(&states, &types)).collect(),
            )),
            GroupRequest::DeleteGroup(group_id) => Some(self.delete_group(group_id, now, &mut effects)),
            GroupRequest::OffsetDelete(request) => Some(self.delete_offsets(&request, now, &mut effects)),
        };
        effects.answers.extend(answer.map(|answer| (token, answer)));
        effects
    }

    fn join(
        &mut self,
        token: u64,
        request: JoinGroupRequest,
        joiner: Joiner,
        now: Timestamp,
        random: Uuid,
        effects: &mut Effects,
    ) -> Option<GroupAnswer> {
        let id = request.group_id.0.clone();
        let refusal = |error| Some(join::refusal(request.member_id.clone(), error, joiner.version));
        if let Err(error) = join::check(&request, &self.config) {
            return refusal(error);
        }
        if !self.has_room_for_member(&request, &joiner) {
            effects.full = true;
            return refusal(FULL);
        }
        if !self.groups.contains_key(&id) {
            // A member of a group that is gone starts over.
            if !request.member_id.is_empty() {
                return refusal(ErrorCode::UnknownMemberId);
            }
            if !self.create_group(&id, effects) {
                return refusal(FULL);
            }
        }
        let join = Join { token, request, joiner };
        self.with_group(&id, now, random, effects, |group, step| {
            let classic = group.classic_or_new();
            classic.join(&join, step);
            classic.weigh();
        });
        None
    }

    fn has_room_for_member(&self, request: &JoinGroupRequest, joiner: &Joiner) -> bool {
        let protocols: usize = request.protocols.iter().map(|one| one.name.len() + 2 * one.metadata.len() + 64).sum();
        let growth = MEMBER_BYTES + protocols + 4 * joiner.client_id.len();
        let group = self.groups.get(&request.group_id.0);
        let member = group.and_then(|group| group.classic()?.members.get(&request.member_id));
        let known = member.map_or(0, Member::bytes);
        self.bytes + growth.saturating_sub(known) <= self.config.bytes_max
    }

    fn room(&self) -> usize {
        self.config.bytes_max.saturating_sub(self.bytes)
    }

    /// Makes sure that a group is there. False if there is no memory for it.
    fn create_group(&mut self, id: &StrBytes, effects: &mut Effects) -> bool {
        if self.groups.contains_key(id) {
            return true;
        }
        if self.room() < Group::bytes_of_empty(id) {
            effects.full = true;
            return false;
        }
        self.insert_group(id);
        true
    }

    fn insert_group(&mut self, id: &StrBytes) -> &mut Group {
        if !self.groups.contains_key(id) {
            let group = Group::new(owned(id));
            self.bytes += group.bytes();
            self.groups.insert(group.group_id.clone(), group);
        }
        self.groups.get_mut(id).expect("there since the lines above")
    }

    fn sync(
        &mut self,
        token: u64,
        request: &SyncGroupRequest,
        version: i16,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Option<GroupAnswer> {
        if let Err(error) = sync::check(request, version) {
            return Some(sync::refusal(error));
        }
        let room = self.room();
        let known = self.with_group(&request.group_id.0, now, Uuid::nil(), effects, |group, step| {
            let classic = group.classic_mut()?;
            classic.sync(token, request, room, step);
            classic.weigh();
            Some(())
        });
        if known.flatten().is_none() { Some(sync::refusal(ErrorCode::UnknownMemberId)) } else { None }
    }

    fn heartbeat(&mut self, request: &HeartbeatRequest, now: Timestamp, effects: &mut Effects) -> GroupAnswer {
        if request.group_id.is_empty() {
            return session::heartbeat_answer(Some(ErrorCode::InvalidGroupId));
        }
        let error = self.with_group(&request.group_id.0, now, Uuid::nil(), effects, |group, step| {
            group.classic_mut().map(|classic| classic.heartbeat(request, step))
        });
        session::heartbeat_answer(error.flatten().unwrap_or(Some(ErrorCode::UnknownMemberId)))
    }

    fn leave(
        &mut self,
        request: &LeaveGroupRequest,
        version: i16,
        now: Timestamp,
        effects: &mut Effects,
    ) -> GroupAnswer {
        if request.group_id.is_empty() {
            return session::leave_refusal(ErrorCode::InvalidGroupId);
        }
        let answer = self.with_group(&request.group_id.0, now, Uuid::nil(), effects, |group, step| {
            let classic = group.classic_mut()?;
            let answer = classic.leave(request, version, step);
            classic.weigh();
            Some(answer)
        });
        answer.flatten().unwrap_or_else(|| session::leave_nothing(request, version))
    }

    fn commit(
        &mut self,
        request: &OffsetCommitRequest,
        version: i16,
        now: Timestamp,
        effects: &mut Effects,
    ) -> GroupAnswer {
        /// From this version on a group that is not there has an error of its own (KIP-848).
        const NOT_FOUND_VERSION: i16 = 9;
        let id = &request.group_id.0;
        if id.len() > STRING_BYTES_MAX {
            return offsets::commit_refusal(request, ErrorCode::InvalidGroupId);
        }
        // A commit without a generation makes the group, for those who only keep offsets here.
        let unmanaged = request.generation_id_or_member_epoch < 0;
        if unmanaged && !self.create_group(id, effects) {
            return offsets::commit_refusal(request, FULL);
        }
        let room = self.room();
        let answer = self.with_group(id, now, Uuid::nil(), effects, |group, step| group.commit(request, room, step));
        answer.unwrap_or_else(|| {
            let newer = version >= NOT_FOUND_VERSION;
            let error = if newer { ErrorCode::GroupIdNotFound } else { ErrorCode::IllegalGeneration };
            offsets::commit_refusal(request, error)
        })
    }

    fn delete_group(&mut self, group_id: GroupId, now: Timestamp, effects: &mut Effects) -> GroupAnswer {
        let error = self.with_group(&group_id.0, now, Uuid::nil(), effects, |group, step| group.delete_if_empty(step));
        admin::deleted(group_id, error.unwrap_or(Some(ErrorCode::GroupIdNotFound)))
    }

    fn delete_offsets(&mut self, request: &OffsetDeleteRequest, now: Timestamp, effects: &mut Effects) -> GroupAnswer {
        let id = &request.group_id.0;
        let answer = self.with_group(id, now, Uuid::nil(), effects, |group, step| group.delete_offsets(request, step));
        answer.unwrap_or_else(|| offsets::delete_refusal(ErrorCode::GroupIdNotFound))
    }

    /// Lets a group act, then does what is due in it at once, and books what changed. None if there is no such group.
    pub(super) fn with_group<T>(
        &mut self,
        id: &StrBytes,
        now: Timestamp,
        random: Uuid,
        effects: &mut Effects,
        act: impl FnOnce(&mut Group, &mut Step<'_>) -> T,
    ) -> Option<T> {
        let group = self.groups.get_mut(id)?;
        let bytes_before = group.bytes();
        let woken_before = group.wakes_at();
        let mut step = Step { group_id: id, config: &self.config, now, random, effects, parked: &mut self.parked };
        let result = act(group, &mut step);
        if group.wakes_at().is_some_and(|deadline| deadline <= now) {
            group.tick(&mut step);
        }
        group.settle();
        self.book(id, bytes_before, woken_before);
        Some(result)
    }

    fn book(&mut self, id: &StrBytes, bytes_before: usize, woken_before: Option<Timestamp>) {
        let Some(group) = self.groups.get(id) else { return };
        let void = group.is_void();
        let (group_id, bytes) = (group.group_id.clone(), if void { 0 } else { group.bytes() });
        let wakes_at = group.wakes_at().filter(|_| !void);
        self.bytes = self.bytes + bytes - bytes_before;
        if wakes_at != woken_before {
            if let Some(deadline) = woken_before {
                self.deadlines.remove(&(deadline, group_id.clone()));
            }
            self.deadlines.extend(wakes_at.map(|deadline| (deadline, group_id)));
        }
        if void {
            self.groups.remove(id);
        }
    }

    /// Does what is due. If that is much, the next deadline stays in the past, and one calls again.
    pub fn tick(&mut self, now: Timestamp) -> Effects {
        let mut effects = Effects::default();
        for _ in 0..GROUPS_PER_TICK_MAX {
            let due = self.deadlines.first().filter(|(deadline, _)| *deadline <= now);
            let Some((_, id)) = due.cloned() else { break };
            self.with_group(&id, now, Uuid::nil(), &mut effects, |_, _| ());
        }
        if self.next_expiry.is_some_and(|deadline| deadline <= now) {
            let from = self.expiry_from.take();
            self.expiry_from = self.expire_some(from, now, &mut effects);
            if self.expiry_from.is_none() {
                self.next_expiry = Some(now + self.config.offsets_retention_check_interval_ms);
            }
        }
        effects
    }

    /// When [`Self::tick`] should be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(deadline, _)| *deadline).into_iter().chain(self.next_expiry).min()
    }

    /// Takes in a record of the log. Records of other kinds of groups are passed over.
    /// # Errors  A record that is not readable. It changed nothing, and the next one may be taken in.
    pub fn replay(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), DecodeError> {
        let (id, change) = match (offsets_records::read_key(key)?, value) {
            (RecordKey::Other(_), _) => return Ok(()),
            (RecordKey::Offset { group, topic, partition }, value) => {
                let value = value.map(OffsetValue::read).transpose()?;
                (group, Change::Offset { topic, partition, value })
            }
            (RecordKey::Group { group }, Some(value)) => {
                (group, Change::Classic(Some((GroupValue::read(value)?, Bytes::copy_from_slice(value)))))
            }
            (RecordKey::Group { group }, None) => (group, Change::Classic(None)),
        };
        let group = self.insert_group(&id);
        let (bytes_before, woken_before) = (group.bytes(), group.wakes_at());
        group.replay(change);
        group.settle();
        self.book(&id, bytes_before, woken_before);
        Ok(())
    }

    /// The log has been replayed to its end: the members' sessions begin, and the search for what has expired.
    pub fn loaded(&mut self, now: Timestamp) -> Effects {
        let mut effects = Effects::default();
        let ids: Vec<StrBytes> = self.groups.keys().cloned().collect();
        for id in &ids {
            self.with_group(id, now, Uuid::nil(), &mut effects, |group, step| {
                if let Some(classic) = group.classic_mut() {
                    classic.loaded(step);
                }
            });
        }
        self.next_expiry = Some(now + self.config.offsets_retention_check_interval_ms);
        effects
    }

    /// A topic is gone: so are its offsets.
    pub fn topic_deleted(&mut self, name: &StrBytes, now: Timestamp) -> Effects {
        let mut effects = Effects::default();
        let concerned = self.groups.iter().filter(|(_, group)| group.offsets.are_of(name));
        let ids: Vec<StrBytes> = concerned.map(|(id, _)| id.clone()).collect();
        for id in &ids {
            self.with_group(id, now, Uuid::nil(), &mut effects, |group, step| group.offsets.forget_topic(name, step));
        }
        effects
    }

    /// Forgets what was committed for topics that are gone from the image, or gone and made again under another id: their
    /// deletion may have been told to nobody, while the log was being read or just before the process ended.
    pub fn forget_deleted(&mut self, now: Timestamp, image: &Image) -> Effects {
        let mut effects = Effects::default();
        let is_gone = |name: &StrBytes, value: &OffsetValue| match image.topic(name) {
            Some(topic) => !offsets::same_topic(value.topic_id, topic.id.0),
            None => true,
        };
        let mut gone: Vec<(StrBytes, StrBytes, i32)> = Vec::new();
        for (id, group) in &self.groups {
            let of_gone = group.offsets.iter().filter(|(name, _, value)| is_gone(name, value));
            gone.extend(of_gone.map(|(name, partition, _)| (id.clone(), name.clone(), partition)));
        }
        for (id, name, partition) in gone {
            self.with_group(&id, now, Uuid::nil(), &mut effects, |group, step| {
                group.offsets.forget(&name, partition, step);
            });
        }
        effects
    }

    /// Everything that a restart would have to find, as records. Appending them makes all earlier ones superfluous.
    #[must_use]
    pub fn snapshot(&self) -> Vec<RawRecord> {
        self.groups.values().flat_map(Group::records).collect()
    }

    /// Nobody waits for this request any more. A parked member stays in its group, as in Kafka: it may come back.
    pub fn abandon(&mut self, token: u64) {
        self.parked.remove(&token);
    }
}

#[cfg(test)]
impl Groups {
    /// Holds the books against what they count.
    pub(super) fn check_books(&self, hint: &str) {
        let mut deadlines = BTreeSet::new();
        let mut bytes = 0;
        for (id, group) in &self.groups {
            assert!(!group.is_void(), "{hint}: {id} is void");
            deadlines.extend(group.wakes_at().map(|deadline| (deadline, id.clone())));
            bytes += group.bytes();
            let mut again = Group::new(id.clone());
            for (topic, partition, value) in group.offsets.iter() {
                again.offsets.replay(topic, partition, Some(value.clone()));
            }
            assert_eq!(again.offsets.bytes(), group.offsets.bytes(), "{hint}: {id}");
            if let Some(classic) = group.classic() {
                assert!(!classic.is_void(), "{hint}: {id} has a membership of nobody");
                classic.check(&format!("{hint}: {id}"));
            }
        }
        assert_eq!(deadlines, self.deadlines, "{hint}");
        assert_eq!(bytes, self.bytes, "{hint}");
        let waiting = self.groups.values().filter_map(Group::classic).flat_map(|classic| classic.members.values());
        let waiting: usize =
            waiting.map(|one| usize::from(one.joining.is_some()) + usize::from(one.syncing.is_some())).sum();
        assert!(self.parked.len() <= waiting, "{hint}: {} parked, {waiting} members wait", self.parked.len());
    }
}
