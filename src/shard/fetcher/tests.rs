//! Three brokers with one partition: real replicas and fetchers on their own disks, and between them a controller, clients and
//! a network of the test's. Leaders come and go, brokers are killed and lose their power at any moment; what was acknowledged to a
//! client that asked for all in-sync replicas stays, and below the high watermark all logs are the same.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};

use super::*;
use crate::{
    base::{BrokerId, ErrorCode},
    io::{
        channel::{OneshotSender, QueueSender, oneshot, queue},
        sim::{Faults, Simulation},
    },
    metadata::PartitionRegistration,
    partition::{Assignment, Fetcher as Reader, IsrChange, IsrState, Partition},
    peer::LinkError,
    protocol::batch::batches,
    replica::{
        Acks, Appended, Fetched, Local,
        tests::{open, values},
    },
};

const SEEDS: u64 = 12;
const STEPS: u64 = 60;
const NODES: usize = 3;
/// Where the clients are.
const OUTSIDE: usize = 9;
const MIN_IN_SYNC: i32 = 2;
const LAG_MAX_MS: i64 = 400;

/// What one broker is asked by others and by clients.
enum Question {
    Fetch(Reader, FetchPartition, OneshotSender<Fetched>),
    Append(String, OneshotSender<Appended>),
}

struct Node {
    replica: Rc<Replica>,
    changed: Notify,
    questions: QueueSender<Question>,
}

/// What the controller knows, which never fails here, and who runs.
struct Cluster {
    partition: RefCell<PartitionRegistration>,
    broker_epochs: RefCell<[i64; NODES]>,
    next_epoch: Cell<i64>,
    fenced: RefCell<[bool; NODES]>,
    nodes: RefCell<[Option<Node>; NODES]>,
    acknowledged: RefCell<BTreeMap<i64, String>>,
}

fn id(node: usize) -> BrokerId {
    BrokerId(node as i32)
}

impl Cluster {
    fn new() -> Rc<Self> {
        let all: Vec<BrokerId> = (0..NODES).map(id).collect();
        let partition = PartitionRegistration {
            replicas: all.clone(),
            in_sync_replicas: all,
            removing_replicas: Vec::new(),
            adding_replicas: Vec::new(),
            leader: Some(id(0)),
            leader_epoch: LeaderEpoch(0),
            partition_epoch: 0,
            leader_recovery_state: 0,
            directories: Vec::new(),
            eligible_leader_replicas: Vec::new(),
            last_known_elr: Vec::new(),
        };
        Rc::new(Self {
            partition: RefCell::new(partition),
            broker_epochs: RefCell::new([1, 2, 3]),
            next_epoch: Cell::new(10),
            fenced: RefCell::default(),
            nodes: RefCell::default(),
            acknowledged: RefCell::default(),
        })
    }

    fn assignment(&self, node: usize) -> Assignment {
        Assignment::of(&self.partition.borrow(), MIN_IN_SYNC, id(node)).unwrap()
    }

    /// A broker is gone, or begins another life: it leaves those in sync if there are others, and leads no more.
    fn fence(&self, node: usize) {
        self.fenced.borrow_mut()[node] = true;
        let mut partition = self.partition.borrow_mut();
        if partition.in_sync_replicas.len() > 1 {
            partition.in_sync_replicas.retain(|other| *other != id(node));
        }
        if partition.leader == Some(id(node)) {
            partition.leader = None;
        }
        drop(partition);
        self.elect();
    }

    fn elect(&self) {
        let fenced = self.fenced.borrow();
        let mut partition = self.partition.borrow_mut();
        let before = partition.leader;
        let eligible = partition.in_sync_replicas.iter().find(|other| !fenced[other.0 as usize]).copied();
        partition.leader = before.or(eligible);
        partition.leader_epoch = LeaderEpoch(partition.leader_epoch.0 + 1);
        partition.partition_epoch += 1;
    }

