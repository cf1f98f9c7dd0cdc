//! Times, in buckets of fixed bounds.
//!
//! Buckets are an eighth of a power of two wide, from 1 µs to 137 s, so that a quantile is at most an eighth too large.
//! Recording finds its bucket with a count of leading zeros and a shift. `hdrhistogram` would do the same with its range and
//! precision in variables and a vector that may grow: several times the work and ten times the memory for digits that nobody
//! reads. Fixed bounds also make the sum of several cores, and the difference of two moments, a matter of adding arrays.

use std::{cell::Cell, time::Duration};

/// Buckets of one power of two.
const PARTS_BITS: u32 = 3;
/// Times below so many nanoseconds (a power of two) share the first bucket ...
const FLOOR_BITS: u32 = 10;
/// ... and from here on, the last one.
const CEILING_BITS: u32 = 37;

const BUCKETS: usize = 1 + (((CEILING_BITS - FLOOR_BITS) as usize) << PARTS_BITS);

/// How often things took how long, on one core.
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[Cell<u64>; BUCKETS]>,
    /// Of all times, in nanoseconds.
    total: Cell<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: Box::new([const { Cell::new(0) }; BUCKETS]), total: Cell::new(0) }
    }
}

impl Histogram {
    /// Counts a time.
    pub fn record(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let bucket = &self.buckets[bucket_of(nanos)];
        bucket.set(bucket.get() + 1);
        self.total.set(self.total.get().wrapping_add(nanos));
    }

    /// What was counted so far.
    #[must_use]
    pub fn times(&self) -> Times {
        Times { buckets: self.buckets.iter().map(Cell::get).collect(), total: self.total.get() }
    }
}

fn bucket_of(nanos: u64) -> usize {
    if nanos < 1 << FLOOR_BITS {
        return 0;
    }
    let power = nanos.ilog2();
    if power >= CEILING_BITS {
        return BUCKETS - 1;
    }
    let part = (nanos >> (power - PARTS_BITS)) as usize & ((1 << PARTS_BITS) - 1);
    1 + (((power - FLOOR_BITS) as usize) << PARTS_BITS) + part
}

/// The first time that is too long for the bucket. In nanoseconds.
fn upper_bound(bucket: usize) -> u64 {
    let (power, part) = (bucket >> PARTS_BITS, bucket & ((1 << PARTS_BITS) - 1));
    ((1 << PARTS_BITS) + part as u64) << (power as u32 + FLOOR_BITS - PARTS_BITS)
}

/// How often things took how long: plain data. Adds up over cores, and has differences over time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Empty is all zero.
    buckets: Vec<u64>,
    total: u64,
}

impl Times {
    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The mean; zero if nothing was counted.
    #[must_use]
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.total.checked_div(self.count()).unwrap_or(0))
    }

    /// The time that `per_mille` of 1000 did not reach or just reached, rounded up to a bucket's bound; zero if nothing was
    /// counted. With 1000, the longest.
    #[must_use]
    pub fn quantile(&self, per_mille: u64) -> Duration {
        let wanted = (u128::from(self.count()) * u128::from(per_mille)).div_ceil(1000).max(1);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += u128::from(*count);
            if seen >= wanted {
                return Duration::from_nanos(upper_bound(bucket));
            }
        }
        Duration::ZERO
    }

    /// Takes another core's in.
    pub fn merge(&mut self, other: &Self) {
        self.buckets.resize(self.buckets.len().max(other.buckets.len()), 0);
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(own, other)| *own += other);
        self.total = self.total.wrapping_add(other.total);
    }

    /// What has come since an earlier moment.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = earlier.buckets.iter().copied().chain(std::iter::repeat(0));
        let buckets = self.buckets.iter().zip(before).map(|(now, before)| now.saturating_sub(before));
        Self { buckets: buckets.collect(), total: self.total.wrapping_sub(earlier.total) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_lies_in_its_bucket() {
        let edges = (0..64).flat_map(|power| [(1u64 << power) - 1, 1 << power, (1 << power) + (1 << power >> 3)]);
        for nanos in edges.chain([0, 1_000_000, 123_456_789, u64::MAX]) {
            let bucket = bucket_of(nanos);
            let above = bucket == BUCKETS - 1 || nanos < upper_bound(bucket);
            assert!(above && (bucket == 0 || nanos >= upper_bound(bucket - 1)), "{nanos} ns in bucket {bucket}");
        }
        assert_eq!(upper_bound(0), 1 << FLOOR_BITS);
    }

    #[test]
    fn quantiles_are_an_eighth_too_large_at_most() {
        let histogram = Histogram::default();
        (1..=1000).for_each(|micros| histogram.record(Duration::from_micros(micros)));
        let times = histogram.times();
        for (per_mille, micros) in [(500, 500), (990, 990), (999, 999), (1000, 1000)] {
            let (found, exact) = (times.quantile(per_mille), Duration::from_micros(micros));
            assert!(exact <= found && found <= exact + exact / 8, "{per_mille}: {found:?}");
        }
        assert_eq!((times.count(), times.mean()), (1000, Duration::from_nanos(500_500)));
        assert_eq!((Times::default().quantile(500), Times::default().mean()), (Duration::ZERO, Duration::ZERO));
    }

    #[test]
    fn cores_add_up_and_moments_have_differences() {
        let histogram = |micros: &[u64]| {
            let histogram = Histogram::default();
            micros.iter().for_each(|micros| histogram.record(Duration::from_micros(*micros)));
            histogram.times()
        };
        let mut all = Times::default();
        all.merge(&histogram(&[10, 20]));
        all.merge(&histogram(&[30]));
        assert_eq!(all, histogram(&[10, 20, 30]));
        assert_eq!(all.since(&histogram(&[20])), histogram(&[10, 30]));
        assert_eq!(all.since(&Times::default()), all);
    }
}
