//! Crash schedules: lives of random length on good, slow, full and failing disks, ended by kill, power cut, a failure of
//! the disk or a clean stop, restarted with another number of cores.

use std::rc::Rc;

use super::{
    model::{Model, Promised},
    story::{Life, NODE, Shared, config, is_full},
};
use crate::{
    base::METADATA_KEY,
    config::Durability,
    io::sim::{Failure, Faults, Operation, Simulation, errno},
    log::LogConfig,
};

/// Schedules of one run; `RINGTAIL_SEEDS` changes it, `RINGTAIL_SEED` replays one.
const SEEDS: u64 = 1000;
const LIVES: u64 = 3;
const PARTITIONS: u64 = 5;

/// Steps within which a life must have recovered.
const RECOVERY_STEPS: u64 = 400_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// Runs one schedule. Returns its trace hash and the number of acknowledgements.
fn schedule(seed: u64) -> (u64, u64) {
    let sim = Simulation::new(seed);
    let model = Model::default();
    let metadata = LogConfig { durability: Durability::Flush, segment_bytes: 1 << 30, ..LogConfig::default() };
    model.0.borrow_mut().insert(METADATA_KEY, Promised::new("__cluster_metadata", metadata));
    let rand = sim.io(NODE, 0).rand;
    for number in 0..1 + sim.below(PARTITIONS) {
        model.create(&rand, &format!("topic-{number}"), config(&sim));
    }
    let mut power_was_cut = false;
    let mut acks = 0;
    for _ in 0..LIVES {
        let mut faults = Faults::default();
        if sim.below(4) == 0 {
            faults.slow_one_in = 20;
        }
        if sim.below(5) == 0 {
            faults.capacity = (1 << 20) + sim.below(4 << 20);
            faults.full_error = if sim.below(2) == 0 { errno::ENOSPC } else { errno::EDQUOT };
        }
        sim.set_faults(NODE, faults.clone());
        let failed_syncs = sim.failed_syncs(NODE);
        let shared = Rc::new(Shared::default());
        shared.power_was_cut.set(power_was_cut);
        let life =
            Life { sim: sim.clone(), model: model.clone(), shared: shared.clone(), cores: 1 + sim.below(3) as usize };
        life.start();
        // Some lives end before recovery has; that is a schedule too.
        let hasty = sim.below(6) == 0;
        if hasty {
            sim.run_steps(sim.below(2000));
        } else {
            let mut steps = 0;
            while shared.cores_ready.get() < life.cores && shared.failed.borrow().is_none() {
                sim.run_steps(100);
                steps += 100;
                assert!(steps < RECOVERY_STEPS, "RINGTAIL_SEED={seed}: recovery does not end");
            }
            shared.disk_fails.set(fail(&sim, &mut faults));
            sim.set_faults(NODE, faults);
            sim.run_steps(sim.below(6000));
        }
        let was_full = shared.failed.borrow().as_ref().is_some_and(|error| is_full(&error.to_string()));
        if let Some(error) = shared.failed.borrow().as_ref() {
            assert!(was_full || hasty, "RINGTAIL_SEED={seed}: {error}");
        }
        acks += shared.acks.get();
        let ready = shared.cores_ready.get() == life.cores;
        power_was_cut = match sim.below(5) {
            0 if ready => {
                shared.stop_wanted.set(true);
                sim.run_steps(sim.below(20_000));
                sim.stop(NODE);
                power_was_cut && !ready
            }
            1 | 2 => {
                sim.kill(NODE);
                power_was_cut && !ready
            }
            _ => {
                sim.power_cut(NODE);
                true
            }
        };
        // What a sync was to make durable goes when it fails, as it does when power is cut.
        power_was_cut |= sim.failed_syncs(NODE) > failed_syncs;
        if let Some(why) = shared.fatal.borrow().as_ref() {
            assert!(shared.disk_fails.get(), "RINGTAIL_SEED={seed}: the process ended on a good disk: {why}");
        }
    }
    (sim.trace_hash(), acks)
}

/// Lets something of the disk fail, in one life of four. Gives whether it does.
fn fail(sim: &Simulation, faults: &mut Faults) -> bool {
    match sim.below(20) {
        // Partitions go offline one by one.
        0 => (faults.files_named, faults.write_error_one_in) = (".log", 30),
        1 => (faults.files_named, faults.read_error_one_in) = (".log", 10),
        // The process ends at once.
        2 => {
            faults.files_named = ".journal";
            (faults.write_error_one_in, faults.short_write_one_in) = (400, 400);
        }
        3 => faults.sync_error_one_in = 8,
        // Now and then, as others close their files.
        4 => {
            let error = if sim.below(2) == 0 { errno::EMFILE } else { errno::ENFILE };
            faults.failures.push(Failure { operation: Operation::Open, files_named: "", error, one_in: 6 });
        }
        _ => return false,
    }
    true
}

/// One half of the schedules: the two run at the same time.
fn half(odd: u64) {
    if let Some(seed) = number("RINGTAIL_SEED") {
        if seed % 2 == odd {
            schedule(seed);
        }
        return;
    }
    let seeds = number("RINGTAIL_SEEDS").unwrap_or(SEEDS);
    let first = number("RINGTAIL_FIRST").unwrap_or(0);
    let (mut acks, mut failed) = (0, Vec::new());
    for seed in (first..first + seeds).filter(|seed| seed % 2 == odd) {
        match std::panic::catch_unwind(|| schedule(seed).1) {
            Ok(some) => acks += some,
            Err(_) => failed.push(seed),
        }
    }
    assert!(
        failed.is_empty(),
        "replay with RINGTAIL_SEED=<seed> cargo test --locked --lib log::tests::crash: {failed:?}"
    );
    assert!(acks > seeds * 5, "the schedules hardly did anything: {acks} acknowledgements");
}

#[test]
fn nothing_acknowledged_is_lost_in_five_hundred_even_schedules() {
    half(0);
}

#[test]
fn nothing_acknowledged_is_lost_in_five_hundred_odd_schedules() {
    half(1);
}

#[test]
fn one_seed_gives_one_run() {
    for seed in [1, 2, 3] {
        assert_eq!(schedule(seed), schedule(seed), "seed {seed}");
    }
}

/// A reader once looked for a batch behind what its segment's file had, and panicked.
#[test]
fn nothing_acknowledged_is_lost_where_a_reader_meets_the_end_of_a_file() {
    for seed in [2395, 2969, 3509, 3619, 3899, 4249] {
        schedule(seed);
    }
}
