//! Seeded schedules of everything that can go wrong at once.

use std::time::Duration;

use super::world::{Net, World};
use crate::io::sim::{Failure, Faults, Operation, errno};

/// Schedules of one run; `RINGTAIL_SEEDS` changes it, `RINGTAIL_SEED` replays one.
const SEEDS: u64 = 200;
const STEPS: u64 = 25;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// Runs one schedule. Gives its trace hash, what was acknowledged, how many led and how often a snapshot came.
fn schedule(seed: u64) -> (u64, u64, u64, u64) {
    let voters = if seed % 4 == 3 { 5 } else { 3 };
    let world = World::new(seed, voters);
    for me in 0..voters {
        world.start(me, false);
    }
    // The first start needs all of them, in no time.
    if world.sim.below(2) == 0 {
        assert!(world.run_until(20, |world| world.leader().is_some()), "RINGTAIL_SEED={seed}: {}", world.told());
    }
    let mut wiped = None;
    for _ in 0..STEPS {
        step(&world, &mut wiped);
        let pause = 20 + world.sim.below(900);
        world.sim.run_for(Duration::from_millis(pause));
        bury(&world);
    }
    world.settle();
    let model = world.model.borrow();
    (world.sim.trace_hash(), model.acknowledged, model.leaders.len() as u64, model.replaced)
}

/// A process that has ended by itself had a disk that failed.
fn bury(world: &World) {
    let ended = std::mem::take(&mut *world.ended.borrow_mut());
    for (me, why) in ended {
        let seed = world.sim.seed();
        assert!(
            why.contains("quorum.log") && why.contains("Input/output error"),
            "RINGTAIL_SEED={seed}: voter {me}: {why}"
        );
        world.kill(me);
        world.sim.set_faults(me as usize, Faults::default());
    }
}

fn step(world: &World, wiped: &mut Option<i32>) {
    let sim = &world.sim;
    let voters = world.voters.len() as u64;
    let some = sim.below(voters) as i32;
    match sim.below(20) {
        0..=2 => world.kill(some),
        3 | 4 => world.power_cut(some),
        5..=8 => {
            if !world.runs(some) {
                world.kill(some);
                world.start(some, false);
            }
        }
        9 => {
            for me in world.voters.clone() {
                if !world.runs(me) {
                    world.kill(me);
                    world.start(me, false);
                }
            }
        }
        10 | 11 => {
            let other = sim.below(voters) as i32;
            let mut net = world.net.borrow_mut();
            net.cut.insert((some, other));
            if sim.below(2) == 0 {
                net.cut.insert((other, some));
            }
        }
        12 => {
            let mut net = world.net.borrow_mut();
            for other in world.voters.iter().filter(|other| **other != some) {
                net.cut.extend([(some, *other), (*other, some)]);
            }
        }
        13 | 14 => world.net.borrow_mut().cut.clear(),
        15 => {
            let mut net = world.net.borrow_mut();
            let cut = net.cut.clone();
            *net = Net { lost_one_in: 5 + sim.below(40), doubled_one_in: 5, late_ms: sim.below(80), cut };
        }
        16 => *world.net.borrow_mut() = Net::default(),
        17 => {
            let lives = world.lives.borrow();
            if let Some(life) = world.leader().and_then(|leader| lives.get(&leader)) {
                let quorum = life.quorum.clone();
                let leader = world.leader().expect("just seen");
                sim.spawn_on(leader as usize, 0, |_| async move { quorum.transfer().await });
            }
        }
        18 => {
            let mut faults = Faults { slow_one_in: 10, ..Faults::default() };
            if sim.below(2) == 0 {
                let (operation, error) = (Operation::Write, errno::EIO);
                faults.failures.push(Failure { operation, files_named: "quorum.log", error, one_in: 20 });
            }
            sim.set_faults(some as usize, faults);
        }
        _ => {
            // Another disk is wiped only when all have their place again.
            let all_vote = world.voters.iter().all(|me| world.votes(*me));
            if all_vote || (wiped.is_some() && *wiped == Some(some)) {
                *wiped = Some(some);
                world.kill(some);
                world.start(some, true);
            }
        }
    }
}

fn part(of: u64, parts: u64) {
    if let Some(seed) = number("RINGTAIL_SEED") {
        if seed % parts == of {
            println!("{:?}", schedule(seed));
        }
        return;
    }
    let seeds = number("RINGTAIL_SEEDS").unwrap_or(SEEDS);
    let first = number("RINGTAIL_FIRST").unwrap_or(0);
    let (mut acknowledged, mut leaders, mut replaced, mut failed) = (0, 0, 0, Vec::new());
    for seed in (first..first + seeds).filter(|seed| seed % parts == of) {
        match std::panic::catch_unwind(|| schedule(seed)) {
            Ok((_, some, led, snapshots)) => {
                acknowledged += some;
                leaders += led;
                replaced += snapshots;
            }
            Err(_) => failed.push(seed),
        }
    }
    println!("{acknowledged} acknowledged, {leaders} leaders, {replaced} images replaced");
    assert!(failed.is_empty(), "RINGTAIL_SEED of {failed:?}");
    let own = seeds / parts;
    assert!(acknowledged >= 20 * own && leaders >= 2 * own, "too little has happened");
    assert!(own < 20 || replaced > 0, "no snapshot has come");
}

#[test]
fn whatever_fails_what_is_committed_stays_and_is_told_once_and_in_order() {
    part(0, 2);
}

#[test]
fn whatever_fails_what_is_committed_stays_and_is_told_once_and_in_order_too() {
    part(1, 2);
}

#[test]
fn one_seed_gives_one_schedule() {
    assert_eq!(schedule(7), schedule(7));
}
