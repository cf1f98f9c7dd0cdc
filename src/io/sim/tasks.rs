//! The simulator's clock and spawner.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use super::{
    network,
    world::{Event, EventKey, World},
};
use crate::{base::Timestamp, io::Instant};

/// Wall-clock time at which every simulation begins, in milliseconds since the Unix epoch.
const BEGINNING: Timestamp = 1_700_000_000_000;

/// Nanoseconds that a yield takes: virtual time must pass, or a task that spins would stop the world.
const YIELD_NS: u64 = 1_000;

/// Virtual time.
#[derive(Clone)]
pub struct Clock {
    world: Rc<World>,
}

/// What the wall clock shows at a moment.
pub(super) fn wall(at: Instant) -> Timestamp {
    BEGINNING + Timestamp::try_from(at.0 / 1_000_000).expect("a simulation ends before the world does")
}

impl Clock {
    pub(super) fn new(world: Rc<World>) -> Self {
        Self { world }
    }

    pub(super) fn world(&self) -> &Rc<World> {
        &self.world
    }

    pub(in crate::io) fn now(&self) -> Instant {
        self.world.now()
    }

    pub(in crate::io) fn wall(&self) -> Timestamp {
        wall(self.now())
    }

    pub(in crate::io) fn sleep_until(&self, deadline: Instant) -> Sleep {
        Sleep::until(&self.world, deadline)
    }

    pub(in crate::io) async fn yield_now(&self) {
        self.sleep_until(Instant(self.now().0 + YIELD_NS)).await;
    }

    /// A seeded delay for a message to another core, in nanoseconds: usually the time of a parked core's wake-up, now and then long.
    pub(in crate::io) fn message_delay(&self) -> u64 {
        if self.world.one_in(64) { self.world.below(2_000_000) } else { 500 + self.world.below(80_000) }
    }
}

/// Waits for a moment of virtual time.
pub(in crate::io) struct Sleep {
    world: Rc<World>,
    deadline: Instant,
    event: Option<EventKey>,
}

impl Sleep {
    pub(super) fn until(world: &Rc<World>, deadline: Instant) -> Self {
        Self { world: world.clone(), deadline, event: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if let Some(event) = self.event.take() {
            self.world.unschedule(event);
        }
        if self.world.now() >= self.deadline {
            return Poll::Ready(());
        }
        self.event = Some(self.world.schedule(self.deadline.0, Event::Wake(context.waker().clone())));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(event) = self.event.take() {
            self.world.unschedule(event);
        }
    }
}

/// Starts tasks on a core of a node.
#[derive(Clone)]
pub struct Spawner {
    world: Rc<World>,
    node: usize,
    core: usize,
    generation: u64,
}

impl Spawner {
    pub(super) fn new(world: Rc<World>, node: usize, core: usize) -> Self {
        let generation = world.generation(node);
        Self { world, node, core, generation }
    }

    pub(in crate::io) async fn connect(&self, to: SocketAddr) -> io::Result<network::Stream> {
        network::connect(self.world.clone(), self.node, to).await
    }

    pub(in crate::io) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        // A destructor that runs while its node is being killed must not start anything in the next generation.
        if self.world.generation(self.node) == self.generation {
            self.world.spawn(self.node, self.core, Box::pin(task));
        }
    }
}
