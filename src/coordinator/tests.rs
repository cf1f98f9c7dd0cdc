//! The driver under a machine of two records, on a simulated disk.

mod toy;

use std::{
    cell::{Cell, RefCell},
    path::Path,
    rc::Rc,
    time::Duration,
};

use uuid::Uuid;

use self::toy::{Request, Toy};
use super::{Actor, Coordinator, ImageSource, MachineMemory};
use crate::{
    base::{ErrorCode, LeaderEpoch, Offset, PartitionKey, TopicId},
    io::{
        Io,
        channel::{Notify, OneshotReceiver, oneshot},
        sim::{Faults, Simulation},
    },
    log::{CoreLog, LivePartitions, LogConfig, LogSettings, recover},
    metadata::Image,
    partition::{Assignment, Partition, ValidBatch},
    protocol::batch::{self, BatchInfo},
    replica::{Acks, Local, Replica},
};

const TOPIC: &str = "__toys";
const KEY: PartitionKey = PartitionKey { topic_id: TopicId(Uuid::from_u128(11)), partition: 0 };

const SPACE_MARGIN_BYTES: u64 = 256 << 10;

/// One life of one broker with one partition, and its coordinator.
struct Life {
    sim: Simulation,
    node: usize,
    replica: Rc<Replica>,
    coordinator: Rc<Coordinator<Toy>>,
    /// Announcements that were begun, and the offset below which all was durable at that moment.
    announced: Rc<RefCell<Vec<(String, Offset)>>>,
    /// Announcements are made once it is open.
    gate: Rc<Gate>,
}

struct Gate {
    open: Cell<bool>,
    opened: Notify,
    /// Announcements that were begun and neither made nor given up.
    waiting: Cell<usize>,
}

