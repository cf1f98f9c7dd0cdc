//! The statistics of `compare` and `gate`, as plain functions over numbers. METHOD.md says why these and not others.
//!
//! The data are per-pair differences of logarithms: candidate over base, so 0.05 is about 5 % slower. All functions that
//! draw take a generator, so that a seed repeats them.

pub mod calibration;
pub mod gate;

use crate::rng::Rng;

/// Share cut off at each end of the trimmed mean: one wild pair in ten at each side does no harm.
const TRIM: f64 = 0.1;
/// Up to this many pairs all sign patterns are tried; above it they are drawn.
const EXACT_MAX: usize = 14;
/// Sign patterns drawn when a real decision hangs on them; a p-value is honest with any number, and finer with more.
pub const FLIPS: usize = 20_000;
/// Enough where decisions are counted by the hundred.
pub const FLIPS_FEW: usize = 2_000;
const SHUFFLES: usize = 10_000;
const RESAMPLES: usize = 4_000;
/// With five pairs even the most extreme signs have a two-sided p above 5 %.
const INTERVAL_PAIRS_MIN: usize = 6;

/// Which way a one-sided test looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Evidence that the location is above the hypothesis.
    Above,
    Below,
}

/// The mean without the outermost tenth on each side. 0 for no data.
pub fn trimmed_mean(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    trimmed_mean_in_place(&mut sorted)
}

fn trimmed_mean_in_place(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let cut = (values.len() as f64 * TRIM) as usize;
    if cut == 1 {
        // The usual number of pairs, some 10^5 times over: no need to sort.
        let start = (f64::INFINITY, f64::NEG_INFINITY, 0.0);
        let (low, high, sum) =
            values.iter().fold(start, |(low, high, sum), value| (value.min(low), value.max(high), sum + value));
        return (sum - low - high) / (values.len() - 2) as f64;
    }
    if cut > 0 {
        let last = values.len() - 1;
        values.select_nth_unstable_by(cut, f64::total_cmp);
        values[cut..].select_nth_unstable_by(last - 2 * cut, f64::total_cmp);
    }
    let kept = &values[cut..values.len() - cut];
    kept.iter().sum::<f64>() / kept.len() as f64
}

/// The p-value of a sign-flip test: under the hypothesis that the differences lie symmetrically about `location`, how often
/// would flipped signs give a trimmed mean at least as extreme as the one seen? With many differences `flips` patterns are
/// drawn, with few all are tried.
///
/// With the order within each pair drawn at random, the differences of two equal arms *are* symmetric about 0, whatever the
/// machine does: drift, two modes, heavy tails and correlation between pairs cannot make the test lie.
pub fn sign_flip(differences: &[f64], location: f64, side: Side, flips: usize, rng: &mut Rng) -> f64 {
    if differences.is_empty() {
        return 1.0;
    }
    let sign = match side {
        Side::Above => 1.0,
        Side::Below => -1.0,
    };
    let centred: Vec<f64> = differences.iter().map(|d| sign * (d - location)).collect();
    let seen = trimmed_mean(&centred);
    // Sums of the same numbers in another order differ in the last bits.
    let at_least = seen - 1e-12 * seen.abs().max(1e-9);
    let mut flipped = vec![0.0; centred.len()];
    let mut trial = |mut bits: u64, refill: &mut dyn FnMut() -> u64| {
        for (at, (out, value)) in flipped.iter_mut().zip(&centred).enumerate() {
            if at % 64 == 0 && at > 0 {
                bits = refill();
            }
            *out = if bits >> (at % 64) & 1 == 0 { *value } else { -*value };
        }
        trimmed_mean_in_place(&mut flipped) >= at_least
    };
    if centred.len() <= EXACT_MAX {
        let patterns = 1u64 << centred.len();
        let hits = (0..patterns).filter(|bits| trial(*bits, &mut || 0)).count();
        return hits as f64 / patterns as f64;
    }
    let mut hits = 0;
    for _ in 0..flips {
        let bits = rng.next_u64();
        hits += usize::from(trial(bits, &mut || rng.next_u64()));
    }
    // The pattern that was seen is one of those possible; without it a p of 0 would claim too much.
    (hits + 1) as f64 / (flips + 1) as f64
}

/// Two-sided p-value of no difference.
pub fn sign_flip_two_sided(differences: &[f64], rng: &mut Rng) -> f64 {
    let above = sign_flip(differences, 0.0, Side::Above, FLIPS, rng);
    let below = sign_flip(differences, 0.0, Side::Below, FLIPS, rng);
    (2.0 * above.min(below)).min(1.0)
}

