//! AllocateProducerIds (key 67), version 0, from broker to controller (KIP-730).

use std::rc::Rc;

use kafka_protocol::messages::{AllocateProducerIdsRequest, AllocateProducerIdsResponse};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, throttled},
    },
    base::BrokerId,
    controller::asks::AllocateProducerIds,
};

throttled!(AllocateProducerIdsResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<AllocateProducerIdsRequest>) -> Outcome {
    let (request, call) = call.take();
    let (broker, broker_epoch) = (BrokerId(request.broker_id.0), request.broker_epoch);
    let block = match call.asker.cluster() {
        Ok(()) => context.router.control(AllocateProducerIds { broker, broker_epoch }).await,
        Err(error) => Err(error),
    };
    let answer = AllocateProducerIdsResponse::default();
    call.reply(match block {
        Ok((first, length)) => answer
            .with_producer_id_start(first.0.into())
            .with_producer_id_len(i32::try_from(length).expect("a block is short")),
        Err(error) => answer.with_error_code(error.code()).with_producer_id_start((-1).into()).with_producer_id_len(0),
    })
}
