//! A log that becomes shorter at its end, or whose segments are replaced: what was in their places before must not be taken for
//! what comes there now.

use std::collections::VecDeque;

use super::{CoreChanges, Placing, drop_chunks, give_up_promises};
use crate::{
    base::Offset,
    io::Buffer,
    log::{
        chunk::Chunk,
        segment::{Segment, SegmentId},
    },
};

impl Placing {
    /// Ends the log at `end`. `front` has the batches of the segment `of` that stay, as if no others had ever come, and becomes
    /// the active segment. Returns the segments that are gone as a whole. `None` if `of` is not what it was when `front` was
    /// made, or if something of the log is on its way to the journal: what becomes durable there would count for what comes
    /// in its place.
    pub fn truncate(
        &mut self,
        of: SegmentId,
        front: Segment,
        end: Offset,
        allocate: impl FnOnce(usize) -> Buffer,
    ) -> Option<(Vec<Segment>, CoreChanges)> {
        let index = self.segments.iter().position(|segment| segment.id() == of)?;
        let there = &self.segments[index];
        let is_still = self.durable == self.end && self.reservations == 0 && !self.cutting;
        if !is_still || front.size > there.size || end > self.end {
            return None;
        }
        self.generation += 1;
        self.cuts += 1;
        let kept = Segment {
            generation: self.generation,
            written: there.written.min(front.size),
            allocated: there.allocated,
            promised: there.promised,
            ..front
        };
        let (cut, id) = (kept.size, kept.id());
        let mut gone: Vec<Segment> = self.segments.drain(index..).collect();
        if cut > 0 {
            gone.remove(0);
            self.segments.push_back(kept);
        } else {
            // A segment without a batch has no file.
            self.segments.push_back(self.fresh_segment(end));
        }
        let chunks = self.cut_chunks(of, id, cut, allocate);
        self.end = end;
        self.durable = end;
        self.has_cut_off |= gone.iter().any(|segment| segment.written > 0);
        let unpromised = give_up_promises(gone.iter_mut());
        Some((gone, CoreChanges { unpromised, ..chunks.with(self.list()).with(self.list_clean_tail()) }))
    }

    /// Whether all of the log is in its segments.
    pub fn is_clean(&self) -> bool {
        self.chunks.0.iter().all(Chunk::is_clean)
    }

    /// Drops what is in memory of the segment `of` from `cut` on, and of later ones. What stays is the segment's `id`.
    fn cut_chunks(
        &mut self,
        of: SegmentId,
        id: SegmentId,
        cut: u32,
        allocate: impl FnOnce(usize) -> Buffer,
    ) -> CoreChanges {
        let first = self.chunks.0.partition_point(|chunk| (chunk.segment, chunk.start) < (of, cut));
        let mut changes = drop_chunks(self.chunks.0.drain(first..));
        self.chunks.0.iter_mut().filter(|chunk| chunk.segment == of).for_each(|chunk| chunk.segment = id);
        if let Some(last) = self.chunks.0.pop_back_if(|last| last.segment == id && last.end() > cut) {
            let kept = last.cut(id, cut, allocate);
            changes.made = kept.capacity();
            changes.dirtied = kept.tail.published() - kept.written;
            self.chunks.0.push_back(kept);
            changes = changes.with(drop_chunks(std::iter::once(last)));
        }
        changes
    }

