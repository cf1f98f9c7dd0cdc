//! The first bytes of every record's value: who sent it, which one it is, and when it was due.

/// Bytes that a stamp takes; no verified record can be smaller.
pub const STAMP_BYTES: usize = 24;

/// Run, producer, sequence and intended time, big-endian, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Tells this run's records from those that others left in the topic.
    pub run: u32,
    pub producer: u32,
    /// Counts the producer's records in the partition from 0, without gaps.
    pub sequence: u64,
    /// Nanoseconds of this machine's monotonic clock.
    pub intended_ns: u64,
}

impl Stamp {
    pub fn encode(&self) -> [u8; STAMP_BYTES] {
        let mut bytes = [0; STAMP_BYTES];
        bytes[0..4].copy_from_slice(&self.run.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.producer.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.intended_ns.to_be_bytes());
        bytes
    }

    /// None when the value is too short; the caller compares `run`.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let (run, rest) = value.split_first_chunk::<4>()?;
        let (producer, rest) = rest.split_first_chunk::<4>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let intended = rest.first_chunk::<8>()?;
        Some(Self {
            run: u32::from_be_bytes(*run),
            producer: u32::from_be_bytes(*producer),
            sequence: u64::from_be_bytes(*sequence),
            intended_ns: u64::from_be_bytes(*intended),
        })
    }
}
