//! From whatever a crash has left to a directory that can be served.
//!
//! Checkpoints say what the segments hold; the journals hold the rest. Everything in them is written to where it was
//! meant to be, the file system is synced, and a new life begins with checkpoints of its own: nothing of the old journals
//! counts from the moment at which the manifest names the new incarnation. A crash in between repeats all of it.

mod cuts;
mod ends;
pub(super) mod journals;
mod replay;
pub(super) mod rescues;
mod set_aside;
pub(super) mod state_files;
mod unreadable;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use self::{
    journals::Journals,
    replay::Replay,
    rescues::Rescues,
    set_aside::{rename_dropped, set_aside},
    state_files::{read_checkpoints, read_manifest, refuse_directories},
};
use crate::{
    base::{METADATA_KEY, METADATA_TOPIC, Map, PartitionKey, Set, TopicId},
    io::{DirEntry, Instant, Io},
    log::{
        ballast,
        checkpoint::{CheckpointHead, Manifest, write::write_checkpoint},
        clean_stop::refuse_touched,
        core::{LogSeed, PartitionSeed},
        directory,
        image::LogImage,
        journal::block::Incarnation,
        names::{
            MANIFEST, checkpoint_name, is_checkpoint_of_another_life, is_deleted_directory, is_temporary,
            parse_rescue_name,
        },
        removal::remove_directories,
        settings::{KnownPartitions, LivePartitions, LogConfig, LogSettings, MetadataLog, RecoverError},
        sync_gate::SyncGate,
    },
};

/// Of the checkpoint that a life begins with.
const FIRST_GENERATION: u64 = 1;

/// What recovery found and made.
#[derive(Debug)]
pub struct Recovered {
    /// One for each core, in order; each goes to its core's executor.
    pub cores: Vec<LogSeed>,
    /// What there was to do.
    pub report: RecoveryReport,
}

/// What there was to do; for a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Nothing was there before.
    pub fresh: bool,
    /// The last stop was orderly.
    pub clean: bool,
    /// Live partitions.
    pub partitions: usize,
    /// Journal blocks replayed.
    pub blocks: usize,
    /// Batches that the segments did not have.
    pub batches: usize,
    /// Partitions of deleted topics that were dropped.
    pub dropped: usize,
    /// Directories of partitions that the metadata does not know, set aside now or earlier.
    pub strays: usize,
}

