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
    state::{Group, State, Step},
};
use crate::base::ErrorCode;

/// From this version on a group that is not there is an error, not a dead group (KIP-1043).
const NOT_FOUND_VERSION: i16 = 6;
/// The type of every group here (KIP-848 has others).
const GROUP_TYPE: &str = "Classic";

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

impl Group {
    pub(super) fn describe(&self) -> GroupAnswer {
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
        GroupAnswer::Describe(
            DescribedGroup::default()
                .with_group_id(GroupId(self.group_id.clone()))
                .with_group_state(StrBytes::from_static_str(self.state.name()))
                .with_protocol_type(self.protocol_type.clone().unwrap_or_default())
                .with_protocol_data(protocol_name.cloned().unwrap_or_default())
                .with_members(members.collect()),
        )
    }

    /// The group's line in a list, unless the filters take it out.
    pub(super) fn listed(&self, states: &[StrBytes], types: &[StrBytes]) -> Option<ListedGroup> {
        let takes = |filter: &[StrBytes], name: &str| {
            filter.is_empty() || filter.iter().any(|one| one.eq_ignore_ascii_case(name))
        };
        (takes(states, self.state.name()) && takes(types, GROUP_TYPE)).then(|| {
            ListedGroup::default()
                .with_group_id(GroupId(self.group_id.clone()))
                .with_protocol_type(self.protocol_type.clone().unwrap_or_default())
                .with_group_state(StrBytes::from_static_str(self.state.name()))
                .with_group_type(StrBytes::from_static_str(GROUP_TYPE))
        })
    }

    /// Deletes the group with its offsets, if nobody is in it.
    pub(super) fn delete_if_empty(&mut self, step: &mut Step<'_>) -> Option<ErrorCode> {
        if self.state != State::Empty {
            return Some(ErrorCode::NonEmptyGroup);
        }
        self.delete(step);
        None
    }
}
