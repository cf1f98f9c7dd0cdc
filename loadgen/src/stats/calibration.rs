//! How often the gate is wrong, measured: virtual gate runs drawn from a pool of real pairs.
//!
//! The pool is drawn from in blocks of neighbours, so that what neighbours share (a slow minute of the machine) stays in.
//! The confidence of a rate comes from resampling the pool itself: a million virtual runs from forty pairs still know only
//! what forty pairs know.

use serde::Serialize;

use crate::{
    rng::Rng,
    stats::{
        gate::{Decision, Rules},
        quantile,
    },
};

pub const BLOCK_PAIRS: usize = 4;
const OUTER: usize = 40;
const INNER: usize = 25;

/// A rate with its 95 % interval.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Rate {
    pub estimate: f64,
    pub low: f64,
    pub high: f64,
}

/// The rates of the three decisions.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Rates {
    pub pass: Rate,
    pub regression: Rate,
    pub inconclusive: Rate,
    pub pool_pairs: usize,
    pub virtual_runs: usize,
}

/// What is known of a pool beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// Both arms are the same broker and their order was drawn, so each pair could as well have come with the other sign:
    /// every drawn pair gets a sign of its own, and a pool that lies beside 0 by chance makes no false alarms.
    NoShift,
    /// As measured, with the chance that is in it.
    Unknown,
}

/// Draws `pairs` pairs from the pool, in blocks of neighbours. The pool has one list a metric, all of one length.
pub fn draw_blocks(pool: &[Vec<f64>], pairs: usize, truth: Truth, rng: &mut Rng) -> Vec<Vec<f64>> {
    let length = pool.first().map_or(0, Vec::len);
    let mut drawn = vec![Vec::with_capacity(pairs); pool.len()];
    if length == 0 {
        return drawn;
    }
    while drawn[0].len() < pairs {
        let start = rng.below(length as u64) as usize;
        for step in 0..BLOCK_PAIRS.min(pairs - drawn[0].len()) {
            let sign = match truth {
                Truth::NoShift if rng.next_u64() & 1 == 0 => -1.0,
                Truth::NoShift | Truth::Unknown => 1.0,
            };
            for (metric, list) in drawn.iter_mut().enumerate() {
                list.push(sign * pool[metric][(start + step) % length]);
            }
        }
    }
    drawn
}

/// Shares of pass, regression and inconclusive in virtual gates from a pool without a shift, whose drawn differences are all
/// moved by `shifts`, one a metric: what the gate would say of a slowdown of that size.
pub fn shares(pool: &[Vec<f64>], shifts: &[f64], rules: &Rules, rng: &mut Rng) -> [f64; 3] {
    count(pool, shifts, rules, Truth::NoShift, OUTER * INNER / 4, rng)
}

fn count(pool: &[Vec<f64>], shifts: &[f64], rules: &Rules, truth: Truth, runs: usize, rng: &mut Rng) -> [f64; 3] {
    let pairs = rules.looks.last().copied().unwrap_or(0);
    let mut counts = [0.0; 3];
    for _ in 0..runs {
        let mut drawn = draw_blocks(pool, pairs, truth, rng);
        for (list, shift) in drawn.iter_mut().zip(shifts) {
            list.iter_mut().for_each(|difference| *difference += shift);
        }
        counts[rules.judge(&drawn, rng).decision as usize] += 1.0 / runs as f64;
    }
    counts
}

/// The rates of the gate under `rules` on a machine that this pool was measured on.
pub fn rates(pool: &[Vec<f64>], truth: Truth, rules: &Rules, rng: &mut Rng) -> Rates {
    let pool_pairs = pool.first().map_or(0, Vec::len);
    let estimate = count(pool, &[], rules, truth, OUTER * INNER / 4, rng);
    let mut outer = [const { Vec::new() }; 3];
    let mut reseed = Rng::new(pool_pairs as u64, 77);
    for _ in 0..OUTER {
        let resampled = draw_blocks(pool, pool_pairs, Truth::Unknown, &mut reseed);
        for (list, share) in outer.iter_mut().zip(count(&resampled, &[], rules, truth, INNER, rng)) {
            list.push(share);
        }
    }
    let rate = |decision: Decision| {
        let mut sorted = outer[decision as usize].clone();
        sorted.sort_unstable_by(f64::total_cmp);
        Rate { estimate: estimate[decision as usize], low: quantile(&sorted, 0.025), high: quantile(&sorted, 0.975) }
    };
    Rates {
        pass: rate(Decision::Pass),
        regression: rate(Decision::Regression),
        inconclusive: rate(Decision::Inconclusive),
        pool_pairs,
        virtual_runs: OUTER * INNER / 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::FLIPS_FEW;

    fn pool(shift: f64, spread: f64, pairs: usize, seed: u64) -> Vec<Vec<f64>> {
        let mut rng = Rng::new(seed, 5);
        vec![(0..pairs).map(|_| shift + spread * rng.normal()).collect()]
    }

    fn rules() -> Rules {
        Rules { alpha_regression: 0.01, alpha_pass: 0.05, looks: vec![12], limits: vec![0.05], flips: FLIPS_FEW }
    }

    #[test]
    fn blocks_keep_neighbours_together() {
        let pool = vec![(0..100).map(f64::from).collect::<Vec<f64>>()];
        let drawn = draw_blocks(&pool, 40, Truth::Unknown, &mut Rng::new(1, 1));
        assert_eq!(drawn[0].len(), 40);
        for block in drawn[0].chunks(BLOCK_PAIRS) {
            assert!(block.windows(2).all(|w| (w[0] + 1.0) % 100.0 == w[1]), "{block:?}");
        }
    }

    #[test]
    fn a_quiet_pool_passes_and_a_shifted_one_does_not() {
        let quiet = rates(&pool(0.0, 0.01, 40, 1), Truth::NoShift, &rules(), &mut Rng::new(1, 1));
        assert!(quiet.pass.estimate > 0.95 && quiet.regression.high == 0.0, "{quiet:?}");
        let shifted = rates(&pool(0.1, 0.01, 40, 1), Truth::Unknown, &rules(), &mut Rng::new(1, 1));
        assert!(shifted.regression.estimate > 0.95, "{shifted:?}");
    }

    /// Eighteen pairs that lie 20 % beside 0 by chance: known to be without a shift, they must not call a regression.
    #[test]
    fn a_pool_that_is_known_to_have_no_shift_makes_no_false_alarms() {
        let beside = pool(0.2, 0.3, 18, 5);
        let [_, regression, _] = shares(&beside, &[0.0], &rules(), &mut Rng::new(1, 1));
        assert!(regression <= 0.02, "{regression}");
    }

    #[test]
    fn a_moved_pool_is_a_regression() {
        let pool = pool(0.0, 0.01, 40, 1);
        let mut rng = Rng::new(1, 1);
        assert!(shares(&pool, &[0.0], &rules(), &mut rng)[Decision::Pass as usize] > 0.95);
        assert!(shares(&pool, &[0.1], &rules(), &mut rng)[Decision::Regression as usize] > 0.95);
    }

    #[test]
    fn a_small_pool_cannot_give_a_narrow_rate() {
        let noisy = rates(&pool(0.0, 0.06, 12, 3), Truth::Unknown, &rules(), &mut Rng::new(1, 1));
        assert!(noisy.pass.high - noisy.pass.low > 0.2, "{noisy:?}");
    }
}
