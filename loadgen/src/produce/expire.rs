//! The end of waiting: what is not acknowledged in time counts as its time-out.

use crate::{
    client::error::codes,
    measure::Recorder,
    produce::{Producer, queue::Batch},
};

impl Producer {
    /// Gives up what waits too long, in memory and in the schedule.
    pub(super) fn expire(&mut self, now: u64, recorder: &mut Recorder) {
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
