//! DeleteRecords (key 21), versions 0–2 (KIP-107). Answered when the new log start offset is durable.
//! Differs from Kafka: success survives `kill -9`; Kafka writes the log start offset down once a minute.

use std::rc::Rc;

use kafka_protocol::messages::{
    DeleteRecordsRequest, DeleteRecordsResponse, TopicName,
    delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult},
};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, throttled},
        scatter::Scatter,
        view::View,
    },
    base::{ErrorCode, PartitionKey},
    metadata::names,
    shard::{ListedOffset, OffsetsCall},
};

throttled!(DeleteRecordsResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<DeleteRecordsRequest>) -> Outcome {
    let (request, call) = call.take();
    let image = context.router.image();
    let mut scatter = Scatter::new(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let index = partition.partition_index;
            let answer = DeleteRecordsPartitionResult::default().with_partition_index(index).with_low_watermark(-1);
            let ask = deletable(context, call.view(&image), &topic.name, index).map(|key| (key, partition.offset));
            scatter.partition(&mut partitions, answer, ask, |answer, error| answer.error_code = error.code());
        }
        scatter.topic(DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions));
    }
    let (asked, places) = scatter.ask();
    let deleted = context.router.offsets(OffsetsCall::DeleteRecords(asked)).await;
    let fill = |answer: &mut DeleteRecordsPartitionResult, deleted: Result<ListedOffset, ErrorCode>| match deleted {
        Ok(deleted) => answer.low_watermark = deleted.offset.0,
        Err(error) => answer.error_code = error.code(),
    };
    let answers = places.gather(deleted, |topic| &mut topic.partitions, fill);
    call.reply(DeleteRecordsResponse::default().with_topics(answers))
}

/// Records of internal topics and of topics that are only compacted stay.
fn deletable(context: &Context, view: View<'_>, name: &TopicName, index: i32) -> Result<PartitionKey, ErrorCode> {
    let key = view.partition(name, index)?;
    if names::is_internal(name) {
        return Err(ErrorCode::InvalidTopicException);
    }
    let topic = context.router.topic(key.topic_id).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if topic.config.cleanup_policy.compact && !topic.config.cleanup_policy.delete {
        return Err(ErrorCode::PolicyViolation);
    }
    Ok(key)
}
