//! AlterPartition (key 56), versions 2–3, from broker to controller (KIP-497).
//! v2 topic ids (KIP-841) · v3 epochs of brokers (KIP-903)

use std::rc::Rc;

use kafka_protocol::messages::{AlterPartitionRequest, AlterPartitionResponse};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, throttled},
    },
    controller::asks::cluster::AlterPartition,
};

throttled!(AlterPartitionResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<AlterPartitionRequest>) -> Outcome {
    let (request, call) = call.take();
    let answer = match call.asker.cluster() {
        Ok(()) => context.router.control(AlterPartition(request, call.version)).await,
        Err(error) => Err(error),
    };
    let refused = |code: i16| AlterPartitionResponse::default().with_error_code(code);
    call.reply(answer.unwrap_or_else(|error| refused(error.code())))
}
