//! Keeping the log short.

use std::rc::Rc;

use bytes::Bytes;
use tracing::{error, info};

use crate::coordinator::{Coordinator, machine::StateMachine};

/// The log is rewritten when it is longer than this and than [`REWRITE_RATIO`] times its live state. In bytes; less in
/// tests, so that simulated brokers get there.
pub(super) const REWRITE_BYTES: u64 = if cfg!(test) { 16 * 1024 } else { 4 * 1024 * 1024 };
const REWRITE_RATIO: u64 = 8;

impl<M: StateMachine> Coordinator<M> {
    /// Whether requests have to wait so that the log can be written anew: it got long, and something is always on its way.
    pub(super) fn must_rest(&self) -> bool {
        self.log_bytes.get() >= 2 * self.rewrite_at.get() && self.releasing.get() && !self.rewriting.get()
    }

    /// Until a cleaner exists the log is kept short by writing the live state again and giving up what was before. Only while
    /// nothing is on its way to the log: what is refused there must not come in with the live state.
    pub(super) fn rewrite_if_long(self: &Rc<Self>) {
        let length = self.log_bytes.get();
        if self.rewriting.get() || length < self.rewrite_at.get() {
            return;
        }
        let Some(live) = self.machine.borrow().as_ref().map(M::snapshot) else { return };
        let live_bytes: usize = live.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len)).sum();
        // Not looked at with every decision: the live state may be large.
        self.rewrite_at.set(REWRITE_BYTES.max(REWRITE_RATIO * live_bytes as u64));
        if length < self.rewrite_at.get() {
            return;
        }
        let upto = self.replica.inspect(crate::partition::Partition::log_end_offset);
        if live.is_empty() && upto != self.replica.high_watermark() {
            return;
        }
        self.rewriting.set(true);
        let appends = self.append(&live, self.now());
        let (this, term) = (self.clone(), self.term.get());
        self.io.spawner.spawn(async move {
            let mut start = upto;
            let mut whole = true;
            for (index, append) in appends.pending.into_iter().enumerate() {
                match append.await {
                    Some(Ok(produced)) if index == 0 => start = produced.base_offset,
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => whole = false,
                }
            }
            // Whoever does not lead any more has nothing to say about the log.
            if whole && this.term.get() == term {
                match this.replica.delete_records(start.0).await {
                    Ok(start) => {
                        this.log_bytes.set(this.log_bytes.get() - length + appends.bytes);
                        info!(partition = %this.replica.key(), %start, "coordinator's log rewritten");
                    }
                    Err(error) => {
                        error!(partition = %this.replica.key(), ?error, "coordinator's log could not be shortened")
                    }
                }
            }
            this.rewriting.set(false);
            this.changed.notify_all();
        });
    }
}
