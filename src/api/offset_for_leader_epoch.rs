//! OffsetForLeaderEpoch (key 23), versions 2–4.
//! v2 the client's own epoch (KIP-320) · v3 replica id · v4 flexible

use std::rc::Rc;

use kafka_protocol::messages::{
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult},
};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, throttled},
        scatter::Scatter,
    },
    base::ErrorCode,
    shard::{ListedOffset, OffsetsCall},
};

throttled!(OffsetForLeaderEpochResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<OffsetForLeaderEpochRequest>) -> Outcome {
    let (request, call) = call.take();
    let image = context.router.image();
    let mut scatter = Scatter::new(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let answer = EpochEndOffset::default().with_partition(partition.partition);
            let key = call.view(&image).partition(&topic.topic, partition.partition);
            let ask = key.map(|key| (key, partition.current_leader_epoch, partition.leader_epoch));
            scatter.partition(&mut partitions, answer, ask, |answer, error| answer.error_code = error.code());
        }
        scatter.topic(OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions));
    }
    let (asked, places) = scatter.ask();
    let found = context.router.offsets(OffsetsCall::ForLeaderEpoch(asked)).await;
    let fill = |answer: &mut EpochEndOffset, found: Result<ListedOffset, ErrorCode>| match found {
        Ok(found) => {
            answer.leader_epoch = found.leader_epoch.0;
            answer.end_offset = found.offset.0;
        }
        Err(error) => answer.error_code = error.code(),
    };
    let answers = places.gather(found, |topic| &mut topic.partitions, fill);
    call.reply(OffsetForLeaderEpochResponse::default().with_topics(answers))
}
