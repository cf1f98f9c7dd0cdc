//! Crash schedules: lives of random length, ended by kill, power cut or a clean stop, on failing, slow and full disks, on good
//! and bad networks, with another number of cores each time.

use std::{rc::Rc, time::Duration};

use crate::{
    base::LeaderEpoch,
    io::sim::{Failure, Faults, Network, Operation, Simulation, errno},
    sim::{
        admin, at_rest,
        broker::{CLIENTS, Life, NODE, Settings},
        consumer,
        inspection::{self, Allowed},
        member, prober,
        world::World,
    },
};

/// Schedules of one run; `RINGTAIL_SEEDS` changes it, `RINGTAIL_SEED` replays one.
const SEEDS: u64 = 1000;
/// Where fresh schedules begin: `RINGTAIL_FIRST`.
const FIRST: u64 = 0;
const LIVES: u64 = 3;
const CORES_MAX: u64 = 4;
/// Between how many lives something rots once.
const ROT_ONE_IN: u64 = 16;
/// Steps within which a life must have recovered, or clients finished.
const STEPS_MAX: u64 = 600_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// What a schedule did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Done {
    trace: u64,
    acks: u64,
    reads: u64,
    commits: u64,
    changes: u64,
}

struct Schedule {
    sim: Simulation,
    world: World,
    settings: Settings,
    allowed: Allowed,
    /// Lives that have ended: what they answered may be on its way still.
    ended: Vec<Rc<Life>>,
}

fn run(seed: u64, settings: &Settings) -> Done {
    let sim = Simulation::new(seed);
    let world = World::new(&sim);
    world.client(admin::run);
    for _ in 0..1 + sim.below(2) {
        world.client(consumer::run);
    }
    for index in 0..sim.below(3) as i32 {
        world.client(|world| member::run(world, "group", index));
    }
    if sim.below(3) == 0 {
        world.client(|world| member::run(world, "other", 0));
    }
    if sim.below(2) == 0 {
        world.client(prober::run);
    }
    let mut schedule =
        Schedule { sim, world, settings: settings.clone(), allowed: Allowed::default(), ended: Vec::new() };
    for _ in 0..LIVES {
        schedule.life();
    }
    schedule.last_life()
}

/// Good in half of the lives. What is asked on a connection that is cut may have happened, or may happen yet.
fn network(sim: &Simulation) -> Network {
    match sim.below(4) {
        0 => Network { pieces_one_in: 2, slow_one_in: 3, ..Network::default() },
        1 => {
            let cut = Network { cut_one_in: 3, cut_bytes_max: 4 << 10, cut_ns_max: 30_000_000, ..Network::default() };
            Network { pieces_one_in: 2, slow_one_in: 6, ..cut }
        }
        _ => Network::default(),
    }
}

fn fail_segments(faults: &mut Faults) {
    faults.files_named = ".log";
    faults.write_error_one_in = 30;
}

impl Schedule {
    fn begin(&self) -> Rc<Life> {
        Life::begin(&self.sim, &self.settings, 1 + self.sim.below(CORES_MAX) as usize)
    }

    fn life(&mut self) {
        let sim = self.sim.clone();
        let mut faults = Faults::default();
        if sim.below(5) == 0 {
            faults.slow_one_in = 20;
        }
        // A start whose own segments fail, those of the metadata among them.
        let failing = sim.below(12) == 0;
        if failing {
            fail_segments(&mut faults);
        }
        let small = sim.below(6) == 0;
        if small {
            faults.capacity = (1 << 20) + sim.below(4 << 20);
            faults.full_error = if sim.below(2) == 0 { errno::ENOSPC } else { errno::EDQUOT };
        }
        sim.set_faults(NODE, faults.clone());
        let network = network(&sim);
        self.say(&format!("{network:?}"));
        sim.set_network(network);
        let may_refuse = small || failing;
        let failed_syncs = sim.failed_syncs(NODE);
        let life = self.begin();
        self.say(&format!("life with {} cores, {:?}", life.cores, faults));
        // Some lives end before recovery has; that is a schedule too.
        if sim.below(6) == 0 {
            sim.run_steps(sim.below(1500));
        } else {
            self.serve(&life, faults, may_refuse);
        }
        if let Some(why) = life.failed.borrow().as_ref() {
            assert!(small || failing, "{}: {why}", self.world.seed());
        }
        self.end(&life);
        // What a sync was to make durable goes when it fails, as it does when power is cut.
        self.allowed.power_cut |= sim.failed_syncs(NODE) > failed_syncs;
        at_rest::check_removed(&self.world);
        if sim.below(ROT_ONE_IN) == 0 {
            self.hear_out();
            let what = at_rest::rot(&self.world, &self.settings, self.allowed);
            self.say(&format!("rot: {what}"));
        }
    }

