//! CreatePartitions (key 37), versions 0–3 (KIP-195). Answered when the partitions are durable and every core has them.

use std::rc::Rc;

use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, create_partitions_response::CreatePartitionsTopicResult,
};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, throttled},
    },
    base::ErrorCode,
    controller::asks::CreatePartitions,
};

throttled!(CreatePartitionsResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<CreatePartitionsRequest>) -> Outcome {
    let (mut request, call) = call.take();
    let (allowed, denied): (Vec<_>, Vec<_>) =
        request.topics.into_iter().partition(|topic| call.asker.topic(&topic.name).is_ok());
    let names: Vec<_> = allowed.iter().map(|topic| topic.name.clone()).collect();
    request.topics = allowed;
    let refused =
        |name, error: ErrorCode| CreatePartitionsTopicResult::default().with_name(name).with_error_code(error.code());
    let mut results = match context.router.control(CreatePartitions(request)).await {
        Ok(answer) => answer.results,
        Err(error) => names.into_iter().map(|name| refused(name, error)).collect(),
    };
    results.extend(denied.into_iter().map(|topic| refused(topic.name, ErrorCode::TopicAuthorizationFailed)));
    call.reply(CreatePartitionsResponse::default().with_results(results))
}
