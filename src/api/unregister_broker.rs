//! UnregisterBroker (key 64), version 0 (KIP-500).
//! Differs from Kafka: a broker that runs is not taken out.

use std::rc::Rc;

use kafka_protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, throttled},
    },
    base::BrokerId,
    controller::asks::UnregisterBroker,
};

throttled!(UnregisterBrokerResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<UnregisterBrokerRequest>) -> Outcome {
    let (request, call) = call.take();
    let answer = match call.asker.cluster() {
        Ok(()) => context.router.control(UnregisterBroker(BrokerId(request.broker_id.0))).await,
        Err(error) => Err(error),
    };
    let refused = |code: i16| UnregisterBrokerResponse::default().with_error_code(code);
    call.reply(answer.unwrap_or_else(|error| refused(error.code())))
}
