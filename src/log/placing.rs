//! Where a partition's batches lie: the line of its segments, and of its chunks in memory. Synchronous, and without the core:
//! what a change brings with it for the core's books and lists is a value, [`CoreChanges`].

mod cut;
mod look;

use std::{
    collections::VecDeque,
    rc::Rc,
    task::{Poll, Waker},
};

use crate::{
    base::{Offset, PartitionKey, Timestamp, copied},
    io::Buffer,
    log::{
        chunk::{Chunk, Chunks},
        image::{LogImage, SegmentImage},
        journal::entry::{AppendHead, Entry},
        segment::{Segment, SegmentId},
        settings::{BLOCK_BYTES, LogConfig, LogError},
    },
    protocol::batch::BatchInfo,
};

/// Base offset, length and leader epoch: the part of a batch that is stamped.
pub const STAMP_BYTES: usize = 16;

/// What a change brings with it for the books and the lists of the core.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct CoreChanges {
    /// Bytes of the disk that have to be promised, and those that need not be any more.
    pub promised: u64,
    pub unpromised: u64,
    /// Capacity of chunks made and dropped.
    pub made: usize,
    pub dropped: usize,
    /// Bytes that no segment holds yet, and those that one holds by now or that nobody wants.
    pub dirtied: usize,
    pub cleaned: usize,
    /// The lists that the log is to be put on.
    pub list_dirty: bool,
    pub list_full: bool,
    pub list_flushed: bool,
    pub list_evictable: bool,
}

/// A partition's state in memory.
pub struct Placing {
    key: PartitionKey,
    config: LogConfig,
    log_start: Offset,
    /// A log start that the journal has heard of, but perhaps not durably.
    announced_start: Offset,
    end: Offset,
    durable: Offset,
    /// Ascending; there is always an active one, the last.
    segments: VecDeque<Segment>,
    chunks: Chunks,
    /// Reservations that have not become appends: bytes and number.
    reserved_bytes: usize,
    reservations: usize,
    waiters: Vec<(Offset, Waker)>,
    /// Of the segment that was cut shorter or replaced last.
    generation: u32,
    /// How often the log was cut.
    cuts: u64,
    /// The journal has not heard durably yet that the log was cut: what comes behind the cut is written over what was there.
    cutting: bool,
    /// Segments that were cut off may lie in the directory under their names still.
    has_cut_off: bool,
    dead: Option<LogError>,
    has_directory: bool,
    /// In the core's list of logs that a checkpoint must cover.
    listed_dirty: bool,
    listed_full: bool,
    listed_flushed: bool,
    listed_tail: bool,
    /// The image that the last checkpoint holds.
    encoded: Option<Rc<[u8]>>,
    /// Kafka's side files do not tell the truth any more.
    exports_stale: bool,
    /// Leftovers of an earlier life in the directory have been looked for.
    swept: bool,
}

/// A batch that was put where it belongs.
pub struct Placed {
    /// What the journal hears before it, if a new segment was begun.
    pub seal: Option<Entry<'static>>,
    pub head: AppendHead,
    pub changes: CoreChanges,
}

impl CoreChanges {
    /// Both of them.
    pub fn with(mut self, other: Self) -> Self {
        self.promised += other.promised;
        self.unpromised += other.unpromised;
        self.made += other.made;
        self.dropped += other.dropped;
        self.dirtied += other.dirtied;
        self.cleaned += other.cleaned;
        self.list_dirty |= other.list_dirty;
        self.list_full |= other.list_full;
        self.list_flushed |= other.list_flushed;
        self.list_evictable |= other.list_evictable;
        self
    }
}

impl Placing {
    /// A log with these segments, all of which lie in their files.
    pub fn new(
        key: PartitionKey,
        config: LogConfig,
        (log_start, end): (Offset, Offset),
        has_directory: bool,
        mut segments: VecDeque<Segment>,
    ) -> Self {
        // An active segment without a batch is in no image.
        if segments.back().is_none_or(|last| last.sealed) {
            segments.push_back(Segment::new(end, &config));
        }
        Self {
            key,
            config,
            log_start,
            announced_start: log_start,
            end,
            durable: end,
            segments,
            chunks: Chunks::default(),
            reserved_bytes: 0,
            reservations: 0,
            waiters: Vec::new(),
            generation: 0,
            cuts: 0,
            cutting: false,
            has_cut_off: false,
            dead: None,
            has_directory,
            listed_dirty: false,
            listed_full: false,
            listed_flushed: false,
            listed_tail: false,
            encoded: None,
            exports_stale: false,
            swept: false,
        }
    }

