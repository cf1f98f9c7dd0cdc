//! One executor per core: its thread, its life from start to stop, in step with the other cores.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::Poll,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use glommio::{LocalExecutorBuilder, Placement, PoolPlacement, timer::Timer};
use tracing::{info, warn};

use super::{Identity, gate::Gate, settings::Machine, signals::Stop};
use crate::net::{
    Accepted, Acceptor, ConnectionLimits, Endpoint, Listener, Mailbox, NetCore, NetSettings, SWEEP_PERIOD, Service,
};

/// After a stop is asked for, requests in flight have so long to be answered.
const DRAIN_MAX: Duration = Duration::from_millis(500);

/// Threads for blocking calls of one executor (compression, directory operations).
const BLOCKING_THREADS: usize = 2;

/// Submission queue of each ring: 128, the default, ends a turn early when more completions are there at once.
const RING_DEPTH: usize = 1024;

/// What a core's world is told.
#[derive(Clone)]
pub struct CoreContext {
    /// Which core, from 0.
    pub core: usize,
    /// How many there are.
    pub cores: usize,
    /// Who this broker is.
    pub identity: Arc<Identity>,
    /// Raise it to stop the broker in order.
    pub stop: Stop,
}

/// The broker behind the sockets: recovers, serves, stops. One value is cloned to every core.
pub trait Shard: Clone + Send + 'static {
    /// Handles the core's requests.
    type Service: Service;
    /// Recovers and starts this core's part. All cores are in here at the same time.
    fn start(&self, context: &CoreContext) -> impl Future<Output = Result<Self::Service, String>>;
    /// Stops this core's part after the last connection of all cores is gone. All cores are in here at the same time.
    fn stop(&self, service: Self::Service) -> impl Future<Output = Result<(), String>>;
}

/// What the executors share.
#[derive(Clone)]
struct Shared {
    net: NetSettings,
    limits: Arc<ConnectionLimits>,
    mailboxes: Vec<Mailbox<Accepted>>,
    started: Gate,
    quiet: Gate,
    stopped: Gate,
}

/// Runs all executors until the broker has stopped.
/// # Errors  Why it could not start, or what failed while it stopped: one line.
pub(super) fn run<S: Shard>(
    machine: &Machine,
    identity: &Arc<Identity>,
    listeners: Vec<(Endpoint, Listener)>,
    shard: &S,
    stop: &Stop,
) -> Result<(), String> {
    let cores = machine.cores();
    let config = &identity.config;
    let shared = Shared {
        net: machine.net_settings(config),
        limits: ConnectionLimits::new(machine.connections_max(config), config.connections_per_ip_max as usize, cores),
        mailboxes: (0..cores).map(|_| Mailbox::default()).collect(),
        started: Gate::new(cores),
        quiet: Gate::new(cores),
        stopped: Gate::new(cores),
    };
    let mut listeners = Some(listeners);
    let threads: Vec<JoinHandle<Result<(), String>>> = (0..cores)
        .map(|core| {
            let context = CoreContext { core, cores, identity: identity.clone(), stop: stop.clone() };
            // The first core accepts for all of them.
            let listeners = listeners.take().unwrap_or_default();
            let (shared, shard, builder) = (shared.clone(), shard.clone(), builder(machine, core));
            thread::Builder::new()
                .name(format!("core-{core}"))
                .spawn(move || run_core(builder, context, shared, shard, listeners))
                .map_err(|error| {
                    let why = format!("no thread for core {core}: {error} (see ulimit -u)");
                    why
                })
        })
        .map(|thread| thread.inspect_err(|why| shared.started.fail(why.clone())))
        .collect::<Result<_, _>>()?;
    let results = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a core panicked".into())));
    // All are joined before the first failure is told.
    results.fold(Ok(()), |all, result| all.and(result))
}

fn builder(machine: &Machine, core: usize) -> LocalExecutorBuilder {
    let placement = machine.plan.0[core].map_or(Placement::Unbound, Placement::Fixed);
    LocalExecutorBuilder::new(placement)
        .name(&format!("core-{core}"))
        .io_memory(machine.io_memory)
        .ring_depth(RING_DEPTH)
        .blocking_thread_pool_placement(PoolPlacement::Unbound(BLOCKING_THREADS))
}

fn run_core<S: Shard>(
    builder: LocalExecutorBuilder,
    context: CoreContext,
    shared: Shared,
    shard: S,
    listeners: Vec<(Endpoint, Listener)>,
) -> Result<(), String> {
    match builder.make() {
        Ok(executor) => executor.run(live(context, shared, shard, listeners)),
        Err(error) => {
            let why = format!("core {} does not start: {error}", context.core);
            shared.started.fail(why.clone());
            Err(why)
        }
    }
}