    /// A word for whoever replays a schedule.
    fn say(&self, what: &str) {
        if number("RINGTAIL_SEED").is_some() {
            println!("{:>12} ns  {what}", self.sim.now().0);
        }
    }

    /// Recovers, compares, lets the clients in for a while.
    fn serve(&mut self, life: &Rc<Life>, mut faults: Faults, mut may_refuse: bool) {
        let sim = self.sim.clone();
        let mut steps = 0;
        while !life.ready.get() {
            if life.failed.borrow().is_some() || life.ended.get() {
                return;
            }
            assert!(steps < STEPS_MAX, "{}: recovery does not end", self.world.seed());
            sim.run_steps(50);
            steps += 50;
        }
        self.inspect(life);
        if life.ended.get() {
            return;
        }
        match sim.below(16) {
            // Segments: partitions go offline one by one.
            0 => {
                fail_segments(&mut faults);
                may_refuse = true;
            }
            // Syncs: the process ends.
            3 => {
                faults.sync_error_one_in = 8;
                may_refuse = true;
            }
            // Reads of segments.
            4 => {
                faults.files_named = ".log";
                faults.read_error_one_in = 40;
                may_refuse = true;
            }
            // Too many open files, now and then.
            5 => {
                let failure =
                    Failure { operation: Operation::Open, files_named: ".log", error: errno::EMFILE, one_in: 6 };
                faults.failures.push(failure);
                may_refuse = true;
            }
            // Journals: the process ends at once.
            1 | 2 => {
                faults.files_named = "journal";
                faults.write_error_one_in = 200;
                faults.short_write_one_in = 400;
                may_refuse = true;
            }
            _ => {}
        }
        self.say(&format!("serves with {faults:?}"));
        let small = faults.capacity < u64::MAX;
        sim.set_faults(NODE, faults);
        // Only now: answers of the life before have been read since it ended.
        self.world.disk_may_refuse.set(may_refuse);
        self.world.disk_is_small.set(small);
        self.world.stopping.set(false);
        self.world.serve(Some(life));
        let mut left = 200 + self.sim.below(4500);
        while left > 0 && !life.ended.get() {
            sim.run_steps(left.min(100));
            left -= left.min(100);
            life.recount();
            at_rest::check_removed(&self.world);
        }
        self.world.serve(None);
    }

    /// Lets arrive what was answered in lives before: it is promised. Nothing of it comes later.
    fn hear_out(&mut self) {
        let ended = std::mem::take(&mut self.ended);
        self.within_bounds("what was answered", || ended.iter().all(|life| life.connected.get() == 0));
        // Whoever was answered has his turn.
        self.sim.run_for(Duration::from_nanos(1));
    }

    /// Gives how many partitions are offline: what may be missing of them is asked again when they are back.
    fn inspect(&mut self, life: &Rc<Life>) -> usize {
        self.hear_out();
        let allowed = self.allowed;
        // It may have ended itself in the very moment in which it was ready.
        let Some(router) = life.router(0) else { return usize::MAX };
        let world = self.world.clone();
        let done = Rc::new(std::cell::Cell::new(None));
        let told = done.clone();
        self.sim.spawn_on(NODE, 0, |_| async move {
            told.set(Some(inspection::ends(&world, &router, allowed).await));
        });
        self.within_bounds("the inspection", || done.get().is_some() || life.ended.get());
        if life.ended.get() && done.get().is_none() {
            // It ended itself, since the metadata log failed: nothing is known, and the next life is asked again.
            return usize::MAX;
        }
        let offline = done.get().expect("it has ended");
        if offline == 0 {
            self.allowed = Allowed::default();
        }
        self.allowed.clean = false;
        offline
    }

