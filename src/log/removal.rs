//! Removing: segments below the log start, whole partitions, and what an earlier life left half removed.

use std::{
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use crate::{
    base::{Offset, PartitionKey},
    io::Io,
    log::{
        core::Core,
        core_log::CoreLog,
        names::rescue_name,
        partition_directory,
        partition_log::Log,
        segment::{Segment, deleted_directory_name, file_name},
        settings::LogError,
    },
};

/// The files of a segment.
const SUFFIXES: [&str; 3] = ["log", "index", "timeindex"];

/// How long a deleted partition's directory stays, as in Kafka's default.
const DIRECTORY_DELAY: Duration = Duration::from_secs(60);

/// Drops the segments that lie wholly below the log start. The active one stays unless all of it is below, and then
/// gives way to an empty one.
pub fn drop_segments(core: &Rc<Core>, log: &Rc<Log>) {
    let dropped = forget_segments(core, log);
    if !dropped.iter().any(|segment| segment.written > 0) {
        return;
    }
    let (core, log, busy) = (core.clone(), log.clone(), log.busy());
    core.clone().io.spawner.spawn(async move {
        // What keeps its name lies below the log start, where every start looks for it.
        let _ = remove_segments(&core, &log, dropped).await;
        drop(busy);
    });
}

/// Takes the names from the files of segments that have left the log, and removes them when readers have gone. Gives whether
/// no file has its name any more.
pub async fn remove_segments(core: &Rc<Core>, log: &Log, segments: Vec<Segment>) -> bool {
    let with_files: Vec<Segment> = segments.into_iter().filter(|segment| segment.written > 0).collect();
    if with_files.is_empty() {
        return true;
    }
    let delay = Duration::from_millis(log.state().config().file_delete_delay_ms.max(0) as u64);
    let (renamed, all) = rename_segments(&core.io, &log.directory(), &with_files).await;
    let io = core.io.clone();
    core.io.spawner.spawn(async move {
        io.clock.sleep(delay).await;
        remove_files(&io, renamed).await;
    });
    all
}

/// As [`drop_segments`], but leaves the files to be swept later.
pub fn forget_segments(core: &Rc<Core>, log: &Rc<Log>) -> Vec<Segment> {
    let (dropped, changes) = log.state_mut().forget_segments();
    core.settle(log.slot(), changes);
    for segment in &dropped {
        core.files.forget(log.key(), Some(segment.id()));
        core.cold.forget(log.key(), Some(segment.id()));
    }
    dropped
}

/// Renames first, so that nobody takes the files for a part of the log. Returns what is to be removed when readers have
/// gone, and whether that is all.
async fn rename_segments(io: &Io, directory: &Path, segments: &[Segment]) -> (Vec<PathBuf>, bool) {
    let (mut renamed, mut all) = (Vec::new(), true);
    for segment in segments {
        for suffix in SUFFIXES {
            let path = directory.join(file_name(segment.base, suffix));
            let deleted = directory.join(format!("{}.deleted", file_name(segment.base, suffix)));
            match io.disk.rename(&path, &deleted).await {
                Ok(()) => renamed.push(deleted),
                // An index that was never written is not there to be renamed.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    all = false;
                    tracing::warn!(path = %path.display(), %error, "a deleted segment keeps its name");
                }
            }
        }
    }
    (renamed, all)
}

/// The base offset of the segment of which a file of this name is. None of another spelling is.
fn base_of(name: &str) -> Option<Offset> {
    let (base, suffix) = name.split_once('.')?;
    let base = Offset(base.parse().ok()?);
    (base >= Offset::ZERO && SUFFIXES.contains(&suffix) && name == file_name(base, suffix)).then_some(base)
}

async fn remove_files(io: &Io, paths: Vec<PathBuf>) {
    for path in paths {
        match io.disk.remove_file(&path).await {
            Ok(()) => {}
            // Removed with the whole topic meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %path.display(), %error, "a deleted segment could not be removed"),
        }
    }
}

impl CoreLog {
    /// Deletes a partition: forgets what is dirty, renames its directory, and removes it later. The metadata log must say
    /// durably that the topic is gone: recovery believes nothing else.
    pub async fn delete(&self, key: PartitionKey) {
        let Some(log) = self.logs.remove(key) else { return };
        let core = &self.core;
        log.kill(LogError::Deleted);
        log.forget_memory();
        core.files.forget(key, None);
        core.cold.forget(key, None);
        // A write under way would land in the directory of the next topic of this name.
        log.at_rest().await;
        remove_rescue(core, key).await;
        let path = log.directory();
        if !log.state().has_directory() && !partition_directory::belongs_to(&core.io, &path, key.topic_id).await {
            return;
        }
        let name = deleted_directory_name(log.name(), key.partition, key.topic_id.0.as_u128());
        let deleted = core.directory.join(name);
        if let Err(error) = core.io.disk.rename(&path, &deleted).await {
            tracing::warn!(path = %path.display(), %error, "a deleted partition's directory could not be renamed");
            return;
        }
        let io = core.io.clone();
        core.io.spawner.spawn(async move {
            io.clock.sleep(DIRECTORY_DELAY).await;
            remove_directories(&io, vec![deleted]).await;
        });
    }
}

