//! ListOffsets (key 2), versions 1–10.
//! v2 isolation level (KIP-98) · v4 leader epochs (KIP-320) · v7 offset of the largest timestamp (KIP-734) ·
//! v8 earliest local offset (KIP-405) · v9 latest tiered offset (KIP-1005) · v10 time-out (KIP-1075; nothing here is slow)
//! Differs from Kafka: no tiered storage, so -4 is the earliest offset and -5 answers -1.

use std::rc::Rc;

use kafka_protocol::messages::{
    ListOffsetsRequest, ListOffsetsResponse, TopicName,
    list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, throttled},
        scatter::Scatter,
    },
    base::{ErrorCode, Set},
    partition::Isolation,
    shard::{ListedOffset, OffsetsCall},
};

/// Timestamps below zero that stand for an offset, and the first version that may ask for them.
const WORDS: [(i64, i16); 5] = [(-1, 1), (-2, 1), (-3, 7), (-4, 8), (-5, 9)];

throttled!(ListOffsetsResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<ListOffsetsRequest>) -> Outcome {
    let (request, call) = call.take();
    let image = context.router.image();
    let twice = asked_twice(&request);
    let mut refused = Set::default();
    let mut scatter = Scatter::new(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let index = partition.partition_index;
            let name = (topic.name.clone(), index);
            let is_twice = twice.contains(&name);
            if is_twice && !refused.insert(name) {
                continue;
            }
            let ask = call.view(&image).partition(&topic.name, index).and_then(|key| {
                if is_twice {
                    return Err(ErrorCode::InvalidRequest);
                }
                if !is_known(partition.timestamp, call.version) {
                    return Err(ErrorCode::UnsupportedVersion);
                }
                Ok((key, partition.current_leader_epoch, partition.timestamp))
            });
            let answer = ListOffsetsPartitionResponse::default().with_partition_index(index);
            scatter.partition(&mut partitions, answer, ask, |answer, error| answer.error_code = error.code());
        }
        scatter.topic(ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    let isolation = if request.isolation_level == 1 { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
    let (asked, places) = scatter.ask();
    let listed = context.router.offsets(OffsetsCall::List(asked, isolation)).await;
    let fill = |answer: &mut ListOffsetsPartitionResponse, listed: Result<ListedOffset, ErrorCode>| match listed {
        Ok(listed) => {
            answer.timestamp = listed.timestamp;
            answer.offset = listed.offset.0;
            if call.version >= 4 {
                answer.leader_epoch = listed.leader_epoch.0;
            }
        }
        Err(error) => answer.error_code = error.code(),
    };
    let answers = places.gather(listed, |topic| &mut topic.partitions, fill);
    call.reply(ListOffsetsResponse::default().with_topics(answers))
}

/// Partitions that the request names more than once. They are answered once, as INVALID_REQUEST.
fn asked_twice(request: &ListOffsetsRequest) -> Set<(TopicName, i32)> {
    let mut seen = Set::default();
    let names = request
        .topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|partition| (topic.name.clone(), partition.partition_index)));
    names.filter(|name| !seen.insert(name.clone())).collect()
}

fn is_known(timestamp: i64, version: i16) -> bool {
    timestamp >= 0 || WORDS.iter().any(|(word, since)| *word == timestamp && version >= *since)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_by_version() {
        for (timestamp, first) in WORDS {
            assert!(is_known(timestamp, first), "{timestamp}");
            assert!(!is_known(timestamp, first - 1), "{timestamp}");
        }
        assert!(is_known(0, 1) && is_known(i64::MAX, 1));
        assert!(!is_known(-6, 10) && !is_known(i64::MIN, 10));
    }

    #[test]
    fn partitions_asked_twice_are_found() {
        use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};

        let topic = |name: &str, indexes: &[i32]| {
            let partition = |index: &i32| ListOffsetsPartition::default().with_partition_index(*index);
            ListOffsetsTopic::default()
                .with_name(TopicName(crate::api::call::text(name)))
                .with_partitions(indexes.iter().map(partition).collect())
        };
        let request = |topics| ListOffsetsRequest::default().with_topics(topics);
        assert!(asked_twice(&request(vec![topic("a", &[0, 1]), topic("b", &[0, 1])])).is_empty());
        let twice = asked_twice(&request(vec![topic("a", &[0, 1, 1]), topic("b", &[0]), topic("a", &[0])]));
        assert_eq!(twice.len(), 2);
    }

    #[test]
    fn nothing_found_is_minus_one() {
        let answer = ListOffsetsPartitionResponse::default();
        assert_eq!((answer.timestamp, answer.offset, answer.leader_epoch), (-1, -1, -1));
    }
}