    fn active_mut(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("there is always an active segment")
    }

    fn segment_mut(&mut self, id: SegmentId) -> Option<&mut Segment> {
        self.segments.iter_mut().find(|segment| segment.id() == id)
    }

    /// Puts a batch behind the others, in a new segment if the active one has had enough.
    pub fn append(&mut self, batch: &[u8], info: &BatchInfo, allocate: impl FnMut(usize) -> Buffer) -> Placed {
        assert!(info.base_offset >= self.end, "offsets only grow");
        let (mut seal, mut changes) = (None, CoreChanges::default());
        let config = self.config.clone();
        if self.active().must_roll(info.bytes, info.last_offset, info.max_timestamp, &config) {
            let active = self.active();
            let (segment_base, length) = (active.base, active.size);
            seal = Some(Entry::Seal { key: self.key, segment_base, length, next_base: info.base_offset });
            changes = self.seal_active(info.base_offset);
        }
        let (head, placed) = self.place(batch, info, allocate);
        Placed { seal, head, changes: changes.with(placed) }
    }

    /// Puts the batch into segment and chunks; the first of the two copies.
    fn place(
        &mut self,
        batch: &[u8],
        info: &BatchInfo,
        mut allocate: impl FnMut(usize) -> Buffer,
    ) -> (AppendHead, CoreChanges) {
        let position = self.active_mut().append(info.bytes, info.last_offset, info.max_timestamp);
        let segment = self.active().id();
        let stamp = stamp(batch, info);
        let pieces: [&[u8]; 2] = [&stamp, &batch[STAMP_BYTES..]];
        let mut made = 0;
        self.chunks.append((segment, position), info.base_offset, pieces, |capacity| {
            made += capacity;
            allocate(capacity)
        });
        copied(batch.len());
        self.end = info.last_offset.plus(1);
        let head = AppendHead {
            key: self.key,
            base_offset: info.base_offset,
            leader_epoch: info.leader_epoch,
            segment_base: segment.base,
            position,
            length: info.bytes,
        };
        (head, CoreChanges { made, dirtied: batch.len(), ..self.list() })
    }

    /// Places a batch of the journal at exactly the place where it was.
    pub fn replay(
        &mut self,
        head: &AppendHead,
        batch: &[u8],
        info: &BatchInfo,
        allocate: impl FnMut(usize) -> Buffer,
    ) -> Result<CoreChanges, LogError> {
        let begins = head.segment_base != self.active().base;
        let position = if begins { 0 } else { self.active().size };
        let follows = info.base_offset >= self.end && (!begins || head.segment_base >= self.end);
        if head.position != position || !follows {
            return Err(LogError::Corrupt { segment: head.segment_base, position: u64::from(head.position) });
        }
        let changes = if begins { self.seal_active(head.segment_base) } else { CoreChanges::default() };
        let (_, placed) = self.place(batch, info, allocate);
        self.durable = self.end;
        Ok(changes.with(placed))
    }

    /// As [`replay`](Self::replay), for a batch whose segment has been deleted since.
    pub fn replay_gone(&mut self, head: &AppendHead, end: Offset) -> Result<(), LogError> {
        // What comes before a deleted segment is deleted as well.
        if self.active().size > 0 {
            return Err(LogError::Corrupt { segment: head.segment_base, position: u64::from(head.position) });
        }
        *self.active_mut() = self.fresh_segment(end);
        self.end = end;
        self.durable = end;
        Ok(())
    }

    /// A segment without a batch, which none of its place has been before.
    fn fresh_segment(&self, base: Offset) -> Segment {
        Segment { generation: self.generation, ..Segment::new(base, &self.config) }
    }

    /// Begins a new segment.
    pub fn seal_active(&mut self, next_base: Offset) -> CoreChanges {
        if self.active().size == 0 {
            // An empty segment has no file and no name yet.
            let promised = self.active().promised;
            *self.active_mut() = Segment { promised, ..self.fresh_segment(next_base) };
            return CoreChanges::default();
        }
        let active = self.active_mut();
        active.sealed = true;
        let largest = (active.largest.0, active.largest.1.since(active.base) as u32);
        if let Some(index) = &mut active.index {
            index.finish(largest);
        }
        // What was promised beyond the segment's end is not needed there, but in the next one by those who have reserved.
        let before = active.outstanding();
        active.promised = active.promised.min(in_blocks(u64::from(active.size)));
        let unpromised = before - active.outstanding();
        let promised = in_blocks(self.reserved_bytes as u64);
        let segment = Segment { promised, ..self.fresh_segment(next_base) };
        self.segments.push_back(segment);
        let listed = self.list();
        CoreChanges { promised, unpromised, list_full: listed.list_full || self.list_full(), ..listed }
    }

