//! JoinGroup: who may come in, under which id, and whether that starts a rebalance.

use bytes::Bytes;
use kafka_protocol::{
    messages::{JoinGroupRequest, JoinGroupResponse, join_group_response::JoinGroupResponseMember},
    protocol::StrBytes,
};

use crate::{
    base::ErrorCode,
    group::{
        GroupAnswer, GroupConfig, Joiner,
        classic::{
            member::{Member, ParkedJoin, owned_protocols},
            state::{Classic, State},
            sync,
        },
        owned,
        state::Step,
    },
    protocol::primitives::STRING_BYTES_MAX,
};

/// How long a member that has not been in a generation yet may wait, in milliseconds. It does not know its id and cannot send
/// heartbeats, and its connection says nothing while the request is parked.
const NEW_MEMBER_WAIT_MS: i64 = 300_000;
/// Protocols that a member may offer. Clients offer one to five; the vote is quadratic in this.
const PROTOCOLS_MAX: usize = 256;
/// Member ids given out to members that have not come back with them.
const PENDING_MEMBERS_MAX: usize = 10_000;
/// From this version on a member without an id is given one and has to come back with it (KIP-394).
const MEMBER_ID_FIRST_VERSION: i16 = 4;
/// From this version on a leader can be told that the assignment stands (KIP-814).
const SKIP_ASSIGNMENT_VERSION: i16 = 9;

/// What can be said about a JoinGroup without looking at its group.
pub(in crate::group) fn check(request: &JoinGroupRequest, config: &GroupConfig) -> Result<(), ErrorCode> {
    let strings = request.protocols.iter().map(|one| &one.name).chain(&request.group_instance_id);
    if request.group_id.is_empty() || request.group_id.len() > STRING_BYTES_MAX {
        return Err(ErrorCode::InvalidGroupId);
    }
    if !(config.min_session_timeout_ms..=config.max_session_timeout_ms).contains(&request.session_timeout_ms) {
        return Err(ErrorCode::InvalidSessionTimeout);
    }
    if request.protocols.len() > PROTOCOLS_MAX {
        return Err(ErrorCode::InconsistentGroupProtocol);
    }
    // Kafka's readers stop at such strings, so its records could not hold them.
    if request.protocol_type.len() > STRING_BYTES_MAX || strings.into_iter().any(|one| one.len() > STRING_BYTES_MAX) {
        return Err(ErrorCode::InvalidRequest);
    }
    Ok(())
}

pub(in crate::group) fn refusal(member_id: StrBytes, error: ErrorCode, version: i16) -> GroupAnswer {
    GroupAnswer::Join(
        JoinGroupResponse::default()
            .with_error_code(error.code())
            .with_generation_id(-1)
            // The name became nullable in v7.
            .with_protocol_name((version < 7).then(StrBytes::new))
            .with_member_id(member_id),
    )
}

/// A JoinGroup that passed [`check`].
pub(in crate::group) struct Join {
    pub token: u64,
    pub request: JoinGroupRequest,
    pub joiner: Joiner,
}

impl Join {
    fn refuse(&self, member_id: StrBytes, error: ErrorCode, step: &mut Step<'_>) {
        step.answer(self.token, refusal(member_id, error, self.joiner.version));
    }

    const fn parked(&self) -> ParkedJoin {
        ParkedJoin { token: self.token, version: self.joiner.version }
    }

    fn rebalance_timeout_ms(&self) -> i32 {
        // Version 0 had no such field.
        if self.joiner.version == 0 { self.request.session_timeout_ms } else { self.request.rebalance_timeout_ms }
    }
}

