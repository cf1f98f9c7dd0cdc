//! A partition whose files fail goes offline alone, and stays so until the next start: it takes nothing more and answers
//! nothing more, the rest of the broker goes on.
//!
//! The journal may not be freed behind it as if its segments had everything. Its image in the checkpoint stays the one that
//! its segments hold, and what the journal has beyond goes into a rescue file before the checkpoint that frees the journal
//! is written. If that cannot be done the process ends: the journal has everything.

use std::rc::Rc;

use crate::log::{core::Failed, partition_log::Log, placing::CoreChanges, segment::file_name, settings::LogError};

/// Ends the partition's service at once. What is on its way to the journal still counts once it is there.
pub fn fail(log: &Rc<Log>, error: LogError) {
    if log.state().dead().is_some() {
        return;
    }
    let core = &log.core;
    let error = match error {
        LogError::Io { .. } | LogError::Corrupt { .. } => error,
        // A start has no other way to say that a partition cannot be had.
        LogError::Full | LogError::OffsetOutOfRange | LogError::Deleted | LogError::Stopping => {
            LogError::at(&log.directory(), &std::io::Error::other(error.to_string()))
        }
    };
    let segment =
        if let LogError::Corrupt { segment, .. } = &error { Some(log.file(&file_name(*segment, "log"))) } else { None };
    tracing::error!(
        topic = log.name(),
        partition = log.key().partition,
        segment = segment.as_ref().map(|path| tracing::field::display(path.display())),
        %error,
        "a partition goes offline until the next start"
    );
    log.kill(error);
    log.forget_memory();
    core.files.forget(log.key(), None);
    core.cold.forget(log.key(), None);
    core.memory.not_evictable(log.slot());
    let upto = core.journal.seal();
    core.failed.borrow_mut().push(Failed { key: log.key(), upto, covered: core.covered.get(), mark: None });
    // Whoever waits for records of it hears that there will be none.
    log.change(|_| CoreChanges { list_flushed: true, ..CoreChanges::default() });
    core.want_round();
}
