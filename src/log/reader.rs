//! Reading: from memory as it lies, or from the segments by direct I/O with read-ahead. Always whole batches of one
//! segment, beginning with the batch that contains the offset asked for. Nothing is copied.

use std::{cell::Ref, io, rc::Rc};

use crate::{
    base::{Offset, copied},
    io::Slice,
    log::{
        chunk::{Chunks, Place},
        cold::Extent,
        index::{SegmentIndex, relative},
        locate::{HEAD_BYTES, Head},
        offline,
        partition_log::Log,
        placing::Placing,
        segment::{Segment, SegmentId, file_name},
        settings::{BLOCK_BYTES, LogError, Read},
    },
    metrics::Counter,
    protocol::batch,
};

/// One read of a segment's file, and what is read ahead.
const READ_BYTES: u32 = 1 << 20;

/// How often a read that failed is tried again: a device may fail once.
const READ_TRIES_MAX: usize = 2;
/// What a cold read answers keeps at most so many times its bytes of memory.
const HELD_FACTOR: usize = 4;

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

/// What the batch at some place must be, because of what led there.
#[derive(Clone, Copy)]
enum Expected {
    /// It begins with this offset: segments have no gaps.
    First(Offset),
    /// It ends with this offset.
    Last(Offset),
}

/// Where a search begins.
struct Start {
    segment: SegmentId,
    position: u32,
    expected: Expected,
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
        if from >= upto.min(state.end()) && from >= state.log_start() {
            return Some(Read::default());
        }
        if from < state.log_start() {
            return None;
        }
        let wish = Wish { from, max_bytes, upto, min_one };
        let place = state.find(from)?;
        Some(from_memory(state.chunks(), &place, wish))
    }

    /// Reads whole batches from the one that contains `from`, as many as fit `max_bytes` and lie below `upto`; fewer if
    /// a segment or one read of the disk ends before.
    /// # Errors  `OffsetOutOfRange`; `Deleted`; `Io` and `Corrupt` if the segment cannot be read: the partition is
    /// offline then.
    pub async fn read(
        self: &Rc<Self>,
        from: Offset,
        max_bytes: usize,
        upto: Offset,
        min_one: bool,
    ) -> Result<Read, LogError> {
        self.looked_up(async || self.read_once(Wish { from, max_bytes, upto, min_one }).await).await
    }

    async fn read_once(self: &Rc<Self>, wish: Wish) -> Result<Read, LogError> {
        let Wish { from, max_bytes, upto, min_one } = wish;
        {
            let state = self.state();
            state.alive()?;
            if from < state.log_start() || from > state.end() {
                return Err(LogError::OffsetOutOfRange);
            }
        }
        if let Some(read) = self.read_cached(from, max_bytes, upto, min_one) {
            return Ok(read);
        }
        self.core.io.metrics.count(Counter::ColdReads);
        self.noted(self.read_cold(wish).await)
    }

    /// Looks something up, and once more if segments were cut or replaced meanwhile: an offset that is out of range only in what
    /// they were before is still there.
    pub(super) async fn looked_up<T>(&self, look: impl AsyncFn() -> Result<T, LogError>) -> Result<T, LogError> {
        loop {
            let generation = self.state().generation();
            match look().await {
                Err(LogError::OffsetOutOfRange) if self.state().generation() != generation => {}
                found => return found,
            }
        }
    }

    /// Passes a result on. A partition whose files have failed goes offline.
    pub(super) fn noted<T>(self: &Rc<Self>, result: Result<T, LogError>) -> Result<T, LogError> {
        if let Err(error @ (LogError::Io { .. } | LogError::Corrupt { .. })) = &result {
            offline::fail(self, error.clone());
        }
        result
    }

    async fn read_cold(self: &Rc<Self>, wish: Wish) -> Result<Read, LogError> {
        let hint = self.core.cold.hint(self.key(), wish.from);
        let sequential = hint.is_some();
        let start = match hint {
            Some((segment, position)) => Start { segment, position, expected: Expected::First(wish.from) },
            None => self.look_up(wish.from).await?,
        };
        match self.read_from(start, wish, sequential).await {
            // It may have been damaged on its way, or an index file has led astray: once more, from the segment alone.
            Err(LogError::Corrupt { .. }) => {
                self.core.cold.forget(self.key(), None);
                let start = self.look_up_anew(wish.from).await?;
                self.read_from(start, wish, false).await
            }
            read => read,
        }
    }

    async fn read_from(self: &Rc<Self>, start: Start, wish: Wish, sequential: bool) -> Result<Read, LogError> {
        let Some(found) = self.walk(start, wish.from).await? else { return Ok(Read::default()) };
        let Found { place, extent } = found;
        let Some(extent) = extent else {
            return Ok(from_memory(self.state().chunks(), &place, wish));
        };
        if !wish.accepts(&place.head, 0) {
            // What is not wanted may be what is damaged: the same answer for ever would tell nobody.
            let slices = self.gather(place.segment, place.position, place.position + place.head.bytes).await?;
            return if is_whole(&slices) {
                Ok(Read::default())
            } else {
                Err(corrupt(place.segment.base, place.position))
            };
        }
        let whole = extent.end() >= place.position.saturating_add(place.head.bytes);
        let (slices, end, next_offset) = if whole {
            let (end, next) = self.take_from(&extent, &place, wish)?;
            let range = (place.position - extent.position) as usize..(end - extent.position) as usize;
            (vec![lean(extent.bytes.slice(range))], end, next)
        } else {
            // The batch goes on in memory, where its end has not been written yet.
            let end = place.position + place.head.bytes;
            let slices = self.gather(place.segment, place.position, end).await?;
            if !is_whole(&slices) {
                return Err(corrupt(place.segment.base, place.position));
            }
            (slices, end, place.head.last_offset.plus(1))
        };
        self.core.cold.keep_hint(self.key(), next_offset, (place.segment, end));
        if sequential && whole {
            self.read_ahead(place.segment, end);
        }
        let bytes = (end - place.position) as usize;
        Ok(Read { slices, bytes })
    }

    /// How many of the batches in `extent`, from `place` on, are wanted: their end and the offset behind them. They come
    /// from the disk, so each one's sum is looked at.
    fn take_from(&self, extent: &Extent, place: &Place, wish: Wish) -> Result<(u32, Offset), LogError> {
        let mut position = place.position;
        let mut head = place.head;
        loop {
            let end = position + head.bytes;
            let bytes = extent.position..end;
            if !is_whole(&[extent.bytes.slice((position - bytes.start) as usize..(end - bytes.start) as usize)]) {
                return Err(corrupt(place.segment.base, position));
            }
            let next_offset = head.last_offset.plus(1);
            let rest = &extent.bytes[(end - extent.position) as usize..];
            let next = if rest.len() < HEAD_BYTES { None } else { Some(Head::parse(rest)) };
            let Some(next) = next else { return Ok((end, next_offset)) };
            let next = next.filter(|next| next.base_offset == next_offset).ok_or(corrupt(place.segment.base, end))?;
            let taken = u64::from(end - place.position);
            if end.saturating_add(next.bytes) > extent.end() || !wish.accepts(&next, taken) {
                return Ok((end, next_offset));
            }
            (position, head) = (end, next);
        }
    }

    /// From a batch at or before `from` to the one that contains it. `None` at the log's end.
    async fn walk(self: &Rc<Self>, start: Start, from: Offset) -> Result<Option<Found>, LogError> {
        let Start { mut segment, mut position, mut expected } = start;
        loop {
            let size = {
                let state = self.state();
                state.alive()?;
                // Deleted by retention, or cut shorter, while we read.
                state.segment(segment).ok_or(LogError::OffsetOutOfRange)?.size
            };
            if position >= size {
                // The segment is over, and what was asked for lies behind it: nothing is missing in between.
                let state = self.state();
                let next = state.segments().iter().find(|it| it.base > segment.base);
                let follows = match expected {
                    Expected::First(offset) => next.map_or(state.end(), |next| next.base) == offset,
                    Expected::Last(_) => false,
                };
                if !follows || (next.is_none() && from < state.end()) {
                    return Err(corrupt(segment.base, position));
                }
                let Some(next) = next else { return Ok(None) };
                (segment, position, expected) = (next.id(), 0, Expected::First(next.base));
                continue;
            }
            let (head, extent) = self.head_at(segment, position, size, expected).await?;
            expected = Expected::First(head.last_offset.plus(1));
            if head.last_offset >= from {
                let place = Place { segment, position, head };
                let Some(extent) = extent else { return Ok(Some(Found { place, extent: None })) };
                let extent = if extent.end() < position.saturating_add(head.bytes) {
                    self.extent(segment, position, head.bytes).await?
                } else {
                    extent
                };
                return Ok(Some(Found { place, extent: Some(extent) }));
            }
            position += head.bytes;
        }
    }

    /// The head of the batch at a position, and what was read for it if it is not in memory.
    async fn head_at(
        self: &Rc<Self>,
        segment: SegmentId,
        position: u32,
        size: u32,
        expected: Expected,
    ) -> Result<(Head, Option<Extent>), LogError> {
        let in_memory = {
            let state = self.state();
            state.chunks().holds(segment, position).then(|| state.chunks().head(segment, position))
        };
        match in_memory {
            Some(head) => Ok((head.ok_or(corrupt(segment.base, position))?, None)),
            None => self.head_on_disk(segment, position, size, expected).await,
        }
    }

    /// The batches of a segment that lie wholly below `end`, as a segment of their own, and the offset behind them.
    pub(super) async fn front(self: &Rc<Self>, segment: SegmentId, end: Offset) -> Result<(Segment, Offset), LogError> {
        let (size, mut front) = {
            let state = self.state();
            let there = state.segment(segment).ok_or(LogError::OffsetOutOfRange)?;
            (there.size, Segment::new(segment.base, state.config()))
        };
        let mut next = segment.base;
        while front.size < size && next < end {
            let position = front.size;
            let (head, extent) = self.head_at(segment, position, size, Expected::First(next)).await?;
            if head.last_offset >= end {
                break;
            }
            let timestamp = self.max_timestamp_at(segment, position, extent).await?;
            front.append(head.bytes, head.last_offset, timestamp);
            next = head.last_offset.plus(1);
        }
        Ok((front, next))
    }

    /// The largest timestamp of the batch at a position, of which `extent` may have been read.
    async fn max_timestamp_at(
        self: &Rc<Self>,
        segment: SegmentId,
        position: u32,
        extent: Option<Extent>,
    ) -> Result<i64, LogError> {
        let bytes = match extent {
            Some(extent) if extent.end() >= position + MAX_TIMESTAMP_END => {
                let at = (position - extent.position) as usize;
                extent.bytes.slice(at..at + MAX_TIMESTAMP_END as usize).to_vec()
            }
            Some(_) | None => super::core::joined(&self.gather(segment, position, position + MAX_TIMESTAMP_END).await?),
        };
        Ok(i64::from_be_bytes(bytes[bytes.len() - 8..].try_into().expect("eight bytes")))
    }

    async fn head_on_disk(
        self: &Rc<Self>,
        segment: SegmentId,
        position: u32,
        size: u32,
        expected: Expected,
    ) -> Result<(Head, Option<Extent>), LogError> {
        let extent = self.extent(segment, position, HEAD_BYTES as u32).await?;
        // A file that is shorter than what was written to it has nothing here.
        let here = extent.bytes.get((position - extent.position) as usize..).unwrap_or_default();
        let head = if here.len() >= HEAD_BYTES {
            Head::parse(here)
        } else {
            let end = position.saturating_add(HEAD_BYTES as u32).min(size);
            let bytes: Vec<u8> = super::core::joined(&self.gather(segment, position, end).await?);
            Head::parse(&bytes)
        };
        // A length beyond the segment's end is damage too; following it would end in another batch's middle. Offsets lie
        // outside of the batch's sum.
        let fits = |head: &Head| {
            let as_expected = match expected {
                Expected::First(offset) => head.base_offset == offset,
                Expected::Last(offset) => head.last_offset == offset,
            };
            as_expected && position.checked_add(head.bytes).is_some_and(|end| end <= size)
        };
        match head.filter(fits) {
            Some(head) => Ok((head, Some(extent))),
            None => Err(corrupt(segment.base, position)),
        }
    }

    /// A stretch of the file that holds `position..position + at_least`, or as much of it as the file has.
    async fn extent(self: &Rc<Self>, segment: SegmentId, position: u32, at_least: u32) -> Result<Extent, LogError> {
        let key = self.key();
        let on_disk = self.on_disk(segment)?;
        let at_least = at_least.min(on_disk.saturating_sub(position));
        if let Some(extent) = self.core.cold.find(key, segment, position, at_least) {
            return Ok(extent);
        }
        let start = position / BLOCK_BYTES as u32 * BLOCK_BYTES as u32;
        let end = start.saturating_add(READ_BYTES).max(position.saturating_add(at_least)).min(on_disk);
        let bytes = self.read_file(segment, u64::from(start), end.saturating_sub(start) as usize).await?;
        let extent = Extent { key, segment, position: start, bytes };
        self.core.cold.insert(extent.clone());
        Ok(extent)
    }

    /// The position below which the segment's file has everything that memory does not.
    fn on_disk(&self, segment: SegmentId) -> Result<u32, LogError> {
        let state = self.state();
        let there = state.segment(segment).ok_or(LogError::OffsetOutOfRange)?;
        Ok(state.chunks().first_position(segment).unwrap_or(there.size).min(there.written))
    }

    /// `start..end` of a segment, some of it on disk and some in memory.
    async fn gather(self: &Rc<Self>, segment: SegmentId, start: u32, end: u32) -> Result<Vec<Slice>, LogError> {
        let border = self.on_disk(segment)?.clamp(start, end);
        let mut slices = Vec::new();
        if start < border {
            let extent = self.extent(segment, start, border - start).await?;
            let range = (start - extent.position) as usize..(border - extent.position) as usize;
            slices.push(lean(extent.bytes.slice(range)));
        }
        if border < end {
            let state = self.state();
            // Cut shorter while its front was read.
            state.segment(segment).ok_or(LogError::OffsetOutOfRange)?;
            if !state.chunks().holds(segment, border) || !state.chunks().holds(segment, end - 1) {
                return Err(corrupt(segment.base, border));
            }
            slices.extend(state.chunks().slices(segment, border, end));
        }
        Ok(slices)
    }

    /// Reads the next stretch while the last one is being sent.
    fn read_ahead(self: &Rc<Self>, segment: SegmentId, position: u32) {
        let Ok(on_disk) = self.on_disk(segment) else { return };
        let wanted = (READ_BYTES / 2).min(on_disk.saturating_sub(position));
        let cold = &self.core.cold;
        if wanted == 0 || cold.find(self.key(), segment, position, wanted).is_some() || !cold.begin_ahead(self.key()) {
            return;
        }
        let log = self.clone();
        self.core.io.spawner.spawn(async move {
            // Whoever needs these bytes reads again, and meets the error himself.
            let _ = log.extent(segment, position, wanted).await;
            log.core.cold.end_ahead(log.key());
        });
    }

    /// Bytes of a segment's file.
    pub(super) async fn read_file(&self, segment: SegmentId, position: u64, bytes: usize) -> Result<Slice, LogError> {
        let path = self.file(&file_name(segment.base, "log"));
        let mut tries = 0;
        let read = loop {
            let read = self.core.files.patiently(async || {
                let file = self.core.files.open(self.key(), segment, &path, false).await?;
                file.read(position, bytes).await
            });
            match read.await {
                // Not for a short file, which has no more bytes for whoever asks again.
                Err(error) if tries < READ_TRIES_MAX && error.kind() != io::ErrorKind::UnexpectedEof => {
                    tries += 1;
                    tracing::warn!(path = %path.display(), position, %error, "a read failed and is tried again");
                    self.core.files.forget(self.key(), Some(segment));
                }
                read => break read,
            }
        };
        // Deleted or cut shorter meanwhile: then the file may be gone, or the name may be a newer topic's.
        let state = self.state();
        state.alive()?;
        state.segment(segment).ok_or(LogError::OffsetOutOfRange)?;
        // Whatever it is: there is no waiting for room to read.
        read.map_err(|error| LogError::at(&path, &error))
    }

    /// The segment and the position where the search for `from` begins.
    async fn look_up(self: &Rc<Self>, from: Offset) -> Result<Start, LogError> {
        let (segment, entry) = {
            let state = self.segment_is_there(from)?;
            let segment = &state.segments()[state.segment_of(from)];
            let offset = relative(segment.base, from).unwrap_or(u32::MAX);
            (segment.id(), segment.index.as_ref().map(|index| index.entry(offset)))
        };
        let entry = match entry {
            Some(entry) => entry,
            None => self.sealed_index(segment).await?.entry(relative(segment.base, from).unwrap_or(u32::MAX)),
        };
        Ok(Start::at(segment, entry))
    }

    /// The state in which the segment of `from` can be looked up. The front may have gone since the read began, and the search
    /// would find what comes behind.
    fn segment_is_there(&self, from: Offset) -> Result<Ref<'_, Placing>, LogError> {
        let state = self.state();
        if from < state.log_start() { Err(LogError::OffsetOutOfRange) } else { Ok(state) }
    }

    /// As [`look_up`](Self::look_up), but trusts no index that lay on the disk.
    async fn look_up_anew(self: &Rc<Self>, from: Offset) -> Result<Start, LogError> {
        let (segment, size, in_memory, interval) = {
            let state = self.segment_is_there(from)?;
            let segment = &state.segments()[state.segment_of(from)];
            (segment.id(), segment.size, segment.index.is_some(), state.config().index_interval_bytes)
        };
        if in_memory {
            return self.look_up(from).await;
        }
        let index = Rc::new(self.scan_index(segment, size, interval).await?);
        self.core.cold.keep_index(self.key(), segment, index.clone());
        Ok(Start::at(segment, index.entry(relative(segment.base, from).unwrap_or(u32::MAX))))
    }

    /// The index of a finished segment: from its files, or by reading the segment if they are no use.
    pub(super) async fn sealed_index(self: &Rc<Self>, segment: SegmentId) -> Result<Rc<SegmentIndex>, LogError> {
        if let Some(index) = self.core.cold.index(self.key(), segment) {
            return Ok(index);
        }
        let (size, sum, interval) = {
            let state = self.state();
            let there = state.segment(segment).ok_or(LogError::OffsetOutOfRange)?;
            (there.size, there.index_crc, state.config().index_interval_bytes)
        };
        let disk = &self.core.io.disk;
        let offsets = disk.read_file(&self.file(&file_name(segment.base, "index"))).await.unwrap_or_default();
        let times = disk.read_file(&self.file(&file_name(segment.base, "timeindex"))).await.unwrap_or_default();
        let index = SegmentIndex::from_files(&offsets, &times, size, interval).filter(|index| match sum {
            // A wrong entry leads into the middle of a batch, or past the record that was asked for.
            Some(sum) => SegmentIndex::sum(&offsets, &times) == sum,
            // An empty file beside a large segment is what a crash of somebody else leaves.
            None => !index.is_empty() || size < READ_BYTES,
        });
        let index = match index {
            Some(index) => index,
            None => self.scan_index(segment, size, interval).await?,
        };
        let index = Rc::new(index);
        self.core.cold.keep_index(self.key(), segment, index.clone());
        Ok(index)
    }

    /// Builds an index by walking over the whole segment.
    async fn scan_index(
        self: &Rc<Self>,
        segment: SegmentId,
        size: u32,
        interval: u32,
    ) -> Result<SegmentIndex, LogError> {
        tracing::warn!(segment = %self.file(&file_name(segment.base, "log")).display(), "the index is no use and is rebuilt");
        let mut index = SegmentIndex::new(interval);
        let mut largest = (crate::log::index::NO_TIMESTAMP, 0);
        let mut position = 0;
        let mut next = segment.base;
        while position < size {
            let (head, extent) = self.head_on_disk(segment, position, size, Expected::First(next)).await?;
            let last = relative(segment.base, head.last_offset).ok_or(corrupt(segment.base, position))?;
            next = head.last_offset.plus(1);
            let end = position + head.bytes;
            let timestamp = self.max_timestamp_at(segment, position, extent).await?;
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

impl Start {
    /// Where an index entry leads; without one, to the segment's front.
    fn at(segment: SegmentId, entry: Option<(u32, u32)>) -> Self {
        let (position, expected) = match entry {
            Some((last_offset, position)) => (position, Expected::Last(segment.base.plus(i64::from(last_offset)))),
            None => (0, Expected::First(segment.base)),
        };
        Self { segment, position, expected }
    }
}

fn corrupt(segment: Offset, position: u32) -> LogError {
    LogError::Corrupt { segment, position: u64::from(position) }
}

/// Whether one batch, in as many pieces as it lies in, is what was written: its format and its sum.
fn is_whole(pieces: &[Slice]) -> bool {
    let Some(head) = pieces.first().and_then(|first| first.first_chunk::<SUMMED_FROM>()) else {
        // The front of a batch is split over memory and disk.
        return batch_is_whole(&super::core::joined(pieces));
    };
    let sum = crc32c::crc32c(&pieces[0][SUMMED_FROM..]);
    let sum = pieces[1..].iter().fold(sum, |sum, piece| crc32c::crc32c_append(sum, piece));
    head[MAGIC_AT] == 2 && head[MAGIC_AT + 1..] == sum.to_be_bytes()
}

fn batch_is_whole(bytes: &[u8]) -> bool {
    bytes.get(MAGIC_AT) == Some(&2) && batch::crc_ok(bytes)
}

/// Where a batch has the number of its format; its sum follows, and then what is summed.
const MAGIC_AT: usize = 16;
const SUMMED_FROM: usize = MAGIC_AT + 1 + 4;

/// What is answered may be held for long: a small part of what was read at once is copied, so that it does not keep all of it.
fn lean(part: Slice) -> Slice {
    if part.len() * HELD_FACTOR >= part.held_bytes() {
        return part;
    }
    copied(part.len());
    part.to_vec().into()
}

/// Where a batch's largest timestamp ends.
const MAX_TIMESTAMP_END: u32 = 43;

/// Batches that are all in memory, from `place` on.
fn from_memory(chunks: &Chunks, place: &Place, wish: Wish) -> Read {
    if !wish.accepts(&place.head, 0) {
        return Read::default();
    }
    let segment = place.segment;
    let mut end = place.position + place.head.bytes;
    // Marks lead past most of the small batches; those before a mark lie below it.
    let limit = (u64::from(place.position) + wish.max_bytes as u64).min(u64::from(u32::MAX)) as u32;
    if let Some((_, position)) = chunks.mark_before(segment, limit, wish.upto) {
        end = end.max(position);
    }
    while let Some(head) = chunks.head(segment, end) {
        if !wish.accepts(&head, u64::from(end - place.position)) {
            break;
        }
        end += head.bytes;
    }
    let slices = chunks.slices(segment, place.position, end);
    Read { slices, bytes: (end - place.position) as usize }
}
