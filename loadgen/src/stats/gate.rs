//! The decision of the gate: regression, pass or inconclusive, with the rates held over all metrics and all looks.

use serde::Serialize;

use crate::{
    rng::Rng,
    stats::{Side, holm, sign_flip, spend, trimmed_mean, two_sample},
};

/// What the gate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    Pass,
    Regression,
    Inconclusive,
}

/// The rules, fixed before the first pair.
#[derive(Clone, Debug, Serialize)]
pub struct Rules {
    /// Chance of a false regression in the whole invocation: all metrics, all workloads, all looks.
    pub alpha_regression: f64,
    /// Chance of a false pass, when one metric is slower by exactly its limit or more.
    pub alpha_pass: f64,
    /// Numbers of pairs at which the gate looks; the last is the end.
    pub looks: Vec<usize>,
    /// By metric: the slowdown that is not tolerated, as a share (0.05 is 5 %).
    pub limits: Vec<f64>,
    /// Sign patterns drawn for each test.
    pub flips: usize,
}

/// One metric's evidence at a look.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Evidence {
    /// Estimated slowdown, as a share.
    pub slowdown: f64,
    /// p-value of "not slower than the limit".
    pub p_above_limit: f64,
    /// p-value of "at least as slow as the limit".
    pub p_below_limit: f64,
    pub is_above: bool,
    pub is_below: bool,
}

/// What a look finds.
#[derive(Clone, Debug, Serialize)]
pub struct Look {
    pub pairs: usize,
    pub decision: Decision,
    pub metrics: Vec<Evidence>,
}

impl Rules {
    /// Looks at half, three quarters and all of the pairs; never with fewer than sign flips can decide with.
    pub fn looks_for(pairs: usize) -> Vec<usize> {
        let mut looks: Vec<usize> = [pairs / 2, pairs * 3 / 4, pairs].into_iter().filter(|at| *at >= 8).collect();
        if looks.is_empty() {
            looks.push(pairs);
        }
        looks.dedup();
        looks
    }

    /// Judges the pairs that are in at look number `look`. `differences` has one list a metric, logarithms of
    /// candidate over base.
    ///
    /// Regression: some metric's lower bound is above its limit; Holm over the metrics holds the rate for all. Pass: every
    /// metric's upper bound is below its limit; since all must be, each can be tested at the full level.
    pub fn look(&self, look: usize, differences: &[Vec<f64>], rng: &mut Rng) -> Look {
        let last = *self.looks.last().unwrap_or(&1) as f64;
        let fractions: Vec<f64> = self.looks.iter().map(|at| *at as f64 / last).collect();
        let part = |alpha| spend(alpha, &fractions).get(look).copied().unwrap_or(0.0);
        let (alpha_regression, alpha_pass) = (part(self.alpha_regression), part(self.alpha_pass));
        let mut test = |side| -> Vec<f64> {
            let pairs = differences.iter().zip(&self.limits);
            pairs.map(|(list, limit)| sign_flip(list, limit.ln_1p(), side, self.flips, rng)).collect()
        };
        let (above, below) = (test(Side::Above), test(Side::Below));
        let centres = differences.iter().map(|list| trimmed_mean(list)).collect();
        let pairs = differences.first().map_or(0, Vec::len);
        decide(pairs, centres, (above, alpha_regression), (below, alpha_pass))
    }

    /// The same decision from two independent lists a metric: of the candidate now and of the base then. One look, which
    /// spends everything.
    pub fn look_unpaired(&self, now: &[Vec<f64>], then: &[Vec<f64>], rng: &mut Rng) -> Look {
        let mut test = |side| -> Vec<f64> {
            let lists = now.iter().zip(then).zip(&self.limits);
            lists.map(|((now, then), limit)| two_sample(now, then, limit.ln_1p(), side, rng)).collect()
        };
        let (above, below) = (test(Side::Above), test(Side::Below));
        let centres = now.iter().zip(then).map(|(now, then)| trimmed_mean(now) - trimmed_mean(then)).collect();
        let pairs = now.first().map_or(0, Vec::len);
        decide(pairs, centres, (above, self.alpha_regression), (below, self.alpha_pass))
    }

    /// The whole gate over pairs that are all there already: the first look that decides ends it.
    pub fn judge(&self, differences: &[Vec<f64>], rng: &mut Rng) -> Look {
        let mut last = None;
        for (number, pairs) in self.looks.iter().enumerate() {
            let so_far: Vec<Vec<f64>> =
                differences.iter().map(|list| list[..(*pairs).min(list.len())].to_vec()).collect();
            let look = self.look(number, &so_far, rng);
            if look.decision != Decision::Inconclusive {
                return look;
            }
            last = Some(look);
        }
        last.unwrap_or(Look { pairs: 0, decision: Decision::Inconclusive, metrics: Vec::new() })
    }
}