    /// On a good disk no partition is offline.
    fn inspect_all(&mut self, life: &Rc<Life>) {
        let offline = self.inspect(life);
        assert_eq!(offline, 0, "{}: partitions are offline on a good disk", self.world.seed());
    }

    fn within_bounds(&self, what: &str, mut done: impl FnMut() -> bool) {
        let mut steps = 0;
        while !done() {
            assert!(steps < STEPS_MAX, "{}: {what} does not end", self.world.seed());
            self.sim.run_steps(50);
            steps += 50;
        }
    }

    fn end(&mut self, life: &Rc<Life>) {
        self.world.serve(None);
        self.ended.push(life.clone());
        match self.sim.below(5) {
            _ if life.ended.get() => self.say(&format!("ended by itself: {:?}", life.fatal.borrow())),
            0 if life.ready.get() => {
                self.say("stop");
                let (steps, in_order) = (self.sim.below(20_000), self.sim.below(3) > 0);
                self.stop(life, steps, 100, in_order);
                if let Some(why) = life.fatal.borrow().as_ref() {
                    assert!(self.world.disk_may_refuse.get(), "{}: a stop failed: {why}", self.world.seed());
                    self.say(&format!("the stop failed: {why}"));
                } else {
                    life.end_process();
                }
            }
            1 | 2 => {
                self.say("kill");
                life.kill();
            }
            _ => {
                self.say("power cut");
                life.power_cut();
                self.allowed.power_cut = true;
            }
        }
    }

    /// Begins a stop and gives it so many steps. Gives those that it took. One that is not in order does not wait for what is
    /// in flight, as if that took longer than a stop waits.
    fn stop(&mut self, life: &Rc<Life>, steps: u64, at_once: u64, in_order: bool) -> u64 {
        self.world.stopping.set(true);
        if in_order {
            life.stop()
        } else {
            life.stop_cores()
        }
        // Once it has stopped, timers alone are left, and weeks would pass.
        let mut left = steps;
        while left > 0 && !life.stopped.get() && !life.ended.get() {
            self.sim.run_steps(left.min(at_once));
            left -= left.min(at_once);
        }
        // An end between the mark and the word that it is there: the next start finds a clean stop.
        self.allowed.clean = life.sealed.get();
        steps - left
    }

    /// On a good disk and a good network: everybody finishes, and everything is there; after a clean stop as well.
    fn last_life(mut self) -> Done {
        self.sim.set_faults(NODE, Faults::default());
        self.sim.set_network(Network::default());
        let life = self.begin();
        life.must_be_ready(STEPS_MAX);
        self.inspect_all(&life);
        self.world.disk_may_refuse.set(false);
        self.world.disk_is_small.set(false);
        self.world.stopping.set(false);
        self.world.serve(Some(&life));
        self.sim.run_steps(500);
        self.world.finishing.set(true);
        let world = self.world.clone();
        self.within_bounds("a request", || world.running() == 0);
        self.read_all(&life);
        if self.sim.below(4) == 0 {
            self.world.stopping.set(true);
            life.stop();
            self.within_bounds("the stop", || life.stopped.get());
            self.allowed.clean = true;
            life.end_process();
            let life = self.begin();
            life.must_be_ready(STEPS_MAX);
            self.inspect_all(&life);
            self.read_all(&life);
            life.kill();
        } else {
            life.kill();
        }
        self.sim.kill(CLIENTS);
        let model = &self.world.model;
        Done {
            trace: self.sim.trace_hash(),
            acks: model.acks.get(),
            reads: model.reads.get(),
            commits: model.commits.get(),
            changes: model.changes.get(),
        }
    }

    fn read_all(&self, life: &Rc<Life>) {
        for core in 0..life.cores {
            let topics = admin::topics_of(&life.router(core).expect("it is ready").image());
            assert_eq!(topics, *self.world.model.topics.borrow(), "{} core {core}", self.world.seed());
        }
        let core = self.sim.below(life.cores as u64) as usize;
        let (world, asked) = (self.world.clone(), life.clone());
        let done = Rc::new(std::cell::Cell::new(false));
        let told = done.clone();
        self.sim.spawn_on(NODE, core, move |_| async move {
            inspection::all(world, asked, core).await;
            told.set(true);
        });
        self.within_bounds("the last look", || done.get());
        life.recount();
    }
}

