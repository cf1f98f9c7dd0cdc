//! The second half of recovery: the journal's entries, applied to the partitions of the checkpoints.

use std::{
    cell::{Cell, RefCell},
    path::Path,
    rc::Rc,
    sync::Arc,
};

use super::{
    cuts::{self, CutsAhead},
    journals::Journals,
    rescues::Rescues,
};
use crate::{
    base::{METADATA_KEY, METADATA_TOPIC, Map, Offset, PartitionKey, Set, Timestamp, TopicId},
    io::{Io, Slice, join_all},
    log::{
        bulk::write_many,
        checkpoint::RoundError,
        core::{Core, LogSeed, PartitionSeed},
        destage::{What, write_all},
        image::LogImage,
        journal::{
            block::{self, Incarnation},
            entry::{AppendHead, CutAt, Entry},
        },
        offline,
        partition_log::Log,
        placing::{CoreChanges, Placing},
        removal,
        rescue::{RescueMark, RescueWriter},
        rescuing,
        segment::file_name,
        settings::{LivePartitions, LogConfig, LogError, LogSettings, MetadataLog, RecoverError},
        sync_gate::SyncGate,
        wire::Reader,
    },
    partition::PartitionState,
    protocol::batch::{BatchHeader, BatchInfo, batches, crc_ok},
};

/// Tails that are loaded at the same time.
const LOADS_MAX: usize = 32;

/// The metadata log is read in pieces of this size.
const READ_BYTES: usize = 4 << 20;

pub struct Replay {
    io: Io,
    core: Rc<Core>,
    images: Map<PartitionKey, LogImage>,
    partitions: Map<PartitionKey, Partition>,
    batches: usize,
}

/// A partition under repair.
struct Partition {
    log: Rc<Log>,
    state: RefCell<PartitionState>,
    /// Where the last segment of the image was cut.
    cut: Cell<Option<CutAt>>,
    /// What later entries of the journal cut off.
    cuts_ahead: RefCell<CutsAhead>,
    config: LogConfig,
}

/// Entries of many blocks, partition by partition: what one partition needs is then at hand, and one can be written while
/// the next is applied.
#[derive(Default)]
struct Run {
    index: Map<PartitionKey, usize>,
    /// In the order of their first entries; each one's entries in their order.
    partitions: Vec<(PartitionKey, Vec<Slice>)>,
    bytes: usize,
}

impl Replay {
    pub fn new(
        io: &Io,
        directory: &Path,
        settings: &LogSettings,
        incarnation: Incarnation,
        images: Map<PartitionKey, LogImage>,
        gate: Arc<SyncGate>,
    ) -> Self {
        let seed = LogSeed {
            directory: directory.to_owned(),
            settings: settings.clone(),
            core: 0,
            cores: 1,
            incarnation,
            generation: 0,
            journals: Vec::new(),
            partitions: Vec::new(),
            gate,
        };
        // Its tasks are never started: nothing but recovery writes.
        let core = Core::new(io, &seed, Rc::new(|reason| tracing::error!(reason, "recovery failed")));
        Self { io: io.clone(), core, images, partitions: Map::default(), batches: 0 }
    }

    fn log(&self, key: PartitionKey) -> Option<Rc<Log>> {
        self.partitions.get(&key).map(|partition| partition.log.clone())
    }

    pub fn batches(&self) -> usize {
        self.batches
    }

    /// Repairs the metadata log and returns it, up to its very end: what is missing would be taken for deleted.
    pub async fn metadata(&mut self, journals: &Journals) -> Result<MetadataLog, RecoverError> {
        self.begin(METADATA_KEY, METADATA_TOPIC, &LogConfig::default(), journals)?;
        let log = self.partitions[&METADATA_KEY].log.clone();
        self.partitions[&METADATA_KEY].cut_segment().await.map_err(|error| unusable(&log, error))?;
        if journals.appended.contains(&METADATA_KEY) {
            log.load_tail().await.map_err(|error| unusable(&log, error))?;
        }
        for core in 0..journals.cores() {
            for index in (0..journals.len(core)).filter(|index| journals.has_metadata(core, *index)) {
                let block = journals.block(core, index).await?;
                self.apply_metadata(&block, journals)?;
            }
        }
        let (start, end) = (log.log_start_offset(), log.log_end_offset());
        let (mut from, mut batches) = (start, Vec::new());
        while from < end {
            let read = log.read(from, READ_BYTES, end, true).await.map_err(|error| unusable(&log, error))?;
            let bytes = crate::log::core::joined(&read.slices);
            let Some(next) = end_of_batches(&bytes, from, from > start) else {
                let (segment, position) = place_of(&log, from).await;
                return Err(damaged(&log, segment, position));
            };
            from = next;
            batches.push(Slice::from(bytes));
        }
        Ok(MetadataLog { start, end, batches })
    }

