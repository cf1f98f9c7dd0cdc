//! One partition's batches inside a producer: the one that fills, and the ones that wait to be sent.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::records::batch::{self, BatchWriter, Identity};

/// The batch that fills.
#[derive(Debug)]
pub struct Open {
    pub writer: BatchWriter,
    pub intended: Vec<u64>,
    pub first_sequence: u64,
    /// When it may leave: linger after its first record was due.
    pub ready_at: u64,
    pub value_bytes: u64,
}

/// A batch that takes no more records.
#[derive(Debug)]
pub struct Batch {
    pub partition: u32,
    bytes: BatchBytes,
    pub intended: Vec<u64>,
    /// Number of the first record in the stamps.
    pub first_sequence: u64,
    pub ready_at: u64,
    pub value_bytes: u64,
    /// When it was first sent; none before.
    pub sent_at: Option<u64>,
    pub attempts: u32,
    /// Idempotent sequence of its first record, once sealed.
    pub base_sequence: i32,
}

#[derive(Debug)]
enum BatchBytes {
    /// Without identity and CRC.
    Finished(BytesMut),
    Sealed(Bytes),
    /// Only while one form turns into the other.
    Taken,
}

impl Batch {
    pub fn new(partition: u32, open: Open, bytes: BytesMut) -> Self {
        Self {
            partition,
            bytes: BatchBytes::Finished(bytes),
            intended: open.intended,
            first_sequence: open.first_sequence,
            ready_at: open.ready_at,
            value_bytes: open.value_bytes,
            sent_at: None,
            attempts: 0,
            base_sequence: -1,
        }
    }

    pub fn count(&self) -> u64 {
        self.intended.len() as u64
    }

    /// When the first of its records was due.
    pub fn first_due(&self) -> u64 {
        self.intended.first().copied().unwrap_or(0)
    }

    /// Its size on the wire.
    pub fn bytes_len(&self) -> usize {
        match &self.bytes {
            BatchBytes::Finished(bytes) => bytes.len(),
            BatchBytes::Sealed(bytes) => bytes.len(),
            BatchBytes::Taken => 0,
        }
    }

    pub fn is_sealed(&self) -> bool {
        matches!(self.bytes, BatchBytes::Sealed(_))
    }

    /// Stamps the identity, unless the batch has one already: a batch is sent again with the same.
    pub fn seal(&mut self, identity: Identity) {
        self.bytes = match std::mem::replace(&mut self.bytes, BatchBytes::Taken) {
            BatchBytes::Finished(bytes) => {
                self.base_sequence = identity.base_sequence;
                BatchBytes::Sealed(batch::seal(bytes, identity))
            }
            other => other,
        };
    }

    /// Takes the identity off again, when the producer gets a new one.
    pub fn unseal(&mut self) {
        self.bytes = match std::mem::replace(&mut self.bytes, BatchBytes::Taken) {
            BatchBytes::Sealed(bytes) => BatchBytes::Finished(bytes.into()),
            other => other,
        };
    }

    /// The bytes to send; empty before `seal`.
    pub fn sealed(&self) -> Bytes {
        match &self.bytes {
            BatchBytes::Sealed(bytes) => bytes.clone(),
            BatchBytes::Finished(_) | BatchBytes::Taken => Bytes::new(),
        }
    }

    /// Gives the buffers back.
    pub fn into_buffers(self) -> (BytesMut, Vec<u64>) {
        let bytes = match self.bytes {
            BatchBytes::Finished(bytes) => bytes,
            BatchBytes::Sealed(bytes) => bytes.try_into_mut().unwrap_or_default(),
            BatchBytes::Taken => BytesMut::new(),
        };
        (bytes, self.intended)
    }
}

/// One partition of one producer.
#[derive(Debug, Default)]
pub struct Queue {
    pub open: Option<Open>,
    /// Ordered by `first_sequence`.
    pub closed: VecDeque<Batch>,
    /// Number of the next record.
    pub next_sequence: u64,
    /// Idempotent sequence of the next batch that is sent for the first time.
    pub next_base: i32,
    /// Idempotent sequence that the broker expects, as far as it has acknowledged.
    pub acked_base: i32,
    pub in_flight: u32,
    /// A batch of an idempotent producer has to be sent again: one batch at a time until those that were in flight behind
    /// it are through, or each new one would overtake another that is on its way back.
    pub is_recovering: bool,
    /// Not before this: back-off, or no leader until then.
    pub held_until: u64,
    /// In its leader's list of partitions with something to send.
    pub is_queued: bool,
}

impl Queue {
    /// Puts a batch back where its number belongs.
    pub fn put_back(&mut self, batch: Batch) {
        let at = self.closed.partition_point(|kept| kept.first_sequence < batch.first_sequence);
        self.closed.insert(at, batch);
    }

    /// Whether something may leave at `now`.
    pub fn has_ready(&self, now: u64) -> bool {
        if self.is_recovering && self.in_flight > 0 {
            return false;
        }
        let open_ready = || self.open.as_ref().is_some_and(|open| open.ready_at <= now);
        !self.closed.is_empty() || open_ready()
    }

    /// A batch was acknowledged; the recovery ends when none is left that was sent before.
    pub fn settle(&mut self) {
        self.is_recovering &= self.closed.front().is_some_and(|batch| batch.sent_at.is_some());
    }

    pub fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.open.is_none()
    }
}

/// Idempotent sequences wrap from the largest to 0.
pub fn advance_sequence(base: i32, count: u64) -> i32 {
    ((base as u64 + count) & 0x7fff_ffff) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(advance_sequence(5, 3), 8);
        assert_eq!(advance_sequence(i32::MAX, 1), 0);
        assert_eq!(advance_sequence(i32::MAX - 1, 3), 1);
    }
}
