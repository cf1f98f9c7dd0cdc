//! From what recovery found to a core that serves, and back.

use std::{
    cell::RefCell,
    fmt,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tracing::warn;

use crate::{
    base::{BrokerId, ErrorCode, LeaderEpoch, METADATA_KEY, METADATA_TOPIC, Offset, PartitionKey},
    config::BrokerConfig,
    controller::{BrokerRegistration, Controller, new_leader_epoch, partitions_led},
    io::{Io, MeshSeed, mesh},
    log::{
        self, CheckReport, CoreLog, Fatal, Finding, KnownPartitions, LivePartitions, LogError, LogSettings,
        MetadataLog, RecoverError, RecoveryReport, RestoredPartition, StopReport,
    },
    metadata::{Image, Inconsistent},
    partition::{Assignment, Partition, PartitionState},
    quorum::{
        MetadataError, OpenError, Quorum, RaftQuorum, RaftSettings, Seat, SingleVoter, StoredMetadata, Voters,
        read_snapshot,
    },
    replica::Replica,
    shard::{
        call::Message,
        cluster::{Cluster, TakePackets},
        control::Driver,
        core::{Broker, Core},
        membership::{Member, Post, Registration},
        router::{CONTROLLER_CORE, Router},
        settings,
    },
};

/// Where a voter of several keeps the quorum's log, below the data directory.
const QUORUM_DIRECTORY: &str = "ringtail-quorum";

/// How long an ask for other in-sync replicas looks for a controller.
const ALTER_PARTITION_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a broker that stops waits until others lead what it has led.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// What one core starts from. Travels to its executor.
pub struct CoreSeed {
    broker: Broker,
    config: BrokerConfig,
    directory: PathBuf,
    mesh: MeshSeed<Message>,
    log: log::LogSeed,
    image: Arc<Image>,
    /// Of the metadata log.
    bytes_since_snapshot: u64,
    /// The offset in the metadata log of the last record in the image, once the new epochs are written down.
    image_offset: Offset,
    /// Partitions that have begun a new leader epoch in the image, and not in the metadata log yet.
    new_epochs: Vec<PartitionKey>,
}

/// A core that serves.
pub struct Started {
    /// The way to it.
    pub router: Router,
    core: Rc<Core>,
    /// The broker's part in a cluster of several, on the core of the metadata log.
    member: Option<Rc<Member>>,
    /// As in the seed, until they are written down.
    new_epochs: RefCell<Vec<PartitionKey>>,
}

/// Why a broker cannot start.
#[derive(Debug)]
pub enum StartError {
    /// The metadata on the disk cannot be read.
    Metadata(MetadataError),
    /// A record of the metadata does not fit those before it.
    Contradiction(Inconsistent),
    /// The data directory cannot be recovered, or a core's log cannot begin.
    Log(RecoverError),
    /// The disk has no room for the broker's registration.
    Full(PathBuf),
    /// The quorum's own log cannot be gone on with.
    Quorum(OpenError),
    /// The broker could not be registered for another reason.
    NotRegistered(ErrorCode),
}

impl fmt::Display for StartError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Metadata(error) => error.fmt(out),
            Self::Contradiction(error) => write!(out, "the metadata log contradicts itself: {error}"),
            Self::Log(error) => error.fmt(out),
            Self::Quorum(error) => error.fmt(out),
            Self::Full(directory) => {
                write!(out, "{}: the disk is full; free a few MiB of it and start again", directory.display())
            }
            Self::NotRegistered(error) => write!(out, "the broker could not be registered: {error:?}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Recovers the data directory for `cores` cores: one seed for each. Runs on one executor before the others start.
/// # Errors  `Metadata`, `Contradiction`, `Log`.
pub async fn recover(
    io: &Io,
    broker: &Broker,
    config: &BrokerConfig,
    directory: &Path,
    log_settings: &LogSettings,
    cores: usize,
) -> Result<(Vec<CoreSeed>, RecoveryReport), StartError> {
    let snapshots = directory.join(format!("{METADATA_TOPIC}-0"));
    let mut metadata = read_snapshot(io, &snapshots).await.map_err(StartError::Metadata)?;
    let mut image = Image::default();
    let voters = if config.cluster.of_several() { Voters::Several } else { Voters::One };
    let known = |log: MetadataLog| {
        image = replayed(&mut metadata, &log, voters).map_err(|error| error.to_string())?;
        Ok(KnownPartitions { live: live_partitions(config, &image), deleted: std::mem::take(&mut metadata.deleted) })
    };
    let recovered = log::recover(io, directory, log_settings, cores, known).await.map_err(StartError::Log)?;
    let mut new_epochs = Vec::new();
    // Among several the controller begins new epochs, when the broker registers.
    if !recovered.report.clean && !config.cluster.of_several() {
        // In the image now, so that no core has to be told; in the metadata log before anything is served.
        new_epochs = partitions_led(&image, broker.id);
        for key in &new_epochs {
            image.apply(&new_leader_epoch(*key, broker.id)).map_err(StartError::Contradiction)?;
        }
    }
    // What the metadata log will have of them is known when it comes.
    let image_offset = metadata.last_offset().plus(new_epochs.len() as i64);
    let image = Arc::new(image);
    let seeds =
        mesh::<Message>(cores).into_iter().zip(recovered.cores).enumerate().map(|(core, (mesh, log))| CoreSeed {
            broker: broker.clone(),
            config: config.clone(),
            directory: directory.to_owned(),
            mesh,
            log,
            image: image.clone(),
            image_offset,
            bytes_since_snapshot: metadata.bytes_since_snapshot,
            new_epochs: if core == CONTROLLER_CORE { std::mem::take(&mut new_epochs) } else { Vec::new() },
        });
    Ok((seeds.collect(), recovered.report))
}

/// Verifies a data directory in which no broker runs, and says what a start would do. Changes nothing.
/// # Errors  The directory cannot be read.
pub async fn check(io: &Io, config: &BrokerConfig, directory: &Path) -> Result<CheckReport, RecoverError> {
    let snapshots = directory.join(format!("{METADATA_TOPIC}-0"));
    let mut metadata = match read_snapshot(io, &snapshots).await {
        Ok(metadata) => metadata,
        Err(error) => {
            let mut report = CheckReport::default();
            report.findings.push(Finding { what: error.to_string(), start: log::Start::Refused });
            return Ok(report);
        }
    };
    let damaged = metadata.damaged.clone();
    let voters = if config.cluster.of_several() { Voters::Several } else { Voters::One };
    let known = |log: MetadataLog| {
        let image = replayed(&mut metadata, &log, voters).map_err(|error| error.to_string())?;
        Ok(KnownPartitions { live: live_partitions(config, &image), deleted: std::mem::take(&mut metadata.deleted) })
    };
    let mut report = log::check(io, directory, known).await?;
    let findings = damaged.iter().map(|path| Finding {
        what: format!("{} is damaged", path.display()),
        start: log::Start::GoesOn("the snapshot before and the log have to do, or a start is refused"),
    });
    report.findings.splice(0..0, findings);
    Ok(report)
}

fn replayed(metadata: &mut StoredMetadata, log: &MetadataLog, voters: Voters) -> Result<Image, StartError> {
    metadata.replay(log, voters).map_err(StartError::Metadata)?;
    let mut image = Image::default();
    metadata.records.iter().try_for_each(|record| image.apply(record)).map_err(StartError::Contradiction)?;
    Ok(image)
}

fn live_partitions(config: &BrokerConfig, image: &Image) -> LivePartitions {
    let mut live = LivePartitions::default();
    for topic in image.topics() {
        let log_config = settings::log_config(&image.topic_config(&config.statics, config.node.id, &topic.name));
        for key in topic.partition_keys() {
            live.insert(key, (topic.name.to_string(), log_config.clone()));
        }
    }
    live
}

/// Starts a core from its seed. Every core of the broker must be started; the controller's needs the others for its first
/// change, so `registration` is written by [`Started::register`] once all run.
/// # Errors  `Log`.
pub async fn start(io: Io, seed: CoreSeed, fatal: Fatal) -> Result<Started, StartError> {
    start_with(io, seed, fatal, |voter| Box::new(voter)).await
}

/// [`start`], with a quorum of the caller's on the core of the metadata log.
pub async fn start_with(
    io: Io,
    seed: CoreSeed,
    fatal: Fatal,
    quorum: impl FnOnce(SingleVoter) -> Box<dyn Quorum>,
) -> Result<Started, StartError> {
    let CoreSeed { broker, config, directory, mesh, log, image, image_offset, bytes_since_snapshot, new_epochs } = seed;
    let (log, restored) = CoreLog::start(&io, log, fatal.clone()).await.map_err(StartError::Log)?;
    let mesh = mesh.open(&io);
    let core =
        Core::new(io.clone(), mesh, broker, Rc::new(config), Rc::new(log), (image.as_ref().clone(), image_offset));
    for RestoredPartition { key, name, state, log } in restored {
        let Some(assignment) = core.assignment(key) else {
            warn!(partition = %key, topic = name, "the metadata has no replica of this partition here; its records stay where they are");
            continue;
        };
        let partition = Partition::restored(&assignment, state);
        let replica = Replica::new(io.clone(), log, partition);
        core.adopt(&name, replica);
    }
    let keys: Vec<PartitionKey> = image.partition_keys().collect();
    for key in keys {
        core.own(key);
    }
    let mut member = None;
    if core.index() == core.owner(METADATA_KEY) {
        let quorum = match core.broker.cluster.clone() {
            Some(cluster) => {
                let voter = voter(&core, &directory, bytes_since_snapshot, cluster, fatal.clone()).await?;
                member = Some(voter.1);
                voter.0
            }
            None => quorum(single_voter(&core, &directory, bytes_since_snapshot)),
        };
        let driver = Driver::new(quorum, fatal, image_offset);
        *core.driver.borrow_mut() = Some(driver.clone());
        if core.statics.cluster.of_several() {
            io.spawner.spawn(core.clone().let_time_pass(driver.clone()));
        }
        io.spawner.spawn(core.clone().follow_quorum(driver));
    }
    core.watch_states();
    io.spawner.spawn(core.clone().follow_flushes());
    io.spawner.spawn(core.clone().serve_inbox());
    io.spawner.spawn(core.clone().keep_house());
    io.spawner.spawn(core.clone().keep_in_sync());
    Ok(Started { router: Router::new(core.clone()), core, member, new_epochs: RefCell::new(new_epochs) })
}

/// This core's replica of the metadata log, which is made if it is not there.
fn metadata_replica(core: &Rc<Core>) -> Rc<Replica> {
    let replica = match core.replica(METADATA_KEY) {
        Ok(replica) => replica,
        Err(_) => {
            let log = core.log.create(METADATA_KEY, METADATA_TOPIC, settings::metadata_log_config());
            let alone = Assignment::alone(LeaderEpoch(0));
            let partition = Partition::restored(&alone, PartitionState::default());
            let replica = Replica::new(core.io.clone(), log, partition);
            core.adopt(METADATA_TOPIC, replica.clone());
            replica
        }
    };
    replica.log().set_config(settings::metadata_log_config());
    replica
}

/// The only voter.
fn single_voter(core: &Rc<Core>, directory: &Path, bytes_since_snapshot: u64) -> SingleVoter {
    let directory = directory.join(format!("{METADATA_TOPIC}-0"));
    SingleVoter::new(core.io.clone(), metadata_replica(core), directory, bytes_since_snapshot)
}

/// One of several voters, and with it the broker's part in the cluster.
async fn voter(
    core: &Rc<Core>,
    directory: &Path,
    bytes_since_snapshot: u64,
    cluster: Arc<Cluster>,
    fatal: Fatal,
) -> Result<(Box<dyn Quorum>, Rc<Member>), StartError> {
    let (io, me) = (&core.io, core.broker.id);
    // Whoever hears of no leader asks for votes within the shorter of both.
    let cluster_config = &core.statics.cluster;
    let patience = Duration::from_millis(cluster_config.election_timeout_ms.min(cluster_config.fetch_timeout_ms));
    let defaults = RaftSettings::default();
    let seat = Seat {
        me,
        voters: cluster.voters().iter().map(|voter| voter.id).collect(),
        directory: directory.join(QUORUM_DIRECTORY),
        snapshots: directory.join(format!("{METADATA_TOPIC}-0")),
        settings: RaftSettings { tick: patience / (2 * defaults.election_ticks as u32), ..defaults },
    };
    let mourner = Rc::downgrade(core);
    let is_dead = Rc::new(move |broker: BrokerId| {
        if let Some(core) = mourner.upgrade() {
            core.fence_dead(broker);
        }
    });
    let post = Post::open(io, me, &core.broker.cluster_id, cluster.voters(), is_dead);
    let last_offset = core.image_offset.get();
    let replica = metadata_replica(core);
    let opened = RaftQuorum::open(io, seat, replica, last_offset, bytes_since_snapshot, post, fatal.clone()).await;
    let quorum = opened.map_err(StartError::Quorum)?;
    let member = Member::begin(core, quorum.clone(), cluster, fatal);
    let taker = Rc::downgrade(&member);
    let take_packets: TakePackets = Rc::new(move |envelope, packets| match taker.upgrade() {
        Some(member) => member.take_packets(envelope, packets),
        None => Err(ErrorCode::NotController),
    });
    // Made once, here.
    let _ = core.take_packets.set(take_packets);
    let asker = Rc::downgrade(core);
    core.alter_partitions_by(Rc::new(move |request| {
        let core = asker.upgrade();
        Box::pin(async move {
            let core = core.ok_or(ErrorCode::NotController)?;
            core.ask_controller(&request, ALTER_PARTITION_TIMEOUT).await
        })
    }));
    Ok((Box::new(quorum), member))
}

impl Started {
    /// Holds the core's books against what they count.
    /// # Errors  Which one is wrong.
    #[cfg(test)]
    pub(crate) fn recount(&self) -> Result<(), String> {
        self.core.log.recount()
    }

    /// Whether a partition of this core is offline.
    #[cfg(test)]
    pub(crate) fn is_offline(&self, key: PartitionKey) -> bool {
        self.core.log.log(key).is_some_and(|log| log.is_offline())
    }

    /// Writes down that this broker runs, in which leader epochs, and what a new cluster begins with. On the controller's
    /// core, once all run and before anything is served.
    /// # Errors  `Full`, `NotRegistered`.
    pub async fn register(&self, registration: Registration) -> Result<(), StartError> {
        let Some(driver) = self.core.driver.borrow().clone() else { return Ok(()) };
        if let Some(member) = &self.member {
            return member.join(registration).await.map_err(StartError::NotRegistered);
        }
        driver.leads().await;
        let log = &self.core.log;
        let failed = |error| match log.is_full() {
            true => StartError::Full(log.directory().to_owned()),
            false => StartError::NotRegistered(error),
        };
        let new_epochs = self.new_epochs.take();
        driver.commit_leader_epochs(self.core.broker.id, &new_epochs).await.map_err(failed)?;
        let Registration { end_points, directory } = registration;
        let registration = BrokerRegistration {
            broker: self.core.broker.id,
            incarnation: self.core.io.rand.uuid(),
            end_points,
            rack: self.core.statics.node.rack.clone(),
            directory,
        };
        let broker_epoch = self.core.image_offset.get().plus(1).0;
        let register = |controller: &mut Controller| Ok((controller.register_broker(registration, broker_epoch), ()));
        driver.change(register).await.map_err(failed)
    }

    /// Gives away what this broker leads, before it stops: on the core of the metadata log, where there is a cluster to give it to.
    pub async fn leave(&self) {
        if let Some(member) = &self.member
            && self.core.statics.cluster.controlled_shutdown
        {
            member.leave(LEAVE_TIMEOUT).await;
        }
    }

    /// Stops the core's log in order. No request may be under way on any core.
    /// # Errors  Not everything could be written; the next start recovers it from the journal.
    pub async fn stop(&self) -> Result<StopReport, LogError> {
        self.core.log.stop().await
    }
}

impl Core {
    /// Checkpoints take the partitions' state from here.
    fn watch_states(self: &Rc<Self>) {
        let core = Rc::downgrade(self);
        self.log.set_state_source(Rc::new(move |key| {
            let core = core.upgrade()?;
            let replica = core.replicas.borrow().get(&key).cloned()?;
            Some(replica.inspect(Partition::state))
        }));
    }
}
