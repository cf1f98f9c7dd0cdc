//! DescribeTopicPartitions (key 75), version 0 (KIP-966): topics in pieces, with a cursor to where the next piece starts.

use std::rc::Rc;

use kafka_protocol::messages::{
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName,
    describe_topic_partitions_response::{
        Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
    },
};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, text, throttled},
        operations, topics,
        view::View,
    },
    base::ErrorCode,
    metadata::{Topic, names},
};

throttled!(DescribeTopicPartitionsResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<DescribeTopicPartitionsRequest>) -> Outcome {
    let largest = context.router.config().requests.describe_partitions_max;
    call.reply(describe(call.view(&context.router.image()), &call.request, largest))
}

/// Up to `largest` partitions of the topics asked for (none: all), by name, from the cursor on.
fn describe(view: View<'_>, request: &DescribeTopicPartitionsRequest, largest: i32) -> DescribeTopicPartitionsResponse {
    let (start, start_index) = match &request.cursor {
        None => ("", 0),
        Some(cursor) if cursor.partition_index < 0 => return refused(request),
        Some(cursor) => (cursor.topic_name.as_str(), cursor.partition_index),
    };
    let all = request.topics.is_empty();
    if !all && request.cursor.is_some() && request.topics.iter().all(|topic| topic.name.as_str() != start) {
        return refused(request);
    }
    let mut names: Vec<&str> = match all {
        true => view.topics().map(|topic| &*topic.name).collect(),
        false => request.topics.iter().map(|topic| topic.name.as_str()).collect(),
    };
    names.retain(|name| *name >= start);
    names.sort_unstable();
    names.dedup();
    let mut room = request.response_partition_limit.min(largest).max(1) as usize;
    let mut answers = Vec::new();
    for name in names {
        if room == 0 {
            return answer(answers, Some((name, 0)));
        }
        let from = if name == start { start_index } else { 0 };
        let topic = match view.topic(name) {
            Ok(topic) => topic,
            Err(error) => {
                answers.push(absent(view, name, error));
                continue;
            }
        };
        let (described, next) = describe_topic(view, topic, from, room);
        room -= described.partitions.len();
        answers.push(described);
        if let Some(next) = next {
            return answer(answers, Some((name, next)));
        }
    }
    answer(answers, None)
}

fn answer(
    topics: Vec<DescribeTopicPartitionsResponseTopic>,
    next: Option<(&str, i32)>,
) -> DescribeTopicPartitionsResponse {
    let cursor = next.map(|(name, partition)| {
        Cursor::default().with_topic_name(TopicName(text(name))).with_partition_index(partition)
    });
    DescribeTopicPartitionsResponse::default().with_topics(topics).with_next_cursor(cursor)
}

/// At most `room` partitions from index `from` on, and the index of the first one left out.
fn describe_topic(
    view: View<'_>,
    topic: &Topic,
    from: i32,
    room: usize,
) -> (DescribeTopicPartitionsResponseTopic, Option<i32>) {
    let mut rest = (0..).zip(&topic.partitions).skip(from.max(0) as usize);
    let partitions = rest.by_ref().take(room).map(|(index, partition)| {
        DescribeTopicPartitionsResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(topics::wire_leader(partition.leader))
            .with_leader_epoch(partition.leader_epoch.0)
            .with_replica_nodes(topics::wire_brokers(&partition.replicas))
            .with_isr_nodes(topics::wire_brokers(&partition.in_sync_replicas))
            .with_eligible_leader_replicas(Some(topics::wire_brokers(&partition.eligible_leader_replicas)))
            .with_last_known_elr(Some(topics::wire_brokers(&partition.last_known_elr)))
    });
    let described = DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(TopicName(text(&topic.name))))
        .with_topic_id(topic.id.0)
        .with_is_internal(names::is_internal(&topic.name))
        .with_topic_authorized_operations(operations::topic(view.asker(), &topic.name))
        .with_partitions(partitions.collect());
    let next = rest.next().map(|(index, _)| index);
    (described, next)
}

/// The whole request is wrong. There is no other place to say so.
fn refused(request: &DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let refused = request.topics.iter().map(|topic| {
        DescribeTopicPartitionsResponseTopic::default()
            .with_error_code(ErrorCode::InvalidRequest.code())
            .with_name(Some(topic.name.clone()))
    });
    answer(refused.collect(), None)
}

fn absent(view: View<'_>, name: &str, error: ErrorCode) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(topics::why(error, name).code())
        .with_name(Some(TopicName(text(name))))
        .with_is_internal(names::is_internal(name))
        .with_topic_authorized_operations(operations::topic(view.asker(), name))
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::describe_topic_partitions_request::{Cursor as AskedCursor, TopicRequest};

    use super::*;
    use crate::api::asker::Asker;

    /// Topics as `name[indexes]` or `name!code`, then where the next piece starts.
    fn show(asked: &[&str], limit: i32, cursor: Option<(&str, i32)>) -> String {
        let topics = asked.iter().map(|name| TopicRequest::default().with_name(TopicName(text(name)))).collect();
        let cursor = cursor.map(|(name, index)| {
            AskedCursor::default().with_topic_name(TopicName(text(name))).with_partition_index(index)
        });
        let request = DescribeTopicPartitionsRequest::default()
            .with_topics(topics)
            .with_response_partition_limit(limit)
            .with_cursor(cursor);
        let answer = describe(View::new(&topics::test_image(), &Asker::anybody()), &request, 4);
        let topic = |topic: &DescribeTopicPartitionsResponseTopic| {
            let name = topic.name.as_ref().map_or("null", |name| name.as_str());
            if topic.error_code != 0 {
                return format!("{name}!{}", topic.error_code);
            }
            let indexes = topic.partitions.iter().map(|partition| partition.partition_index.to_string());
            format!("{name}[{}]", indexes.collect::<Vec<_>>().join(","))
        };
        let mut words: Vec<_> = answer.topics.iter().map(topic).collect();
        if let Some(next) = &answer.next_cursor {
            words.push(format!("next {}/{}", next.topic_name.as_str(), next.partition_index));
        }
        words.join(" ")
    }

    #[test]
    fn pieces_and_cursors() {
        assert_eq!(show(&["b", "a", "b"], 2000, None), "a[0,1,2] b[0] next b/1", "the broker's own limit is 4");
        assert_eq!(show(&["b", "a"], 2, None), "a[0,1] next a/2");
        assert_eq!(show(&["b", "a"], 2, Some(("a", 2))), "a[2] b[0] next b/1");
        assert_eq!(show(&["b", "a"], 3, None), "a[0,1,2] next b/0");
        assert_eq!(show(&["b", "a"], 3, Some(("b", 0))), "b[0,1]");
        assert_eq!(show(&[], 3, Some(("aa", 7))), "b[0,1]", "the cursor's topic is gone; the next one starts at 0");
        assert_eq!(show(&[], 0, None), "__consumer_offsets[0] next a/0", "at least one partition");
    }

    #[test]
    fn absent_topics_and_bad_cursors() {
        assert_eq!(show(&["nope", "a b", "b"], 4, None), "a b!17 b[0,1] nope!3");
        assert_eq!(show(&["a"], 4, Some(("a", 99))), "a[]");
        assert_eq!(show(&["a"], 4, Some(("a", -1))), "a!42");
        assert_eq!(show(&["a", "b"], 4, Some(("aa", 0))), "a!42 b!42", "a cursor at a topic that is not asked for");
    }
}
