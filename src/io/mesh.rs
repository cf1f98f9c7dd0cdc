//! Messages between the cores of one process: a bounded queue for each pair, and a bell for a core that sleeps.
//!
//! A core that is awake finds messages without a system call; a parked core costs about 35 µs to wake.

mod pair;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering, fence},
    },
    task::{Context, Poll, Waker},
};

use self::pair::{Own, Receiver, Sender, Timed, pair};
use super::{Clock, Instant, Io, channel::Notify, sim};

/// Messages that may be on their way from one core to another, at most. Full means wait.
const SLOTS_MAX: usize = 1024;

/// Messages that may be on their way to one core, from all others together: with many cores a pair has less.
const SLOTS_OF_CORE: usize = 4096;

/// A pair has as many, however many cores there are.
const SLOTS_MIN: usize = 64;

fn slots(cores: usize) -> usize {
    (SLOTS_OF_CORE / cores.max(1)).clamp(SLOTS_MIN, SLOTS_MAX)
}

/// What a mesh of so many cores takes when every queue has been full once, in bytes.
#[must_use]
pub fn mesh_bytes<M>(cores: usize) -> usize {
    cores * cores.saturating_sub(1) * slots(cores) * size_of::<Timed<M>>()
}

/// Messages taken from one core before the next core's are looked at.
const FAIR_MESSAGES: usize = 32;

/// What wakes a core that sleeps.
enum Bell {
    #[cfg(feature = "glommio")]
    EventFd(super::glommio::EventFd),
    /// That of a core which has a ring of its own, and looks into its queues in every turn.
    #[cfg(feature = "glommio")]
    Ring(Arc<super::ring::Bell>),
    Sim(sim::SimBell),
}

impl Bell {
    fn ring(&self) {
        match self {
            #[cfg(feature = "glommio")]
            Self::EventFd(bell) => bell.ring(),
            #[cfg(feature = "glommio")]
            Self::Ring(bell) => bell.ring(),
            Self::Sim(bell) => bell.ring(),
        }
    }
}

/// One core's side that the other cores see.
#[derive(Default)]
struct Inbox {
    /// Set by the core before it parks, taken by the first one that rings.
    sleeping: AtomicBool,
    /// Somebody was waiting for room in a queue that comes from here, and there is some.
    has_room: AtomicBool,
    bell: OnceLock<Bell>,
}

impl Inbox {
    /// Wakes the core if it sleeps. Call after the message is in its queue.
    fn wake(&self) {
        #[cfg(feature = "glommio")]
        if let Some(Bell::Ring(bell)) = self.bell.get() {
            return bell.ring();
        }
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::SeqCst) && self.sleeping.swap(false, Ordering::SeqCst) {
            self.ring();
        }
    }

    fn ring(&self) {
        self.has_room.store(true, Ordering::SeqCst);
        // Without a bell the core has not opened its mesh yet; it looks into its queues before it first sleeps.
        if let Some(bell) = self.bell.get() {
            bell.ring();
        }
    }
}

/// One core's part of a mesh, on its way to that core.
pub struct MeshSeed<M> {
    core: usize,
    inboxes: Arc<Vec<Inbox>>,
    /// By destination; none to itself.
    senders: Vec<Option<Sender<M>>>,
    /// By origin; none from itself.
    receivers: Vec<Option<Receiver<M>>>,
}

/// A mesh of `cores` cores: one seed for each, in order.
#[must_use]
pub fn mesh<M: Send + 'static>(cores: usize) -> Vec<MeshSeed<M>> {
    let inboxes: Arc<Vec<Inbox>> = Arc::new((0..cores).map(|_| Inbox::default()).collect());
    let seed = |core| MeshSeed {
        core,
        inboxes: inboxes.clone(),
        senders: (0..cores).map(|_| None).collect(),
        receivers: (0..cores).map(|_| None).collect(),
    };
    let mut seeds: Vec<MeshSeed<M>> = (0..cores).map(seed).collect();
    for from in 0..cores {
        for to in (0..cores).filter(|to| *to != from) {
            let (sender, receiver) = pair(slots(cores));
            seeds[from].senders[to] = Some(sender);
            seeds[to].receivers[from] = Some(receiver);
        }
    }
    seeds
}

