//! Signs of life and of death: heartbeats, LeaveGroup, and what happens when time passes.

use kafka_protocol::{
    messages::{
        HeartbeatRequest, HeartbeatResponse, LeaveGroupRequest, LeaveGroupResponse,
        leave_group_request::MemberIdentity, leave_group_response::MemberResponse,
    },
    protocol::StrBytes,
};

use crate::{
    base::ErrorCode,
    group::{
        GroupAnswer,
        classic::state::{Classic, JoinTimer, State},
        state::Step,
    },
};

/// From this version on LeaveGroup takes several members (KIP-345).
const LEAVE_BATCH_VERSION: i16 = 3;

pub(in crate::group) fn heartbeat_answer(error: Option<ErrorCode>) -> GroupAnswer {
    GroupAnswer::Heartbeat(HeartbeatResponse::default().with_error_code(error.map_or(0, |error| error.code())))
}

pub(in crate::group) fn leave_refusal(error: ErrorCode) -> GroupAnswer {
    GroupAnswer::Leave(LeaveGroupResponse::default().with_error_code(error.code()))
}

/// What a group that is not there answers: it knows none of the members.
pub(in crate::group) fn leave_nothing(request: &LeaveGroupRequest, version: i16) -> GroupAnswer {
    leave_answer(request, version, |_| ErrorCode::UnknownMemberId.code())
}

/// Each member's error code, where the version has a place for it.
fn leave_answer(
    request: &LeaveGroupRequest,
    version: i16,
    mut code: impl FnMut(&MemberIdentity) -> i16,
) -> GroupAnswer {
    let answer = LeaveGroupResponse::default();
    GroupAnswer::Leave(if version < LEAVE_BATCH_VERSION {
        answer.with_error_code(code(&MemberIdentity::default().with_member_id(request.member_id.clone())))
    } else {
        let members = request.members.iter().map(|identity| {
            MemberResponse::default()
                .with_member_id(identity.member_id.clone())
                .with_group_instance_id(identity.group_instance_id.clone())
                .with_error_code(code(identity))
        });
        answer.with_members(members.collect())
    })
}

/// How many a LeaveGroup took out.
#[derive(Default)]
struct Left {
    members: usize,
    pending: usize,
}