    /// Puts the log on the core's lists of what destaging has to look at.
    pub fn list(&mut self) -> CoreChanges {
        self.exports_stale = true;
        let list_dirty = !std::mem::replace(&mut self.listed_dirty, true);
        let full = self.chunks.0.iter().rev().take(2).any(|chunk| chunk.is_full() && !chunk.is_clean());
        CoreChanges { list_dirty, list_full: full && self.list_full(), ..CoreChanges::default() }
    }

    fn list_full(&mut self) -> bool {
        !std::mem::replace(&mut self.listed_full, true)
    }

    /// Everything below `end` counts: a block of the journal has become durable. Wakes those who waited for it.
    pub fn journaled(&mut self, end: Offset) -> CoreChanges {
        self.durable = self.durable.max(end);
        let durable = self.durable;
        let (ready, waiting) = self.waiters.drain(..).partition(|(offset, _)| *offset <= durable);
        self.waiters = waiting;
        let ready: Vec<(Offset, Waker)> = ready;
        ready.into_iter().for_each(|(_, waker)| waker.wake());
        CoreChanges { list_flushed: !std::mem::replace(&mut self.listed_flushed, true), ..CoreChanges::default() }
    }

    /// News of the durable end, taken off the list of those that have such.
    pub fn take_flushed(&mut self) -> (PartitionKey, Offset) {
        self.listed_flushed = false;
        (self.key, self.durable)
    }

    /// Whether everything below `end` counts, or did when the log was cut; `cuts` is how often it had been cut when there was as
    /// much. If not yet, `waker` is woken when it does.
    pub fn poll_durable(&mut self, end: Offset, cuts: Option<u64>, waker: &Waker) -> Poll<Result<(), LogError>> {
        // A log is cut when all of it is durable. What comes in the place of what was cut off is nobody's answer.
        if self.durable >= end || cuts.is_some_and(|cuts| cuts != self.cuts) {
            return Poll::Ready(Ok(()));
        }
        // What an offline partition has in the journal's flight counts when it is there: it goes into the rescue file.
        let on_its_way = end <= self.end && !matches!(self.dead, Some(LogError::Deleted | LogError::Stopping));
        if let (Err(error), false) = (self.alive(), on_its_way) {
            return Poll::Ready(Err(error));
        }
        if !self.waiters.iter().any(|(offset, other)| *offset == end && other.will_wake(waker)) {
            self.waiters.push((end, waker.clone()));
        }
        Poll::Pending
    }

    /// A reservation for an append of `bytes`, for which `growth` bytes of the disk have been promised.
    pub fn reserve(&mut self, bytes: usize, growth: u64) {
        if growth > 0 {
            let active = self.active_mut();
            active.promised = active.promised.max(active.allocated) + growth;
        }
        self.reserved_bytes += bytes;
        self.reservations += 1;
    }

    /// A reservation has become an append or is not wanted: what was promised for it beyond what is needed is given back.
    pub fn release(&mut self, bytes: usize) -> CoreChanges {
        self.reserved_bytes -= bytes;
        self.reservations -= 1;
        let needed = if self.dead.is_some() { 0 } else { u64::from(self.active().size) + self.reserved_bytes as u64 };
        let active = self.active_mut();
        let before = active.outstanding();
        active.need_no_more_than(needed);
        CoreChanges { unpromised: before - active.outstanding(), ..CoreChanges::default() }
    }

    /// The log was cut: no append until [`end_cut`](Self::end_cut). Returns which one of its cuts it is.
    pub fn begin_cut(&mut self) -> u64 {
        self.cutting = true;
        self.cuts
    }

    /// The journal has the cut.
    pub fn end_cut(&mut self) {
        self.cutting = false;
    }

    /// Whether segments that were cut off may have their names still.
    pub fn names_are_left(&mut self, left: bool) {
        self.has_cut_off = left;
    }

    pub fn set_config(&mut self, config: LogConfig) {
        self.config = config;
    }

    /// Keeps the tail in memory, as a reservation does.
    pub fn pin(&mut self) {
        self.reservations += 1;
    }

    pub fn unpin(&mut self) {
        self.reservations -= 1;
    }

