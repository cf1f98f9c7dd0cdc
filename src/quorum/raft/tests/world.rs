//! Voters, what lies between them, and what must hold of all they tell.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    path::Path,
    rc::Rc,
    time::Duration,
};

use crate::{
    base::{BrokerId, LeaderEpoch, METADATA_KEY, METADATA_TOPIC, Offset, TopicId},
    io::{Io, sim::Simulation},
    log::{CoreLog, KnownPartitions, LivePartitions, LogConfig, LogSettings, MetadataLog, recover},
    metadata::{CommittedBatch, Position},
    partition::{Assignment, Partition, PartitionState},
    protocol::metadata_records::MetadataRecord,
    quorum::{
        Event, Quorum, StoredMetadata, Voters,
        raft::{RaftQuorum, Seat, Transport, voting::Stage},
        read_snapshot,
    },
    replica::Replica,
};

/// Where packets are while they are under way: they outlive whoever has sent them.
const NETWORK: usize = 99;
const DIRECTORY: &str = "data";

/// What lies between the voters.
#[derive(Clone, Debug, Default)]
pub struct Net {
    /// A packet is lost once in so many times; zero is never.
    pub lost_one_in: u64,
    /// Likewise for one that comes twice.
    pub doubled_one_in: u64,
    /// A packet takes up to so many milliseconds.
    pub late_ms: u64,
    /// From whom to whom nothing comes through.
    pub cut: BTreeSet<(i32, i32)>,
}

/// What is known of the quorum as a whole.
#[derive(Default)]
pub struct Model {
    /// All that anybody was told to be committed, with its epoch.
    pub log: Vec<(MetadataRecord, LeaderEpoch)>,
    /// Who has led in an epoch.
    pub leaders: BTreeMap<LeaderEpoch, i32>,
    /// Proposals whose proposers were told that they are committed.
    pub acknowledged: u64,
    /// How often somebody's image was replaced by a snapshot.
    pub replaced: u64,
    proposed: u64,
}

/// A life of a voter.
pub struct Life {
    pub quorum: Rc<RaftQuorum>,
    /// All that was told in this life, and before.
    pub told: Rc<Cell<i64>>,
    /// It proposes no more than there is.
    pub proposes: Rc<Cell<bool>>,
}

/// Why processes have ended by themselves.
pub type Ended = Rc<RefCell<BTreeMap<i32, String>>>;

/// Voters in one simulation.
#[derive(Clone)]
pub struct World {
    pub sim: Simulation,
    pub voters: Vec<i32>,
    pub net: Rc<RefCell<Net>>,
    pub model: Rc<RefCell<Model>>,
    pub lives: Rc<RefCell<BTreeMap<i32, Life>>>,
    pub ended: Ended,
}

/// What a life shares with the world; it must not hold the simulation.
#[derive(Clone)]
struct Shared {
    me: i32,
    voters: Vec<i32>,
    network: Io,
    net: Rc<RefCell<Net>>,
    model: Rc<RefCell<Model>>,
    lives: Rc<RefCell<BTreeMap<i32, Life>>>,
    ended: Ended,
}

impl Transport for Shared {
    fn send(&self, to: BrokerId, packet: Vec<u8>) {
        assert!(packet.len() <= super::super::PACKET_BYTES_MAX);
        let (net, io) = (self.net.borrow().clone(), &self.network);
        let happens = |one_in: u64| one_in > 0 && io.rand.below(one_in) == 0;
        if net.cut.contains(&(self.me, to.0)) || happens(net.lost_one_in) {
            return;
        }
        let copies = if happens(net.doubled_one_in) { 2 } else { 1 };
        for _ in 0..copies {
            let delay = Duration::from_micros(50 + io.rand.below(1000 * net.late_ms + 1));
            let (shared, packet, clock) = (self.clone(), packet.clone(), io.clock.clone());
            io.spawner.spawn(async move {
                clock.sleep(delay).await;
                let lives = shared.lives.borrow();
                if let Some(life) = lives.get(&to.0).filter(|_| !shared.net.borrow().cut.contains(&(shared.me, to.0))) {
                    life.quorum.receive(BrokerId(shared.me), &packet).expect("voters send what voters take");
                }
            });
        }
    }
}