impl Classic {
    pub(in crate::group) fn join(&mut self, join: &Join, step: &mut Step<'_>) {
        let member_id = join.request.member_id.clone();
        if member_id.is_empty() && self.pending_members.len() >= PENDING_MEMBERS_MAX {
            return join.refuse(member_id, ErrorCode::GroupMaxSizeReached, step);
        }
        if !self.has_room_for(&member_id, step.config) {
            if let Some(member) = self.remove_member(&member_id) {
                self.dismiss(member, ErrorCode::GroupMaxSizeReached, step);
                self.maybe_complete_join(step);
            }
            return join.refuse(StrBytes::new(), ErrorCode::GroupMaxSizeReached, step);
        }
        if !self.supports(&join.request.protocol_type, &join.request.protocols) {
            return join.refuse(member_id, ErrorCode::InconsistentGroupProtocol, step);
        }
        if member_id.is_empty() { self.join_anew(join, step) } else { self.join_known(join, step) }
    }

    fn has_room_for(&self, member_id: &StrBytes, config: &GroupConfig) -> bool {
        let known = self.members.get(member_id);
        match self.state {
            State::Empty => true,
            // Whoever waits already is in; the last to come back are the ones too many, should the bound have shrunk.
            State::PreparingRebalance { .. } => {
                known.is_some_and(|member| member.joining.is_some()) || self.joining_count() < config.size_max
            }
            State::CompletingRebalance | State::Stable => known.is_some() || self.members.len() < config.size_max,
        }
    }

    fn join_anew(&mut self, join: &Join, step: &mut Step<'_>) {
        let instance = join.request.group_instance_id.as_ref();
        let member_id = new_member_id(instance.unwrap_or(&join.joiner.client_id), step);
        match instance.and_then(|instance| self.static_members.get(instance).cloned()) {
            Some(old_member_id) => self.replace_static_member(join, &old_member_id, member_id, step),
            None if instance.is_none() && join.joiner.version >= MEMBER_ID_FIRST_VERSION => {
                let deadline = step.now + i64::from(join.request.session_timeout_ms);
                self.pending_members.insert(member_id.clone(), deadline);
                self.wake_at(deadline);
                join.refuse(member_id, ErrorCode::MemberIdRequired, step);
            }
            None => self.add_member(join, member_id, step),
        }
    }

    fn join_known(&mut self, join: &Join, step: &mut Step<'_>) {
        let member_id = &join.request.member_id;
        if join.request.group_instance_id.is_none() && self.pending_members.contains_key(member_id) {
            return self.add_member(join, owned(member_id), step);
        }
        if let Err(error) = self.check_member(member_id, join.request.group_instance_id.as_ref()) {
            return join.refuse(member_id.clone(), error, step);
        }
        let unchanged = self.members[member_id].offers(&join.request.protocols);
        let leads = self.is_leader(member_id);
        match self.state {
            // It may not have heard the answer to its first request.
            State::CompletingRebalance if unchanged => self.answer_current(join, leads, step),
            // A follower with nothing new only needs the generation. A leader that joins wants a rebalance, because of something
            // that we cannot see, such as a topic's new partitions.
            State::Stable if unchanged && !leads => self.answer_current(join, false, step),
            State::PreparingRebalance { .. } | State::CompletingRebalance | State::Stable => {
                let member_id = member_id.clone();
                self.update_member(join, &member_id, step);
                self.rebalance_or_complete_join(step);
            }
            State::Empty => join.refuse(member_id.clone(), ErrorCode::UnknownMemberId, step),
        }
    }

    fn answer_current(&self, join: &Join, with_members: bool, step: &mut Step<'_>) {
        let members = if with_members { self.joined_members() } else { Vec::new() };
        let leader = self.leader.clone().unwrap_or_default();
        let answer = self.joined(join.request.member_id.clone(), leader).with_members(members);
        step.answer(join.token, GroupAnswer::Join(answer));
    }

    /// The answer that tells a member of the current generation.
    pub(in crate::group) fn joined(&self, member_id: StrBytes, leader: StrBytes) -> JoinGroupResponse {
        JoinGroupResponse::default()
            .with_generation_id(self.generation)
            .with_protocol_type(self.protocol_type.clone())
            .with_protocol_name(Some(self.protocol_name.clone().unwrap_or_default()))
            .with_leader(leader)
            .with_member_id(member_id)
    }

