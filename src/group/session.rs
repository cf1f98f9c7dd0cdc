//! Signs of life and of death: heartbeats, LeaveGroup, and what happens when time passes.

use kafka_protocol::{
    messages::{
        HeartbeatRequest, HeartbeatResponse, LeaveGroupRequest, LeaveGroupResponse,
        leave_group_request::MemberIdentity, leave_group_response::MemberResponse,
    },
    protocol::StrBytes,
};

use super::{
    GroupAnswer,
    state::{Group, JoinTimer, State, Step},
};
use crate::base::ErrorCode;

/// From this version on LeaveGroup takes several members (KIP-345).
const LEAVE_BATCH_VERSION: i16 = 3;

pub(super) fn heartbeat_answer(error: Option<ErrorCode>) -> GroupAnswer {
    GroupAnswer::Heartbeat(HeartbeatResponse::default().with_error_code(error.map_or(0, |error| error.code())))
}

pub(super) fn leave_refusal(error: ErrorCode) -> GroupAnswer {
    GroupAnswer::Leave(LeaveGroupResponse::default().with_error_code(error.code()))
}

/// How many a LeaveGroup took out.
#[derive(Default)]
struct Left {
    members: usize,
    pending: usize,
}

impl Group {
    pub(super) fn heartbeat(&mut self, request: &HeartbeatRequest, step: &Step<'_>) -> Option<ErrorCode> {
        if let Err(error) = self.check_member(&request.member_id, request.group_instance_id.as_ref()) {
            return Some(error);
        }
        if request.generation_id != self.generation {
            return Some(ErrorCode::IllegalGeneration);
        }
        self.touch(&request.member_id, step.now);
        match self.state {
            State::Empty => Some(ErrorCode::UnknownMemberId),
            State::PreparingRebalance { .. } => Some(ErrorCode::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => None,
        }
    }

    pub(super) fn leave(&mut self, request: &LeaveGroupRequest, version: i16, step: &mut Step<'_>) -> GroupAnswer {
        let mut left = Left::default();
        let answer = if version < LEAVE_BATCH_VERSION {
            let one = MemberIdentity::default().with_member_id(request.member_id.clone());
            LeaveGroupResponse::default().with_error_code(self.leave_one(&one, &mut left, step))
        } else {
            let answered = |identity: &MemberIdentity, error_code| {
                MemberResponse::default()
                    .with_member_id(identity.member_id.clone())
                    .with_group_instance_id(identity.group_instance_id.clone())
                    .with_error_code(error_code)
            };
            let members = request.members.iter().map(|one| answered(one, self.leave_one(one, &mut left, step)));
            LeaveGroupResponse::default().with_members(members.collect())
        };
        if left.members > 0 {
            self.rebalance_or_complete_join(step);
        } else if left.pending > 0 {
            self.maybe_complete_join(step);
        }
        GroupAnswer::Leave(answer)
    }

    /// Returns the member's error code.
    fn leave_one(&mut self, identity: &MemberIdentity, left: &mut Left, step: &mut Step<'_>) -> i16 {
        if self.pending_members.remove(&identity.member_id).is_some() {
            left.pending += 1;
            return 0;
        }
        let member_id = match self.leaving_member(identity) {
            Ok(member_id) => member_id,
            Err(error) => return error.code(),
        };
        let member = self.remove_member(&member_id).expect("just found");
        self.dismiss(member, ErrorCode::UnknownMemberId, step);
        left.members += 1;
        0
    }

    fn leaving_member(&self, identity: &MemberIdentity) -> Result<StrBytes, ErrorCode> {
        let instance = identity.group_instance_id.as_ref();
        // An administrator names a static member by its instance alone.
        if identity.member_id.is_empty() {
            return instance.and_then(|id| self.static_members.get(id)).cloned().ok_or(ErrorCode::UnknownMemberId);
        }
        self.check_member(&identity.member_id, instance)?;
        Ok(identity.member_id.clone())
    }

    /// Does what is due, until nothing is. Afterwards `wakes_at` is exact.
    pub(super) fn tick(&mut self, step: &mut Step<'_>) {
        /// Each round fires a timer or ends a session; only the initial delay fires twice at the same time, if it is 0.
        const ROUNDS_MAX: usize = 8;
        for _ in 0..ROUNDS_MAX {
            self.end_sessions(step);
            if self.sync_deadline.is_some_and(|deadline| deadline <= step.now) {
                self.sync_timer_due(step);
            }
            if let Some(timer) = self.join_timer.filter(|timer: &JoinTimer| timer.deadline() <= step.now) {
                self.join_timer = None;
                self.join_timer_due(timer, step);
            }
            self.wakes_at = self.earliest_deadline();
            self.weigh();
            if self.wakes_at.is_none_or(|deadline| deadline > step.now) {
                return;
            }
        }
    }

    fn end_sessions(&mut self, step: &mut Step<'_>) {
        let now = step.now;
        let pending_before = self.pending_members.len();
        self.pending_members.retain(|_, deadline| *deadline > now);
        if self.pending_members.len() < pending_before {
            self.maybe_complete_join(step);
        }
        let due: Vec<StrBytes> = self
            .members
            .values()
            .filter(|member| member.session_deadline.is_some_and(|deadline| deadline <= now))
            .map(|member| member.member_id.clone())
            .collect();
        let mut removed = 0;
        for member_id in due {
            // An earlier removal may have answered this one, and that begins its session anew.
            let Some(member) = self.members.get_mut(&member_id) else { continue };
            if member.session_deadline.is_none_or(|deadline| deadline > now) {
                continue;
            }
            if member.waits() {
                member.session_deadline = None;
                continue;
            }
            let member = self.remove_member(&member_id).expect("just looked up");
            self.dismiss(member, ErrorCode::UnknownMemberId, step);
            removed += 1;
        }
        if removed > 0 {
            self.rebalance_or_complete_join(step);
        }
    }
}
