//! The seeded simulator: nodes with cores and disks in one thread, virtual time, seeded order of tasks, and faults.
//!
//! One seed gives one run: [`Simulation::trace_hash`] covers every decision, so that a test can run a seed twice and
//! compare. A *kill* ends a process: what it wrote stays, each write in flight lands wholly or not at all, now or when a
//! successor may have begun; files that it had locked stay locked until then. A *power cut* keeps what was synced and tears
//! the rest at 512 bytes; see `disk_state`. *Rot* changes what lies on the disk between two lives; see `rot`.

mod disk;
mod disk_state;
mod faults;
mod file_image;
mod names;
mod network;
mod rot;
mod tasks;
mod world;

use std::{cell::Cell, future::Future, io, net::SocketAddr, rc::Rc, time::Duration};

use self::world::World;
pub use self::{
    disk::{Disk, File, Filesystem},
    disk_state::NameTaken,
    faults::Faults,
    network::{BoundAddress, DetachedStream, Incoming, Network, Stream},
    tasks::{Clock, Spawner},
};
#[cfg(test)]
pub use self::{
    faults::{Failure, Operation, errno},
    network::address,
};
pub(super) use self::{tasks::Sleep, world::SimBell};
use super::{Instant, Io, Rand};

/// A simulation. Cheap to clone, so that a task may kill its own node.
#[derive(Clone)]
pub struct Simulation {
    world: Rc<World>,
    /// Ends the world with the last clone: tasks hold the world through their doors, so it would not end by itself.
    /// (A task that holds a clone and never ends keeps it; only tests that leave such a task behind leak.)
    _end: Rc<EndOnDrop>,
}