struct Waits(Rc<Gate>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

impl Life {
    /// Recovers the machine's disk and leads in that epoch.
    fn begin(sim: &Simulation, node: usize, epoch: i32) -> Self {
        let life = Self::stand_by(sim, node);
        life.coordinator.lead(LeaderEpoch(epoch));
        life
    }

    /// The same without leading.
    fn stand_by(sim: &Simulation, node: usize) -> Self {
        let announced: Rc<RefCell<Vec<(String, Offset)>>> = Rc::default();
        let gate = Rc::new(Gate { open: Cell::new(true), opened: Notify::new(), waiting: Cell::new(0) });
        let (seen, waits) = (announced.clone(), gate.clone());
        let (replica, coordinator) = sim.block_on(node, 0, |io| async move {
            let replica = replica(&io).await;
            let image: ImageSource = Rc::new(|| Some(Rc::new(Image::default())));
            let durable = replica.clone();
            let actor: Actor<Toy> = Rc::new(move |name: String| -> Local<Request> {
                seen.borrow_mut().push((name.clone(), durable.high_watermark()));
                waits.waiting.set(waits.waiting.get() + 1);
                let waiting = Waits(waits.clone());
                Box::pin(async move {
                    while !waiting.0.open.get() {
                        waiting.0.opened.notified().await;
                    }
                    Request::Announced(name)
                })
            });
            let memory = MachineMemory::new(1 << 20);
            (replica.clone(), Coordinator::new(io, replica, toy::Config { total_max: 1000 }, memory, image, actor))
        });
        Self { sim: sim.clone(), node, replica, coordinator, announced, gate }
    }

    fn begin_ask(&self, request: Request) -> OneshotReceiver<Result<i64, ErrorCode>> {
        let (sender, receiver) = oneshot();
        let coordinator = self.coordinator.clone();
        self.sim.spawn_on(self.node, 0, |_| async move {
            let _ = sender.send(coordinator.request(request).await);
        });
        receiver
    }

    fn ask(&self, request: Request) -> Result<i64, ErrorCode> {
        let answer = self.begin_ask(request);
        self.sim.block_on(self.node, 0, |_| async move { answer.await.expect("the broker lives") })
    }

    fn add(&self, name: &str, number: i64) -> Result<i64, ErrorCode> {
        self.ask(Request::Add { name: name.to_owned(), number, padding: 0 })
    }

    fn total(&self, name: &str) -> Result<i64, ErrorCode> {
        self.ask(Request::Total(name.to_owned()))
    }

    fn announced(&self) -> Vec<String> {
        self.announced.borrow().iter().map(|(name, _)| name.clone()).collect()
    }

    fn open_gate(&self) {
        self.gate.open.set(true);
        self.gate.opened.notify_all();
    }

    /// The record of a total, as a batch by somebody else.
    fn batch(name: &str, total: i64) -> ValidBatch {
        let (key, value) = toy::total_record(name, total, 0);
        let mut builder = batch::BatchBuilder::new();
        builder.push(0, Some(&key), value.as_deref());
        crate::replica::built(builder)
    }
}

async fn replica(io: &Io) -> Rc<Replica> {
    let mut live = LivePartitions::default();
    live.insert(KEY, (TOPIC.to_owned(), LogConfig::default()));
    let settings = LogSettings {
        journal_max_bytes: 64 << 20,
        journal_start_bytes: 1 << 20,
        journal_file_bytes: 1 << 20,
        space_margin_bytes: SPACE_MARGIN_BYTES,
        ballast_bytes: 64 << 10,
        ..LogSettings::default()
    };
    let mut recovered =
        recover(io, Path::new("data"), &settings, 1, |_| Ok(live.into())).await.expect("a good directory");
    let seed = recovered.cores.pop().expect("one core");
    let (log, mut restored) = CoreLog::start(io, seed, Rc::new(|why| panic!("{why}"))).await.expect("a good directory");
    let log = Rc::new(log);
    let (partition_log, state) = match restored.pop() {
        Some(restored) => (restored.log, restored.state),
        None => (log.create(KEY, TOPIC, LogConfig::default()), Default::default()),
    };
    let replica =
        Replica::new(io.clone(), partition_log, Partition::restored(&Assignment::alone(LeaderEpoch(0)), state));
    let source = Rc::downgrade(&replica);
    log.set_state_source(Rc::new(move |_| Some(source.upgrade()?.inspect(Partition::state))));
    let (follower, flushes) = (replica.clone(), log.clone());
    io.spawner.spawn(async move {
        loop {
            for (_, end) in flushes.next_flushed().await {
                follower.flushed(end);
            }
        }
    });
    let clock = io.clock.clone();
    io.spawner.spawn(async move {
        loop {
            clock.sleep(Duration::from_secs(1)).await;
            log.housekeeping().await;
        }
    });
    replica
}

#[test]
fn an_answer_waits_until_all_that_it_saw_is_durable() {
    for seed in 0..40 {
        let sim = Simulation::new(seed);
        let life = Life::begin(&sim, 0, 1);
        assert_eq!(life.add("a", 1), Ok(1));
        sim.set_faults(0, Faults { latency_ns: 1_000_000..20_000_000, ..Faults::default() });
        let mut added = life.begin_ask(Request::Add { name: "a".to_owned(), number: 2, padding: 0 });
        assert!(sim.run_until(|| life.replica.inspect(Partition::log_end_offset) == Offset(2)));
        sim.run_for(Duration::from_micros(sim.below(3_000)));
        // It says nothing of its own, and has seen what the one before decided.
        let mut seen = life.begin_ask(Request::Total("a".to_owned()));
        let (mut first, mut second) = (None, None);
        while first.is_none() || second.is_none() {
            sim.run_steps(1);
            first = first.or_else(|| added.try_recv());
            second = second.or_else(|| seen.try_recv());
            let durable = life.replica.high_watermark() >= Offset(2);
            assert!(
                durable || (first.is_none() && second.is_none()),
                "seed {seed}: {first:?} {second:?} before it is durable"
            );
        }
        assert_eq!((first, second), (Some(Ok(3)), Some(Ok(3))), "seed {seed}");
        sim.power_cut(0);
        sim.set_faults(0, Faults::default());
        assert_eq!(Life::begin(&sim, 0, 2).total("a"), Ok(3), "seed {seed}");
    }
}

#[test]
fn a_failed_append_drops_what_was_decided_and_the_log_is_read_again() {
    let sim = Simulation::new(1);
    let life = Life::begin(&sim, 0, 1);
    assert_eq!(life.add("a", 1), Ok(1));
    let capacity = sim.used_bytes(0) + SPACE_MARGIN_BYTES + (3 << 20);
    sim.set_faults(0, Faults { capacity, ..Faults::default() });
    sim.run_for(Duration::from_secs(3));
    // No journal file that it fits into has room.
    let lost = life.begin_ask(Request::Add { name: "a".to_owned(), number: 2, padding: 5 << 20 });
    assert!(sim.run_until(|| life.coordinator.releasing.get()));
    // Decided behind it, and durable, but its answer would have told of what is lost.
    let behind = life.begin_ask(Request::Add { name: "b".to_owned(), number: 5, padding: 0 });
    assert!(sim.run_until(|| life.coordinator.held.borrow().len() == 1), "both wait");
    let answers = sim.block_on(0, 0, |_| async move { (lost.await, behind.await) });
    let refused = Some(Err(ErrorCode::CoordinatorNotAvailable));
    assert_eq!(answers, (refused, refused));
    // Who asks meanwhile waits for the new machine.
    let before = sim.now();
    assert_eq!(life.total("a"), Ok(1));
    assert!(sim.now().since(before) >= super::RELOAD_AFTER / 2);
    assert_eq!(life.total("b"), Ok(5), "what the log has counts");
    assert_eq!(life.add("a", 1), Ok(2));
}

#[test]
fn the_log_is_written_anew_before_it_gets_long() {
    let sim = Simulation::new(2);
    let life = Life::begin(&sim, 0, 1);
    life.gate.open.set(false);
    let _owed = life.begin_ask(Request::Announce("a".to_owned()));
    for number in 1..=600 {
        assert_eq!(life.add(["a", "b"][number % 2], 1), Ok((number as i64 + 1) / 2));
    }
    sim.run_for(Duration::from_secs(1));
    let start = life.replica.inspect(Partition::log_start_offset);
    assert!(start > Offset::ZERO, "nothing was given up");
    let written = life.replica.inspect(Partition::log_end_offset);
    assert!(written < Offset(640), "three records of live state were written again and again: {written}");
    sim.power_cut(0);
    let life = Life::begin(&sim, 0, 2);
    assert_eq!((life.total("a"), life.total("b")), (Ok(300), Ok(300)));
    assert_eq!(life.announced(), ["a"], "what is owed is in the new log as well");
}

#[test]
fn a_log_that_is_never_idle_is_written_anew_as_well() {
    let sim = Simulation::new(9);
    let life = Life::begin(&sim, 0, 1);
    let mut before = life.begin_ask(Request::Add { name: "a".to_owned(), number: 1, padding: 0 });
    sim.run_for(Duration::from_micros(10));
    for _ in 0..800 {
        let next = life.begin_ask(Request::Add { name: "a".to_owned(), number: 1, padding: 0 });
        // By now the next one is on its way.
        let answer = sim.block_on(0, 0, |_| before);
        assert!(matches!(answer, Some(Ok(_))), "{answer:?}");
        before = next;
    }
    assert!(life.replica.inspect(Partition::log_start_offset) > Offset(400));
}

#[test]
fn an_action_is_begun_when_its_record_is_durable_and_comes_back_as_a_request() {
    for seed in 0..20 {
        let sim = Simulation::new(seed);
        let life = Life::begin(&sim, 0, 1);
        assert_eq!(life.add("a", 7), Ok(7));
        sim.set_faults(0, Faults { latency_ns: 1_000_000..20_000_000, ..Faults::default() });
        // The answer comes when the announcement was made, and that is durable too.
        assert_eq!(life.ask(Request::Announce("a".to_owned())), Ok(7), "seed {seed}");
        assert_eq!(life.announced(), ["a"], "seed {seed}");
        assert!(life.announced.borrow()[0].1 >= Offset(2), "seed {seed}: begun before its record was durable");
        assert_eq!(life.replica.high_watermark(), Offset(3), "seed {seed}");
        sim.power_cut(0);
        sim.set_faults(0, Faults::default());
        let life = Life::begin(&sim, 0, 2);
        assert_eq!(life.total("a"), Ok(7));
        assert!(life.announced().is_empty(), "seed {seed}: once is enough");
    }
}

#[test]
fn an_action_that_was_not_done_is_begun_again_by_whoever_loads_the_machine() {
    let sim = Simulation::new(3);
    let life = Life::begin(&sim, 0, 1);
    life.gate.open.set(false);
    let mut asked = life.begin_ask(Request::Announce("a".to_owned()));
    sim.run_for(Duration::from_millis(100));
    assert_eq!((life.announced().len(), life.gate.waiting.get()), (1, 1));
    life.coordinator.unload(LeaderEpoch(2));
    sim.run_for(Duration::from_millis(1));
    assert_eq!(life.gate.waiting.get(), 0, "it is given up with the machine");
    assert_eq!(asked.try_recv(), Some(Err(ErrorCode::NotCoordinator)));
    life.open_gate();
    life.coordinator.lead(LeaderEpoch(3));
    assert_eq!(life.total("a"), Ok(0));
    sim.run_for(Duration::from_millis(100));
    assert_eq!(life.announced(), ["a", "a"]);
    assert_eq!(life.replica.high_watermark(), Offset(2), "that it was made is written down, once");
}

#[test]
fn who_does_not_lead_answers_nothing_and_who_leads_elsewhere_knows_everything() {
    let sim = Simulation::new(4);
    let here = Life::begin(&sim, 0, 1);
    let there = Life::stand_by(&sim, 1);
    assert_eq!((here.add("a", 1), there.total("a")), (Ok(1), Err(ErrorCode::NotCoordinator)));
    let mut waits = here.begin_ask(Request::Wait(60_000));
    sim.run_for(Duration::from_millis(1));

    here.coordinator.unload(LeaderEpoch(2));
    sim.run_for(Duration::from_millis(1));
    assert_eq!(waits.try_recv(), Some(Err(ErrorCode::NotCoordinator)), "whoever waits is told");
    assert_eq!(here.add("a", 1), Err(ErrorCode::NotCoordinator));
    here.coordinator.lead(LeaderEpoch(1));
    assert_eq!(here.add("a", 1), Err(ErrorCode::NotCoordinator), "old news");

    copy(&here, &there);
    there.coordinator.lead(LeaderEpoch(2));
    assert_eq!((there.total("a"), there.add("a", 1)), (Ok(1), Ok(2)));
    there.coordinator.unload(LeaderEpoch(2));
    there.coordinator.lead(LeaderEpoch(4));
    assert_eq!(there.total("a"), Ok(2), "old news, and a new epoch of the same leader, change nothing");

    there.coordinator.unload(LeaderEpoch(5));
    copy(&there, &here);
    here.coordinator.lead(LeaderEpoch(5));
    assert_eq!(here.total("a"), Ok(2));
}

/// Does what replication would: hands over what the other log has not.
fn copy(from: &Life, to: &Life) {
    let source = from.replica.clone();
    let next = to.replica.high_watermark();
    let bytes = from.sim.block_on(from.node, 0, |_| async move {
        let read = source.read(next, 1 << 20, source.high_watermark(), true).await.expect("a good disk");
        read.slices.iter().flat_map(|slice| slice.iter().copied()).collect::<Vec<u8>>()
    });
    for batch in batch::batches(&bytes) {
        let batch = batch.expect("a whole batch");
        let info = BatchInfo::of(&batch.header);
        let copied = ValidBatch { bytes: batch.bytes.to_vec().into(), info, log_append_time: None };
        let appended = to.replica.append(copied, Acks::All);
        to.sim.block_on(to.node, 0, |_| async move { appended.await.expect("the broker lives").expect("a good disk") });
    }
}

#[test]
fn what_is_in_the_log_and_not_yet_committed_is_waited_for() {
    let sim = Simulation::new(5);
    let life = Life::stand_by(&sim, 0);
    sim.set_faults(0, Faults { latency_ns: 1_000_000..20_000_000, ..Faults::default() });
    let appended = life.replica.append(Life::batch("a", 5), Acks::All);
    assert_eq!(life.replica.high_watermark(), Offset::ZERO);
    life.coordinator.lead(LeaderEpoch(1));
    assert_eq!(life.total("a"), Ok(5));
    drop(appended);
}

#[test]
fn leadership_that_comes_and_goes_while_the_log_is_read_leaves_one_machine() {
    for steps in 0..60 {
        let sim = Simulation::new(6);
        let life = Life::begin(&sim, 0, 1);
        assert_eq!(life.add("a", 1), Ok(1));
        sim.power_cut(0);
        let life = Life::begin(&sim, 0, 2);
        let mut waits = life.begin_ask(Request::Total("a".to_owned()));
        sim.run_steps(steps);
        let answered = waits.try_recv();
        life.coordinator.unload(LeaderEpoch(3));
        assert!(life.coordinator.machine.borrow().is_none(), "{steps} steps");
        life.coordinator.lead(LeaderEpoch(4));
        assert_eq!(life.total("a"), Ok(1), "{steps} steps");
        sim.run_for(Duration::from_millis(1));
        let answered = answered.or_else(|| waits.try_recv());
        assert!(matches!(answered, Some(Ok(1) | Err(ErrorCode::NotCoordinator))), "{steps} steps: {answered:?}");
        assert_eq!(life.add("a", 1), Ok(2), "{steps} steps");
    }
}

#[test]
fn settings_that_change_while_the_log_is_read_hold_afterwards() {
    let sim = Simulation::new(7);
    let life = Life::begin(&sim, 0, 1);
    assert_eq!(life.add("a", 10), Ok(10));
    sim.power_cut(0);
    let life = Life::begin(&sim, 0, 2);
    // The machine is there already, and the log is not read.
    sim.run_steps(1);
    assert!(life.coordinator.machine.borrow().is_none());
    life.coordinator.configure(toy::Config { total_max: 10 });
    assert_eq!(life.add("a", 1), Ok(toy::REFUSED));
    life.coordinator.configure(toy::Config { total_max: 11 });
    assert_eq!(life.add("a", 1), Ok(11));
}

#[test]
fn time_and_deleted_topics_reach_the_machine_and_so_does_whoever_goes_away() {
    let sim = Simulation::new(8);
    let life = Life::begin(&sim, 0, 1);
    let before = sim.now();
    assert_eq!(life.ask(Request::Wait(3_000)), Ok(0));
    assert_eq!(sim.now().since(before).as_secs(), 3);

    assert_eq!((life.add("a", 1), life.add("b", 2)), (Ok(1), Ok(2)));
    life.coordinator.topic_deleted("a");
    assert_eq!((life.total("a"), life.total("b")), (Ok(0), Ok(2)));

    let coordinator = life.coordinator.clone();
    sim.block_on(0, 0, |io| async move {
        let asked = coordinator.request(Request::Wait(60_000));
        futures_lite::future::or(
            async { assert!(asked.await.is_err(), "nobody answers so soon") },
            io.clock.sleep(Duration::from_secs(1)),
        )
        .await;
    });
    let waiting = life.coordinator.machine.borrow().as_ref().map(Toy::waiting);
    assert_eq!(waiting, Some(0), "nobody waits any more");

    sim.power_cut(0);
    let life = Life::begin(&sim, 0, 2);
    assert_eq!((life.total("a"), life.total("b")), (Ok(0), Ok(2)));
    life.replica.deleted();
    life.coordinator.deleted();
    assert_eq!(life.total("b"), Err(ErrorCode::NotCoordinator));
}