    /// What the leader is told about all members.
    pub(in crate::group) fn joined_members(&self) -> Vec<JoinGroupResponseMember> {
        let protocol_name = self.protocol_name.clone().unwrap_or_default();
        self.members
            .values()
            .map(|member| {
                JoinGroupResponseMember::default()
                    .with_member_id(member.member_id.clone())
                    .with_group_instance_id(member.group_instance_id.clone())
                    .with_metadata(member.metadata(&protocol_name))
            })
            .collect()
    }

    fn add_member(&mut self, join: &Join, member_id: StrBytes, step: &mut Step<'_>) {
        if self.state == (State::PreparingRebalance { initial: true }) {
            self.new_member_added = true;
        }
        if self.members.is_empty() {
            self.protocol_type = Some(owned(&join.request.protocol_type));
        }
        self.pending_members.remove(&member_id);
        let group_instance_id = join.request.group_instance_id.as_deref().map(owned);
        if let Some(instance) = &group_instance_id {
            self.static_members.insert(instance.clone(), member_id.clone());
        }
        let deadline = step.now + NEW_MEMBER_WAIT_MS;
        let member = Member {
            member_id: member_id.clone(),
            group_instance_id,
            client_id: owned(&join.joiner.client_id),
            client_host: owned(&join.joiner.client_host),
            rebalance_timeout_ms: join.rebalance_timeout_ms(),
            session_timeout_ms: join.request.session_timeout_ms,
            protocols: owned_protocols(&join.request.protocols),
            assignment: Bytes::new(),
            joining: Some(join.parked()),
            syncing: None,
            is_new: true,
            pending_sync: false,
            session_deadline: Some(deadline),
        };
        step.park(join.token);
        self.wake_at(deadline);
        self.leader.get_or_insert_with(|| member_id.clone());
        self.members.insert(member_id, member);
        self.rebalance_or_complete_join(step);
    }

    fn update_member(&mut self, join: &Join, member_id: &StrBytes, step: &mut Step<'_>) {
        let member = self.members.get_mut(member_id).expect("callers have looked it up");
        member.protocols = owned_protocols(&join.request.protocols);
        member.rebalance_timeout_ms = join.rebalance_timeout_ms();
        member.session_timeout_ms = join.request.session_timeout_ms;
        step.park(join.token);
        let earlier = member.joining.replace(join.parked());
        // The same member asked twice; nobody may be left waiting for ever.
        if let Some(earlier) = earlier {
            let answer = refusal(member_id.clone(), ErrorCode::RebalanceInProgress, earlier.version);
            step.answer_parked(earlier.token, answer);
        }
    }

    /// A static member has started again: it gets a new id, and its old one is fenced (KIP-345).
    fn replace_static_member(&mut self, join: &Join, old: &StrBytes, new: StrBytes, step: &mut Step<'_>) {
        let leader_before = self.leader.clone().unwrap_or_default();
        let index = self.members.get_index_of(old).expect("static members are members");
        let (_, mut member) = self.members.shift_remove_index(index).expect("the index was just found");
        self.fence(&mut member, step);
        member.member_id = new.clone();
        member.is_new = false;
        self.static_members.insert(member.group_instance_id.clone().expect("a static member"), new.clone());
        if self.is_leader(old) {
            self.leader = Some(new.clone());
        }
        self.members.shift_insert(index, new.clone(), member);
        self.update_member(join, &new, step);
        self.touch(&new, step.now);
        match self.state {
            State::Stable if self.select_protocol() == self.protocol_name && self.fits_record(step) => {
                let value = self.value();
                self.decide(value, step);
                self.admit_static_member(join, &new, leader_before, step);
            }
            // Its old id may already be on its way to the leader, and the assignment that comes back would miss the new one.
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(step),
            State::PreparingRebalance { .. } => self.maybe_complete_join(step),
            State::Empty => unreachable!("a group with a static member is not empty"),
        }
    }

