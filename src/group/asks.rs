//! What a machine can be asked: one row a question. The machine takes and gives the closed enums; who asks uses the type of that
//! name, and gets the answer that belongs to it.

use kafka_protocol::{
    messages::{
        GroupId, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
        LeaveGroupResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
        SyncGroupRequest, SyncGroupResponse, delete_groups_response::DeletableGroupResult,
        describe_groups_response::DescribedGroup, list_groups_response::ListedGroup,
        offset_fetch_request::OffsetFetchRequestGroup, offset_fetch_response::OffsetFetchResponseGroup,
    },
    protocol::StrBytes,
};

use crate::group::Joiner;

/// A question to a group's coordinator, with the type of its answer.
pub trait GroupAsk {
    /// What answers it, if the coordinator is there.
    type Answer;

    /// The question as the machine takes it.
    fn request(self) -> GroupRequest;

    /// The answer out of the machine's; none if it belongs to another question.
    fn answer(answer: GroupAnswer) -> Option<Self::Answer>;
}

macro_rules! asks {
    ($($(#[$doc:meta])* $name:ident($($part:ident: $type:ty),*) -> $answer:ty;)*) => {
        /// What a machine can be asked. An `i16` is the request's version.
        #[derive(Clone, Debug)]
        pub enum GroupRequest {
            $($(#[$doc])* $name($($type),*),)*
        }

        /// The answer to the [`GroupRequest`] of the same name.
        #[derive(Clone, Debug, PartialEq)]
        pub enum GroupAnswer {
            $($(#[$doc])* $name($answer),)*
        }

        $(
            $(#[$doc])*
            pub struct $name($(pub $type),*);

            impl GroupAsk for $name {
                type Answer = $answer;

                fn request(self) -> GroupRequest {
                    let Self($($part),*) = self;
                    GroupRequest::$name($($part),*)
                }

                fn answer(answer: GroupAnswer) -> Option<$answer> {
                    if let GroupAnswer::$name(answer) = answer { Some(answer) } else { None }
                }
            }
        )*
    };
}

asks! {
    /// JoinGroup. Parked until the rebalance is complete.
    Join(request: JoinGroupRequest, joiner: Joiner) -> JoinGroupResponse;
    /// SyncGroup. Parked until the leader has sent the assignment.
    Sync(request: SyncGroupRequest, version: i16) -> SyncGroupResponse;
    /// Heartbeat.
    Heartbeat(request: HeartbeatRequest) -> HeartbeatResponse;
    /// LeaveGroup; the answer is fit for the version.
    Leave(request: LeaveGroupRequest, version: i16) -> LeaveGroupResponse;
    /// OffsetCommit. The caller has taken out topics and partitions that do not exist; it may fill in topic ids.
    Commit(request: OffsetCommitRequest, version: i16) -> OffsetCommitResponse;
    /// One group of an OffsetFetch; the forms before v8 are turned into this one by the caller. Nothing is unstable as long
    /// as there are no transactions, so `require_stable` changes nothing.
    Fetch(group: OffsetFetchRequestGroup) -> OffsetFetchResponseGroup;
    /// One group of a DescribeGroups.
    Describe(group_id: GroupId, version: i16) -> DescribedGroup;
    /// ListGroups, this machine's part: states and types of groups in any case; an empty list takes all.
    List(states: Vec<StrBytes>, types: Vec<StrBytes>) -> Vec<ListedGroup>;
    /// One group of a DeleteGroups.
    DeleteGroup(group_id: GroupId) -> DeletableGroupResult;
    /// OffsetDelete. The caller has taken out topics and partitions that do not exist.
    OffsetDelete(request: OffsetDeleteRequest) -> OffsetDeleteResponse;
}

/// The question as it is, for those who hold questions of every kind.
#[cfg(test)]
impl GroupAsk for GroupRequest {
    type Answer = GroupAnswer;

    fn request(self) -> GroupRequest {
        self
    }

    fn answer(answer: GroupAnswer) -> Option<GroupAnswer> {
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_another_question_is_none() {
        assert_eq!(List::answer(GroupAnswer::List(Vec::new())), Some(Vec::new()));
        assert_eq!(List::answer(GroupAnswer::Heartbeat(HeartbeatResponse::default())), None);
    }
}
