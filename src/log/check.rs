//! Verifies a directory at rest, every sum in it, and says what a start would do. Nothing is changed.
//!
//! What a start reads is read by the same functions; what it trusts (segments, index files, what a clean stop leaves for
//! Kafka's tools) is held against what the checkpoints say.

mod exports;
mod report;
mod segment;

use std::path::{Path, PathBuf};

pub use self::report::{CheckReport, Finding, Start};
use self::segment::Expected;
use crate::{
    base::{METADATA_KEY, METADATA_TOPIC, Map, Offset, PartitionKey},
    io::{DirEntry, Io, Slice},
    log::{
        checkpoint::Manifest,
        clean_stop::refuse_touched,
        image::LogImage,
        journal::{block, entry::Entry},
        names::{is_partition_directory, is_stray_directory, is_temporary},
        partition_directory,
        recovery::{
            journals::Journals,
            rescues::Rescues,
            state_files::{read_checkpoints, read_manifest, refuse_directories},
        },
        segment::{directory_name, file_name},
        settings::{KnownPartitions, MetadataLog, RecoverError},
    },
    partition::PartitionState,
    protocol::batch::batches,
};

/// What of the journal is kept in memory between two looks at it.
const JOURNAL_KEPT_BYTES: usize = 64 << 20;

/// Verifies the directory. `known` is as in [`recover`](crate::log::recover); what it finds wrong is a refusal.
/// # Errors  The directory itself cannot be read.
pub async fn check(
    io: &Io,
    directory: &Path,
    known: impl FnOnce(MetadataLog) -> Result<KnownPartitions, String>,
) -> Result<CheckReport, RecoverError> {
    let entries = io.disk.read_dir(directory).await.map_err(|error| RecoverError::at(directory, &error))?;
    let mut report = CheckReport::default();
    match Found::read(io, directory, &entries).await {
        Ok(None) => report.notes.push("nothing was ever served from here: a start begins a new cluster".into()),
        Ok(Some(found)) => {
            report.blocks = found.journals.block_count();
            match found.metadata_log(&mut report).await?.map(known) {
                Some(Ok(known)) => found.check_all(&known, &entries, &mut report).await,
                Some(Err(why)) => report.refused(why),
                None => {}
            }
        }
        Err(why) => report.refused(why),
    }
    for entry in entries.iter().filter(|entry| !entry.is_dir && is_temporary(&entry.name)) {
        report
            .notes
            .push(format!("{} is what a crash has left; a start removes it", directory.join(&entry.name).display()));
    }
    Ok(report)
}

/// What an earlier life says of itself.
struct Found<'a> {
    io: &'a Io,
    directory: &'a Path,
    manifest: Manifest,
    images: Map<PartitionKey, LogImage>,
    journals: Journals,
    rescues: Rescues,
}

impl<'a> Found<'a> {
    async fn read(io: &'a Io, directory: &'a Path, entries: &[DirEntry]) -> Result<Option<Self>, RecoverError> {
        refuse_directories(directory, entries)?;
        let Some(manifest) = read_manifest(io, directory, entries).await? else { return Ok(None) };
        refuse_touched(io, directory, &manifest).await?;
        let mut journals = Journals::open(io, directory, entries, JOURNAL_KEPT_BYTES).await?;
        let checkpoints = read_checkpoints(io, directory, &manifest, entries).await?;
        if !manifest.clean {
            journals.scan(io, &manifest.incarnation, &checkpoints).await?;
        }
        let images = checkpoints.into_iter().flat_map(|checkpoint| checkpoint.images);
        let images = images.map(|image| (image.key, image)).collect();
        let rescues = Rescues::open(io, directory, &images, &mut journals).await;
        Ok(Some(Self { io, directory, manifest, images, journals, rescues }))
    }

    fn path(&self, topic: &str, partition: i32) -> PathBuf {
        self.directory.join(directory_name(topic, partition))
    }

    fn log_start(&self, image: &LogImage) -> Offset {
        image.log_start.max(self.journals.starts.get(&image.key).copied().unwrap_or_default())
    }

    /// The metadata log as a start would see it; none if a start would be refused because of it.
    async fn metadata_log(&self, report: &mut CheckReport) -> Result<Option<MetadataLog>, RecoverError> {
        let mut log = MetadataLog::default();
        if let Some(image) = self.images.get(&METADATA_KEY) {
            (log.start, log.end) = (self.log_start(image), image.log_end);
            let before = report.findings.len();
            for (bytes, last) in self.segments(image, METADATA_TOPIC, &Start::Refused, report).await {
                if last.is_some_and(|last| last >= log.start) {
                    log.batches.push(bytes);
                }
            }
            if report.findings.len() > before {
                return Ok(None);
            }
        }
        for core in 0..self.journals.cores() {
            for index in (0..self.journals.len(core)).filter(|index| self.journals.has_metadata(core, *index)) {
                let block = self.journals.block(core, index).await?;
                for entry in block::entries(&block).map_while(Result::ok).filter(|entry| entry.key() == METADATA_KEY) {
                    if let Entry::Append { head, batch } = entry
                        && head.base_offset >= log.end
                        && let Some(Ok(view)) = batches(batch).next()
                    {
                        log.end = view.header.last_offset().plus(1);
                        log.batches.push(batch.to_vec().into());
                    }
                }
            }
        }
        Ok(Some(log))
    }

