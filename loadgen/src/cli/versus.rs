//! `compare` and `gate`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::{
    cli::command_line,
    compare::{self, Plan, Rounds, report},
    environment::{BrokerFacts, Machine},
    failure::{Exit, Failure},
    gate::{
        self, Limit,
        baseline::{self, Baseline},
        calibrate,
        calibrate::pool::Pool,
    },
    report::{json::Setting, print, write_file},
    stats::gate::Decision,
    sys,
    target::Target,
    workload::{self, Workload, shape::Shape},
};

/// What both commands take.
#[derive(Args)]
pub struct VersusArgs {
    /// Base: host:port, or a command with {port} (also {port2}, {dir}, {cpus}) that starts a broker
    base: String,
    /// Candidate: the same
    candidate: Option<String>,
    /// Ready workloads or TOML files, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "gate")]
    workload: Vec<String>,
    /// Pairs of rounds
    #[arg(long, default_value_t = 20)]
    pairs: usize,
    /// What {cpus} is replaced by
    #[arg(long, default_value = "")]
    cpus: String,
    /// Where the rounds' directories are made
    #[arg(long, default_value = "target/loadgen-rounds")]
    work_dir: PathBuf,
    /// Largest share of CPU that the hypervisor may take in a pair
    #[arg(long, default_value_t = 0.02)]
    steal_limit: f64,
    /// Directory for the reports
    #[arg(long, short)]
    out: Option<PathBuf>,
    /// No progress
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    shape: Shape,
}

/// What `gate` takes besides.
#[derive(Args)]
pub struct GateArgs {
    #[command(flatten)]
    versus: VersusArgs,
    /// Percentiles of the produce latency with the slowdown that is not tolerated
    #[arg(long, default_value = "p50=2.5%,p99=5%")]
    limit: String,
    /// What an inconclusive gate does
    #[arg(long, default_value = "fail")]
    inconclusive: OnInconclusive,
    /// Judge the one target that is given against this stored baseline: weaker than two targets, and marked so
    #[arg(long, conflicts_with_all = ["candidate", "calibrate"])]
    baseline: Option<PathBuf>,
    /// Instead of judging: measure the one target that is given, with a calibration run beside it, and store it here
    #[arg(long, conflicts_with_all = ["candidate", "calibrate", "baseline"])]
    save_baseline: Option<PathBuf>,
    /// Instead of judging: measure the gate's own error rates on this machine with so many units of four rounds of the base
    #[arg(long, num_args = 0..=1, default_missing_value = "20")]
    calibrate: Option<usize>,
    /// With --calibrate: keep the rounds here and add to those that are there; --calibrate 0 only draws from them again
    #[arg(long, requires = "calibrate")]
    pool: Option<PathBuf>,
    /// With --pool: only measure; the drawing takes minutes of CPU and needs no quiet machine
    #[arg(long, requires = "pool")]
    measure_only: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnInconclusive {
    Pass,
    Fail,
}

impl VersusArgs {
    fn plan(&self, needs_candidate: bool) -> Result<Plan, Failure> {
        let base = Target::parse(&self.base)?;
        let candidate = match &self.candidate {
            Some(text) => Target::parse(text)?,
            None if needs_candidate => {
                return Err("two targets are needed: base and candidate".into());
            }
            None => base.clone(),
        };
        let seed = self.shape.seed.unwrap_or_else(|| sys::wall_ns() / 1_000 % 1_000_000_000);
        let workloads: Result<Vec<Workload>, String> = self
            .workload
            .iter()
            .map(|name| {
                let shape = Shape { seed: Some(seed), ..self.shape.clone() };
                Workload::resolve(&shape.or(workload::load(name)?))
            })
            .collect();
        if self.pairs == 0 {
            return Err("pairs: at least 1".into());
        }
        Ok(Plan {
            base,
            candidate,
            workloads: workloads?,
            pairs: self.pairs,
            seed,
            cpus: self.cpus.clone(),
            directory: self.work_dir.clone(),
            steal_limit: self.steal_limit,
        })
    }

    fn tell(&self) -> impl FnMut(&str) {
        let quiet = self.quiet;
        move |line| {
            if !quiet {
                eprintln!("{line}");
            }
        }
    }

    fn write(&self, files: &[(&str, String)]) -> Result<(), Failure> {
        let Some(directory) = &self.out else {
            return Ok(());
        };
        std::fs::create_dir_all(directory)
            .map_err(|error| Failure(format!("cannot make {}: {error}", directory.display())))?;
        for (name, content) in files {
            write_file(&Path::new(directory).join(name), content)?;
        }
        Ok(())
    }
}

fn setting() -> Setting {
    Setting {
        machine: Machine::read(),
        broker: BrokerFacts::default(),
        command: command_line(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

pub fn compare(args: &VersusArgs) -> Result<i32, Failure> {
    let plan = args.plan(true)?;
    let mut rounds = Rounds::new(plan)?;
    let pairs = rounds.plan().pairs;
    rounds.measure_until(pairs, &mut args.tell())?;
    let findings = compare::findings(&rounds);
    let text = report::markdown(&findings, &rounds);
    let printed = print(&text);
    let setting = setting();
    let json = report::json(&findings, &rounds, &setting);
    args.write(&[
        ("compare.md", text),
        ("compare.html", report::html(&findings, &rounds, &setting)),
        ("compare.json", format!("{json:#}\n")),
    ])?;
    printed?;
    Ok(Exit::Good as i32)
}

/// Exit 0 pass, 1 regression, 2 inconclusive, 3 any error.
pub fn gate(args: &GateArgs) -> Result<i32, Failure> {
    let limits = Limit::parse_list(&args.limit)?;
    let versus = &args.versus;
    if let Some(units) = args.calibrate {
        let plan = versus.plan(false)?;
        let mut pool = args.pool.as_deref().map_or_else(|| Ok(Pool::default()), Pool::load)?;
        if args.measure_only {
            pool.add_units(&plan, &limits, units, &mut versus.tell())?;
            return Ok(Exit::Good as i32);
        }
        let calibration = calibrate::run(&plan, &limits, &mut pool, units, &mut versus.tell())?;
        let text = calibrate::markdown(&calibration);
        let printed = print(&text);
        let json = serde_json::json!(calibration);
        versus.write(&[("calibration.md", text), ("calibration.json", format!("{json:#}\n"))])?;
        printed?;
        return Ok(Exit::Good as i32);
    }
    if let Some(path) = &args.save_baseline {
        baseline::save(versus.plan(false)?, path, &mut versus.tell())?;
        return Ok(Exit::Good as i32);
    }
    let verdict = match &args.baseline {
        Some(path) => {
            let plan = versus.plan(false)?;
            let stored = Baseline::load(path, &plan)?;
            baseline::judge(plan, &limits, stored, &mut versus.tell())?
        }
        None => gate::run(versus.plan(true)?, &limits, &mut versus.tell())?,
    };
    let text = gate::report::markdown(&verdict);
    let printed = print(&text);
    let setting = setting();
    versus.write(&[
        ("gate.md", text),
        ("gate.xml", gate::report::junit(&verdict)),
        ("gate.html", gate::report::html(&verdict, &setting)),
        ("gate.json", format!("{:#}\n", gate::report::json(&verdict, &setting))),
    ])?;
    printed?;
    Ok(match verdict.look.decision {
        Decision::Pass => 0,
        Decision::Regression => 1,
        Decision::Inconclusive if args.inconclusive == OnInconclusive::Pass => 0,
        Decision::Inconclusive => 2,
    })
}
