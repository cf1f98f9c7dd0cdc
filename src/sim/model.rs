//! What the broker has promised its clients so far, and what they have seen. Lives outside of the simulated machine; every
//! rule of the checkers is an assertion here.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
};

use crate::{
    base::{LeaderEpoch, Map, Offset, PartitionKey, TopicId},
    sim::records::Value,
};

/// What was promised of one partition.
#[derive(Default)]
pub struct Promised {
    /// Acknowledged or read: what lies at an offset never changes.
    pub known: BTreeMap<i64, Value>,
    places: Map<Value, i64>,
    /// The log start offset that was acknowledged or seen.
    pub start: i64,
    /// The largest log start offset that was asked for.
    pub start_asked: i64,
    /// The largest high watermark that was told.
    pub high_watermark: i64,
    /// The leader epoch in which the last life served.
    pub leader_epoch: LeaderEpoch,
    /// `durability=flush`: promises hold through a power cut.
    pub flush: bool,
    /// Retention may move the log start by itself.
    pub retention: bool,
    /// How often acknowledged records were lost that might be: producers begin anew.
    pub losses: u32,
}

/// A topic as its creator knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub id: TopicId,
    pub partitions: i32,
    /// What was set for it.
    pub configs: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    pub acked: i64,
    pub attempted: i64,
    /// Whose connection ended before they were answered: they may come after later ones.
    late: BTreeSet<i64>,
}

/// All promises.
#[derive(Default)]
pub struct Model {
    pub seed: u64,
    pub partitions: RefCell<BTreeMap<PartitionKey, Promised>>,
    /// By name; changed by the admin client alone.
    pub topics: RefCell<BTreeMap<String, Topic>>,
    /// Every topic that ever had a name.
    pub named: RefCell<BTreeMap<String, BTreeSet<TopicId>>>,
    /// Deleted, or about to be.
    pub deleted: RefCell<BTreeSet<TopicId>>,
    /// By group and the partition that one member commits for.
    pub committed: RefCell<BTreeMap<(String, i32), Committed>>,
    /// The last generation of a group that was synced.
    pub generations: RefCell<BTreeMap<String, i32>>,
    producer_ids: RefCell<BTreeSet<i64>>,
    next_writer: Cell<u32>,
    pub acks: Cell<u64>,
    pub reads: Cell<u64>,
    pub commits: Cell<u64>,
    pub changes: Cell<u64>,
}

impl Model {
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    pub fn hint(&self, key: PartitionKey) -> String {
        format!("RINGTAIL_SEED={} partition {key}", self.seed)
    }

    /// A number for a new producer.
    pub fn writer(&self) -> u32 {
        self.next_writer.set(self.next_writer.get() + 1);
        self.next_writer.get()
    }

    pub fn producer_id(&self, id: i64) {
        assert!(self.producer_ids.borrow_mut().insert(id), "RINGTAIL_SEED={}: producer id {id} twice", self.seed);
    }

    pub fn with<T>(&self, key: PartitionKey, look: impl FnOnce(&mut Promised) -> T) -> T {
        let mut partitions = self.partitions.borrow_mut();
        look(partitions.get_mut(&key).unwrap_or_else(|| panic!("{}: nobody made it", self.hint(key))))
    }

    /// The topic that has this id, if it is there.
    pub fn name_of(&self, id: TopicId) -> Option<String> {
        self.topics.borrow().iter().find(|(_, topic)| topic.id == id).map(|(name, _)| name.clone())
    }

    pub fn is_deleted(&self, key: PartitionKey) -> bool {
        self.deleted.borrow().contains(&key.topic_id)
    }

    /// Partitions that clients may use.
    pub fn keys(&self) -> Vec<PartitionKey> {
        let topics = self.topics.borrow();
        let keys = topics
            .values()
            .flat_map(|topic| (0..topic.partitions).map(|partition| PartitionKey { topic_id: topic.id, partition }));
        keys.collect()
    }

    /// Notes that `value` lies at `offset`: it was acknowledged or read there.
    pub fn lies(&self, key: PartitionKey, offset: i64, value: Value) {
        self.with(key, |promised| {
            let other = promised.known.insert(offset, value);
            assert!(
                other.is_none_or(|other| other == value),
                "{}: {other:?} and then {value:?} at offset {offset}",
                self.hint(key)
            );
            let place = promised.places.insert(value, offset);
            assert!(
                place.is_none_or(|place| place == offset),
                "{}: {value:?} is stored twice, at {place:?} and at {offset}",
                self.hint(key)
            );
        });
    }

