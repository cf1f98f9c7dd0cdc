//! The executors: each core's life from start to stop, in step with the other cores.

use std::{
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tracing::info;

use super::{
    BrokerIdentity,
    gate::Gate,
    settings::{self, Machine},
    signals::Stop,
};
use crate::{
    api::ListenerKind,
    io::{Io, StoppableTask, StreamOptions, glommio as backend},
    net::{
        Accepted, Acceptor, BoundListener, ConnectionLimits, Endpoint, LargeRequests, Mailbox, NetCore, NetSettings,
        Service,
    },
    shard::{Bounds, ReplyMemory},
};

/// Connections of the controllers' listeners: some from each other broker. They are the first core's, and beside those that
/// clients may have, so that no number of clients keeps the cluster's nodes from each other.
const CONTROLLER_CONNECTIONS_MAX: usize = 128;

/// The listeners, bound. The first core has them; they are opened to controllers as soon as all cores have started, and to clients
/// when the broker serves.
#[derive(Default)]
pub(super) struct Listeners {
    pub(super) clients: Vec<(Endpoint, BoundListener)>,
    pub(super) controllers: Vec<(Endpoint, BoundListener)>,
}

/// What a core's world is told.
#[derive(Clone)]
pub struct CoreContext {
    /// The core's doors.
    pub io: Io,
    /// Which core, from 0.
    pub core: usize,
    /// How many there are.
    pub cores: usize,
    /// Who this broker is.
    pub identity: Arc<BrokerIdentity>,
    /// Raise it to stop the broker in order.
    pub stop: Stop,
    /// The broker's memory for replies that are not read.
    pub replies: Arc<ReplyMemory>,
    /// What the process can do at most.
    pub bounds: Bounds,
}

/// The broker behind the sockets: recovers, serves, stops. One value is cloned to every core, and every core is in the
/// same step.
pub trait Shard: Clone + Send + 'static {
    /// Handles the core's requests.
    type Service: Service;
    /// What a stopped core leaves for the last step.
    type Stopped: Send + 'static;

    /// Recovers and starts this core's part.
    fn start(&self, context: &CoreContext) -> impl Future<Output = Result<Self::Service, String>>;
    /// What needs all cores to run, and may need the other nodes; controllers come before it, clients after it. Must end soon
    /// after the stop is raised.
    fn announce(&self, context: &CoreContext, service: &Self::Service) -> impl Future<Output = Result<(), String>>;
    /// Gives away what only one node of a cluster can have, when the stop is asked for and clients are still served. Ends soon,
    /// whatever the other nodes do.
    fn leave(&self, _service: &Self::Service) -> impl Future<Output = ()> {
        std::future::ready(())
    }
    /// Stops this core's part, after the last connection of all cores is gone.
    fn stop(&self, service: Self::Service) -> impl Future<Output = Result<Self::Stopped, String>>;
    /// `max.connections` and `max.connections.per.ip` as they are now; none: as they were at the start.
    fn connection_limits(&self, _service: &Self::Service) -> Option<(usize, usize)> {
        None
    }
    /// The last step of an orderly stop, on the first core alone, given what every core has left, in order.
    fn finish(&self, context: &CoreContext, stopped: Vec<Self::Stopped>) -> impl Future<Output = Result<(), String>>;
}

/// What stopped cores have left, by core.
type Left<T> = Arc<Mutex<Vec<(usize, T)>>>;

/// What the executors share.
struct Shared<S: Shard> {
    shard: S,
    net: NetSettings,
    limits: Arc<ConnectionLimits>,
    controller_limits: Arc<ConnectionLimits>,
    bounds: Bounds,
    mailboxes: Vec<Mailbox<Accepted>>,
    started: Gate,
    announced: Gate,
    given_away: Gate,
    quiet: Gate,
    stopped: Gate,
    left: Left<S::Stopped>,
}