impl<M: Send + 'static> MeshSeed<M> {
    /// Opens the mesh on its core. Messages sent before wait.
    #[must_use]
    pub fn open(self, io: &Io) -> Mesh<M> {
        let own = Own::new(slots(self.inboxes.len()));
        let local = Local {
            core: self.core,
            inboxes: self.inboxes,
            senders: self.senders.into_iter().map(RefCell::new).collect(),
            receivers: self.receivers.into_iter().map(RefCell::new).collect(),
            own: RefCell::new(own),
            clock: io.clock.clone(),
            receiver: RefCell::default(),
            room: Notify::new(),
            lines: RefCell::default(),
            next_turn: Cell::new(0),
            next_from: Cell::new(0),
            taken: Cell::new(0),
        };
        let mesh = Mesh { local: Rc::new(local) };
        mesh.attend_bell(io);
        mesh
    }
}

struct Local<M> {
    core: usize,
    inboxes: Arc<Vec<Inbox>>,
    senders: Vec<RefCell<Option<Sender<M>>>>,
    receivers: Vec<RefCell<Option<Receiver<M>>>>,
    own: RefCell<Own<M>>,
    clock: Clock,
    receiver: RefCell<Option<Waker>>,
    room: Notify,
    /// Those who wait for room, in order: turn and destination.
    lines: RefCell<VecDeque<(u64, usize)>>,
    next_turn: Cell<u64>,
    next_from: Cell<usize>,
    taken: Cell<usize>,
}

impl<M> Local<M> {
    fn inbox(&self) -> &Inbox {
        &self.inboxes[self.core]
    }

    fn push(&self, to: usize, arrival: Instant, message: M) -> Result<(), M> {
        match self.senders[to].borrow_mut().as_mut() {
            Some(sender) => sender.push(arrival, message),
            None => self.own.borrow_mut().push(arrival, message),
        }
    }

    fn want_room(&self, to: usize) {
        match self.senders[to].borrow().as_ref() {
            Some(sender) => sender.want_room(),
            None => self.own.borrow_mut().want_room(),
        }
    }

    /// When the next message of a core arrives, if there is one.
    fn arrival(&self, from: usize) -> Option<Instant> {
        match self.receivers[from].borrow().as_ref() {
            Some(receiver) => receiver.arrival(),
            None => self.own.borrow().arrival(),
        }
    }

    fn pop(&self, from: usize) -> Option<M> {
        match self.receivers[from].borrow_mut().as_mut() {
            Some(receiver) => receiver.pop(),
            None => self.own.borrow_mut().pop(),
        }
    }

    fn take_room_wanted(&self, from: usize) -> bool {
        match self.receivers[from].borrow().as_ref() {
            Some(receiver) => receiver.take_room_wanted(),
            None => self.own.borrow_mut().take_room_wanted(),
        }
    }

    /// Wakes whoever finds something. Whether there is somebody.
    #[cfg(feature = "glommio")]
    fn look(&self) -> bool {
        let inbox = self.inbox();
        let mut found = false;
        if inbox.has_room.load(Ordering::SeqCst) && inbox.has_room.swap(false, Ordering::SeqCst) {
            self.room.notify_all();
            found = true;
        }
        if self.receiver.borrow().is_some() && (0..self.inboxes.len()).any(|from| self.arrival(from).is_some()) {
            let receiver = self.receiver.borrow_mut().take();
            receiver.into_iter().for_each(Waker::wake);
            found = true;
        }
        found
    }

    fn rung(&self) {
        let receiver = self.receiver.borrow_mut().take();
        if let Some(receiver) = receiver {
            receiver.wake();
        }
        self.room.notify_all();
    }
}

