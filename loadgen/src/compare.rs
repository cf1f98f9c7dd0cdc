//! Two targets, pair by pair: fresh processes and directories each round, the order within a pair drawn from the seed.

pub mod report;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    engine,
    failure::Failure,
    measure::{Metric, is_backed},
    report::json::rate,
    rng::Rng,
    stats::{interval, sign_flip_two_sided, smallest_detectable, trimmed_mean},
    sys,
    target::Target,
    workload::Workload,
};

/// One round's numbers by name; larger is worse for all but throughput.
pub type Numbers = BTreeMap<String, f64>;

/// How rounds are made. Fixed before the first one.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    pub base: Target,
    pub candidate: Target,
    pub workloads: Vec<Workload>,
    pub pairs: usize,
    pub seed: u64,
    pub cpus: String,
    pub directory: PathBuf,
    /// A pair in which the hypervisor took more than this share of the CPU is dropped, and counted.
    pub steal_limit: f64,
}

/// Two rounds, one workload after the other in each.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Pair {
    pub base: Numbers,
    pub candidate: Numbers,
    pub base_first: bool,
    pub steal: f64,
    /// Of its two rounds, those in which the generator itself was too late.
    pub late: u32,
}

/// One round's numbers.
#[derive(Clone, Debug)]
pub struct Round {
    pub numbers: Numbers,
    /// Some workload's run was invalid: the generator did not get its CPU.
    pub is_late: bool,
}

/// The pairs of a plan as they come in.
pub struct Rounds {
    plan: Plan,
    rng: Rng,
    pub pairs: Vec<Pair>,
    pub dropped: usize,
}

/// Drawn pairs that may be dropped before the machine is given up.
const DROPPED_SHARE_MAX: usize = 2;

