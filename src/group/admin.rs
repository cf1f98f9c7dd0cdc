//! What administrators ask: DescribeGroups, ListGroups, DeleteGroups.

use kafka_protocol::{
    messages::{
        GroupId,
        delete_groups_response::DeletableGroupResult,
        describe_groups_response::{DescribedGroup, DescribedGroupMember},
        list_groups_response::ListedGroup,
    },
    protocol::StrBytes,
};

use super::{
    GroupAnswer,
    classic::state::{Classic, State},
    state::{Group, Membership, Step},
};
use crate::base::ErrorCode;

/// From this version on a group that is not there is an error, not a dead group (KIP-1043).
const NOT_FOUND_VERSION: i16 = 6;
/// The type of every group here (KIP-848 has others).
const GROUP_TYPE: &str = "classic";

pub(super) fn describe_nothing(group_id: GroupId, version: i16) -> GroupAnswer {
    let message = StrBytes::from_string(format!("Group {} not found.", &*group_id));
    let answer = DescribedGroup::default().with_group_id(group_id).with_group_state(StrBytes::from_static_str("Dead"));
    GroupAnswer::Describe(if version >= NOT_FOUND_VERSION {
        answer.with_error_code(ErrorCode::GroupIdNotFound.code()).with_error_message(Some(message))
    } else {
        answer
    })
}

pub(super) fn deleted(group_id: GroupId, error: Option<ErrorCode>) -> GroupAnswer {
    let code = error.map_or(0, |error| error.code());
    GroupAnswer::DeleteGroup(DeletableGroupResult::default().with_group_id(group_id).with_error_code(code))
}

impl Classic {
    fn describe(&self) -> DescribedGroup {
        let protocol_name = self.protocol_name.as_ref().filter(|_| self.state == State::Stable);
        let members = self.members.values().map(|member| {
            DescribedGroupMember::default()
                .with_member_id(member.member_id.clone())
                .with_group_instance_id(member.group_instance_id.clone())
                .with_client_id(member.client_id.clone())
                .with_client_host(member.client_host.clone())
                .with_member_metadata(protocol_name.map(|name| member.metadata(name)).unwrap_or_default())
                .with_member_assignment(member.assignment.clone())
        });
        DescribedGroup::default()
            .with_protocol_type(self.protocol_type.clone().unwrap_or_default())
            .with_protocol_data(protocol_name.cloned().unwrap_or_default())
            .with_members(members.collect())
    }
}

impl Membership {
    fn state(&self) -> State {
        match self {
            Self::Empty => State::Empty,
            Self::Classic(classic) => classic.state,
        }
    }

    fn protocol_type(&self) -> Option<&StrBytes> {
        match self {
            Self::Empty => None,
            Self::Classic(classic) => classic.protocol_type.as_ref(),
        }
    }
}

impl Group {
    pub(super) fn describe(&self) -> GroupAnswer {
        let described = match &self.membership {
            Membership::Empty => DescribedGroup::default(),
            Membership::Classic(classic) => classic.describe(),
        };
        let state = StrBytes::from_static_str(self.membership.state().name());
        GroupAnswer::Describe(described.with_group_id(GroupId(self.group_id.clone())).with_group_state(state))
    }

    /// The group's line in a list, unless the filters take it out.
    pub(super) fn listed(&self, states: &[StrBytes], types: &[StrBytes]) -> Option<ListedGroup> {
        let takes = |filter: &[StrBytes], name: &str| {
            filter.is_empty() || filter.iter().any(|one| one.eq_ignore_ascii_case(name))
        };
        let state = self.membership.state().name();
        (takes(states, state) && takes(types, GROUP_TYPE)).then(|| {
            ListedGroup::default()
                .with_group_id(GroupId(self.group_id.clone()))
                .with_protocol_type(self.membership.protocol_type().cloned().unwrap_or_default())
                .with_group_state(StrBytes::from_static_str(state))
                .with_group_type(StrBytes::from_static_str(GROUP_TYPE))
        })
    }

    /// Deletes the group with its offsets, if nobody is in it.
    pub(super) fn delete_if_empty(&mut self, step: &mut Step<'_>) -> Option<ErrorCode> {
        if self.membership.state() != State::Empty {
            return Some(ErrorCode::NonEmptyGroup);
        }
        self.delete(step);
        None
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::group::script::check;

    #[test]
    fn describe_shows_metadata_when_stable() {
        check(
            "describe; describe v5; join a v3; describe; +3s; describe; sync a a=x; describe; leave a; describe",
            expect![[r#"
                0 describe: GroupIdNotFound Dead '' '' []
                0 describe: ok Dead '' '' []
                0 describe: ok PreparingRebalance 'consumer' '' [a-3@/h::]
                3000 a: joined id=a-3 gen=1 leader=a-3 range [a-3:m]
                3000 describe: ok CompletingRebalance 'consumer' '' [a-3@/h::]
                3000 + g gen=1 [a-3=x]
                3000 a: synced 'x'
                3000 describe: ok Stable 'consumer' 'range' [a-3@/h:m:x]
                3000 + g gen=2 []
                3000 a: leave ok [ok]
                3000 describe: ok Empty 'consumer' '' []
            "#]],
        );
    }

    #[test]
    fn list_filters_by_state_and_type() {
        check(
            "join a v3; +3s; sync a a=x; commit - t/0=1 group=h; join b v3 group=k; list; list states=stable,EMPTY; list types=classic states=PreparingRebalance; list types=consumer; list states=nonsense",
            expect![[r#"
                3000 a: joined id=a-1 gen=1 leader=a-1 range [a-1:m]
                3000 + g gen=1 [a-1=x]
                3000 a: synced 'x'
                3000 + h:t/0=1
                3000 -: commit ok
                3000 list: [g:consumer:Stable:classic h::Empty:classic k:consumer:PreparingRebalance:classic]
                3000 list: [g:consumer:Stable:classic h::Empty:classic]
                3000 list: [k:consumer:PreparingRebalance:classic]
                3000 list: []
                3000 list: []
            "#]],
        );
    }

    #[test]
    fn only_empty_groups_are_deleted() {
        check(
            "delete; join a v3; +3s; sync a a=x; commit a t/0=1; delete; leave a; delete; delete; list; commit - t/0=1; delete; restart; list",
            expect![[r#"
                0 delete: GroupIdNotFound
                3000 a: joined id=a-2 gen=1 leader=a-2 range [a-2:m]
                3000 + g gen=1 [a-2=x]
                3000 a: synced 'x'
                3000 + g:t/0=1
                3000 a: commit ok
                3000 delete: NonEmptyGroup
                3000 + g gen=2 []
                3000 a: leave ok [ok]
                3000 - g:t/0
                3000 - g
                3000 delete: ok
                3000 delete: GroupIdNotFound
                3000 list: []
                3000 + g:t/0=1
                3000 -: commit ok
                3000 - g:t/0
                3000 delete: ok
                3000 list: []
            "#]],
        );
    }
}