/// From p-values with their levels to a decision.
fn decide(
    pairs: usize,
    centres: Vec<f64>,
    (above, alpha_regression): (Vec<f64>, f64),
    (below, alpha_pass): (Vec<f64>, f64),
) -> Look {
    let is_above = holm(&above, alpha_regression);
    let is_below: Vec<bool> = below.iter().map(|p| *p <= alpha_pass).collect();
    let decision = if is_above.contains(&true) {
        Decision::Regression
    } else if !is_below.is_empty() && is_below.iter().all(|below| *below) {
        Decision::Pass
    } else {
        Decision::Inconclusive
    };
    let metrics = centres.into_iter().enumerate().map(|(at, centre)| Evidence {
        slowdown: centre.exp_m1(),
        p_above_limit: above[at],
        p_below_limit: below[at],
        is_above: is_above[at],
        is_below: is_below[at],
    });
    Look { pairs, decision, metrics: metrics.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::FLIPS_FEW;

    fn rules(pairs: usize) -> Rules {
        Rules {
            alpha_regression: 0.01,
            alpha_pass: 0.05,
            looks: Rules::looks_for(pairs),
            limits: vec![0.025, 0.05],
            flips: FLIPS_FEW,
        }
    }

    /// Counts decisions over invocations with two metrics of the given shifts and spread.
    fn rates(shifts: [f64; 2], spread: f64, pairs: usize, invocations: usize) -> [f64; 3] {
        let mut rng = Rng::new(21, pairs as u64);
        let rules = rules(pairs);
        let mut counts = [0.0; 3];
        for _ in 0..invocations {
            let differences: Vec<Vec<f64>> = shifts
                .iter()
                .map(|shift| (0..pairs).map(|_| shift.ln_1p() + spread * rng.normal()).collect())
                .collect();
            counts[rules.judge(&differences, &mut rng).decision as usize] += 1.0;
        }
        counts.map(|count| count / invocations as f64)
    }

    /// What the gate promises, where the machine's spread allows it: 40 pairs whose p50 and p99 scatter by 3 %.
    #[test]
    fn the_promised_rates_hold_when_pairs_scatter_by_three_percent() {
        let [pass, regression, _] = rates([0.0, 0.0], 0.03, 40, 60);
        assert!(pass >= 0.9, "no shift: pass {pass}");
        assert!(regression <= 0.01, "no shift: regression {regression}");
        let [_, regression, _] = rates([0.05, 0.1], 0.03, 40, 60);
        assert!(regression >= 0.95, "shift of 2M: regression {regression}");
    }

    #[test]
    fn at_the_limit_a_false_pass_is_rare() {
        let [pass, regression, _] = rates([0.025, 0.05], 0.03, 20, 120);
        assert!(pass <= 0.05 && regression <= 0.05, "{pass} {regression}");
    }

    #[test]
    fn too_much_noise_is_inconclusive_and_not_a_verdict() {
        let [pass, regression, inconclusive] = rates([0.0, 0.0], 0.5, 12, 100);
        assert!(regression <= 0.02 && inconclusive >= 0.8, "{pass} {regression} {inconclusive}");
    }

    #[test]
    fn nothing_measured_is_inconclusive() {
        let mut rng = Rng::new(1, 1);
        let look = rules(20).judge(&[Vec::new(), Vec::new()], &mut rng);
        assert_eq!(look.decision, Decision::Inconclusive);
    }

    #[test]
    fn unpaired_lists_decide_too_and_an_empty_one_does_not() {
        let mut rng = Rng::new(4, 1);
        let rules = Rules { looks: vec![20], limits: vec![0.05], ..rules(20) };
        let mut list = |shift: f64| vec![(0..20).map(|_| shift + 0.02 * rng.normal()).collect::<Vec<f64>>()];
        let (then, same, slower) = (list(1.0), list(1.0), list(1.2));
        let mut rng = Rng::new(4, 2);
        assert_eq!(rules.look_unpaired(&same, &then, &mut rng).decision, Decision::Pass);
        assert_eq!(rules.look_unpaired(&slower, &then, &mut rng).decision, Decision::Regression);
        assert_eq!(rules.look_unpaired(&slower, &[Vec::new()], &mut rng).decision, Decision::Inconclusive);
    }
}