    /// Reads a partition's segments through. Those of the metadata are kept, each with its last offset.
    async fn segments(
        &self,
        image: &LogImage,
        topic: &str,
        start: &Start,
        report: &mut CheckReport,
    ) -> Vec<(Slice, Option<Offset>)> {
        let path = self.path(topic, image.key.partition);
        let log_start = self.log_start(image);
        let mut kept = Vec::new();
        for (index, segment) in image.segments.iter().enumerate() {
            let end = image.segments.get(index + 1).map_or(image.log_end, |next| next.base);
            if end <= log_start {
                // Its files may be gone.
                continue;
            }
            let expected = Expected { segment, end, keep: image.key == METADATA_KEY };
            match segment::read(self.io, &path.join(file_name(segment.base, "log")), &expected).await {
                Ok(read) => {
                    report.segments += 1;
                    report.batches += read.batches.len() as u64;
                    if segment.finished {
                        segment::check_index(self.io, &path, segment, &read.batches, report).await;
                    }
                    kept.push((read.bytes, read.batches.last().map(|last| last.last_offset)));
                }
                Err(what) => report.findings.push(Finding { what, start: start.clone() }),
            }
        }
        kept
    }

    async fn check_all(&self, known: &KnownPartitions, entries: &[DirEntry], report: &mut CheckReport) {
        report.partitions = known.live.len();
        for (key, (name, _)) in known.live.iter().filter(|(key, _)| **key != METADATA_KEY) {
            let Some(image) = self.images.get(key) else { continue };
            self.check_partition(image, name, report).await;
        }
        if self.manifest.clean {
            exports::check_offsets(self.io, self.directory, &known.live, &self.images, report).await;
        }
        self.look_for_strays(known, entries, report).await;
    }

    async fn check_partition(&self, image: &LogImage, topic: &str, report: &mut CheckReport) {
        let partition = directory_name(topic, image.key.partition);
        let state = match PartitionState::decode(&image.state) {
            Ok(state) => state,
            Err(error) => return report.refused(RecoverError::State { key: image.key, error }),
        };
        match self.rescues.get(image.key) {
            Some(Ok(rescue)) => report.notes.push(format!(
                "{partition} is offline, and {} has what its segments do not hold; a start tries again",
                rescue.path().display()
            )),
            Some(Err(error)) => {
                report.findings.push(Finding { what: error.to_string(), start: Start::Offline(partition.clone()) });
            }
            None => {}
        }
        if self.journals.was_cut(image.key) {
            report.notes.push(format!("{partition} was cut since its checkpoint; a start reads it up to there"));
        } else {
            self.segments(image, topic, &Start::Offline(partition), report).await;
        }
        let path = self.path(topic, image.key.partition);
        if image.has_directory && !partition_directory::belongs_to(self.io, &path, image.key.topic_id).await {
            let what = format!("{} does not name the topic's id", path.join("partition.metadata").display());
            report.goes_on(what, "nobody reads it while the topic lives");
        }
        if self.manifest.clean {
            exports::check_partition(self.io, &path, &state, report).await;
        }
    }

    async fn look_for_strays(&self, known: &KnownPartitions, entries: &[DirEntry], report: &mut CheckReport) {
        let metadata = directory_name(METADATA_TOPIC, METADATA_KEY.partition);
        let live: std::collections::BTreeSet<String> =
            known.live.iter().map(|(key, (name, _))| directory_name(name, key.partition)).chain([metadata]).collect();
        for entry in entries.iter().filter(|entry| entry.is_dir) {
            let path = self.directory.join(&entry.name);
            if is_stray_directory(&entry.name) {
                report.notes.push(format!("{} was set aside; look into it, then remove it", path.display()));
            } else if is_partition_directory(&entry.name) && !live.contains(&entry.name) {
                let deleted = partition_directory::topic_of(self.io, &path)
                    .await
                    .is_some_and(|topic_id| known.deleted.contains(&topic_id));
                let how = if deleted {
                    "was deleted; a start removes it"
                } else {
                    "is not in the metadata; a start sets it aside"
                };
                report.notes.push(format!("{} {how}", path.display()));
            }
        }
    }
}
