//! The pool of a calibration: real rounds, which can be added to in several sittings.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use serde::{Deserialize, Serialize};

use crate::{
    compare::{Numbers, Pair, Plan, Round, measure_round},
    failure::Failure,
    gate::{Limit, gated},
    proxy::Delays,
    report::write_file,
    rng::Rng,
};

const SCHEMA: &str = "ringtail-loadgen/pool/1";
const TAIL_EVERY: u64 = 50;

/// Pairs of A against A, of A against A with every reply delayed, and of A against A with a slow tail.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pool {
    schema: String,
    /// Fixed by the first sitting.
    names: Vec<String>,
    pub delays: [Delays; 3],
    pub pairs: [Vec<Pair>; 3],
    /// What all rounds took.
    pub seconds: f64,
    /// Where it is kept, unit by unit.
    #[serde(skip)]
    path: Option<PathBuf>,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            names: Vec::new(),
            delays: [Delays::default(); 3],
            pairs: [const { Vec::new() }; 3],
            seconds: 0.0,
            path: None,
        }
    }
}

impl Pool {
    /// What the file holds, or an empty pool if there is none yet. Every unit is written there as it comes.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        if !path.exists() {
            return Ok(Self { path: Some(path.to_owned()), ..Self::default() });
        }
        let wrong = |what: String| Failure(format!("pool {}: {what}", path.display()));
        let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let pool: Self = serde_json::from_str(&text).map_err(|error| wrong(format!("not a pool: {error}")))?;
        if pool.schema != SCHEMA {
            return Err(wrong(format!("schema {}, not {SCHEMA}", pool.schema)));
        }
        Ok(Self { path: Some(path.to_owned()), ..pool })
    }

    fn save(&self) -> Result<(), Failure> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let text = serde_json::to_string(self).map_err(|error| Failure(format!("pool: {error}")))?;
        write_file(path, &text)
    }

    /// Only measures, for virtual gates that are drawn later.
    pub fn add_units(
        &mut self,
        plan: &Plan,
        limits: &[Limit],
        units: usize,
        tell: &mut dyn FnMut(&str),
    ) -> Result<(), Failure> {
        let (names, limits) = gated(plan, limits);
        self.measure(plan, &names, &limits, units, tell)
    }

    /// Measures `units` times four rounds (A, A again, A delayed, A with a slow tail), in an order drawn each time.
    pub fn measure(
        &mut self,
        plan: &Plan,
        names: &[String],
        limits: &[f64],
        units: usize,
        tell: &mut dyn FnMut(&str),
    ) -> Result<(), Failure> {
        fs::create_dir_all(&plan.directory)
            .map_err(|error| Failure(format!("cannot make {}: {error}", plan.directory.display())))?;
        let measure = |delays| measure_round(&plan.base, &plan.workloads, &plan.directory, &plan.cpus, Some(delays));
        if self.names.is_empty() {
            self.delays = delays_for(&measure(Delays::default())?.numbers, names, limits, plan.seed)?;
            self.names = names.to_vec();
        } else if self.names != names {
            return Err(Failure(format!("the pool was measured for {:?}, not for {names:?}", self.names)));
        }
        let mut rng = Rng::new(plan.seed, 4 + self.pairs[0].len() as u64);
        for unit in 0..units {
            let started = Instant::now();
            let mut order = [0, 1, 2, 3];
            rng.shuffle(&mut order);
            let mut rounds: [Option<Round>; 4] = [const { None }; 4];
            for slot in order {
                let arm = if slot == 0 { Delays::default() } else { self.delays[slot - 1] };
                rounds[slot] = Some(measure(arm)?);
            }
            self.add(order, rounds);
            self.seconds += started.elapsed().as_secs_f64();
            self.save()?;
            tell(&format!("unit {} of {units}", unit + 1));
        }
        Ok(())
    }

    fn add(&mut self, order: [usize; 4], rounds: [Option<Round>; 4]) {
        let [base, arms @ ..] = rounds.map(|round| round.expect("every slot was measured"));
        let place = |slot: usize| order.iter().position(|other| *other == slot);
        for (at, candidate) in arms.into_iter().enumerate() {
            self.pairs[at].push(Pair {
                base_first: place(0) < place(at + 1),
                steal: 0.0,
                late: u32::from(base.is_late) + u32::from(candidate.is_late),
                base: base.numbers.clone(),
                candidate: candidate.numbers,
            });
        }
    }
}

/// Twice the limit of the first gated number on every reply, and a tail of as much as the slowest gated number itself.
fn delays_for(first: &Numbers, names: &[String], limits: &[f64], seed: u64) -> Result<[Delays; 3], Failure> {
    let value = |name: &String| {
        first.get(name).copied().ok_or_else(|| {
            Failure(format!("{name} had fewer than 100 samples beyond it: give more --duration or --rate"))
        })
    };
    let (Some(name), Some(limit), Some(slowest)) = (names.first(), limits.first(), names.last()) else {
        return Err("no gated numbers".into());
    };
    let uniform_ns = (value(name)? * limit * 2.0) as u64;
    let tail_ns = value(slowest)? as u64;
    Ok([
        Delays { seed, ..Delays::default() },
        Delays { uniform_ns, seed, ..Delays::default() },
        Delays { tail_every: TAIL_EVERY, tail_ns, seed, ..Delays::default() },
    ])
}
