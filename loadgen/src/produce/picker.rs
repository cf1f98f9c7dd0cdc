//! What goes into a record and where it goes: size, key, payload, partition. All drawn from the run's seed.

use crate::{produce::Settings, rng::Rng, workload::Partitioner};

const POOL_BYTES: usize = 1 << 20;
pub const KEY_BYTES: usize = 16;

/// Payload bytes: a pool, mixed of random and constant bytes once, from which records take slices.
#[derive(Debug)]
pub struct Payload {
    pool: Vec<u8>,
}

impl Payload {
    /// `randomness` is the share of random bytes, in runs of 64, so that compression sees what it is told to see.
    pub fn new(seed: u64, randomness: f64, largest: usize) -> Self {
        let mut rng = Rng::new(seed, u64::MAX);
        let mut pool = vec![b'r'; POOL_BYTES + largest];
        for run in pool.chunks_mut(64) {
            let random = (run.len() as f64 * randomness).round() as usize;
            rng.fill(&mut run[..random]);
        }
        Self { pool }
    }

    pub fn slice(&self, rng: &mut Rng, length: usize) -> &[u8] {
        // At a multiple of 64, so that the share of random bytes holds for short payloads too.
        let at = rng.below((POOL_BYTES / 64) as u64) as usize * 64;
        &self.pool[at..at + length]
    }
}

/// The draws of one record.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    pub partition: u32,
    pub key: Option<[u8; KEY_BYTES]>,
    pub value_bytes: usize,
}

/// One producer's choices.
#[derive(Debug)]
pub struct Picker {
    rng: Rng,
    /// The sticky or round-robin partition.
    current: u32,
}

impl Picker {
    pub fn new(mut rng: Rng, partitions: usize) -> Self {
        let current = rng.below(partitions as u64) as u32;
        Self { rng, current }
    }

    pub fn draw(&mut self, settings: &Settings) -> Draw {
        let value_bytes = settings.sizes.draw(&mut self.rng);
        let key = (settings.keys > 0).then(|| key_bytes(self.rng.below(settings.keys)));
        let partitions = settings.partitions as u32;
        let partition = match settings.partitioner {
            Partitioner::Sticky => self.current,
            Partitioner::RoundRobin => {
                self.step(settings);
                self.current
            }
            Partitioner::Random => self.rng.below(u64::from(partitions)) as u32,
            Partitioner::Key => {
                let key = key.expect("the partitioner by key is only allowed with keys");
                (murmur2(&key) & 0x7fff_ffff) % partitions
            }
        };
        Draw { partition, key, value_bytes }
    }

    /// A sticky partition ends with its batch.
    pub fn batch_closed(&mut self, partition: u32, settings: &Settings) {
        if settings.partitioner == Partitioner::Sticky && partition == self.current {
            self.step(settings);
        }
    }

    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    fn step(&mut self, settings: &Settings) {
        self.current = (self.current + 1) % settings.partitions as u32;
    }
}

fn key_bytes(number: u64) -> [u8; KEY_BYTES] {
    let mut key = *b"key-000000000000";
    let mut rest = number;
    for digit in key.iter_mut().rev() {
        if rest == 0 {
            break;
        }
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// The hash by which the Java client finds a key's partition.
pub fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let mut h = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in words.by_ref() {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    for (at, byte) in rest.iter().enumerate() {
        h ^= u32::from(*byte) << (8 * at);
    }
    if !rest.is_empty() {
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_is_the_java_clients() {
        // From Kafka's own UtilsTest.
        let cases: [(&[u8], i32); 5] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, hash) in cases {
            assert_eq!(murmur2(key) as i32, hash);
        }
    }

    #[test]
    fn keys_are_distinct_and_readable() {
        assert_eq!(&key_bytes(0), b"key-000000000000");
        assert_eq!(&key_bytes(987_654), b"key-000000987654");
    }

    #[test]
    fn payload_has_the_stated_share_of_random_bytes() {
        let payload = Payload::new(1, 0.25, 4096);
        let slice = payload.slice(&mut Rng::new(1, 2), 64);
        let constant = slice.iter().filter(|byte| **byte == b'r').count();
        assert!((46..=52).contains(&constant), "{constant}");
    }
}