    /// Takes out the partitions that are not live: those of deleted topics, whose images are returned; and says which ones
    /// nobody has deleted and nobody knows. One whose directory's name belongs to a live partition by now counts as the
    /// former: its topic was deleted, or the name would not have been free.
    pub fn drop_dead(
        &mut self,
        live: &LivePartitions,
        deleted: &Set<TopicId>,
        journals: &Journals,
    ) -> (Vec<LogImage>, LivePartitions) {
        let taken: Set<(&str, i32)> = live.iter().map(|(key, (name, _))| (name.as_str(), key.partition)).collect();
        let mut unknown = LivePartitions::default();
        for key in self.images.keys().chain(&journals.appended).filter(|key| !live.contains_key(key)) {
            // The journal has no names.
            let name = self.images.get(key).map_or_else(|| key.topic_id.to_string(), |image| image.name.clone());
            if !deleted.contains(&key.topic_id) && !taken.contains(&(name.as_str(), key.partition)) {
                unknown.insert(*key, (name, LogConfig::default()));
            }
        }
        let known = |key: &PartitionKey| live.contains_key(key) || unknown.contains_key(key);
        let dead: Vec<PartitionKey> = self.images.keys().filter(|key| !known(key)).copied().collect();
        (dead.iter().filter_map(|key| self.images.remove(key)).collect(), unknown)
    }

    /// Repairs everything else. A partition that cannot be repaired goes offline.
    pub async fn all(
        &mut self,
        journals: &Journals,
        rescues: &Rescues,
        live: &LivePartitions,
    ) -> Result<(), RecoverError> {
        for (key, (name, config)) in live.iter().filter(|(key, _)| **key != METADATA_KEY) {
            self.begin(*key, name, config, journals)?;
        }
        for partition in self.partitions.values() {
            if let Err(error) = partition.cut_segment().await {
                offline::fail(&partition.log, error);
            }
        }
        let concerned: Vec<Rc<Log>> =
            journals.appended.iter().filter_map(|key| self.partitions.get(key)).map(|it| it.log.clone()).collect();
        let began = self.io.clock.now();
        for group in concerned.chunks(LOADS_MAX) {
            for (log, loaded) in group.iter().zip(join_all(group.iter().map(|log| log.load_tail())).await) {
                if let Err(error) = loaded {
                    offline::fail(log, error);
                }
            }
        }
        tracing::debug!(ms = (self.io.clock.now().0 - began.0) / 1_000_000, "recovery: tails loaded");
        let mut run = self.rescued(rescues, journals).await?;
        for core in 0..journals.cores() {
            for index in 0..journals.len(core) {
                let block = journals.block(core, index).await?;
                run.add(&block, |key| key != METADATA_KEY && self.partitions.contains_key(&key));
                // The journal may hold more than memory should.
                if run.bytes >= self.core.settings.dirty_max_bytes {
                    self.apply_run(std::mem::take(&mut run), journals).await?;
                }
            }
        }
        tracing::debug!(ms = (self.io.clock.now().0 - began.0) / 1_000_000, "recovery: entries sorted");
        self.apply_run(run, journals).await
    }

    /// What the rescue files have comes before what the journals have of the same partitions.
    async fn rescued(&mut self, rescues: &Rescues, journals: &Journals) -> Result<Run, RecoverError> {
        let mut run = Run::default();
        for (key, rescue) in rescues.iter() {
            let Some(log) = self.partitions.get(key).map(|partition| partition.log.clone()) else { continue };
            let rescue = match rescue {
                Ok(rescue) => rescue,
                Err(error) => {
                    offline::fail(&log, error.clone());
                    continue;
                }
            };
            for index in 0..rescue.len() {
                match rescue.block(index).await {
                    Ok(block) => run.add(&block, |found| found == *key),
                    Err(error) => {
                        offline::fail(&log, error);
                        break;
                    }
                }
                if run.bytes >= self.core.settings.dirty_max_bytes {
                    self.apply_run(std::mem::take(&mut run), journals).await?;
                }
            }
        }
        Ok(run)
    }