impl Rounds {
    pub fn new(plan: Plan) -> Result<Self, Failure> {
        fs::create_dir_all(&plan.directory).map_err(|error| {
            Failure(format!("cannot make {}: {error}; give another --work-dir", plan.directory.display()))
        })?;
        let rng = Rng::new(plan.seed, 1);
        Ok(Self { plan, rng, pairs: Vec::new(), dropped: 0 })
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Measures until `count` pairs are there.
    pub fn measure_until(&mut self, count: usize, tell: &mut dyn FnMut(&str)) -> Result<(), Failure> {
        while self.pairs.len() < count {
            let base_first = self.rng.next_u64() & 1 == 0;
            let before = steal_and_total();
            let (first, second) = if base_first {
                (&self.plan.base, &self.plan.candidate)
            } else {
                (&self.plan.candidate, &self.plan.base)
            };
            let first = round(first, &self.plan)?;
            let second = round(second, &self.plan)?;
            let steal = steal_share(before, steal_and_total());
            if steal > self.plan.steal_limit {
                self.dropped += 1;
                tell(&format!("pair dropped: the hypervisor took {:.1} % of the CPU", steal * 100.0));
                if self.dropped > DROPPED_SHARE_MAX * self.plan.pairs {
                    return Err("the machine is too busy: most pairs had to be dropped for CPU steal".into());
                }
                continue;
            }
            let (base, candidate) = if base_first { (first, second) } else { (second, first) };
            let late = u32::from(base.is_late) + u32::from(candidate.is_late);
            let (base, candidate) = (base.numbers, candidate.numbers);
            self.pairs.push(Pair { base, candidate, base_first, steal, late });
            tell(&format!("pair {} of {}", self.pairs.len(), self.plan.pairs));
        }
        Ok(())
    }

    /// Rounds in which the generator itself was too late. They stay in: leaving them out would select.
    pub fn late_rounds(&self) -> u32 {
        self.pairs.iter().map(|pair| pair.late).sum()
    }

    /// Logarithms of candidate over base, of the pairs in which both have the number.
    pub fn differences(&self, name: &str) -> Vec<f64> {
        differences(&self.pairs, name)
    }

    /// Names that any round has.
    pub fn names(&self) -> BTreeSet<String> {
        self.pairs.iter().flat_map(|pair| pair.base.keys().chain(pair.candidate.keys())).cloned().collect()
    }
}

pub fn differences(pairs: &[Pair], name: &str) -> Vec<f64> {
    let both = pairs.iter().filter_map(|pair| Some((pair.base.get(name)?, pair.candidate.get(name)?)));
    both.filter(|(base, candidate)| **base > 0.0 && **candidate > 0.0)
        .map(|(base, candidate)| (candidate / base).ln())
        .collect()
}

/// A fresh broker, every workload, its numbers.
fn round(target: &Target, plan: &Plan) -> Result<Round, Failure> {
    measure_round(target, &plan.workloads, &plan.directory, &plan.cpus, None)
}

/// One round; with `delays` the load goes through a proxy that adds them.
pub fn measure_round(
    target: &Target,
    workloads: &[Workload],
    directory: &Path,
    cpus: &str,
    delays: Option<crate::proxy::Delays>,
) -> Result<Round, Failure> {
    let mut running = target.start(directory, cpus)?;
    let proxy = match delays {
        Some(delays) => {
            let upstream = running.bootstrap.first().cloned().unwrap_or_default();
            Some(crate::proxy::Proxy::start(&upstream, delays).map_err(|error| Failure(format!("proxy: {error}")))?)
        }
        None => None,
    };
    let mut numbers = Numbers::new();
    let mut is_late = false;
    if let Some(cold_start) = running.cold_start_ns {
        numbers.insert("cold start".to_owned(), cold_start as f64);
    }
    for workload in workloads {
        let mut workload = workload.clone();
        workload.via = proxy.as_ref().map(|proxy| proxy.address);
        let before = running.usage();
        let outcome = engine::run(&workload, &running.bootstrap, &mut |_| {})?;
        running.check_alive()?;
        if sys::interrupted() {
            return Err("interrupted".into());
        }
        if outcome.verdict.as_ref().is_some_and(|verdict| verdict.is_broken(workload.idempotence)) {
            return Err(Failure(format!("the broker lost, repeated or disordered records under {}", workload.name)));
        }
        if outcome.books.totals.counters.acked_records == 0 && workload.mode.produces() {
            return Err(Failure(format!("nothing was acknowledged under {}", workload.name)));
        }
        is_late |= !outcome.invalid.is_empty();
        collect(&mut numbers, &outcome);
        let counters = [&outcome.books.totals.counters, &outcome.books.warm_up.counters];
        let records: u64 = counters.map(|c| c.acked_records.max(c.consumed_records)).iter().sum();
        if let (Some(before), Some(after)) = (before, running.usage()) {
            let cpu = (after.cpu_ns - before.cpu_ns) as f64 / records.max(1) as f64;
            numbers.insert(format!("{} CPU per record", workload.name), cpu);
            numbers.insert(format!("{} RSS", workload.name), after.rss_bytes as f64);
        }
    }
    running.stop()?;
    Ok(Round { numbers, is_late })
}

/// Percentiles with enough samples behind them, and the throughput.
fn collect(numbers: &mut Numbers, outcome: &engine::Outcome) {
    let name = &outcome.workload.name;
    for metric in [Metric::Latency, Metric::EndToEnd] {
        let histogram = outcome.books.totals.histogram(metric);
        for (label, quantile) in crate::report::json::QUANTILES {
            if is_backed(quantile, histogram.len()) {
                let value = histogram.value_at_quantile(quantile) as f64;
                numbers.insert(format!("{name} {} {label}", metric.name()), value);
            }
        }
    }
    let rate = rate(outcome);
    let produced = outcome.workload.mode.produces();
    let throughput = if produced { rate.achieved_records_per_s } else { rate.consumed_records_per_s };
    numbers.insert(format!("{name} records/s"), throughput);
    let late = outcome.books.totals.histogram(Metric::Lateness).value_at_quantile(0.99);
    numbers.insert(format!("{name} generator lateness p99"), late.max(1) as f64);
}

/// What the pairs say of one number.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub name: String,
    /// Pairs in which both rounds have it.
    pub pairs: usize,
    /// Medians of the rounds, for orientation; none if no round has it.
    pub base_median: Option<f64>,
    pub candidate_median: Option<f64>,
    /// None unless every pair has it: leaving out the others would select.
    #[serde(flatten)]
    pub judged: Option<Judged>,
    /// Whether it differs, at 5 % over all numbers together (Holm).
    pub differs: bool,
}

