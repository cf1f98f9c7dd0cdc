//! A rebalance: members join until all are there or time is up, then a new generation begins.

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;

use super::{
    GroupAnswer, join,
    member::Member,
    state::{Group, JoinTimer, Members, State, Step},
    sync,
};
use crate::base::ErrorCode;

impl Group {
    /// Something about the members changed.
    pub(super) fn rebalance_or_complete_join(&mut self, step: &mut Step<'_>) {
        match self.state {
            State::Empty | State::CompletingRebalance | State::Stable => self.prepare_rebalance(step),
            State::PreparingRebalance { .. } => self.maybe_complete_join(step),
        }
    }

    /// Asks all members to join again.
    pub(super) fn prepare_rebalance(&mut self, step: &mut Step<'_>) {
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
    pub(super) fn maybe_complete_join(&mut self, step: &mut Step<'_>) {
        if self.state == (State::PreparingRebalance { initial: false }) && self.all_joined() {
            self.complete_join(step);
        }
    }

    /// The wait for members is over.
    pub(super) fn join_timer_due(&mut self, timer: JoinTimer, step: &mut Step<'_>) {
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
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        if self.members.is_empty() {
            self.protocol_name = None;
            self.leader = None;
            self.enter(State::Empty, step.now);
            return self.write(step);
        }
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
    pub(super) fn sync_timer_due(&mut self, step: &mut Step<'_>) {
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
    pub(super) fn dismiss(&self, member: Member, error: ErrorCode, step: &mut Step<'_>) {
        if let Some(parked) = member.joining {
            step.answer_parked(parked.token, join::refusal(StrBytes::new(), error, parked.version));
        }
        if let Some(token) = member.syncing {
            step.answer_parked(token, sync::refusal(error));
        }
    }

    /// Clears all assignments, and sends away whoever waits for one.
    pub(super) fn take_back_assignments(&mut self, error: ErrorCode, step: &mut Step<'_>) {
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