impl<S: Shard> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Self {
            shard: self.shard.clone(),
            net: self.net.clone(),
            limits: self.limits.clone(),
            controller_limits: self.controller_limits.clone(),
            bounds: self.bounds,
            mailboxes: self.mailboxes.clone(),
            started: self.started.clone(),
            announced: self.announced.clone(),
            given_away: self.given_away.clone(),
            quiet: self.quiet.clone(),
            stopped: self.stopped.clone(),
            left: self.left.clone(),
        }
    }
}

/// Runs all executors until the broker has stopped.
/// # Errors  Why it could not start, or what failed while it stopped: one line.
pub(super) fn run<S: Shard>(
    machine: &Machine,
    identity: &Arc<BrokerIdentity>,
    listeners: Listeners,
    shard: &S,
    stop: &Stop,
) -> Result<(), String> {
    let cores = machine.cores();
    let config = &identity.config;
    let budget = machine.budget();
    let frame_bytes_max = usize::try_from(config.network.request_max_bytes).unwrap_or(0);
    let large_requests = LargeRequests::new(budget.large_request_bytes, frame_bytes_max);
    let replies = ReplyMemory::new(cores, budget.reply_bytes, budget.reply_pressed_bytes);
    let bounds =
        Bounds { connections_max: budget.connections_max, request_bytes_max: large_requests.frame_bytes_max() };
    settings::log_bounds(config, machine.memory_bytes, &bounds, &budget);
    let shared = Shared {
        shard: shard.clone(),
        net: NetSettings {
            frame_bytes_max,
            idle_max: config.network.idle_max_ms.map_or(Duration::MAX, Duration::from_millis),
            small_request_bytes: budget.small_request_bytes / cores,
            large_requests,
            replies: replies.clone(),
            core: 0,
            stream: StreamOptions::default(),
        },
        limits: ConnectionLimits::new(
            bounds.connections_max.min(config.network.connections_max as usize),
            config.network.connections_per_ip_max as usize,
            cores,
        ),
        controller_limits: ConnectionLimits::new(CONTROLLER_CONNECTIONS_MAX, CONTROLLER_CONNECTIONS_MAX, 1),
        bounds,
        mailboxes: (0..cores).map(|_| Mailbox::default()).collect(),
        started: Gate::new(cores),
        announced: Gate::new(cores),
        given_away: Gate::new(cores),
        quiet: Gate::new(cores),
        stopped: Gate::new(cores),
        left: Arc::default(),
    };
    // The first core accepts for all of them.
    let listeners = Mutex::new(Some(listeners));
    let body = |core| {
        let listeners = listeners.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
        let (identity, stop, mut shared) = (identity.clone(), stop.clone(), shared.clone());
        shared.net.core = core;
        let (replies, bounds) = (replies.clone(), shared.bounds);
        move |io| live(CoreContext { io, core, cores, identity, stop, replies, bounds }, shared, listeners)
    };
    let executors =
        backend::start(&machine.plan.0, machine.io_memory, machine.door, body).map_err(|error| error.to_string())?;
    // All are joined before the first failure is told.
    let mut ended = executors.join().into_iter();
    ended.try_for_each(|ended| ended.map_err(|error| error.to_string()).and_then(|result| result))
}

