//! The world: virtual time, events, tasks in seeded order, and the trace.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
};

use super::{disk_state::DiskState, network::Addresses};
use crate::{
    base::Map,
    io::{Instant, memory::Home, rand::Generator},
};

/// Polls without virtual time moving after which a run counts as hung: a loop that never waits.
const POLLS_PER_INSTANT_MAX: u64 = 5_000_000;

type TaskFuture = Pin<Box<dyn Future<Output = ()>>>;
type Wakes = Arc<Mutex<Vec<u64>>>;

struct Task {
    node: usize,
    /// Absent while it is being polled.
    future: Option<TaskFuture>,
    queued: bool,
    waker: Waker,
}

struct TaskWaker {
    task: u64,
    wakes: Wakes,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wakes.lock().unwrap_or_else(PoisonError::into_inner).push(self.task);
    }
}

type Call = Box<dyn FnOnce(&Rc<World>)>;

/// What happens when its time has come.
pub(super) enum Event {
    Wake(Waker),
    Call(Call),
}

/// When an event is due, and its number: the key by which it can be called off.
pub(super) type EventKey = (u64, u64);

struct Node {
    generation: u64,
    disk: Rc<RefCell<DiskState>>,
    home: Arc<Home>,
}

pub(super) struct World {
    pub(super) seed: u64,
    now: Cell<u64>,
    polls_now: Cell<u64>,
    polls: Cell<u64>,
    generator: RefCell<Generator>,
    trace: Cell<u64>,
    events: RefCell<BTreeMap<EventKey, Event>>,
    next_event: Cell<u64>,
    tasks: RefCell<Map<u64, Task>>,
    next_task: Cell<u64>,
    ready: RefCell<Vec<u64>>,
    wakes: Wakes,
    nodes: RefCell<BTreeMap<usize, Node>>,
    pub(super) addresses: RefCell<Addresses>,
}

impl World {
    pub(super) fn new(seed: u64) -> Rc<Self> {
        Rc::new(Self {
            seed,
            now: Cell::new(0),
            polls_now: Cell::new(0),
            polls: Cell::new(0),
            generator: RefCell::new(Generator::from_seed(seed)),
            trace: Cell::new(seed),
            events: RefCell::default(),
            next_event: Cell::new(0),
            tasks: RefCell::default(),
            next_task: Cell::new(0),
            ready: RefCell::default(),
            wakes: Wakes::default(),
            nodes: RefCell::default(),
            addresses: RefCell::default(),
        })
    }

    pub(super) fn now(&self) -> Instant {
        Instant(self.now.get())
    }

    pub(super) fn advance_to(&self, instant: Instant) {
        if instant.0 > self.now.get() {
            self.now.set(instant.0);
            self.polls_now.set(0);
        }
    }

    pub(super) fn below(&self, bound: u64) -> u64 {
        self.generator.borrow_mut().below(bound)
    }

    pub(super) fn one_in(&self, one_in: u64) -> bool {
        self.generator.borrow_mut().one_in(one_in)
    }

    /// A generator of its own for a core, drawn from the seed.
    pub(super) fn generator(&self) -> Generator {
        Generator::from_seed(self.generator.borrow_mut().next_u64())
    }

