//! A rebalance: members join until all are there or time is up, then a new generation begins.

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;

use crate::{
    base::ErrorCode,
    group::{
        GroupAnswer,
        classic::{
            join,
            member::Member,
            state::{Classic, JoinTimer, Members, State},
            sync,
        },
        state::Step,
    },
    protocol::offsets_records::GroupValue,
};

impl Classic {
    /// Something about the members changed.
    pub(in crate::group) fn rebalance_or_complete_join(&mut self, step: &mut Step<'_>) {
        match self.state {
            State::Empty | State::CompletingRebalance | State::Stable => self.prepare_rebalance(step),
            State::PreparingRebalance { .. } => self.maybe_complete_join(step),
        }
    }

    /// Asks all members to join again.
    pub(in crate::group) fn prepare_rebalance(&mut self, step: &mut Step<'_>) {
        if self.state == State::CompletingRebalance {
            self.take_back_assignments(ErrorCode::RebalanceInProgress, step);
        }
        self.sync_deadline = None;
        let initial = self.state == State::Empty;
        self.enter(State::PreparingRebalance { initial }, step.now);
        if initial {
            // A group that starts gets time to gather, or each member would cost it a rebalance (KIP-134).
            let delay_ms = i64::from(step.config.initial_rebalance_delay_ms.max(0));
            let remaining_ms = (self.rebalance_timeout_ms() - delay_ms).max(0);
            self.start_join_timer(JoinTimer::Initial { deadline: step.now + delay_ms, delay_ms, remaining_ms });
        } else if self.all_joined() {
            self.complete_join(step);
        } else {
            self.start_join_timer(JoinTimer::Rebalance { deadline: step.now + self.rebalance_timeout_ms() });
        }
    }

    fn start_join_timer(&mut self, timer: JoinTimer) {
        self.join_timer = Some(timer);
        self.wake_at(timer.deadline());
    }

    /// Ends the wait if nobody is missing. The initial delay is waited out in any case.
    pub(in crate::group) fn maybe_complete_join(&mut self, step: &mut Step<'_>) {
        if self.state == (State::PreparingRebalance { initial: false }) && self.all_joined() {
            self.complete_join(step);
        }
    }

    /// The wait for members is over.
    pub(in crate::group) fn join_timer_due(&mut self, timer: JoinTimer, step: &mut Step<'_>) {
        match timer {
            JoinTimer::Initial { delay_ms, remaining_ms, .. } if self.new_member_added && remaining_ms > 0 => {
                self.new_member_added = false;
                let next_ms = i64::from(step.config.initial_rebalance_delay_ms.max(0)).min(remaining_ms);
                self.start_join_timer(JoinTimer::Initial {
                    deadline: step.now + next_ms,
                    delay_ms: next_ms,
                    remaining_ms: (remaining_ms - delay_ms).max(0),
                });
            }
            JoinTimer::Initial { .. } | JoinTimer::Rebalance { .. } => self.complete_join(step),
        }
    }

    fn complete_join(&mut self, step: &mut Step<'_>) {
        self.join_timer = None;
        self.new_member_added = false;
        // Static members may be away for as long as their session lasts.
        let absent = |member: &Member| member.joining.is_none() && member.group_instance_id.is_none();
        let gone: Vec<StrBytes> = self.members.values().filter(|m| absent(m)).map(|m| m.member_id.clone()).collect();
        for member_id in &gone {
            let member = self.remove_member(member_id).expect("found among the members");
            self.dismiss(member, ErrorCode::UnknownMemberId, step);
        }
        if !self.members.is_empty() && !self.elect_joined_leader() {
            // Only absent static members are left: wait until they come or their sessions end.
            return self
                .start_join_timer(JoinTimer::Rebalance { deadline: step.now + self.rebalance_timeout_ms().max(1) });
        }
        self.begin_generation(step);
    }

    /// Sees to it that the leader is somebody who hears of it.
    fn elect_joined_leader(&mut self) -> bool {
        let joined = |members: &Members, id: &StrBytes| members.get(id).is_some_and(|member| member.joining.is_some());
        if self.leader.as_ref().is_some_and(|leader| joined(&self.members, leader)) {
            return true;
        }
        let next = self.members.values().find(|member| member.joining.is_some());
        let Some(next) = next.map(|member| member.member_id.clone()) else { return false };
        self.leader = Some(next);
        true
    }

    fn begin_generation(&mut self, step: &mut Step<'_>) {
        // Kafka's generations are positive; a client takes -1 for none.
        let generation = self.generation.checked_add(1).unwrap_or(1);
        if self.members.is_empty() {
            let state_timestamp = Some(step.now);
            let value = GroupValue { generation, protocol_name: None, leader: None, state_timestamp, ..self.value() };
            return self.decide(value, step);
        }
        self.generation = generation;
        self.protocol_name = self.select_protocol();
        self.subscribe();
        self.enter(State::CompletingRebalance, step.now);
        let leader = self.leader.clone().expect("a group with members has a leader");
        let ids: Vec<StrBytes> = self.members.keys().cloned().collect();
        for member_id in ids {
            let members = if member_id == leader { self.joined_members() } else { Vec::new() };
            let answer = self.joined(member_id.clone(), leader.clone()).with_members(members);
            let member = &mut self.members[&member_id];
            member.is_new = false;
            member.pending_sync = true;
            if let Some(parked) = member.joining.take() {
                step.answer_parked(parked.token, GroupAnswer::Join(answer));
            }
            self.touch(&member_id, step.now);
        }
        let deadline = step.now + self.rebalance_timeout_ms();
        self.sync_deadline = Some(deadline);
        self.wake_at(deadline);
    }

