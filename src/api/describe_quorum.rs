//! DescribeQuorum (key 55), versions 0–2 (KIP-595).
//! v1 times of the last fetches (KIP-836) · v2 directories, endpoints and messages (KIP-853)
//! Differs from Kafka: where voters listen is not told, and of several the leader alone knows how far it is.

use std::rc::Rc;

use kafka_protocol::{
    messages::{
        BrokerId as WireBroker, DescribeQuorumRequest, DescribeQuorumResponse,
        describe_quorum_response::{Node, PartitionData, ReplicaState, TopicData},
    },
    protocol::StrBytes,
};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, Throttled},
    },
    base::{ErrorCode, METADATA_KEY, METADATA_TOPIC},
    partition::Isolation,
    shard::{ListedOffset, OffsetsCall},
};

const LATEST: i64 = -1;
/// The first version that tells where voters are.
const NODES_FROM: i16 = 2;

impl Throttled for DescribeQuorumResponse {
    /// No version tells it.
    fn set_throttle_time_ms(&mut self, _: i32) {}
}

pub(super) async fn handle(context: &Rc<Context>, call: Call<DescribeQuorumRequest>) -> Outcome {
    let answer = DescribeQuorumResponse::default().with_error_message(Some(StrBytes::new()));
    if let Err(error) = call.asker.cluster() {
        let message = StrBytes::from_static_str("Cluster authorization failed.");
        return call.reply(answer.with_error_code(error.code()).with_error_message(Some(message)));
    }
    if !asks_for_the_metadata(&call.request) {
        return call.reply(answer.with_topics(refused(&call.request, ErrorCode::UnknownTopicOrPartition)));
    }
    if let Some(cluster) = context.router.cluster() {
        if !context.router.decides_for_others() {
            return call.reply(answer.with_topics(refused(&call.request, ErrorCode::NotLeaderOrFollower)));
        }
        let end = ListedOffset {
            timestamp: -1,
            offset: context.router.image_offset().plus(1),
            leader_epoch: cluster.epoch(),
        };
        let voters: Vec<i32> = cluster.voters().iter().map(|voter| voter.id.0).collect();
        let me = context.router.broker_id().0;
        let topics = described(&call.request, me, &voters, &end, context.io.clock.wall());
        let nodes = if call.version >= NODES_FROM { nodes(&voters) } else { Vec::new() };
        return call.reply(answer.with_topics(topics).with_nodes(nodes));
    }
    let asked = OffsetsCall::List(vec![(METADATA_KEY, -1, LATEST)], Isolation::ReadUncommitted);
    let error = match context.router.offsets(asked).await.into_iter().next() {
        Some(Ok(end)) => {
            let voter = context.router.broker_id().0;
            let nodes = if call.version >= NODES_FROM { nodes(&[voter]) } else { Vec::new() };
            let topics = described(&call.request, voter, &[voter], &end, context.io.clock.wall());
            return call.reply(answer.with_topics(topics).with_nodes(nodes));
        }
        Some(Err(error)) => error,
        None => ErrorCode::UnknownServerError,
    };
    call.reply(answer.with_topics(refused(&call.request, error)))
}

/// For it and for nothing else, once: as in Kafka one more makes all unknown.
fn asks_for_the_metadata(request: &DescribeQuorumRequest) -> bool {
    match &request.topics[..] {
        [topic] => {
            topic.topic_name.as_str() == METADATA_TOPIC
                && matches!(&topic.partitions[..], [partition] if partition.partition_index == METADATA_KEY.partition)
        }
        _ => false,
    }
}

fn nodes(voters: &[i32]) -> Vec<Node> {
    voters.iter().map(|voter| Node::default().with_node_id(WireBroker(*voter))).collect()
}

/// The leader has everything that is committed, and is never behind; of the others Kafka's word for "not known" is said.
fn described(
    request: &DescribeQuorumRequest,
    leader: i32,
    voters: &[i32],
    end: &ListedOffset,
    now_ms: i64,
) -> Vec<TopicData> {
    let state = |voter: &i32| {
        let state = ReplicaState::default().with_replica_id(WireBroker(*voter));
        if *voter == leader {
            return state
                .with_log_end_offset(end.offset.0)
                .with_last_fetch_timestamp(now_ms)
                .with_last_caught_up_timestamp(now_ms);
        }
        state.with_log_end_offset(-1)
    };
    let partition = PartitionData::default()
        .with_partition_index(METADATA_KEY.partition)
        .with_error_message(Some(StrBytes::new()))
        .with_leader_id(WireBroker(leader))
        .with_leader_epoch(end.leader_epoch.0)
        .with_high_watermark(end.offset.0)
        .with_current_voters(voters.iter().map(state).collect());
    let topic = |name| TopicData::default().with_topic_name(name).with_partitions(vec![partition.clone()]);
    request.topics.iter().map(|asked| topic(asked.topic_name.clone())).collect()
}

fn refused(request: &DescribeQuorumRequest, error: ErrorCode) -> Vec<TopicData> {
    let message = match error {
        ErrorCode::UnknownTopicOrPartition => "This server does not host this topic-partition.",
        _ => "The metadata's log does not answer.",
    };
    let topics = request.topics.iter().map(|asked| {
        let partitions = asked.partitions.iter().map(|partition| {
            PartitionData::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(error.code())
                .with_error_message(Some(StrBytes::from_static_str(message)))
        });
        TopicData::default().with_topic_name(asked.topic_name.clone()).with_partitions(partitions.collect())
    });
    topics.collect()
}
