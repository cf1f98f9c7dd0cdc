//! What one core asks of another: owned data, nothing borrowed, nothing shared but record bytes.

use std::{any::Any, sync::Arc, time::Duration};

use uuid::Uuid;

use crate::{
    base::{ErrorCode, LeaderEpoch, Offset, PartitionKey, Timestamp},
    controller::{
        Controller,
        asks::{ControlAsk, Decision},
    },
    group::{GroupAnswer, GroupRequest},
    metadata::{Image, Touched},
    metrics::Snapshot,
    partition::{ActiveProducer, FetchPartition, Fetcher, Isolation, IsrChange, IsrState, ValidBatch},
    replica::{Acks, Appended, Fetched},
};

/// One batch for one partition.
pub struct ProducePart {
    /// Where it goes.
    pub key: PartitionKey,
    /// The batch, validated on the connection's core.
    pub batch: ValidBatch,
    /// What its answer waits for.
    pub acks: Acks,
}

/// A fetch over any number of partitions.
#[derive(Clone, Debug)]
pub struct FetchCall {
    /// What to read, in the order in which limits are used up.
    pub partitions: Vec<(PartitionKey, FetchPartition)>,
    /// Who reads, and so how far it may see.
    pub reader: Fetcher,
    /// Bound on the bytes of all partitions together; the first non-empty partition may exceed it (KIP-74).
    pub max_bytes: usize,
    /// Below this many bytes the call waits.
    pub min_bytes: usize,
    /// How long it waits at most.
    pub max_wait: Duration,
}

/// Questions about offsets, answered per partition in the order given.
#[derive(Clone, Debug)]
pub enum OffsetsCall {
    /// ListOffsets: (partition, current leader epoch or -1, timestamp or one of Kafka's negative words).
    List(Vec<(PartitionKey, i32, i64)>, Isolation),
    /// OffsetForLeaderEpoch: (partition, current leader epoch or -1, the epoch asked for).
    ForLeaderEpoch(Vec<(PartitionKey, i32, i32)>),
    /// DeleteRecords: (partition, new log start offset or -1 for the high watermark).
    DeleteRecords(Vec<(PartitionKey, i64)>),
}

/// The answer to one partition of an [`OffsetsCall`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedOffset {
    /// The timestamp that was found, or -1. In milliseconds.
    pub timestamp: Timestamp,
    /// The offset that was found, or -1. For DeleteRecords: the low watermark.
    pub offset: Offset,
    /// The leader epoch at that offset, or -1.
    pub leader_epoch: LeaderEpoch,
}

/// The answer to a [`ControlAsk`], whose type only the asker knows.
pub type AnyAnswer = Box<dyn Any + Send>;

/// A [`ControlAsk`] on its way to the controller.
pub trait AnyControlAsk: Send {
    /// Decides as [`ControlAsk::decide`] does.
    /// # Errors  What the question is refused with.
    fn decide_any(
        self: Box<Self>,
        controller: &mut Controller,
        random: &mut dyn FnMut() -> Uuid,
    ) -> Result<Decision<AnyAnswer>, ErrorCode>;
}

impl<Ask: ControlAsk> AnyControlAsk for Ask {
    fn decide_any(
        self: Box<Self>,
        controller: &mut Controller,
        random: &mut dyn FnMut() -> Uuid,
    ) -> Result<Decision<AnyAnswer>, ErrorCode> {
        let (records, answer) = self.decide(controller, random)?;
        Ok((records, Box::new(answer)))
    }
}

/// A committed change of the metadata.
#[derive(Clone, Debug)]
pub struct Delta {
    /// The metadata with the change in it, made once for all cores.
    pub image: Image,
    /// What changed.
    pub touched: Touched,
    /// The offset in the metadata log of the last record in the image.
    pub last_offset: Offset,
}

/// What a core asks of the core that owns something: one kind for each room that is asked. What the controller and the
/// coordinators can be asked is theirs to say, and typed there ([`ControlAsk`]). What is large and seldom is boxed: every slot of
/// every queue between two cores has room for the largest.
pub enum Call {
    /// Append; answered when durable, or at once if nobody waits.
    Produce(Vec<ProducePart>),
    /// Read, and wait if there is too little.
    Fetch(FetchCall),
    /// Offsets.
    Offsets(OffsetsCall),
    /// A group's request, for the given partition of `__consumer_offsets`.
    Group(i32, Box<GroupRequest>),
    /// A change to metadata, for the controller's core.
    Control(Box<dyn AnyControlAsk>),
    /// Committed metadata, for every core.
    Apply(Arc<Delta>),
    /// What the core counted.
    Metrics,
    /// How large the logs of these partitions are, or of all that the core has.
    LogSizes(Option<Arc<[PartitionKey]>>),
    /// The producers that a partition remembers.
    Producers(PartitionKey),
    /// Other in-sync replicas, for the controller's core to ask for.
    InSync(Box<[(PartitionKey, IsrChange)]>),
}

/// What comes back.
pub enum Answer {
    /// To [`Call::Produce`], in the order given.
    Produce(Vec<Appended>),
    /// To [`Call::Fetch`], in the order given.
    Fetch(Vec<Fetched>),
    /// To [`Call::Offsets`], in the order given.
    Offsets(Vec<Result<ListedOffset, ErrorCode>>),
    /// To [`Call::Group`].
    Group(Box<Result<GroupAnswer, ErrorCode>>),
    /// To [`Call::Control`].
    Control(Result<AnyAnswer, ErrorCode>),
    /// To [`Call::Apply`].
    Applied,
    /// To [`Call::Metrics`].
    Metrics(Box<Snapshot>),
    /// To [`Call::LogSizes`]: of those that the core has, in bytes of record batches.
    LogSizes(Vec<(PartitionKey, u64)>),
    /// To [`Call::Producers`].
    Producers(Result<Vec<ActiveProducer>, ErrorCode>),
    /// To [`Call::InSync`], in the order given.
    InSync(Vec<Result<IsrState, ErrorCode>>),
}

/// What travels between cores.
pub enum Message {
    /// A question, to be answered to `from` under the same number.
    Call {
        /// The core that asks.
        from: usize,
        /// Unique on that core.
        id: u64,
        /// The question.
        call: Call,
    },
    /// The answer to the question of that number.
    Answer {
        /// The number of the call on this core.
        id: u64,
        /// The answer.
        answer: Answer,
    },
    /// The wait of the call of that number ends: it is answered at once with what there is.
    EndWait {
        /// The core that asked.
        from: usize,
        /// The number of its call.
        id: u64,
    },
}

/// The mesh is counted with it.
const MESSAGE_BYTES_MAX: usize = 96;
const _: () = assert!(size_of::<Message>() <= MESSAGE_BYTES_MAX, "box what has grown");

/// What the queues between so many cores take at most, in bytes.
#[must_use]
pub fn mesh_bytes(cores: usize) -> usize {
    crate::io::mesh_bytes::<Message>(cores)
}