    /// Restores a partition from its image. The log start that the journal announces is applied at once: segments
    /// wholly below it may have lost their files already.
    fn begin(
        &mut self,
        key: PartitionKey,
        name: &str,
        config: &LogConfig,
        journals: &Journals,
    ) -> Result<(), RecoverError> {
        let announced = journals.starts.get(&key).copied().unwrap_or_default();
        let cuts = journals.cuts_of(key);
        let mut cut = None;
        let (log, state) = match self.images.get(&key) {
            Some(image) => {
                let mut image = image.clone();
                image.log_start = image.log_start.max(announced);
                let mut state =
                    PartitionState::decode(&image.state).map_err(|error| RecoverError::State { key, error })?;
                // From the lowest cut on the segments may have other bytes than the image says.
                if let Some(lowest) = cuts::lowest(&cuts) {
                    cut = cuts::cut_image(&mut image, &lowest).then_some(lowest);
                    state.truncate(lowest.end);
                }
                drop_below(&mut image, journals);
                // What lies below the log start needs no looking into: its files may be gone.
                cut = cut.filter(|_| !image.segments.is_empty());
                (Log::restored(&self.core, &image, config.clone()), state)
            }
            None => (Log::new(&self.core, key, name, config.clone()), PartitionState::default()),
        };
        log.pin();
        log.state_mut().move_start(announced);
        let (state, cut) = (RefCell::new(state), Cell::new(cut));
        let cuts_ahead = RefCell::new(CutsAhead::of(&cuts));
        self.partitions.insert(key, Partition { log, state, cut, cuts_ahead, config: config.clone() });
        Ok(())
    }

    fn apply_metadata(&mut self, block: &[u8], journals: &Journals) -> Result<(), RecoverError> {
        let now = self.io.clock.wall();
        let partition = &self.partitions[&METADATA_KEY];
        // As below: it cannot fail.
        for entry in block::entries(block).map_while(Result::ok).filter(|entry| entry.key() == METADATA_KEY) {
            let appended = partition.apply(entry, journals, now).map_err(|error| unusable(&partition.log, error))?;
            self.batches += usize::from(appended);
        }
        Ok(())
    }

    /// Applies the entries, and writes what they bring while the next ones are applied.
    async fn apply_run(&mut self, run: Run, journals: &Journals) -> Result<(), RecoverError> {
        let now = self.io.clock.wall();
        let logs = run.partitions.iter().map(|(key, entries)| {
            let partition = &self.partitions[key];
            for entry in entries {
                if partition.log.is_offline() {
                    break;
                }
                // Every entry was decoded once already, by the first pass.
                let Ok(entry) = Entry::decode(&mut Reader(entry)) else { continue };
                match partition.apply(entry, journals, now) {
                    Ok(appended) => self.batches += usize::from(appended),
                    Err(error) => offline::fail(&partition.log, error),
                }
            }
            partition.log.clone()
        });
        write_many(&self.core, logs).await;
        self.write_out().await
    }

    /// Writes what is dirty still, and what has to be done to sealed segments.
    async fn write_out(&self) -> Result<(), RecoverError> {
        let core = &self.core;
        core.full.borrow_mut().clear();
        let placings = std::mem::take(&mut *core.dirty.borrow_mut()).into_iter().filter_map(|slot| core.placing(slot));
        let logs: Vec<Rc<Log>> = placings.filter_map(|placing| self.log(placing.borrow().key())).collect();
        for log in &logs {
            let mut state = log.state_mut();
            state.taken_off_dirty();
            state.taken_off_full();
        }
        match write_all(core, &logs, What::Everything).await {
            Ok(()) => {}
            Err(RoundError::Full) => {
                let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
                return Err(RecoverError::at(&core.directory, &full));
            }
            Err(RoundError::Disk(error)) => return Err(RecoverError::at(&core.directory, &error)),
        }
        core.evict();
        // Without it nobody knows what there is.
        let Some(metadata) = self.partitions.get(&METADATA_KEY) else { return Ok(()) };
        let alive = metadata.log.state().alive();
        alive.map_err(|error| unusable(&metadata.log, error))
    }

    /// The partitions for the cores of the new life: repaired, or offline with what they had before and their rescue files.
    pub async fn finish(
        mut self,
        journals: &Journals,
        rescues: &Rescues,
        live: &LivePartitions,
    ) -> Result<Vec<PartitionSeed>, RecoverError> {
        for partition in self.partitions.values().filter(|it| !it.log.is_offline()) {
            partition.log.unpin();
            // Their files are swept later: names may not be touched any more when the new life has begun.
            removal::forget_segments(&self.core, &partition.log);
        }
        // Names of segments may be touched now: nobody appends.
        for (key, partition) in &self.partitions {
            if journals.was_cut(*key) || self.images.get(key).is_some_and(|image| image.has_cut_off) {
                removal::remove_cut_off(&self.core, &partition.log).await;
            }
        }
        // What was sealed last is finished by now or has no bytes.
        self.write_out().await?;
        let marks = self.rescue(journals, rescues).await?;
        let mut seeds = Vec::with_capacity(live.len());
        for (key, partition) in std::mem::take(&mut self.partitions) {
            let offline = partition.log.state().alive().err();
            seeds.push(match offline {
                None => repaired(partition),
                Some(error) => {
                    let base = self.images.remove(&key).unwrap_or_else(|| LogImage::empty(key, partition.log.name()));
                    let image = LogImage { rescue: marks.get(&key).copied().or(base.rescue), ..base };
                    // It was read when the partition was begun.
                    let state = PartitionState::decode(&image.state).unwrap_or_default();
                    PartitionSeed { image, config: partition.config, state, offline: Some(error) }
                }
            });
        }
        self.core.files.forget_all();
        Ok(seeds)
    }

