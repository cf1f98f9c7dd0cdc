//! What a log is told from outside: limits of a core, settings of a partition, and what can go wrong.

use std::{io, path::Path, time::Duration};

use crate::{
    base::{Map, Offset, PartitionKey, Set, TopicId},
    config::Durability,
    io::{Slice, is_full},
    partition::StateError,
};

/// Everything is written in whole blocks of this size, because of O_DIRECT.
pub const BLOCK_BYTES: usize = 4096;

/// The settings of one partition's log; Kafka's topic configs of the same names.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(PartialEq, Eq))] // outside of tests it would count as a read of every field
pub struct LogConfig {
    /// `segment.bytes`: a segment is never larger.
    pub(crate) segment_bytes: u32,
    /// `segment.ms`: a segment older than this, by its records' timestamps, is rolled at the next append.
    pub(crate) segment_ms: i64,
    /// `segment.index.bytes`: a segment rolls when its offset index reaches this.
    pub(crate) segment_index_bytes: u32,
    /// `index.interval.bytes`: at most one index entry per so many bytes.
    pub(crate) index_interval_bytes: u32,
    /// `retention.ms`; -1 for ever.
    pub(crate) retention_ms: i64,
    /// `retention.bytes`; -1 without limit.
    pub(crate) retention_bytes: i64,
    /// Whether `cleanup.policy` contains `delete`. Without it only the log start offset deletes segments.
    pub(crate) delete: bool,
    /// `file.delete.delay.ms`: how long a `.deleted` file stays.
    pub(crate) file_delete_delay_ms: i64,
    /// When an append counts.
    pub(crate) durability: Durability,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3_600_000,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            retention_ms: 7 * 24 * 3_600_000,
            retention_bytes: -1,
            delete: true,
            file_delete_delay_ms: 60_000,
            durability: Durability::Flush,
        }
    }
}

/// The limits of a broker's log. Bytes per broker are divided among its cores.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// The journals' bound, per broker.
    pub journal_max_bytes: u64,
    /// The journals' size at start, per core.
    pub journal_start_bytes: u64,
    /// The size of one file of a journal's ring.
    pub journal_file_bytes: u32,
    /// Records that may wait in memory for their segment, per core. Full means that appends wait.
    pub dirty_max_bytes: usize,
    /// Memory for records altogether (dirty ones, recent ones, cold reads), per core.
    pub cache_max_bytes: usize,
    /// Open segment files, per core.
    pub open_files_max: usize,
    /// A checkpoint is made when the oldest record in the journal is as old as this.
    pub checkpoint_interval: Duration,
    /// Space that is never promised to appends, per broker.
    pub space_margin_bytes: u64,
    /// A file that is given up to finish destaging on a full disk, per broker.
    pub ballast_bytes: u64,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            journal_max_bytes: 256 << 20,
            journal_start_bytes: 8 << 20,
            journal_file_bytes: 4 << 20,
            dirty_max_bytes: 64 << 20,
            cache_max_bytes: 192 << 20,
            open_files_max: 1000,
            checkpoint_interval: Duration::from_secs(60),
            space_margin_bytes: 16 << 20,
            ballast_bytes: 8 << 20,
        }
    }
}

/// Why a log cannot do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// No room on the disk. Reads go on; appends may succeed later.
    #[error("no room on the disk")]
    Full,
    /// The partition is offline: its files cannot be read or written.
    #[error("{path}: {message}")]
    Io {
        /// The file.
        path: String,
        /// What kind of failure it was.
        kind: io::ErrorKind,
        /// What the system said.
        message: String,
    },
    /// Bytes on disk are not what was written there.
    #[error("{:020}.log is corrupt at position {position}", .segment.0)]
    Corrupt {
        /// The base offset of the segment.
        segment: Offset,
        /// The position in it.
        position: u64,
    },
    /// The offset is below the log's start or beyond its end.
    #[error("offset out of range")]
    OffsetOutOfRange,
    /// The partition was deleted meanwhile.
    #[error("the partition was deleted")]
    Deleted,
    /// The broker is stopping.
    #[error("the broker is stopping")]
    Stopping,
}

impl LogError {
    /// A file operation on `path` has failed.
    pub(super) fn at(path: &Path, error: &io::Error) -> Self {
        Self::Io { path: path.display().to_string(), kind: error.kind(), message: error.to_string() }
    }
}

