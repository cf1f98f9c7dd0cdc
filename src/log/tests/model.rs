//! What the log has promised so far, kept outside of the simulated machine.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    base::{LeaderEpoch, METADATA_KEY, Offset, PartitionKey, ProducerEpoch, ProducerId, Set, Timestamp, TopicId},
    config::Durability,
    io::Rand,
    log::{KnownPartitions, LogConfig},
    partition::{AppendPlan, Assignment, Partition, PartitionState},
    protocol::batch::{BatchBuilder, BatchHeader, BatchInfo, stamp},
};

pub const EPOCH: LeaderEpoch = LeaderEpoch(3);

/// A batch as it must come back.
#[derive(Clone)]
pub struct Batch {
    pub info: BatchInfo,
    pub bytes: Bytes,
}

pub struct Promised {
    pub name: String,
    pub config: LogConfig,
    /// Everything handed to `append`, from the first offset on.
    pub batches: Vec<Batch>,
    /// Everything below was flushed.
    pub acked_end: Offset,
    /// The log start that was acknowledged, and the largest one asked for.
    pub acked_start: Offset,
    pub asked_start: Offset,
    /// The rules' state on the running broker.
    pub state: PartitionState,
    pub sequence: i32,
    /// How often the log was cut. Its producer's batches may be forgotten then.
    pub cuts: u64,
    /// What was cut off last, until that is known to be durable.
    pub cut_off: Vec<Batch>,
}

impl Promised {
    pub fn new(name: &str, config: LogConfig) -> Self {
        Self {
            name: name.into(),
            config,
            batches: Vec::new(),
            acked_end: Offset::ZERO,
            acked_start: Offset::ZERO,
            asked_start: Offset::ZERO,
            state: PartitionState::default(),
            sequence: 0,
            cuts: 0,
            cut_off: Vec::new(),
        }
    }

    pub fn end(&self) -> Offset {
        self.batches.last().map_or(Offset::ZERO, |batch| batch.info.next_offset())
    }

    /// Bytes from the batch that contains `from` on.
    pub fn bytes_from(&self, from: Offset, upto: Offset) -> Vec<u8> {
        let wanted = self.batches.iter().filter(|it| it.info.last_offset >= from && it.info.last_offset < upto);
        wanted.map(|batch| &batch.bytes[..]).collect::<Vec<_>>().concat()
    }

    /// The next batch of this partition's one producer.
    pub fn next_batch(&mut self, rand: &Rand, now: Timestamp) -> Bytes {
        let mut batch = BatchBuilder::new().producer(ProducerId(77), ProducerEpoch(0), self.sequence);
        let records = 1 + rand.below(8);
        for _ in 0..records {
            let size = if rand.below(40) == 0 { rand.below(20_000) } else { rand.below(300) };
            let mut value = rand.next_u64().to_be_bytes().repeat(size as usize / 8);
            value.extend(rand.next_u64().to_be_bytes());
            batch.push(now, Some(&rand.next_u64().to_be_bytes()), Some(&value));
        }
        batch.build()
    }

    /// Notes a batch that is about to be appended at the log's end. Returns its final info.
    pub fn note(&mut self, bytes: &Bytes) -> BatchInfo {
        let base = self.end();
        let info = BatchInfo::of(&BatchHeader::parse(bytes).unwrap()).at(base, EPOCH);
        let mut stamped = bytes.to_vec();
        stamp(&mut stamped, base, EPOCH);
        self.sequence = (info.last_sequence + 1) % i32::MAX;
        self.batches.push(Batch { info, bytes: stamped.into() });
        info
    }

    /// The log ends at `end`, and will have done so when that is durable.
    pub fn cut(&mut self, end: Offset) {
        self.cut_off = self.batches.extract_if(.., |batch| batch.info.base_offset >= end).collect();
        self.cuts += 1;
        self.acked_end = self.acked_end.min(end);
        self.state.truncate(end);
        self.sequence = self.batches.last().map_or(0, |last| (last.info.last_sequence + 1) % i32::MAX);
    }

    /// Compares what recovery found with what was promised, and goes on from there.
    pub fn accept(&mut self, found: &PartitionState, power_was_cut: bool, context: &str) {
        let end = found.log_end_offset;
        // Either the cut was durable or it was not, and then nothing came in the place of what was cut off.
        if end > self.end() {
            self.batches.append(&mut self.cut_off);
        }
        self.cut_off.clear();
        let may_lose = power_was_cut && self.config.durability == Durability::Write;
        assert!(
            may_lose || end >= self.acked_end,
            "{context}: {end} < {}: acknowledged records are lost",
            self.acked_end
        );
        let boundary = end == Offset::ZERO || self.batches.iter().any(|batch| batch.info.next_offset() == end);
        assert!(boundary, "{context}: the log ends at {end}, where no batch ends (appended up to {})", self.end());
        let start = found.log_start_offset;
        assert!(start >= self.acked_start, "{context}: log start {start} < {}", self.acked_start);
        assert!(start <= self.asked_start, "{context}: log start {start} > {}", self.asked_start);
        self.batches.retain(|batch| batch.info.next_offset() <= end);
        if let Some(last) = self.batches.last().filter(|_| self.cuts == 0) {
            let rules = Partition::restored(&Assignment::alone(EPOCH), found.clone());
            let plan = rules.check_append(&last.info.at(Offset::ZERO, EPOCH), 0);
            let duplicate =
                matches!(plan, Ok(AppendPlan::Duplicate { base_offset, .. }) if base_offset == last.info.base_offset);
            assert!(duplicate, "{context}: the producer's last batch is forgotten: {plan:?}");
            assert_eq!(found.epochs.latest(), Some(EPOCH), "{context}");
        }
        self.sequence = self.batches.last().map_or(0, |last| last.info.last_sequence + 1);
        self.acked_end = end;
        self.acked_start = start;
        self.state = found.clone();
    }
}

/// All partitions that exist, as the metadata log would say.
#[derive(Clone, Default)]
pub struct Model(pub Rc<RefCell<BTreeMap<PartitionKey, Promised>>>, Rc<RefCell<Set<TopicId>>>);

impl Model {
    pub fn known(&self) -> KnownPartitions {
        let partitions = self.0.borrow();
        let named = partitions.iter().filter(|(key, _)| **key != METADATA_KEY);
        let live = named.map(|(key, it)| (*key, (it.name.clone(), it.config.clone()))).collect();
        KnownPartitions { live, deleted: self.1.borrow().clone() }
    }

    pub fn delete(&self, key: PartitionKey) -> Option<Promised> {
        self.1.borrow_mut().insert(key.topic_id);
        self.0.borrow_mut().remove(&key)
    }

    pub fn create(&self, rand: &Rand, name: &str, config: LogConfig) -> PartitionKey {
        let topic_id = TopicId(Uuid::from_u128(u128::from(rand.next_u64()) << 64 | u128::from(rand.next_u64())));
        let key = PartitionKey { topic_id, partition: 0 };
        self.0.borrow_mut().insert(key, Promised::new(name, config));
        key
    }

    pub fn with<T>(&self, key: PartitionKey, look: impl FnOnce(&mut Promised) -> T) -> Option<T> {
        self.0.borrow_mut().get_mut(&key).map(look)
    }
}
