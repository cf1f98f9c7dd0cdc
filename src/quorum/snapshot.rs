//! Snapshots of the metadata, as Kafka names and frames them: `<end offset>-<epoch>.checkpoint`, record batches between
//! a header and a footer (KIP-630). Without the footer a snapshot is not whole and is not used.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use tracing::{info, warn};

use crate::{
    base::{LeaderEpoch, Offset, Set, TopicId},
    io::Io,
    log::MetadataLog,
    metadata::Position,
    protocol::{
        batch::{self, BatchBuilder, Records},
        metadata_records::MetadataRecord,
    },
    replica::Replica,
};

/// Control record types: key is version 0 and the type.
const HEADER_KEY: [u8; 4] = [0, 0, 0, 3];
const FOOTER_KEY: [u8; 4] = [0, 0, 0, 4];
/// Records in a batch of a snapshot.
const RECORDS_A_BATCH: usize = 1024;
const SUFFIX: &str = ".checkpoint";

/// The cluster's metadata as the disk has it.
#[derive(Debug, Default)]
pub struct StoredMetadata {
    /// In the order in which they apply.
    pub records: Vec<MetadataRecord>,
    /// Topics whose deletion the log has, also where a snapshot covers it.
    pub deleted: Set<TopicId>,
    /// Bytes of the log that lie behind the snapshot.
    pub bytes_since_snapshot: u64,
    /// Where they end in the log.
    next: Offset,
    /// The newer snapshots that could not be used.
    pub damaged: Vec<PathBuf>,
}

/// Why the metadata cannot be read. The broker must not start: it would forget topics.
#[derive(Debug)]
pub enum MetadataError {
    /// A file cannot be read.
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A batch or record that is not what was written.
    Malformed(Offset),
    /// Snapshot and log do not meet.
    Missing {
        /// Where the snapshot ends, or what of the log could be read.
        from: Offset,
        /// Where the log begins, or should end.
        to: Offset,
        /// Newer snapshots that are damaged.
        damaged: Vec<PathBuf>,
    },
    /// The log ends before the snapshot that was made of it.
    TooShort {
        /// Where the log ends.
        log_end: Offset,
        /// Where the snapshot ends.
        snapshot_end: Offset,
    },
}

impl fmt::Display for MetadataError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, error } => write!(out, "{}: {error}", path.display()),
            Self::Malformed(offset) => write!(out, "the metadata log is damaged at offset {offset}"),
            Self::Missing { from, to, damaged } => {
                for path in damaged {
                    write!(out, "{} is damaged; ", path.display())?;
                }
                write!(out, "metadata from offset {from} to {to} is missing")
            }
            Self::TooShort { log_end, snapshot_end } => {
                write!(out, "the metadata log ends at {log_end}, before its snapshot at {snapshot_end}")
            }
        }
    }
}

impl std::error::Error for MetadataError {}

/// Writes the state at that position as a snapshot.
async fn write(io: &Io, directory: &Path, position: Position, records: &[MetadataRecord]) -> io::Result<()> {
    let bytes = encode(records, position.epoch, io.clock.wall());
    store(io, directory, position, &bytes).await
}

/// Who writes the metadata's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voters {
    /// This broker alone: it appends at the log's end, which a snapshot never lies beyond.
    One,
    /// Several: a snapshot comes from another one when this log is too short, which goes on behind it.
    Several,
}

/// Writes a snapshot of another voter's as it is: it ends at that position.
pub(super) async fn store(io: &Io, directory: &Path, position: Position, bytes: &[u8]) -> io::Result<()> {
    io.disk.replace_file(&path(directory, position), bytes).await
}

fn path(directory: &Path, position: Position) -> PathBuf {
    let (end, epoch) = (position.last_offset.plus(1), position.epoch);
    directory.join(format!("{:020}-{:010}{SUFFIX}", end.0, epoch.0))
}

