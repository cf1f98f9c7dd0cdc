//! Reading the log into a machine.

use std::{fmt, rc::Rc, time::Duration};

use tracing::{debug, error, warn};

use crate::{
    base::Offset,
    coordinator::{Coordinator, RELOAD_AFTER, machine::StateMachine},
    log::LogError,
    protocol::batch::{self, Records},
};

/// How much of the log is read at once while loading. In bytes.
const LOAD_READ_BYTES: usize = 1024 * 1024;

/// Why a partition's state could not be read.
#[derive(Debug)]
enum LoadError {
    Log(LogError),
    /// What lies at the offset is not a batch of records.
    Malformed(Offset),
    /// The machine is not wanted any more, or another one is.
    Over,
}

impl fmt::Display for LoadError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(error) => error.fmt(out),
            Self::Malformed(offset) => write!(out, "what lies at offset {offset} is not a batch of records"),
            Self::Over => out.write_str("not wanted any more"),
        }
    }
}

impl<M: StateMachine> Coordinator<M> {
    /// Loads the machine after a while, unless that is under way.
    pub(super) fn load_later(self: &Rc<Self>, wait: Duration) {
        if self.loading.replace(true) {
            return;
        }
        let this = self.clone();
        self.io.spawner.spawn(async move {
            if !wait.is_zero() {
                this.io.clock.sleep(wait).await;
            }
            this.load_until_it_works().await;
            this.loading.set(false);
            this.changed.notify_all();
            this.timer.notify_all();
        });
    }

    async fn load_until_it_works(self: &Rc<Self>) {
        while self.leads.get() && !self.replica.is_deleted() {
            match self.load().await {
                Ok(records) => {
                    debug!(partition = %self.replica.key(), machine = M::NAME, records, "coordinator loaded");
                    self.unloadable.set(false);
                    return;
                }
                Err(LoadError::Over) => {}
                Err(error) => {
                    if !self.unloadable.replace(true) {
                        let machine = M::NAME;
                        error!(partition = %self.replica.key(), machine, %error, "coordinator could not read its log");
                    }
                    self.changed.notify_all();
                    // An offline partition comes back with the next start.
                    if self.replica.log().is_offline() {
                        return;
                    }
                    self.io.clock.sleep(RELOAD_AFTER).await;
                }
            }
        }
    }

    /// Replays the log into a fresh machine. Gives the number of records.
    async fn load(self: &Rc<Self>) -> Result<u64, LoadError> {
        let term = self.term.get();
        let wanted = || if self.is_wanted(term) { Ok(()) } else { Err(LoadError::Over) };
        // What an earlier machine has appended is in the log after this, or never will be.
        self.quiet().await;
        wanted()?;
        let mut machine = M::new(self.config.borrow().clone());
        let (mut next, end) =
            self.replica.inspect(|partition| (partition.log_start_offset(), partition.log_end_offset()));
        let (mut records, mut log_bytes) = (0, 0);
        while next < end {
            let upto = self.committed_behind(next).await;
            wanted()?;
            let read = self.replica.read(next, LOAD_READ_BYTES, upto?, true).await;
            wanted()?;
            let read = read.map_err(LoadError::Log)?;
            let before = next;
            // A batch may lie across two slices.
            let bytes = read.slices.iter().flat_map(|slice| slice.iter().copied()).collect::<Vec<u8>>();
            for batch in batch::batches(&bytes) {
                let batch = batch.map_err(|_| LoadError::Malformed(next))?;
                for record in Records::new(&batch.bytes[batch::HEADER_BYTES..], batch.header.record_count) {
                    let record = record.map_err(|_| LoadError::Malformed(next))?;
                    if let Some(key) = record.key {
                        records += 1;
                        if machine.replay(key, record.value).is_err() {
                            let (partition, offset, machine) = (self.replica.key(), next, M::NAME);
                            warn!(%partition, %offset, machine, "a record that cannot be read is passed over");
                        }
                    }
                }
                next = batch.header.last_offset().plus(1);
                log_bytes += batch.bytes.len() as u64;
            }
            if next == before {
                return Err(LoadError::Malformed(next));
            }
            self.io.clock.yield_now().await;
            wanted()?;
        }
        // What is known of an offline partition is not all that there is.
        if let Some(error) = self.replica.log().offline() {
            return Err(LoadError::Log(error));
        }
        // They may have changed meanwhile.
        machine.configure(self.config.borrow().clone());
        *self.machine.borrow_mut() = Some(machine);
        self.log_bytes.set(log_bytes);
        self.decide(M::loaded);
        Ok(records)
    }

    fn is_wanted(&self, term: u64) -> bool {
        self.leads.get() && self.term.get() == term && !self.replica.is_deleted()
    }

    /// Waits until nothing is on its way to the log.
    async fn quiet(&self) {
        loop {
            let changed = self.changed.notified();
            if !self.releasing.get() && !self.rewriting.get() {
                return;
            }
            changed.await;
        }
    }

    /// Waits until a record behind `offset` is committed, or nobody wants it any more. Gives how far one may read.
    async fn committed_behind(&self, offset: Offset) -> Result<Offset, LoadError> {
        let term = self.term.get();
        let watch = self.replica.watch(&self.changed);
        let upto = loop {
            let changed = self.changed.notified();
            let upto = self.replica.high_watermark();
            if let Some(error) = self.replica.log().offline() {
                break Err(LoadError::Log(error));
            }
            if upto > offset || !self.is_wanted(term) {
                break Ok(upto);
            }
            changed.await;
        };
        self.replica.unwatch(watch);
        upto
    }
}