    /// Notes a high watermark that was told; `floor` was told before it was asked for.
    pub fn high_watermark(&self, key: PartitionKey, floor: i64, told: Offset) {
        assert!(told.0 >= floor, "{}: the high watermark went back from {floor} to {told}", self.hint(key));
        self.with(key, |promised| promised.high_watermark = promised.high_watermark.max(told.0));
    }

    /// Notes a log start offset that was told; `floor` was told before it was asked for.
    pub fn log_start(&self, key: PartitionKey, floor: i64, told: Offset) {
        self.with(key, |promised| {
            assert!(told.0 >= floor, "{}: the log start went back from {floor} to {told}", self.hint(key));
            let asked = promised.retention || told.0 <= promised.start_asked;
            let largest = promised.start_asked;
            assert!(asked, "{}: the log starts at {told}, {largest} was asked for at most", self.hint(key));
            promised.start = promised.start.max(told.0);
        });
    }

    /// Compares the leader epoch after a restart with that of the life before. `may_stay`: that one ended in order.
    pub fn leader_epoch(&self, key: PartitionKey, told: LeaderEpoch, may_stay: bool) {
        self.with(key, |promised| {
            let before = promised.leader_epoch;
            let grows = told > before || (may_stay && told == before);
            assert!(grows, "{}: served in epoch {before} and then in {told}", self.hint(key));
            promised.leader_epoch = told;
        });
    }

    /// Compares where a partition begins and ends after a restart with what was promised. `may_lose`: promises that hold
    /// only while the power does are void.
    pub fn recovered(&self, key: PartitionKey, start: Offset, end: Offset, may_lose: bool) {
        let floor = self.with(key, |promised| promised.start);
        self.log_start(key, floor, start);
        self.with(key, |promised| {
            let needed = promised.known.last_key_value().map_or(0, |(last, _)| last + 1).max(promised.high_watermark);
            if end.0 >= needed {
                return;
            }
            assert!(may_lose, "{}: {end} < {needed}: records are lost that were acknowledged or read", self.hint(key));
            promised.losses += 1;
            let lost = promised.known.split_off(&end.0);
            for value in lost.values() {
                promised.places.remove(value);
            }
            promised.high_watermark = end.0;
        });
    }

    /// Holds all of a partition against what is known of it, and each producer's records against their order.
    pub fn all(&self, key: PartitionKey, start: Offset, records: &[(Offset, Value)]) {
        let hint = self.hint(key);
        for (offset, value) in records {
            self.lies(key, offset.0, *value);
        }
        let there: BTreeMap<i64, Value> = records.iter().map(|(offset, value)| (offset.0, *value)).collect();
        self.with(key, |promised| {
            for (offset, value) in promised.known.range(start.0..) {
                assert_eq!(there.get(offset), Some(value), "{hint}: what was at {offset} is gone");
            }
        });
        let mut last: BTreeMap<u32, u32> = BTreeMap::new();
        for (offset, value) in records {
            if let Some(before) = last.insert(value.writer, value.number) {
                assert_eq!(before + 1, value.number, "{hint}: order of writer {} at {offset}", value.writer);
            }
        }
    }

    /// A commit of `offset` is about to be sent.
    pub fn commits(&self, group: &str, index: i32, offset: i64) {
        let mut committed = self.committed.borrow_mut();
        let entry = committed.entry((group.to_owned(), index)).or_default();
        entry.attempted = entry.attempted.max(offset);
    }

    /// Its answer did not come.
    pub fn commit_unanswered(&self, group: &str, index: i32, offset: i64) {
        let mut committed = self.committed.borrow_mut();
        committed.entry((group.to_owned(), index)).or_default().late.insert(offset);
    }

    /// It was acknowledged, or read.
    pub fn committed(&self, group: &str, index: i32, offset: i64) {
        let mut committed = self.committed.borrow_mut();
        let entry = committed.entry((group.to_owned(), index)).or_default();
        let seed = self.seed;
        let in_order = offset >= entry.acked || entry.late.contains(&offset);
        assert!(in_order, "RINGTAIL_SEED={seed}: {group}/{index}: {offset} after {}", entry.acked);
        assert!(offset <= entry.attempted, "RINGTAIL_SEED={seed}: {group}/{index}: {offset} was never committed");
        entry.acked = offset;
    }

    pub fn generation(&self, group: &str) -> i32 {
        self.generations.borrow().get(group).copied().unwrap_or(0)
    }

    /// A generation was synced: its record is durable.
    pub fn synced(&self, group: &str, generation: i32) {
        let mut generations = self.generations.borrow_mut();
        let last = generations.entry(group.to_owned()).or_default();
        *last = (*last).max(generation);
    }
}
