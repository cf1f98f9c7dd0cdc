//! DescribeGroups (key 15), versions 0–6.
//! v3 authorized operations (KIP-430) · v4 static members (KIP-345) · v6 GROUP_ID_NOT_FOUND with a message (KIP-1043)

use std::rc::Rc;

use kafka_protocol::messages::{
    DescribeGroupsRequest, DescribeGroupsResponse, describe_groups_response::DescribedGroup,
};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, throttled},
        groups, operations,
    },
    group::asks::Describe,
};

throttled!(DescribeGroupsResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<DescribeGroupsRequest>) -> Outcome {
    let (request, call) = call.take();
    let mut described = Vec::with_capacity(request.groups.len());
    for group_id in request.groups {
        let answer = groups::ask(context, &call.asker, &group_id, Describe(group_id.clone(), call.version)).await;
        let group = answer.unwrap_or_else(|error| DescribedGroup::default().with_error_code(error.code()));
        let told = request.include_authorized_operations && group.error_code == 0;
        let operations = if told { operations::group(&call.asker, &group_id) } else { operations::UNASKED };
        described.push(group.with_group_id(group_id).with_authorized_operations(operations));
    }
    call.reply(DescribeGroupsResponse::default().with_groups(described))
}
