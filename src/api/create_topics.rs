//! CreateTopics (key 19), versions 2–7. Answered when the topics are durable and every core has them.
//! v4 default partitions and replicas (KIP-464) · v5 the configs of the new topic (KIP-525) · v7 topic ids (KIP-516)

use std::rc::Rc;

use kafka_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, create_topics_response::CreatableTopicResult,
};

use crate::{
    api::{Context, Outcome, call::Call},
    controller::asks::CreateTopics,
};

pub(super) async fn handle(context: &Rc<Context>, call: Call<CreateTopicsRequest>) -> Outcome {
    let (request, call) = call.take();
    let names: Vec<_> = request.topics.iter().map(|topic| topic.name.clone()).collect();
    let error = match context.router.control(CreateTopics(request)).await {
        Ok(answer) => return call.reply(&answer),
        Err(error) => error,
    };
    let refused = |name| CreatableTopicResult::default().with_name(name).with_error_code(error.code());
    call.reply(&CreateTopicsResponse::default().with_topics(names.into_iter().map(refused).collect()))
}