/// Writes the state at that position as a snapshot of the metadata replica's log. Gives the end of the one before, which is
/// where the log may begin from now on: should the newest snapshot not be readable some day, that one and the log from there
/// on are the metadata. None if there is none, or if something has failed; then the log stays as it is.
pub(super) async fn take(
    io: &Io,
    replica: &Replica,
    directory: &Path,
    position: Position,
    records: &[MetadataRecord],
) -> Option<Offset> {
    // The directory is the log's, and a log takes one that it did not make for somebody else's.
    let written = match replica.log().make_directory().await {
        Ok(()) => write(io, directory, position, records).await,
        Err(error) => Err(error),
    };
    if let Err(error) = written {
        warn!(%error, "metadata snapshot could not be written; the log stays long");
        return None;
    }
    let end = position.last_offset.plus(1);
    info!(%end, records = records.len(), "metadata snapshot written");
    one_before(io, directory, end).await.unwrap_or_else(|error| {
        warn!(%error, "metadata snapshots could not be listed; the log stays long");
        None
    })
}

fn encode(records: &[MetadataRecord], epoch: LeaderEpoch, now: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut offset = Offset::ZERO;
    let mut put = |batch: BatchBuilder, count: usize| {
        bytes.extend_from_slice(&batch.at(offset, epoch).build());
        offset = offset.plus(count as i64);
    };
    let mut header = BatchBuilder::new().control(true);
    // Version 0, then the time of the last record in it, then no tagged fields.
    let mut value = vec![0, 0];
    value.extend_from_slice(&now.to_be_bytes());
    value.push(0);
    header.push(now, Some(&HEADER_KEY), Some(&value));
    put(header, 1);
    for some in records.chunks(RECORDS_A_BATCH) {
        let mut batch = BatchBuilder::new();
        for record in some {
            batch.push(now, None, Some(&record.encode()));
        }
        put(batch, some.len());
    }
    let mut footer = BatchBuilder::new().control(true);
    footer.push(now, Some(&FOOTER_KEY), Some(&[0, 0, 0]));
    put(footer, 1);
    bytes
}

/// Reads the newest whole snapshot below `directory`; without one, nothing is known yet. Whether the log goes on where it
/// ends is for [`StoredMetadata::replay`] to say.
/// # Errors  `Io`.
pub async fn read_snapshot(io: &Io, directory: &Path) -> Result<StoredMetadata, MetadataError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| MetadataError::Io { path, error }
    };
    let mut damaged = Vec::new();
    for (next, name) in snapshots(io, directory).await.map_err(at(directory))?.into_iter().rev() {
        let path = directory.join(name);
        let bytes = io.disk.read_file(&path).await.map_err(at(&path))?;
        if let Some(records) = decode_snapshot(&bytes) {
            return Ok(StoredMetadata { records, next, damaged, ..StoredMetadata::default() });
        }
        warn!(path = %path.display(), "a metadata snapshot is damaged: the one before and the log have to do");
        damaged.push(path);
    }
    Ok(StoredMetadata { damaged, ..StoredMetadata::default() })
}

impl StoredMetadata {
    /// The offset of the last record; -1 if there is none.
    #[must_use]
    pub fn last_offset(&self) -> Offset {
        self.next.plus(-1)
    }

    /// Adds the log's batches that lie behind the snapshot.
    /// # Errors  `Malformed`, `Missing`, and of one voter `TooShort`.
    pub fn replay(&mut self, log: &MetadataLog, voters: Voters) -> Result<(), MetadataError> {
        if self.next < log.start {
            return Err(self.missing(log.start));
        }
        if log.end < self.next && voters == Voters::One {
            // What would be appended there next is behind the snapshot's end for the following start, and would be skipped.
            return Err(MetadataError::TooShort { log_end: log.end, snapshot_end: self.next });
        }
        for slice in &log.batches {
            for batch in batch::batches(slice) {
                let batch = batch.map_err(|_| MetadataError::Malformed(self.next))?;
                self.replay_batch(&batch, voters)?;
            }
        }
        if self.next < log.end { Err(self.missing(log.end)) } else { Ok(()) }
    }

