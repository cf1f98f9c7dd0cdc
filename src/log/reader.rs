//! Reading: from memory as it lies, or from the segments by direct I/O with read-ahead. Always whole batches of one
//! segment, beginning with the batch that contains the offset asked for. Nothing is copied.

use std::rc::Rc;

use crate::{
    base::Offset,
    io::Slice,
    log::{
        chunk::{Chunks, Place},
        cold::Extent,
        destage::log_error,
        index::{SegmentIndex, relative},
        locate::{HEAD_BYTES, Head},
        partition_log::Log,
        segment::file_name,
        settings::{BLOCK_BYTES, LogError, Read},
    },
};

/// One read of a segment's file, and what is read ahead.
const READ_BYTES: u32 = 1 << 20;

/// What a reader wants.
#[derive(Clone, Copy)]
struct Wish {
    from: Offset,
    max_bytes: usize,
    /// Only batches that lie wholly below this.
    upto: Offset,
    /// The first batch comes even if it is larger than `max_bytes` (KIP-74).
    min_one: bool,
}

impl Wish {
    /// Whether a batch may be added to `bytes` that are taken already.
    fn accepts(&self, head: &Head, bytes: u64) -> bool {
        let first = bytes == 0 && self.min_one;
        head.last_offset < self.upto && (first || bytes + u64::from(head.bytes) <= self.max_bytes as u64)
    }
}

/// Where batches were found, and how far they may be taken.
struct Found {
    place: Place,
    extent: Option<Extent>,
}

impl Log {
    /// Reads from memory. `None` if the batch that contains `from` is not there: then [`read`](Self::read).
    #[must_use]
    pub fn read_cached(&self, from: Offset, max_bytes: usize, upto: Offset, min_one: bool) -> Option<Read> {
        let state = self.state();
        if from >= upto.min(state.end) && from >= state.log_start {
            return Some(Read::default());
        }
        if from < state.log_start {
            return None;
        }
        let wish = Wish { from, max_bytes, upto, min_one };
        let place = state.chunks.find(from)?;
        Some(from_memory(&state.chunks, &place, wish))
    }

    /// Reads whole batches from the one that contains `from`, as many as fit `max_bytes` and lie below `upto`; fewer if
    /// a segment or one read of the disk ends before.
    /// # Errors
    /// `OffsetOutOfRange`; `Io` and `Corrupt` if the segment cannot be read; `Deleted`.
    pub async fn read(
        self: &Rc<Self>,
        from: Offset,
        max_bytes: usize,
        upto: Offset,
        min_one: bool,
    ) -> Result<Read, LogError> {
        {
            let state = self.state();
            state.alive()?;
            if from < state.log_start || from > state.end {
                return Err(LogError::OffsetOutOfRange);
            }
        }
        if let Some(read) = self.read_cached(from, max_bytes, upto, min_one) {
            return Ok(read);
        }
        self.read_cold(Wish { from, max_bytes, upto, min_one }).await
    }

    async fn read_cold(self: &Rc<Self>, wish: Wish) -> Result<Read, LogError> {
        let hint = self.core.cold.hint(self.key(), wish.from);
        let sequential = hint.is_some();
        let (base, position) = match hint {
            Some(place) => place,
            None => self.look_up(wish.from).await?,
        };
        let Some(found) = self.walk(base, position, wish.from).await? else { return Ok(Read::default()) };
        let Found { place, extent } = found;
        if !wish.accepts(&place.head, 0) {
            return Ok(Read::default());
        }
        let Some(extent) = extent else {
            return Ok(from_memory(&self.state().chunks, &place, wish));
        };
        let whole = extent.end() >= place.position.saturating_add(place.head.bytes);
        let (slices, end, next_offset) = if whole {
            let (end, next) = self.take_from(&extent, &place, wish);
            let range = (place.position - extent.position) as usize..(end - extent.position) as usize;
            (vec![extent.bytes.slice(range)], end, next)
        } else {
            // The batch goes on in memory, where its end has not been written yet.
            let end = place.position + place.head.bytes;
            (self.gather(place.segment_base, place.position, end).await?, end, place.head.last_offset.plus(1))
        };
        self.core.cold.keep_hint(self.key(), next_offset, (place.segment_base, end));
        if sequential && whole {
            self.read_ahead(place.segment_base, end);
        }
        let bytes = (end - place.position) as usize;
        Ok(Read { slices, bytes, first_batch_offset: Some(place.head.base_offset) })
    }

