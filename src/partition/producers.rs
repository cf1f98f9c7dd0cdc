//! Idempotent producers (KIP-98): the last five batches of each, by which repeats and gaps are told.

use super::{StateError, codec::Reader};
use crate::{
    base::{ErrorCode, Map, Offset, ProducerEpoch, ProducerId, Timestamp},
    protocol::batch::{BatchInfo, TimestampType},
};

/// Batches remembered of one producer: as many as a client may have in flight.
const WINDOW: usize = 5;
/// Producers remembered of one partition. Beyond it the longest silent ones are forgotten, as if expired.
pub const PRODUCERS_MAX: usize = 100_000;
const SNAPSHOT_VERSION: i16 = 1;
const PRODUCER_EPOCH_NONE: ProducerEpoch = ProducerEpoch(-1);

/// The producers of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producers {
    entries: Map<ProducerId, Producer>,
}

/// One batch of a producer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AppendedBatch {
    pub(super) last_sequence: i32,
    pub(super) last_offset: Offset,
    pub(super) offset_delta: i32,
    pub(super) timestamp: Timestamp,
    pub(super) timestamp_type: TimestampType,
}

impl AppendedBatch {
    fn of(info: &BatchInfo) -> Self {
        Self {
            last_sequence: info.last_sequence,
            last_offset: info.last_offset,
            offset_delta: info.last_offset.since(info.base_offset) as i32,
            timestamp: info.max_timestamp,
            timestamp_type: info.timestamp_type,
        }
    }

    fn base_sequence(&self) -> i32 {
        // Sequences wrap from 2^31-1 to 0.
        self.last_sequence.wrapping_sub(self.offset_delta) & i32::MAX
    }

    pub(super) fn base_offset(&self) -> Offset {
        Offset(self.last_offset.0 - i64::from(self.offset_delta))
    }

    pub(super) fn log_append_time(&self) -> Option<Timestamp> {
        (self.timestamp_type == TimestampType::LogAppendTime).then_some(self.timestamp)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Producer {
    epoch: ProducerEpoch,
    /// Oldest first; the first `batches` are in use.
    window: [AppendedBatch; WINDOW],
    batches: u8,
    /// The broker's time of the last append.
    seen: Timestamp,
    /// -1 until a transaction marker arrives.
    coordinator_epoch: i32,
    /// First offset of the open transaction, if there is one.
    transaction_start: Option<Offset>,
}

impl Producer {
    fn new(epoch: ProducerEpoch) -> Self {
        Self { epoch, window: Default::default(), batches: 0, seen: 0, coordinator_epoch: -1, transaction_start: None }
    }

    fn batches(&self) -> &[AppendedBatch] {
        &self.window[..usize::from(self.batches)]
    }

    fn push(&mut self, batch: AppendedBatch) {
        if usize::from(self.batches) == WINDOW {
            self.window.rotate_left(1);
            self.window[WINDOW - 1] = batch;
        } else {
            self.window[usize::from(self.batches)] = batch;
            self.batches += 1;
        }
    }
}

/// A producer as administrators see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveProducer {
    /// Its id.
    pub id: ProducerId,
    /// The epoch of its last batch.
    pub epoch: ProducerEpoch,
    /// The sequence of the last record; -1: none is remembered.
    pub last_sequence: i32,
    /// The largest timestamp of the last batch.
    pub last_timestamp: Timestamp,
    /// -1 until a transaction marker arrives.
    pub coordinator_epoch: i32,
    /// First offset of the open transaction, if there is one.
    pub transaction_start: Option<Offset>,
}

impl Producers {
    /// All that are remembered, by id.
    #[must_use]
    pub fn active(&self) -> Vec<ActiveProducer> {
        let told = |(id, producer): (&ProducerId, &Producer)| {
            let last = producer.batches().last();
            ActiveProducer {
                id: *id,
                epoch: producer.epoch,
                last_sequence: last.map_or(-1, |batch| batch.last_sequence),
                last_timestamp: last.map_or(-1, |batch| batch.timestamp),
                coordinator_epoch: producer.coordinator_epoch,
                transaction_start: producer.transaction_start,
            }
        };
        self.sorted().into_iter().map(told).collect()
    }

    /// Forgets the batches from `end` on, and producers of which nothing else is remembered.
    pub(super) fn truncate(&mut self, end: Offset) {
        self.entries.retain(|_, producer| {
            let kept = producer.batches().iter().take_while(|batch| batch.last_offset < end).count();
            producer.batches = kept as u8;
            producer.window[kept..].fill(AppendedBatch::default());
            producer.transaction_start = producer.transaction_start.filter(|start| *start < end);
            kept > 0
        });
    }

