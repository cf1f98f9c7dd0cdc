//! An orderly stop: everything in its segment, and the directory as Kafka's own tools expect it.

use std::{io, path::Path, rc::Rc, time::Duration};

use crate::{
    base::Offset,
    io::Io,
    log::{
        checkpoint::{MANIFEST, Manifest},
        core::{Core, CoreLog},
        destage::{self, RoundError},
        directory::{self, CLEAN_SHUTDOWN},
        journal::block::Incarnation,
        partition_log::Log,
        segment::file_name,
        settings::{LogError, RecoverError},
    },
    partition::PartitionState,
};

/// How often a full disk is tried again before the stop gives up. The journal keeps everything in any case.
const TRIES_MAX: usize = 3;
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// What one core tells the last step of the stop. Travels between cores.
#[derive(Debug)]
pub struct StopReport {
    incarnation: Incarnation,
    partitions: Vec<Stopped>,
}

#[derive(Debug)]
struct Stopped {
    topic: String,
    partition: i32,
    log_start: Offset,
    log_end: Offset,
    high_watermark: Offset,
}

impl CoreLog {
    /// Stops: refuses new appends, waits for the journal, writes everything into segments, exports Kafka's side files.
    /// If it fails, or is cut short, the next start recovers from the journal.
    /// # Errors
    /// `Full` or `Io`: not everything could be written.
    pub async fn stop(&self) -> Result<StopReport, LogError> {
        let core = &self.core;
        core.stopping.set(true);
        core.memory.freed.notify_all();
        core.journal.drain().await;
        core.journal.stop();
        core.work.notify_all();
        core.rounds_changed.notify_all();
        core.ended().await;
        self.last_rounds().await?;
        let logs: Vec<Rc<Log>> = core.logs.borrow().values().cloned().collect();
        let mut pace = destage::Pace::new(core);
        for log in &logs {
            export(core, log).await.map_err(|error| destage::log_error(log, log.log_end_offset(), &error))?;
            pace.breathe(core).await;
        }
        core.files.forget_all();
        let failed =
            |error: io::Error| LogError::Io { path: core.directory.display().to_string(), message: error.to_string() };
        core.gate.sync(&core.io, &core.directory).await.map_err(failed)?;
        core.journal.ring.close().await.map_err(failed)?;
        let partitions = logs.iter().filter(|log| log.state().dead.is_none()).map(|log| Stopped {
            topic: log.name().to_owned(),
            partition: log.key().partition,
            log_start: log.log_start_offset(),
            log_end: log.log_end_offset(),
            high_watermark: log.high_watermark(),
        });
        Ok(StopReport { incarnation: core.incarnation, partitions: partitions.collect() })
    }

    async fn last_rounds(&self) -> Result<(), LogError> {
        let core = &self.core;
        let mut tries = 0;
        while !core.dirty.borrow().is_empty() {
            match destage::round(core).await {
                Ok(()) => {}
                Err(RoundError::Disk(error)) => {
                    return Err(LogError::Io {
                        path: core.directory.display().to_string(),
                        message: error.to_string(),
                    });
                }
                Err(RoundError::Full) if tries >= TRIES_MAX => return Err(LogError::Full),
                Err(RoundError::Full) => {
                    tries += 1;
                    core.io.clock.sleep(RETRY_DELAY).await;
                }
            }
        }
        Ok(())
    }
}

/// Cuts the active segment to its size and writes what Kafka keeps beside it.
async fn export(core: &Rc<Core>, log: &Rc<Log>) -> io::Result<()> {
    let (base, size, index) = {
        let state = log.state();
        if !state.has_directory || state.dead.is_some() {
            return Ok(());
        }
        let active = state.active();
        (active.base, active.size, active.index.clone())
    };
    let disk = &core.io.disk;
    let file = core.files.open(log.key(), base, &log.file(&file_name(base, "log")), true).await?;
    if file.len().await? != u64::from(size) {
        file.truncate(u64::from(size)).await?;
    }
    if !log.state().exports_stale {
        return Ok(());
    }
    if let Some(mut index) = index {
        let largest = log.state().active().largest;
        index.finish((largest.0, largest.1.since(base).max(0) as u32));
        directory::write_indexes(core, log, base, &index).await?;
    }
    let source = core.state_source.borrow().clone();
    if let Some(state) = source.and_then(|source| source(log.key())) {
        export_state(core, log, &state).await?;
    }
    if let Some(segment) = log.state_mut().segment_mut(base) {
        segment.allocated = u64::from(size);
    }
    disk.sync_dir(&log.directory()).await
}