pub fn topic(number: u64) -> MetadataRecord {
    let topic_id = TopicId(uuid::Uuid::from_u128(u128::from(number) + 1));
    MetadataRecord::Topic { name: format!("topic-{number}"), topic_id }
}

impl World {
    pub fn new(seed: u64, voters: i32) -> Self {
        Self {
            sim: Simulation::new(seed),
            voters: (0..voters).collect(),
            net: Rc::default(),
            model: Rc::default(),
            lives: Rc::default(),
            ended: Rc::default(),
        }
    }

    /// Starts a voter, whose disk may be wiped before.
    pub fn start(&self, me: i32, wiped: bool) {
        let shared = Shared {
            me,
            voters: self.voters.clone(),
            network: self.sim.io(NETWORK, 0),
            net: self.net.clone(),
            model: self.model.clone(),
            lives: self.lives.clone(),
            ended: self.ended.clone(),
        };
        let seed = self.sim.seed();
        self.sim.spawn_on(me as usize, 0, |io| async move {
            if wiped && io.disk.exists(Path::new(DIRECTORY)).await {
                io.disk.remove_dir_all(Path::new(DIRECTORY)).await.expect("it is there");
                io.disk.sync_dir(Path::new(".")).await.expect("durable");
            }
            if let Err(why) = live(io, shared.clone()).await {
                shared.ended.borrow_mut().entry(me).or_insert(format!("RINGTAIL_SEED={seed}: {why}"));
            }
        });
    }

    /// Ends a voter's process.
    pub fn kill(&self, me: i32) {
        self.sim.kill(me as usize);
        self.lives.borrow_mut().remove(&me);
    }

    /// Cuts the power of a voter's machine.
    pub fn power_cut(&self, me: i32) {
        self.sim.power_cut(me as usize);
        self.lives.borrow_mut().remove(&me);
    }

    pub fn runs(&self, me: i32) -> bool {
        self.lives.borrow().contains_key(&me)
    }

    /// Whether this voter may vote.
    pub fn votes(&self, me: i32) -> bool {
        self.lives.borrow().get(&me).is_some_and(|life| matches!(*life.quorum.stage.borrow(), Stage::Votes))
    }

    /// Who leads, if somebody does and takes proposals.
    pub fn leader(&self) -> Option<i32> {
        let lives = self.lives.borrow();
        lives.iter().find(|(_, life)| life.quorum.told.leads.get().is_some()).map(|(me, _)| *me)
    }

    /// Runs until that is so, for so many seconds at most.
    pub fn run_until(&self, seconds: u64, mut is_so: impl FnMut(&Self) -> bool) -> bool {
        for _ in 0..seconds * 20 {
            if is_so(self) {
                return true;
            }
            self.sim.run_for(Duration::from_millis(50));
        }
        is_so(self)
    }

    /// Everybody runs, nothing is in the way, and in the end everybody has been told everything.
    pub fn settle(&self) {
        *self.net.borrow_mut() = Net::default();
        for me in self.voters.clone() {
            self.sim.set_faults(me as usize, Default::default());
            if !self.runs(me) {
                self.kill(me);
                self.start(me, false);
            }
        }
        let seed = self.sim.seed();
        let before = self.model.borrow().acknowledged;
        let goes_on = self.run_until(60, |world| world.model.borrow().acknowledged > before + 3);
        assert!(self.ended.borrow().is_empty(), "{:?}", self.ended.borrow());
        assert!(goes_on, "RINGTAIL_SEED={seed}: nobody leads in the end: {}", self.told());
        for life in self.lives.borrow().values() {
            life.proposes.set(false);
        }
        let all_told = self.run_until(30, |world| {
            let end = world.model.borrow().log.len() as i64;
            world.lives.borrow().values().all(|life| life.told.get() == end)
        });
        assert!(all_told, "RINGTAIL_SEED={seed}: not everybody has everything: {}", self.told());
        assert_eq!(self.lives.borrow().len(), self.voters.len(), "RINGTAIL_SEED={seed}");
        assert!(self.voters.iter().all(|me| self.votes(*me)), "RINGTAIL_SEED={seed}: {}", self.told());
    }

