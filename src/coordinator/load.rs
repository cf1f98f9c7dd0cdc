//! Reading the log into a machine.

use std::{fmt, rc::Rc};

use tracing::{debug, error, warn};

use crate::{
    base::Offset,
    coordinator::{Coordinator, RELOAD_AFTER},
    group::Groups,
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
}

impl fmt::Display for LoadError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(error) => error.fmt(out),
            Self::Malformed(offset) => write!(out, "what lies at offset {offset} is not a group's record"),
        }
    }
}

impl Coordinator {
    pub(super) async fn load_until_it_works(self: Rc<Self>) {
        while !self.replica.is_deleted() {
            match self.load().await {
                Ok(records) => {
                    debug!(partition = %self.replica.key(), records, "group coordinator loaded");
                    self.unloadable.set(false);
                    break;
                }
                Err(error) => {
                    if !self.unloadable.replace(true) {
                        error!(partition = %self.replica.key(), %error, "group coordinator could not read its log");
                    }
                    self.loaded.notify_all();
                    // An offline partition comes back with the next start.
                    if self.replica.log().is_offline() {
                        break;
                    }
                    self.io.clock.sleep(RELOAD_AFTER).await;
                }
            }
        }
        self.loaded.notify_all();
        self.timer.notify_all();
    }

    /// Replays the log into a fresh machine. Gives the number of records.
    async fn load(self: &Rc<Self>) -> Result<u64, LoadError> {
        // What is known of an offline partition is not all that there is.
        if let Some(error) = self.replica.log().offline() {
            return Err(LoadError::Log(error));
        }
        let mut machine = Groups::new(self.config.borrow().clone());
        let mut next = self.replica.inspect(crate::partition::Partition::log_start_offset);
        let mut records = 0;
        loop {
            let upto = self.replica.high_watermark();
            if next >= upto {
                break;
            }
            let read = self.replica.read(next, LOAD_READ_BYTES, upto, true).await.map_err(LoadError::Log)?;
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
                            warn!(partition = %self.replica.key(), offset = %next, "a record of no group is passed over");
                        }
                    }
                }
                next = batch.header.last_offset().plus(1);
            }
            if next == before {
                return Err(LoadError::Malformed(next));
            }
            self.io.clock.yield_now().await;
        }
        *self.machine.borrow_mut() = Some(machine);
        self.decide(Groups::loaded);
        let topic_ids = self.topic_ids.clone();
        self.decide(|machine, now| machine.forget_deleted(now, |name| topic_ids(name).map(|id| id.0)));
        Ok(records)
    }
}
