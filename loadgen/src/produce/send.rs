//! From batches to requests.

use crate::{
    measure::Recorder,
    produce::{
        Producer, Sent,
        queue::{Batch, advance_sequence},
    },
    records::batch::Identity,
};

impl Producer {
    /// The next request to this broker, if a slot is free and something is ready. It counts as sent at `now`.
    pub fn next_request(&mut self, broker: i32, now: u64, recorder: &mut Recorder) -> Option<&Sent> {
        if self.needs_identity || (self.settings.idempotence && self.identity.is_none()) {
            return None;
        }
        let lane = self.lanes.get(&broker)?;
        let is_muted = !lane.connected || lane.throttled_until > now;
        if is_muted || lane.ready.is_empty() || lane.in_flight.len() >= self.settings.in_flight {
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
                // `close` may have queued it already. Twice in the list would be twice in one request, of which brokers
                // take only the last.
                if !queue.is_queued {
                    candidates.push_front(partition);
                    queue.is_queued = true;
                }
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
}
