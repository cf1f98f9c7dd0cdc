//! The latency gate: base and candidate in pairs of rounds, a decision with stated error rates, reports for CI.

pub mod baseline;
pub mod calibrate;
pub mod report;

use serde::Serialize;

use crate::{
    compare::{Plan, Rounds},
    failure::Failure,
    gate::baseline::Baseline,
    rng::Rng,
    stats::{
        FLIPS,
        gate::{Decision, Look, Rules},
    },
};

/// Chance of a false regression in a whole invocation.
pub const ALPHA_REGRESSION: f64 = 0.01;
/// Chance of a false pass at the limit.
pub const ALPHA_PASS: f64 = 0.05;

/// A metric and the slowdown that is not tolerated.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Limit {
    /// Of the produce latency: p50, p90, p99, p99.9 or p99.99.
    pub percentile: String,
    pub share: f64,
}

impl Limit {
    /// `p50=2.5%,p99=5%`.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, Failure> {
        let wrong = || Failure(format!("limit: percentiles with shares as p50=2.5%,p99=5%, not {text:?}"));
        let limits = text.split(',').map(|part| {
            let (percentile, share) = part.trim().split_once('=').ok_or_else(wrong)?;
            let known = crate::report::json::QUANTILES.iter().any(|(name, _)| *name == percentile);
            let percent: f64 = share.strip_suffix('%').and_then(|p| p.parse().ok()).ok_or_else(wrong)?;
            if !known || percent <= 0.0 {
                return Err(wrong());
            }
            Ok(Self { percentile: percentile.to_owned(), share: percent / 100.0 })
        });
        limits.collect()
    }
}

/// What a gate run has found.
pub struct Verdict {
    pub look: Look,
    pub names: Vec<String>,
    pub rules: Rules,
    /// Against a stored baseline the null broker is the rounds' base, and the candidate their candidate.
    pub rounds: Rounds,
    pub baseline: Option<Baseline>,
}

/// The gated numbers: each limit under each workload.
pub fn gated(plan: &Plan, limits: &[Limit]) -> (Vec<String>, Vec<f64>) {
    let pairs = plan.workloads.iter().flat_map(|workload| {
        limits.iter().map(|limit| (format!("{} latency {}", workload.name, limit.percentile), limit.share))
    });
    pairs.unzip()
}

pub fn rules(pairs: usize, limits: Vec<f64>) -> Rules {
    Rules {
        alpha_regression: ALPHA_REGRESSION,
        alpha_pass: ALPHA_PASS,
        looks: Rules::looks_for(pairs),
        limits,
        flips: FLIPS,
    }
}

/// Measures until a look decides or all pairs are in.
pub fn run(plan: Plan, limits: &[Limit], tell: &mut dyn FnMut(&str)) -> Result<Verdict, Failure> {
    let (names, shares) = gated(&plan, limits);
    let rules = rules(plan.pairs, shares);
    let mut rng = Rng::new(plan.seed, 3);
    let mut rounds = Rounds::new(plan)?;
    let mut last = None;
    for (number, pairs) in rules.looks.iter().enumerate() {
        rounds.measure_until(*pairs, tell)?;
        let differences = gated_differences(&rounds, &names)?;
        let look = rules.look(number, &differences, &mut rng);
        tell(&format!("look at {pairs} pairs: {:?}", look.decision).to_lowercase());
        let decided = look.decision != Decision::Inconclusive;
        last = Some(look);
        if decided {
            break;
        }
    }
    let look = last.ok_or_else(|| Failure("no pairs were asked for".to_owned()))?;
    Ok(Verdict { look, names, rules, rounds, baseline: None })
}

fn gated_differences(rounds: &Rounds, names: &[String]) -> Result<Vec<Vec<f64>>, Failure> {
    let lists = names.iter().map(|name| {
        let list = rounds.differences(name);
        if list.len() < rounds.pairs.len() {
            return Err(Failure(format!(
                "{name} had fewer than 100 samples beyond it in some rounds: give more --duration or --rate"
            )));
        }
        Ok(list)
    });
    lists.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_parse() {
        let limits = Limit::parse_list("p50=2.5%,p99=5%").unwrap();
        assert_eq!(limits[0], Limit { percentile: "p50".to_owned(), share: 0.025 });
        assert_eq!(limits.len(), 2);
        for wrong in ["p50", "p50=2.5", "p42=1%", "p50=-1%", ""] {
            assert!(Limit::parse_list(wrong).is_err(), "{wrong}");
        }
    }
}