    /// Brings into safety what journals have of partitions that are offline: the new life's checkpoints free them.
    async fn rescue(
        &self,
        journals: &Journals,
        rescues: &Rescues,
    ) -> Result<Map<PartitionKey, RescueMark>, RecoverError> {
        let mut marks = Map::default();
        let offline: Vec<PartitionKey> =
            self.partitions.iter().filter(|(_, it)| it.log.is_offline()).map(|(key, _)| *key).collect();
        for group in offline.chunks(rescuing::TOGETHER_MAX) {
            let mut writers: Map<PartitionKey, RescueWriter> = Map::default();
            for core in 0..journals.cores() {
                for index in 0..journals.len(core) {
                    let block = journals.block(core, index).await?;
                    for (place, entry) in block::placed_entries(&block).map_while(Result::ok) {
                        let key = entry.key();
                        if !group.contains(&key) {
                            continue;
                        }
                        let added = self.add_rescued(&mut writers, key, rescues, &block[place]).await;
                        added.map_err(|error| RecoverError::at(&rescues.path(key), &error))?;
                    }
                }
            }
            for (key, writer) in writers {
                let mark = writer.finish().await.map_err(|error| RecoverError::at(&rescues.path(key), &error))?;
                // A damaged file stays one: its mark says what should be there.
                if !matches!(rescues.get(key), Some(Err(_))) {
                    marks.insert(key, mark);
                }
            }
        }
        Ok(marks)
    }

    async fn add_rescued(
        &self,
        writers: &mut Map<PartitionKey, RescueWriter>,
        key: PartitionKey,
        rescues: &Rescues,
        entry: &[u8],
    ) -> std::io::Result<()> {
        if let Some(writer) = writers.get_mut(&key) {
            return writer.add(entry).await;
        }
        let mut writer = RescueWriter::begin(&self.io, &self.core.directory, key).await?;
        match rescues.get(key) {
            Some(Ok(rescue)) => writer.copy(rescue).await?,
            Some(Err(_)) => writer.copy_damaged().await?,
            None => {}
        }
        writer.add(entry).await?;
        writers.insert(key, writer);
        Ok(())
    }
}

/// A partition whose segments hold everything.
fn repaired(partition: Partition) -> PartitionSeed {
    let log = &partition.log;
    let mut state = partition.state.into_inner();
    state.log_start_offset = log.log_start_offset();
    state.epochs.truncate_start(state.log_start_offset);
    state.log_end_offset = log.log_end_offset();
    // How far it is committed beyond what was known is for the leader to find out. Only what is committed is deleted.
    state.high_watermark = state.high_watermark.max(state.log_start_offset);
    let mut encoded = Vec::new();
    state.encode(&mut encoded);
    let mut image = log.image(encoded);
    if image.log_end == Offset::ZERO && !image.has_cut_off {
        image = LogImage::empty(log.key(), &image.name);
    }
    PartitionSeed { image, config: partition.config, state, offline: None }
}

impl Run {
    fn add(&mut self, block: &Slice, wanted: impl Fn(PartitionKey) -> bool) {
        for (place, entry) in block::placed_entries(block).map_while(Result::ok) {
            let key = entry.key();
            let index = match self.index.get(&key) {
                Some(index) => *index,
                None if wanted(key) => {
                    self.partitions.push((key, Vec::new()));
                    self.index.insert(key, self.partitions.len() - 1);
                    self.partitions.len() - 1
                }
                None => continue,
            };
            self.bytes += place.len() + size_of::<Slice>();
            self.partitions[index].1.push(block.slice(place));
        }
    }
}

