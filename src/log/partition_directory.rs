//! A partition's directory: whose it is, and who makes it.

use std::{io, path::Path};

use crate::{
    base::{Offset, TopicId},
    io::{DirectoryMark, FileLeft, Io, Left},
    log::{
        core::Core,
        index::SegmentIndex,
        partition_log::Log,
        segment::{file_name, stray_directory_name},
    },
};

/// Kafka's file of the topic's id.
const PARTITION_METADATA: &str = "partition.metadata";

/// The text of `partition.metadata`; Kafka has no newline at its end.
pub fn partition_metadata(topic_id: TopicId) -> String {
    format!("version: 0\ntopic_id: {topic_id}")
}

/// The topic id in `partition.metadata`.
pub fn parse_partition_metadata(text: &str) -> Option<TopicId> {
    text.lines().find_map(|line| line.strip_prefix("topic_id:"))?.trim().parse().ok()
}

/// Whether the directory is there and belongs to the topic of this id.
pub async fn belongs_to(io: &Io, path: &Path, topic_id: TopicId) -> bool {
    topic_of(io, path).await == Some(topic_id)
}

/// Makes a partition's directory. One that belongs to another topic of the same name is never opened: it is renamed as
/// deleted. A file of that name is not ours, and stays; so does a directory that cannot be looked into.
async fn make_partition(core: &Core, log: &Log) -> io::Result<()> {
    let disk = &core.io.disk;
    let path = log.directory();
    let metadata = path.join(PARTITION_METADATA);
    if disk.exists(&path).await {
        let text = match disk.read_file(&metadata).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let found = parse_partition_metadata(&String::from_utf8_lossy(&text));
        if found == Some(log.key().topic_id) {
            return Ok(());
        }
        if found.is_some() || !holds_nothing(&core.io, &path).await? {
            let unique = found.map_or_else(|| core.io.rand.uuid().as_u128(), |id| id.0.as_u128());
            let aside = core.directory.join(stray_directory_name(log.name(), log.key().partition, unique));
            disk.rename(&path, &aside).await?;
            tracing::warn!(directory = %path.display(), aside = %aside.display(), "the directory of another topic is set aside");
        }
    }
    disk.create_dir_all(&path).await?;
    disk.write_file(&metadata, partition_metadata(log.key().topic_id).as_bytes(), false).await
}

/// Whether a directory has no file with a byte in it: a power cut leaves such ones.
async fn holds_nothing(io: &Io, path: &Path) -> io::Result<bool> {
    Ok(io.disk.read_dir(path).await?.iter().all(|entry| !entry.is_dir && entry.len == 0))
}

/// The topic whose partition a directory says it is; `None` if it says nothing that can be understood.
pub async fn topic_of(io: &Io, path: &Path) -> Option<TopicId> {
    let text = io.disk.read_file(&path.join(PARTITION_METADATA)).await.ok()?;
    parse_partition_metadata(&String::from_utf8_lossy(&text))
}

impl Log {
    /// What the partition's directory holds, whoever makes it. `None` if it is there.
    pub(super) fn directory_mark(&self) -> Option<DirectoryMark> {
        let bytes = partition_metadata(self.key().topic_id).into_bytes();
        (!self.state().has_directory()).then(|| DirectoryMark { path: self.file(PARTITION_METADATA), bytes })
    }

    /// Makes the partition's directory unless it is there.
    pub(super) async fn ensure_directory(&self) -> io::Result<()> {
        if self.state().has_directory() {
            return Ok(());
        }
        let _turn = self.making_directory.acquire(1).await;
        if !self.state().has_directory() {
            make_partition(&self.core, self).await?;
            self.state_mut().made_directory();
        }
        Ok(())
    }

    /// Makes the partition's directory unless it is there, durably: for those who keep files of their own in it.
    /// # Errors  The system's.
    pub async fn make_directory(&self) -> io::Result<()> {
        self.ensure_directory().await?;
        self.core.gate.sync(&self.core.io).await
    }
}

/// `.index` and `.timeindex` of a segment.
pub fn index_files(log: &Log, base: Offset, index: &SegmentIndex) -> [FileLeft; 2] {
    [("index", index.offset_file()), ("timeindex", index.time_file())]
        .map(|(suffix, bytes)| FileLeft { path: log.file(&file_name(base, suffix)), left: Left::Whole(bytes) })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn partition_metadata_is_kafkas() {
        let id = TopicId(Uuid::from_u128(1));
        let text = partition_metadata(id);
        assert_eq!(text, "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(parse_partition_metadata(&text), Some(id));
        assert_eq!(parse_partition_metadata("version: 0"), None);
    }
}