/// One core's end of the mesh. Cheap to clone; one task receives.
pub struct Mesh<M> {
    local: Rc<Local<M>>,
}

impl<M> Clone for Mesh<M> {
    fn clone(&self) -> Self {
        Self { local: self.local.clone() }
    }
}

impl<M: Send + 'static> Mesh<M> {
    /// This core's number.
    #[must_use]
    pub fn core(&self) -> usize {
        self.local.core
    }

    /// How many cores there are.
    #[must_use]
    pub fn cores(&self) -> usize {
        self.local.inboxes.len()
    }

    /// Sends if there is room now. Messages from one core to another keep their order.
    /// # Errors  The message, if the queue is full or others wait for room in it.
    pub fn try_send(&self, core: usize, message: M) -> Result<(), M> {
        if self.local.lines.borrow().iter().any(|(_, other)| *other == core) {
            return Err(message);
        }
        self.push(core, message)
    }

    fn push(&self, core: usize, message: M) -> Result<(), M> {
        // The simulator delays each message; the queue keeps their order.
        let arrival = match self.local.clock.simulated() {
            Some(clock) => Instant(clock.now().0 + clock.message_delay()),
            None => Instant(0),
        };
        self.local.push(core, arrival, message)?;
        if core == self.core() {
            // To itself: no other thread is involved, so the receiver is woken directly.
            let receiver = self.local.receiver.borrow_mut().take();
            if let Some(receiver) = receiver {
                receiver.wake();
            }
        } else {
            self.local.inboxes[core].wake();
        }
        Ok(())
    }

    /// Sends, waiting for room if the queue is full; those who wait for room are served in their order.
    pub async fn send(&self, core: usize, message: M) {
        let mut message = match self.try_send(core, message) {
            Ok(()) => return,
            Err(message) => message,
        };
        let turn = Turn::new(&self.local, core);
        loop {
            let room = self.local.room.notified();
            if turn.is_next() {
                // Asked for before the second look, so that room made in between rings.
                self.local.want_room(core);
                fence(Ordering::SeqCst);
                message = match self.push(core, message) {
                    Ok(()) => return,
                    Err(message) => message,
                };
            }
            room.await;
        }
    }

    /// Waits for the next message from any core.
    pub async fn recv(&self) -> M {
        loop {
            if let Some(message) = self.try_recv() {
                return message;
            }
            Parked { mesh: self, arrival: None }.await;
        }
    }

    /// The next message, if one is there. Looks at all cores' queues in turn, a bounded number of messages from each.
    #[must_use]
    pub fn try_recv(&self) -> Option<M> {
        // Only the simulator has messages that are still on their way.
        let now = self.local.clock.simulated().map_or(Instant(0), sim::Clock::now);
        let cores = self.cores();
        let first = self.local.next_from.get();
        for from in (first..cores).chain(0..first) {
            if self.local.arrival(from).is_none_or(|arrival| arrival > now) {
                continue;
            }
            let message = self.local.pop(from);
            fence(Ordering::SeqCst);
            if self.local.take_room_wanted(from) {
                self.local.inboxes[from].ring();
            }
            self.remember_turn(from);
            return message;
        }
        None
    }

    fn remember_turn(&self, from: usize) {
        let taken = if self.local.next_from.get() == from { self.local.taken.get() + 1 } else { 1 };
        if taken >= FAIR_MESSAGES {
            self.local.next_from.set((from + 1) % self.cores());
            self.local.taken.set(0);
        } else {
            self.local.next_from.set(from);
            self.local.taken.set(taken);
        }
    }

    /// Starts the task that hears this core's bell. It ends with the executor.
    fn attend_bell(&self, io: &Io) {
        let bell = match &io.clock {
            #[cfg(feature = "glommio")]
            Clock::Glommio(_) => match io.spawner.ring() {
                Some(ring) => Bell::Ring(ring.bell().clone()),
                None => Bell::EventFd(super::glommio::EventFd::new()),
            },
            Clock::Sim(_) => Bell::Sim(sim::SimBell::default()),
        };
        assert!(self.local.inbox().bell.set(bell).is_ok(), "a core opens its mesh once");
        #[cfg(feature = "glommio")]
        if let Some(ring) = io.spawner.ring() {
            let local = Rc::downgrade(&self.local);
            return ring.watch(move || local.upgrade().is_some_and(|local| local.look()));
        }
        let local = self.local.clone();
        io.spawner.spawn(async move {
            let inboxes = local.inboxes.clone();
            match inboxes[local.core].bell.get().expect("set above") {
                #[cfg(feature = "glommio")]
                Bell::EventFd(bell) => {
                    let bell = bell.attend();
                    loop {
                        bell.rung().await;
                        local.rung();
                    }
                }
                #[cfg(feature = "glommio")]
                Bell::Ring(_) => unreachable!("its core looks by itself"),
                Bell::Sim(bell) => loop {
                    bell.wait().await;
                    local.rung();
                },
            }
        });
    }
}

