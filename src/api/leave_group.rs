//! LeaveGroup (key 13), versions 0–5.
//! v3 several members, static ones by instance id (KIP-345) · v5 reason (KIP-800)

use std::rc::Rc;

use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, throttled},
        groups,
    },
    group::asks::Leave,
};

throttled!(LeaveGroupResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<LeaveGroupRequest>) -> Outcome {
    let (request, call) = call.take();
    let group_id = request.group_id.clone();
    let answer = groups::ask(context, &call.asker, &group_id, Leave(request, call.version)).await;
    call.reply(answer.unwrap_or_else(|error| LeaveGroupResponse::default().with_error_code(error.code())))
}