    pub fn told(&self) -> String {
        let end = self.model.borrow().log.len();
        let lives = self.lives.borrow();
        let each = lives.iter().map(|(me, life)| {
            let stage = life.quorum.stage.borrow();
            format!("voter {me} at {} of {end}, {:?}, {stage:?}", life.told.get(), life.quorum.leader())
        });
        each.collect::<Vec<_>>().join("; ")
    }
}

/// A replica of the metadata and what the disk says of it, as a broker's start has them.
async fn replica(io: &Io) -> Result<(Rc<Replica>, StoredMetadata), String> {
    let directory = Path::new(DIRECTORY);
    let snapshots = directory.join(format!("{METADATA_TOPIC}-0"));
    let mut stored = read_snapshot(io, &snapshots).await.map_err(|error| error.to_string())?;
    let settings = LogSettings { journal_start_bytes: 1 << 18, journal_file_bytes: 1 << 17, ..LogSettings::default() };
    let known = |log: MetadataLog| {
        stored.replay(&log, Voters::Several).map_err(|error| error.to_string())?;
        Ok(KnownPartitions::from(LivePartitions::default()))
    };
    let recovered = recover(io, directory, &settings, 1, known).await;
    let mut recovered = recovered.map_err(|error| format!("{error:?}"))?;
    let fatal = Rc::new(|reason| panic!("{reason}"));
    let seed = recovered.cores.remove(0);
    let (log, restored) = CoreLog::start(io, seed, fatal).await.map_err(|error| format!("{error:?}"))?;
    let log = Rc::new(log);
    let found = restored.into_iter().find(|it| it.key == METADATA_KEY);
    let (metadata, state) = match found {
        Some(found) => (found.log, found.state),
        None => (log.create(METADATA_KEY, METADATA_TOPIC, LogConfig::default()), PartitionState::default()),
    };
    let alone = Assignment::alone(LeaderEpoch(0));
    let replica = Replica::new(io.clone(), metadata, Partition::restored(&alone, state));
    let source = replica.clone();
    log.set_state_source(Rc::new(move |_| Some(source.inspect(Partition::state))));
    let flushed = replica.clone();
    io.spawner.spawn(async move {
        loop {
            for (_, end) in log.next_flushed().await {
                flushed.flushed(end);
            }
        }
    });
    Ok((replica, stored))
}

/// What a voter's driver knows.
struct Driver {
    shared: Shared,
    quorum: Rc<RaftQuorum>,
    image: Vec<MetadataRecord>,
    position: Position,
    told: Rc<Cell<i64>>,
    /// Since when this voter leads, and what it has proposed.
    leads: Rc<Cell<Option<LeaderEpoch>>>,
    proposal: Rc<Cell<Option<Offset>>>,
}

async fn live(io: Io, shared: Shared) -> Result<(), String> {
    let (replica, stored) = replica(&io).await?;
    let last_offset = stored.last_offset();
    let known: Vec<MetadataRecord> = shared.model.borrow().log.iter().map(|(record, _)| record.clone()).collect();
    let image = stored.records;
    assert_eq!(last_offset.plus(1), Offset(image.len() as i64), "a topic for each offset");
    assert!(image == known[..image.len().min(known.len())], "voter {}: the disk has what was committed", shared.me);
    let seat = Seat {
        me: BrokerId(shared.me),
        voters: shared.voters.iter().copied().map(BrokerId).collect(),
        directory: Path::new(DIRECTORY).join("quorum"),
        snapshots: Path::new(DIRECTORY).join(format!("{METADATA_TOPIC}-0")),
        settings: Default::default(),
    };
    let transport = Rc::new(shared.clone());
    let (ended, me) = (shared.ended.clone(), shared.me);
    let fatal = Rc::new(move |why| drop(ended.borrow_mut().insert(me, why)));
    let opened = RaftQuorum::open(&io, seat, replica, last_offset, stored.bytes_since_snapshot, transport, fatal);
    let quorum = opened.await.map_err(|error| error.to_string())?;
    let (told, proposes) = (Rc::new(Cell::new(image.len() as i64)), Rc::new(Cell::new(true)));
    let life = Life { quorum: quorum.clone(), told: told.clone(), proposes: proposes.clone() };
    shared.lives.borrow_mut().insert(shared.me, life);
    let (leads, proposal) = (Rc::new(Cell::new(None)), Rc::new(Cell::new(None)));
    let proposer = propose(io.clone(), quorum.clone(), shared.model.clone(), leads.clone(), proposal.clone(), proposes);
    io.spawner.spawn(proposer);
    let position = Position { last_offset, epoch: LeaderEpoch(-1) };
    let mut driver = Driver { shared, quorum, image, position, told, leads, proposal };
    loop {
        let event = driver.quorum.next().await;
        driver.take(event).await;
    }
}

