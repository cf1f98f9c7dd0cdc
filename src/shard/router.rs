//! The way from a request to the cores that can answer it. One per core.

use std::{path::Path, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use kafka_protocol::messages::{AllocateProducerIdsRequest, CreateTopicsRequest};
use tracing::error;

use crate::{
    base::{BrokerId, ErrorCode, Offset, PartitionKey, ProducerId, TopicId},
    config::BrokerConfig,
    controller::{
        asks::{AllocateProducerIds, ControlAsk, EnsureTopic},
        default_topic,
    },
    group::{self, GroupRequest, asks::GroupAsk},
    metadata::{Image, names::CONSUMER_OFFSETS},
    partition::ActiveProducer,
    protocol::quorum_packets::Envelope,
    replica::Fetched,
    shard::{
        call::{Answer, Call, FetchCall, ListedOffset, OffsetsCall, ProducePart},
        cluster::Cluster,
        core::{Core, TopicView},
        produce::ProducePending,
        quota_use::QuotaUse,
        replies::ReplyMemory,
        rewrites::RewriteMemory,
        settings,
    },
};

/// What a topic or a block of producer ids may take that another broker decides.
const ENSURE_TIMEOUT: Duration = Duration::from_secs(10);

/// The controller's core.
pub(super) const CONTROLLER_CORE: usize = 0;

/// What the process can do at most, whatever the settings say: it follows from its memory and its open files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Connections, under `max.connections`.
    pub connections_max: usize,
    /// The largest request in bytes, under `socket.request.max.bytes`.
    pub request_bytes_max: usize,
}

/// A handle on this core, for handlers.
#[derive(Clone)]
pub struct Router {
    core: Rc<Core>,
}

impl Router {
    pub(super) fn new(core: Rc<Core>) -> Self {
        Self { core }
    }

    /// Keeps this core's fetches within a broker's memory for replies from now on, and counts what they make it hold.
    pub fn keep_to(&self, replies: &Arc<ReplyMemory>) {
        replies.count(self.core.index(), self.core.io.disk.pinned());
        *self.core.replies.borrow_mut() = replies.clone();
    }

    /// The broker's memory for batches that are made anew.
    #[must_use]
    pub fn rewrite_memory(&self) -> &Arc<RewriteMemory> {
        &self.core.broker.rewrite_memory
    }

    /// What the broker's clients have used of their quotas.
    #[must_use]
    pub fn quota_use(&self) -> &QuotaUse {
        &self.core.broker.quota_use
    }

    /// Tells this core what the process can do at most. Once.
    pub fn tell_bounds(&self, bounds: Bounds) {
        // Every core is told the same.
        let _ = self.core.bounds.set(bounds);
    }

    /// What the process can do at most, if it was said.
    #[must_use]
    pub fn bounds(&self) -> Option<Bounds> {
        self.core.bounds.get().copied()
    }

    /// This core's copy of the metadata: committed state only.
    #[must_use]
    pub fn image(&self) -> Rc<Image> {
        self.core.image.borrow().clone()
    }

    /// The offset in the metadata log up to which this core's copy of the metadata goes; -1: nothing is there.
    #[must_use]
    pub fn image_offset(&self) -> Offset {
        self.core.image_offset.get()
    }

    /// The broker's configuration, with what was set while it runs.
    #[must_use]
    pub fn config(&self) -> Rc<BrokerConfig> {
        self.core.config.borrow().clone()
    }

    /// Our `node.id`.
    #[must_use]
    pub fn broker_id(&self) -> BrokerId {
        self.core.broker.id
    }

    /// The cluster we are.
    #[must_use]
    pub fn cluster_id(&self) -> &str {
        &self.core.broker.cluster_id
    }

    /// A topic's configuration and what its batches are held against.
    #[must_use]
    pub fn topic(&self, topic_id: TopicId) -> Option<Rc<TopicView>> {
        self.core.view(topic_id)
    }

    /// Hands batches to their partitions; when it returns their order is fixed. Waits only for room on the way.
    pub async fn produce(&self, parts: Vec<ProducePart>) -> ProducePending {
        self.core.produce(parts).await
    }

