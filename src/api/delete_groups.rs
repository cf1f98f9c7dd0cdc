//! DeleteGroups (key 42), versions 0–2 (KIP-229).

use std::rc::Rc;

use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, delete_groups_response::DeletableGroupResult,
};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, throttled},
        groups,
    },
    base::Set,
    group::asks::DeleteGroup,
};

throttled!(DeleteGroupsResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<DeleteGroupsRequest>) -> Outcome {
    let (request, call) = call.take();
    let mut results = Vec::with_capacity(request.groups_names.len());
    let mut seen = Set::default();
    for group_id in request.groups_names {
        if !seen.insert(group_id.clone()) {
            continue;
        }
        let answer = groups::ask(context, &call.asker, &group_id, DeleteGroup(group_id.clone())).await;
        let result = answer.unwrap_or_else(|error| DeletableGroupResult::default().with_error_code(error.code()));
        results.push(result.with_group_id(group_id));
    }
    call.reply(DeleteGroupsResponse::default().with_results(results))
}
