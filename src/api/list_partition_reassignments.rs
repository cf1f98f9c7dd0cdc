//! ListPartitionReassignments (key 46), version 0 (KIP-455).

use std::rc::Rc;

use kafka_protocol::messages::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, TopicName,
    list_partition_reassignments_response::{OngoingPartitionReassignment, OngoingTopicReassignment},
};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, text, throttled},
        topics::wire_brokers,
    },
    metadata::{Image, Topic},
};

throttled!(ListPartitionReassignmentsResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<ListPartitionReassignmentsRequest>) -> Outcome {
    let answer = ListPartitionReassignmentsResponse::default().with_error_message(None);
    if let Err(error) = call.asker.cluster() {
        return call.reply(answer.with_error_code(error.code()));
    }
    call.reply(answer.with_topics(ongoing(&context.router.image(), &call.request)))
}

/// The partitions on their way to other brokers, of those that are asked for. What is not there is not told.
fn ongoing(image: &Image, request: &ListPartitionReassignmentsRequest) -> Vec<OngoingTopicReassignment> {
    let found: Vec<_> = match &request.topics {
        Some(asked) => asked
            .iter()
            .filter_map(|asked| {
                Some(moving(image.topic(&asked.name)?, |index| asked.partition_indexes.contains(&index)))
            })
            .collect(),
        None => image.topics().map(|topic| moving(topic, |_| true)).collect(),
    };
    found.into_iter().filter(|topic| !topic.partitions.is_empty()).collect()
}

fn moving(topic: &Topic, wanted: impl Fn(i32) -> bool) -> OngoingTopicReassignment {
    let partitions = (0..)
        .zip(&topic.partitions)
        .filter(|(_, partition)| !partition.adding_replicas.is_empty() || !partition.removing_replicas.is_empty());
    let partitions = partitions.filter(|(index, _)| wanted(*index)).map(|(index, partition)| {
        OngoingPartitionReassignment::default()
            .with_partition_index(index)
            .with_replicas(wire_brokers(&partition.replicas))
            .with_adding_replicas(wire_brokers(&partition.adding_replicas))
            .with_removing_replicas(wire_brokers(&partition.removing_replicas))
    });
    OngoingTopicReassignment::default().with_name(TopicName(text(&topic.name))).with_partitions(partitions.collect())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;

    use super::*;
    use crate::{
        api::topics::test_image,
        protocol::metadata_records::{MetadataRecord, PartitionChange},
    };

    #[test]
    fn what_moves_is_told_to_whom_it_is_asked_by() {
        let mut image = test_image();
        let all = ListPartitionReassignmentsRequest::default().with_topics(None);
        assert_eq!(ongoing(&image, &all), []);
        let topic_id = image.topic("a").expect("it is there").id;
        let change = PartitionChange { adding_replicas: Some(vec![2]), ..PartitionChange::of(topic_id, 1) };
        image.apply(&MetadataRecord::PartitionChange(change)).expect("it is there");
        let found = ongoing(&image, &all);
        assert_eq!((found.len(), found[0].partitions[0].partition_index), (1, 1));
        assert_eq!(found[0].partitions[0].adding_replicas[0].0, 2);
        let asked = |name: &str, indexes: &[i32]| {
            let topic = ListPartitionReassignmentsTopics::default()
                .with_name(TopicName(text(name)))
                .with_partition_indexes(indexes.to_vec());
            ongoing(&image, &ListPartitionReassignmentsRequest::default().with_topics(Some(vec![topic]))).len()
        };
        assert_eq!((asked("a", &[0, 1]), asked("a", &[0, 7]), asked("nope", &[0])), (1, 0, 0));
    }
}