/// The receiver, asleep: announces it, looks once more, waits for the bell.
struct Parked<'a, M> {
    mesh: &'a Mesh<M>,
    arrival: Option<Pin<Box<sim::Sleep>>>,
}

impl<M: Send + 'static> Future for Parked<'_, M> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let local = &self.mesh.local;
        // The waker first: a bell that rings from now on finds it.
        *local.receiver.borrow_mut() = Some(context.waker().clone());
        local.inbox().sleeping.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let now = local.clock.now();
        let arrivals = (0..local.inboxes.len()).filter_map(|from| local.arrival(from));
        let awake = match arrivals.min() {
            None => false,
            Some(arrival) if arrival <= now => true,
            Some(arrival) => {
                let clock = local.clock.simulated().expect("only the simulator delays messages");
                let mut sleep = Box::pin(clock.sleep_until(arrival));
                let ready = sleep.as_mut().poll(context).is_ready();
                self.arrival = Some(sleep);
                ready
            }
        };
        if !awake {
            return Poll::Pending;
        }
        // Whoever sends now need not ring.
        local.inbox().sleeping.store(false, Ordering::SeqCst);
        Poll::Ready(())
    }
}

/// A place in the line of those who wait for room on the way to one core.
struct Turn<'a, M> {
    local: &'a Local<M>,
    turn: u64,
    core: usize,
}

impl<'a, M> Turn<'a, M> {
    fn new(local: &'a Local<M>, core: usize) -> Self {
        let turn = local.next_turn.get();
        local.next_turn.set(turn + 1);
        local.lines.borrow_mut().push_back((turn, core));
        Self { local, turn, core }
    }

    fn is_next(&self) -> bool {
        let lines = self.local.lines.borrow();
        lines.iter().find(|(_, core)| *core == self.core).is_some_and(|(turn, _)| *turn == self.turn)
    }
}

impl<M> Drop for Turn<'_, M> {
    fn drop(&mut self) {
        self.local.lines.borrow_mut().retain(|(turn, _)| *turn != self.turn);
        // The next in line may find room, too.
        self.local.room.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mesh_of_many_cores_takes_little() {
        // A message of a hundred bytes, as the broker's are.
        let mib = [1, 2, 16, 64, 256].map(|cores| mesh_bytes::<[u64; 12]>(cores) >> 20);
        assert_eq!(mib, [0, 0, 6, 25, 414]);
        assert_eq!([1, 2, 4, 16, 64, 256].map(slots), [1024, 1024, 1024, 256, 64, 64]);
    }

    #[test]
    fn nobody_has_a_queue_of_another_thread_s_kind_to_himself() {
        for (core, seed) in mesh::<u64>(3).into_iter().enumerate() {
            let absent = |there: Vec<bool>| there.iter().position(|it| !it) == Some(core) && there.len() == 3;
            assert!(absent(seed.senders.iter().map(Option::is_some).collect()));
            assert!(absent(seed.receivers.iter().map(Option::is_some).collect()));
        }
    }
}