/// A core's life: start, serve, stop, each step together with the others.
async fn live<S: Shard>(
    context: CoreContext,
    shared: Shared,
    shard: S,
    listeners: Vec<(Endpoint, Listener)>,
) -> Result<(), String> {
    let ladder = glommio::spawn_local(ladder());
    let began = shard.start(&context).await;
    let (service, result) = match began {
        Ok(service) => (Some(service), Ok(())),
        Err(why) => (None, Err(why)),
    };
    let passed = shared.started.pass(result).await;
    let Some(service) = service else { return passed };
    passed?;

    let net = NetCore::new(service.clone(), shared.net.clone());
    let sweeper = glommio::spawn_local(sweep(net.clone()));
    let receiver = glommio::spawn_local(receive(net.clone(), shared.mailboxes[context.core].clone()));
    let opened = open(&context, &shared, listeners);
    let opened = match opened {
        Ok(acceptors) => {
            context.stop.raised().await;
            for acceptor in acceptors {
                acceptor.stop().await;
            }
            Ok(())
        }
        Err(why) => {
            context.stop.raise();
            Err(why)
        }
    };
    drain(&net).await;
    receiver.cancel().await;
    sweeper.cancel().await;
    // No core stops its part while another still has requests for it.
    shared.quiet.pass(Ok(())).await?;
    let stopped = shard.stop(service).await;
    let stopped = shared.stopped.pass(stopped).await;
    ladder.cancel().await;
    opened.and(stopped)
}

/// Opens the listeners to clients, on the core that has them, and says so.
fn open(context: &CoreContext, shared: &Shared, listeners: Vec<(Endpoint, Listener)>) -> Result<Vec<Acceptor>, String> {
    let mut acceptors = Vec::new();
    let mut addresses = Vec::new();
    for (index, (endpoint, listener)) in listeners.into_iter().enumerate() {
        addresses.extend(listener.addresses().iter().map(ToString::to_string));
        let mailboxes = shared.mailboxes.clone();
        let deliver = move |accepted: Accepted| {
            mailboxes[accepted.core()].put(accepted);
            std::future::ready(())
        };
        let pause = || glommio_sleep(Duration::from_millis(100));
        let opened = listener.open(&endpoint).map_err(|error| error.to_string())?;
        acceptors.push(opened.accept(index, &shared.limits, deliver, pause));
    }
    if context.core == 0 {
        let identity = &context.identity;
        let id = identity.meta.node_id;
        // Tools that start Kafka in tests wait for these words.
        info!("[BrokerLifecycleManager id={id}] The broker has been unfenced. Transitioning from RECOVERY to RUNNING.");
        let told: Vec<String> = identity.advertised.iter().map(|told| format!("{}:{}", told.host, told.port)).collect();
        let started_ms = identity.began.elapsed().as_millis() as u64;
        info!(listening = addresses.join(","), started_ms, "ready: clients connect to {}", told.join(","));
    }
    Ok(acceptors)
}

async fn glommio_sleep(duration: Duration) {
    glommio::timer::sleep(duration).await;
}

async fn receive<S: Service>(net: std::rc::Rc<NetCore<S>>, mailbox: Mailbox<Accepted>) {
    loop {
        mailbox.take().await.into_iter().for_each(|accepted| net.take(accepted));
    }
}

async fn sweep<S: Service>(net: std::rc::Rc<NetCore<S>>) {
    let began = Instant::now();
    loop {
        glommio_sleep(SWEEP_PERIOD).await;
        net.sweep(began.elapsed());
    }
}

/// Answers what is in flight, then ends all connections.
async fn drain<S: Service>(net: &NetCore<S>) {
    let began = Instant::now();
    net.drain();
    while net.busy() > 0 && began.elapsed() < DRAIN_MAX {
        glommio_sleep(Duration::from_millis(5)).await;
    }
    if net.busy() > 0 {
        warn!(connections = net.busy(), "closing connections with requests that are not answered yet");
    }
    net.close();
    // Their tasks end at once, but for those that wait inside a request's first stage.
    while net.open() > 0 && began.elapsed() < 2 * DRAIN_MAX {
        glommio_sleep(Duration::from_millis(1)).await;
    }
}

/// Ends a sleep that glommio should not have begun: an executor that is descheduled at the wrong moment parks although
/// tasks can run, and only a timer that has not fired yet wakes it. One timer may have fired in the same gap, so there are
/// several, ever further away.
async fn ladder() {
    const RUNGS_MS: [u64; 6] = [100, 200, 640, 2560, 10_240, 40_960];
    loop {
        let mut timers: Vec<Timer> = RUNGS_MS.iter().map(|ms| Timer::new(Duration::from_millis(*ms))).collect();
        poll_fn(|context| {
            // Each is polled, since polling is what arms it.
            let fired =
                timers.iter_mut().filter_map(|timer| Pin::new(timer).poll(context).is_ready().then_some(())).count();
            if fired > 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}
