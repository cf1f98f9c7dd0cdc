//! What a run knows of the cluster: its partitions, who leads them, and where those brokers listen.

use std::{collections::BTreeMap, net::SocketAddr};

use kafka_protocol::{
    messages::{MetadataResponse, TopicName},
    protocol::StrBytes,
};
use uuid::Uuid;

/// A topic of the run.
#[derive(Clone, Debug)]
pub struct Topic {
    pub name: TopicName,
    /// Nil when the broker knows no topic ids; then requests name topics.
    pub id: Uuid,
}

/// A partition of the run; its place in `Layout::partitions` is its number everywhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    pub topic: u32,
    pub index: i32,
}

/// The run's topics and partitions; fixed when the run starts.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    pub topics: Vec<Topic>,
    pub partitions: Vec<Partition>,
}

impl Layout {
    /// All partitions of the named topics, in their order, `limit` of each topic.
    pub fn from_metadata(response: &MetadataResponse, names: &[String], limit: usize) -> Self {
        let mut layout = Self::default();
        for name in names {
            let found =
                response.topics.iter().find(|topic| topic.name.as_ref().is_some_and(|found| found.as_str() == name));
            let Some(found) = found else { continue };
            let topic = layout.topics.len() as u32;
            layout.topics.push(Topic { name: TopicName(StrBytes::from_string(name.clone())), id: found.topic_id });
            let mut indexes: Vec<i32> = found.partitions.iter().map(|partition| partition.partition_index).collect();
            indexes.sort_unstable();
            let partitions = indexes.into_iter().take(limit);
            layout.partitions.extend(partitions.map(|index| Partition { topic, index }));
        }
        layout
    }

    pub fn has_topic_ids(&self) -> bool {
        self.topics.iter().all(|topic| !topic.id.is_nil())
    }

    /// `topic-3`, for messages.
    pub fn name(&self, partition: u32) -> String {
        let partition = self.partitions[partition as usize];
        format!("{}-{}", self.topics[partition.topic as usize].name.as_str(), partition.index)
    }

    /// From (topic's place, partition index) to the partition's number.
    pub fn numbers(&self) -> Numbers {
        let mut numbers = Numbers::default();
        for (number, partition) in self.partitions.iter().enumerate() {
            let topic = &self.topics[partition.topic as usize];
            numbers.insert(topic, partition.index, number as u32);
        }
        numbers
    }
}

/// Finds the partition that a reply speaks of. Partition indexes are dense, so the inner level is a vector.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    by_name: BTreeMap<String, usize>,
    by_id: BTreeMap<Uuid, usize>,
    topics: Vec<Vec<u32>>,
}

const ABSENT: u32 = u32::MAX;

impl Numbers {
    fn insert(&mut self, topic: &Topic, index: i32, number: u32) {
        let fresh = self.topics.len();
        let place = *self.by_name.entry(topic.name.to_string()).or_insert(fresh);
        if place == fresh {
            self.topics.push(Vec::new());
        }
        if !topic.id.is_nil() {
            self.by_id.insert(topic.id, place);
        }
        let slots = &mut self.topics[place];
        let index = index as usize;
        if slots.len() <= index {
            slots.resize(index + 1, ABSENT);
        }
        slots[index] = number;
    }

    pub fn find(&self, name: &str, id: Uuid, index: i32) -> Option<u32> {
        let place = if id.is_nil() { self.by_name.get(name) } else { self.by_id.get(&id) };
        let index = usize::try_from(index).ok()?;
        let number = *self.topics.get(*place?)?.get(index)?;
        (number != ABSENT).then_some(number)
    }
}

/// Who leads each partition now. Replaced as a whole when metadata is read again.
#[derive(Clone, Debug, Default)]
pub struct Leaders {
    pub brokers: BTreeMap<i32, Vec<SocketAddr>>,
    /// By partition number; none while there is no leader.
    pub leader: Vec<Option<i32>>,
    pub epoch: Vec<i32>,
}

impl Leaders {
    /// `resolve` turns a broker's `host:port` into addresses; a name without any leaves the broker out.
    pub fn from_metadata(
        response: &MetadataResponse,
        layout: &Layout,
        mut resolve: impl FnMut(&str) -> Vec<SocketAddr>,
    ) -> Self {
        let numbers = layout.numbers();
        let mut leaders = Self {
            brokers: BTreeMap::new(),
            leader: vec![None; layout.partitions.len()],
            epoch: vec![-1; layout.partitions.len()],
        };
        for broker in &response.brokers {
            let addresses = resolve(&format!("{}:{}", bracketed(&broker.host), broker.port));
            if !addresses.is_empty() {
                leaders.brokers.insert(broker.node_id.0, addresses);
            }
        }
        for topic in &response.topics {
            let Some(name) = &topic.name else { continue };
            for partition in &topic.partitions {
                let number = numbers.find(name.as_str(), Uuid::nil(), partition.partition_index);
                let Some(number) = number else { continue };
                let leader = partition.leader_id.0;
                if leaders.brokers.contains_key(&leader) {
                    leaders.leader[number as usize] = Some(leader);
                }
                leaders.epoch[number as usize] = partition.leader_epoch;
            }
        }
        leaders
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}
