//! Directories in the data directory that belong to no live partition: removed if their topic was deleted, set aside under
//! Kafka's name for strays if nobody knows.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use crate::{
    base::{PartitionKey, Set, TopicId},
    io::Io,
    log::{
        image::LogImage,
        names::{is_partition_directory, is_stray_directory},
        partition_directory,
        segment::{deleted_directory_name, directory_name, stray_directory_name},
        settings::{LivePartitions, RecoverError},
    },
};

/// Strays that a start names one by one.
const LISTED_MAX: usize = 100;

/// Directories of partitions that are gone keep no name that a new topic may want. Before anything is written.
pub async fn rename_dropped(
    io: &Io,
    directory: &Path,
    dropped: &[LogImage],
    deleted: &Set<TopicId>,
) -> Result<(), RecoverError> {
    for image in dropped.iter().filter(|image| image.has_directory) {
        let PartitionKey { topic_id, partition } = image.key;
        let name = directory_name(&image.name, partition);
        if !partition_directory::belongs_to(io, &directory.join(&name), topic_id).await {
            // Renamed before the crash already, or a newer topic's.
            continue;
        }
        rename(io, directory, &name, Some(topic_id), deleted).await?;
    }
    Ok(())
}

/// Looks through the data directory for directories of partitions that are not live. After the new life has begun: what is
/// set aside too early would be missed if the start were repeated. Returns how many strays there are now. One that cannot
/// be renamed stays where it is, for a disk without a free byte must not keep a broker from starting.
pub async fn set_aside(
    io: &Io,
    directory: &Path,
    live: &LivePartitions,
    deleted: &Set<TopicId>,
) -> Result<usize, RecoverError> {
    let live: BTreeSet<String> = live.iter().map(|(key, (name, _))| directory_name(name, key.partition)).collect();
    let entries = io.disk.read_dir(directory).await.map_err(|error| RecoverError::at(directory, &error))?;
    let mut strays = Vec::new();
    for entry in entries.into_iter().filter(|entry| entry.is_dir) {
        if is_stray_directory(&entry.name) {
            strays.push(directory.join(entry.name));
        } else if is_partition_directory(&entry.name) && !live.contains(&entry.name) {
            let topic_id = partition_directory::topic_of(io, &directory.join(&entry.name)).await;
            match rename(io, directory, &entry.name, topic_id, deleted).await {
                Ok(Some(path)) => strays.push(path),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "the directory of a partition that is not there could not be renamed")
                }
            }
        }
    }
    for path in strays.iter().take(LISTED_MAX) {
        tracing::warn!(
            path = %path.display(),
            "set aside: the metadata does not know this partition; look into it, then remove it"
        );
    }
    Ok(strays.len())
}

/// Renames a partition's directory as deleted, or sets it aside and returns where it is then.
async fn rename(
    io: &Io,
    directory: &Path,
    name: &str,
    topic_id: Option<TopicId>,
    deleted: &Set<TopicId>,
) -> Result<Option<PathBuf>, RecoverError> {
    let Some((topic, partition)) = name.rsplit_once('-').and_then(|(topic, it)| Some((topic, it.parse().ok()?))) else {
        return Ok(None);
    };
    let new_name = match topic_id {
        Some(id) if deleted.contains(&id) => deleted_directory_name(topic, partition, id.0.as_u128()),
        Some(id) => stray_directory_name(topic, partition, id.0.as_u128()),
        None => stray_directory_name(topic, partition, io.rand.uuid().as_u128()),
    };
    let (from, mut to) = (directory.join(name), directory.join(&new_name));
    if is_stray_directory(&new_name) && io.disk.exists(&to).await {
        // One of the same partition was set aside before, and may not be written over.
        to = directory.join(stray_directory_name(topic, partition, io.rand.uuid().as_u128()));
    }
    io.disk.rename(&from, &to).await.map_err(|error| RecoverError::at(&from, &error))?;
    Ok(is_stray_directory(&new_name).then_some(to))
}
