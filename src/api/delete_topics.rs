//! DeleteTopics (key 20), versions 1–6. Answered when the deletion is durable and every core has forgotten the topics.
//! v5 messages · v6 by topic id (KIP-516)

use std::rc::Rc;

use kafka_protocol::messages::{
    DeleteTopicsRequest, DeleteTopicsResponse, delete_topics_request::DeleteTopicState,
    delete_topics_response::DeletableTopicResult,
};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, throttled},
    },
    base::{ErrorCode, TopicId},
    controller::asks::DeleteTopics,
    metadata::Topic,
};

throttled!(DeleteTopicsResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<DeleteTopicsRequest>) -> Outcome {
    let (mut request, call) = call.take();
    if !context.router.config().topics.delete {
        // KIP-322 gave this its own code in v3.
        let code = if call.version < 3 { ErrorCode::InvalidRequest } else { ErrorCode::TopicDeletionDisabled };
        return call.reply(refused(asked_of(&request), code));
    }
    let image = context.router.image();
    let view = call.view(&image);
    // What is not there is for the controller to say.
    let denies = |topic: &Result<&Topic, ErrorCode>| matches!(topic, Err(ErrorCode::TopicAuthorizationFailed));
    let (denied_names, names): (Vec<_>, Vec<_>) =
        std::mem::take(&mut request.topic_names).into_iter().partition(|name| denies(&view.topic(name)));
    let (denied, topics): (Vec<_>, Vec<_>) =
        std::mem::take(&mut request.topics).into_iter().partition(|topic| match &topic.name {
            Some(name) => denies(&view.topic(name)),
            None => denies(&view.topic_by_id(TopicId(topic.topic_id))),
        });
    (request.topic_names, request.topics) = (names, topics);
    let denied = DeleteTopicsRequest::default().with_topic_names(denied_names).with_topics(denied);
    let denied = refused(asked_of(&denied), ErrorCode::TopicAuthorizationFailed).responses;
    let asked = asked_of(&request);
    let mut answer = match context.router.control(DeleteTopics(request, call.version)).await {
        Ok(answer) => answer,
        Err(error) => refused(asked, error),
    };
    answer.responses.extend(denied);
    call.reply(answer)
}

fn asked_of(request: &DeleteTopicsRequest) -> Vec<DeleteTopicState> {
    let names = request.topic_names.iter().map(|name| DeleteTopicState::default().with_name(Some(name.clone())));
    request.topics.iter().cloned().chain(names).collect()
}

fn refused(asked: Vec<DeleteTopicState>, error: ErrorCode) -> DeleteTopicsResponse {
    let result = |topic: DeleteTopicState| {
        DeletableTopicResult::default()
            .with_name(topic.name)
            .with_topic_id(topic.topic_id)
            .with_error_code(error.code())
    };
    DeleteTopicsResponse::default().with_responses(asked.into_iter().map(result).collect())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::TopicName;

    use super::*;
    use crate::{api::call::text, protocol::frame};

    #[test]
    fn refusals_name_what_was_asked_in_every_version() {
        for version in 1..=6 {
            let name = TopicName(text("t"));
            let request = if version < 6 {
                DeleteTopicsRequest::default().with_topic_names(vec![name])
            } else {
                DeleteTopicsRequest::default().with_topics(vec![DeleteTopicState::default().with_name(Some(name))])
            };
            let answer = refused(asked_of(&request), ErrorCode::TopicDeletionDisabled);
            assert_eq!(answer.responses[0].name.as_ref().map(|name| name.as_str()), Some("t"));
            frame::reply(1, version, &answer).unwrap_or_else(|why| panic!("v{version}: {why}"));
        }
    }
}