    /// Members that joined and never sent SyncGroup hold up the group no longer.
    pub(in crate::group) fn sync_timer_due(&mut self, step: &mut Step<'_>) {
        self.sync_deadline = None;
        let late: Vec<StrBytes> =
            self.members.values().filter(|member| member.pending_sync).map(|member| member.member_id.clone()).collect();
        for member_id in &late {
            let member = self.remove_member(member_id).expect("found among the members");
            self.dismiss(member, ErrorCode::UnknownMemberId, step);
        }
        if !late.is_empty() {
            self.prepare_rebalance(step);
        }
    }

    /// Answers what a removed member still waits for.
    pub(in crate::group) fn dismiss(&self, member: Member, error: ErrorCode, step: &mut Step<'_>) {
        if let Some(parked) = member.joining {
            step.answer_parked(parked.token, join::refusal(StrBytes::new(), error, parked.version));
        }
        if let Some(token) = member.syncing {
            step.answer_parked(token, sync::refusal(error));
        }
    }

    /// Clears all assignments, and sends away whoever waits for one.
    pub(in crate::group) fn take_back_assignments(&mut self, error: ErrorCode, step: &mut Step<'_>) {
        let ids: Vec<StrBytes> = self.members.keys().cloned().collect();
        for member_id in ids {
            let member = &mut self.members[&member_id];
            member.assignment = Bytes::new();
            if let Some(token) = member.syncing.take() {
                step.answer_parked(token, sync::refusal(error));
                self.touch(&member_id, step.now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::group::script::check;

    #[test]
    fn members_that_do_not_come_back_in_time_are_removed() {
        check(
            "join a v3 rebalance=20s; join b v3 rebalance=20s; +6s; sync a a=x,b=y; sync b; +1s; join a rebalance=20s; +15s; hb b; +5s; hb b; sync a a=z; describe",
            expect![[r#"
                6000 a: joined id=a-1 gen=1 leader=a-1 range [a-1:m b-2:m]
                6000 b: joined id=b-2 gen=1 leader=a-1 range []
                6000 + g gen=1 [a-1=x b-2=y]
                6000 a: synced 'x'
                6000 b: synced 'y'
                22000 b: heartbeat RebalanceInProgress
                27000 a: joined id=a-1 gen=2 leader=a-1 range [a-1:m]
                27000 b: heartbeat UnknownMemberId
                27000 + g gen=2 [a-1=z]
                27000 a: synced 'z'
                27000 describe: ok Stable 'consumer' 'range' [a-1@/h:m:z]
            "#]],
        );
    }

    #[test]
    fn members_that_never_sync_are_removed() {
        check(
            "join a v3 rebalance=20s; join b v3 rebalance=20s; +6s; sync b; +19s; hb b; +2s; join b; sync b b=y; hb a",
            expect![[r#"
                6000 a: joined id=a-1 gen=1 leader=a-1 range [a-1:m b-2:m]
                6000 b: joined id=b-2 gen=1 leader=a-1 range []
                25000 b: heartbeat ok
                26000 b: sync RebalanceInProgress
                27000 b: joined id=b-2 gen=2 leader=b-2 range [b-2:m]
                27000 + g gen=2 [b-2=y]
                27000 b: synced 'y'
                27000 a: heartbeat UnknownMemberId
            "#]],
        );
    }

    #[test]
    fn votes_choose_the_protocol() {
        check(
            "join a v3 protos=range:r,rr:s; join b v3 protos=rr:s,range:r; join c v3 protos=rr:s,range:r,x:y; +6s; sync a a=1,b=2,c=3; describe",
            expect![[r#"
                6000 a: joined id=a-1 gen=1 leader=a-1 rr [a-1:s b-2:s c-3:s]
                6000 b: joined id=b-2 gen=1 leader=a-1 rr []
                6000 c: joined id=c-3 gen=1 leader=a-1 rr []
                6000 + g gen=1 [a-1=1 b-2=2 c-3=3]
                6000 a: synced '1'
                6000 describe: ok Stable 'consumer' 'rr' [a-1@/h:s:1 b-2@/h:s:2 c-3@/h:s:3]
            "#]],
        );
    }

    #[test]
    fn an_absent_static_member_keeps_its_place_until_it_fails_to_sync() {
        check(
            "join a static=i session=30s rebalance=10s; join b v3 rebalance=10s session=30s; +6s; sync a a=x,b=y; sync b; join b protos=range:n rebalance=10s session=30s; +10s; sync b a=1,b=2; describe; +19s; +2s; +20s",
            expect![[r#"
                6000 a: joined id=i-1 gen=1 leader=i-1 range [i-1(i):m b-2:m]
                6000 b: joined id=b-2 gen=1 leader=i-1 range []
                6000 + g gen=1 [i-1=x b-2=y]
                6000 a: synced 'x'
                6000 b: synced 'y'
                16000 b: joined id=b-2 gen=2 leader=b-2 range [i-1(i):m b-2:n]
                16000 + g gen=2 [i-1=1 b-2=2]
                16000 b: synced '2'
                16000 describe: ok Stable 'consumer' 'range' [i-1@/h:m:1 b-2@/h:n:2]
                36000 + g gen=3 []
            "#]],
        );
    }

    #[test]
    fn a_lost_leader_is_replaced() {
        check(
            "join a v3 session=10s; join b v3 session=10s; +6s; sync b; +8s; hb b; +3s; join b; sync b b=all; describe",
            expect![[r#"
                6000 a: joined id=a-1 gen=1 leader=a-1 range [a-1:m b-2:m]
                6000 b: joined id=b-2 gen=1 leader=a-1 range []
                14000 b: heartbeat ok
                16000 b: sync RebalanceInProgress
                17000 b: joined id=b-2 gen=2 leader=b-2 range [b-2:m]
                17000 + g gen=2 [b-2=all]
                17000 b: synced 'all'
                17000 describe: ok Stable 'consumer' 'range' [b-2@/h:m:all]
            "#]],
        );
    }

    #[test]
    fn an_emptied_group_keeps_its_generation_over_a_restart() {
        check(
            "join a v3; +3s; sync a a=x; leave a; restart; describe; join b v3; +3s",
            expect![[r#"
                3000 a: joined id=a-1 gen=1 leader=a-1 range [a-1:m]
                3000 + g gen=1 [a-1=x]
                3000 a: synced 'x'
                3000 + g gen=2 []
                3000 a: leave ok [ok]
                3000 describe: ok Empty 'consumer' '' []
                6000 b: joined id=b-5 gen=3 leader=b-5 range [b-5:m]
            "#]],
        );
    }

    #[test]
    fn a_restart_keeps_members_and_starts_their_sessions_anew() {
        check(
            "join a v3 session=10s; join b v3 session=10s; +6s; sync a a=x,b=y; sync b; +5s; restart; +9s; hb a; sync b; hb b; +9s; hb a; +2s; hb a; describe",
            expect![[r#"
                6000 a: joined id=a-1 gen=1 leader=a-1 range [a-1:m b-2:m]
                6000 b: joined id=b-2 gen=1 leader=a-1 range []
                6000 + g gen=1 [a-1=x b-2=y]
                6000 a: synced 'x'
                6000 b: synced 'y'
                20000 a: heartbeat ok
                20000 b: synced 'y'
                20000 b: heartbeat ok
                29000 a: heartbeat ok
                31000 a: heartbeat RebalanceInProgress
                31000 describe: ok PreparingRebalance 'consumer' '' [a-1@/h::x]
            "#]],
        );
    }

    #[test]
    fn if_only_absent_static_members_are_left_their_sessions_decide() {
        check(
            "join a static=i session=30s rebalance=10s; join b v3 rebalance=10s session=30s; +6s; sync a a=x; sync b; leave b; +15s; describe; +16s; describe",
            expect![[r#"
                6000 a: joined id=i-1 gen=1 leader=i-1 range [i-1(i):m b-2:m]
                6000 b: joined id=b-2 gen=1 leader=i-1 range []
                6000 + g gen=1 [i-1=x b-2=]
                6000 a: synced 'x'
                6000 b: synced ''
                6000 b: leave ok [ok]
                21000 describe: ok PreparingRebalance 'consumer' '' [i-1@/h::x]
                36000 + g gen=2 []
                37000 describe: ok Empty 'consumer' '' []
            "#]],
        );
    }

    #[test]
    fn a_group_that_is_too_large_after_a_restart_is_asked_to_join_again() {
        check(
            "join a v3 rebalance=60s; join b v3 rebalance=60s; +6s; sync a a=x; sync b; size-max 1; restart; hb a; join b rebalance=60s; join a; hb a; +61s; sync b b=y",
            expect![[r#"
                6000 a: joined id=a-1 gen=1 leader=a-1 range [a-1:m b-2:m]
                6000 b: joined id=b-2 gen=1 leader=a-1 range []
                6000 + g gen=1 [a-1=x b-2=]
                6000 a: synced 'x'
                6000 b: synced ''
                6000 a: heartbeat RebalanceInProgress
                6000 b: joined id=b-2 gen=2 leader=b-2 range [b-2:m]
                6000 a: join GroupMaxSizeReached id=''
                6000 a: heartbeat UnknownMemberId
                51000 + g gen=3 []
                67000 b: sync UnknownMemberId
            "#]],
        );
    }
}
