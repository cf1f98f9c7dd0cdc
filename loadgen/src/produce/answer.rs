//! What replies, and their absence, do to the batches on their way.

use crate::{
    client::error::{codes, is_retriable},
    measure::Recorder,
    produce::{
        Answer, BACK_OFF_FIRST_NS, BACK_OFF_MAX_NS, POOL_MAX, Producer,
        queue::{Batch, advance_sequence},
    },
    verify::Stretch,
};

impl Producer {
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

    /// The broker asks for silence on this connection until `until`, as its quotas demand.
    pub fn throttle(&mut self, broker: i32, now: u64, until: u64, recorder: &mut Recorder) {
        if let Some(lane) = self.lanes.get_mut(&broker).filter(|_| until > now) {
            let from = now.max(lane.throttled_until);
            recorder.at(now).throttled_ns += until.saturating_sub(from);
            lane.throttled_until = lane.throttled_until.max(until);
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
                if queue.is_recovering {
                    // Until now the answer kept waiting what is behind it.
                    queue.held_until = queue.held_until.max(now);
                }
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
    pub(super) fn release(&mut self, batch: Batch) {
        let queue = &mut self.queues[batch.partition as usize];
        queue.in_flight -= 1;
        self.recycle(batch);
    }

    pub(super) fn recycle(&mut self, batch: Batch) {
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
}
