//! A group finds together: every member joins, the generation is made, the leader assigns, all get their part.

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        GroupId, JoinGroupRequest, JoinGroupResponse, SyncGroupRequest, join_group_request::JoinGroupRequestProtocol,
        sync_group_request::SyncGroupRequestAssignment,
    },
    protocol::StrBytes,
};
use ringtail::internals::group::{GroupAnswer, GroupConfig, GroupRequest, Groups, Joiner};
use uuid::Uuid;

use crate::case::Case;

const METADATA: &[u8] = &[0, 1, 0, 0, 0, 1, 0, 6, b'o', b'r', b'd', b'e', b'r', b's', 0xff, 0xff, 0xff, 0xff];

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("group_rebalance/3_members", || rebalance(3)),
        Case::new("group_rebalance/100_members", || rebalance(100)),
    ]
}

/// From an empty machine to a stable generation. Returns how many members have their assignment.
fn rebalance(members: u64) -> usize {
    let mut groups = Groups::new(GroupConfig::default());
    drop(groups.loaded(0));
    for token in 0..members {
        let random = Uuid::from_u128(u128::from(token));
        // v3 lets a new member in at once; from v4 on it has to come twice (KIP-394).
        let joiner = Joiner { client_id: text("app"), client_host: text("/127.0.0.1"), version: 3 };
        drop(groups.request(token, GroupRequest::Join(join(), joiner), 0, random));
    }
    let mut joined = Vec::new();
    // The initial delay grows while members come; its end answers everybody.
    let mut now = 0;
    while joined.is_empty() {
        now = groups.next_deadline().expect("somebody waits");
        joined = groups.tick(now).answers.into_iter().filter_map(|(_, answer)| response(answer)).collect();
    }
    assert_eq!(joined.len() as u64, members, "everybody is in the first generation");
    let assignments: Vec<_> = joined
        .iter()
        .map(|member| {
            SyncGroupRequestAssignment::default()
                .with_member_id(member.member_id.clone())
                .with_assignment(Bytes::from_static(METADATA))
        })
        .collect();
    let mut assigned = 0;
    for (token, member) in joined.iter().enumerate() {
        let leads = member.leader == member.member_id;
        let request = SyncGroupRequest::default()
            .with_group_id(group())
            .with_generation_id(member.generation_id)
            .with_member_id(member.member_id.clone())
            .with_assignments(if leads { assignments.clone() } else { Vec::new() });
        let effects = groups.request(members + token as u64, GroupRequest::Sync(request, 3), now, Uuid::nil());
        assigned += effects.answers.len();
    }
    assert_eq!(assigned as u64, members, "everybody has a part");
    assigned
}

fn join() -> JoinGroupRequest {
    let protocol =
        JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(Bytes::from_static(METADATA));
    JoinGroupRequest::default()
        .with_group_id(group())
        .with_session_timeout_ms(45_000)
        .with_rebalance_timeout_ms(300_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

fn response(answer: GroupAnswer) -> Option<JoinGroupResponse> {
    let GroupAnswer::Join(response) = answer else { return None };
    (response.error_code == 0).then_some(response)
}

fn group() -> GroupId {
    GroupId(text("readers"))
}

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}
