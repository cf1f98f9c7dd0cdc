//! One consumer as a value: fetch requests out, replies in. Keeps a fetch session with each broker (KIP-227).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use kafka_protocol::messages::{
    FetchRequest, FetchResponse,
    fetch_request::{FetchPartition, FetchTopic, ForgottenTopic},
    fetch_response::PartitionData,
};

use crate::{
    client::{
        cluster::{Layout, Numbers},
        error::codes,
    },
    measure::{Metric, Recorder},
    records::{
        reader::{ReadError, read_batches},
        stamp::Stamp,
    },
    verify::{Ledger, Stretch},
};

/// Topics are named by id from this version.
pub const TOPIC_ID_VERSION: i16 = 13;
const HOLD_NS: u64 = 100_000_000;

/// What all consumers of a run share.
pub struct Settings {
    pub layout: Arc<Layout>,
    pub numbers: Numbers,
    pub max_wait_ms: i32,
    pub min_bytes: i32,
    pub max_bytes: i32,
    pub partition_max_bytes: i32,
    pub check_crc: bool,
    pub run: u32,
    /// Where consumers stand, by partition; a partition that moves to another consumer goes on from here.
    pub positions: Vec<AtomicI64>,
    /// Nothing is fetched before this time.
    pub start_at: u64,
    /// When records were last read, in monotonic nanoseconds.
    pub last_read: AtomicU64,
}

#[derive(Debug, Default)]
struct Session {
    id: i32,
    epoch: i32,
    /// The partitions that the broker knows of, with the offset it was told.
    known: BTreeMap<u32, i64>,
}

#[derive(Debug, Default)]
struct Lane {
    connected: bool,
    in_flight: Option<u64>,
    held_until: u64,
    session: Session,
    partitions: BTreeSet<u32>,
}

/// One Kafka consumer.
pub struct Consumer {
    settings: Arc<Settings>,
    ledger: Option<Arc<Ledger>>,
    assigned: BTreeSet<u32>,
    leaders: Vec<Option<i32>>,
    lanes: BTreeMap<i32, Lane>,
    scratch: Vec<u8>,
    stretches: Vec<Stretch>,
    pub wants_metadata: bool,
}

impl Consumer {
    pub fn new(settings: Arc<Settings>, ledger: Option<Arc<Ledger>>, assigned: BTreeSet<u32>) -> Self {
        let leaders = vec![None; settings.layout.partitions.len()];
        Self {
            settings,
            ledger,
            assigned,
            leaders,
            lanes: BTreeMap::new(),
            scratch: Vec::new(),
            stretches: Vec::new(),
            wants_metadata: false,
        }
    }

    pub fn set_leaders(&mut self, leaders: &[Option<i32>]) {
        self.leaders.copy_from_slice(leaders);
        self.spread();
    }

    /// The partitions to read from now on.
    pub fn assign(&mut self, assigned: BTreeSet<u32>) {
        self.assigned = assigned;
        self.spread();
    }