    /// Whoever runs hears of the metadata as it is then, some sooner, some later.
    fn publish(self: &Rc<Self>, sim: &Simulation) {
        for node in 0..NODES {
            if self.nodes.borrow()[node].is_none() {
                continue;
            }
            let this = self.clone();
            let delay = Duration::from_micros(sim.below(30_000));
            sim.spawn_on(node, 0, |io| async move {
                io.clock.sleep(delay).await;
                let told = this.nodes.borrow()[node].as_ref().map(|it| (it.replica.clone(), it.changed.clone()));
                let Some((replica, changed)) = told else { return };
                replica.assign(&this.assignment(node));
                changed.notify_all();
            });
        }
    }

    fn alter(&self, leader: usize, change: &IsrChange) -> Result<IsrState, ErrorCode> {
        let mut partition = self.partition.borrow_mut();
        if partition.leader != Some(id(leader)) || change.leader_epoch != partition.leader_epoch {
            return Err(ErrorCode::FencedLeaderEpoch);
        }
        if change.partition_epoch != partition.partition_epoch {
            return Err(ErrorCode::InvalidUpdateVersion);
        }
        let (epochs, fenced) = (self.broker_epochs.borrow(), self.fenced.borrow());
        let eligible = |(other, epoch): &(BrokerId, i64)| {
            !fenced[other.0 as usize] && (*epoch == -1 || *epoch == epochs[other.0 as usize])
        };
        if !change.others.iter().all(eligible) {
            return Err(ErrorCode::IneligibleReplica);
        }
        partition.in_sync_replicas =
            std::iter::once(id(leader)).chain(change.others.iter().map(|(other, _)| *other)).collect();
        partition.partition_epoch += 1;
        let (leader_epoch, partition_epoch) = (partition.leader_epoch, partition.partition_epoch);
        Ok(IsrState { leader_epoch, partition_epoch, in_sync_replicas: partition.in_sync_replicas.clone() })
    }

    fn ask(&self, node: BrokerId, question: Question) -> bool {
        let nodes = self.nodes.borrow();
        nodes[node.0 as usize].as_ref().is_some_and(|node| node.questions.try_send(question).is_ok())
    }

    fn leader(&self) -> Option<BrokerId> {
        self.partition.borrow().leader
    }

    fn replicas(&self) -> Vec<Rc<Replica>> {
        self.nodes.borrow().iter().flatten().map(|node| node.replica.clone()).collect()
    }
}

/// Another broker, over a network that takes its time.
struct Other {
    cluster: Rc<Cluster>,
    io: Io,
    me: usize,
    to: BrokerId,
}

impl Leader for Other {
    fn fetch(&self, asked: Vec<(PartitionKey, FetchPartition)>) -> Local<Result<Vec<Answered>, LinkError>> {
        let (cluster, io, to) = (self.cluster.clone(), self.io.clone(), self.to);
        let broker_epoch = cluster.broker_epochs.borrow()[self.me];
        let reader = Reader::Follower { broker: id(self.me), broker_epoch };
        Box::pin(async move {
            io.clock.sleep(Duration::from_micros(io.rand.below(2000))).await;
            let (sender, receiver) = oneshot();
            if !cluster.ask(to, Question::Fetch(reader, asked[0].1, sender)) {
                return Err(LinkError::Refused);
            }
            let fetched = receiver.await.ok_or(LinkError::Lost)?;
            io.clock.sleep(Duration::from_micros(io.rand.below(2000))).await;
            let mut records = BytesMut::new();
            fetched.records.iter().for_each(|slice| records.extend_from_slice(slice));
            let mut records = records.freeze();
            if io.rand.below(12) == 0 && !records.is_empty() {
                // A bit is wrong, or the end is missing.
                let at = io.rand.below(records.len() as u64) as usize;
                let mut wrong = records.to_vec();
                if io.rand.below(2) == 0 {
                    wrong.truncate(at)
                } else {
                    wrong[at] ^= 1 << io.rand.below(8)
                }
                records = Bytes::from(wrong);
            }
            Ok(vec![Answered {
                key: asked[0].0,
                error: fetched.error,
                diverging: fetched.diverging,
                high_watermark: fetched.high_watermark,
                log_start_offset: fetched.log_start_offset,
                records,
            }])
        })
    }
}