#[test]
fn what_was_answered_survives_a_thousand_schedules() {
    let settings = Settings::small();
    if let Some(seed) = number("RINGTAIL_SEED") {
        println!("{:?}", run(seed, &settings));
        return;
    }
    let seeds = number("RINGTAIL_SEEDS").unwrap_or(SEEDS);
    let first = number("RINGTAIL_FIRST").unwrap_or(FIRST);
    let (mut sum, mut failed) = (Done::default(), Vec::new());
    for seed in first..first + seeds {
        let Ok(done) = std::panic::catch_unwind(|| run(seed, &settings)) else {
            failed.push(seed);
            continue;
        };
        sum.acks += done.acks;
        sum.reads += done.reads;
        sum.commits += done.commits;
        sum.changes += done.changes;
    }
    assert!(failed.is_empty(), "replay with RINGTAIL_SEED=<seed> cargo test --locked --lib sim::schedule: {failed:?}");
    println!("{sum:?}");
    let little = sum.acks < seeds * 10 || sum.reads < seeds * 10 || sum.commits < seeds || sum.changes < seeds;
    assert!(!little, "the schedules hardly did anything: {sum:?}");
}

#[test]
fn one_seed_gives_one_run() {
    let settings = Settings::small();
    for seed in [1, 2, 3] {
        assert_eq!(run(seed, &settings), run(seed, &settings), "seed {seed}");
    }
}

/// How a process ends in the middle of its stop.
#[derive(Clone, Copy, Debug)]
enum End {
    Exit,
    Kill,
    PowerCut,
}

/// Ends a process so many steps after its stop began, and looks at what the next one finds. Gives the steps that the stop
/// took, whether it was told to be done, and whether partitions went on in the leader epoch that they had.
fn stop_cut_short(seed: u64, steps: u64, end: End) -> (u64, bool, bool) {
    let sim = Simulation::new(seed);
    let world = World::new(&sim);
    world.client(admin::run);
    world.client(prober::run);
    let mut schedule =
        Schedule { sim, world, settings: Settings::small(), allowed: Allowed::default(), ended: Vec::new() };
    let life = schedule.begin();
    life.must_be_ready(STEPS_MAX);
    schedule.world.serve(Some(&life));
    schedule.sim.run_steps(2000);
    schedule.world.serve(None);
    let taken = schedule.stop(&life, steps, 1, true);
    match end {
        End::Exit => life.end_process(),
        End::Kill => life.kill(),
        End::PowerCut => life.power_cut(),
    }
    // What is in its segment stays.
    schedule.allowed.power_cut = matches!(end, End::PowerCut) && !life.sealed.get();
    let next = schedule.begin();
    next.must_be_ready(STEPS_MAX);
    schedule.inspect_all(&next);
    let model = &schedule.world.model;
    let mut keys = model.keys().into_iter().filter(|key| !model.is_deleted(*key));
    let stayed = keys.any(|key| model.with(key, |it| it.leader_epoch == LeaderEpoch(0)));
    next.kill();
    schedule.sim.kill(CLIENTS);
    (taken, life.stopped.get(), stayed)
}

/// The mark of a clean stop is there some steps before its process knows. Whoever ends it in between finds a clean stop: no
/// log has gone back, and leader epochs may stay.
#[test]
fn a_stop_may_be_cut_short_at_each_step_of_its_end() {
    // Steps before the last one within which the mark is made.
    const STEPS: u64 = 30;
    let (mut clean, mut unclean) = (0, 0);
    for seed in 0..2 {
        let (whole, stopped, stayed) = stop_cut_short(seed, STEPS_MAX, End::Exit);
        assert!(stopped && stayed, "seed {seed}: not clean after {whole} steps");
        for steps in whole - STEPS..whole {
            for end in [End::Exit, End::Kill, End::PowerCut] {
                let (_, stopped, stayed) = stop_cut_short(seed, steps, end);
                assert!(!stopped, "seed {seed}: {end:?} after {steps} of {whole} steps");
                if stayed { clean += 1 } else { unclean += 1 }
            }
        }
    }
    assert!(clean > 0 && unclean > 0, "{clean} stops were clean before they knew, {unclean} were not");
}