    /// Tells a static member, without a rebalance, that it is back in its generation.
    fn admit_static_member(&mut self, join: &Join, member_id: &StrBytes, leader_before: StrBytes, step: &mut Step<'_>) {
        let answer = if join.joiner.version >= SKIP_ASSIGNMENT_VERSION {
            let leads = self.is_leader(member_id);
            let members = if leads { self.joined_members() } else { Vec::new() };
            let leader = self.leader.clone().unwrap_or_default();
            self.joined(member_id.clone(), leader).with_members(members).with_skip_assignment(leads)
        } else {
            // An older client that saw its own id as leader would assign anew; with the old id there it takes itself for a
            // follower and fetches the assignment that stands.
            self.joined(member_id.clone(), leader_before)
        };
        let parked = self.members[member_id].joining.map(|parked| parked.token);
        self.members[member_id].joining = None;
        if let Some(token) = parked {
            step.answer_parked(token, GroupAnswer::Join(answer));
        }
    }

    /// Answers whoever still waits under a member's old id.
    fn fence(&self, member: &mut Member, step: &mut Step<'_>) {
        if let Some(parked) = member.joining.take() {
            let answer = refusal(member.member_id.clone(), ErrorCode::FencedInstanceId, parked.version);
            step.answer_parked(parked.token, answer);
        }
        if let Some(token) = member.syncing.take() {
            step.answer_parked(token, sync::refusal(ErrorCode::FencedInstanceId));
        }
    }
}

