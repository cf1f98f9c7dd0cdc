//! BrokerHeartbeat (key 63), versions 0–1, from broker to controller (KIP-500, KIP-631).
//! v1 failed directories (KIP-858)

use std::rc::Rc;

use kafka_protocol::messages::{BrokerHeartbeatRequest, BrokerHeartbeatResponse};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, throttled},
    },
    controller::asks::cluster::BrokerHeartbeat,
};

throttled!(BrokerHeartbeatResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<BrokerHeartbeatRequest>) -> Outcome {
    let (request, call) = call.take();
    let answer = match call.asker.cluster() {
        Ok(()) => context.router.control(BrokerHeartbeat(request)).await,
        Err(error) => Err(error),
    };
    let refused = |code: i16| BrokerHeartbeatResponse::default().with_error_code(code);
    call.reply(answer.unwrap_or_else(|error| refused(error.code())))
}
