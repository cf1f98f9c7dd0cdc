//! One life of a simulated broker: recovered, started on its cores, registered; then it serves until it is ended.

use std::{
    cell::{Cell, RefCell},
    path::Path,
    rc::Rc,
    time::Duration,
};

use uuid::Uuid;

use crate::{
    api,
    base::{BrokerId, PartitionKey},
    config::{self, BrokerConfig},
    coordinator::MachineMemory,
    io::{Io, channel::Notify, join_all, sim::Simulation},
    log::{LogSettings, StopReport, finish_clean_stop, put_ballast},
    net::{Acceptor, NetCore},
    protocol::metadata_records::BrokerEndpoint,
    shard::{Broker, CoreSeed, Registration, RewriteMemory, Router, Started, recover, start},
    sim::serving::{Handlers, PORT, Serving},
};

/// The broker's machine.
pub const NODE: usize = 0;
/// The machine of its clients.
pub const CLIENTS: usize = 1;
pub const DIRECTORY: &str = "data";

/// What a broker is started with.
#[derive(Clone)]
pub struct Settings {
    pub config: BrokerConfig,
    pub log: LogSettings,
    pub group_bytes_max: usize,
    pub rewrite_bytes_max: usize,
}

impl Settings {
    /// Small, so that everything happens often: journals go round, chunks are evicted, files are closed, members time out.
    pub fn small() -> Self {
        let overrides = [
            "offsets.topic.num.partitions=3",
            "group.initial.rebalance.delay.ms=2",
            "group.min.session.timeout.ms=10",
            "log.initial.task.delay.ms=500",
            "log.retention.check.interval.ms=1000",
        ];
        let loaded = config::load(None, &overrides.map(str::to_owned)).expect("good settings");
        let log = LogSettings {
            journal_max_bytes: 768 << 10,
            journal_start_bytes: 64 << 10,
            journal_file_bytes: 64 << 10,
            dirty_max_bytes: 128 << 10,
            cache_max_bytes: 96 << 10,
            open_files_max: 8,
            checkpoint_interval: Duration::from_millis(50),
            space_margin_bytes: 256 << 10,
            ballast_bytes: 64 << 10,
        };
        Self { config: loaded.config, log, group_bytes_max: 64 << 20, rewrite_bytes_max: 1 << 20 }
    }

    /// The one broker of a simulated cluster, with nothing used yet.
    pub fn broker(&self) -> Broker {
        Broker {
            id: BrokerId(1),
            cluster_id: "simulated".into(),
            group_memory: MachineMemory::new(self.group_bytes_max),
            rewrite_memory: RewriteMemory::new(self.rewrite_bytes_max),
            quota_use: Default::default(),
            cluster: None,
        }
    }
}

/// From a start to an end. Lives outside of the simulated machine.
pub struct Life {
    pub sim: Simulation,
    pub cores: usize,
    routers: RefCell<Vec<Option<Router>>>,
    contexts: RefCell<Vec<Option<Rc<api::Context>>>>,
    started: RefCell<Vec<Rc<Started>>>,
    nets: RefCell<Vec<Rc<NetCore<Handlers>>>>,
    acceptor: RefCell<Option<Acceptor>>,
    /// Connections of clients that have not heard of their end yet.
    pub connected: Rc<Cell<usize>>,
    /// Rings at every change of the cells below.
    pub news: Notify,
    /// Registered: it may be asked.
    pub ready: Cell<bool>,
    pub ended: Cell<bool>,
    /// Why it could not start.
    pub failed: RefCell<Option<String>>,
    /// Why it ended itself.
    pub fatal: RefCell<Option<String>>,
    /// Every core has stopped: all is in its segment, and the mark of a clean stop may be there from now on.
    pub sealed: Cell<bool>,
    /// The mark is there for good, and the process has nothing left to do.
    pub stopped: Cell<bool>,
}