/// Recovers a data directory for `cores` cores, whatever number wrote it. `known` is given the metadata log and says which
/// partitions exist and which were deleted, or why that cannot be known; it is called exactly once, before any other
/// partition is looked at. Runs on one executor, before anything is served.
/// # Errors  See [`RecoverError`]; nothing is lost by trying again.
pub async fn recover(
    io: &Io,
    directory: &Path,
    settings: &LogSettings,
    cores: usize,
    known: impl FnOnce(MetadataLog) -> Result<KnownPartitions, String>,
) -> Result<Recovered, RecoverError> {
    assert!(cores > 0, "there is at least one core");
    let at = |error: std::io::Error| RecoverError::at(directory, &error);
    io.disk.create_dir_all(directory).await.map_err(at)?;
    let gate = Arc::new(SyncGate::open(io, directory).await.map_err(at)?);
    let mut phase = Phase::begin(io);
    let entries = io.disk.read_dir(directory).await.map_err(at)?;
    refuse_directories(directory, &entries)?;
    let manifest = read_manifest(io, directory, &entries).await?;
    if let Some(manifest) = &manifest {
        refuse_touched(io, directory, manifest).await?;
    }
    // What will be the cache of the first core is empty until it serves.
    let keep_max = settings.cache_max_bytes / 2;
    let mut journals = Journals::open(io, directory, &entries, keep_max).await?;
    let checkpoints = match &manifest {
        Some(manifest) => read_checkpoints(io, directory, manifest, &entries).await?,
        None => Vec::new(),
    };
    if let Some(manifest) = &manifest {
        // A start that failed, perhaps on a full disk, has left what no manifest names.
        remove_leftovers(io, directory, &manifest.incarnation, &entries).await?;
    }
    ballast::make_room(io, directory, settings.ballast_bytes).await;
    directory::mark(io, directory, true).await.map_err(at)?;
    if let Some(manifest) = manifest.as_ref().filter(|manifest| !manifest.clean) {
        journals.scan(io, &manifest.incarnation, &checkpoints).await?;
    }
    phase.done("journals read");
    let images: Map<PartitionKey, LogImage> =
        checkpoints.into_iter().flat_map(|checkpoint| checkpoint.images).map(|image| (image.key, image)).collect();
    let incarnation: Incarnation = *io.rand.uuid().as_bytes();
    let rescues = Rescues::open(io, directory, &images, &mut journals).await;
    ends::recount(&mut journals, &rescues).await?;
    let mut replay = Replay::new(io, directory, settings, incarnation, images, gate.clone());
    let metadata = replay.metadata(&journals).await?;
    let KnownPartitions { mut live, deleted } = known(metadata).map_err(RecoverError::Metadata)?;
    live.insert(METADATA_KEY, (METADATA_TOPIC.to_owned(), LogConfig::default()));
    phase.done("metadata replayed");
    let (dropped, unknown) = replay.drop_dead(&live, &deleted, &journals);
    // What the metadata does not mention is brought to where it belongs like everything else, and set aside as a whole.
    let known = live.clone();
    let live: LivePartitions = live.into_iter().chain(unknown).collect();
    replay.all(&journals, &rescues, &live).await?;
    let mut report = RecoveryReport {
        fresh: manifest.is_none(),
        clean: manifest.is_some_and(|manifest| manifest.clean),
        partitions: known.len(),
        blocks: journals.block_count(),
        batches: replay.batches(),
        dropped: dropped.len(),
        strays: 0,
    };
    phase.done("journals replayed");
    rename_dropped(io, directory, &dropped, &deleted).await?;
    let mut found = replay.finish(&journals, &rescues, &live).await?;
    found.retain(|partition| known.contains_key(&partition.image.key));
    phase.done("segments written");
    let cores = begin_life(io, directory, settings, (cores, gate), incarnation, found, &journals).await?;
    phase.done("new life begun");
    report.strays = set_aside(io, directory, &known, &deleted).await?;
    clean_up(io, directory, &incarnation, cores.len(), &journals, &entries).await?;
    remove_rescues(io, directory, &cores, &deleted, &entries).await;
    phase.done("cleaned up");
    Ok(Recovered { cores, report })
}

/// Says how long each phase took.
struct Phase<'a> {
    io: &'a Io,
    since: Instant,
}

impl<'a> Phase<'a> {
    fn begin(io: &'a Io) -> Self {
        Self { io, since: io.clock.now() }
    }

    fn done(&mut self, name: &str) {
        let now = self.io.clock.now();
        tracing::debug!(ms = (now.0 - self.since.0) / 1_000_000, "recovery: {name}");
        self.since = now;
    }
}

