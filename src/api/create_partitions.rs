//! CreatePartitions (key 37), versions 0–3 (KIP-195). Answered when the partitions are durable and every core has them.

use std::rc::Rc;

use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, create_partitions_response::CreatePartitionsTopicResult,
};

use crate::{
    api::{Context, Outcome, call::Call},
    controller::asks::CreatePartitions,
};

pub(super) async fn handle(context: &Rc<Context>, call: Call<CreatePartitionsRequest>) -> Outcome {
    let (request, call) = call.take();
    let names: Vec<_> = request.topics.iter().map(|topic| topic.name.clone()).collect();
    let error = match context.router.control(CreatePartitions(request)).await {
        Ok(answer) => return call.reply(&answer),
        Err(error) => error,
    };
    let refused = |name| CreatePartitionsTopicResult::default().with_name(name).with_error_code(error.code());
    call.reply(&CreatePartitionsResponse::default().with_results(names.into_iter().map(refused).collect()))
}