    /// How many are remembered.
    #[cfg(test)]
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is remembered.
    #[cfg(test)]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The batch of which `info` is a repeat, if it is one of the producer's last five.
    pub(super) fn duplicate_of(&self, info: &BatchInfo) -> Option<AppendedBatch> {
        let producer = self.entries.get(&info.producer_id).filter(|producer| producer.epoch == info.producer_epoch)?;
        let same = |batch: &&AppendedBatch| {
            batch.last_sequence == info.last_sequence && batch.base_sequence() == info.base_sequence
        };
        producer.batches().iter().find(same).copied()
    }

    /// Whether `info`, which is no repeat, comes next.
    /// # Errors  `InvalidProducerEpoch` for an older epoch, `OutOfOrderSequenceNumber` for a gap, a stale repeat, or a
    /// new epoch that does not begin at 0. A producer that we know nothing of may begin anywhere.
    pub(super) fn check(&self, info: &BatchInfo) -> Result<(), ErrorCode> {
        let Some(producer) = self.entries.get(&info.producer_id) else { return Ok(()) };
        if info.producer_epoch < producer.epoch {
            return Err(ErrorCode::InvalidProducerEpoch);
        }
        let expected = match producer.batches().last() {
            _ if producer.epoch == PRODUCER_EPOCH_NONE => return Ok(()),
            Some(last) if info.producer_epoch == producer.epoch => last.last_sequence.wrapping_add(1) & i32::MAX,
            Some(_) | None => 0,
        };
        if info.base_sequence == expected { Ok(()) } else { Err(ErrorCode::OutOfOrderSequenceNumber) }
    }

    /// Remembers a batch that was appended at `now`, the broker's time. Does nothing for a batch without a producer and
    /// for one that is already counted.
    pub fn apply(&mut self, info: &BatchInfo, now: Timestamp) {
        if !info.has_producer() {
            return;
        }
        if !self.entries.contains_key(&info.producer_id) && self.entries.len() >= PRODUCERS_MAX {
            self.forget_longest_silent();
        }
        let producer = self.entries.entry(info.producer_id).or_insert_with(|| Producer::new(info.producer_epoch));
        if producer.batches().last().is_some_and(|last| last.last_offset >= info.last_offset) {
            return;
        }
        if producer.epoch != info.producer_epoch {
            producer.epoch = info.producer_epoch;
            producer.batches = 0;
            // Unused places stay blank, so that equal states compare equal.
            producer.window = Default::default();
        }
        producer.seen = producer.seen.max(now);
        if info.control {
            producer.transaction_start = None;
        } else {
            producer.push(AppendedBatch::of(info));
            if info.transactional && producer.transaction_start.is_none() {
                producer.transaction_start = Some(info.base_offset);
            }
        }
    }

    /// Forgets producers silent for longer than `expiration_ms`, but none with an open transaction.
    pub fn expire(&mut self, now: Timestamp, expiration_ms: i64) {
        self.entries.retain(|_, producer| {
            producer.transaction_start.is_some() || now.saturating_sub(producer.seen) < expiration_ms
        });
    }

    /// A sixteenth at a time, so that a flood of new producers does not pay for a search each.
    fn forget_longest_silent(&mut self) {
        let mut seen: Vec<_> = self.entries.iter().map(|(id, producer)| (producer.seen, *id)).collect();
        let count = (PRODUCERS_MAX / 16).min(seen.len() - 1);
        seen.select_nth_unstable(count);
        for (_, id) in &seen[..count] {
            self.entries.remove(id);
        }
    }

    /// Kafka's `.snapshot` file: the last batch of each producer, ordered by id.
    #[must_use]
    pub fn export(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(10 + 46 * self.entries.len());
        out.extend_from_slice(&SNAPSHOT_VERSION.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(self.entries.len() as i32).to_be_bytes());
        for (id, producer) in self.sorted() {
            let none = AppendedBatch { last_sequence: -1, last_offset: Offset(-1), ..AppendedBatch::default() };
            let last = producer.batches().last().copied().unwrap_or(none);
            out.extend_from_slice(&id.0.to_be_bytes());
            out.extend_from_slice(&producer.epoch.0.to_be_bytes());
            out.extend_from_slice(&last.last_sequence.to_be_bytes());
            out.extend_from_slice(&last.last_offset.0.to_be_bytes());
            out.extend_from_slice(&last.offset_delta.to_be_bytes());
            out.extend_from_slice(&last.timestamp.to_be_bytes());
            out.extend_from_slice(&producer.coordinator_epoch.to_be_bytes());
            out.extend_from_slice(&producer.transaction_start.map_or(-1, |offset| offset.0).to_be_bytes());
        }
        let crc = crc32c::crc32c(&out[6..]);
        out[2..6].copy_from_slice(&crc.to_be_bytes());
        out
    }