/// Checkpoints for the new cores, then the manifest: from then on the new life counts.
async fn begin_life(
    io: &Io,
    directory: &Path,
    settings: &LogSettings,
    (cores, gate): (usize, Arc<SyncGate>),
    incarnation: Incarnation,
    found: Vec<PartitionSeed>,
    journals: &Journals,
) -> Result<Vec<LogSeed>, RecoverError> {
    let at = |error: std::io::Error| RecoverError::at(directory, &error);
    let mut seeds: Vec<LogSeed> = (0..cores)
        .map(|core| LogSeed {
            directory: directory.to_owned(),
            settings: settings.clone(),
            core,
            cores,
            incarnation,
            generation: FIRST_GENERATION,
            journals: Vec::new(),
            partitions: Vec::new(),
            gate: gate.clone(),
        })
        .collect();
    for partition in found {
        seeds[partition.image.key.core(cores)].partitions.push(partition);
    }
    for file in journals.files.iter().filter(|file| file.core < cores && !file.old) {
        seeds[file.core].journals.push((file.number, file.size));
    }
    gate.sync(io).await.map_err(at)?;
    ballast::make_room(io, directory, settings.ballast_bytes).await;
    for seed in &seeds {
        let kept = seed.partitions.iter().filter(|partition| partition.image.is_kept());
        let images: Vec<Vec<u8>> = kept
            .map(|partition| {
                let mut encoded = Vec::new();
                partition.image.encode(&mut encoded);
                encoded
            })
            .collect();
        let head = CheckpointHead {
            incarnation: &incarnation,
            core: seed.core,
            generation: FIRST_GENERATION,
            first_sequence: 0,
        };
        let path = directory.join(checkpoint_name(&incarnation, seed.core, FIRST_GENERATION));
        write_checkpoint(io, &path, &head, &images).await.map_err(|error| RecoverError::at(&path, &error))?;
    }
    io.disk.sync_dir(directory).await.map_err(at)?;
    let manifest = Manifest { incarnation, cores, clean: false, generations: vec![FIRST_GENERATION; cores] };
    let path = directory.join(MANIFEST);
    io.disk.replace_file(&path, &manifest.encode()).await.map_err(|error| RecoverError::at(&path, &error))?;
    Ok(seeds)
}

/// Removes what the old life has left, and puts the ballast in its place.
async fn clean_up(
    io: &Io,
    directory: &Path,
    incarnation: &Incarnation,
    cores: usize,
    journals: &Journals,
    entries: &[DirEntry],
) -> Result<(), RecoverError> {
    for path in journals.superseded(cores) {
        io.disk.remove_file(path).await.map_err(|error| RecoverError::at(path, &error))?;
    }
    remove_leftovers(io, directory, incarnation, entries).await?;
    let deleted: Vec<PathBuf> = io
        .disk
        .read_dir(directory)
        .await
        .map_err(|error| RecoverError::at(directory, &error))?
        .into_iter()
        .filter(|entry| entry.is_dir && is_deleted_directory(&entry.name))
        .map(|entry| directory.join(entry.name))
        .collect();
    if !deleted.is_empty() {
        let io = io.clone();
        io.clone().spawner.spawn(async move { remove_directories(&io, deleted).await });
    }
    Ok(())
}

/// Removes the checkpoints of other lives than this one, and files that were about to replace others.
async fn remove_leftovers(
    io: &Io,
    directory: &Path,
    incarnation: &Incarnation,
    entries: &[DirEntry],
) -> Result<(), RecoverError> {
    for entry in entries.iter().filter(|entry| !entry.is_dir) {
        if is_checkpoint_of_another_life(&entry.name, incarnation) || is_temporary(&entry.name) {
            let path = directory.join(&entry.name);
            match io.disk.remove_file(&path).await {
                Ok(()) => {}
                // The new manifest was written under the name of the one that a crash had left unfinished.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(RecoverError::at(&path, &error)),
            }
        }
    }
    Ok(())
}

/// Removes the rescue files of partitions that are whole again, and those of deleted topics. One of a topic that nobody has
/// deleted and nobody knows stays.
async fn remove_rescues(io: &Io, directory: &Path, cores: &[LogSeed], deleted: &Set<TopicId>, entries: &[DirEntry]) {
    let files = entries.iter().filter(|entry| !entry.is_dir);
    for (entry, key) in files.filter_map(|entry| Some((entry, parse_rescue_name(&entry.name)?))) {
        let path = directory.join(&entry.name);
        let seed = cores[key.core(cores.len())].partitions.iter().find(|partition| partition.image.key == key);
        let needed = match seed {
            Some(seed) => seed.image.rescue.is_some(),
            None => !deleted.contains(&key.topic_id),
        };
        if needed && seed.is_none() {
            tracing::warn!(path = %path.display(), "a rescue file of no partition is left where it is");
        }
        // One that stays counts for nothing: no image names it.
        if !needed && let Err(error) = io.disk.remove_file(&path).await {
            tracing::warn!(path = %path.display(), %error, "a rescue file that nobody needs could not be removed");
        }
    }
}