    /// How many of the batches in `extent`, from `place` on, are wanted: their end and the offset behind them.
    fn take_from(&self, extent: &Extent, place: &Place, wish: Wish) -> (u32, Offset) {
        let mut end = place.position + place.head.bytes;
        let mut next = place.head.last_offset.plus(1);
        while let Some(head) = Head::parse(&extent.bytes[(end - extent.position) as usize..]) {
            let taken = u64::from(end - place.position);
            if end.saturating_add(head.bytes) > extent.end() || !wish.accepts(&head, taken) {
                break;
            }
            end += head.bytes;
            next = head.last_offset.plus(1);
        }
        (end, next)
    }

    /// From a batch at or before `from` to the one that contains it. `None` at the log's end.
    async fn walk(self: &Rc<Self>, base: Offset, position: u32, from: Offset) -> Result<Option<Found>, LogError> {
        let (mut base, mut position) = (base, position);
        loop {
            let size = {
                let state = self.state();
                state.alive()?;
                let Some(segment) = state.segments.iter().find(|segment| segment.base == base) else {
                    // Deleted by retention while we read.
                    return Err(LogError::OffsetOutOfRange);
                };
                segment.size
            };
            if position >= size {
                // What was asked for is missing here, as after compaction: the next segment has what follows.
                let state = self.state();
                let Some(next) = state.segments.iter().find(|segment| segment.base > base) else { return Ok(None) };
                (base, position) = (next.base, 0);
                continue;
            }
            let corrupt = LogError::Corrupt { segment: base, position: u64::from(position) };
            let in_memory = {
                let state = self.state();
                state.chunks.holds(base, position).then(|| state.chunks.head(base, position))
            };
            let (head, extent) = match in_memory {
                Some(head) => (head.ok_or(corrupt)?, None),
                None => self.head_on_disk(base, position, size).await?,
            };
            if head.last_offset >= from {
                let place = Place { segment_base: base, position, head };
                let Some(extent) = extent else { return Ok(Some(Found { place, extent: None })) };
                let extent = if extent.end() < position.saturating_add(head.bytes) {
                    self.extent(base, position, head.bytes).await?
                } else {
                    extent
                };
                return Ok(Some(Found { place, extent: Some(extent) }));
            }
            position += head.bytes;
        }
    }

    async fn head_on_disk(
        self: &Rc<Self>,
        base: Offset,
        position: u32,
        size: u32,
    ) -> Result<(Head, Option<Extent>), LogError> {
        let corrupt = LogError::Corrupt { segment: base, position: u64::from(position) };
        let extent = self.extent(base, position, HEAD_BYTES as u32).await?;
        let here = &extent.bytes[(position - extent.position) as usize..];
        let head = if here.len() >= HEAD_BYTES {
            Head::parse(here)
        } else {
            let end = position.saturating_add(HEAD_BYTES as u32).min(size);
            let bytes: Vec<u8> = super::core::joined(&self.gather(base, position, end).await?);
            Head::parse(&bytes)
        };
        // A length beyond the segment's end is damage too; following it would end in another batch's middle.
        match head.filter(|head| position.checked_add(head.bytes).is_some_and(|end| end <= size)) {
            Some(head) => Ok((head, Some(extent))),
            None => Err(corrupt),
        }
    }

