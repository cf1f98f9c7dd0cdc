//! What the clients of one schedule share: the broker's present life, the promises, and when to end.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use crate::{
    base::{ErrorCode, PartitionKey},
    io::{Io, Rand, channel::Notify, sim::Simulation},
    sim::{
        broker::{CLIENTS, Life},
        model::Model,
        wire::Wire,
    },
};

/// A client's own door to time and chance, and everything that clients share.
#[derive(Clone)]
pub struct World(Rc<Shared>);

pub struct Shared {
    pub sim: Simulation,
    pub model: Model,
    pub rand: Rand,
    io: Io,
    /// None while nobody may connect.
    life: RefCell<Option<Rc<Life>>>,
    changed: Notify,
    /// The disk may refuse: it is small, or something of it fails.
    pub disk_may_refuse: Cell<bool>,
    /// It may be full: what comes may not fit.
    pub disk_is_small: Cell<bool>,
    /// The broker has begun its stop.
    pub stopping: Cell<bool>,
    /// Clients finish what they have begun, and begin nothing.
    pub finishing: Cell<bool>,
    running: Cell<usize>,
}

impl std::ops::Deref for World {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl World {
    pub fn new(sim: &Simulation) -> Self {
        let io = sim.io(CLIENTS, 0);
        Self(Rc::new(Shared {
            sim: sim.clone(),
            model: Model::new(sim.seed()),
            rand: io.rand.clone(),
            io,
            life: RefCell::default(),
            changed: Notify::new(),
            disk_may_refuse: Cell::new(false),
            disk_is_small: Cell::new(false),
            stopping: Cell::new(false),
            finishing: Cell::new(false),
            running: Cell::new(0),
        }))
    }

    /// Lets the clients in, or keeps them out.
    pub fn serve(&self, life: Option<&Rc<Life>>) {
        *self.life.borrow_mut() = life.cloned();
        self.changed.notify_all();
    }

    /// Starts a client.
    pub fn client<F: Future<Output = ()> + 'static>(&self, run: impl FnOnce(World) -> F) {
        self.running.set(self.running.get() + 1);
        let (world, run) = (self.clone(), run(self.clone()));
        self.sim.spawn_on(CLIENTS, 0, |_| async move {
            run.await;
            world.running.set(world.running.get() - 1);
        });
    }

    /// Clients that have not finished.
    pub fn running(&self) -> usize {
        self.running.get()
    }

    /// A connection to any core, as soon as there is a broker.
    pub async fn connect(&self) -> Wire {
        loop {
            let changed = self.changed.notified();
            let life = self.life.borrow().clone();
            if let Some(life) = life
                && let Some(connection) = Wire::open(&life)
            {
                return connection;
            }
            changed.await;
        }
    }

    pub async fn pause(&self, microseconds: u64) {
        self.io.clock.sleep(Duration::from_micros(self.rand.below(microseconds.max(1)))).await;
    }

    pub fn now(&self) -> crate::io::Instant {
        self.io.clock.now()
    }

    /// A version within bounds.
    pub fn version(&self, least: i16, most: i16) -> i16 {
        least + self.rand.below((most - least + 1) as u64) as i16
    }

    /// Whether a request may be refused so: with a disk that may refuse, or by a broker that is about to stop.
    pub fn may_refuse(&self, error: ErrorCode) -> bool {
        match error {
            ErrorCode::KafkaStorageError => self.disk_may_refuse.get(),
            ErrorCode::NotLeaderOrFollower => self.disk_may_refuse.get() || self.stopping.get(),
            _ => false,
        }
    }

    /// Whether a partition may refuse records like that: where they fit, a partition that refuses them with the disk is offline, or was
    /// until its topic was deleted.
    pub fn partition_may_refuse(&self, life: &Life, key: PartitionKey, error: ErrorCode) -> bool {
        let is_disk = error == ErrorCode::KafkaStorageError;
        self.may_refuse(error)
            && (!is_disk || self.disk_is_small.get() || life.is_offline(key) || self.model.is_deleted(key))
    }

    /// True once in `chance` times.
    pub fn one_in(&self, chance: u64) -> bool {
        self.rand.below(chance) == 0
    }

    pub fn seed(&self) -> String {
        format!("RINGTAIL_SEED={}", self.sim.seed())
    }
}
