//! SyncGroup: the leader hands in the assignment, every member fetches its part.

use bytes::Bytes;
use kafka_protocol::{
    messages::{SyncGroupRequest, SyncGroupResponse},
    protocol::StrBytes,
};

use crate::{
    base::{ErrorCode, Map},
    group::{
        GroupAnswer,
        classic::state::{Classic, State},
        machine::FULL,
        state::Step,
    },
};

/// From this version on the client says which protocol it takes the group to have (KIP-559).
const PROTOCOL_VERSION: i16 = 5;

pub(in crate::group) fn refusal(error: ErrorCode) -> GroupAnswer {
    GroupAnswer::Sync(SyncGroupResponse::default().with_error_code(error.code()))
}

/// What can be said about a SyncGroup without looking at its group.
pub(in crate::group) fn check(request: &SyncGroupRequest, version: i16) -> Result<(), ErrorCode> {
    let named = request.protocol_type.is_some() && request.protocol_name.is_some();
    if version >= PROTOCOL_VERSION && !named {
        return Err(ErrorCode::InconsistentGroupProtocol);
    }
    if request.group_id.is_empty() {
        return Err(ErrorCode::InvalidGroupId);
    }
    Ok(())
}

impl Classic {
    /// `room` is what the machine may still hold.
    pub(in crate::group) fn sync(&mut self, token: u64, request: &SyncGroupRequest, room: usize, step: &mut Step<'_>) {
        if let Err(error) = self.check_sync(request) {
            return step.answer(token, refusal(error));
        }
        let member_id = &request.member_id;
        match self.state {
            State::Empty => step.answer(token, refusal(ErrorCode::UnknownMemberId)),
            State::PreparingRebalance { .. } => step.answer(token, refusal(ErrorCode::RebalanceInProgress)),
            State::CompletingRebalance => {
                let member = &mut self.members[member_id];
                member.pending_sync = false;
                step.park(token);
                // The same member asked twice; nobody may be left waiting for ever.
                if let Some(earlier) = member.syncing.replace(token) {
                    step.answer_parked(earlier, refusal(ErrorCode::RebalanceInProgress));
                }
                if self.is_leader(member_id) {
                    self.assign(request, room, step);
                }
            }
            State::Stable => {
                let member = &mut self.members[member_id];
                member.pending_sync = false;
                let assignment = member.assignment.clone();
                step.answer(token, self.synced(assignment));
            }
        }
    }

    fn check_sync(&self, request: &SyncGroupRequest) -> Result<(), ErrorCode> {
        self.check_member(&request.member_id, request.group_instance_id.as_ref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        let differs =
            |theirs: &Option<StrBytes>, ours: &Option<StrBytes>| theirs.is_some() && ours.is_some() && theirs != ours;
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol_name, &self.protocol_name)
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        Ok(())
    }

    /// The leader's assignment makes the generation durable and the group stable. Members it leaves out get nothing.
    fn assign(&mut self, request: &SyncGroupRequest, room: usize, step: &mut Step<'_>) {
        let assignments: Map<&StrBytes, &Bytes> =
            request.assignments.iter().map(|one| (&one.member_id, &one.assignment)).collect();
        let bytes = self.members.keys().filter_map(|id| assignments.get(id)).map(|one| one.len()).sum();
        // Each is held twice: in its member and in the group's record.
        let growth = 2 * usize::saturating_sub(bytes, self.assignments_bytes());
        if self.record_bytes(step.group_id, bytes) > step.config.record_bytes_max {
            // Kafka's answer to an append that is refused as too large.
            self.take_back_assignments(ErrorCode::UnknownServerError, step);
            return self.prepare_rebalance(step);
        }
        if growth > room {
            step.effects.full = true;
            self.take_back_assignments(FULL, step);
            return self.prepare_rebalance(step);
        }
        let mut value = self.value();
        value.state_timestamp = Some(step.now);
        for member in &mut value.members {
            let assignment = assignments.get(&member.member_id);
            member.assignment = assignment.map(|bytes| Bytes::copy_from_slice(bytes)).unwrap_or_default();
        }
        self.decide(value, step);
        let ids: Vec<StrBytes> = self.members.keys().cloned().collect();
        for member_id in ids {
            let assignment = self.members[&member_id].assignment.clone();
            if let Some(token) = self.members[&member_id].syncing.take() {
                step.answer_parked(token, self.synced(assignment));
            }
            // Sessions that ran out while their members waited begin again, for all: some will fetch their part later.
            self.touch(&member_id, step.now);
        }
    }

