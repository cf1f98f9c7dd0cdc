//! One segment read through, and its index files held against it.

use std::path::Path;

use crate::{
    base::{Offset, Timestamp},
    io::{File, Io, OpenOptions, Slice},
    log::{
        check::report::CheckReport,
        image::SegmentImage,
        index::{SegmentIndex, relative},
        locate::{HEAD_BYTES, Head},
        segment::file_name,
    },
    protocol::batch::{BatchHeader, crc_ok},
};

/// One read of a file.
const READ_BYTES: usize = 4 << 20;

/// What a segment's file should hold.
pub struct Expected<'a> {
    pub segment: &'a SegmentImage,
    /// The offset behind the last record that may be in it.
    pub end: Offset,
    /// Whether its bytes are wanted.
    pub keep: bool,
}

/// A batch that is as it was written.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    pub position: u32,
    pub last_offset: Offset,
    pub max_timestamp: Timestamp,
}

pub struct Segment {
    pub batches: Vec<Batch>,
    /// Empty unless they were wanted.
    pub bytes: Slice,
}

/// A part of a file in memory.
struct Window {
    file: File,
    position: u64,
    bytes: Slice,
    /// What counts of the file.
    size: u64,
}

impl Window {
    /// `length` bytes from `position` on; fewer at the end of what counts.
    async fn at(&mut self, position: u64, length: usize) -> std::io::Result<&[u8]> {
        let length = length.min(self.size.saturating_sub(position) as usize);
        let held = position >= self.position && position + length as u64 <= self.position + self.bytes.len() as u64;
        if !held {
            let ahead = READ_BYTES.max(length).min((self.size - position) as usize);
            self.bytes = self.file.read(position, ahead).await?;
            self.position = position;
        }
        let from = (position - self.position) as usize;
        Ok(&self.bytes[from..from + length])
    }
}

/// Reads a segment through: every batch is summed, and none begins before the one in front of it ends.
/// # Errors  The first thing that is wrong, with file and position.
pub async fn read(io: &Io, path: &Path, expected: &Expected<'_>) -> Result<Segment, String> {
    let size = u64::from(expected.segment.size);
    let wrong = |position: u64, what: &str| format!("{} at position {position}: {what}", path.display());
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = io.disk.open(path, OpenOptions::default()).await.map_err(failed)?;
    let length = file.len().await.map_err(failed)?;
    if length < size {
        return Err(wrong(length, &format!("the file ends, and {size} bytes were written")));
    }
    let whole = if expected.keep { file.read(0, size as usize).await.map_err(failed)? } else { Slice::default() };
    let mut window = Window { file, position: 0, bytes: Slice::default(), size };
    let (mut position, mut next) = (0, expected.segment.base);
    let mut batches = Vec::new();
    while position < size {
        let head = Head::parse(window.at(position, HEAD_BYTES).await.map_err(failed)?);
        let head = head.filter(|head| position + u64::from(head.bytes) <= size);
        let Some(head) = head else { return Err(wrong(position, "no batch begins here")) };
        let bytes = window.at(position, head.bytes as usize).await.map_err(failed)?;
        let header = BatchHeader::parse(bytes).map_err(|error| wrong(position, &format!("not a batch: {error:?}")))?;
        if !crc_ok(bytes) {
            return Err(wrong(position, "the batch's sum is wrong"));
        }
        if header.base_offset < next || header.last_offset() >= expected.end {
            let what = format!("a batch of offsets {} to {} is not due here", header.base_offset, header.last_offset());
            return Err(wrong(position, &what));
        }
        next = header.last_offset().plus(1);
        let max_timestamp = header.max_timestamp;
        batches.push(Batch { position: position as u32, last_offset: head.last_offset, max_timestamp });
        position += u64::from(head.bytes);
    }
    Ok(Segment { batches, bytes: whole })
}

/// Holds the index files of a finished segment against its batches.
pub async fn check_index(
    io: &Io,
    directory: &Path,
    segment: &SegmentImage,
    batches: &[Batch],
    report: &mut CheckReport,
) {
    let paths = ["index", "timeindex"].map(|suffix| directory.join(file_name(segment.base, suffix)));
    let mut files = Vec::new();
    for path in &paths {
        match io.disk.read_file(path).await {
            Ok(bytes) => files.push(bytes),
            Err(error) => return report.goes_on(format!("{}: {error}", path.display()), REBUILT),
        }
    }
    if segment.index_crc.is_some_and(|sum| sum != SegmentIndex::sum(&files[0], &files[1])) {
        let what = format!("{} or its .timeindex is not what was written", paths[0].display());
        return report.goes_on(what, REBUILT);
    }
    let Some(index) = SegmentIndex::from_files(&files[0], &files[1], segment.size, 0) else {
        let what = format!("{} or its .timeindex cannot be right", paths[0].display());
        return report.goes_on(what, REBUILT);
    };
    let relative = |offset: Offset| relative(segment.base, offset);
    let (offsets, times) = index.parts();
    for (place, (offset, position)) in offsets.iter().enumerate() {
        let batch = batches.binary_search_by_key(position, |batch| batch.position);
        if !batch.is_ok_and(|batch| relative(batches[batch].last_offset) == Some(*offset)) {
            let what = format!("{}: entry {place} is not of this segment", paths[0].display());
            return report.goes_on(what, MISLED);
        }
    }
    for (place, (timestamp, offset)) in times.iter().enumerate() {
        let batch = batches.binary_search_by_key(&Some(*offset), |batch| relative(batch.last_offset));
        if !batch.is_ok_and(|batch| batches[batch].max_timestamp == *timestamp) {
            let what = format!("{}: entry {place} is not of this segment", paths[1].display());
            return report.goes_on(what, MISLED);
        }
    }
}

const REBUILT: &str = "it is built again when it is needed";
const MISLED: &str = "remove both files of the segment, and they are built again when they are needed";
