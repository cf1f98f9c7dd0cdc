//! A partition whose files fail goes offline alone: its records that are in no segment go to a rescue file, the rest of
//! the broker goes on.

use std::rc::Rc;

use crate::log::{core::Core, partition_log::Log, settings::LogError};

/// Ends the partition's life on this broker and brings into safety what only memory has.
pub async fn take_offline(core: &Rc<Core>, log: &Rc<Log>, error: LogError) {
    let (slices, dirty, name) = {
        let state = log.state();
        let mut slices = Vec::new();
        let mut dirty = 0;
        for chunk in state.chunks.0.iter().filter(|chunk| !chunk.is_clean()) {
            slices.push(chunk.tail.slice(chunk.written..chunk.tail.published()));
            dirty += chunk.tail.published() - chunk.written;
        }
        let name = format!("ringtail-rescue-{}-{}-{}", log.name(), log.key().partition, state.end);
        (slices, dirty, name)
    };
    tracing::error!(topic = log.name(), partition = log.key().partition, %error, rescue = name, "a partition goes offline");
    let bytes = super::core::joined(&slices);
    if !bytes.is_empty()
        && let Err(error) = core.io.disk.write_file(&core.directory.join(&name), &bytes, true).await
    {
        tracing::error!(%error, bytes = bytes.len(), "the rescue file could not be written");
    }
    log.kill(error);
    core.files.forget(log.key(), None);
    let capacity: usize = {
        let mut state = log.state_mut();
        state.chunks.0.drain(..).map(|chunk| chunk.capacity()).sum()
    };
    core.memory.cleaned(dirty);
    core.memory.chunk_dropped(capacity);
}