/// A number that every pair has.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    /// Candidate over base.
    pub ratio: f64,
    /// 95 % interval; none with so few pairs that they bound nothing.
    pub ratio_low: Option<f64>,
    pub ratio_high: Option<f64>,
    pub p_value: f64,
    /// The smallest true change, as a share, that as many such pairs would show.
    pub smallest_detectable: f64,
}

pub fn findings(rounds: &Rounds) -> Vec<Finding> {
    findings_of(&rounds.pairs, rounds.names(), &mut Rng::new(rounds.plan.seed, 2))
}

fn findings_of(pairs: &[Pair], names: BTreeSet<String>, rng: &mut Rng) -> Vec<Finding> {
    let finding = |name: String| {
        let list = differences(pairs, &name);
        Finding {
            pairs: list.len(),
            base_median: median(pairs.iter().filter_map(|pair| pair.base.get(&name))),
            candidate_median: median(pairs.iter().filter_map(|pair| pair.candidate.get(&name))),
            judged: (list.len() == pairs.len()).then(|| judge(&list, rng)),
            differs: false,
            name,
        }
    };
    let mut found: Vec<Finding> = names.into_iter().map(finding).collect();
    let p_values: Vec<f64> = found.iter().filter_map(|f| Some(f.judged.as_ref()?.p_value)).collect();
    let judged = found.iter_mut().filter(|finding| finding.judged.is_some());
    for (finding, differs) in judged.zip(crate::stats::holm(&p_values, 0.05)) {
        finding.differs = differs;
    }
    found
}

fn judge(list: &[f64], rng: &mut Rng) -> Judged {
    let bounds = interval(list, 0.95, rng);
    Judged {
        ratio: trimmed_mean(list).exp(),
        ratio_low: bounds.map(|(low, _)| low.exp()),
        ratio_high: bounds.map(|(_, high)| high.exp()),
        p_value: sign_flip_two_sided(list, rng),
        smallest_detectable: smallest_detectable(list).exp_m1(),
    }
}

fn median<'a>(values: impl Iterator<Item = &'a f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.copied().collect();
    sorted.sort_unstable_by(f64::total_cmp);
    (!sorted.is_empty()).then(|| crate::stats::quantile(&sorted, 0.5))
}

/// Ticks that the hypervisor took, and all ticks, since boot.
fn steal_and_total() -> (u64, u64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).take(8).filter_map(|t| t.parse().ok()).collect();
    (ticks.get(7).copied().unwrap_or(0), ticks.iter().sum())
}

fn steal_share(before: (u64, u64), after: (u64, u64)) -> f64 {
    (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(base: &[(&str, f64)], candidate: &[(&str, f64)]) -> Pair {
        let numbers = |list: &[(&str, f64)]| list.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        Pair { base: numbers(base), candidate: numbers(candidate), ..Pair::default() }
    }

    #[test]
    fn what_a_pair_lacks_is_not_judged() {
        let mut pairs = vec![pair(&[("p50", 100.0), ("p99", 300.0)], &[("p50", 200.0), ("p99", 400.0)]); 8];
        pairs.push(pair(&[("p50", 100.0), ("p99", 300.0), ("cpu", 5.0)], &[("p50", 200.0), ("cpu", 0.0)]));
        let names = ["cpu", "p50", "p99"].map(str::to_owned).into();
        let [cpu, p50, p99] = &findings_of(&pairs, names, &mut Rng::new(1, 1))[..] else {
            panic!("three names");
        };
        let ratio = p50.judged.as_ref().map(|judged| judged.ratio).expect("every pair has it");
        assert!((ratio - 2.0).abs() < 1e-9 && p50.differs, "{p50:?}");
        assert!(p99.judged.is_none() && !p99.differs && p99.pairs == 8, "{p99:?}");
        assert_eq!((p99.base_median, p99.candidate_median), (Some(300.0), Some(400.0)));
        assert!(cpu.judged.is_none() && cpu.pairs == 0, "a share of nothing is no ratio: {cpu:?}");
        let json = serde_json::to_value(p99).expect("plain data");
        assert!(json.get("ratio").is_none() && json["pairs"] == 8, "{json}");
    }
}
