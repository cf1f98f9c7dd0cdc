//! DeleteTopics (key 20), versions 1–6. Answered when the deletion is durable and every core has forgotten the topics.
//! v5 messages · v6 by topic id (KIP-516)

use std::rc::Rc;

use kafka_protocol::messages::{
    DeleteTopicsRequest, DeleteTopicsResponse, delete_topics_request::DeleteTopicState,
    delete_topics_response::DeletableTopicResult,
};

use crate::{
    api::{Context, Outcome, call::Call},
    base::ErrorCode,
    controller::asks::DeleteTopics,
};

pub(super) async fn handle(context: &Rc<Context>, call: Call<DeleteTopicsRequest>) -> Outcome {
    let (request, call) = call.take();
    let asked = asked(&request);
    if !context.router.config().topics.delete {
        // KIP-322 gave this its own code in v3.
        let code = if call.version < 3 { ErrorCode::InvalidRequest } else { ErrorCode::TopicDeletionDisabled };
        return call.reply(&refused(asked, code));
    }
    match context.router.control(DeleteTopics(request, call.version)).await {
        Ok(answer) => call.reply(&answer),
        Err(error) => call.reply(&refused(asked, error)),
    }
}

fn asked(request: &DeleteTopicsRequest) -> Vec<DeleteTopicState> {
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
            let answer = refused(asked(&request), ErrorCode::TopicDeletionDisabled);
            assert_eq!(answer.responses[0].name.as_ref().map(|name| name.as_str()), Some("t"));
            frame::reply(1, version, &answer).unwrap_or_else(|why| panic!("v{version}: {why}"));
        }
    }
}
