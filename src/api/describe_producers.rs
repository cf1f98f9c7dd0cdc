//! DescribeProducers (key 61), version 0 (KIP-664): the producers with an id that a partition remembers.
//! Differs from Kafka: one answer has no more than 10,000 of them and those of one partition.

use std::rc::Rc;

use kafka_protocol::{
    messages::{
        DescribeProducersRequest, DescribeProducersResponse, ProducerId as WireProducer,
        describe_producers_response::{PartitionResponse, ProducerState, TopicResponse},
    },
    protocol::StrBytes,
};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, throttled},
        scatter::Scatter,
        topics,
    },
    base::ErrorCode,
    partition::ActiveProducer,
};

throttled!(DescribeProducersResponse);

/// With so many producers in it an answer takes no further partition: one may have a hundred thousand, and be named many times.
const PRODUCERS_TOLD: usize = 10_000;

type Found = Result<Vec<ActiveProducer>, (ErrorCode, Option<&'static str>)>;

pub(super) async fn handle(context: &Rc<Context>, call: Call<DescribeProducersRequest>) -> Outcome {
    let (request, call) = call.take();
    let image = context.router.image();
    let mut scatter = Scatter::new(request.topics.len());
    for topic in request.topics {
        let found = call.view(&image).topic(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for index in topic.partition_indexes {
            let answer = PartitionResponse::default().with_partition_index(index).with_error_message(None);
            let ask = match found {
                Ok(topic) => topics::partition(topic, index).map_err(|error| (error, None)),
                Err(ErrorCode::UnknownTopicOrPartition) => {
                    Err((ErrorCode::UnknownTopicOrPartition, Some("This server does not host this topic-partition.")))
                }
                Err(error) => Err((error, None)),
            };
            scatter.partition(&mut partitions, answer, ask, |answer, (error, why)| {
                answer.error_code = error.code();
                answer.error_message = why.map(StrBytes::from_static_str);
            });
        }
        scatter.topic(TopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    let (asked, places) = scatter.ask();
    let (mut found, mut count) = (Vec::with_capacity(asked.len()), 0);
    for key in asked {
        if count >= PRODUCERS_TOLD {
            found.push(Err((
                ErrorCode::InvalidRequest,
                Some("So many producers are told already: ask again for the others."),
            )));
            continue;
        }
        let producers = context.router.producers(key).await;
        count += producers.as_ref().map_or(0, Vec::len);
        found.push(producers.map_err(|error| (error, None)));
    }
    let fill = |answer: &mut PartitionResponse, found: Found| match found {
        Ok(producers) => answer.active_producers = producers.iter().map(told).collect(),
        Err((error, why)) => {
            answer.error_code = error.code();
            answer.error_message = why.map(StrBytes::from_static_str);
        }
    };
    let answers = places.gather(found, |topic| &mut topic.partitions, fill);
    call.reply(DescribeProducersResponse::default().with_topics(answers))
}

fn told(producer: &ActiveProducer) -> ProducerState {
    ProducerState::default()
        .with_producer_id(WireProducer(producer.id.0))
        .with_producer_epoch(i32::from(producer.epoch.0))
        .with_last_sequence(producer.last_sequence)
        .with_last_timestamp(producer.last_timestamp)
        .with_coordinator_epoch(producer.coordinator_epoch)
        .with_current_txn_start_offset(producer.transaction_start.map_or(-1, |offset| offset.0))
}