impl Life {
    /// Begins a life. It is ready, or has failed, some time later.
    pub fn begin(sim: &Simulation, settings: &Settings, cores: usize) -> Rc<Self> {
        let life = Rc::new(Self {
            sim: sim.clone(),
            cores,
            routers: RefCell::new(vec![None; cores]),
            contexts: RefCell::new(vec![None; cores]),
            started: RefCell::default(),
            nets: RefCell::default(),
            acceptor: RefCell::default(),
            connected: Rc::default(),
            news: Notify::new(),
            ready: Cell::new(false),
            ended: Cell::new(false),
            failed: RefCell::default(),
            fatal: RefCell::default(),
            sealed: Cell::new(false),
            stopped: Cell::new(false),
        });
        let (this, settings) = (life.clone(), settings.clone());
        sim.spawn_on(NODE, 0, |io| async move {
            if let Err(why) = this.clone().recover(&io, &settings).await {
                this.fail(why);
            }
        });
        life
    }

    fn fail(&self, why: String) {
        self.failed.borrow_mut().get_or_insert(why);
        self.news.notify_all();
    }

    async fn recover(self: Rc<Self>, io: &Io, settings: &Settings) -> Result<(), String> {
        let broker = settings.broker();
        let directory = Path::new(DIRECTORY);
        let (seeds, _) = recover(io, &broker, &settings.config, directory, &settings.log, self.cores)
            .await
            .map_err(|error| error.to_string())?;
        put_ballast(io, directory, settings.log.ballast_bytes).await;
        let serving = Serving::new(self.cores);
        for (core, seed) in seeds.into_iter().enumerate() {
            let (this, serving) = (self.clone(), serving.clone());
            self.sim.spawn_on(NODE, core, |io| async move {
                if let Err(why) = this.clone().core(io, core, seed, &serving).await {
                    this.fail(why);
                }
            });
        }
        Ok(())
    }

    async fn core(self: Rc<Self>, io: Io, core: usize, seed: CoreSeed, serving: &Serving) -> Result<(), String> {
        let this = self.clone();
        let fatal = Rc::new(move |why: String| {
            this.fatal.borrow_mut().get_or_insert(why);
            // The process ends at once: nobody of it does anything any more.
            this.sim.kill(NODE);
            this.ended();
        });
        let started = Rc::new(start(io.clone(), seed, fatal).await.map_err(|error| error.to_string())?);
        let listener = api::AdvertisedListener { name: "PLAINTEXT".into(), host: "localhost".into(), port: 9092 };
        let context = api::Context::new(started.router.clone(), io.clone(), vec![listener], self.cores);
        self.contexts.borrow_mut()[core] = Some(context);
        self.routers.borrow_mut()[core] = Some(started.router.clone());
        self.started.borrow_mut().push(started.clone());
        let this = self.clone();
        let net = serving.serve(&io, core, move || this.context(core));
        self.nets.borrow_mut().push(net);
        self.news.notify_all();
        if core != 0 {
            return Ok(());
        }
        while self.started.borrow().len() < self.cores {
            self.news.notified().await;
        }
        let end_point =
            BrokerEndpoint { name: "PLAINTEXT".into(), host: "localhost".into(), port: 9092, security_protocol: 0 };
        started
            .register(Registration { end_points: vec![end_point], directory: Uuid::from_u128(7) })
            .await
            .map_err(|error| error.to_string())?;
        let bound = self.sim.bind(NODE, PORT).expect("whoever had it has ended");
        *self.acceptor.borrow_mut() = Some(serving.open(bound, &io));
        self.ready.set(true);
        self.news.notify_all();
        Ok(())
    }

    /// The way to one of its cores, once it is ready.
    pub fn router(&self, core: usize) -> Option<Router> {
        if self.ended.get() || !self.ready.get() { None } else { self.routers.borrow()[core].clone() }
    }

    /// Holds the books of all cores against what they count: memory, and room promised on the disk.
    /// # Panics
    /// If one is wrong.
    pub fn recount(&self) {
        for started in &*self.started.borrow() {
            started.recount().unwrap_or_else(|why| panic!("RINGTAIL_SEED={}: {why}", self.sim.seed()));
        }
    }