impl Partition {
    /// Returns whether the entry was a batch that the segments did not have.
    fn apply(&self, entry: Entry, journals: &Journals, now: Timestamp) -> Result<bool, LogError> {
        let log = &self.log;
        if !self.cuts_ahead.borrow_mut().pass(&entry) {
            return Ok(false);
        }
        match entry {
            Entry::Append { head, batch } if head.base_offset >= log.log_end_offset() => {
                let end = journals.segment_ends.get(&(head.key, head.segment_base)).copied().unwrap_or_default();
                let gone = end <= log.log_start_offset();
                self.append(&head, batch, gone, now)?;
                Ok(true)
            }
            // Below the checkpointed end, so in its segment already.
            Entry::Append { .. } => Ok(false),
            // Applied when the partition was restored.
            Entry::LogStart { .. } | Entry::Truncate { .. } => Ok(false),
            Entry::Seal { segment_base, next_base, .. } => {
                let sealed = |state: &mut Placing| match state.active().base == segment_base && state.end() <= next_base
                {
                    true => state.seal_active(next_base),
                    false => CoreChanges::default(),
                };
                log.change(sealed);
                Ok(false)
            }
        }
    }

    /// Looks into the segment that was cut, before anything is applied.
    async fn cut_segment(&self) -> Result<(), LogError> {
        match self.cut.take() {
            Some(at) => self.log.cut_restored(&at).await,
            None => Ok(()),
        }
    }

    /// `gone` says that the segment was deleted after the append: then only what the rules know moves on.
    fn append(&self, head: &AppendHead, batch: &[u8], gone: bool, now: Timestamp) -> Result<(), LogError> {
        let corrupt = LogError::Corrupt { segment: head.segment_base, position: u64::from(head.position) };
        let header = BatchHeader::parse(batch).map_err(|_| corrupt.clone())?;
        let info = BatchInfo::of(&header);
        if info.base_offset != head.base_offset || info.bytes != head.length {
            return Err(corrupt);
        }
        if gone {
            self.log.state_mut().replay_gone(head, info.next_offset())?;
        } else {
            self.log.replay(head, batch, &info)?;
        }
        self.state.borrow_mut().apply(&info, now);
        Ok(())
    }
}

/// Takes out the segments that lie wholly below the log start. The last one reaches as far as the journal says.
fn drop_below(image: &mut LogImage, journals: &Journals) {
    let bases: Vec<Offset> = image.segments.iter().map(|segment| segment.base).collect();
    let ends = bases.iter().enumerate().map(|(index, base)| {
        let journaled = journals.segment_ends.get(&(image.key, *base)).copied().unwrap_or_default();
        bases.get(index + 1).copied().unwrap_or_else(|| image.log_end.max(journaled))
    });
    let gone = ends.take_while(|end| *end <= image.log_start).count();
    image.segments.drain(..gone);
}

/// Why nothing can be started without this log: the metadata's.
fn unusable(log: &Log, error: LogError) -> RecoverError {
    match error {
        LogError::Corrupt { segment, position } => damaged(log, segment, position),
        LogError::Full | LogError::Io { .. } | LogError::OffsetOutOfRange | LogError::Deleted | LogError::Stopping => {
            RecoverError::Partition { key: log.key(), error }
        }
    }
}

fn damaged(log: &Log, segment: Offset, position: u64) -> RecoverError {
    RecoverError::Damaged { path: log.file(&file_name(segment, "log")).display().to_string(), position }
}

/// Where `bytes` end, if they are sound batches of which one follows the other from `from` on. The first may begin before
/// that unless `exact`, since a log may start in the middle of a batch. Base offsets lie outside of the sums.
fn end_of_batches(bytes: &[u8], from: Offset, exact: bool) -> Option<Offset> {
    let mut next = from;
    for batch in batches(bytes) {
        let batch = batch.ok()?;
        let (base, last) = (batch.header.base_offset, batch.header.last_offset());
        let follows = base == next || (next == from && !exact && base < next);
        if !follows || last < next || !crc_ok(batch.bytes) {
            return None;
        }
        next = last.plus(1);
    }
    (next > from).then_some(next)
}

/// The segment in which the batch of `offset` should be, and where in it the first batch lies that is not sound.
async fn place_of(log: &Rc<Log>, offset: Offset) -> (Offset, u64) {
    let (segment, size) = {
        let state = log.state();
        let segment = &state.segments()[state.segment_of(offset)];
        (segment.id(), segment.written)
    };
    let base = segment.base;
    let bytes = log.read_file(segment, 0, size as usize).await.unwrap_or_default();
    let (mut position, mut next) = (0, base);
    for batch in batches(&bytes) {
        let Ok(batch) = batch else { break };
        if batch.header.base_offset != next || !crc_ok(batch.bytes) {
            break;
        }
        position += batch.bytes.len() as u64;
        next = batch.header.last_offset().plus(1);
    }
    (base, position)
}