/// A deleted partition needs no rescue file any more. Nearly none has one.
async fn remove_rescue(core: &Core, key: PartitionKey) {
    let path = core.directory.join(rescue_name(key));
    match core.io.disk.remove_file(&path).await {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(path = %path.display(), %error, "a rescue file could not be removed"),
    }
}

/// Removes directories one after the other.
pub async fn remove_directories(io: &Io, paths: Vec<PathBuf>) {
    for path in paths {
        if let Err(error) = io.disk.remove_dir_all(&path).await {
            tracing::warn!(path = %path.display(), %error, "a deleted partition's directory could not be removed");
        }
    }
}

/// Removes the files of segments that were cut off, if a crash has left them. Nobody may
/// append meanwhile: a new segment may have such a name.
pub async fn remove_cut_off(core: &Core, log: &Rc<Log>) {
    let directory = log.directory();
    if log.state().dead().is_some() || !core.io.disk.exists(&directory).await {
        return;
    }
    match cut_off_removed(core, log, &directory).await {
        Ok(()) => log.state_mut().names_are_left(false),
        Err(error) => {
            log.state_mut().names_are_left(true);
            tracing::warn!(directory = %directory.display(), %error, "segments that were cut off could not be removed");
        }
    }
}

async fn cut_off_removed(core: &Core, log: &Log, directory: &Path) -> std::io::Result<()> {
    // Another topic's of this name is not ours to look into.
    if !partition_directory::belongs_to(&core.io, directory, log.key().topic_id).await {
        return Ok(());
    }
    for entry in core.io.disk.read_dir(directory).await? {
        let Some(base) = base_of(&entry.name) else { continue };
        // Those below the log start are looked for after every start.
        let is_cut_off = {
            let state = log.state();
            let segments = state.segments();
            base >= segments[0].base && !segments.iter().any(|it| it.base == base && it.size > 0)
        };
        if is_cut_off && !entry.is_dir {
            core.io.disk.remove_file(&directory.join(&entry.name)).await?;
        }
    }
    Ok(())
}

/// Removes `.deleted` files and segments below the log start that an earlier life left in a partition's directory, and says
/// which segments have no file any more or one that is too short: what a read would find, and nobody may read for long.
pub async fn sweep(core: &Core, log: &Rc<Log>) -> std::io::Result<()> {
    if log.state().dead().is_some() {
        return Ok(());
    }
    // Otherwise the topic might be deleted and made again while we look, and we would remove the new one's records.
    let _busy = log.busy();
    let directory = log.directory();
    let first = log.state().segments()[0].base;
    let written = |log: &Log| -> Vec<(Offset, u32)> {
        log.state().segments().iter().map(|segment| (segment.base, segment.written)).collect()
    };
    let before = written(log);
    let entries = core.io.disk.read_dir(&directory).await?;
    // What retention has taken meanwhile is not missing.
    let after = written(log);
    for (base, bytes) in
        before.into_iter().filter(|(base, bytes)| *bytes > 0 && after.iter().any(|(left, _)| left == base))
    {
        let name = file_name(base, "log");
        let length = entries.iter().find(|entry| entry.name == name).map(|entry| entry.len);
        if length.is_none_or(|length| length < u64::from(bytes)) {
            tracing::error!(
                segment = %directory.join(&name).display(),
                written = bytes,
                length,
                "a segment's file is missing or too short: its partition goes offline where it is read; restore it from a copy"
            );
        }
    }
    for entry in entries {
        let below = base_of(&entry.name).is_some_and(|base| base < first);
        if entry.name.ends_with(".deleted") || below {
            core.io.disk.remove_file(&directory.join(&entry.name)).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_like_a_segment_is_one() {
        let cases = [
            ("00000000000000000170.log", Some(170)),
            ("00000000000000000170.timeindex", Some(170)),
            ("170.log", None),
            ("+0000000000000000170.log", None),
            ("-0000000000000000170.log", None),
            ("00000000000000000170.log.deleted", None),
            ("00000000000000000170.snapshot", None),
            ("leader-epoch-checkpoint", None),
        ];
        for (name, base) in cases {
            assert_eq!(base_of(name), base.map(Offset), "{name}");
        }
    }
}
