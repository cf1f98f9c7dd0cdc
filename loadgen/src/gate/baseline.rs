//! A stored baseline, for when the base cannot be run beside the candidate.
//!
//! Both times every round of the broker has a round of the built-in null broker beside it, the calibration run: what the
//! machine's processors, kernel and loopback do to both cancels out. What only the broker meets, its disk above all, does
//! not, and neither does another day. So this is weaker than pairs of base and candidate, and every report says so.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    compare::{Pair, Plan, Rounds, differences},
    environment::Machine,
    failure::Failure,
    gate::{Limit, Verdict, gated, gated_differences, rules},
    report::write_file,
    rng::Rng,
    stats::gate::Rules,
    sys,
    target::Target,
    workload::{Mode, Workload},
};

const SCHEMA: &str = "ringtail-loadgen/baseline/1";

/// What must be equal for two sessions to be compared at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    cpu_model: String,
    cpus_online: usize,
    file_system: String,
}

impl Place {
    fn here() -> Self {
        let machine = Machine::read();
        Self { cpu_model: machine.cpu_model, cpus_online: machine.cpus_online, file_system: machine.file_system }
    }
}

/// The file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Baseline {
    schema: String,
    recorded_unix_s: u64,
    place: Place,
    /// As JSON and without their seeds, which are drawn anew.
    workloads: Vec<Value>,
    /// The null broker is their base, the broker of the baseline their candidate.
    pub pairs: Vec<Pair>,
}

/// Measures `target` and stores it.
pub fn save(plan: Plan, path: &Path, tell: &mut dyn FnMut(&str)) -> Result<(), Failure> {
    let workloads = shapes(&plan.workloads)?;
    let pairs = plan.pairs;
    let mut rounds = Rounds::new(beside_reference(plan)?)?;
    rounds.measure_until(pairs, tell)?;
    let baseline = Baseline {
        schema: SCHEMA.to_owned(),
        recorded_unix_s: sys::wall_ns() / 1_000_000_000,
        place: Place::here(),
        workloads,
        pairs: rounds.pairs,
    };
    let text = serde_json::to_string_pretty(&baseline).map_err(|error| Failure(format!("baseline: {error}")))?;
    write_file(path, &text)
}

impl Baseline {
    /// # Errors  a file that cannot be read, is of another schema, or was measured elsewhere or with other workloads.
    pub fn load(path: &Path, plan: &Plan) -> Result<Self, Failure> {
        let wrong = |what: String| Failure(format!("baseline {}: {what}", path.display()));
        let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let baseline: Self = serde_json::from_str(&text).map_err(|error| wrong(format!("not a baseline: {error}")))?;
        if baseline.schema != SCHEMA {
            return Err(wrong(format!("schema {}, not {SCHEMA}", baseline.schema)));
        }
        let here = Place::here();
        if baseline.place != here {
            return Err(wrong(format!(
                "measured on {:?}, this is {here:?}; record one here with --save-baseline",
                baseline.place
            )));
        }
        if baseline.workloads != shapes(&plan.workloads)? {
            return Err(wrong("measured with other workloads or flags; give the same, or record it anew".to_owned()));
        }
        Ok(baseline)
    }

    /// What a reader of any report has to know.
    pub fn warning(&self) -> String {
        format!(
            "Weaker than pairs: against {} stored rounds that are {:.1} days old, both set in relation to the null broker. A change of the disk or of the day looks like one of the broker.",
            self.pairs.len(),
            (sys::wall_ns() / 1_000_000_000).saturating_sub(self.recorded_unix_s) as f64 / 86_400.0
        )
    }
}

/// Judges the plan's base, which is the candidate here, against a stored baseline. One look, since nothing pairs the rounds.
pub fn judge(plan: Plan, limits: &[Limit], baseline: Baseline, tell: &mut dyn FnMut(&str)) -> Result<Verdict, Failure> {
    let (names, shares) = gated(&plan, limits);
    let (pairs, seed) = (plan.pairs, plan.seed);
    let rules = Rules { looks: vec![pairs], ..rules(pairs, shares) };
    let mut rounds = Rounds::new(beside_reference(plan)?)?;
    rounds.measure_until(pairs, tell)?;
    let now = gated_differences(&rounds, &names)?;
    let then: Vec<Vec<f64>> = names.iter().map(|name| differences(&baseline.pairs, name)).collect();
    if then.iter().any(|list| list.len() < baseline.pairs.len()) {
        return Err("the baseline lacks a gated percentile: record it with more --duration or --rate".into());
    }
    let look = rules.look_unpaired(&now, &then, &mut Rng::new(seed, 3));
    Ok(Verdict { look, names, rules, rounds, baseline: Some(baseline) })
}

/// The plan's base becomes the candidate, the null broker its base.
fn beside_reference(plan: Plan) -> Result<Plan, Failure> {
    if plan.workloads.iter().any(|workload| workload.mode != Mode::Produce) {
        return Err("a baseline is calibrated with the null broker, which keeps nothing: only --mode produce".into());
    }
    let program = std::env::current_exe().map_err(|error| Failure(format!("cannot find this program: {error}")))?;
    let reference = Target::Command(format!("'{}' null-broker --port {{port}}", program.display()));
    Ok(Plan { candidate: plan.base, base: reference, ..plan })
}

fn shapes(workloads: &[Workload]) -> Result<Vec<Value>, Failure> {
    let shape = |workload: &Workload| {
        let mut value = serde_json::to_value(workload)?;
        if let Some(fields) = value.as_object_mut() {
            fields.remove("seed");
        }
        Ok(value)
    };
    let shapes: Result<Vec<Value>, serde_json::Error> = workloads.iter().map(shape).collect();
    shapes.map_err(|error| Failure(format!("workload: {error}")))
}