/// The instance's name or the client's, and a random part.
fn new_member_id(name: &str, step: &Step<'_>) -> StrBytes {
    /// A member id must fit a string of Kafka's, and nobody needs more of the name.
    const NAME_BYTES_MAX: usize = 1024;
    let mut end = name.len().min(NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    StrBytes::from_string(format!("{}-{}", &name[..end], step.random))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::group::{
        GroupConfig,
        script::{check, check_with},
    };

    #[test]
    fn a_first_member_gets_an_id_then_waits_for_others() {
        check(
            "join a; +1s; join a; +1s; join b; join b; +10s; sync a a=x,b=y; sync b",
            expect![[r#"
                0 a: join MemberIdRequired id=a-1
                2000 b: join MemberIdRequired id=b-3
                7000 a: joined id=a-1 gen=1 leader=a-1 range [a-1:m b-3:m]
                7000 b: joined id=b-3 gen=1 leader=a-1 range []
                12000 + g gen=1 [a-1=x b-3=y]
                12000 a: synced 'x'
                12000 b: synced 'y'
            "#]],
        );
    }

    #[test]
    fn the_initial_delay_grows_with_new_members_up_to_the_rebalance_time_out() {
        check(
            "join a v3 rebalance=7s; +2s; join b v3 rebalance=7s; +2s; join c v3 rebalance=7s; +1s; join d v3 rebalance=7s; +10s",
            expect![[r#"
                7000 a: joined id=a-1 gen=1 leader=a-1 range [a-1:m b-2:m c-3:m d-4:m]
                7000 b: joined id=b-2 gen=1 leader=a-1 range []
                7000 c: joined id=c-3 gen=1 leader=a-1 range []
                7000 d: joined id=d-4 gen=1 leader=a-1 range []
                14000 + g gen=2 []
            "#]],
        );
    }

    #[test]
    fn older_members_join_at_once() {
        check(
            "join a v3; +3s; sync a a=x; join b v1; join a; sync a a=1,b=2; sync b",
            expect![[r#"
                3000 a: joined id=a-1 gen=1 leader=a-1 range [a-1:m]
                3000 + g gen=1 [a-1=x]
                3000 a: synced 'x'
                3000 a: joined id=a-1 gen=2 leader=a-1 range [a-1:m b-3:m]
                3000 b: joined id=b-3 gen=2 leader=a-1 range []
                3000 + g gen=2 [a-1=1 b-3=2]
                3000 a: synced '1'
                3000 b: synced '2'
            "#]],
        );
    }

    #[test]
    fn refusals() {
        check(
            "join a session=5s; join a session=2000s; join a type=; join a protos=; join a group=; join a id=a-77; join a; join a; join b type=connect; join b protos=rr:x; join c id=zz; +3s; join c id=zz; join a static=i; +1min",
            expect![[r#"
                0 a: join InvalidSessionTimeout id=''
                0 a: join InvalidSessionTimeout id=''
                0 a: join InconsistentGroupProtocol id=''
                0 a: join InconsistentGroupProtocol id=''
                0 a: join InvalidGroupId id=''
                0 a: join UnknownMemberId id=a-77
                0 a: join UnknownMemberId id=a-77
                0 a: join UnknownMemberId id=a-77
                0 b: join MemberIdRequired id=b-9
                0 c: join InconsistentGroupProtocol id='zz'
                3000 b: joined id=b-9 gen=1 leader=b-9 rr [b-9:x]
                3000 c: join InconsistentGroupProtocol id='zz'
                3000 a: join InconsistentGroupProtocol id=a-77
                48000 + g gen=2 []
            "#]],
        );
    }

    #[test]
    fn a_follower_with_nothing_new_gets_its_generation_and_a_leader_a_rebalance() {
        check(
            "join a v3; join b v3; +6s; join b; join a; sync a a=x,b=y; sync b; join b; hb a; join a; hb b; join b protos=range:new; sync a; sync b; sync a a=1,b=2",
            expect![[r#"
                6000 a: joined id=a-1 gen=1 leader=a-1 range [a-1:m b-2:m]
                6000 b: joined id=b-2 gen=1 leader=a-1 range []
                6000 b: joined id=b-2 gen=1 leader=a-1 range []
                6000 a: joined id=a-1 gen=1 leader=a-1 range [a-1:m b-2:m]
                6000 + g gen=1 [a-1=x b-2=y]
                6000 a: synced 'x'
                6000 b: synced 'y'
                6000 b: joined id=b-2 gen=1 leader=a-1 range []
                6000 a: heartbeat ok
                6000 b: heartbeat RebalanceInProgress
                6000 a: joined id=a-1 gen=2 leader=a-1 range [a-1:m b-2:new]
                6000 b: joined id=b-2 gen=2 leader=a-1 range []
                6000 + g gen=2 [a-1= b-2=]
                6000 a: synced ''
                6000 b: synced ''
                6000 a: synced ''
            "#]],
        );
    }

    #[test]
    fn a_static_member_comes_back_without_a_rebalance() {
        check(
            "join a static=i; join b static=j; +6s; sync a a=x,b=y; sync b; join b2 static=j; sync b2; hb b static=j; hb b; sync b static=j; join b static=j; leave b; join a2 static=i; sync a2 a=q; describe; join a3 static=i v8; restart; describe; hb a3 static=i",
            expect![[r#"
                6000 a: joined id=i-1 gen=1 leader=i-1 range [i-1(i):m j-2(j):m]
                6000 b: joined id=j-2 gen=1 leader=i-1 range []
                6000 + g gen=1 [i-1=x j-2=y]
                6000 a: synced 'x'
                6000 b: synced 'y'
                6000 + g gen=1 [i-1=x j-5=y]
                6000 b2: joined id=j-5 gen=1 leader=i-1 range []
                6000 b2: synced 'y'
                6000 b: heartbeat FencedInstanceId
                6000 b: heartbeat UnknownMemberId
                6000 b: sync FencedInstanceId
                6000 b: join FencedInstanceId id=j-2
                6000 b: leave ok [UnknownMemberId]
                6000 + g gen=1 [i-12=x j-5=y]
                6000 a2: joined id=i-12 gen=1 leader=i-12 range [i-12(i):m j-5(j):m] skip
                6000 a2: synced 'x'
                6000 describe: ok Stable 'consumer' 'range' [i-12@/h:m:x j-5@/h:m:y]
                6000 + g gen=1 [i-15=x j-5=y]
                6000 a3: joined id=i-15 gen=1 leader=i-12 range []
                6000 describe: ok Stable 'consumer' 'range' [i-15@/h:m:x j-5@/h:m:y]
                6000 a3: heartbeat ok
            "#]],
        );
    }

    #[test]
    fn a_static_member_that_changes_the_protocol_causes_a_rebalance() {
        check(
            "join a static=i protos=range:m,rr:m; join b static=j protos=range:m,rr:m; +6s; sync a a=x; sync b; join b2 static=j protos=rr:m,range:m; hb a; join c static=j protos=rr:m; join a static=i protos=range:m,rr:m; sync a a=1,c=2; sync c; describe",
            expect![[r#"
                6000 a: joined id=i-1 gen=1 leader=i-1 range [i-1(i):m j-2(j):m]
                6000 b: joined id=j-2 gen=1 leader=i-1 range []
                6000 + g gen=1 [i-1=x j-2=]
                6000 a: synced 'x'
                6000 b: synced ''
                6000 + g gen=1 [i-1=x j-5=]
                6000 b2: joined id=j-5 gen=1 leader=i-1 range []
                6000 a: heartbeat ok
                6000 a: joined id=i-1 gen=2 leader=i-1 rr [i-1(i):m j-7(j):m]
                6000 c: joined id=j-7 gen=2 leader=i-1 rr []
                6000 + g gen=2 [i-1=1 j-7=2]
                6000 a: synced '1'
                6000 c: synced '2'
                6000 describe: ok Stable 'consumer' 'rr' [i-1@/h:m:1 j-7@/h:m:2]
            "#]],
        );
    }

    #[test]
    fn a_static_member_replaced_during_a_rebalance_answers_its_predecessor() {
        check(
            "join a static=i; join b static=i; +3s; sync b b=x; join c static=k; join d static=k; join b static=i; join e static=k; hb b",
            expect![[r#"
                0 a: join FencedInstanceId id=i-1
                3000 b: joined id=i-2 gen=1 leader=i-2 range [i-2(i):m]
                3000 + g gen=1 [i-2=x]
                3000 b: synced 'x'
                3000 c: join FencedInstanceId id=k-4
                3000 b: joined id=i-2 gen=2 leader=i-2 range [i-2(i):m k-5(k):m]
                3000 d: joined id=k-5 gen=2 leader=i-2 range []
                3000 b: heartbeat RebalanceInProgress
            "#]],
        );
    }

    #[test]
    fn a_full_group_takes_nobody_else() {
        check_with(
            GroupConfig { size_max: 2, ..GroupConfig::default() },
            "join a v3; join b v3; join c v3; +6s; join c v3; sync a a=1,b=2; sync b; join a; +1s; join d v3; join b; hb b",
            expect![[r#"
                0 c: join GroupMaxSizeReached id=''
                6000 a: joined id=a-1 gen=1 leader=a-1 range [a-1:m b-2:m]
                6000 b: joined id=b-2 gen=1 leader=a-1 range []
                6000 c: join GroupMaxSizeReached id=''
                6000 + g gen=1 [a-1=1 b-2=2]
                6000 a: synced '1'
                6000 b: synced '2'
                7000 a: joined id=a-1 gen=2 leader=a-1 range [a-1:m d-8:m]
                7000 d: joined id=d-8 gen=2 leader=a-1 range []
                7000 b: join GroupMaxSizeReached id=''
                7000 b: heartbeat UnknownMemberId
            "#]],
        );
    }

    /// With a code that clients ask again after, not one that ends them.
    #[test]
    fn groups_that_would_not_fit_in_memory_are_refused() {
        let one = crate::group::state::Group::bytes_of_empty("g") + crate::group::classic::member::MEMBER_BYTES + 400;
        check_with(
            GroupConfig { bytes_max: one, ..GroupConfig::default() },
            "join a v3; join b v3 group=h; commit b t/0=1 group=h gen=-1; commit - t/0=1 group=k",
            expect![[r#"
                0 b: join CoordinatorNotAvailable id=''
                0 b: commit CoordinatorNotAvailable
                0 -: commit CoordinatorNotAvailable
            "#]],
        );
    }

    #[test]
    fn a_member_that_would_not_fit_in_memory_is_refused() {
        check_with(
            GroupConfig { bytes_max: 1_500, ..GroupConfig::default() },
            "join a v3; join b v3",
            expect![[r#"
                0 b: join CoordinatorNotAvailable id=''
            "#]],
        );
    }
}