/// A core's life: start, serve, stop, each step together with the others.
async fn live<S: Shard>(context: CoreContext, shared: Shared<S>, listeners: Listeners) -> Result<(), String> {
    let Listeners { clients, controllers } = listeners;
    let service = together(&shared.started, shared.shard.start(&context).await).await?;
    let mut serving = Serving::begin(&context, &shared, service.clone());
    let opened = serving.open(&context, &shared, ListenerKind::Controllers, controllers);
    let announced = match opened {
        Ok(_) => shared.shard.announce(&context, &service).await,
        Err(why) => Err(why),
    };
    if let Err(why) = together(&shared.announced, announced).await {
        serving.end().await;
        return Err(why);
    }
    // A start that was stopped while it waited serves nobody.
    let stopped = context.stop.is_raised();
    let clients = if stopped { Vec::new() } else { clients };
    let opened = serving.open(&context, &shared, ListenerKind::Clients, clients);
    let served = match opened {
        Ok(addresses) => {
            if context.core == 0 && !stopped {
                say_ready(&context.identity, &addresses);
            }
            Ok(())
        }
        Err(why) => {
            context.stop.raise();
            Err(why)
        }
    };
    context.stop.raised().await;
    if !stopped {
        shared.shard.leave(&service).await;
    }
    // No core ends its connections while another still has something to give away.
    shared.given_away.pass(Ok(())).await?;
    serving.end().await;
    // No core stops its part while another still has requests for it.
    shared.quiet.pass(Ok(())).await?;
    let left = together(&shared.stopped, store(&context, &shared, service).await).await;
    let finished = match left {
        Ok(()) if context.core == 0 => {
            let mut left = std::mem::take(&mut *shared.left.lock().unwrap_or_else(PoisonError::into_inner));
            left.sort_by_key(|(core, _)| *core);
            shared.shard.finish(&context, left.into_iter().map(|(_, stopped)| stopped).collect()).await
        }
        result => result,
    };
    served.and(finished)
}

/// Passes a gate with the outcome of a step.
async fn together<T>(gate: &Gate, outcome: Result<T, String>) -> Result<T, String> {
    match outcome {
        Ok(value) => gate.pass(Ok(())).await.map(|()| value),
        Err(why) => {
            gate.fail(why.clone());
            Err(why)
        }
    }
}

async fn store<S: Shard>(context: &CoreContext, shared: &Shared<S>, service: S::Service) -> Result<(), String> {
    let stopped = shared.shard.stop(service).await?;
    shared.left.lock().unwrap_or_else(PoisonError::into_inner).push((context.core, stopped));
    Ok(())
}

/// A core's connections, from when it has started until the last of them is gone.
struct Serving<S: Service> {
    net: Rc<NetCore<S>>,
    sweeper: StoppableTask,
    receiver: StoppableTask,
    acceptors: Vec<Acceptor>,
}

impl<S: Service> Serving<S> {
    fn begin<T: Shard<Service = S>>(context: &CoreContext, shared: &Shared<T>, service: S) -> Self {
        let net = NetCore::new(service.clone(), shared.net.clone(), &context.io, deliver(shared));
        // The first core accepts, so it is the one that looks whether the limits were changed.
        let (shared_limits, first) = (shared.clone(), context.core == 0);
        let adapt = move || match shared_limits.shard.connection_limits(&service) {
            Some((in_all, per_address)) if first => {
                shared_limits.limits.set(in_all.min(shared_limits.bounds.connections_max), per_address);
            }
            Some(_) | None => (),
        };
        let spawner = &context.io.spawner;
        let sweeper = spawner.spawn_stoppable(net.clone().sweep_on(adapt));
        let receiver = spawner.spawn_stoppable(net.clone().receive(shared.mailboxes[context.core].clone()));
        Self { net, sweeper, receiver, acceptors: Vec::new() }
    }

    /// Opens listeners, on the core that has them. Gives their addresses.
    fn open<T: Shard<Service = S>>(
        &mut self,
        context: &CoreContext,
        shared: &Shared<T>,
        kind: ListenerKind,
        listeners: Vec<(Endpoint, BoundListener)>,
    ) -> Result<Vec<String>, String> {
        let limits = match kind {
            ListenerKind::Clients => &shared.limits,
            ListenerKind::Controllers => &shared.controller_limits,
        };
        let mut addresses = Vec::new();
        for (index, (endpoint, listener)) in listeners.into_iter().enumerate() {
            addresses.extend(listener.addresses().iter().map(ToString::to_string));
            let opened = listener.open(&endpoint).map_err(|error| error.to_string())?;
            self.acceptors.push(opened.accept(kind, index, limits, &context.io, deliver(shared)));
        }
        Ok(addresses)
    }

