//! JoinGroup (key 11), versions 0–9. Answered when the rebalance is complete.
//! v1 rebalance time-out (KIP-62) · v4 member ids come first (KIP-394) · v5 static members (KIP-345) · v7 protocol type ·
//! v8 reason (KIP-800) · v9 skipped assignment (KIP-814)

use std::rc::Rc;

use kafka_protocol::{
    messages::{JoinGroupRequest, JoinGroupResponse},
    protocol::StrBytes,
};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, throttled},
        groups,
    },
    base::ErrorCode,
    group::{Joiner, asks::Join},
};

throttled!(JoinGroupResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<JoinGroupRequest>) -> Outcome {
    let (mut request, call) = call.take();
    if call.version == 0 {
        // Before KIP-62 one time-out served for both.
        request.rebalance_timeout_ms = request.session_timeout_ms;
    }
    let joiner = Joiner {
        client_id: call.client_id.clone(),
        client_host: call.asker.session.client_host.clone(),
        version: call.version,
    };
    let (group_id, member_id) = (request.group_id.clone(), request.member_id.clone());
    let answer = groups::ask(context, &call.asker, &group_id, Join(request, joiner)).await;
    let answer = answer.unwrap_or_else(|error| {
        let answer =
            JoinGroupResponse::default().with_error_code(error.code()).with_generation_id(-1).with_protocol_name(None);
        match error {
            // What Kafka finds before it looks for the group's coordinator.
            ErrorCode::InvalidGroupId | ErrorCode::InvalidSessionTimeout => answer.with_member_id(member_id),
            _ => answer,
        }
    });
    call.reply(fit(answer, call.version))
}

/// Null as the protocol's name came with v7.
fn fit(mut answer: JoinGroupResponse, version: i16) -> JoinGroupResponse {
    if version < 7 {
        answer.protocol_name.get_or_insert(StrBytes::from_static_str(""));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::frame;

    #[test]
    fn errors_can_be_said_in_every_version() {
        for version in 0..=9 {
            let answer = JoinGroupResponse::default()
                .with_error_code(ErrorCode::UnknownMemberId.code())
                .with_generation_id(-1)
                .with_skip_assignment(version >= 9)
                .with_protocol_type(Some(StrBytes::from_static_str("consumer")))
                .with_protocol_name(None);
            frame::reply(1, version, &fit(answer, version)).unwrap_or_else(|why| panic!("v{version}: {why}"));
        }
    }
}
