//! OffsetForLeaderEpoch (key 23), versions 2–4.
//! v2 the client's own epoch (KIP-320) · v3 replica id · v4 flexible

use std::rc::Rc;

use kafka_protocol::messages::{
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult},
};

use crate::{
    api::{Context, Outcome, call::Call, topics},
    shard::OffsetsCall,
};

pub(super) async fn handle(context: &Rc<Context>, call: Call<OffsetForLeaderEpochRequest>) -> Outcome {
    let (request, call) = call.take();
    let image = context.router.image();
    let mut asked = Vec::new();
    let mut places = Vec::new();
    let mut answers = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let mut answer = EpochEndOffset::default().with_partition(partition.partition);
            match topics::by_name(&image, &topic.topic, partition.partition) {
                Ok(key) => {
                    places.push((answers.len(), partitions.len()));
                    asked.push((key, partition.current_leader_epoch, partition.leader_epoch));
                }
                Err(error) => answer.error_code = error.code(),
            }
            partitions.push(answer);
        }
        answers.push(OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions));
    }
    let found = context.router.offsets(OffsetsCall::ForLeaderEpoch(asked)).await;
    for ((topic, partition), found) in places.into_iter().zip(found) {
        let answer: &mut EpochEndOffset = &mut answers[topic].partitions[partition];
        match found {
            Ok(found) => {
                answer.leader_epoch = found.leader_epoch.0;
                answer.end_offset = found.offset.0;
            }
            Err(error) => answer.error_code = error.code(),
        }
    }
    call.reply(&OffsetForLeaderEpochResponse::default().with_topics(answers))
}