/// Proposes one batch after the other, with pauses.
async fn propose(
    io: Io,
    quorum: Rc<RaftQuorum>,
    model: Rc<RefCell<Model>>,
    leads: Rc<Cell<Option<LeaderEpoch>>>,
    proposal: Rc<Cell<Option<Offset>>>,
    proposes: Rc<Cell<bool>>,
) {
    loop {
        io.clock.sleep(Duration::from_millis(5 + io.rand.below(60))).await;
        let Some(epoch) = leads.get().filter(|_| proposal.get().is_none() && proposes.get()) else { continue };
        let records = (0..=io.rand.below(3)).map(|_| {
            let mut model = model.borrow_mut();
            model.proposed += 1;
            topic(model.proposed)
        });
        match quorum.propose(epoch, records.collect()) {
            Ok(last_offset) => proposal.set(Some(last_offset)),
            Err(_) => leads.set(None),
        }
    }
}

impl Driver {
    async fn take(&mut self, event: Event) {
        match event {
            Event::Committed(batch) => self.committed(batch).await,
            Event::Gained(epoch) => {
                assert!(epoch >= self.position.epoch, "an earlier epoch is not gained");
                let leader = *self.shared.model.borrow_mut().leaders.entry(epoch).or_insert(self.shared.me);
                assert_eq!(leader, self.shared.me, "one leader in epoch {epoch}");
                assert!(self.leads.get().is_none_or(|led| led == epoch), "the end of leadership is told");
                self.leads.set(Some(epoch));
                self.proposal.set(None);
            }
            Event::Lost(_) => {
                self.leads.set(None);
                self.proposal.set(None);
            }
            Event::Replaced { position, records } => {
                self.leads.set(None);
                let mut model = self.shared.model.borrow_mut();
                model.replaced += 1;
                let known = &model.log[..position.last_offset.plus(1).0 as usize];
                assert!(known.iter().map(|(record, _)| record).eq(&records), "a snapshot is what was committed");
                assert!(position.last_offset >= self.position.last_offset, "no snapshot leads back");
                drop(model);
                (self.image, self.position) = (records, position);
                self.told.set(position.last_offset.plus(1).0);
            }
        }
    }

    async fn committed(&mut self, batch: CommittedBatch) {
        let me = self.shared.me;
        assert_eq!(batch.base_offset, self.position.last_offset.plus(1), "voter {me}: without a gap, and once");
        assert!(batch.epoch >= self.position.epoch, "epochs do not go back");
        assert_eq!(batch.last_offset.since(batch.base_offset) + 1, batch.records.len() as i64);
        {
            let mut model = self.shared.model.borrow_mut();
            for (place, record) in (batch.base_offset.0 as usize..).zip(&batch.records) {
                let told = (record.clone(), batch.epoch);
                match model.log.get(place) {
                    Some(known) => assert_eq!(*known, told, "voter {me}: one record at offset {place}"),
                    None => model.log.push(told),
                }
            }
            if self.leads.get() == Some(batch.epoch) {
                let proposed = self.proposal.take();
                assert_eq!(
                    proposed,
                    Some(batch.last_offset),
                    "what is committed in its own epoch a leader has proposed"
                );
                model.acknowledged += 1;
            }
        }
        self.image.extend(batch.records.iter().cloned());
        self.position.pass(&batch);
        self.told.set(self.position.last_offset.plus(1).0);
        if self.quorum.wants_snapshot() {
            self.quorum.snapshot(self.position, &self.image).await;
        }
    }
}
