//! OffsetDelete (key 47), version 0 (KIP-496).
//! Topics and partitions that do not exist are answered here, the rest by the coordinator. Forgetting a group's offsets is deleting of
//! the group, and reading of the topics.

use std::rc::Rc;

use kafka_protocol::messages::{
    OffsetDeleteRequest, OffsetDeleteResponse, TopicName,
    offset_delete_request::OffsetDeleteRequestTopic,
    offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic},
};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, throttled},
        groups,
        policy::Operation,
        topics,
        view::View,
    },
    base::{ErrorCode, Map},
    group::asks::OffsetDelete,
};

throttled!(OffsetDeleteResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<OffsetDeleteRequest>) -> Outcome {
    let (mut request, call) = call.take();
    let refused = |error: ErrorCode| OffsetDeleteResponse::default().with_error_code(error.code());
    if let Err(error) = call.asker.group(&request.group_id) {
        return call.reply(refused(error));
    }
    let reader = call.asker.to(Operation::Read);
    let image = context.router.image();
    let (mut answers, known) = sort(View::new(&image, &reader), std::mem::take(&mut request.topics));
    if request.group_id.is_empty() {
        return call.reply(refused(ErrorCode::InvalidGroupId));
    }
    // Also if nothing is left to ask for: a group that is not there is said to be so.
    request.topics = known;
    let group_id = request.group_id.clone();
    match groups::ask(context, &call.asker, &group_id, OffsetDelete(request)).await {
        Err(error) => call.reply(refused(error)),
        Ok(answer) if answer.error_code != 0 => call.reply(answer),
        Ok(answer) => {
            merge(&mut answers, answer.topics);
            call.reply(OffsetDeleteResponse::default().with_topics(answers))
        }
    }
}

/// Marks what the coordinator has to answer. Not a code of Kafka's; [`merge`] leaves none of them.
const OPEN: i16 = i16::MIN;

/// The answer with its errors filled in and the rest [`OPEN`], and the request without what does not exist.
fn sort(
    view: View<'_>,
    asked: Vec<OffsetDeleteRequestTopic>,
) -> (Vec<OffsetDeleteResponseTopic>, Vec<OffsetDeleteRequestTopic>) {
    let mut answers = Vec::with_capacity(asked.len());
    let mut known = Vec::with_capacity(asked.len());
    // A topic without partitions is not answered, as in Kafka.
    for mut topic in asked.into_iter().filter(|topic| !topic.partitions.is_empty()) {
        let found = view.topic(&topic.name);
        let refusal = |index: i32| found.and_then(|found| topics::partition(found, index)).err();
        let partitions = topic.partitions.iter().map(|partition| {
            let index = partition.partition_index;
            let code = refusal(index).map_or(OPEN, |error| error.code());
            OffsetDeleteResponsePartition::default().with_partition_index(index).with_error_code(code)
        });
        answers.push(
            OffsetDeleteResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions.collect()),
        );
        topic.partitions.retain(|partition| refusal(partition.partition_index).is_none());
        if !topic.partitions.is_empty() {
            known.push(topic);
        }
    }
    (answers, known)
}

/// Fills the coordinator's answers in.
fn merge(answers: &mut [OffsetDeleteResponseTopic], deleted: Vec<OffsetDeleteResponseTopic>) {
    let mut codes: Map<(TopicName, i32), i16> = Map::default();
    for topic in deleted {
        for partition in topic.partitions {
            codes.insert((topic.name.clone(), partition.partition_index), partition.error_code);
        }
    }
    for topic in answers {
        for partition in topic.partitions.iter_mut().filter(|partition| partition.error_code == OPEN) {
            let code = codes.get(&(topic.name.clone(), partition.partition_index));
            // The coordinator answers for all it was given; if it ever did not, success must not be claimed.
            partition.error_code = code.copied().unwrap_or(ErrorCode::UnknownServerError.code());
        }
    }
}
