//! One producer as a value: due times in, requests out, replies in. No clock and no socket, so a test can be the broker.

mod answer;
mod expire;
mod fill;
pub mod picker;
pub mod queue;
mod send;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::BytesMut;

use crate::{
    produce::{
        picker::{Payload, Picker},
        queue::{Batch, Queue},
    },
    records::compress::Codec,
    schedule::Schedule,
    verify::Ledger,
    workload::{Partitioner, sizes::Sizes},
};

/// Bytes that one producer holds in memory; records that are due beyond them wait in the schedule, with their times.
pub const BUFFER_BYTES_MAX: usize = 32 << 20;
/// Buffers kept for reuse.
const POOL_MAX: usize = 64;
const BACK_OFF_FIRST_NS: u64 = 100_000_000;
const BACK_OFF_MAX_NS: u64 = 1_000_000_000;
const EXPIRY_INTERVAL_NS: u64 = 100_000_000;

/// What all producers of a run share.
#[derive(Debug)]
pub struct Settings {
    pub partitions: usize,
    pub sizes: Sizes,
    pub keys: u64,
    pub partitioner: Partitioner,
    pub payload: Payload,
    pub batch_bytes: usize,
    pub batch_records: u32,
    pub request_bytes: usize,
    pub linger_ns: u64,
    pub codec: Codec,
    pub in_flight: usize,
    pub acks: i16,
    pub idempotence: bool,
    pub timeout_ns: u64,
    /// Marks this run's records.
    pub run: u32,
    /// Wall clock minus monotonic clock: records carry their intended time as CreateTime.
    pub wall_offset_ns: i64,
}

/// A request on its way.
#[derive(Debug)]
pub struct Sent {
    pub batches: Vec<Batch>,
    pub sent_at: u64,
}

/// The answer for one partition.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub partition: u32,
    pub code: i16,
    pub base_offset: i64,
}

/// The way to one broker.
#[derive(Debug, Default)]
struct Lane {
    /// Partitions with something to send.
    ready: VecDeque<u32>,
    in_flight: VecDeque<Sent>,
    /// Since when there is a free slot.
    free_since: u64,
    /// The broker wants silence until then (KIP-219); 0 if it does not.
    throttled_until: u64,
    connected: bool,
}

/// One Kafka producer.
pub struct Producer {
    pub id: u32,
    settings: Arc<Settings>,
    ledger: Option<Arc<Ledger>>,
    schedule: Schedule,
    picker: Picker,
    queues: Vec<Queue>,
    leaders: Vec<Option<i32>>,
    lanes: BTreeMap<i32, Lane>,
    /// Open batches by the time they may leave; times only grow, since due times do.
    lingering: VecDeque<(u64, u32)>,
    backing_off: VecDeque<(u64, u32)>,
    buffered: usize,
    identity: Option<(i64, i16)>,
    /// A batch was lost under the old identity: nothing is sent until all is answered and a new one is here.
    needs_identity: bool,
    pool: Vec<(BytesMut, Vec<u64>)>,
    scratch: Vec<u8>,
    next_expiry: u64,
    /// Set when a reply says that the leaders have moved.
    pub wants_metadata: bool,
}

impl Producer {
    pub fn new(
        id: u32,
        settings: Arc<Settings>,
        ledger: Option<Arc<Ledger>>,
        schedule: Schedule,
        picker: Picker,
        identity: Option<(i64, i16)>,
    ) -> Self {
        let partitions = settings.partitions;
        Self {
            id,
            settings,
            ledger,
            schedule,
            picker,
            queues: std::iter::repeat_with(Queue::default).take(partitions).collect(),
            leaders: vec![None; partitions],
            lanes: BTreeMap::new(),
            lingering: VecDeque::new(),
            backing_off: VecDeque::new(),
            buffered: 0,
            identity,
            needs_identity: false,
            pool: Vec::new(),
            scratch: Vec::new(),
            next_expiry: 0,
            wants_metadata: false,
        }
    }

    /// Takes over who leads what.
    pub fn set_leaders(&mut self, leaders: &[Option<i32>], now: u64) {
        for (partition, leader) in leaders.iter().enumerate() {
            if self.leaders[partition] != *leader {
                self.queues[partition].held_until = now;
            }
        }
        self.leaders.copy_from_slice(leaders);
        for lane in self.lanes.values_mut() {
            for partition in lane.ready.drain(..) {
                self.queues[partition as usize].is_queued = false;
            }
        }
        for leader in leaders.iter().flatten() {
            self.lanes.entry(*leader).or_default();
        }
        for partition in 0..self.queues.len() as u32 {
            self.mark_ready(partition, now);
        }
    }

    /// The brokers that this producer talks to.
    pub fn brokers(&self) -> impl Iterator<Item = i32> + '_ {
        self.lanes.keys().copied()
    }

    /// The connection to a broker is up: only now is it our fault if nothing is sent.
    pub fn connected(&mut self, broker: i32, now: u64) {
        let lane = self.lanes.entry(broker).or_default();
        lane.connected = true;
        lane.free_since = now;
    }

    /// When the oldest unanswered request to this broker was sent.
    pub fn oldest_sent(&self, broker: i32) -> Option<u64> {
        self.lanes.get(&broker)?.in_flight.front().map(|sent| sent.sent_at)
    }

    /// When `advance` next has something to do; far away when only replies can help.
    pub fn next_wakeup(&self) -> u64 {
        let due = match self.schedule.due() {
            Some(due) if self.buffered < BUFFER_BYTES_MAX && !self.schedule.is_closed() => due,
            Some(_) | None => u64::MAX,
        };
        let front = |list: &VecDeque<(u64, u32)>| list.front().map_or(u64::MAX, |(at, _)| *at);
        let throttled = self.lanes.values().map(|lane| lane.throttled_until).filter(|until| *until > 0);
        due.min(front(&self.lingering)).min(front(&self.backing_off)).min(throttled.min().unwrap_or(u64::MAX))
    }

    /// When `advance` looks for what has waited too long.
    pub fn next_expiry(&self) -> u64 {
        self.next_expiry
    }

    pub fn is_closed_loop(&self) -> bool {
        self.schedule.is_closed()
    }

    /// Nothing more becomes due after `now`.
    pub fn stop(&mut self, now: u64) {
        self.schedule.stop(now);
    }

    /// Whether the schedule has ended and every record has its answer.
    pub fn is_drained(&self) -> bool {
        self.schedule.due().is_none()
            && self.lanes.values().all(|lane| lane.in_flight.is_empty())
            && self.queues.iter().all(Queue::is_empty)
    }
}

#[cfg(test)]
mod tests;
