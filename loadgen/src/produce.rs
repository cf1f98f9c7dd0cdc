//! One producer as a value: due times in, requests out, replies in. No clock and no socket, so a test can be the broker.

pub mod picker;
pub mod queue;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::BytesMut;

use crate::client::error::{codes, is_retriable};
use crate::measure::Recorder;
use crate::produce::picker::{Payload, Picker};
use crate::produce::queue::{Batch, Open, Queue, advance_sequence};
use crate::records::batch::{BatchWriter, HEADER_BYTES, Identity, RECORD_OVERHEAD_MAX};
use crate::records::compress::Codec;
use crate::records::stamp::{STAMP_BYTES, Stamp};
use crate::schedule::Schedule;
use crate::verify::{Ledger, Stretch};
use crate::workload::Partitioner;
use crate::workload::sizes::Sizes;

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

    /// Turns what is due into batches.
    pub fn advance(&mut self, now: u64, recorder: &mut Recorder) {
        if self.schedule.is_closed() {
            self.pull_closed(now);
        } else {
            self.pull_due(now);
        }
        while let Some((ready_at, partition)) = self.lingering.front().copied() {
            if ready_at > now {
                break;
            }
            self.lingering.pop_front();
            self.mark_ready(partition, now);
        }
        while let Some((until, partition)) = self.backing_off.front().copied() {
            if until > now {
                break;
            }
            self.backing_off.pop_front();
            self.mark_ready(partition, now);
        }
        if self.schedule.due().is_none() && self.schedule.is_closed() {
            self.flush_open(now);
        }
        if now >= self.next_expiry {
            self.next_expiry = now + EXPIRY_INTERVAL_NS;
            self.expire(now, recorder);
        }
    }

    fn pull_due(&mut self, now: u64) {
        while self.buffered < BUFFER_BYTES_MAX {
            if self.schedule.due().is_none_or(|due| due > now) {
                return;
            }
            if let Some(due) = self.schedule.take(now) {
                self.append(due);
            }
        }
    }

    /// In a closed loop a batch is filled whenever there is a slot for it.
    fn pull_closed(&mut self, now: u64) {
        let has_slot = |lane: &Lane, limit| lane.connected && lane.in_flight.len() < limit;
        while self.buffered < BUFFER_BYTES_MAX {
            let limit = self.settings.in_flight;
            let wants = self.lanes.values().any(|lane| has_slot(lane, limit) && lane.ready.is_empty());
            if !wants {
                return;
            }
            let Some(intended) = self.schedule.take(now) else {
                return;
            };
            self.append(intended);
        }
    }

    fn flush_open(&mut self, now: u64) {
        if self.buffered == 0 {
            return;
        }
        for partition in 0..self.queues.len() as u32 {
            if self.queues[partition as usize].open.is_some() {
                self.close(partition, now);
            }
        }
    }

    fn append(&mut self, intended: u64) {
        let settings = Arc::clone(&self.settings);
        let draw = self.picker.draw(&settings);
        let partition = draw.partition;
        let room = draw.value_bytes + RECORD_OVERHEAD_MAX + draw.key.map_or(0, |key| key.len());
        let is_full = |open: &Open| open.writer.len() + room > settings.batch_bytes;
        if self.queues[partition as usize].open.as_ref().is_some_and(is_full) {
            self.close(partition, intended);
        }
        if self.queues[partition as usize].open.is_none() {
            self.open(partition, intended);
        }
        let queue = &mut self.queues[partition as usize];
        let open = queue.open.as_mut().expect("opened above");
        let stamp =
            Stamp { run: settings.run, producer: self.id, sequence: queue.next_sequence, intended_ns: intended };
        queue.next_sequence += 1;
        let payload = settings.payload.slice(self.picker.rng(), draw.value_bytes - STAMP_BYTES);
        let timestamp_ms = (intended as i64 + settings.wall_offset_ns) / 1_000_000;
        let before = open.writer.len();
        let key = draw.key.as_ref().map(|key| key.as_slice());
        open.writer.push(timestamp_ms, key, &stamp.encode(), payload);
        open.intended.push(intended);
        open.value_bytes += draw.value_bytes as u64;
        self.buffered += open.writer.len() - before;
        if open.writer.count() >= settings.batch_records || open.writer.len() >= settings.batch_bytes {
            self.close(partition, intended);
        }
    }

    fn open(&mut self, partition: u32, intended: u64) {
        let (buffer, mut times) = self.pool.pop().unwrap_or_default();
        times.clear();
        let timestamp_ms = (intended as i64 + self.settings.wall_offset_ns) / 1_000_000;
        let writer = BatchWriter::start(buffer, timestamp_ms);
        self.buffered += HEADER_BYTES;
        // In a closed loop only full batches leave.
        let is_closed_loop = self.schedule.is_closed();
        let ready_at = if is_closed_loop { u64::MAX } else { intended + self.settings.linger_ns };
        let queue = &mut self.queues[partition as usize];
        queue.open =
            Some(Open { writer, intended: times, first_sequence: queue.next_sequence, ready_at, value_bytes: 0 });
        if !is_closed_loop {
            self.lingering.push_back((ready_at, partition));
        }
    }

    /// The open batch takes no more: at `full_at` it was full, or its time had come.
    fn close(&mut self, partition: u32, full_at: u64) {
        let queue = &mut self.queues[partition as usize];
        let Some(mut open) = queue.open.take() else {
            return;
        };
        open.ready_at = open.ready_at.min(full_at);
        let before = open.writer.len();
        let writer = std::mem::take(&mut open.writer);
        let bytes = writer.finish(self.settings.codec, &mut self.scratch).expect("none of the codecs fails on memory");
        self.buffered = self.buffered + bytes.len() - before;
        queue.closed.push_back(Batch::new(partition, open, bytes));
        self.picker.batch_closed(partition, &self.settings);
        self.mark_ready(partition, full_at);
    }

    fn mark_ready(&mut self, partition: u32, now: u64) {
        let queue = &mut self.queues[partition as usize];
        if queue.is_queued || !queue.has_ready(now) {
            return;
        }
        if let Some(leader) = self.leaders[partition as usize] {
            queue.is_queued = true;
            self.lanes.entry(leader).or_default().ready.push_back(partition);
        }
    }

    /// The next request to this broker, if a slot is free and something is ready. It counts as sent at `now`.
    pub fn next_request(&mut self, broker: i32, now: u64, recorder: &mut Recorder) -> Option<&Sent> {
        if self.needs_identity || (self.settings.idempotence && self.identity.is_none()) {
            return None;
        }
        let lane = self.lanes.get(&broker)?;
        if !lane.connected || lane.ready.is_empty() || lane.in_flight.len() >= self.settings.in_flight {
            return None;
        }
        let free_since = lane.free_since;
        let mut batches = self.gather(broker, now);
        if batches.is_empty() {
            return None;
        }
        for batch in &mut batches {
            self.dispatch(batch, free_since, now, recorder);
        }
        recorder.at(now).produce_requests += 1;
        let lane = self.lanes.get_mut(&broker).expect("looked up above");
        lane.in_flight.push_back(Sent { batches, sent_at: now });
        lane.in_flight.back()
    }

    /// At most one batch of each ready partition, up to the request's size.
    fn gather(&mut self, broker: i32, now: u64) -> Vec<Batch> {
        let mut batches = Vec::new();
        let mut bytes = 0;
        let lane = self.lanes.get_mut(&broker).expect("the caller has looked it up");
        let mut candidates = std::mem::take(&mut lane.ready);
        let mut again = Vec::new();
        while let Some(partition) = candidates.pop_front() {
            let queue = &mut self.queues[partition as usize];
            queue.is_queued = false;
            let waits = queue.held_until > now || (queue.is_recovering && queue.in_flight > 0);
            if waits || self.leaders[partition as usize] != Some(broker) {
                continue;
            }
            if queue.closed.is_empty() && queue.has_ready(now) {
                self.close(partition, now);
            }
            let queue = &mut self.queues[partition as usize];
            let Some(batch) = queue.closed.front() else {
                continue;
            };
            if !batches.is_empty() && bytes + batch.bytes_len() > self.settings.request_bytes {
                candidates.push_front(partition);
                queue.is_queued = true;
                break;
            }
            bytes += batch.bytes_len();
            batches.extend(queue.closed.pop_front());
            again.push(partition);
        }
        let lane = self.lanes.get_mut(&broker).expect("as above");
        // `close` may have queued a partition in the meantime; both lists keep their order.
        candidates.append(&mut lane.ready);
        candidates.retain(|partition| self.queues[*partition as usize].is_queued && !again.contains(partition));
        lane.ready = candidates;
        for partition in again {
            self.queues[partition as usize].is_queued = false;
            self.mark_ready(partition, now);
        }
        batches
    }

    fn dispatch(&mut self, batch: &mut Batch, free_since: u64, now: u64, recorder: &mut Recorder) {
        let queue = &mut self.queues[batch.partition as usize];
        if !batch.is_sealed() {
            let identity = match self.identity {
                Some((producer_id, producer_epoch)) if self.settings.idempotence => {
                    let base_sequence = queue.next_base;
                    queue.next_base = advance_sequence(base_sequence, batch.count());
                    Identity { producer_id, producer_epoch, base_sequence }
                }
                Some(_) | None => Identity::NONE,
            };
            batch.seal(identity);
        }
        if batch.sent_at.is_none() {
            if !self.schedule.is_closed() {
                let ready = batch.ready_at.max(free_since).max(queue.held_until);
                recorder.sent(&batch.intended, ready, now);
            }
            batch.sent_at = Some(now);
        }
        batch.attempts += 1;
        queue.in_flight += 1;
    }

    /// With acks=0 nothing answers: what was just sent counts as acknowledged at `now`.
    pub fn settle_unanswered(&mut self, broker: i32, now: u64, recorder: &mut Recorder) {
        let Some(sent) = self.lanes.get_mut(&broker).and_then(|lane| lane.in_flight.pop_back()) else {
            return;
        };
        for batch in sent.batches {
            let first_sent = batch.sent_at.unwrap_or(sent.sent_at);
            recorder.acked(&batch.intended, first_sent, now, batch.value_bytes);
            self.release(batch);
        }
    }

    /// The reply to the oldest request to this broker.
    pub fn on_reply(&mut self, broker: i32, now: u64, answers: &[Answer], recorder: &mut Recorder) {
        let limit = self.settings.in_flight;
        let Some(lane) = self.lanes.get_mut(&broker) else {
            return;
        };
        let Some(sent) = lane.in_flight.pop_front() else {
            return;
        };
        if lane.in_flight.len() + 1 >= limit {
            lane.free_since = now;
        }
        for (at, batch) in sent.batches.into_iter().enumerate() {
            let in_place = answers.get(at).filter(|answer| answer.partition == batch.partition);
            let answer = in_place
                .or_else(|| answers.iter().find(|answer| answer.partition == batch.partition))
                .copied()
                .unwrap_or(Answer { partition: batch.partition, code: -1, base_offset: -1 });
            self.on_answer(batch, answer, now, recorder);
        }
    }

    fn on_answer(&mut self, batch: Batch, answer: Answer, now: u64, recorder: &mut Recorder) {
        let sent_at = batch.sent_at.unwrap_or(now);
        let partition = batch.partition;
        match answer.code {
            codes::NONE | codes::DUPLICATE_SEQUENCE_NUMBER => {
                if let (Some(ledger), true) = (&self.ledger, answer.base_offset >= 0) {
                    let stretch = Stretch {
                        producer: self.id,
                        first: batch.first_sequence,
                        count: batch.count(),
                        offset: answer.base_offset,
                    };
                    ledger.acked(batch.partition, stretch);
                }
                let next_base = advance_sequence(batch.base_sequence.max(0), batch.count());
                let queue = &mut self.queues[batch.partition as usize];
                queue.acked_base = next_base;
                queue.settle();
                recorder.acked(&batch.intended, sent_at, now, batch.value_bytes);
                self.release(batch);
            }
            codes::OUT_OF_ORDER_SEQUENCE_NUMBER if self.follows_unacked(&batch) => {
                self.retry(batch, answer.code, now, recorder);
            }
            code if is_retriable(code) => {
                self.wants_metadata = true;
                self.retry(batch, code, now, recorder);
            }
            code => {
                recorder.failed(&batch.intended, batch.sent_at, now, code);
                self.lose(batch);
            }
        }
        // What waited for the answers of this partition may leave now.
        self.mark_ready(partition, now);
    }

    /// Whether an earlier batch of its partition is not acknowledged yet, which explains a sequence out of order.
    fn follows_unacked(&self, batch: &Batch) -> bool {
        let queue = &self.queues[batch.partition as usize];
        self.settings.idempotence && batch.base_sequence != queue.acked_base
    }

    /// The connection is gone: what was on its way is tried again.
    pub fn on_disconnect(&mut self, broker: i32, code: i16, now: u64, recorder: &mut Recorder) {
        let Some(lane) = self.lanes.get_mut(&broker) else {
            return;
        };
        lane.connected = false;
        self.wants_metadata = true;
        for sent in std::mem::take(&mut lane.in_flight) {
            for batch in sent.batches {
                self.retry(batch, code, now, recorder);
            }
        }
    }

    fn retry(&mut self, batch: Batch, code: i16, now: u64, recorder: &mut Recorder) {
        if now.saturating_sub(batch.first_due()) >= self.settings.timeout_ns {
            recorder.timed_out(&batch.intended, self.settings.timeout_ns, code);
            return self.lose(batch);
        }
        *recorder.at(now).retries.entry(code).or_default() += 1;
        let wait = (BACK_OFF_FIRST_NS << (batch.attempts.saturating_sub(1)).min(8)).min(BACK_OFF_MAX_NS);
        let partition = batch.partition;
        let queue = &mut self.queues[partition as usize];
        queue.in_flight -= 1;
        queue.held_until = queue.held_until.max(now + wait);
        queue.is_recovering |= self.settings.idempotence;
        let until = queue.held_until;
        queue.put_back(batch);
        let at = self.backing_off.partition_point(|(other, _)| *other <= until);
        self.backing_off.insert(at, (until, partition));
    }

    /// A batch that was sent and will never be acknowledged. Later ones would be out of sequence.
    fn lose(&mut self, batch: Batch) {
        if self.settings.idempotence {
            self.needs_identity = true;
        }
        self.release(batch);
    }

    /// Ends a batch that was in flight.
    fn release(&mut self, batch: Batch) {
        let queue = &mut self.queues[batch.partition as usize];
        queue.in_flight -= 1;
        self.recycle(batch);
    }

    fn recycle(&mut self, batch: Batch) {
        self.buffered = self.buffered.saturating_sub(batch.bytes_len());
        if self.pool.len() < POOL_MAX {
            self.pool.push(batch.into_buffers());
        }
    }

    /// Whether a new producer id should be asked for now: everything under the old one is answered.
    pub fn awaits_identity(&self) -> bool {
        self.needs_identity && self.lanes.values().all(|lane| lane.in_flight.is_empty())
    }

    /// Starts over under a new producer id, with sequences from 0.
    pub fn set_identity(&mut self, identity: (i64, i16), now: u64) {
        self.identity = Some(identity);
        self.needs_identity = false;
        for queue in &mut self.queues {
            queue.next_base = 0;
            queue.acked_base = 0;
            queue.is_recovering = false;
            queue.held_until = queue.held_until.max(now);
            for batch in &mut queue.closed {
                batch.unseal();
            }
        }
    }

    /// Gives up what waits too long, in memory and in the schedule.
    fn expire(&mut self, now: u64, recorder: &mut Recorder) {
        let timeout = self.settings.timeout_ns;
        let Some(horizon) = now.checked_sub(timeout) else {
            return;
        };
        if self.buffered > 0 {
            for partition in 0..self.queues.len() as u32 {
                self.expire_partition(partition, horizon, recorder);
            }
        }
        // Due that long ago and not even in memory.
        let mut late = Vec::new();
        while self.schedule.due().is_some_and(|due| due <= horizon) && !self.schedule.is_closed() {
            late.extend(self.schedule.take(now));
        }
        if !late.is_empty() {
            recorder.timed_out(&late, timeout, codes::REQUEST_TIMED_OUT);
        }
    }

    fn expire_partition(&mut self, partition: u32, horizon: u64, recorder: &mut Recorder) {
        let queue = &self.queues[partition as usize];
        let open_due = queue.open.as_ref().and_then(|open| open.intended.first().copied());
        if open_due.is_some_and(|due| due <= horizon) {
            self.close(partition, horizon);
        }
        let is_old = |batch: &mut Batch| batch.first_due() <= horizon;
        while let Some(batch) = self.queues[partition as usize].closed.pop_front_if(is_old) {
            recorder.timed_out(&batch.intended, self.settings.timeout_ns, codes::REQUEST_TIMED_OUT);
            if self.settings.idempotence && batch.sent_at.is_some() {
                self.needs_identity = true;
            }
            self.recycle(batch);
        }
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
        due.min(front(&self.lingering)).min(front(&self.backing_off))
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

    /// The wait is over: everything still unanswered, unsent or unmade counts as timed out.
    pub fn give_up(&mut self, now: u64, recorder: &mut Recorder) {
        let timeout = self.settings.timeout_ns;
        let lanes = std::mem::take(&mut self.lanes);
        let in_flight = lanes.into_values().flat_map(|lane| lane.in_flight).flat_map(|sent| sent.batches);
        for batch in in_flight {
            recorder.timed_out(&batch.intended, timeout, codes::REQUEST_TIMED_OUT);
        }
        for queue in &mut self.queues {
            let open = queue.open.take().map(|open| open.intended);
            let closed = queue.closed.drain(..).map(|batch| batch.intended);
            for intended in closed.chain(open) {
                recorder.timed_out(&intended, timeout, codes::REQUEST_TIMED_OUT);
            }
        }
        let closed_loop = self.schedule.is_closed();
        while !closed_loop && self.schedule.due().is_some_and(|due| due <= now) {
            if let Some(due) = self.schedule.take(now) {
                recorder.timed_out(&[due], timeout, codes::REQUEST_TIMED_OUT);
            }
        }
        self.schedule.stop(0);
        self.buffered = 0;
    }
}

#[cfg(test)]
mod tests;
