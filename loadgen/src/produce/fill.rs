//! From due times to batches.

use std::sync::Arc;

use crate::{
    measure::Recorder,
    produce::{
        BUFFER_BYTES_MAX, EXPIRY_INTERVAL_NS, Lane, Producer,
        queue::{Batch, Open},
    },
    records::{
        batch::{BatchWriter, HEADER_BYTES, RECORD_OVERHEAD_MAX},
        stamp::{STAMP_BYTES, Stamp},
    },
};

impl Producer {
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
        for lane in self.lanes.values_mut() {
            if lane.throttled_until > 0 && lane.throttled_until <= now {
                // Until now it was the broker that kept us waiting.
                lane.free_since = lane.free_since.max(lane.throttled_until);
                lane.throttled_until = 0;
            }
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
        let has_slot = |lane: &Lane, limit| lane.connected && lane.throttled_until == 0 && lane.in_flight.len() < limit;
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
    pub(super) fn close(&mut self, partition: u32, full_at: u64) {
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

    pub(super) fn mark_ready(&mut self, partition: u32, now: u64) {
        let queue = &mut self.queues[partition as usize];
        if queue.is_queued || !queue.has_ready(now) {
            return;
        }
        if let Some(leader) = self.leaders[partition as usize] {
            queue.is_queued = true;
            self.lanes.entry(leader).or_default().ready.push_back(partition);
        }
    }
}