    /// The journal hears of a log start.
    pub fn announce_start(&mut self, start: Offset) -> CoreChanges {
        self.announced_start = self.announced_start.max(start);
        self.list()
    }

    /// The journal has the log start.
    pub fn move_start(&mut self, start: Offset) {
        self.log_start = self.log_start.max(start);
        self.announced_start = self.announced_start.max(self.log_start);
    }

    pub fn made_directory(&mut self) {
        self.has_directory = true;
    }

    /// The directory is looked through for what an earlier life has left.
    pub fn begin_sweep(&mut self) {
        self.swept = true;
    }

    /// The next checkpoint says this of the log.
    pub fn keep_encoded(&mut self, image: Vec<u8>) {
        self.encoded = Some(image.into());
    }

    /// The log is on the core's list no more.
    pub fn taken_off_dirty(&mut self) {
        self.listed_dirty = false;
    }

    pub fn taken_off_full(&mut self) {
        self.listed_full = false;
    }

    /// A sealed segment's file has its length, and its index files are there, of which this is the sum.
    pub fn finished(&mut self, segment: SegmentId, index_crc: Option<u32>) {
        if let Some(segment) = self.segment_mut(segment) {
            segment.finished = true;
            segment.index_crc = index_crc;
            segment.index = None;
        }
    }

    /// When a segment's file was written to last. False if it has been, or will be, since somebody looked.
    pub fn note_modified(&mut self, segment: SegmentId, modified: Timestamp) -> bool {
        match self.segment_mut(segment).filter(|segment| segment.written == segment.size) {
            Some(segment) => {
                segment.modified = Some(modified);
                true
            }
            None => false,
        }
    }

    /// Ends the log's life. Whoever waited is woken to hear why.
    pub fn end_life(&mut self, why: LogError) -> CoreChanges {
        self.dead = Some(why);
        self.waiters.drain(..).for_each(|(_, waker)| waker.wake());
        CoreChanges { unpromised: give_up_promises(self.segments.iter_mut()), ..CoreChanges::default() }
    }

    /// Drops what is in memory.
    pub fn drop_chunks(&mut self) -> CoreChanges {
        drop_chunks(self.chunks.0.drain(..))
    }

    /// Drops the oldest chunk if it is in its segment and nobody is about to write behind it. It is listed again if it may go
    /// later: what is dirty now is listed when it has been written, and must be, so it is not listed any more.
    pub fn evict_front(&mut self) -> CoreChanges {
        let last = self.chunks.0.len() == 1;
        let Some(front) = self.chunks.0.front() else { return CoreChanges::default() };
        let (clean, dropped) = (front.is_clean(), front.capacity());
        if clean && last && !front.is_full() && self.reservations > 0 {
            return CoreChanges { list_evictable: true, ..CoreChanges::default() };
        }
        if last {
            self.listed_tail = false;
        }
        if !clean {
            return CoreChanges::default();
        }
        if last {
            // It will be read, and written again with more behind it.
            let crc = self.chunks.tail_crc(self.active().id(), self.active().size);
            self.active_mut().tail_crc = crc;
        }
        self.chunks.0.pop_front();
        CoreChanges { dropped, ..CoreChanges::default() }
    }

    /// A tail that is in its segment may be evicted, once it is listed; nothing else lists one that was only read.
    pub fn list_clean_tail(&mut self) -> CoreChanges {
        let clean = self.chunks.0.back().is_some_and(|tail| tail.is_clean() && !tail.is_full());
        CoreChanges {
            list_evictable: clean && !std::mem::replace(&mut self.listed_tail, true),
            ..CoreChanges::default()
        }
    }

    /// The block in which a segment ends, read from its file: the next batch can be put behind it. Nothing if the segment is
    /// not the active one of that size any more.
    pub fn load_tail(
        &mut self,
        segment: SegmentId,
        size: u32,
        bytes: &[u8],
        allocate: impl FnOnce(usize) -> Buffer,
    ) -> CoreChanges {
        let unchanged = self.active().id() == segment && self.active().size == size && self.dead.is_none();
        if !unchanged || self.tail_is_loaded() {
            return CoreChanges::default();
        }
        let mut buffer = allocate(BLOCK_BYTES);
        buffer.as_mut()[..bytes.len()].copy_from_slice(bytes);
        copied(bytes.len());
        self.chunks.0.push_back(Chunk::new(segment, size - bytes.len() as u32, buffer, bytes.len(), self.end));
        CoreChanges { made: BLOCK_BYTES, ..CoreChanges::default() }
    }