    /// A stretch of the file that holds `position..position + at_least`, or as much of it as the file has.
    async fn extent(self: &Rc<Self>, base: Offset, position: u32, at_least: u32) -> Result<Extent, LogError> {
        let key = self.key();
        let on_disk = self.on_disk(base)?;
        let at_least = at_least.min(on_disk.saturating_sub(position));
        if let Some(extent) = self.core.cold.find(key, base, position, at_least) {
            return Ok(extent);
        }
        let start = position / BLOCK_BYTES as u32 * BLOCK_BYTES as u32;
        let end = start.saturating_add(READ_BYTES).max(position.saturating_add(at_least)).min(on_disk);
        let bytes = self.read_file(base, u64::from(start), end.saturating_sub(start) as usize).await?;
        let extent = Extent { key, segment_base: base, position: start, bytes };
        self.core.cold.insert(extent.clone());
        Ok(extent)
    }

    /// The position below which the segment's file has everything that memory does not.
    fn on_disk(&self, base: Offset) -> Result<u32, LogError> {
        let state = self.state();
        let segment = state.segments.iter().find(|segment| segment.base == base).ok_or(LogError::OffsetOutOfRange)?;
        Ok(state.chunks.first_position(base).unwrap_or(segment.size).min(segment.written))
    }

    /// `start..end` of a segment, some of it on disk and some in memory.
    async fn gather(self: &Rc<Self>, base: Offset, start: u32, end: u32) -> Result<Vec<Slice>, LogError> {
        let border = self.on_disk(base)?.clamp(start, end);
        let mut slices = Vec::new();
        if start < border {
            let extent = self.extent(base, start, border - start).await?;
            let range = (start - extent.position) as usize..(border - extent.position) as usize;
            slices.push(extent.bytes.slice(range));
        }
        if border < end {
            let state = self.state();
            if !state.chunks.holds(base, border) || !state.chunks.holds(base, end - 1) {
                return Err(LogError::Corrupt { segment: base, position: u64::from(border) });
            }
            slices.extend(state.chunks.slices(base, border, end));
        }
        Ok(slices)
    }

    /// Reads the next stretch while the last one is being sent.
    fn read_ahead(self: &Rc<Self>, base: Offset, position: u32) {
        let Ok(on_disk) = self.on_disk(base) else { return };
        let wanted = (READ_BYTES / 2).min(on_disk.saturating_sub(position));
        let cold = &self.core.cold;
        if wanted == 0 || cold.find(self.key(), base, position, wanted).is_some() || !cold.begin_ahead(self.key()) {
            return;
        }
        let log = self.clone();
        self.core.io.spawner.spawn(async move {
            // Whoever needs these bytes reads again, and meets the error himself.
            let _ = log.extent(base, position, wanted).await;
            log.core.cold.end_ahead(log.key());
        });
    }

    /// Bytes of a segment's file.
    pub(super) async fn read_file(&self, base: Offset, position: u64, bytes: usize) -> Result<Slice, LogError> {
        let path = self.file(&file_name(base, "log"));
        let read = async {
            let file = self.core.files.open(self.key(), base, &path, false).await?;
            file.read(position, bytes).await
        };
        let read = read.await;
        // Deleted meanwhile: then the file may be gone, or the name may be a newer topic's.
        let state = self.state();
        state.alive()?;
        if !state.segments.iter().any(|segment| segment.base == base) {
            return Err(LogError::OffsetOutOfRange);
        }
        read.map_err(|error| log_error(self, base, &error))
    }

    /// The segment and the position where the search for `from` begins.
    async fn look_up(self: &Rc<Self>, from: Offset) -> Result<(Offset, u32), LogError> {
        let (base, position) = {
            let state = self.state();
            let segment = &state.segments[state.segment_of(from)];
            let offset = relative(segment.base, from).unwrap_or(u32::MAX);
            (segment.base, segment.index.as_ref().map(|index| index.position(offset)))
        };
        match position {
            Some(position) => Ok((base, position)),
            None => {
                let offset = relative(base, from).unwrap_or(u32::MAX);
                Ok((base, self.sealed_index(base).await?.position(offset)))
            }
        }
    }

