//! What all cores count, added up.

use std::rc::Rc;

use tracing::{Level, debug, enabled};

use crate::{
    metrics::{Gauge, Snapshot},
    shard::{
        call::{Answer, Call},
        core::Core,
    },
};

/// The filter of the line that has it: `RINGTAIL_LOG=info,ringtail::metrics=debug`.
const TARGET: &str = "ringtail::metrics";

impl Core {
    /// What this core counted.
    pub(super) fn metrics_here(&self) -> Snapshot {
        let (metrics, usage) = (&self.io.metrics, self.log.usage());
        metrics.set(Gauge::CacheBytes, usage.chunk_bytes as u64);
        metrics.set(Gauge::DirtyBytes, usage.dirty_bytes as u64);
        metrics.set(Gauge::JournalUsedBytes, usage.journal_used_bytes);
        metrics.set(Gauge::OpenFiles, usage.open_files as u64);
        metrics.snapshot()
    }

    /// What all cores counted, each asked in turn. A core that is gone counts no more.
    pub(super) async fn metrics(self: &Rc<Self>) -> Snapshot {
        let mut all = self.metrics_here();
        for core in (0..self.mesh.cores()).filter(|core| *core != self.index()) {
            if let Some(Answer::Metrics(other)) = self.call(core, Call::Metrics).await.1.await {
                all.merge(&other);
            }
        }
        all
    }

    /// Tells what the broker counted since the last time, if anybody listens. `told` is what had been counted then; it is
    /// not kept while nobody listens, so that the first line is everything since the start.
    pub(super) async fn tell_metrics(self: &Rc<Self>, told: &mut Option<Snapshot>) {
        if !enabled!(target: TARGET, Level::DEBUG) {
            *told = None;
            return;
        }
        let all = self.metrics().await;
        let news = all.since(&told.take().unwrap_or_default());
        debug!(target: TARGET, "{news}");
        *told = Some(all);
    }
}