    fn sorted(&self) -> Vec<(&ProducerId, &Producer)> {
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_unstable_by_key(|(id, _)| **id);
        entries
    }

    /// Ordered by id, so that equal states have equal bytes.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.entries.len() as i32).to_be_bytes());
        for (id, producer) in self.sorted() {
            out.extend_from_slice(&id.0.to_be_bytes());
            out.extend_from_slice(&producer.epoch.0.to_be_bytes());
            out.extend_from_slice(&producer.seen.to_be_bytes());
            out.extend_from_slice(&producer.coordinator_epoch.to_be_bytes());
            out.extend_from_slice(&producer.transaction_start.map_or(-1, |offset| offset.0).to_be_bytes());
            out.push(producer.batches);
            for batch in producer.batches() {
                out.extend_from_slice(&batch.last_sequence.to_be_bytes());
                out.extend_from_slice(&batch.last_offset.0.to_be_bytes());
                out.extend_from_slice(&batch.offset_delta.to_be_bytes());
                out.extend_from_slice(&batch.timestamp.to_be_bytes());
                out.push(u8::from(batch.timestamp_type == TimestampType::LogAppendTime));
            }
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, StateError> {
        let count = reader.count(31)?;
        let mut entries = Map::with_capacity_and_hasher(count, Default::default());
        for _ in 0..count {
            let id = ProducerId(reader.i64()?);
            let mut producer = Producer::new(ProducerEpoch(reader.i16()?));
            producer.seen = reader.i64()?;
            producer.coordinator_epoch = reader.i32()?;
            producer.transaction_start = Some(Offset(reader.i64()?)).filter(|offset| offset.0 >= 0);
            let batches = reader.u8()?;
            if usize::from(batches) > WINDOW {
                return Err(StateError::Damaged);
            }
            for _ in 0..batches {
                producer.push(decode_batch(reader)?);
            }
            entries.insert(id, producer);
        }
        Ok(Self { entries })
    }
}

fn decode_batch(reader: &mut Reader<'_>) -> Result<AppendedBatch, StateError> {
    let batch = AppendedBatch {
        last_sequence: reader.i32()?,
        last_offset: Offset(reader.i64()?),
        offset_delta: reader.i32()?,
        timestamp: reader.i64()?,
        timestamp_type: match reader.u8()? {
            0 => TimestampType::CreateTime,
            1 => TimestampType::LogAppendTime,
            _ => return Err(StateError::Damaged),
        },
    };
    let sound = batch.offset_delta >= 0 && batch.last_offset.0 >= i64::from(batch.offset_delta);
    if sound { Ok(batch) } else { Err(StateError::Damaged) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::LeaderEpoch,
        protocol::batch::{BatchBuilder, BatchHeader},
    };

    fn appended(producer: i64, sequence: i32, offset: i64) -> BatchInfo {
        let mut builder = BatchBuilder::new().at(Offset(offset), LeaderEpoch(0)).producer(
            ProducerId(producer),
            ProducerEpoch(2),
            sequence,
        );
        builder.push(1234, None, Some(b"a"));
        builder.push(1235, None, Some(b"b"));
        BatchInfo::of(&BatchHeader::parse(&builder.build()).expect("just built"))
    }

    #[test]
    fn the_snapshot_file_byte_for_byte() {
        let mut producers = Producers::default();
        producers.apply(&appended(0x0102, 6, 20), 99);
        producers.apply(&appended(0x0101, 0, 22), 99);
        producers.apply(&appended(0x0102, 8, 24), 99);
        let bytes = producers.export();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let crc = format!("{:08x}", crc32c::crc32c(&bytes[6..]));
        let entry = |id, last_sequence, last_offset| {
            format!("{id:016x}0002{last_sequence:08x}{last_offset:016x}00000001{:016x}ffffffffffffffffffffffff", 1235)
        };
        assert_eq!(hex, format!("0001{crc}00000002{}{}", entry(0x101, 1, 23), entry(0x102, 9, 25)));
    }

    #[test]
    fn the_longest_silent_make_room() {
        let mut producers = Producers::default();
        for id in 0..=PRODUCERS_MAX as i64 {
            producers.apply(&appended(id, 0, id * 2), id);
        }
        assert_eq!(producers.len(), PRODUCERS_MAX - PRODUCERS_MAX / 16 + 1);
        let known = |id: i64| producers.duplicate_of(&appended(id, 0, 0)).is_some();
        let forgotten = PRODUCERS_MAX as i64 / 16;
        assert!(!known(0) && !known(forgotten - 1) && known(forgotten) && known(PRODUCERS_MAX as i64));
    }
}