async fn fetched(io: &Io, replica: &Replica, reader: Reader, range: FetchPartition) -> Fetched {
    let bell = Notify::new();
    let watch = replica.watch_appends(&bell);
    let deadline = io.clock.now() + Duration::from_millis(100);
    let fetched = loop {
        let rung = bell.notified();
        let fetched = replica.fetch(&range, reader, 3000, true).await;
        if fetched.bytes > 0 || fetched.error.is_some() || fetched.diverging.is_some() || io.clock.now() >= deadline {
            break fetched;
        }
        either(rung, io.clock.sleep_until(deadline)).await;
    };
    replica.unwatch(watch);
    fetched
}

/// A broker's life, until it is killed.
async fn live(io: Io, cluster: Rc<Cluster>, node: usize) {
    let replica = open(&io, "data", &cluster.assignment(node)).await;
    let (questions, mut asked) = queue(1000);
    let changed = Notify::new();
    let running = Node { replica: replica.clone(), changed: changed.clone(), questions };
    cluster.nodes.borrow_mut()[node] = Some(running);
    // What was published since is known now.
    replica.assign(&cluster.assignment(node));
    cluster.fenced.borrow_mut()[node] = false;
    fetch_always(&io, &cluster, node, &replica, &changed);
    ask_for_in_sync(&io, &cluster, node, &replica);
    while let Some(question) = asked.recv().await {
        let (io, replica) = (io.clone(), replica.clone());
        io.clone().spawner.spawn(async move {
            match question {
                Question::Fetch(reader, range, answer) => {
                    let _ = answer.send(fetched(&io, &replica, reader, range).await);
                }
                Question::Append(value, answer) => {
                    let appended = replica.append(values(&[&value]), Acks::All).await;
                    let _ = appended.map(|appended| answer.send(appended));
                }
            }
        });
    }
}

/// What the shard does: a fetcher for whoever leads, as long as somebody follows.
fn fetch_always(io: &Io, cluster: &Rc<Cluster>, node: usize, replica: &Rc<Replica>, changed: &Notify) {
    for leader in (0..NODES).filter(|other| *other != node).map(id) {
        let follows = replica.clone();
        let followed = move || {
            let followed = follows.inspect(Partition::followed_leader) == Some(leader);
            if followed { vec![follows.clone()] } else { Vec::new() }
        };
        let (cluster, there) = (cluster.clone(), io.clone());
        let whom = move || -> Option<Rc<dyn Leader>> {
            Some(Rc::new(Other { cluster: cluster.clone(), io: there.clone(), me: node, to: leader }))
        };
        let fetcher = Fetcher::new(io.clone(), changed.clone(), Box::new(followed), Box::new(whom));
        let (io, changed) = (io.clone(), changed.clone());
        io.clone().spawner.spawn(async move {
            loop {
                let news = changed.notified();
                fetcher.run().await;
                either(news, io.clock.sleep(Duration::from_millis(20))).await;
            }
        });
    }
}

fn ask_for_in_sync(io: &Io, cluster: &Rc<Cluster>, node: usize, replica: &Rc<Replica>) {
    let (io, cluster, replica) = (io.clone(), cluster.clone(), replica.clone());
    io.clone().spawner.spawn(async move {
        loop {
            io.clock.sleep(Duration::from_millis(1 + io.rand.below(40))).await;
            let there = cluster.clone();
            let is_eligible = move |other: BrokerId, epoch: i64| {
                let other = other.0 as usize;
                !there.fenced.borrow()[other] && there.broker_epochs.borrow()[other] == epoch
            };
            let Some(change) = replica.propose_in_sync(LAG_MAX_MS, is_eligible) else { continue };
            io.clock.sleep(Duration::from_millis(io.rand.below(20))).await;
            let mut answer = cluster.alter(node, &change);
            io.clock.sleep(Duration::from_millis(io.rand.below(20))).await;
            if io.rand.below(4) == 0 {
                answer = Err(ErrorCode::RequestTimedOut);
            }
            replica.in_sync_answered(&change, answer);
            // Or the metadata says it, sooner or later.
            io.clock.sleep(Duration::from_millis(io.rand.below(20))).await;
            replica.assign(&cluster.assignment(node));
        }
    });
}

