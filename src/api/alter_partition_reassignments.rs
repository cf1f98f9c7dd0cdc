//! AlterPartitionReassignments (key 45), versions 0–1 (KIP-455).
//! v1 whether the number of replicas may change (KIP-860)

use std::rc::Rc;

use kafka_protocol::messages::{AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, throttled},
    },
    controller::asks::AlterPartitionReassignments,
};

throttled!(AlterPartitionReassignmentsResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<AlterPartitionReassignmentsRequest>) -> Outcome {
    let (request, call) = call.take();
    let answer = match call.asker.cluster() {
        Ok(()) => context.router.control(AlterPartitionReassignments(request)).await,
        Err(error) => Err(error),
    };
    let refused = |code: i16| AlterPartitionReassignmentsResponse::default().with_error_code(code);
    call.reply(answer.unwrap_or_else(|error| refused(error.code())))
}