    fn spread(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.partitions.clear();
        }
        for partition in &self.assigned {
            if let Some(leader) = self.leaders[*partition as usize] {
                self.lanes.entry(leader).or_default().partitions.insert(*partition);
            }
        }
    }

    pub fn brokers(&self) -> impl Iterator<Item = i32> + '_ {
        self.lanes.keys().copied()
    }

    pub fn connected(&mut self, broker: i32) {
        self.lanes.entry(broker).or_default().connected = true;
    }

    pub fn on_disconnect(&mut self, broker: i32) {
        if let Some(lane) = self.lanes.get_mut(&broker) {
            lane.connected = false;
            lane.in_flight = None;
            lane.session = Session::default();
        }
        self.wants_metadata = true;
    }

    pub fn oldest_sent(&self, broker: i32) -> Option<u64> {
        self.lanes.get(&broker)?.in_flight
    }

    /// When `next_request` is to be asked again though no reply has come.
    pub fn next_wakeup(&self) -> u64 {
        let held = self.lanes.values().filter(|lane| lane.connected && lane.in_flight.is_none());
        let held = held.filter(|lane| !lane.partitions.is_empty());
        held.map(|lane| lane.held_until.max(self.settings.start_at)).min().unwrap_or(u64::MAX)
    }

    /// The next fetch from this broker, if none is under way.
    pub fn next_request(&mut self, broker: i32, version: i16, now: u64) -> Option<FetchRequest> {
        let lane = self.lanes.get_mut(&broker)?;
        if !lane.connected || lane.in_flight.is_some() || now < lane.held_until.max(self.settings.start_at) {
            return None;
        }
        if lane.partitions.is_empty() && lane.session.known.is_empty() {
            return None;
        }
        lane.in_flight = Some(now);
        let settings = &self.settings;
        let session = &mut lane.session;
        let is_full = session.epoch == 0;
        if is_full {
            session.known.clear();
        }
        let mut wanted = Vec::new();
        for partition in &lane.partitions {
            let offset = settings.positions[*partition as usize].load(Ordering::Relaxed);
            if session.known.insert(*partition, offset) != Some(offset) {
                wanted.push((*partition, offset));
            }
        }
        let dropped: Vec<u32> =
            session.known.keys().copied().filter(|known| !lane.partitions.contains(known)).collect();
        for partition in &dropped {
            session.known.remove(partition);
        }
        let request = FetchRequest::default()
            .with_max_wait_ms(settings.max_wait_ms)
            .with_min_bytes(settings.min_bytes)
            .with_max_bytes(settings.max_bytes)
            .with_isolation_level(0)
            .with_topics(wanted_topics(settings, &wanted, version))
            .with_session_id(if version >= 7 { session.id } else { 0 })
            .with_session_epoch(if version >= 7 { session.epoch } else { -1 });
        if version < 7 {
            // Without sessions every fetch names everything.
            session.known.clear();
            return Some(request);
        }
        Some(request.with_forgotten_topics_data(forgotten_topics(settings, &dropped, version)))
    }

    /// The broker asks for silence on this connection until `until`, as its quotas demand.
    pub fn throttle(&mut self, broker: i32, now: u64, until: u64, recorder: &mut Recorder) {
        if let Some(lane) = self.lanes.get_mut(&broker).filter(|_| until > now) {
            recorder.at(now).throttled_ns += until - now;
            lane.held_until = lane.held_until.max(until);
        }
    }

    /// The reply to the fetch under way.
    pub fn on_reply(&mut self, broker: i32, now: u64, response: &FetchResponse, recorder: &mut Recorder) {
        let Some(lane) = self.lanes.get_mut(&broker) else {
            return;
        };
        let sent_at = lane.in_flight.take().unwrap_or(now);
        recorder.at(now).fetch_requests += 1;
        match response.error_code {
            codes::NONE => {
                let session = &mut lane.session;
                session.id = response.session_id;
                session.epoch = match session.id {
                    0 => 0,
                    _ if session.epoch == i32::MAX => 1,
                    _ => session.epoch + 1,
                };
            }
            codes::FETCH_SESSION_ID_NOT_FOUND | codes::INVALID_FETCH_SESSION_EPOCH => {
                lane.session = Session::default();
            }
            code => {
                lane.session = Session::default();
                lane.held_until = lane.held_until.max(now + HOLD_NS);
                *recorder.at(now).retries.entry(code).or_default() += 1;
            }
        }
        let mut records = 0;
        for topic in &response.responses {
            for data in &topic.partitions {
                let number = self.settings.numbers.find(topic.topic.as_str(), topic.topic_id, data.partition_index);
                if let Some(partition) = number.filter(|partition| self.assigned.contains(partition)) {
                    records += self.on_partition(broker, partition, data, now, recorder);
                }
            }
        }
        if records > 0 {
            recorder.sample(now).record(Metric::Fetch, now - sent_at);
            self.settings.last_read.fetch_max(now, Ordering::Relaxed);
        }
    }

    fn on_partition(
        &mut self,
        broker: i32,
        partition: u32,
        data: &PartitionData,
        now: u64,
        recorder: &mut Recorder,
    ) -> u64 {
        if data.error_code != codes::NONE {
            self.on_error(broker, partition, data, now, recorder);
            return 0;
        }
        let Some(bytes) = data.records.as_ref().filter(|bytes| !bytes.is_empty()) else {
            return 0;
        };
        let settings = Arc::clone(&self.settings);
        let position = &settings.positions[partition as usize];
        let from = position.load(Ordering::Relaxed);
        let stretches = &mut self.stretches;
        stretches.clear();
        let mut value_bytes = 0;
        let mut count = 0;
        let result = read_batches(bytes, from, settings.check_crc, &mut self.scratch, |record| {
            count += 1;
            value_bytes += record.value.len() as u64;
            let Some(stamp) = Stamp::decode(record.value).filter(|stamp| stamp.run == settings.run) else {
                return;
            };
            let latency = now.saturating_sub(stamp.intended_ns);
            recorder.sample(stamp.intended_ns).record(Metric::EndToEnd, latency);
            note(stretches, stamp, record.offset);
        });
        let counters = recorder.at(now);
        counters.consumed_records += count;
        counters.consumed_bytes += value_bytes;
        if let Some(ledger) = &self.ledger {
            ledger.consumed(partition, &self.stretches);
        }
        match result {
            Ok(summary) => {
                if let Some(next) = summary.next_offset {
                    position.store(next.max(from), Ordering::Relaxed);
                }
            }
            Err(error) => self.on_corrupt(broker, partition, error, now),
        }
        count
    }

    /// A bad batch is reported once and stepped over by one offset, so that the run goes on and shows what else is wrong.
    fn on_corrupt(&mut self, broker: i32, partition: u32, error: ReadError, now: u64) {
        let (base_offset, what) = match error {
            ReadError::Checksum { base_offset } => (base_offset, "wrong checksum"),
            ReadError::Malformed { base_offset } => (base_offset, "malformed batch"),
            ReadError::Magic { base_offset } => (base_offset, "not record format 2"),
        };
        if let Some(ledger) = &self.ledger {
            ledger.corrupt(partition, format!("offset {base_offset}: {what}"));
        }
        let position = &self.settings.positions[partition as usize];
        let next = base_offset.saturating_add(1).max(position.load(Ordering::Relaxed).saturating_add(1));
        position.store(next, Ordering::Relaxed);
        if let Some(lane) = self.lanes.get_mut(&broker) {
            lane.held_until = lane.held_until.max(now + HOLD_NS);
        }
    }

    fn on_error(&mut self, broker: i32, partition: u32, data: &PartitionData, now: u64, recorder: &mut Recorder) {
        *recorder.at(now).retries.entry(data.error_code).or_default() += 1;
        if data.error_code == codes::OFFSET_OUT_OF_RANGE {
            let start = data.log_start_offset.max(0);
            self.settings.positions[partition as usize].store(start, Ordering::Relaxed);
        }
        self.wants_metadata = true;
        if let Some(lane) = self.lanes.get_mut(&broker) {
            lane.held_until = lane.held_until.max(now + HOLD_NS);
            // Named again in the next request, also when its offset stays.
            lane.session.known.remove(&partition);
        }
    }
}