    /// Puts finished segments in the place of others that follow one another and are finished as well. Returns those. `None`
    /// if they are not what they were.
    #[cfg_attr(not(test), expect(dead_code, reason = "nothing compacts yet; tests hold the seam"))]
    pub fn replace(&mut self, old: &[SegmentId], new: Vec<Segment>) -> Option<(Vec<Segment>, CoreChanges)> {
        let first = self.segments.iter().position(|segment| Some(&segment.id()) == old.first())?;
        let range = first..first + old.len();
        let are_there = range.end < self.segments.len()
            && self.segments.range(range.clone()).zip(old).all(|(segment, id)| segment.id() == *id && segment.finished);
        let (begin, end) = (self.segments[first].base, self.segments.get(range.end)?.base);
        let fit = new.iter().all(|segment| segment.finished && begin <= segment.base && segment.base < end);
        if !are_there || !fit {
            return None;
        }
        self.generation += 1;
        let generation = self.generation;
        let mut behind = self.segments.split_off(range.end);
        let mut gone: Vec<Segment> = self.segments.drain(first..).collect();
        self.segments.extend(new.into_iter().map(|segment| Segment { generation, ..segment }));
        self.segments.append(&mut behind);
        let (mut chunks, mut kept) = (Vec::new(), VecDeque::new());
        for chunk in self.chunks.0.drain(..) {
            if old.contains(&chunk.segment) { chunks.push(chunk) } else { kept.push_back(chunk) }
        }
        self.chunks.0 = kept;
        let unpromised = give_up_promises(gone.iter_mut());
        Some((gone, CoreChanges { unpromised, ..drop_chunks(chunks.into_iter()).with(self.list()) }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::{
        base::{LeaderEpoch, PartitionKey, TopicId},
        io::{Io, sim::Simulation},
        log::settings::LogConfig,
        protocol::batch::{BatchBuilder, BatchHeader, BatchInfo, stamp},
    };

    const SCHEDULES: u64 = 300;
    const STEPS: u64 = 120;

    /// A placing, and what is known of it by other means.
    struct Rig {
        io: Io,
        placing: Placing,
        /// The batches in order, with their segments' first offsets.
        batches: Vec<(Offset, BatchInfo, Bytes)>,
        /// The longest that was ever seen of each segment.
        seen: BTreeMap<SegmentId, Vec<u8>>,
        promised: u64,
        chunks: usize,
        dirty: usize,
        made: u64,
    }

    impl Rig {
        fn new(io: &Io) -> Self {
            let key = PartitionKey { topic_id: TopicId(Uuid::from_u128(9)), partition: 0 };
            let config = LogConfig { segment_bytes: 9000, ..LogConfig::default() };
            let placing = Placing::new(key, config, (Offset::ZERO, Offset::ZERO), false, VecDeque::new());
            let (batches, seen) = (Vec::new(), BTreeMap::new());
            Self { io: io.clone(), placing, batches, seen, promised: 0, chunks: 0, dirty: 0, made: 0 }
        }

        fn settle(&mut self, changes: CoreChanges) {
            self.promised = self.promised + changes.promised - changes.unpromised;
            self.chunks = self.chunks + changes.made - changes.dropped;
            self.dirty = self.dirty + changes.dirtied - changes.cleaned;
        }

        fn append(&mut self) {
            // Like none before: what is read in a wrong place is seen.
            self.made += 1;
            let mut batch = BatchBuilder::new();
            let size = 20 + self.io.rand.below(3000) as usize;
            batch.push(self.made as i64, Some(&self.made.to_be_bytes()), Some(&vec![self.made as u8; size]));
            let batch = batch.build();
            if !self.placing.tail_is_loaded() {
                self.load_tail();
            }
            let info = BatchInfo::of(&BatchHeader::parse(&batch).unwrap()).at(self.placing.end, LeaderEpoch(1));
            let io = self.io.clone();
            let placed = self.placing.append(&batch, &info, |capacity| io.disk.allocate(capacity));
            self.settle(placed.changes);
            let mut stamped = batch.to_vec();
            stamp(&mut stamped, info.base_offset, LeaderEpoch(1));
            self.batches.push((placed.head.segment_base, info, stamped.into()));
            self.placing.durable = self.placing.end;
        }

        /// The bytes of a segment as they must be.
        fn bytes(&self, base: Offset) -> Vec<u8> {
            let ours = self.batches.iter().filter(|(segment, ..)| *segment == base);
            ours.map(|(.., bytes)| &bytes[..]).collect::<Vec<_>>().concat()
        }

        fn load_tail(&mut self) {
            let (id, size) = (self.placing.active().id(), self.placing.active().size);
            let bytes = self.bytes(id.base);
            let io = self.io.clone();
            let tail = &bytes[size as usize / 4096 * 4096..];
            let changes = self.placing.load_tail(id, size, tail, |capacity| io.disk.allocate(capacity));
            self.settle(changes);
        }

        /// Everything, or a part, is written.
        fn write(&mut self) {
            let dirty = self.placing.chunks.0.iter().find(|chunk| !chunk.is_clean());
            let Some((id, start, upto)) = dirty.map(|chunk| (chunk.segment, chunk.start, chunk.tail.published()))
            else {
                return;
            };
            let changes = self.placing.wrote(id, start, upto);
            self.settle(changes);
            let finished =
                |segment: &&mut Segment| segment.sealed && !segment.finished && segment.written == segment.size;
            if let Some(segment) = self.placing.segments.iter_mut().find(finished) {
                segment.finished = true;
            }
        }

        fn truncate(&mut self) {
            let Some(at) = self.io.rand.below(self.batches.len() as u64 + 1).checked_sub(1) else { return };
            let (base, info, _) = self.batches[at as usize].clone();
            let id = self.placing.segments.iter().find(|segment| segment.base == base).unwrap().id();
            let mut front = Segment::new(base, &self.placing.config);
            for (_, info, _) in self.batches[..at as usize].iter().filter(|(segment, ..)| *segment == base) {
                front.append(info.bytes, info.last_offset, info.max_timestamp);
            }
            let late = Piece::of(&self.placing);
            let io = self.io.clone();
            let end = info.base_offset;
            let (_, changes) =
                self.placing.truncate(id, front.clone(), end, |capacity| io.disk.allocate(capacity)).unwrap();
            self.settle(changes);
            self.batches.truncate(at as usize);
            assert_eq!((self.placing.end, self.placing.segment(id).is_none()), (end, true));
            let again = self.placing.truncate(id, front, end, |capacity| io.disk.allocate(capacity));
            assert!(again.is_none(), "it is not what it was");
            // A write that was on its way says nothing of what comes in its place.
            for (id, start, upto) in late.0 {
                if self.placing.segment(id).is_none() {
                    assert_eq!(self.placing.wrote(id, start, upto), CoreChanges::default());
                }
            }
        }

        /// Two finished segments become one with every other of their batches.
        fn replace(&mut self) {
            let finished: Vec<SegmentId> =
                self.placing.segments.iter().take_while(|it| it.finished).map(Segment::id).collect();
            if finished.len() < 2 {
                return;
            }
            let old = &finished[finished.len() - 2..];
            let base = old[0].base;
            let mut index = 0;
            self.batches.retain(|(segment, ..)| {
                index += usize::from(old.iter().any(|id| id.base == *segment));
                !old.iter().any(|id| id.base == *segment) || index % 2 == 1
            });
            let mut one = Segment { sealed: true, finished: true, ..Segment::new(base, &self.placing.config) };
            for (segment, info, _) in self.batches.iter_mut().filter(|(it, ..)| old.iter().any(|id| id.base == *it)) {
                *segment = base;
                one.append(info.bytes, info.last_offset, info.max_timestamp);
            }
            let one = Segment { written: one.size, allocated: u64::from(one.size), ..one };
            let (gone, changes) = self.placing.replace(old, vec![one.clone()]).unwrap();
            assert_eq!(gone.iter().map(Segment::id).collect::<Vec<_>>(), old);
            self.settle(changes);
            assert!(self.placing.replace(old, vec![one]).is_none(), "they are not what they were");
        }

        fn check(&mut self) {
            let placing = &self.placing;
            assert_eq!(self.promised, placing.outstanding(), "promised");
            assert_eq!(self.chunks, placing.chunks.0.iter().map(Chunk::capacity).sum::<usize>(), "chunks");
            let dirty: usize = placing.chunks.0.iter().map(|chunk| chunk.tail.published() - chunk.written).sum();
            assert_eq!(self.dirty, dirty, "dirty");
            assert!(!placing.active().sealed && placing.segments.iter().rev().skip(1).all(|it| it.sealed));
            for segment in &placing.segments {
                let bytes = self.bytes(segment.base);
                assert_eq!(bytes.len(), segment.size as usize);
                let seen = self.seen.entry(segment.id()).or_default();
                let same = seen.len().min(bytes.len());
                assert!(seen[..same] == bytes[..same], "{:?} has been another segment before", segment.id());
                if bytes.len() > seen.len() {
                    *seen = bytes.clone();
                }
                let Some(first) = placing.chunks.first_position(segment.id()) else { continue };
                let found: Vec<u8> = placing
                    .chunks
                    .slices(segment.id(), first, segment.size)
                    .iter()
                    .flat_map(|slice| slice.to_vec())
                    .collect();
                assert!(found == bytes[first as usize..], "{:?} is not what was appended", segment.id());
            }
            let end = self.batches.last().map_or(Offset::ZERO, |(_, info, _)| info.next_offset());
            assert!(placing.end >= end);
            for (_, info, _) in &self.batches {
                let found = placing.find(info.base_offset).map(|place| place.head.base_offset);
                assert!(found.is_none_or(|found| found == info.base_offset), "{found:?} is not {}", info.base_offset);
            }
        }
    }

    /// What of the chunks is on its way to the disk.
    struct Piece(Vec<(SegmentId, u32, usize)>);

    impl Piece {
        fn of(placing: &Placing) -> Self {
            Self(placing.chunks.0.iter().map(|chunk| (chunk.segment, chunk.start, chunk.tail.published())).collect())
        }
    }

    #[test]
    fn whatever_is_cut_and_replaced_an_id_names_one_segment_and_the_books_are_right() {
        for seed in 0..SCHEDULES {
            Simulation::new(seed).block_on(0, 0, |io| async move {
                let mut rig = Rig::new(&io);
                for _ in 0..STEPS {
                    match io.rand.below(20) {
                        0..=9 => rig.append(),
                        10..=14 => rig.write(),
                        15 | 16 => {
                            let changes = rig.placing.evict_front();
                            rig.settle(changes);
                        }
                        17 => rig.replace(),
                        _ => rig.truncate(),
                    }
                    rig.check();
                }
            });
        }
    }

    #[test]
    fn nothing_is_cut_while_something_is_on_its_way() {
        Simulation::new(1).block_on(0, 0, |io| async move {
            let mut rig = Rig::new(&io);
            rig.append();
            rig.append();
            let (id, empty) = (rig.placing.active().id(), Segment::new(Offset::ZERO, &rig.placing.config));
            let cut = |placing: &mut Placing| {
                placing.truncate(id, empty.clone(), Offset::ZERO, |capacity| io.disk.allocate(capacity)).is_some()
            };
            rig.placing.durable = Offset(1);
            assert!(!cut(&mut rig.placing), "the journal has not all of it");
            rig.placing.durable = Offset(2);
            rig.placing.reserve(10, 0);
            assert!(!cut(&mut rig.placing), "somebody is about to append");
            let _ = rig.placing.release(10);
            assert!(cut(&mut rig.placing));
        });
    }
}