    /// Reads, in the order asked and within the call's limits; waits as the call says.
    pub async fn fetch(&self, call: FetchCall) -> Vec<Fetched> {
        self.core.fetch(call).await
    }

    /// ListOffsets, OffsetForLeaderEpoch, DeleteRecords: answers in the order asked.
    pub async fn offsets(&self, call: OffsetsCall) -> Vec<Result<ListedOffset, ErrorCode>> {
        self.core.offsets(call).await
    }

    /// How large the logs of these partitions are, or of all that are here, in bytes of record batches. Partitions that are not
    /// here, or whose files have failed, are left out.
    pub async fn log_sizes(&self, keys: Option<Vec<PartitionKey>>) -> Vec<(PartitionKey, u64)> {
        self.core.log_sizes(keys.map(Arc::from)).await
    }

    /// The producers that a partition remembers, by id.
    /// # Errors  `NotLeaderOrFollower` or `UnknownTopicOrPartition` if it is not here, `KafkaStorageError` if its files have failed.
    pub async fn producers(&self, key: PartitionKey) -> Result<Vec<ActiveProducer>, ErrorCode> {
        self.core.producers(key).await
    }

    /// The data directory.
    #[must_use]
    pub fn log_directory(&self) -> &Path {
        self.core.log.directory()
    }

    /// The partition of `__consumer_offsets` that coordinates a group, if the topic exists.
    #[must_use]
    pub fn coordinator_of(&self, group_id: &str) -> Option<i32> {
        let image = self.image();
        let topic = image.topic(CONSUMER_OFFSETS)?;
        let partitions = topic.partitions.len() as i32;
        (partitions > 0).then(|| group::partition_of(group_id, partitions))
    }

    /// What a request gets as long as [`coordinator_of`](Self::coordinator_of) gives nobody.
    #[must_use]
    pub fn without_coordinator(&self, request: &GroupRequest) -> ErrorCode {
        group::without_coordinator(request, &settings::group_config(&self.config()))
    }

    /// How many partitions `__consumer_offsets` has; 0 while nobody has needed it.
    #[must_use]
    pub fn coordinators(&self) -> i32 {
        self.image().topic(CONSUMER_OFFSETS).map_or(0, |topic| topic.partitions.len() as i32)
    }

    /// Asks the group coordinator of the given partition of `__consumer_offsets`.
    /// # Errors  `NotCoordinator` if that partition does not exist, `CoordinatorNotAvailable` if its log failed.
    pub async fn group<Ask: GroupAsk>(&self, partition: i32, ask: Ask) -> Result<Ask::Answer, ErrorCode> {
        let Some(topic_id) = self.image().topic(CONSUMER_OFFSETS).map(|topic| topic.id) else {
            return Err(ErrorCode::CoordinatorNotAvailable);
        };
        let owner = self.core.owner(PartitionKey { topic_id, partition });
        let answer = if owner == self.core.index() {
            self.core.group_here(partition, ask.request()).await?
        } else {
            match self.core.call(owner, Call::Group(partition, Box::new(ask.request()))).await.1.await {
                Some(Answer::Group(answer)) => (*answer)?,
                Some(_) | None => return Err(ErrorCode::CoordinatorNotAvailable),
            }
        };
        Ask::answer(answer).ok_or_else(|| {
            error!(partition, "a group coordinator answered another question");
            ErrorCode::UnknownServerError
        })
    }

    /// Asks the controller. Answered when what it decided is committed and every core has it.
    /// # Errors  What the question was refused with, `KafkaStorageError` if the log refused it, `NotController` if
    /// there is none, or none any more.
    pub async fn control<Ask: ControlAsk>(&self, ask: Ask) -> Result<Ask::Answer, ErrorCode> {
        let ask = Box::new(ask);
        let answer = if self.core.index() == CONTROLLER_CORE {
            self.core.control_here(ask).await?
        } else {
            match self.core.call(CONTROLLER_CORE, Call::Control(ask)).await.1.await {
                Some(Answer::Control(answer)) => answer?,
                Some(_) | None => return Err(ErrorCode::NotController),
            }
        };
        Ok(*answer.downcast().expect("a question is decided by its own type, which makes the answer"))
    }