    /// Whether a partition is offline, or all of them since the life has ended.
    pub fn is_offline(&self, key: PartitionKey) -> bool {
        self.ended.get() || self.started.borrow().iter().any(|started| started.is_offline(key))
    }

    /// What handlers on one of its cores know, once it is ready.
    pub fn context(&self, core: usize) -> Option<Rc<api::Context>> {
        if self.ended.get() || !self.ready.get() { None } else { self.contexts.borrow()[core].clone() }
    }

    /// Puts other handlers in the place of those of a broker that serves.
    pub fn change_contexts(&self, change: impl Fn(&api::Context) -> Rc<api::Context>) {
        for context in self.contexts.borrow_mut().iter_mut().flatten() {
            *context = change(context);
        }
    }

    /// It is over, one way or the other: forgets what belonged to it.
    pub fn ended(&self) {
        self.ended.set(true);
        self.routers.borrow_mut().fill(None);
        let contexts = std::mem::take(&mut *self.contexts.borrow_mut());
        drop(contexts);
        self.started.borrow_mut().clear();
        let served = (self.nets.take(), self.acceptor.take());
        drop(served);
        self.news.notify_all();
    }

    /// The process exits by itself: what it has begun to write lands.
    pub fn end_process(&self) {
        self.sim.stop(NODE);
        self.ended();
    }

    pub fn kill(&self) {
        self.sim.kill(NODE);
        self.ended();
    }

    pub fn power_cut(&self) {
        self.sim.power_cut(NODE);
        self.ended();
    }

    /// Begins an orderly stop: clients are answered, then every core stops. `stopped` says when it is done. If a step of it
    /// fails the process ends, and `fatal` says why.
    pub fn stop(self: &Rc<Self>) {
        let this = self.clone();
        self.sim.spawn_on(NODE, 0, |_| async move {
            let acceptor = this.acceptor.take();
            if let Some(acceptor) = acceptor {
                acceptor.stop().await;
            }
            let nets: Vec<_> = this.nets.borrow().clone();
            join_all(nets.iter().map(|net| net.end_all())).await;
            this.stop_cores();
        });
    }

    /// Stops every core whatever clients wait for: some of it goes on when the time for answers is over.
    pub fn stop_cores(self: &Rc<Self>) {
        let reports = Rc::new(RefCell::new(Vec::new()));
        let all: Vec<Rc<Started>> = self.started.borrow().clone();
        for (core, started) in all.into_iter().enumerate() {
            let (this, reports) = (self.clone(), reports.clone());
            self.sim.spawn_on(NODE, core, |io| async move {
                if let Err(why) = this.clone().stop_core(&io, &started, &reports).await {
                    this.fatal.borrow_mut().get_or_insert(why);
                    this.end_process();
                }
            });
        }
    }

    async fn stop_core(
        self: Rc<Self>,
        io: &Io,
        started: &Started,
        reports: &RefCell<Vec<StopReport>>,
    ) -> Result<(), String> {
        let report = started.stop().await.map_err(|error| error.to_string())?;
        reports.borrow_mut().push(report);
        if reports.borrow().len() == self.cores {
            let reports = reports.take();
            self.sealed.set(true);
            finish_clean_stop(io, Path::new(DIRECTORY), &reports).await.map_err(|error| error.to_string())?;
            self.stopped.set(true);
            self.news.notify_all();
        }
        Ok(())
    }

    /// Runs until it is ready.
    /// # Panics
    /// If it cannot start, or does not come to an end within `steps`.
    pub fn must_be_ready(&self, steps: u64) {
        let mut taken = 0;
        while !self.ready.get() {
            assert!(taken < steps, "RINGTAIL_SEED={}: the start does not end", self.sim.seed());
            let failed = self.failed.borrow();
            assert_eq!(*failed, None, "RINGTAIL_SEED={}", self.sim.seed());
            drop(failed);
            self.sim.run_steps(50);
            taken += 50;
        }
    }
}
