//! SyncGroup (key 14), versions 0–5. Answered when the leader has sent the assignment.
//! v3 static members (KIP-345) · v5 protocol type and name (KIP-559)

use std::rc::Rc;

use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, throttled},
        groups,
    },
    group::asks::Sync,
};

throttled!(SyncGroupResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<SyncGroupRequest>) -> Outcome {
    let (request, call) = call.take();
    let group_id = request.group_id.clone();
    let answer = groups::ask(context, &call.asker, &group_id, Sync(request, call.version)).await;
    call.reply(answer.unwrap_or_else(|error| SyncGroupResponse::default().with_error_code(error.code())))
}
