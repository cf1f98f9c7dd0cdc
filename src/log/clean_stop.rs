//! An orderly stop: everything in its segment, and the directory as Kafka's own tools expect it.

use std::{
    cell::{Cell, RefCell},
    io,
    path::Path,
    rc::Rc,
    time::Duration,
};

use crate::{
    base::{METADATA_TOPIC, Offset},
    io::{FileLeft, Io, Left},
    log::{
        bulk,
        checkpoint::{Manifest, RoundError},
        core::Core,
        core_log::CoreLog,
        destage,
        directory::{self, CLEAN_SHUTDOWN},
        journal::block::Incarnation,
        names::MANIFEST,
        partition_directory,
        partition_log::{Busy, Log},
        segment::file_name,
        settings::{LogError, RecoverError},
    },
};

/// How often a full disk is tried again before the stop gives up. The journal keeps everything in any case.
const TRIES_MAX: usize = 3;
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// What one core tells the last step of the stop. Travels between cores.
#[derive(Debug)]
pub struct StopReport {
    core: usize,
    /// Of the core's last checkpoint.
    generation: u64,
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
    /// # Errors  `Full` or `Io`: not everything could be written.
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
        let logs = self.logs.all();
        core.files.forget_all();
        export_all(core, &logs).await?;
        let failed = |error: io::Error| LogError::at(&core.directory, &error);
        core.gate.sync(&core.io).await.map_err(failed)?;
        core.journal.ring.close().await.map_err(failed)?;
        let partitions = logs.iter().filter(|log| log.state().dead().is_none()).map(|log| Stopped {
            topic: log.name().to_owned(),
            partition: log.key().partition,
            log_start: log.log_start_offset(),
            log_end: log.log_end_offset(),
            high_watermark: log.high_watermark(),
        });
        Ok(StopReport {
            core: core.number,
            generation: core.generation.get(),
            incarnation: core.incarnation,
            partitions: partitions.collect(),
        })
    }

    async fn last_rounds(&self) -> Result<(), LogError> {
        let core = &self.core;
        let dirty = self.logs.at(&core.dirty.borrow());
        bulk::write_many(core, dirty.into_iter()).await;
        let mut tries = 0;
        while !core.dirty.borrow().is_empty() || !core.failed.borrow().is_empty() {
            match destage::round(&self.logs).await {
                Ok(()) => {}
                Err(RoundError::Disk(error)) => {
                    return Err(LogError::at(&core.directory, &error));
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

/// Leaves the files of every partition as Kafka's tools expect them. The sync of the file system that follows makes them
/// durable.
async fn export_all(core: &Rc<Core>, logs: &[Rc<Log>]) -> Result<(), LogError> {
    let (logs, failed) = (RefCell::new(logs.iter()), Cell::new(None));
    let next_job = || {
        let (mut exports, mut files, mut bytes) = (Vec::new(), 0, 0);
        while files < bulk::JOB_FILES && bytes < bulk::JOB_BYTES {
            let Some(log) = logs.borrow_mut().next() else { break };
            let export = export(core, log);
            files += export.len();
            bytes += export.iter().map(bytes_of).sum::<usize>();
            // A deletion on its way waits: what comes after it would look for the directory in vain, or find another topic's.
            exports.push((log, log.busy(), export));
        }
        (!exports.is_empty()).then_some(exports)
    };
    let write = async |exports: Vec<(&Rc<Log>, Busy, Vec<FileLeft>)>| {
        let owner: Vec<&Rc<Log>> = exports.iter().flat_map(|(log, _, files)| files.iter().map(move |_| *log)).collect();
        let (_busy, files): (Vec<Busy>, Vec<_>) = exports.into_iter().map(|(_, busy, files)| (busy, files)).unzip();
        let files = files.into_iter().flatten().collect();
        if let Err((place, error)) = core.io.disk.leave_files(files).await {
            failed.set(Some(owner[place].file_error(owner[place].log_end_offset(), &error)));
        }
    };
    bulk::in_jobs(next_job, write).await;
    failed.take().map_or(Ok(()), Err)
}

fn bytes_of(file: &FileLeft) -> usize {
    match &file.left {
        Left::Whole(bytes) => bytes.len(),
        Left::Cut(_) => 0,
    }
}

/// The active segment, cut to its size, and what Kafka keeps beside it.
fn export(core: &Core, log: &Log) -> Vec<FileLeft> {
    let state = log.state();
    if !state.has_directory() || state.dead().is_some() {
        return Vec::new();
    }
    let active = state.active();
    let (base, size) = (active.base, u64::from(active.size));
    let mut files = vec![FileLeft { path: log.file(&file_name(base, "log")), left: Left::Cut(size) }];
    if !state.exports_stale() {
        return files;
    }
    if let Some(mut index) = active.index.clone() {
        let (timestamp, offset) = active.largest;
        index.finish((timestamp, offset.since(base).max(0) as u32));
        files.extend(partition_directory::index_files(log, base, &index));
    }
    drop(state);
    let source = core.state_source.borrow().clone();
    if let Some(state) = source.and_then(|source| source(log.key())) {
        let whole = |name: &str, bytes| FileLeft { path: log.file(name), left: Left::Whole(bytes) };
        files.push(whole(&file_name(state.log_end_offset, "snapshot"), state.producers.export()));
        files.push(whole("leader-epoch-checkpoint", state.epochs.export().into_bytes()));
    }
    files
}

/// What a checkpoint file says about a partition.
type Value = fn(&Stopped) -> Offset;

/// The last step, on one core, after every core has stopped: Kafka's checkpoint files, and the mark of a clean stop.
/// # Errors  A file cannot be written; the next start recovers as after a crash.
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
    let mut generations = vec![0; reports.len()];
    reports.iter().for_each(|report| generations[report.core] = report.generation);
    let manifest = Manifest { incarnation: first.incarnation, cores: reports.len(), clean: true, generations };
    let clean = clean_shutdown_text(&first.incarnation);
    io.disk.replace_file(&directory.join(CLEAN_SHUTDOWN), clean.as_bytes()).await.map_err(failed)?;
    io.disk.replace_file(&directory.join(MANIFEST), &manifest.encode()).await.map_err(failed)?;
    directory::mark(io, directory, false).await.map_err(failed)
}

/// `0`, the number of lines, and a line for each partition. Kafka lists only logs that have started above zero in the
/// file of log starts; more do no harm.
fn offset_checkpoint(reports: &[StopReport], value: Value) -> String {
    let metadata = |it: &&Stopped| it.topic != METADATA_TOPIC;
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

/// Refuses a directory that Kafka has opened since our clean stop: it takes the mark away when it starts.
/// # Errors  `TouchedByKafka`; `Io` if that cannot be known.
pub async fn refuse_touched(io: &Io, directory: &Path, manifest: &Manifest) -> Result<(), RecoverError> {
    if !manifest.clean {
        return Ok(());
    }
    let path = directory.join(CLEAN_SHUTDOWN);
    let found = match io.disk.read_file(&path).await {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            return Err(RecoverError::Io { path: path.display().to_string(), message: error.to_string() });
        }
    };
    let mark = clean_shutdown_text(&manifest.incarnation);
    if found == mark.as_bytes() {
        Ok(())
    } else {
        Err(RecoverError::TouchedByKafka { path: path.display().to_string(), mark })
    }
}