impl Classic {
    pub(in crate::group) fn heartbeat(&mut self, request: &HeartbeatRequest, step: &Step<'_>) -> Option<ErrorCode> {
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

    pub(in crate::group) fn leave(
        &mut self,
        request: &LeaveGroupRequest,
        version: i16,
        step: &mut Step<'_>,
    ) -> GroupAnswer {
        let mut left = Left::default();
        let answer = leave_answer(request, version, |identity| self.leave_one(identity, &mut left, step));
        if left.members > 0 {
            self.rebalance_or_complete_join(step);
        } else if left.pending > 0 {
            self.maybe_complete_join(step);
        }
        answer
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
    pub(in crate::group) fn tick(&mut self, step: &mut Step<'_>) {
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

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::group::script::check;

    #[test]
    fn a_silent_member_is_removed_after_its_session() {
        check(
            "join a v3 session=10s; join b v3 session=10s; +6s; sync a a=x,b=y; sync b; +9s; hb b; +2s; hb b; hb a; join b; sync b b=all",
            expect![[r#"
                6000 a: joined id=a-1 gen=1 leader=a-1 range [a-1:m b-2:m]
                6000 b: joined id=b-2 gen=1 leader=a-1 range []
                6000 + g gen=1 [a-1=x b-2=y]
                6000 a: synced 'x'
                6000 b: synced 'y'
                15000 b: heartbeat ok
                17000 b: heartbeat RebalanceInProgress
                17000 a: heartbeat UnknownMemberId
                17000 b: joined id=b-2 gen=2 leader=b-2 range [b-2:m]
                17000 + g gen=2 [b-2=all]
                17000 b: synced 'all'
            "#]],
        );
    }

    #[test]
    fn a_member_that_waits_is_not_silent() {
        check(
            "join a v3 session=10s; join b v3 session=60s; +6s; sync a a=x; sync b; join a protos=range:n session=10s; +20s; describe; join b session=60s; +11s; hb a; describe",
            expect![[r#"
                6000 a: joined id=a-1 gen=1 leader=a-1 range [a-1:m b-2:m]
                6000 b: joined id=b-2 gen=1 leader=a-1 range []
                6000 + g gen=1 [a-1=x b-2=]
                6000 a: synced 'x'
                6000 b: synced ''
                26000 describe: ok PreparingRebalance 'consumer' '' [a-1@/h::x b-2@/h::]
                26000 a: joined id=a-1 gen=2 leader=a-1 range [a-1:n b-2:m]
                26000 b: joined id=b-2 gen=2 leader=a-1 range []
                37000 a: heartbeat UnknownMemberId
                37000 describe: ok PreparingRebalance 'consumer' '' [b-2@/h::]
            "#]],
        );
    }

    #[test]
    fn a_new_member_waits_five_minutes_at_most() {
        check(
            "join a v3 session=1000s rebalance=1000s; +3s; sync a a=x; join b v3 rebalance=1000s; +5min; hb a; join a",
            expect![[r#"
                3000 a: joined id=a-1 gen=1 leader=a-1 range [a-1:m]
                3000 + g gen=1 [a-1=x]
                3000 a: synced 'x'
                303000 b: join UnknownMemberId id=''
                303000 a: heartbeat RebalanceInProgress
                303000 a: joined id=a-1 gen=2 leader=a-1 range [a-1:m]
            "#]],
        );
    }

    #[test]
    fn a_pending_member_lapses_and_holds_nobody_up() {
        check(
            "join a v3; +3s; sync a a=x; join b session=10s; join a protos=range:n; +9s; +2s; join b",
            expect![[r#"
                3000 a: joined id=a-1 gen=1 leader=a-1 range [a-1:m]
                3000 + g gen=1 [a-1=x]
                3000 a: synced 'x'
                3000 b: join MemberIdRequired id=b-3
                13000 a: joined id=a-1 gen=2 leader=a-1 range [a-1:n]
                14000 b: join UnknownMemberId id=b-3
            "#]],
        );
    }

    #[test]
    fn heartbeat_refusals() {
        check(
            "hb a; join a v3; +3s; hb a; hb a gen=9; hb a id=zz; hb a static=i; hb a group=; sync a a=x; hb a; join b v3; hb a",
            expect![[r#"
                0 a: heartbeat UnknownMemberId
                3000 a: joined id=a-2 gen=1 leader=a-2 range [a-2:m]
                3000 a: heartbeat ok
                3000 a: heartbeat IllegalGeneration
                3000 a: heartbeat UnknownMemberId
                3000 a: heartbeat UnknownMemberId
                3000 a: heartbeat InvalidGroupId
                3000 + g gen=1 [a-2=x]
                3000 a: synced 'x'
                3000 a: heartbeat ok
                3000 a: heartbeat RebalanceInProgress
            "#]],
        );
    }

    #[test]
    fn leaving() {
        check(
            "leave a id=zz; join a v3; join b v3; join c v3; +6s; sync a a=x; leave b c; hb a; leave a v1; leave a v1; join d; leave d; list; leave static=i; leave a group=",
            expect![[r#"
                0 a: leave ok [UnknownMemberId]
                6000 a: joined id=a-2 gen=1 leader=a-2 range [a-2:m b-3:m c-4:m]
                6000 b: joined id=b-3 gen=1 leader=a-2 range []
                6000 c: joined id=c-4 gen=1 leader=a-2 range []
                6000 + g gen=1 [a-2=x b-3= c-4=]
                6000 a: synced 'x'
                6000 b: leave ok [ok ok]
                6000 a: heartbeat RebalanceInProgress
                6000 + g gen=2 []
                6000 a: leave ok []
                6000 a: leave UnknownMemberId []
                6000 d: join MemberIdRequired id=d-10
                6000 d: leave ok [ok]
                6000 list: [g:consumer:Empty:classic]
                6000 admin: leave ok [UnknownMemberId]
                6000 a: leave InvalidGroupId []
            "#]],
        );
    }

    #[test]
    fn a_parked_member_that_leaves_is_answered() {
        check(
            "join a v3; join b static=i; leave static=i; join c v3; +6s; +10s; sync c; leave c; describe",
            expect![[r#"
                0 b: join UnknownMemberId id=''
                0 admin: leave ok [ok]
                6000 a: joined id=a-1 gen=1 leader=a-1 range [a-1:m c-4:m]
                6000 c: joined id=c-4 gen=1 leader=a-1 range []
                16000 c: sync UnknownMemberId
                16000 c: leave ok [ok]
                16000 describe: ok PreparingRebalance 'consumer' '' [a-1@/h::]
            "#]],
        );
    }

    #[test]
    fn an_abandoned_request_is_not_answered() {
        check(
            "join a v3; abandon a; join b v3; +6s; describe",
            expect![[r#"
                6000 b: joined id=b-2 gen=1 leader=a-1 range []
                6000 describe: ok CompletingRebalance 'consumer' '' [a-1@/h:: b-2@/h::]
            "#]],
        );
    }
}
