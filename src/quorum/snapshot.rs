//! Snapshots of the metadata, as Kafka names and frames them: `<end offset>-<epoch>.checkpoint`, record batches between
//! a header and a footer (KIP-630). Without the footer a snapshot is not whole and is not used.

use std::{fmt, io, path::Path};

use crate::{
    base::{LeaderEpoch, Offset},
    io::{Io, Slice},
    protocol::{
        batch::{self, BatchBuilder, Records},
        metadata_records::MetadataRecord,
    },
};

/// Control record types: key is version 0 and the type.
const HEADER_KEY: [u8; 4] = [0, 0, 0, 3];
const FOOTER_KEY: [u8; 4] = [0, 0, 0, 4];
/// Records in a batch of a snapshot.
const RECORDS_A_BATCH: usize = 1024;
const SUFFIX: &str = ".checkpoint";

/// The cluster's metadata as the disk has it.
#[derive(Debug, Default)]
pub struct Metadata {
    /// In the order in which they apply.
    pub records: Vec<MetadataRecord>,
    /// Where they end in the log.
    next: Offset,
}

/// Why the metadata cannot be read. The broker must not start: it would forget topics.
#[derive(Debug)]
pub enum MetadataError {
    /// The directory or a file in it.
    Io(io::Error),
    /// A batch or record that is not what was written.
    Malformed(Offset),
    /// The log begins behind the last whole snapshot.
    Missing {
        /// Where the snapshot ends.
        from: Offset,
        /// Where the log begins.
        to: Offset,
    },
}

impl fmt::Display for MetadataError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(out, "metadata snapshot: {error}"),
            Self::Malformed(offset) => write!(out, "the metadata log is damaged at offset {offset}"),
            Self::Missing { from, to } => write!(out, "metadata from offset {from} to {to} is missing"),
        }
    }
}

impl std::error::Error for MetadataError {}

pub(super) async fn write(
    io: &Io,
    directory: &Path,
    end: Offset,
    epoch: LeaderEpoch,
    records: &[MetadataRecord],
) -> io::Result<()> {
    let path = directory.join(format!("{:020}-{:010}{SUFFIX}", end.0, epoch.0));
    io.disk.replace_file(&path, &encode(records, epoch, io.clock.wall())).await
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

/// Reads the newest whole snapshot below `directory`; without one, nothing is known yet.
///
/// # Errors
/// `Io`.
pub async fn read_snapshot(io: &Io, directory: &Path) -> Result<Metadata, MetadataError> {
    for (next, name) in snapshots(io, directory).await.map_err(MetadataError::Io)?.into_iter().rev() {
        let bytes = io.disk.read_file(&directory.join(name)).await.map_err(MetadataError::Io)?;
        if let Some(records) = decode_snapshot(&bytes) {
            return Ok(Metadata { records, next });
        }
    }
    Ok(Metadata::default())
}

impl Metadata {
    /// Adds the log's batches that lie behind the snapshot. Each slice begins and ends with a batch.
    ///
    /// # Errors
    /// `Malformed`, `Missing`.
    pub fn replay(&mut self, log: &[Slice]) -> Result<(), MetadataError> {
        for slice in log {
            for batch in batch::batches(slice) {
                let batch = batch.map_err(|_| MetadataError::Malformed(self.next))?;
                let header = batch.header;
                if header.last_offset() < self.next {
                    continue;
                }
                if header.base_offset > self.next {
                    return Err(MetadataError::Missing { from: self.next, to: header.base_offset });
                }
                if !batch::crc_ok(batch.bytes) {
                    return Err(MetadataError::Malformed(header.base_offset));
                }
                let records = decode_batch(&batch).ok_or(MetadataError::Malformed(header.base_offset))?;
                self.records.extend(records);
                self.next = header.last_offset().plus(1);
            }
        }
        Ok(())
    }
}

/// The records of a data batch; none for a control batch.
fn decode_batch(batch: &batch::BatchView<'_>) -> Option<Vec<MetadataRecord>> {
    if batch.header.is_control() {
        return Some(Vec::new());
    }
    Records::new(&batch.bytes[batch::HEADER_BYTES..], batch.header.record_count)
        .map(|record| MetadataRecord::decode(record.ok()?.value?).ok())
        .collect()
}

/// None if the snapshot is not whole.
fn decode_snapshot(bytes: &[u8]) -> Option<Vec<MetadataRecord>> {
    let mut records = Vec::new();
    let mut footer = false;
    for batch in batch::batches(bytes) {
        let batch = batch.ok()?;
        if !batch::crc_ok(batch.bytes) {
            return None;
        }
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

/// Removes the snapshots before the one that ends at `end`. What stays is only untidy.
pub(super) async fn remove_older(io: &Io, directory: &Path, end: Offset) {
    for (other, name) in snapshots(io, directory).await.unwrap_or_default() {
        if other < end {
            let _ = io.disk.remove_file(&directory.join(name)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sim::Simulation;

    fn topic(name: &str) -> MetadataRecord {
        MetadataRecord::Topic { name: name.to_owned(), topic_id: crate::base::TopicId(uuid::Uuid::from_u128(9)) }
    }

    fn log_batch(base: i64, records: &[MetadataRecord]) -> Slice {
        let mut batch = BatchBuilder::new();
        for record in records {
            batch.push(0, None, Some(&record.encode()));
        }
        batch.at(Offset(base), LeaderEpoch(0)).build().into()
    }

    #[test]
    fn snapshot_and_log_together_give_every_record_once() {
        let simulation = Simulation::new(1);
        let records = simulation.block_on(0, 0, |io| async move {
            let directory = Path::new("data/__cluster_metadata-0");
            io.disk.create_dir_all(directory).await.expect("made");
            write(&io, directory, Offset(1), LeaderEpoch(0), &[topic("old")]).await.expect("written");
            write(&io, directory, Offset(3), LeaderEpoch(0), &[topic("a"), topic("b")]).await.expect("written");
            let log = [log_batch(2, &[topic("b")]), log_batch(3, &[topic("c"), topic("d")])];
            let mut metadata = read_snapshot(&io, directory).await.expect("readable");
            metadata.replay(&log).expect("no gap");
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
        let mut metadata = Metadata { records: Vec::new(), next: Offset(2) };
        let gap = metadata.replay(&[log_batch(5, &[topic("x")])]);
        assert!(matches!(gap, Err(MetadataError::Missing { from: Offset(2), to: Offset(5) })), "{gap:?}");
    }
}
