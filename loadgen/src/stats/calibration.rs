//! How often the gate is wrong, measured: virtual gate runs drawn from a pool of real pairs.
//!
//! The pool is drawn from in blocks of neighbours, so that what neighbours share (a slow minute of the machine) stays in.
//! The confidence of a rate comes from resampling the pool itself: a million virtual runs from forty pairs still know only
//! what forty pairs know.

use serde::Serialize;

use crate::rng::Rng;
use crate::stats::gate::{Decision, Rules};
use crate::stats::quantile;

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

/// Draws `pairs` pairs from the pool, in blocks of neighbours. The pool has one list a metric, all of one length.
pub fn draw_blocks(pool: &[Vec<f64>], pairs: usize, rng: &mut Rng) -> Vec<Vec<f64>> {
    let length = pool.first().map_or(0, Vec::len);
    let mut drawn = vec![Vec::with_capacity(pairs); pool.len()];
    if length == 0 {
        return drawn;
    }
    while drawn[0].len() < pairs {
        let start = rng.below(length as u64) as usize;
        for step in 0..BLOCK_PAIRS.min(pairs - drawn[0].len()) {
            for (metric, list) in drawn.iter_mut().enumerate() {
                list.push(pool[metric][(start + step) % length]);
            }
        }
    }
    drawn
}

/// Shares of pass, regression and inconclusive in virtual gates from a pool whose differences are all moved by `shifts`, one
/// a metric: what the gate would say of a slowdown of that size.
pub fn shares(pool: &[Vec<f64>], shifts: &[f64], rules: &Rules, rng: &mut Rng) -> [f64; 3] {
    let moved = pool.iter().zip(shifts).map(|(list, shift)| list.iter().map(|difference| difference + shift).collect());
    count(&moved.collect::<Vec<Vec<f64>>>(), rules, OUTER * INNER / 4, rng)
}

fn count(pool: &[Vec<f64>], rules: &Rules, runs: usize, rng: &mut Rng) -> [f64; 3] {
    let pairs = rules.looks.last().copied().unwrap_or(0);
    let mut counts = [0.0; 3];
    for _ in 0..runs {
        let drawn = draw_blocks(pool, pairs, rng);
        counts[rules.judge(&drawn, rng).decision as usize] += 1.0 / runs as f64;
    }
    counts
}

/// The rates of the gate under `rules` on a machine that this pool was measured on.
pub fn rates(pool: &[Vec<f64>], rules: &Rules, rng: &mut Rng) -> Rates {
    let pool_pairs = pool.first().map_or(0, Vec::len);
    let estimate = count(pool, rules, OUTER * INNER / 4, rng);
    let mut outer = [const { Vec::new() }; 3];
    let mut reseed = Rng::new(pool_pairs as u64, 77);
    for _ in 0..OUTER {
        let resampled = draw_blocks(pool, pool_pairs, &mut reseed);
        for (list, share) in outer.iter_mut().zip(count(&resampled, rules, INNER, rng)) {
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
        let drawn = draw_blocks(&pool, 40, &mut Rng::new(1, 1));
        assert_eq!(drawn[0].len(), 40);
        for block in drawn[0].chunks(BLOCK_PAIRS) {
            assert!(block.windows(2).all(|w| (w[0] + 1.0) % 100.0 == w[1]), "{block:?}");
        }
    }

    #[test]
    fn a_quiet_pool_passes_and_a_shifted_one_does_not() {
        let quiet = rates(&pool(0.0, 0.01, 40, 1), &rules(), &mut Rng::new(1, 1));
        assert!(quiet.pass.estimate > 0.95 && quiet.regression.high == 0.0, "{quiet:?}");
        let shifted = rates(&pool(0.1, 0.01, 40, 1), &rules(), &mut Rng::new(1, 1));
        assert!(shifted.regression.estimate > 0.95, "{shifted:?}");
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
        let noisy = rates(&pool(0.0, 0.06, 12, 3), &rules(), &mut Rng::new(1, 1));
        assert!(noisy.pass.high - noisy.pass.low > 0.2, "{noisy:?}");
    }
}
