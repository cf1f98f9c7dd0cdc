//! BrokerRegistration (key 62), versions 0–4, from broker to controller (KIP-500, KIP-631).
//! v2 directories (KIP-858) · v3 the last epoch (KIP-966)
//! Differs from Kafka: the last epoch is passed over, since only a broker without its disk has lost anything.

use std::rc::Rc;

use kafka_protocol::messages::{BrokerRegistrationRequest, BrokerRegistrationResponse};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, throttled},
    },
    base::ErrorCode,
    controller::asks::cluster::RegisterBroker,
};

throttled!(BrokerRegistrationResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<BrokerRegistrationRequest>) -> Outcome {
    let (request, call) = call.take();
    let answer = match call.asker.cluster() {
        Ok(()) if request.cluster_id.as_str() != context.router.cluster_id() => Err(ErrorCode::InconsistentClusterId),
        Ok(()) => context.router.control(RegisterBroker(request)).await,
        Err(error) => Err(error),
    };
    let refused = |code: i16| BrokerRegistrationResponse::default().with_error_code(code).with_broker_epoch(-1);
    call.reply(answer.unwrap_or_else(|error| refused(error.code())))
}