    /// `upto` bytes of the chunk lie in its segment's file.
    pub fn wrote(&mut self, segment: SegmentId, chunk_start: u32, upto: usize) -> CoreChanges {
        let found = self.chunks.0.iter_mut().find(|chunk| (chunk.segment, chunk.start) == (segment, chunk_start));
        let Some(chunk) = found else { return CoreChanges::default() };
        let cleaned = upto.saturating_sub(chunk.written);
        chunk.written = chunk.written.max(upto);
        let (end, full, clean) = (chunk.start + chunk.written as u32, chunk.is_full(), chunk.is_clean());
        if let Some(segment) = self.segment_mut(segment) {
            segment.written = segment.written.max(end);
        }
        let last = self.active().id() == segment && !full;
        let list_evictable = if last { clean && !std::mem::replace(&mut self.listed_tail, true) } else { clean };
        CoreChanges { cleaned, list_evictable, ..CoreChanges::default() }
    }

    /// The file of a segment is `length` bytes long now. Returns what of its promise that has kept, beside the changes.
    pub fn allocated(&mut self, segment: SegmentId, length: u64) -> (u64, CoreChanges) {
        let Some(segment) = self.segment_mut(segment) else { return (0, CoreChanges::default()) };
        let before = segment.outstanding();
        segment.allocated = length;
        if segment.finished {
            segment.promised = 0;
        }
        let after = segment.outstanding();
        (before.saturating_sub(after), CoreChanges { promised: after.saturating_sub(before), ..CoreChanges::default() })
    }

    /// Takes out the segments that lie wholly below the log start. The active one stays unless all of it is below, and then
    /// gives way to an empty one.
    pub fn forget_segments(&mut self) -> (Vec<Segment>, CoreChanges) {
        let (start, end) = (self.log_start, self.end);
        let mut changes = CoreChanges::default();
        // What a cut has taken from the active segment lies in its file until the journal has the cut.
        if start == end && self.active().size > 0 && self.reservations == 0 && !self.cutting {
            changes = self.seal_active(end);
        }
        let mut gone: Vec<Segment> = Vec::new();
        while self.segments.len() > 1 && self.segments[1].base <= start {
            gone.extend(self.segments.pop_front());
        }
        let first = self.segments[0].base;
        let below = self.chunks.0.partition_point(|chunk| chunk.segment.base < first);
        let unpromised = give_up_promises(gone.iter_mut());
        let dropped = CoreChanges { unpromised, ..drop_chunks(self.chunks.0.drain(..below)) };
        (gone, changes.with(dropped))
    }

    /// The log as it is in memory now. `state` is what the partition's rules know.
    pub fn image(&self, name: &str, state: Vec<u8>) -> LogImage {
        let active = self.active().id();
        let image = |segment: &Segment| {
            let mut image = SegmentImage::of(segment);
            if segment.id() == active {
                image.tail_crc = self.chunks.tail_crc(active, segment.size).or(image.tail_crc);
            }
            image
        };
        LogImage {
            key: self.key,
            name: name.to_owned(),
            log_start: self.announced_start,
            log_end: self.end,
            has_directory: self.has_directory,
            has_cut_off: self.has_cut_off,
            segments: self.segments.iter().filter(|segment| segment.size > 0).map(image).collect(),
            state,
            rescue: None,
        }
    }
}

fn drop_chunks(chunks: impl Iterator<Item = Chunk>) -> CoreChanges {
    chunks.fold(CoreChanges::default(), |changes, chunk| CoreChanges {
        dropped: changes.dropped + chunk.capacity(),
        cleaned: changes.cleaned + chunk.tail.published() - chunk.written,
        ..changes
    })
}

/// Segments that have left the log need no room any more.
fn give_up_promises<'a>(segments: impl Iterator<Item = &'a mut Segment>) -> u64 {
    segments
        .map(|segment| {
            let outstanding = segment.outstanding();
            segment.promised = 0;
            outstanding
        })
        .sum()
}

pub fn in_blocks(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES as u64)
}

/// The front of the batch with its final offset and epoch. Both lie outside of the batch's CRC.
pub fn stamp(batch: &[u8], info: &BatchInfo) -> [u8; STAMP_BYTES] {
    let mut stamp = [0; STAMP_BYTES];
    stamp[0..8].copy_from_slice(&info.base_offset.0.to_be_bytes());
    stamp[8..12].copy_from_slice(&batch[8..12]);
    stamp[12..16].copy_from_slice(&info.leader_epoch.0.to_be_bytes());
    stamp
}