    fn replay_batch(&mut self, batch: &batch::BatchView<'_>, voters: Voters) -> Result<(), MetadataError> {
        let header = &batch.header;
        if header.base_offset > self.next {
            return Err(self.missing(header.base_offset));
        }
        let malformed = MetadataError::Malformed(header.base_offset);
        if !batch::crc_ok(batch.bytes) {
            return Err(malformed);
        }
        let Some(records) = decode_batch(batch) else { return Err(malformed) };
        if voters == Voters::Several && header.is_control() && header.last_offset() >= self.next {
            // It stands in for what only a snapshot had, and that is not there.
            return Err(self.missing(header.last_offset().plus(1)));
        }
        let deleted = records.iter().filter_map(|record| match record {
            MetadataRecord::RemoveTopic { topic_id } => Some(*topic_id),
            _ => None,
        });
        self.deleted.extend(deleted);
        if header.last_offset() >= self.next {
            self.records.extend(records);
            self.bytes_since_snapshot += batch.bytes.len() as u64;
            self.next = header.last_offset().plus(1);
        }
        Ok(())
    }

    fn missing(&self, to: Offset) -> MetadataError {
        MetadataError::Missing { from: self.next, to, damaged: self.damaged.clone() }
    }
}

/// The records of a data batch; none for a control batch.
pub(super) fn decode_batch(batch: &batch::BatchView<'_>) -> Option<Vec<MetadataRecord>> {
    if batch.header.is_control() {
        return Some(Vec::new());
    }
    Records::new(&batch.bytes[batch::HEADER_BYTES..], batch.header.record_count)
        .map(|record| MetadataRecord::decode(record.ok()?.value?).ok())
        .collect()
}

/// None if the snapshot is not whole, from its header to its footer.
pub(super) fn decode_snapshot(bytes: &[u8]) -> Option<Vec<MetadataRecord>> {
    let mut records = Vec::new();
    let mut footer = false;
    let mut next = Offset::ZERO;
    for batch in batch::batches(bytes) {
        let batch = batch.ok()?;
        // The base offset is in no sum.
        if footer || batch.header.base_offset != next || !batch::crc_ok(batch.bytes) {
            return None;
        }
        next = batch.header.last_offset().plus(1);
        if batch.header.is_control() {
            let record = Records::new(&batch.bytes[batch::HEADER_BYTES..], 1).next()?.ok()?;
            footer = record.key == Some(&FOOTER_KEY);
        }
        records.extend(decode_batch(&batch)?);
    }
    footer.then_some(records)
}

/// End offsets and names, oldest first.
async fn snapshots(io: &Io, directory: &Path) -> io::Result<Vec<(Offset, String)>> {
    if !io.disk.exists(directory).await {
        return Ok(Vec::new());
    }
    let mut found: Vec<(Offset, String)> = io
        .disk
        .read_dir(directory)
        .await?
        .into_iter()
        .filter_map(|entry| {
            let stem = entry.name.strip_suffix(SUFFIX)?;
            let (end, _) = stem.split_once('-')?;
            Some((Offset(end.parse().ok()?), entry.name))
        })
        .collect();
    found.sort();
    Ok(found)
}

/// The end of the newest whole snapshot before the one that ends at `end`. A damaged one is no reason to give up what stands
/// in for it.
pub(super) async fn one_before(io: &Io, directory: &Path, end: Offset) -> io::Result<Option<Offset>> {
    for (other, name) in snapshots(io, directory).await?.into_iter().rev().filter(|(other, _)| *other < end) {
        if decode_snapshot(&io.disk.read_file(&directory.join(name)).await?).is_some() {
            return Ok(Some(other));
        }
    }
    Ok(None)
}