    /// The index of a finished segment: from its files, or by reading the segment if they are no use.
    pub(super) async fn sealed_index(self: &Rc<Self>, base: Offset) -> Result<Rc<SegmentIndex>, LogError> {
        if let Some(index) = self.core.cold.index(self.key(), base) {
            return Ok(index);
        }
        let (size, interval) = {
            let state = self.state();
            let segment = state.segments.iter().find(|it| it.base == base).ok_or(LogError::OffsetOutOfRange)?;
            (segment.size, state.config.index_interval_bytes)
        };
        let disk = &self.core.io.disk;
        let offsets = disk.read_file(&self.file(&file_name(base, "index"))).await.unwrap_or_default();
        let times = disk.read_file(&self.file(&file_name(base, "timeindex"))).await.unwrap_or_default();
        let index = match SegmentIndex::from_files(&offsets, &times, size, interval) {
            // An empty file beside a large segment is what a crash of somebody else leaves.
            Some(index) if !index.is_empty() || size < READ_BYTES => index,
            Some(_) | None => self.scan_index(base, size, interval).await?,
        };
        let index = Rc::new(index);
        self.core.cold.keep_index(self.key(), base, index.clone());
        Ok(index)
    }

    /// Builds an index by walking over the whole segment.
    async fn scan_index(self: &Rc<Self>, base: Offset, size: u32, interval: u32) -> Result<SegmentIndex, LogError> {
        tracing::warn!(segment = %self.file(&file_name(base, "log")).display(), "the index is no use and is rebuilt");
        let mut index = SegmentIndex::new(interval);
        let mut largest = (crate::log::index::NO_TIMESTAMP, 0);
        let mut position = 0;
        while position < size {
            let (head, extent) = self.head_on_disk(base, position, size).await?;
            let last = relative(base, head.last_offset)
                .ok_or(LogError::Corrupt { segment: base, position: u64::from(position) })?;
            let end = position + head.bytes;
            let timestamp = match extent {
                Some(extent) if extent.end() >= position + MAX_TIMESTAMP_END => {
                    let at = (position - extent.position) as usize + MAX_TIMESTAMP_END as usize - 8;
                    i64::from_be_bytes(extent.bytes[at..at + 8].try_into().expect("eight bytes"))
                }
                Some(_) | None => {
                    let bytes = super::core::joined(&self.gather(base, position, position + MAX_TIMESTAMP_END).await?);
                    i64::from_be_bytes(bytes[bytes.len() - 8..].try_into().expect("eight bytes"))
                }
            };
            if timestamp > largest.0 {
                largest = (timestamp, last);
            }
            index.note(last, position, head.bytes, largest);
            position = end;
        }
        index.finish(largest);
        Ok(index)
    }
}

/// Where a batch's largest timestamp ends.
const MAX_TIMESTAMP_END: u32 = 43;

/// Batches that are all in memory, from `place` on.
fn from_memory(chunks: &Chunks, place: &Place, wish: Wish) -> Read {
    if !wish.accepts(&place.head, 0) {
        return Read::default();
    }
    let base = place.segment_base;
    let mut end = place.position + place.head.bytes;
    // Marks lead past most of the small batches; those before a mark lie below it.
    let limit = (u64::from(place.position) + wish.max_bytes as u64).min(u64::from(u32::MAX)) as u32;
    if let Some((_, position)) = chunks.mark_before(base, limit, wish.upto) {
        end = end.max(position);
    }
    while let Some(head) = chunks.head(base, end) {
        if !wish.accepts(&head, u64::from(end - place.position)) {
            break;
        }
        end += head.bytes;
    }
    let slices = chunks.slices(base, place.position, end);
    Read { slices, bytes: (end - place.position) as usize, first_batch_offset: Some(place.head.base_offset) }
}
