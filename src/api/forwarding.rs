//! What passes between brokers about what the controller alone decides: Envelope (key 58), version 0 (KIP-590), which carries a
//! client's request to it, and the packets of the quorum behind it.

use std::rc::Rc;

use bytes::Bytes;
use kafka_protocol::messages::{EnvelopeRequest, EnvelopeResponse};
use tracing::debug;

use crate::{
    api::{
        Context, Outcome, Pending,
        call::{Call, Throttled},
    },
    base::ErrorCode,
    protocol::{frame::LENGTH_BYTES, quorum_packets},
};

impl Throttled for EnvelopeResponse {
    /// The answer inside tells.
    fn set_throttle_time_ms(&mut self, _: i32) {}
}

/// Has a client's request decided by the controller's broker.
pub(super) fn forward(context: &Rc<Context>, frame: Bytes) -> Pending {
    let context = context.clone();
    Box::pin(async move {
        match context.router.forward(frame).await {
            Ok(answer) => Outcome::Reply(vec![answer.into()], Default::default()),
            Err(why) => Outcome::Close(why),
        }
    })
}

pub(super) async fn handle(context: &Rc<Context>, call: Call<EnvelopeRequest>) -> Outcome {
    let (request, call) = call.take();
    let refused = |error: ErrorCode| EnvelopeResponse::default().with_error_code(error.code());
    if let Err(error) = call.asker.cluster() {
        return call.reply(refused(error));
    }
    if !context.router.decides_for_others() {
        return call.reply(refused(ErrorCode::NotController));
    }
    let answer = match context.table.decide(context, &call.asker.session, request.request_data).await {
        Outcome::Reply(pieces, _) => {
            let whole = pieces.iter().flat_map(|piece| piece.iter().copied()).skip(LENGTH_BYTES).collect::<Bytes>();
            EnvelopeResponse::default().with_response_data(Some(whole))
        }
        Outcome::Nothing => refused(ErrorCode::InvalidRequest),
        Outcome::Close(why) => {
            debug!(why, "a request that was passed on is refused");
            refused(ErrorCode::InvalidRequest)
        }
    };
    call.reply(answer)
}

/// Takes packets of another voter's.
pub(super) fn take_packets(context: &Rc<Context>, frame: &[u8]) -> Pending {
    let outcome = match quorum_packets::decode(frame) {
        Ok((id, envelope, packets)) => {
            let code = context.router.take_packets(&envelope, &packets).map_or_else(|error| error.code(), |()| 0);
            Outcome::Reply(vec![quorum_packets::answer(id, code).into()], Default::default())
        }
        Err(why) => Outcome::Close(format!("malformed packets of a quorum: {why}")),
    };
    Box::pin(std::future::ready(outcome))
}