struct EndOnDrop(Rc<World>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Simulation {
    /// A world without nodes; a node is there as soon as it is named.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let world = World::new(seed);
        Self { _end: Rc::new(EndOnDrop(world.clone())), world }
    }

    /// The seed, for failure messages.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.world.seed
    }

    /// The doors of one core of a node.
    #[must_use]
    pub fn io(&self, node: usize, core: usize) -> Io {
        let disk = Disk::new(self.world.clone(), node);
        let spawner = Spawner::new(self.world.clone(), node, core);
        let clock = Clock::new(self.world.clone());
        let rand = Rand::of(self.world.generator());
        Io {
            disk: super::Disk::Sim(disk),
            clock: super::Clock::Sim(clock),
            spawner: super::Spawner::Sim(spawner),
            rand,
            metrics: Rc::default(),
        }
    }

    /// Starts a task on a core of a node.
    pub fn spawn_on<F>(&self, node: usize, core: usize, start: impl FnOnce(Io) -> F)
    where
        F: Future<Output = ()> + 'static,
    {
        let io = self.io(node, core);
        self.world.spawn(node, core, Box::pin(start(io)));
    }

    /// Runs a task on a core of a node, and everything else with it, until it is done.
    /// # Panics
    /// If nothing can run any more before it is done: a deadlock, or its node was killed.
    pub fn block_on<T, F>(&self, node: usize, core: usize, start: impl FnOnce(Io) -> F) -> T
    where
        T: 'static,
        F: Future<Output = T> + 'static,
    {
        let slot = Rc::new(Cell::new(None));
        let result = slot.clone();
        self.spawn_on(node, core, |io| {
            let task = start(io);
            async move { result.set(Some(task.await)) }
        });
        loop {
            if let Some(value) = slot.take() {
                return value;
            }
            assert!(self.world.step(Instant(u64::MAX)), "nothing runs any more (seed {})", self.world.seed);
        }
    }

    /// Runs until `done`, asked after each step, says so; false if nothing can run any more before.
    pub fn run_until(&self, mut done: impl FnMut() -> bool) -> bool {
        while !done() {
            if !self.world.step(Instant(u64::MAX)) {
                return done();
            }
        }
        true
    }

    /// Runs for a stretch of virtual time.
    pub fn run_for(&self, duration: Duration) {
        let end = self.now() + duration;
        while self.world.step(end) {}
        self.world.advance_to(end);
    }

    /// Runs for a number of steps (a task polled, or an event), to stop at an arbitrary moment.
    pub fn run_steps(&self, steps: u64) {
        for _ in 0..steps {
            if !self.world.step(Instant(u64::MAX)) {
                return;
            }
        }
    }

    /// Runs until nothing is left to run and no timer to wait for.
    pub fn run_until_idle(&self) {
        while self.world.step(Instant(u64::MAX)) {}
    }

    /// Virtual time since the beginning.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.world.now()
    }

    /// Ends a node's process as `kill -9` does: its tasks are dropped, its files closed, each write in flight lands
    /// wholly or not at all, some of them late, and everything that had landed stays. The node can be started again at once.
    pub fn kill(&self, node: usize) {
        self.world.note(1, node as u64);
        self.world.disk(node).borrow_mut().process_ends();
        self.world.drop_tasks(node);
        self.world.disk(node).borrow_mut().process_ended(&self.world);
    }

    /// Cuts a node's power: its tasks are dropped, and of what was not synced each 512 bytes are kept or lost by seed,
    /// as are the latest changes of each directory.
    pub fn power_cut(&self, node: usize) {
        self.world.note(2, node as u64);
        self.world.drop_tasks(node);
        self.world.disk(node).borrow_mut().power_cut(&self.world);
    }

    /// Ends a node's process without ending writes half-way: all writes in flight land. What a clean exit does.
    pub fn stop(&self, node: usize) {
        self.world.note(3, node as u64);
        self.world.drop_tasks(node);
        self.world.disk(node).borrow_mut().settle(&self.world);
    }

    /// How often a node's process has ended.
    #[must_use]
    pub fn generation(&self, node: usize) -> u64 {
        self.world.generation(node)
    }

    /// Sets what goes wrong on a node's disk from now on.
    pub fn set_faults(&self, node: usize, faults: Faults) {
        self.world.disk(node).borrow_mut().faults = faults;
    }

    /// Sets what becomes of connections that are opened from now on.
    pub fn set_network(&self, network: Network) {
        self.world.addresses.borrow_mut().network = network;
    }

    /// Binds an address of a node, until what comes back is dropped.
    /// # Errors  `AddrInUse`.
    pub fn bind(&self, node: usize, port: u16) -> io::Result<super::BoundAddress> {
        BoundAddress::bind(&self.world, network::address(node, port)).map(super::BoundAddress::Sim)
    }

    /// Connects a node to an address.
    /// # Errors  `ConnectionRefused` if nobody has opened it.
    pub fn connect(&self, node: usize, to: SocketAddr) -> impl Future<Output = io::Result<super::Stream>> + use<> {
        let connected = network::connect(self.world.clone(), node, to);
        async { connected.await.map(super::Stream::Sim) }
    }

    /// Bytes of a node's disk that are taken.
    #[must_use]
    pub fn used_bytes(&self, node: usize) -> u64 {
        self.world.disk(node).borrow().used_bytes()
    }

    /// The names that were taken away on a node's disk since this was asked last, in their order.
    #[must_use]
    pub fn names_taken(&self, node: usize) -> Vec<NameTaken> {
        std::mem::take(&mut self.world.disk(node).borrow_mut().names_taken)
    }

    /// How often a sync of a node's files has failed, and what it was to make durable was lost.
    #[must_use]
    pub fn failed_syncs(&self, node: usize) -> u64 {
        self.world.disk(node).borrow().sync_errors
    }

    /// How often tasks had their turn so far, on all nodes: what a wait costs.
    #[must_use]
    pub fn polls(&self) -> u64 {
        self.world.polls()
    }

    /// A random number of the simulation's own, below `bound`: for tests that decide when and what to break.
    #[must_use]
    pub fn below(&self, bound: u64) -> u64 {
        self.world.below(bound)
    }

    /// A hash over all decisions so far: which task ran when, what every operation on a disk did.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.world.trace_hash()
    }
}

#[cfg(test)]
mod tests;
