//! The gate's own error rates on this machine: a pool of real rounds of one broker against itself, without and with delays
//! that a proxy adds, and virtual gate runs drawn from it.

pub mod pool;

use std::fmt::Write;

use serde::Serialize;

use crate::{
    compare::{Pair, Plan, differences},
    failure::Failure,
    gate::{Limit, calibrate::pool::Pool, gated, rules},
    proxy::Delays,
    rng::Rng,
    stats::{
        FLIPS_FEW,
        calibration::{Rate, Rates, Truth, rates, shares},
        gate::{Decision, Rules},
        trimmed_mean,
    },
};

const ARMS: [(&str, Truth); 3] =
    [("no delay", Truth::NoShift), ("every reply delayed", Truth::Unknown), ("slow tail", Truth::Unknown)];
/// The given limits times these are tried, to say which can be had.
const MULTIPLES: [f64; 6] = [1.0, 2.0, 3.0, 4.0, 6.0, 8.0];

/// One arm's pool and what the gate would have said.
#[derive(Clone, Debug, Serialize)]
pub struct Arm {
    pub name: &'static str,
    pub delays: Delays,
    /// The shift that was really measured, by gated number, as a share.
    pub measured_shift: Vec<f64>,
    /// Standard deviation of the pairs' logarithms, by gated number.
    pub scatter: Vec<f64>,
    pub rates: Rates,
    pub pairs: Vec<Pair>,
}

/// What limits of another size would give on this machine: shares of virtual gates from the pool without delay.
#[derive(Clone, Debug, Serialize)]
pub struct Reach {
    pub limits: Vec<f64>,
    /// Without a shift.
    pub pass: f64,
    pub regression: f64,
    /// With all differences moved by twice the limit.
    pub found: f64,
}

/// The result. Schema `ringtail-loadgen/calibration/1`.
#[derive(Clone, Debug, Serialize)]
pub struct Calibration {
    pub schema: &'static str,
    pub names: Vec<String>,
    pub gate_pairs: usize,
    pub round_seconds: f64,
    pub arms: Vec<Arm>,
    pub reach: Vec<Reach>,
}

/// Adds `units` to the pool, and draws virtual gates of the plan's number of pairs from it.
pub fn run(
    plan: &Plan,
    limits: &[Limit],
    pool: &mut Pool,
    units: usize,
    tell: &mut dyn FnMut(&str),
) -> Result<Calibration, Failure> {
    let (names, limits) = gated(plan, limits);
    pool.measure(plan, &names, &limits, units, tell)?;
    tell("drawing virtual gates");
    let rules = Rules { flips: FLIPS_FEW, ..rules(plan.pairs, limits) };
    let mut rng = Rng::new(plan.seed, 5);
    let lists = |pairs: &[Pair]| -> Vec<Vec<f64>> { names.iter().map(|name| differences(pairs, name)).collect() };
    let arms = ARMS.into_iter().zip(&pool.delays).zip(&pool.pairs).map(|(((name, truth), delays), pairs)| {
        let lists = lists(pairs);
        Arm {
            name,
            delays: *delays,
            measured_shift: lists.iter().map(|list| trimmed_mean(list).exp_m1()).collect(),
            scatter: lists.iter().map(|list| scatter(list)).collect(),
            rates: rates(&lists, truth, &rules, &mut rng),
            pairs: pairs.clone(),
        }
    });
    let arms = arms.collect();
    let quiet = lists(&pool.pairs[0]);
    let reach = MULTIPLES.map(|multiple| {
        let limits: Vec<f64> = rules.limits.iter().map(|limit| limit * multiple).collect();
        let twice: Vec<f64> = limits.iter().map(|limit| (2.0 * limit).ln_1p()).collect();
        let rules = Rules { limits: limits.clone(), ..rules.clone() };
        let still = shares(&quiet, &vec![0.0; limits.len()], &rules, &mut rng);
        let moved = shares(&quiet, &twice, &rules, &mut rng);
        Reach {
            limits,
            pass: still[Decision::Pass as usize],
            regression: still[Decision::Regression as usize],
            found: moved[Decision::Regression as usize],
        }
    });
    Ok(Calibration {
        schema: "ringtail-loadgen/calibration/1",
        gate_pairs: plan.pairs,
        round_seconds: pool.seconds / (pool.pairs[0].len() * 4).max(1) as f64,
        arms,
        reach: reach.into(),
        names,
    })
}

fn scatter(list: &[f64]) -> f64 {
    let mean = list.iter().sum::<f64>() / list.len().max(1) as f64;
    let squares: f64 = list.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / (list.len().max(2) - 1) as f64).sqrt()
}

/// The rates as Markdown.
pub fn markdown(calibration: &Calibration) -> String {
    let mut text = String::new();
    write_markdown(&mut text, calibration).expect("writing to a string does not fail");
    text
}

fn write_markdown(text: &mut String, calibration: &Calibration) -> std::fmt::Result {
    let each = |values: &[f64]| {
        let shown = calibration.names.iter().zip(values).map(|(name, value)| format!("{name} {:+.1} %", value * 100.0));
        shown.collect::<Vec<_>>().join(", ")
    };
    let rate =
        |rate: Rate| format!("{:.0} % ({:.0}–{:.0})", rate.estimate * 100.0, rate.low * 100.0, rate.high * 100.0);
    writeln!(
        text,
        "Virtual gates of {} pairs, some {:.0} s each at {:.1} s a round.\n\n| arm | measured shift | scatter of the pairs | pass | regression | inconclusive | pool |\n|---|---|---|---|---|---|--:|",
        calibration.gate_pairs,
        calibration.gate_pairs as f64 * 2.0 * calibration.round_seconds,
        calibration.round_seconds,
    )?;
    for arm in &calibration.arms {
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            arm.name,
            each(&arm.measured_shift),
            each(&arm.scatter).replace('+', ""),
            rate(arm.rates.pass),
            rate(arm.rates.regression),
            rate(arm.rates.inconclusive),
            arm.rates.pool_pairs
        )?;
    }
    writeln!(
        text,
        "\n| limits | no shift: pass | no shift: regression | shift of twice the limit: regression |\n|---|--:|--:|--:|"
    )?;
    for reach in &calibration.reach {
        writeln!(
            text,
            "| {} | {:.0} % | {:.1} % | {:.0} % |",
            each(&reach.limits).replace('+', ""),
            reach.pass * 100.0,
            reach.regression * 100.0,
            reach.found * 100.0
        )?;
    }
    Ok(())
}