    /// Accepts nobody, answers what is in flight, and ends all connections.
    async fn end(self) {
        for acceptor in self.acceptors {
            acceptor.stop().await;
        }
        self.receiver.stop().await;
        self.net.end_all().await;
        self.sweeper.stop().await;
    }
}

/// Carries connections to their cores.
fn deliver<S: Shard>(shared: &Shared<S>) -> impl Fn(Accepted) + Clone + 'static {
    let mailboxes = shared.mailboxes.clone();
    move |accepted| mailboxes[accepted.core()].put(accepted)
}

fn say_ready(identity: &BrokerIdentity, addresses: &[String]) {
    let id = identity.meta.node_id;
    // Tools that start Kafka in tests wait for these words.
    info!("[BrokerLifecycleManager id={id}] The broker has been unfenced. Transitioning from RECOVERY to RUNNING.");
    let told: Vec<String> = identity.advertised.iter().map(|told| format!("{}:{}", told.host, told.port)).collect();
    let started_ms = identity.began.elapsed().as_millis() as u64;
    info!(listening = addresses.join(","), started_ms, "ready: clients connect to {}", told.join(","));
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        io::{Read, Write},
        net::{SocketAddr, TcpStream},
        path::PathBuf,
        rc::Rc,
        sync::atomic::{AtomicBool, AtomicU64, Ordering},
        thread,
        time::Instant,
    };

    use bytes::Bytes;

    use super::*;
    use crate::{
        log::directory::MetaProperties,
        metrics::{Counter, Gauge, Metrics},
        net::{Host, Outcome, Peer, Pending},
        server::{cores::CorePlan, load_config},
    };

    /// Echoes frames, and notes when each core starts and stops.
    #[derive(Clone, Default)]
    struct Echo {
        noted: Arc<Mutex<Vec<String>>>,
        /// The core that cannot start.
        broken: Option<usize>,
        /// Connections that went on with another core, in all.
        moved: Arc<AtomicU64>,
        /// The start waits, as for other nodes.
        waits: Arc<AtomicBool>,
        /// The stop waits on the first core, as for other nodes.
        leaves: Arc<AtomicBool>,
    }

    #[derive(Clone)]
    struct EchoCore(Rc<usize>, Rc<Metrics>, Io);

    /// So many requests on one core.
    const MOVED_AFTER: u32 = 5;

    impl Shard for Echo {
        type Service = EchoCore;
        type Stopped = usize;

        async fn start(&self, context: &CoreContext) -> Result<EchoCore, String> {
            self.note(format!("start {}", context.core));
            if self.broken == Some(context.core) {
                Err("no disk".into())
            } else {
                Ok(EchoCore(Rc::new(context.core), context.io.metrics.clone(), context.io.clone()))
            }
        }

        async fn announce(&self, context: &CoreContext, _: &EchoCore) -> Result<(), String> {
            // Only after every core has started.
            let started = self.noted().iter().filter(|note| note.starts_with("start")).count();
            assert_eq!(started, context.cores);
            while self.waits.load(Ordering::Relaxed) && !context.stop.is_raised() {
                context.io.clock.sleep(Duration::from_millis(1)).await;
            }
            Ok(())
        }

        async fn leave(&self, service: &EchoCore) {
            if *service.0 > 0 || !self.leaves.load(Ordering::Relaxed) {
                return;
            }
            self.note("leaves".into());
            while self.leaves.load(Ordering::Relaxed) {
                service.2.clock.sleep(Duration::from_millis(1)).await;
            }
        }

        async fn stop(&self, service: EchoCore) -> Result<usize, String> {
            let counted = service.1.snapshot();
            self.moved.fetch_add(counted.counter(Counter::ConnectionsMoved), Ordering::Relaxed);
            assert_eq!(counted.gauge(Gauge::Connections), 0);
            Ok(*service.0)
        }

        async fn finish(&self, context: &CoreContext, stopped: Vec<usize>) -> Result<(), String> {
            self.note(format!("stopped {stopped:?} on {}", context.core));
            Ok(())
        }
    }

    impl Echo {
        fn note(&self, what: String) {
            self.noted.lock().expect("nobody panics").push(what);
        }

        fn noted(&self) -> Vec<String> {
            let mut noted = self.noted.lock().expect("nobody panics").clone();
            noted.sort();
            noted
        }
    }

    impl Service for EchoCore {
        /// How many requests there were.
        type Client = Cell<u32>;

        fn client(&self, _: &Peer) -> Cell<u32> {
            Cell::new(0)
        }

        fn pipelines(&self, _: &[u8]) -> bool {
            false
        }

        fn memory_estimate(&self, _: &[u8], frame_bytes: usize) -> usize {
            frame_bytes
        }

        fn better_core(&self, requests: &Cell<u32>) -> Option<usize> {
            (requests.get() == MOVED_AFTER).then_some((*self.0 + 1) % 3)
        }

        /// Answers with the number of the core, and the frame.
        async fn handle(&self, requests: &Cell<u32>, frame: Bytes) -> Pending {
            requests.set(requests.get() + 1);
            let core = *self.0 as u8;
            let length = frame.len() as i32 + 1;
            Box::pin(async move {
                let head = [&length.to_be_bytes()[..], &[core]].concat();
                Outcome::Reply(vec![head.into(), frame.into()], Duration::ZERO)
            })
        }
    }

    /// The client is told where clients connect, and where controllers do.
    fn run_echo(
        cores: usize,
        shard: &Echo,
        client: impl FnOnce([SocketAddr; 2]) + Send + 'static,
    ) -> Result<(), String> {
        let bound = || {
            let endpoint = Endpoint { host: Host::Loopback, port: 0 };
            let listener = BoundListener::bind(&endpoint).unwrap();
            (listener.addresses()[0], vec![(endpoint, listener)])
        };
        let ((address, clients), (of_controllers, controllers)) = (bound(), bound());
        let listeners = Listeners { clients, controllers };
        let id = String::new;
        let identity = BrokerIdentity {
            config: load_config(None, &[]).unwrap().config,
            data_dir: PathBuf::new(),
            meta: MetaProperties { cluster_id: id(), node_id: 1, directory_id: id() },
            advertised: Vec::new(),
            memory_bytes: 256 << 20,
            segment_files_max: 256,
            began: Instant::now(),
        };
        let machine = Machine {
            plan: CorePlan(vec![None; cores]),
            memory_bytes: 256 << 20,
            io_memory: 64 << 10,
            open_files: 1024,
            door: backend::Door::Ring,
        };
        let stop = Stop::default();
        let client = {
            let stop = stop.clone();
            thread::spawn(move || {
                client([address, of_controllers]);
                stop.raise();
            })
        };
        let result = run(&machine, &Arc::new(identity), listeners, shard, &stop);
        client.join().expect("the client is content");
        result
    }

    fn connect(address: SocketAddr) -> TcpStream {
        loop {
            if let Ok(stream) = TcpStream::connect(address) {
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                return stream;
            }
            // Not open yet.
            thread::yield_now();
        }
    }

    fn ask(stream: &mut TcpStream) -> u8 {
        stream.write_all(b"\0\0\0\x0cwhich core ?").unwrap();
        let mut answer = [0; 17];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer[5..], b"which core ?");
        answer[4]
    }

    #[test]
    fn connections_spread_over_the_cores_and_a_stop_is_orderly() {
        let shard = Echo::default();
        let result = run_echo(3, &shard, |[address, _]| {
            let mut clients: Vec<TcpStream> = (0..6).map(|_| connect(address)).collect();
            let mut answers: Vec<u8> = clients.iter_mut().map(ask).collect();
            answers.sort_unstable();
            assert_eq!(answers, [0, 0, 1, 1, 2, 2]);
        });
        assert_eq!(result, Ok(()));
        assert_eq!(shard.noted(), ["start 0", "start 1", "start 2", "stopped [0, 1, 2] on 0"]);
    }

    #[test]
    fn a_connection_moves_from_core_to_core_and_its_requests_keep_their_order() {
        let shard = Echo::default();
        let result = run_echo(3, &shard, |[address, _]| {
            let mut client = connect(address);
            // All are sent before the first answer is read: what has arrived with a request that is not begun moves too.
            let requests = 4 * MOVED_AFTER;
            let frames: Vec<u8> =
                (0..requests).flat_map(|number| [8, 0, number].map(u32::to_be_bytes).concat()).collect();
            client.write_all(&frames).unwrap();
            for number in 0..requests {
                let mut answer = [0; 13];
                client.read_exact(&mut answer).unwrap();
                let core = (number / MOVED_AFTER % 3) as u8;
                assert_eq!((answer[4], &answer[9..]), (core, &number.to_be_bytes()[..]), "request {number}");
            }
            // One that waits for its answers, likewise.
            let mut client = connect(address);
            let cores: Vec<u8> = (0..requests).map(|_| ask(&mut client)).collect();
            let first = u32::from(cores[0]);
            let moved = (0..requests).map(|number| ((first + number / MOVED_AFTER) % 3) as u8);
            assert_eq!(cores, moved.collect::<Vec<_>>());
        });
        assert_eq!(result, Ok(()));
        // Twice three times: after each five requests but the last.
        assert_eq!(shard.moved.load(Ordering::Relaxed), 2 * 3);
    }

    #[test]
    fn a_start_that_waits_serves_controllers_alone() {
        let shard = Echo { waits: Arc::new(true.into()), ..Echo::default() };
        let waits = shard.waits.clone();
        let result = run_echo(3, &shard, move |[address, of_controllers]| {
            let mut controllers: Vec<TcpStream> = (0..4).map(|_| connect(of_controllers)).collect();
            assert_eq!(controllers.iter_mut().map(ask).collect::<Vec<_>>(), [0; 4], "all on the first core");
            assert!(TcpStream::connect(address).is_err(), "clients have to wait");
            waits.store(false, Ordering::Relaxed);
            ask(&mut connect(address));
            controllers.iter_mut().for_each(|controller| assert_eq!(ask(controller), 0));
        });
        assert_eq!(result, Ok(()));
    }

    #[test]
    fn a_start_that_waits_can_be_stopped() {
        let shard = Echo { waits: Arc::new(true.into()), ..Echo::default() };
        let result = run_echo(2, &shard, |[_, of_controllers]| {
            ask(&mut connect(of_controllers));
        });
        assert_eq!(result, Ok(()));
        assert_eq!(shard.noted(), ["start 0", "start 1", "stopped [0, 1] on 0"]);
    }

    #[test]
    fn clients_of_all_cores_are_served_until_everything_is_given_away() {
        let shard = Echo { leaves: Arc::new(true.into()), ..Echo::default() };
        let (noted, leaves) = (shard.clone(), shard.leaves.clone());
        let (tell, told) = std::sync::mpsc::channel();
        let result = run_echo(3, &shard, move |[address, _]| {
            let mut clients: Vec<TcpStream> = (0..3).map(|_| connect(address)).collect();
            // Goes on when the stop has been asked for, which is when this returns.
            thread::spawn(move || {
                while !noted.noted().contains(&"leaves".to_owned()) {
                    thread::yield_now();
                }
                let asked = thread::spawn(move || clients.iter_mut().map(ask).sum::<u8>());
                tell.send(asked.join().ok()).expect("the test waits");
                leaves.store(false, Ordering::Relaxed);
            });
        });
        assert_eq!(result, Ok(()));
        assert_eq!(told.recv(), Ok(Some(3)), "one on each core");
    }

    #[test]
    fn one_core_that_cannot_start_keeps_the_broker_from_starting() {
        let shard = Echo { broken: Some(1), ..Echo::default() };
        let result = run_echo(2, &shard, |_| {});
        assert_eq!(result, Err("no disk".into()));
        assert_eq!(shard.noted(), ["start 0", "start 1"], "nothing that was not served is stopped");
    }
}
