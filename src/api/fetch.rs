//! Fetch (key 1), versions 4–18.
//! v4 isolation (KIP-98) · v5 log start offset (KIP-107) · v7 sessions (KIP-227) · v9 leader epochs (KIP-320) · v11 rack (KIP-392) ·
//! v12 divergence (KIP-595) · v13 topic ids (KIP-516) · v15 replica state (KIP-903) · v16 node endpoints (KIP-951)
//! Record bytes are answered as they lie in memory or came from the disk.
//! Differs from Kafka: every fetch is a full one (session id 0, which clients must accept); no preferred read replica;
//! followers are not served yet.

mod reply;

use std::{rc::Rc, time::Duration};

use kafka_protocol::messages::{FetchRequest, TopicName, fetch_request::FetchTopic};

use self::reply::{PartitionAnswer, Reply, TopicAnswer};
use crate::{
    api::{Context, Outcome, call::Call, topics},
    base::{ErrorCode, LeaderEpoch, Offset, PartitionKey},
    metadata::Image,
    partition::{FetchPartition, Isolation},
    replica::Fetched,
    shard::FetchCall,
};

pub(super) async fn handle(context: &Rc<Context>, call: Call<FetchRequest>) -> Outcome {
    let (request, call) = call.take();
    let mut reply = Reply::new(call.correlation_id(), call.version);
    // A session that is not known here must be begun again; without one, nothing is kept between fetches.
    if request.session_epoch > 0 {
        return reply.refuse(ErrorCode::FetchSessionIdNotFound);
    }
    let replica = if call.version >= 15 { request.replica_state.replica_id } else { request.replica_id };
    let read_committed = request.isolation_level == 1;
    let image = context.router.image();
    let mut asked = Vec::new();
    let mut places = Vec::new();
    for topic in &request.topics {
        let (answer, wanted) = sort(&image, topic, call.version, replica.0 >= 0, read_committed);
        for (place, key, partition) in wanted {
            places.push((reply.topics.len(), place));
            asked.push((key, partition));
        }
        reply.topics.push(answer);
    }
    let max_bytes = request.max_bytes.clamp(0, context.router.config().fetch_max_bytes);
    let fetched = context
        .router
        .fetch(FetchCall {
            partitions: asked,
            isolation: if read_committed { Isolation::ReadCommitted } else { Isolation::ReadUncommitted },
            max_bytes: max_bytes as usize,
            min_bytes: request.min_bytes.clamp(0, max_bytes) as usize,
            max_wait: Duration::from_millis(request.max_wait_ms.max(0) as u64),
        })
        .await;
    for ((topic, partition), fetched) in places.into_iter().zip(fetched) {
        reply.topics[topic].partitions[partition].fetched = fetched;
    }
    reply.encode()
}

type Wanted = Vec<(usize, PartitionKey, FetchPartition)>;

/// The answer of a topic with its errors filled in, and what is to be read: place in the answer, partition, range.
fn sort(
    image: &Image,
    topic: &FetchTopic,
    version: i16,
    follower: bool,
    read_committed: bool,
) -> (TopicAnswer, Wanted) {
    let found = topics::find(image, &topic.topic, topic.topic_id, version >= 13);
    let mut wanted = Vec::with_capacity(topic.partitions.len());
    let mut partitions = Vec::with_capacity(topic.partitions.len());
    for partition in &topic.partitions {
        let key = match found.and_then(|found| topics::partition(found, partition.partition)) {
            Ok(_) if follower => Err(ErrorCode::NotLeaderOrFollower),
            key => key,
        };
        let fetched = match key {
            Ok(key) => {
                wanted.push((partitions.len(), key, range(partition)));
                Fetched::default()
            }
            Err(error) => Fetched::refused(error),
        };
        partitions.push(PartitionAnswer { index: partition.partition, read_committed, fetched });
    }
    (TopicAnswer { name: TopicName(topic.topic.0.clone()), id: topic.topic_id, partitions }, wanted)
}

fn range(partition: &kafka_protocol::messages::fetch_request::FetchPartition) -> FetchPartition {
    let epoch = |epoch: i32| Some(LeaderEpoch(epoch)).filter(|epoch| epoch.0 >= 0);
    FetchPartition {
        fetch_offset: Offset(partition.fetch_offset),
        partition_max_bytes: partition.partition_max_bytes,
        current_leader_epoch: epoch(partition.current_leader_epoch),
        last_fetched_epoch: epoch(partition.last_fetched_epoch),
        log_start_offset: Offset(partition.log_start_offset),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::fetch_request::FetchPartition as AskedPartition;
    use uuid::Uuid;

    use super::*;
    use crate::api::call::text;

    fn check(name: &str, id: u128, version: i16, follower: bool) -> (Vec<i16>, Vec<i32>) {
        let partitions = [0, 9, 1].map(|index| AskedPartition::default().with_partition(index).with_fetch_offset(7));
        let topic = FetchTopic::default()
            .with_topic(TopicName(text(name)))
            .with_topic_id(Uuid::from_u128(id))
            .with_partitions(partitions.to_vec());
        let (answer, wanted) = sort(&topics::test_image(), &topic, version, follower, true);
        let codes = answer.partitions.iter().map(|partition| crate::api::call::code(partition.fetched.error)).collect();
        (codes, wanted.iter().map(|(_, key, _)| key.partition).collect())
    }

    #[test]
    fn partitions_are_found_by_name_or_id() {
        assert_eq!(check("b", 0, 12, false), (vec![0, 3, 0], vec![0, 1]));
        assert_eq!(check("", 2, 13, false), (vec![0, 3, 0], vec![0, 1]));
        assert_eq!(check("nope", 0, 12, false), (vec![3, 3, 3], vec![]));
        assert_eq!(check("", 77, 13, false), (vec![100, 100, 100], vec![]));
        assert_eq!(check("b", 0, 4, true), (vec![6, 3, 6], vec![]), "there are no followers");
    }

    #[test]
    fn epochs_below_zero_are_no_epochs() {
        let asked = AskedPartition::default().with_current_leader_epoch(-1).with_last_fetched_epoch(3);
        let range = range(&asked);
        assert_eq!((range.current_leader_epoch, range.last_fetched_epoch), (None, Some(LeaderEpoch(3))));
    }
}