/// The bytes of the snapshot that ends at `end`, if it is there and whole.
pub(super) async fn read_at(io: &Io, directory: &Path, end: Offset) -> io::Result<Option<Vec<u8>>> {
    for (_, name) in snapshots(io, directory).await?.into_iter().filter(|(other, _)| *other == end) {
        let bytes = io.disk.read_file(&directory.join(name)).await?;
        if decode_snapshot(&bytes).is_some() {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

/// Removes the snapshots before the one that ends at `end`, and what crashes have left of some. What stays is only untidy.
pub(super) async fn remove_older(io: &Io, directory: &Path, end: Offset) {
    for (other, name) in snapshots(io, directory).await.unwrap_or_default() {
        if other < end {
            let _ = io.disk.remove_file(&directory.join(name)).await;
        }
    }
    let torn = format!("{SUFFIX}.tmp");
    for entry in io.disk.read_dir(directory).await.unwrap_or_default() {
        if !entry.is_dir && entry.name.ends_with(&torn) {
            let _ = io.disk.remove_file(&directory.join(entry.name)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{Slice, sim::Simulation};

    fn topic(name: &str) -> MetadataRecord {
        MetadataRecord::Topic { name: name.to_owned(), topic_id: crate::base::TopicId(uuid::Uuid::from_u128(9)) }
    }

    fn up_to(last_offset: i64) -> Position {
        Position { last_offset: Offset(last_offset), epoch: LeaderEpoch(0) }
    }

    fn log_batch(base: i64, records: &[MetadataRecord]) -> Slice {
        let mut batch = BatchBuilder::new();
        for record in records {
            batch.push(0, None, Some(&record.encode()));
        }
        batch.at(Offset(base), LeaderEpoch(0)).build().into()
    }

    fn log(batches: &[Slice], start: i64, end: i64) -> MetadataLog {
        MetadataLog { start: Offset(start), end: Offset(end), batches: batches.to_vec() }
    }

    #[test]
    fn snapshot_and_log_together_give_every_record_once() {
        let simulation = Simulation::new(1);
        let records = simulation.block_on(0, 0, |io| async move {
            let directory = Path::new("data/__cluster_metadata-0");
            io.disk.create_dir_all(directory).await.expect("made");
            write(&io, directory, up_to(0), &[topic("old")]).await.expect("written");
            write(&io, directory, up_to(2), &[topic("a"), topic("b")]).await.expect("written");
            let log = log(&[log_batch(2, &[topic("b")]), log_batch(3, &[topic("c"), topic("d")])], 2, 5);
            let mut metadata = read_snapshot(&io, directory).await.expect("readable");
            metadata.replay(&log, Voters::One).expect("no gap");
            assert_eq!(one_before(&io, directory, Offset(3)).await.expect("listed"), Some(Offset(1)));
            remove_older(&io, directory, Offset(3)).await;
            assert_eq!(snapshots(&io, directory).await.expect("listed").len(), 1);
            metadata.records
        });
        assert_eq!(records, ["a", "b", "c", "d"].map(topic));
    }

    #[test]
    fn a_torn_snapshot_is_not_used_and_a_gap_is_an_error() {
        let whole = encode(&[topic("a")], LeaderEpoch(0), 0);
        assert_eq!(decode_snapshot(&whole), Some(vec![topic("a")]));
        for length in 0..whole.len() {
            assert_eq!(decode_snapshot(&whole[..length]), None, "cut at {length}");
        }
        for (start, end, batches) in [
            (5, 6, vec![log_batch(5, &[topic("x")])]),
            (2, 6, vec![log_batch(5, &[topic("x")])]),
            (5, 5, Vec::new()),
            (0, 5, Vec::new()),
        ] {
            let mut metadata = StoredMetadata { next: Offset(2), ..StoredMetadata::default() };
            let gap = metadata.replay(&log(&batches, start, end), Voters::One);
            assert!(matches!(gap, Err(MetadataError::Missing { from: Offset(2), to: Offset(5), .. })), "{gap:?}");
        }
        let mut metadata = StoredMetadata { next: Offset(2), ..StoredMetadata::default() };
        let short = metadata.replay(&log(&[log_batch(0, &[topic("x")])], 0, 1), Voters::One);
        assert!(matches!(short, Err(MetadataError::TooShort { .. })), "{short:?}");
        let behind = [log_batch(0, &[topic("x")]), log_batch(2, &[topic("y")])];
        for (end, records) in [(1, 0), (3, 1)] {
            let mut metadata = StoredMetadata { next: Offset(2), ..StoredMetadata::default() };
            let log = log(&behind[..=records], 0, end);
            metadata.replay(&log, Voters::Several).expect("the snapshot has what is missing");
            assert_eq!(metadata.records.len(), records);
        }
        // What stands in for records that a snapshot has is nothing without it.
        let mut filler = BatchBuilder::new().control(true).at(Offset(2), LeaderEpoch(0));
        filler.push(0, Some(&[0; 4]), None);
        let filled = log(&[filler.build().into()], 2, 3);
        for (next, is_missing) in [(2, true), (3, false)] {
            let mut metadata = StoredMetadata { next: Offset(next), ..StoredMetadata::default() };
            let replayed = metadata.replay(&filled, Voters::Several);
            assert_eq!(matches!(replayed, Err(MetadataError::Missing { .. })), is_missing, "{replayed:?}");
        }
    }

    #[test]
    fn no_bit_of_a_snapshot_may_be_wrong() {
        let whole = encode(&[topic("a"), topic("b")], LeaderEpoch(0), 0);
        let records = decode_snapshot(&whole);
        for byte in 0..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[byte] ^= 1 << bit;
                // The leader epoch is in no sum, and nobody looks at it.
                let found = decode_snapshot(&damaged);
                assert!(found.is_none() || found == records, "bit {bit} of byte {byte}");
            }
        }
    }

    #[test]
    fn a_damaged_snapshot_gives_way_to_the_one_before_and_the_log() {
        for log_start in [1, 2] {
            let replayed = Simulation::new(1).block_on(0, 0, |io| async move {
                let directory = Path::new("data/__cluster_metadata-0");
                io.disk.create_dir_all(directory).await.expect("made");
                write(&io, directory, up_to(0), &[topic("a")]).await.expect("written");
                let newest = directory.join("00000000000000000003-0000000000.checkpoint");
                let mut bytes = encode(&[topic("a"), topic("b"), topic("c")], LeaderEpoch(0), 0);
                bytes[70] ^= 1;
                io.disk.write_file(&newest, &bytes, true).await.expect("written");
                let batches = [log_batch(1, &[topic("b")]), log_batch(2, &[topic("c")])];
                let mut metadata = read_snapshot(&io, directory).await.expect("readable");
                let replayed = metadata.replay(&log(&batches[log_start - 1..], log_start as i64, 3), Voters::One);
                let before = one_before(&io, directory, Offset(4)).await.expect("listed");
                assert_eq!(before, Some(Offset(1)), "what stood in for it stays");
                replayed.map(|()| metadata.records).map_err(|error| error.to_string())
            });
            match log_start {
                1 => assert_eq!(replayed, Ok(["a", "b", "c"].map(topic).to_vec())),
                _ => {
                    let why = replayed.expect_err("nothing has what is missing");
                    assert!(why.contains("00000000000000000003-0000000000.checkpoint is damaged"), "{why}");
                }
            }
        }
    }

    #[test]
    fn deletions_are_known_also_where_a_snapshot_covers_them() {
        let gone = crate::base::TopicId(uuid::Uuid::from_u128(9));
        let removal = MetadataRecord::RemoveTopic { topic_id: gone };
        let mut metadata = StoredMetadata { next: Offset(2), ..StoredMetadata::default() };
        let log = log(&[log_batch(0, &[topic("x")]), log_batch(1, &[removal])], 0, 2);
        metadata.replay(&log, Voters::One).expect("no gap");
        assert_eq!((metadata.deleted.len(), metadata.records.len()), (1, 0));
        assert!(metadata.deleted.contains(&gone));
    }
}