/// Why a data directory cannot be opened. Each says what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// A file operation failed.
    #[error("{path}: {message}")]
    Io {
        /// The file or directory.
        path: String,
        /// What the system said.
        message: String,
    },
    /// A block of a journal is damaged although valid ones follow it: acknowledged records would be lost.
    #[error(
        "{path}: the journal block at {position} is damaged but later ones are intact, so acknowledged \
             records would be lost; restore the file from a copy, or move the data directory away{}",
        if_damaged_too(.checkpoint)
    )]
    JournalCorrupt {
        /// The journal file.
        path: String,
        /// Where the damaged block should begin.
        position: u64,
        /// A damaged checkpoint of the same core, behind which the block may not have counted any more.
        checkpoint: Option<String>,
    },
    /// A part of a journal cannot be read, and a block that counts may lie there.
    #[error(
        "{path}: the disk cannot read it at {position}, where acknowledged records may lie; copy the data directory \
             to another disk as long as it can be read, or restore the file from a copy"
    )]
    JournalUnreadable {
        /// The journal file.
        path: String,
        /// Where it cannot be read.
        position: u64,
    },
    /// A checkpoint that nothing can stand in for is not there, or is not what was written.
    #[error(
        "{path} is missing or damaged, and no other checkpoint can stand in for it; restore it from a copy, or move \
             the data directory away"
    )]
    CheckpointCorrupt {
        /// The checkpoint.
        path: String,
    },
    /// A later Ringtail wrote a file.
    #[error(
        "{path} was written by a newer Ringtail (version {version} of its format); start that one, or move the data \
             directory away"
    )]
    Newer {
        /// The file.
        path: String,
        /// The version of its format.
        version: u8,
    },
    /// The manifest cannot be read.
    #[error("{path} is damaged; restore it from a copy, or move the data directory away")]
    ManifestCorrupt {
        /// The manifest.
        path: String,
    },
    /// There is no manifest, but what only a life with one can have left.
    #[error(
        "{path} is missing, but {found} is there, and without the one nobody knows what of the other counts; restore \
             it from a copy, or move the data directory away (nothing was changed)"
    )]
    ManifestMissing {
        /// The manifest.
        path: String,
        /// What is there.
        found: String,
    },
    /// Bytes of a file are not what was written there, and nothing can stand in for them.
    #[error(
        "{path} is damaged at position {position}; restore it from a copy, or move the data directory away (nothing \
             was removed)"
    )]
    Damaged {
        /// The file.
        path: String,
        /// Where in it.
        position: u64,
    },
    /// The mark of our own clean stop is not in the directory any more.
    #[error(
        "{path} is not the one that Ringtail left: Apache Kafka has written to the directory since; choose another \
             one with log.dirs, or, if you know that it has not, write {mark} to that file"
    )]
    TouchedByKafka {
        /// The file that has it.
        path: String,
        /// What should be in it.
        mark: String,
    },
    /// Another process still holds a journal.
    #[error("{path} is held by another process; stop the other broker first")]
    Busy {
        /// The journal file.
        path: String,
    },
    /// The metadata log cannot be understood, so nobody knows which partitions live.
    #[error("{0}; restore __cluster_metadata-0 from a copy, or move the data directory away")]
    Metadata(String),
    /// What a checkpoint says of a partition's producers and epochs cannot be read.
    #[error(
        "partition {key}: {error} (in its checkpoint); start the Ringtail that wrote it, or restore the checkpoint \
             from a copy"
    )]
    State {
        /// The partition.
        key: PartitionKey,
        /// Why.
        error: StateError,
    },
    /// A partition's checkpoint or journal entries contradict its files.
    #[error("partition {key}: {error}; look after the file, restore it from a copy, or move the data directory away")]
    Partition {
        /// The partition.
        key: PartitionKey,
        /// Why.
        error: LogError,
    },
}

impl RecoverError {
    /// A file operation on `path` has failed.
    pub fn at(path: &Path, error: &io::Error) -> Self {
        let path = path.display().to_string();
        if is_full(error) {
            let message = format!("{error}: the disk is full; free a few MiB of it and start again");
            return Self::Io { path, message };
        }
        Self::Io { path, message: error.to_string() }
    }
}

fn if_damaged_too(checkpoint: &Option<String>) -> String {
    let words = |path| format!("; {path} is damaged too: with it the block may not be needed");
    checkpoint.as_ref().map(words).unwrap_or_default()
}

/// The metadata log as it was found: whole batches, each summed, without a gap.
#[derive(Clone, Debug, Default)]
pub struct MetadataLog {
    /// Its first offset.
    pub start: Offset,
    /// The offset behind its last record.
    pub end: Offset,
    /// Everything in between; each slice begins and ends with a batch.
    pub batches: Vec<Slice>,
}

/// What the metadata says of partitions.
#[derive(Clone, Debug, Default)]
pub struct KnownPartitions {
    /// Those that exist.
    pub live: LivePartitions,
    /// Topics whose deletion is written down. What is in neither of the two is set aside and not removed.
    pub deleted: Set<TopicId>,
}

impl From<LivePartitions> for KnownPartitions {
    fn from(live: LivePartitions) -> Self {
        Self { live, deleted: Set::default() }
    }
}

/// The partitions that exist according to the metadata log: topic name and settings of each.
pub type LivePartitions = Map<PartitionKey, (String, LogConfig)>;

/// Whole record batches as they lie in memory.
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// The bytes, in order. A batch may span two slices.
    pub slices: Vec<Slice>,
    /// Their sum.
    pub bytes: usize,
}

/// What the logs of one core hold at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogUsage {
    /// Partitions.
    pub logs: usize,
    /// Bytes of records in memory that no segment holds yet.
    pub dirty_bytes: usize,
    /// Bytes of chunks in memory, dirty ones included.
    pub chunk_bytes: usize,
    /// Bytes of the journal's files that no checkpoint covers.
    pub journal_used_bytes: u64,
    /// Bytes of all the journal's files.
    pub journal_bytes: u64,
    /// Open segment files.
    pub open_files: usize,
    /// Checkpoints made since the start.
    pub checkpoints: u64,
}
