//! The gate's own error rates on this machine: a pool of real rounds of one broker against itself, without and with delays
//! that a proxy adds, and virtual gate runs drawn from it.

use serde::Serialize;

use crate::compare::{Pair, Plan, differences, measure_round};
use crate::failure::Failure;
use crate::gate::{Limit, gated, rules};
use crate::proxy::Delays;
use crate::rng::Rng;
use crate::stats::calibration::{Rates, rates};
use crate::stats::gate::Rules;
use crate::stats::{FLIPS_FEW, trimmed_mean};

const TAIL_EVERY: u64 = 50;

/// One arm's pool and what the gate would have said.
#[derive(Clone, Debug, Serialize)]
pub struct Arm {
    pub name: &'static str,
    pub delays: Delays,
    /// The shift that was really measured, by gated number, as a share.
    pub measured_shift: Vec<f64>,
    pub rates: Rates,
    pub pairs: Vec<Pair>,
}

/// The result. Schema `ringtail-loadgen/calibration/1`.
#[derive(Clone, Debug, Serialize)]
pub struct Calibration {
    pub schema: &'static str,
    pub names: Vec<String>,
    pub gate_pairs: usize,
    pub arms: Vec<Arm>,
}

/// Collects `units` times four rounds (A, A again, A delayed, A with a slow tail), in an order drawn each time.
pub fn run(plan: &Plan, limits: &[Limit], units: usize, tell: &mut dyn FnMut(&str)) -> Result<Calibration, Failure> {
    std::fs::create_dir_all(&plan.directory)
        .map_err(|error| Failure(format!("cannot make {}: {error}", plan.directory.display())))?;
    let (names, shares) = gated(plan, limits);
    let measure = |delays| measure_round(&plan.base, &plan.workloads, &plan.directory, &plan.cpus, Some(delays));
    let first = measure(Delays::default())?.numbers;
    let delays = delays_for(&first, &names, &shares, plan.seed)?;
    let mut rng = Rng::new(plan.seed, 4);
    let mut pools: [Vec<Pair>; 3] = [const { Vec::new() }; 3];
    for unit in 0..units {
        let mut order = [0, 1, 2, 3];
        rng.shuffle(&mut order);
        let mut rounds: [Option<crate::compare::Round>; 4] = [const { None }; 4];
        for slot in order {
            let arm = if slot == 0 { Delays::default() } else { delays[slot - 1] };
            rounds[slot] = Some(measure(arm)?);
        }
        let [base, arms @ ..] = rounds;
        let base = base.expect("every slot was measured");
        for (at, candidate) in arms.into_iter().enumerate() {
            let candidate = candidate.expect("every slot was measured");
            let place = |slot: usize| order.iter().position(|other| *other == slot);
            pools[at].push(Pair {
                base_first: place(0) < place(at + 1),
                steal: 0.0,
                late: u32::from(base.is_late) + u32::from(candidate.is_late),
                base: base.numbers.clone(),
                candidate: candidate.numbers,
            });
        }
        tell(&format!("unit {} of {units}", unit + 1));
    }
    let rules = Rules { flips: FLIPS_FEW, ..rules(plan.pairs, shares) };
    let mut rng = Rng::new(plan.seed, 5);
    let arms = ["no delay", "every reply delayed", "slow tail"].into_iter().zip(delays).zip(pools);
    let arms = arms.map(|((name, delays), pairs)| {
        let pool: Vec<Vec<f64>> = names.iter().map(|name| differences(&pairs, name)).collect();
        Arm {
            name,
            delays,
            measured_shift: pool.iter().map(|list| trimmed_mean(list).exp_m1()).collect(),
            rates: rates(&pool, &rules, &mut rng),
            pairs,
        }
    });
    Ok(Calibration { schema: "ringtail-loadgen/calibration/1", gate_pairs: plan.pairs, arms: arms.collect(), names })
}

/// Twice the limit of the first gated number on every reply, and a tail of as much as the slowest gated number itself.
fn delays_for(
    first: &crate::compare::Numbers,
    names: &[String],
    shares: &[f64],
    seed: u64,
) -> Result<[Delays; 3], Failure> {
    let value = |name: &String| {
        first.get(name).copied().ok_or_else(|| {
            Failure(format!("{name} had fewer than 100 samples beyond it: give more --duration or --rate"))
        })
    };
    let (Some(name), Some(share), Some(slowest)) = (names.first(), shares.first(), names.last()) else {
        return Err("no gated numbers".into());
    };
    let uniform_ns = (value(name)? * share * 2.0) as u64;
    let tail_ns = value(slowest)? as u64;
    Ok([
        Delays { seed, ..Delays::default() },
        Delays { uniform_ns, seed, ..Delays::default() },
        Delays { tail_every: TAIL_EVERY, tail_ns, seed, ..Delays::default() },
    ])
}

/// The rates as Markdown.
pub fn markdown(calibration: &Calibration) -> String {
    use std::fmt::Write;
    let mut text = format!(
        "Virtual gates of {} pairs.\n\n| arm | measured shift | pass | regression | inconclusive | pool |\n|---|---|---|---|---|--:|\n",
        calibration.gate_pairs
    );
    for arm in &calibration.arms {
        let shifts: Vec<String> = calibration
            .names
            .iter()
            .zip(&arm.measured_shift)
            .map(|(name, shift)| format!("{name} {:+.1} %", shift * 100.0))
            .collect();
        let rate = |rate: crate::stats::calibration::Rate| {
            format!("{:.0} % ({:.0}–{:.0})", rate.estimate * 100.0, rate.low * 100.0, rate.high * 100.0)
        };
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            arm.name,
            shifts.join(", "),
            rate(arm.rates.pass),
            rate(arm.rates.regression),
            rate(arm.rates.inconclusive),
            arm.rates.pool_pairs
        )
        .expect("writing to a string does not fail");
    }
    text
}
