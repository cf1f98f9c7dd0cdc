//! Deleting topics, by name or by id (KIP-516).

use kafka_protocol::messages::{
    DeleteTopicsRequest, DeleteTopicsResponse, TopicName, delete_topics_request::DeleteTopicState,
    delete_topics_response::DeletableTopicResult,
};

use super::{ApiError, Controller, repeated};
use crate::{
    base::{ErrorCode, TopicId},
    protocol::metadata_records::MetadataRecord,
};

/// Kafka's words for the two codes: tools print them.
const NO_PARTITION: &str = "This server does not host this topic-partition.";
const NO_TOPIC_ID: &str = "This server does not host this topic ID.";

impl Controller {
    /// DeleteTopics, versions 1–6: names alone below 6.
    pub fn delete_topics(
        &mut self,
        request: &DeleteTopicsRequest,
        version: i16,
    ) -> (Vec<MetadataRecord>, DeleteTopicsResponse) {
        let wanted: Vec<DeleteTopicState> = if version < 6 {
            let by_name = |name: &TopicName| DeleteTopicState::default().with_name(Some(name.clone()));
            request.topic_names.iter().map(by_name).collect()
        } else {
            request.topics.clone()
        };
        let mut records = Vec::new();
        let mut responses = Vec::with_capacity(wanted.len());
        if !self.config.topics.delete {
            let code = if version < 3 { ErrorCode::InvalidRequest } else { ErrorCode::TopicDeletionDisabled };
            responses.extend(wanted.iter().map(|topic| answer(topic, &Err(ApiError::bare(code)))));
            return (records, DeleteTopicsResponse::default().with_responses(responses));
        }
        let ids: Vec<_> = wanted.iter().map(|topic| self.find_topic(topic)).collect();
        let repeated = repeated(ids.iter().flatten().map(|(id, _)| *id));
        let mut told = Vec::new();
        for (topic, found) in wanted.iter().zip(ids) {
            match &found {
                // Whether by name, by id or by both: who is named twice is not deleted, and told once.
                Ok((id, _)) if repeated.contains(id) => {
                    if !told.contains(id) {
                        told.push(*id);
                        let what = if topic.name.is_some() { "name" } else { "id" };
                        let message = format!("Duplicate topic {what}.");
                        responses.push(answer(topic, &Err(ApiError::new(ErrorCode::InvalidRequest, message))));
                    }
                }
                Ok((id, _)) => {
                    records.push(MetadataRecord::RemoveTopic { topic_id: *id });
                    responses.push(answer(topic, &found));
                }
                Err(_) => responses.push(answer(topic, &found)),
            }
        }
        self.apply(&records);
        (records, DeleteTopicsResponse::default().with_responses(responses))
    }

    fn find_topic(&self, topic: &DeleteTopicState) -> Result<(TopicId, TopicName), ApiError> {
        let invalid = |message: &str| Err(ApiError::new(ErrorCode::InvalidRequest, message));
        let (found, missing) = match (&topic.name, topic.topic_id) {
            (Some(_), id) if !id.is_nil() => return invalid("You may not specify both topic name and topic id."),
            (None, id) if id.is_nil() => return invalid("Neither topic name nor id were specified."),
            (Some(name), _) => (self.image.topic(name.as_str()), (ErrorCode::UnknownTopicOrPartition, NO_PARTITION)),
            (None, id) => (self.image.topic_by_id(TopicId(id)), (ErrorCode::UnknownTopicId, NO_TOPIC_ID)),
        };
        let topic = found.ok_or_else(|| ApiError::new(missing.0, missing.1))?;
        Ok((topic.id, TopicName(topic.name.to_string().into())))
    }
}

fn answer(asked: &DeleteTopicState, found: &Result<(TopicId, TopicName), ApiError>) -> DeletableTopicResult {
    let result = DeletableTopicResult::default();
    match found {
        Ok((id, name)) => result.with_name(Some(name.clone())).with_topic_id(id.0),
        Err(refusal) => result
            .with_name(asked.name.clone())
            .with_topic_id(asked.topic_id)
            .with_error_code(refusal.code.code())
            .with_error_message(refusal.message()),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::controller::tests::{controller, ids, replays};

    fn by_id(id: Uuid) -> DeleteTopicState {
        DeleteTopicState::default().with_name(None).with_topic_id(id)
    }

    fn by_name(name: &'static str) -> DeleteTopicState {
        DeleteTopicState::default().with_name(Some(TopicName(name.into())))
    }

    fn check(version: i16, topics: Vec<DeleteTopicState>, expected: &[&str]) {
        let mut controller = controller("");
        controller.auto_create(&["a", "b", "c"], &mut ids());
        let request = if version < 6 {
            DeleteTopicsRequest::default().with_topic_names(topics.into_iter().filter_map(|topic| topic.name).collect())
        } else {
            DeleteTopicsRequest::default().with_topics(topics)
        };
        let before = controller.image().clone();
        let (records, response) = controller.delete_topics(&request, version);
        replays(&before, &records, &controller);
        let mut found: Vec<_> = response
            .responses
            .iter()
            .map(|result| {
                let name = result.name.as_ref().map_or("-", |name| name.as_str());
                let message = result.error_message.as_deref().unwrap_or_default();
                format!("{name} {} {} {message}", result.topic_id.as_u128(), result.error_code).trim_end().to_owned()
            })
            .collect();
        found.push(controller.image().topics().map(|topic| &*topic.name).collect());
        assert_eq!(found, expected);
    }

    #[test]
    fn topics_go_by_name_and_by_id() {
        check(
            5,
            vec![by_name("b"), by_name("x")],
            &["b 1001 0", "x 0 3 This server does not host this topic-partition.", "ac"],
        );
        check(6, vec![by_id(Uuid::from_u128(1000)), by_name("c")], &["a 1000 0", "c 1002 0", "b"]);
    }

    #[test]
    fn what_is_wrong_with_ids_and_names() {
        check(6, vec![by_id(Uuid::from_u128(5))], &["- 5 100 This server does not host this topic ID.", "abc"]);
        check(6, vec![by_id(Uuid::nil())], &["- 0 42 Neither topic name nor id were specified.", "abc"]);
        let both = by_name("a").with_topic_id(Uuid::from_u128(1000));
        check(6, vec![both], &["a 1000 42 You may not specify both topic name and topic id.", "abc"]);
        check(6, vec![by_name("a"), by_id(Uuid::from_u128(1000))], &["a 0 42 Duplicate topic name.", "abc"]);
        check(5, vec![by_name("a"), by_name("a"), by_name("b")], &["a 0 42 Duplicate topic name.", "b 1001 0", "ac"]);
    }

    #[test]
    fn deletion_can_be_switched_off() {
        let mut controller = controller("delete.topic.enable=false\n");
        controller.auto_create(&["a"], &mut ids());
        let request = DeleteTopicsRequest::default().with_topic_names(vec![TopicName("a".into())]);
        for (version, code) in [(2, 42), (3, 73)] {
            let (records, response) = controller.delete_topics(&request, version);
            assert!(records.is_empty());
            assert_eq!(response.responses[0].error_code, code);
        }
    }
}