    /// What is known of the cluster; none if this broker stands alone.
    #[must_use]
    pub fn cluster(&self) -> Option<&Cluster> {
        self.core.broker.cluster.as_deref()
    }

    /// Whether another broker decides what only the controller does. Not while nobody is known who does.
    #[must_use]
    pub fn is_led_elsewhere(&self) -> bool {
        self.core.is_led_elsewhere()
    }

    /// Whether this broker decides for a cluster of several.
    #[must_use]
    pub fn decides_for_others(&self) -> bool {
        let cluster = self.core.broker.cluster.as_ref();
        cluster.is_some_and(|cluster| cluster.leader() == Some(self.core.broker.id))
    }

    /// Has a client's whole request, without its length, decided by the controller (KIP-590). Gives the answer with its length.
    /// # Errors  In words. Whether it was decided is not known.
    pub async fn forward(&self, frame: Bytes) -> Result<Bytes, String> {
        self.core.forward(frame).await
    }

    /// Takes packets of another voter's, which have come through the controllers' listener.
    /// # Errors  Kafka's code for why they are not for this voter of this cluster.
    pub fn take_packets(&self, envelope: &Envelope<'_>, packets: &[&[u8]]) -> Result<(), ErrorCode> {
        let take_packets = self.core.take_packets.get().ok_or(ErrorCode::NotController)?;
        take_packets(envelope, packets)
    }

    /// Has a topic with the defaults made, unless it is there: because a client named it, or because the broker needs it.
    /// # Errors  As [`control`](Self::control).
    pub async fn ensure_topic(&self, name: &str) -> Result<(), ErrorCode> {
        if !self.is_led_elsewhere() {
            return self.control(EnsureTopic(name.to_owned())).await.map(drop);
        }
        let cluster = self.core.broker.cluster.as_ref().map_or(1, |cluster| cluster.voters().len());
        let topic = default_topic(&self.core.statics, cluster, name);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
        let answer = self.core.ask_controller(&request, ENSURE_TIMEOUT).await?;
        match answer.topics.first().and_then(|topic| ErrorCode::try_from_code(topic.error_code)) {
            None | Some(ErrorCode::TopicAlreadyExists) => Ok(()),
            Some(error) => Err(error),
        }
    }

    /// A producer id that nobody had before. Each core takes them from the controller in blocks.
    /// # Errors  What the controller answers.
    pub async fn next_producer_id(&self) -> Result<ProducerId, ErrorCode> {
        loop {
            let (next, end) = self.core.producer_ids.get();
            if next < end {
                self.core.producer_ids.set((next + 1, end));
                return Ok(ProducerId(next));
            }
            let broker = self.broker_id();
            let broker_epoch = self.image().broker(broker).map_or(-1, |registered| registered.broker_epoch);
            let (first, count) = if self.core.broker.cluster.is_some() {
                let request = AllocateProducerIdsRequest::default()
                    .with_broker_id(broker.0.into())
                    .with_broker_epoch(broker_epoch);
                let answer = self.core.ask_controller(&request, ENSURE_TIMEOUT).await?;
                match ErrorCode::try_from_code(answer.error_code) {
                    None => (ProducerId(answer.producer_id_start.0), i64::from(answer.producer_id_len)),
                    Some(error) => return Err(error),
                }
            } else {
                self.control(AllocateProducerIds { broker, broker_epoch }).await?
            };
            self.core.producer_ids.set((first.0, first.0 + count));
        }
    }

    /// What all cores counted.
    #[cfg(test)]
    pub async fn metrics(&self) -> crate::metrics::Snapshot {
        self.core.metrics().await
    }

    /// How many watches fetches have on this core's replicas.
    #[cfg(test)]
    pub fn watches(&self) -> usize {
        self.core.replicas.borrow().values().map(|replica| replica.watches()).sum()
    }
}