/// A client that wants everything on all in-sync replicas.
async fn produce(io: Io, cluster: Rc<Cluster>, client: u64) {
    for number in 0.. {
        io.clock.sleep(Duration::from_micros(io.rand.below(8000))).await;
        let Some(leader) = cluster.leader() else { continue };
        let value = format!("<{client}-{number}>{}", "x".repeat(io.rand.below(600) as usize));
        let (sender, answer) = oneshot();
        if !cluster.ask(leader, Question::Append(value.clone(), sender)) {
            continue;
        }
        let timeout = io.clock.sleep(Duration::from_millis(300));
        if let Either::Left(Some(Ok(produced))) = either(answer, timeout).await {
            let before = cluster.acknowledged.borrow_mut().insert(produced.base_offset.0, value);
            assert_eq!(before, None, "two records at offset {}", produced.base_offset);
        }
    }
}

struct World {
    sim: Simulation,
    cluster: Rc<Cluster>,
    /// The high watermark of each broker in its life.
    marks: [Offset; NODES],
    seed: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let (sim, cluster) = (Simulation::new(seed), Cluster::new());
        let world = Self { sim, cluster, marks: [Offset::ZERO; NODES], seed };
        (0..NODES).for_each(|node| world.start(node));
        for client in 0..3 {
            let cluster = world.cluster.clone();
            world.sim.spawn_on(OUTSIDE, 0, |io| produce(io, cluster, client));
        }
        world
    }

    fn start(&self, node: usize) {
        let cluster = self.cluster.clone();
        self.sim.spawn_on(node, 0, |io| live(io, cluster, node));
    }

    fn runs(&self, node: usize) -> bool {
        self.cluster.nodes.borrow()[node].is_some()
    }

    fn end(&mut self, node: usize) {
        if self.sim.below(2) == 0 {
            self.sim.kill(node)
        } else {
            self.sim.power_cut(node)
        }
        self.cluster.nodes.borrow_mut()[node] = None;
        self.marks[node] = Offset::ZERO;
    }

    /// It registers in another life, and reads its log.
    fn restart(&mut self, node: usize) {
        let epoch = self.cluster.next_epoch.get();
        self.cluster.next_epoch.set(epoch + 1);
        self.cluster.broker_epochs.borrow_mut()[node] = epoch;
        self.cluster.fence(node);
        self.cluster.publish(&self.sim);
        self.start(node);
        let cluster = self.cluster.clone();
        assert!(self.sim.run_until(|| cluster.nodes.borrow()[node].is_some()), "seed {}", self.seed);
        if self.cluster.leader().is_none() {
            self.cluster.elect();
        }
        self.cluster.publish(&self.sim);
    }

    fn step(&mut self) {
        self.sim.run_for(Duration::from_micros(500 + self.sim.below(60_000)));
        let node = self.sim.below(NODES as u64) as usize;
        match self.sim.below(8) {
            0 if self.runs(node) => {
                self.end(node);
                // Until the controller notices, the others go on with what they know.
                self.sim.run_for(Duration::from_micros(self.sim.below(80_000)));
                self.cluster.fence(node);
                self.cluster.publish(&self.sim);
            }
            0 | 1 if !self.runs(node) => self.restart(node),
            2 if self.runs(node) => {
                // Another one leads, for no reason.
                let in_sync = self.cluster.partition.borrow().in_sync_replicas.contains(&id(node));
                if in_sync && !self.cluster.fenced.borrow()[node] {
                    self.cluster.partition.borrow_mut().leader = Some(id(node));
                    self.cluster.elect();
                    self.cluster.publish(&self.sim);
                }
            }
            3 => self.cluster.publish(&self.sim),
            _ => {}
        }
        self.look();
    }

    fn look(&mut self) {
        for (node, running) in self.cluster.nodes.borrow().iter().enumerate() {
            let Some(running) = running else { continue };
            let mark = running.replica.high_watermark();
            assert!(mark >= self.marks[node], "seed {}: the mark of {node} went back", self.seed);
            self.marks[node] = mark;
        }
    }

    /// Everybody runs and nothing goes wrong: all becomes the same.
    fn heal(&mut self) {
        (0..NODES).filter(|node| !self.runs(*node)).collect::<Vec<_>>().into_iter().for_each(|node| self.restart(node));
        self.sim.kill(OUTSIDE);
        let cluster = self.cluster.clone();
        let deadline = self.sim.now() + Duration::from_secs(30);
        let healed = || {
            let replicas = cluster.replicas();
            let ends: Vec<_> = replicas.iter().map(|it| it.inspect(Partition::log_end_offset)).collect();
            let marks: Vec<_> = replicas.iter().map(|it| it.high_watermark()).collect();
            let in_sync = cluster.partition.borrow().in_sync_replicas.len();
            in_sync == NODES && ends.iter().chain(&marks).all(|end| *end == ends[0])
        };
        self.sim.run_until(|| healed() || self.sim.now() >= deadline);
        let ends: Vec<_> = cluster
            .replicas()
            .iter()
            .map(|it| (it.inspect(Partition::log_end_offset), it.high_watermark(), it.inspect(Partition::leader_epoch)))
            .collect();
        assert!(healed(), "seed {}: {ends:?}, {:?}", self.seed, cluster.partition.borrow());
    }

    fn check(&self) -> usize {
        let replicas = self.cluster.replicas();
        let all: Vec<Bytes> = replicas
            .into_iter()
            .enumerate()
            .map(|(node, replica)| {
                self.sim.block_on(node, 0, |_| async move {
                    let (end, mut from) = (replica.inspect(Partition::log_end_offset), Offset::ZERO);
                    let mut all = BytesMut::new();
                    while from < end {
                        let read = replica.read(from, 1 << 20, end, true).await.unwrap();
                        let start = all.len();
                        read.slices.iter().for_each(|slice| all.extend_from_slice(slice));
                        let last = batches(&all[start..]).last().unwrap().unwrap();
                        from = crate::protocol::batch::BatchInfo::of(&last.header).next_offset();
                    }
                    all.freeze()
                })
            })
            .collect();
        assert!(all.iter().all(|bytes| *bytes == all[0]), "seed {}: logs differ", self.seed);
        let found: BTreeMap<i64, &[u8]> =
            batches(&all[0]).map(|batch| batch.unwrap()).map(|it| (it.header.base_offset.0, it.bytes)).collect();
        let acknowledged = self.cluster.acknowledged.borrow();
        for (offset, value) in acknowledged.iter() {
            let bytes = found.get(offset).unwrap_or_else(|| panic!("seed {}: {offset} is gone", self.seed));
            let is_there = bytes.windows(value.len()).any(|some| some == value.as_bytes());
            assert!(is_there, "seed {}: something else is at {offset}", self.seed);
        }
        acknowledged.len()
    }
}

#[test]
fn what_was_acknowledged_is_on_all_replicas_whoever_led_and_whoever_was_killed() {
    let seeds = std::env::var("RINGTAIL_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS);
    let mut acknowledged = 0;
    for seed in 0..seeds {
        let mut world = World::new(seed);
        if seed % 2 == 1 {
            let slow = Faults { slow_one_in: 4, slow_ns: 3_000_000, ..Faults::default() };
            (0..NODES).for_each(|node| world.sim.set_faults(node, slow.clone()));
        }
        let cluster = world.cluster.clone();
        assert!(world.sim.run_until(|| cluster.replicas().len() == NODES));
        (0..STEPS).for_each(|_| world.step());
        world.heal();
        acknowledged += world.check();
    }
    assert!(acknowledged as u64 > 50 * seeds, "{acknowledged} in {seeds} schedules");
}