async fn export_state(core: &Core, log: &Log, state: &PartitionState) -> io::Result<()> {
    let disk = &core.io.disk;
    let snapshot = log.file(&file_name(state.log_end_offset, "snapshot"));
    disk.write_file(&snapshot, &state.producers.export(), false).await?;
    disk.write_file(&log.file("leader-epoch-checkpoint"), state.epochs.export().as_bytes(), false).await
}

/// What a checkpoint file says about a partition.
type Value = fn(&Stopped) -> Offset;

/// The last step, on one core, after every core has stopped: Kafka's checkpoint files, and the mark of a clean stop.
/// # Errors
/// A file cannot be written; the next start recovers as after a crash.
pub async fn finish_clean_stop(io: &Io, directory: &Path, reports: &[StopReport]) -> Result<(), RecoverError> {
    let Some(first) = reports.first() else { return Ok(()) };
    let failed =
        |error: io::Error| RecoverError::Io { path: directory.display().to_string(), message: error.to_string() };
    let files: [(&str, Value); 3] = [
        ("recovery-point-offset-checkpoint", |it| it.log_end),
        ("log-start-offset-checkpoint", |it| it.log_start),
        ("replication-offset-checkpoint", |it| it.high_watermark),
    ];
    for (name, value) in files {
        let text = offset_checkpoint(reports, value);
        io.disk.replace_file(&directory.join(name), text.as_bytes()).await.map_err(failed)?;
    }
    let manifest = Manifest { incarnation: first.incarnation, cores: reports.len(), clean: true };
    let clean = clean_shutdown_text(&first.incarnation);
    io.disk.replace_file(&directory.join(CLEAN_SHUTDOWN), clean.as_bytes()).await.map_err(failed)?;
    io.disk.replace_file(&directory.join(MANIFEST), &manifest.encode()).await.map_err(failed)?;
    directory::mark(io, directory, false).await.map_err(failed)
}

/// `0`, the number of lines, and a line for each partition. Kafka lists only logs that have started above zero in the
/// file of log starts; more do no harm.
fn offset_checkpoint(reports: &[StopReport], value: Value) -> String {
    let metadata = |it: &&Stopped| it.topic != "__cluster_metadata";
    let partitions: Vec<&Stopped> = reports.iter().flat_map(|report| &report.partitions).filter(metadata).collect();
    let mut text = format!("0\n{}\n", partitions.len());
    for it in partitions {
        text.push_str(&format!("{} {} {}\n", it.topic, it.partition, value(it)));
    }
    text
}

/// Kafka's mark of a clean stop, with a broker epoch that only we would write: Kafka removes the file when it starts
/// and writes its own when it stops.
fn clean_shutdown_text(incarnation: &Incarnation) -> String {
    let epoch = u64::from_be_bytes(incarnation[..8].try_into().expect("eight bytes")) >> 1;
    format!("{{\"version\":0,\"brokerEpoch\":{epoch}}}")
}

/// Whether Kafka has opened the directory since our clean stop.
pub async fn touched_by_kafka(io: &Io, directory: &Path) -> io::Result<bool> {
    let path = directory.join(MANIFEST);
    if !io.disk.exists(&path).await {
        return Ok(false);
    }
    let Ok(manifest) = Manifest::decode(&io.disk.read_file(&path).await?) else { return Ok(false) };
    if !manifest.clean {
        return Ok(false);
    }
    let mark = io.disk.read_file(&directory.join(CLEAN_SHUTDOWN)).await.unwrap_or_default();
    Ok(mark != clean_shutdown_text(&manifest.incarnation).as_bytes())
}