    fn synced(&self, assignment: Bytes) -> GroupAnswer {
        GroupAnswer::Sync(
            SyncGroupResponse::default()
                .with_protocol_type(self.protocol_type.clone())
                .with_protocol_name(self.protocol_name.clone())
                .with_assignment(assignment),
        )
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::group::{
        GroupConfig,
        script::{check, check_with},
    };

    #[test]
    fn followers_wait_for_the_leader() {
        check(
            "join a v3; join b v3; +6s; sync b; hb b; sync a a=x,b=y; sync b",
            expect![[r#"
                6000 a: joined id=a-1 gen=1 leader=a-1 range [a-1:m b-2:m]
                6000 b: joined id=b-2 gen=1 leader=a-1 range []
                6000 b: heartbeat ok
                6000 + g gen=1 [a-1=x b-2=y]
                6000 a: synced 'x'
                6000 b: synced 'y'
                6000 b: synced 'y'
            "#]],
        );
    }

    #[test]
    fn refusals() {
        check(
            "sync a; join a v3; +3s; sync a gen=2; sync a id=zz; sync a v5; sync a v5 type=consumer proto=rr; sync a v5 type=connect proto=range; sync a group=; sync a a=x; sync a v5 type=consumer proto=range; join a; join b v3; sync a",
            expect![[r#"
                0 a: sync UnknownMemberId
                3000 a: joined id=a-2 gen=1 leader=a-2 range [a-2:m]
                3000 a: sync IllegalGeneration
                3000 a: sync UnknownMemberId
                3000 a: sync InconsistentGroupProtocol
                3000 a: sync InconsistentGroupProtocol
                3000 a: sync InconsistentGroupProtocol
                3000 a: sync InvalidGroupId
                3000 + g gen=1 [a-2=x]
                3000 a: synced 'x'
                3000 a: synced 'x'
                3000 a: joined id=a-2 gen=2 leader=a-2 range [a-2:m]
                3000 a: sync RebalanceInProgress
            "#]],
        );
    }

    #[test]
    fn a_second_sync_of_a_member_answers_the_first() {
        check(
            "join a v3; join b v3; +6s; sync b; sync b; sync a a=x,b=y",
            expect![[r#"
                6000 a: joined id=a-1 gen=1 leader=a-1 range [a-1:m b-2:m]
                6000 b: joined id=b-2 gen=1 leader=a-1 range []
                6000 b: sync RebalanceInProgress
                6000 + g gen=1 [a-1=x b-2=y]
                6000 a: synced 'x'
                6000 b: synced 'y'
            "#]],
        );
    }

    #[test]
    fn an_assignment_too_large_for_a_record_is_refused() {
        check_with(
            GroupConfig { record_bytes_max: 400, ..GroupConfig::default() },
            "join a v3; join b v3; +6s; sync b; sync a a=123456789012345678901234567890; hb a",
            expect![[r#"
                6000 a: joined id=a-1 gen=1 leader=a-1 range [a-1:m b-2:m]
                6000 b: joined id=b-2 gen=1 leader=a-1 range []
                6000 a: sync UnknownServerError
                6000 b: sync UnknownServerError
                6000 a: heartbeat RebalanceInProgress
            "#]],
        );
    }
}
