//! CreateTopics (key 19), versions 2–7. Answered when the topics are durable and every core has them.
//! v4 default partitions and replicas (KIP-464) · v5 the configs of the new topic (KIP-525) · v7 topic ids (KIP-516)

use std::rc::Rc;

use kafka_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, create_topics_request::CreatableTopic,
    create_topics_response::CreatableTopicResult,
};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, throttled},
    },
    base::ErrorCode,
    controller::asks::CreateTopics,
};

throttled!(CreateTopicsResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<CreateTopicsRequest>) -> Outcome {
    let (mut request, call) = call.take();
    let may = |topic: &CreatableTopic| call.asker.cluster().is_ok() || call.asker.topic(&topic.name).is_ok();
    let (allowed, denied): (Vec<_>, Vec<_>) = request.topics.into_iter().partition(may);
    let names: Vec<_> = allowed.iter().map(|topic| topic.name.clone()).collect();
    request.topics = allowed;
    let refused =
        |name, error: ErrorCode| CreatableTopicResult::default().with_name(name).with_error_code(error.code());
    let mut results = match context.router.control(CreateTopics(request)).await {
        Ok(answer) => answer.topics,
        Err(error) => names.into_iter().map(|name| refused(name, error)).collect(),
    };
    results.extend(denied.into_iter().map(|topic| refused(topic.name, ErrorCode::TopicAuthorizationFailed)));
    call.reply(CreateTopicsResponse::default().with_topics(results))
}
