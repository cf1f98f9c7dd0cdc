//! Whom a follower asks: another broker, in Kafka's own words.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use kafka_protocol::messages::{
    FetchRequest, FetchResponse,
    fetch_request::{FetchPartition as AskedPartition, FetchTopic, ReplicaState},
    fetch_response::PartitionData,
};

use crate::{
    base::{BrokerId, ErrorCode, LeaderEpoch, Offset, PartitionKey, TopicId},
    partition::FetchPartition,
    peer::{Link, LinkError},
    replica::Local,
};

/// How long a leader keeps a fetch for which it has nothing.
pub const FETCH_WAIT: Duration = Duration::from_millis(500);

/// The most that one answer brings; one batch may be larger. It is all that a fetcher holds.
const FETCH_BYTES_MAX: i32 = 4 << 20;

/// Of one partition.
pub const PARTITION_BYTES_MAX: i32 = 1 << 20;

/// A leader that has not answered for so long does not.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// By topic ids, and with the follower's broker epoch.
const FETCH_VERSION: i16 = 17;

/// What a leader says of one partition.
#[derive(Clone, Debug)]
pub struct Answered {
    /// Which one.
    pub key: PartitionKey,
    /// Why there is nothing.
    pub error: Option<ErrorCode>,
    /// Where the follower's log leaves the leader's.
    pub diverging: Option<(LeaderEpoch, Offset)>,
    /// The leader's.
    pub high_watermark: Offset,
    /// The leader's.
    pub log_start_offset: Offset,
    /// Whole batches, if they are what was written.
    pub records: Bytes,
}

/// Another broker, as far as followers need it. To drop what it gives gives up the question.
pub trait Leader {
    /// Reads from partitions that it leads, and waits if there is nothing.
    fn fetch(&self, asked: Vec<(PartitionKey, FetchPartition)>) -> Local<Result<Vec<Answered>, LinkError>>;
}

/// A broker at an address.
pub struct RemoteLeader {
    link: Rc<Link>,
    me: BrokerId,
    /// Ours, as it is at that moment.
    broker_epoch: Rc<dyn Fn() -> i64>,
}

impl RemoteLeader {
    /// Asks over a link of its own.
    pub fn new(link: Link, me: BrokerId, broker_epoch: Rc<dyn Fn() -> i64>) -> Self {
        Self { link: Rc::new(link), me, broker_epoch }
    }
}

impl Leader for RemoteLeader {
    fn fetch(&self, asked: Vec<(PartitionKey, FetchPartition)>) -> Local<Result<Vec<Answered>, LinkError>> {
        let request = request(self.me, (self.broker_epoch)(), &asked);
        let mut given_up = GivenUp(Some(self.link.clone()));
        Box::pin(async move {
            let link = given_up.0.clone().expect("it is taken once the answer is there");
            let answer = link.request(&request, FETCH_VERSION, FETCH_TIMEOUT).await;
            given_up.0.take();
            answered(answer?)
        })
    }
}

/// Answers come in the order of the questions: behind a fetch that waits nobody else would be answered.
struct GivenUp(Option<Rc<Link>>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        if let Some(link) = self.0.take() {
            link.close();
        }
    }
}

fn request(me: BrokerId, broker_epoch: i64, asked: &[(PartitionKey, FetchPartition)]) -> FetchRequest {
    let mut topics: Vec<FetchTopic> = Vec::new();
    for (key, range) in asked {
        let epoch = |epoch: Option<LeaderEpoch>| epoch.map_or(-1, |epoch| epoch.0);
        let partition = AskedPartition::default()
            .with_partition(key.partition)
            .with_current_leader_epoch(epoch(range.current_leader_epoch))
            .with_fetch_offset(range.fetch_offset.0)
            .with_last_fetched_epoch(epoch(range.last_fetched_epoch))
            .with_log_start_offset(range.log_start_offset.0)
            .with_partition_max_bytes(range.partition_max_bytes);
        match topics.last_mut().filter(|topic| topic.topic_id == key.topic_id.0) {
            Some(topic) => topic.partitions.push(partition),
            None => topics.push(FetchTopic::default().with_topic_id(key.topic_id.0).with_partitions(vec![partition])),
        }
    }
    FetchRequest::default()
        .with_replica_state(ReplicaState::default().with_replica_id(me.0.into()).with_replica_epoch(broker_epoch))
        .with_max_wait_ms(FETCH_WAIT.as_millis() as i32)
        .with_min_bytes(1)
        .with_max_bytes(FETCH_BYTES_MAX)
        // No session: everything is said in every fetch.
        .with_session_epoch(-1)
        .with_topics(topics)
}

fn answered(answer: FetchResponse) -> Result<Vec<Answered>, LinkError> {
    if answer.error_code != 0 {
        return Err(LinkError::Malformed);
    }
    let topics = answer.responses.into_iter();
    let partitions = topics.flat_map(|topic| {
        let topic_id = TopicId(topic.topic_id);
        topic.partitions.into_iter().map(move |partition| partition_answered(topic_id, partition))
    });
    Ok(partitions.collect())
}

fn partition_answered(topic_id: TopicId, partition: PartitionData) -> Answered {
    let diverging = (LeaderEpoch(partition.diverging_epoch.epoch), Offset(partition.diverging_epoch.end_offset));
    Answered {
        key: PartitionKey { topic_id, partition: partition.partition_index },
        error: ErrorCode::try_from_code(partition.error_code),
        diverging: Some(diverging).filter(|(epoch, end)| epoch.0 >= 0 && end.0 >= 0),
        high_watermark: Offset(partition.high_watermark),
        log_start_offset: Offset(partition.log_start_offset),
        records: partition.records.unwrap_or_default(),
    }
}