    /// Adds a decision to the trace.
    pub(super) fn note(&self, kind: u64, value: u64) {
        let mut hash = self.trace.get();
        for word in [kind, value, self.now.get()] {
            hash = (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
        self.trace.set(hash);
    }

    pub(super) fn polls(&self) -> u64 {
        self.polls.get()
    }

    pub(super) fn trace_hash(&self) -> u64 {
        self.trace.get()
    }

    fn with_node<R>(&self, node: usize, look: impl FnOnce(&mut Node) -> R) -> R {
        let mut nodes = self.nodes.borrow_mut();
        let node = nodes.entry(node).or_insert_with(|| Node {
            generation: 0,
            disk: Rc::new(RefCell::new(DiskState::new())),
            home: Home::here(),
        });
        look(node)
    }

    pub(super) fn disk(&self, node: usize) -> Rc<RefCell<DiskState>> {
        self.with_node(node, |node| node.disk.clone())
    }

    pub(super) fn home(&self, node: usize) -> Arc<Home> {
        self.with_node(node, |node| node.home.clone())
    }

    pub(super) fn generation(&self, node: usize) -> u64 {
        self.with_node(node, |node| node.generation)
    }

    /// Lets something happen after `delay` nanoseconds.
    pub(super) fn schedule(&self, at: u64, event: Event) -> EventKey {
        let key = (at.max(self.now.get()), self.next_event.get());
        self.next_event.set(key.1 + 1);
        self.events.borrow_mut().insert(key, event);
        key
    }

    pub(super) fn unschedule(&self, key: EventKey) {
        let event = self.events.borrow_mut().remove(&key);
        drop(event);
    }

    pub(super) fn spawn(&self, node: usize, core: usize, future: TaskFuture) {
        let task = self.next_task.get();
        self.next_task.set(task + 1);
        self.note(4, task ^ ((core as u64) << 48) ^ ((node as u64) << 56));
        let waker = Waker::from(Arc::new(TaskWaker { task, wakes: self.wakes.clone() }));
        self.tasks.borrow_mut().insert(task, Task { node, future: Some(future), queued: true, waker });
        self.ready.borrow_mut().push(task);
    }

    /// Drops all tasks of a node and starts its next generation.
    pub(super) fn drop_tasks(&self, node: usize) {
        self.with_node(node, |node| node.generation += 1);
        let mut doomed: Vec<u64> =
            self.tasks.borrow().iter().filter(|(_, task)| task.node == node).map(|(id, _)| *id).collect();
        doomed.sort_unstable();
        for id in doomed {
            // A destructor may spawn, wake or close: nothing is borrowed while it runs.
            let task = self.tasks.borrow_mut().remove(&id);
            drop(task);
        }
    }

    /// Drops all tasks and events.
    pub(super) fn end(&self) {
        let nodes: Vec<usize> = self.nodes.borrow().keys().copied().collect();
        nodes.into_iter().for_each(|node| self.drop_tasks(node));
        let events = std::mem::take(&mut *self.events.borrow_mut());
        drop(events);
    }

    /// Runs one task, or lets time go on to the next event if it is due by `end`. False if there was nothing to do.
    pub(super) fn step(self: &Rc<Self>, end: Instant) -> bool {
        self.collect_wakes();
        if let Some(task) = self.pick() {
            self.poll(task);
            return true;
        }
        let event = {
            let mut events = self.events.borrow_mut();
            match events.first_key_value() {
                Some((key, _)) if key.0 <= end.0 => events.pop_first(),
                Some(_) | None => None,
            }
        };
        let Some(((at, _), event)) = event else { return false };
        self.advance_to(Instant(at));
        match event {
            Event::Wake(waker) => waker.wake(),
            Event::Call(call) => call(self),
        }
        true
    }

    fn collect_wakes(&self) {
        let woken = std::mem::take(&mut *self.wakes.lock().unwrap_or_else(PoisonError::into_inner));
        let mut tasks = self.tasks.borrow_mut();
        for id in woken {
            if let Some(task) = tasks.get_mut(&id)
                && !task.queued
            {
                task.queued = true;
                self.ready.borrow_mut().push(id);
            }
        }
    }

    /// The next task to run: any that is ready, by seed.
    fn pick(&self) -> Option<u64> {
        let mut ready = self.ready.borrow_mut();
        if ready.is_empty() {
            return None;
        }
        let index = if ready.len() == 1 { 0 } else { self.below(ready.len() as u64) };
        Some(ready.swap_remove(usize::try_from(index).expect("an index")))
    }

    fn poll(&self, id: u64) {
        let polled = self.tasks.borrow_mut().get_mut(&id).map(|task| {
            task.queued = false;
            (task.future.take().expect("a task is polled by one"), task.waker.clone())
        });
        let Some((mut future, waker)) = polled else { return };
        self.polls_now.set(self.polls_now.get() + 1);
        self.polls.set(self.polls.get() + 1);
        assert!(
            self.polls_now.get() < POLLS_PER_INSTANT_MAX,
            "tasks run without ever waiting (seed {}, task {id})",
            self.seed
        );
        self.note(5, id);
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            let task = self.tasks.borrow_mut().remove(&id);
            drop((task, future));
        } else if let Some(task) = self.tasks.borrow_mut().get_mut(&id) {
            task.future = Some(future);
        }
        // Otherwise the task has killed its own node, and its future ends here.
    }
}

/// Wakes the task that waits for a core's messages; the simulator's counterpart of an eventfd.
#[derive(Default)]
pub(in crate::io) struct SimBell {
    rung: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl SimBell {
    pub(in crate::io) fn ring(&self) {
        self.rung.store(true, Ordering::SeqCst);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(in crate::io) async fn wait(&self) {
        std::future::poll_fn(|context| {
            *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
            if self.rung.swap(false, Ordering::SeqCst) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }
}