/// The p-value of a permutation test of two independent samples: under the hypothesis that they differ by `location` and
/// are alike otherwise, how often would shuffled labels give a difference of trimmed means at least as extreme?
///
/// Nothing here makes the samples alike: what has changed between two sessions besides the broker is taken for the broker.
pub fn two_sample(first: &[f64], second: &[f64], location: f64, side: Side, rng: &mut Rng) -> f64 {
    if first.is_empty() || second.is_empty() {
        return 1.0;
    }
    let sign = match side {
        Side::Above => 1.0,
        Side::Below => -1.0,
    };
    let mut pool: Vec<f64> = first.iter().map(|value| sign * (value - location)).collect();
    pool.extend(second.iter().map(|value| sign * value));
    let difference = |pool: &[f64]| {
        let (first, second) = pool.split_at(first.len());
        trimmed_mean(first) - trimmed_mean(second)
    };
    let seen = difference(&pool);
    // Sums of the same numbers in another order differ in the last bits.
    let at_least = seen - 1e-12 * seen.abs().max(1e-9);
    let hits = (0..SHUFFLES).filter(|_| {
        rng.shuffle(&mut pool);
        difference(&pool) >= at_least
    });
    (hits.count() + 1) as f64 / (SHUFFLES + 1) as f64
}

/// A confidence interval of the trimmed mean: whole pairs are resampled, and the deviations are studentised, which holds its
/// level with few pairs better than plain percentiles. None for so few pairs that they bound nothing.
pub fn interval(differences: &[f64], confidence: f64, rng: &mut Rng) -> Option<(f64, f64)> {
    let n = differences.len();
    let centre = trimmed_mean(differences);
    let error = standard_error(differences);
    if n < INTERVAL_PAIRS_MIN {
        return None;
    }
    if error == 0.0 {
        return Some((centre, centre));
    }
    let mut sample = vec![0.0; n];
    let mut deviations: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            for slot in &mut sample {
                *slot = differences[rng.below(n as u64) as usize];
            }
            let own_error = standard_error(&sample).max(error * 1e-3);
            (trimmed_mean(&sample) - centre) / own_error
        })
        .collect();
    deviations.sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - confidence) / 2.0;
    Some((centre - error * quantile(&deviations, 1.0 - tail), centre - error * quantile(&deviations, tail)))
}

/// Of the trimmed mean, from the winsorised spread (Tukey and McLaughlin).
pub fn standard_error(values: &[f64]) -> f64 {
    let n = values.len();
    if n < 2 {
        return 0.0;
    }
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let cut = (n as f64 * TRIM) as usize;
    let (low, high) = (sorted[cut], sorted[n - 1 - cut]);
    let winsorised: Vec<f64> = sorted.iter().map(|value| value.clamp(low, high)).collect();
    let mean = winsorised.iter().sum::<f64>() / n as f64;
    let variance = winsorised.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1) as f64;
    let kept = (n - 2 * cut) as f64 / n as f64;
    variance.sqrt() / (kept * (n as f64).sqrt())
}

/// The smallest true difference that as many pairs of this spread would show with 80 % power at the 5 % level.
pub fn smallest_detectable(differences: &[f64]) -> f64 {
    const Z_LEVEL: f64 = 1.960;
    const Z_POWER: f64 = 0.842;
    (Z_LEVEL + Z_POWER) * standard_error(differences)
}

/// Quantile of sorted values, linear between them.
pub fn quantile(sorted: &[f64], at: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let place = at.clamp(0.0, 1.0) * last as f64;
    let (low, rest) = (place.floor() as usize, place.fract());
    sorted[low] + rest * (sorted[(low + 1).min(last)] - sorted[low])
}

/// Holm's step-down: which hypotheses fall if the chance of any false fall is to stay at `alpha`.
pub fn holm(p_values: &[f64], alpha: f64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut falls = vec![false; p_values.len()];
    for (rank, at) in order.iter().enumerate() {
        if p_values[*at] > alpha / (p_values.len() - rank) as f64 {
            break;
        }
        falls[*at] = true;
    }
    falls
}

/// What each look may spend of `alpha`, when `fractions` of the pairs are in: little early, most at the end. The parts add
/// up to alpha, so the union of all looks stays at its level however they depend on each other.
pub fn spend(alpha: f64, fractions: &[f64]) -> Vec<f64> {
    let spent = |fraction: f64| alpha * fraction.powi(2);
    let mut before = 0.0;
    let parts = fractions.iter().map(|fraction| {
        let part = spent(*fraction) - before;
        before = spent(*fraction);
        part
    });
    parts.collect()
}

#[cfg(test)]
mod tests;