/// Joins a record to the stretch before it, if it follows.
fn note(stretches: &mut Vec<Stretch>, stamp: Stamp, offset: i64) {
    if let Some(last) = stretches.last_mut()
        && last.producer == stamp.producer
        && last.first + last.count == stamp.sequence
        && last.offset + last.count as i64 == offset
    {
        last.count += 1;
        return;
    }
    stretches.push(Stretch { producer: stamp.producer, first: stamp.sequence, count: 1, offset });
}

fn wanted_topics(settings: &Settings, wanted: &[(u32, i64)], version: i16) -> Vec<FetchTopic> {
    let mut topics: Vec<FetchTopic> = Vec::new();
    let mut last = None;
    for (number, offset) in wanted {
        let partition = settings.layout.partitions[*number as usize];
        if last != Some(partition.topic) {
            last = Some(partition.topic);
            let topic = &settings.layout.topics[partition.topic as usize];
            topics.push(if version >= TOPIC_ID_VERSION {
                FetchTopic::default().with_topic_id(topic.id)
            } else {
                FetchTopic::default().with_topic(topic.name.clone())
            });
        }
        let fetch = FetchPartition::default()
            .with_partition(partition.index)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(*offset)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(settings.partition_max_bytes);
        topics.last_mut().expect("pushed above").partitions.push(fetch);
    }
    topics
}

fn forgotten_topics(settings: &Settings, dropped: &[u32], version: i16) -> Vec<ForgottenTopic> {
    let forgotten = dropped.iter().map(|number| {
        let partition = settings.layout.partitions[*number as usize];
        let topic = &settings.layout.topics[partition.topic as usize];
        let forgotten = ForgottenTopic::default().with_partitions(vec![partition.index]);
        if version >= TOPIC_ID_VERSION {
            forgotten.with_topic_id(topic.id)
        } else {
            forgotten.with_topic(topic.name.clone())
        }
    });
    forgotten.collect()
}

#[cfg(test)]
mod tests;
