//! Heartbeat (key 12), versions 0–4.
//! v3 static members (KIP-345)

use std::rc::Rc;

use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, throttled},
        groups,
    },
    group::asks::Heartbeat,
};

throttled!(HeartbeatResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<HeartbeatRequest>) -> Outcome {
    let (request, call) = call.take();
    let group_id = request.group_id.clone();
    let answer = groups::ask(context, &call.asker, &group_id, Heartbeat(request)).await;
    call.reply(answer.unwrap_or_else(|error| HeartbeatResponse::default().with_error_code(error.code())))
}
