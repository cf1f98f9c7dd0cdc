//! All connections of one core, and the sweeper that ends those which nobody needs or for which there is no room.
//!
//! A client that does not read its replies is idle, no more: it is ended as idle ones are, after
//! `connections.max.idle.ms` without a byte in either direction. Sooner only if the broker's memory for replies is used up:
//! then whoever holds most of it goes first.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tracing::{debug, warn};

use super::{
    accept::Accepted,
    connection::Connection,
    mailbox::Mailbox,
    memory::{LargeRequests, Queued, RequestKind, RequestMemory},
    service::Service,
};
use crate::{
    base::{Map, Seldom},
    io::{Io, StreamOptions},
    metrics::{Counter, Gauge},
    shard::ReplyMemory,
};

/// How often connections are looked at. Time-outs are as exact as this.
pub(super) const SWEEP_PERIOD: Duration = Duration::from_secs(1);

/// After a stop is asked for, requests in flight have so long to be answered.
const DRAIN_MAX: Duration = Duration::from_millis(500);

/// After that, connections have so long to end.
const CLOSE_MAX: Duration = Duration::from_millis(250);

/// How often it is looked whether they have.
const DRAIN_STEP: Duration = Duration::from_millis(2);

/// Connections that were quiet for so long give their buffer back until something comes.
const BUFFER_IDLE_MAX: Duration = Duration::from_secs(5);

/// While others wait for request memory, who holds some must send at least so many bytes between two sweeps.
const PROGRESS_BYTES_MIN: u64 = 4096;

/// The number of sweeps with less progress that end the connection.
const SLOW_SWEEPS_MAX: u32 = 2;

/// The number of sweeps, or up to twice as many, for which somebody waits for request memory before those must go who have
/// held most of it for so long. Clients give up after 30 seconds (`request.timeout.ms`).
const PATIENCE_SWEEPS: u32 = 10;

/// What connections may do.
#[derive(Clone, Debug)]
pub struct NetSettings {
    /// `socket.request.max.bytes`.
    pub frame_bytes_max: usize,
    /// `connections.max.idle.ms`.
    pub idle_max: Duration,
    /// Memory for small requests of one core, in bytes.
    pub small_request_bytes: usize,
    /// Memory for large requests, of all cores together.
    pub large_requests: Arc<LargeRequests>,
    /// Memory for replies that are not read, of all cores together.
    pub replies: Arc<ReplyMemory>,
    /// Which core this is, in the budgets that it shares.
    pub core: usize,
    /// `socket.send.buffer.bytes` and `socket.receive.buffer.bytes`.
    pub stream: StreamOptions,
}

/// One core's connections.
pub struct NetCore<S> {
    service: S,
    settings: NetSettings,
    io: Io,
    memory: Rc<RequestMemory>,
    connections: RefCell<Map<u64, Watched>>,
    last_id: Cell<u64>,
    /// Time by the last sweep, since the first one.
    now: Cell<Duration>,
    /// Who was waiting for request memory, and how many sweeps ago.
    queued: Cell<(Queued, u32)>,
    draining: Cell<bool>,
    /// Lines about connections that were closed: for too large a request, for holding too much, for announcing what does
    /// not come.
    told_of_large: Seldom,
    told_of_holders: Seldom,
    told_of_stalled: Seldom,
    /// Carries a connection to the core that goes on with it.
    send: Box<dyn Fn(Accepted)>,
}

/// A connection and what the sweeper saw of it last.
struct Watched {
    connection: Rc<Connection>,
    received: u64,
    sent: u64,
    quiet_since: Duration,
    slow_sweeps: u32,
    /// [`Progress::requests`](super::connection::Progress::requests) then.
    requests: u64,
    /// Sweeps since which one request holds memory, but for those at which it waited for more.
    holding_sweeps: u32,
}

/// Why the sweeper ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Keep,
    Idle,
    Stalled,
}

impl<S: Service> NetCore<S> {
    /// A core without connections. `send` carries those that another core should serve to [`Accepted::core`].
    #[must_use]
    pub fn new(service: S, settings: NetSettings, io: &Io, send: impl Fn(Accepted) + 'static) -> Rc<Self> {
        let memory = RequestMemory::new(settings.small_request_bytes, settings.large_requests.clone());
        settings.replies.count_on_the_way(settings.core, io.spawner.on_the_way());
        Rc::new(Self {
            service,
            settings,
            io: io.clone(),
            memory,
            connections: RefCell::default(),
            last_id: Cell::new(0),
            now: Cell::default(),
            queued: Cell::default(),
            draining: Cell::new(false),
            told_of_large: Seldom::default(),
            told_of_holders: Seldom::default(),
            told_of_stalled: Seldom::default(),
            send: Box::new(send),
        })
    }

    /// Serves a connection from now on. Must be called on the core that the connection is for.
    pub fn take(self: &Rc<Self>, accepted: Accepted) {
        if self.draining.get() {
            return;
        }
        let core = self.clone();
        self.io.spawner.spawn(async move { core.serve(accepted).await });
    }

    async fn serve(&self, accepted: Accepted) {
        let Accepted { stream, peer, ticket, received } = accepted;
        let client = peer.address;
        let stream = stream.attach(&self.io);
        if let Err(error) = stream.configure(&self.settings.stream) {
            debug!(%client, %error, "connection lost at once");
            return;
        }
        let id = self.last_id.get() + 1;
        self.last_id.set(id);
        let (clock, metrics) = (self.io.clock.clone(), self.io.metrics.clone());
        metrics.count(Counter::ConnectionsOpened);
        let open = metrics.raised(Gauge::Connections);
        let connection = Connection::new(stream, peer, ticket, clock, metrics, &self.settings.replies);
        let watched = Watched {
            connection: connection.clone(),
            received: 0,
            sent: 0,
            quiet_since: self.now.get(),
            slow_sweeps: 0,
            requests: 0,
            holding_sweeps: 0,
        };
        self.connections.borrow_mut().insert(id, watched);
        let told_of_large = || self.told_of_large.due(self.now.get());
        let frame_bytes_max = self.settings.frame_bytes_max;
        let (spawner, service, memory) = (&self.io.spawner, &self.service, &self.memory);
        let leaves = connection.serve(spawner, service, memory, frame_bytes_max, &received, &told_of_large).await;
        self.connections.borrow_mut().remove(&id);
        drop(open);
        self.io.metrics.count(if leaves.is_some() { Counter::ConnectionsMoved } else { connection.ended() });
        // Closed here before another core has it, as far as this one's descriptor goes.
        drop(connection);
        if let Some(accepted) = leaves {
            (self.send)(accepted);
        }
    }

    /// Serves the connections that come for this core, for ever.
    pub async fn receive(self: Rc<Self>, mailbox: Mailbox<Accepted>) {
        loop {
            mailbox.take().await.into_iter().for_each(|accepted| self.take(accepted));
        }
    }

    /// Looks at every connection each [`SWEEP_PERIOD`], for ever, and does what is to be `done` as often.
    pub async fn sweep_on(self: Rc<Self>, done: impl Fn()) {
        let clock = &self.io.clock;
        let began = clock.now();
        loop {
            clock.sleep(SWEEP_PERIOD).await;
            self.sweep(clock.now().since(began));
            done();
        }
    }

    /// Answers what is in flight, then ends all connections.
    pub async fn end_all(&self) {
        self.drain();
        self.wait_while(DRAIN_MAX, || self.busy() > 0).await;
        if self.busy() > 0 {
            warn!(connections = self.busy(), "closing connections with requests that are not answered yet");
        }
        self.close();
        // Their tasks end at once, but for those that wait inside a request's first stage.
        self.wait_while(CLOSE_MAX, || self.open() > 0).await;
    }

    async fn wait_while(&self, at_most: Duration, mut holds: impl FnMut() -> bool) {
        let clock = &self.io.clock;
        let began = clock.now();
        while holds() && clock.now().since(began) < at_most {
            clock.sleep(DRAIN_STEP).await;
        }
    }

    /// Looks at every connection; to be called each [`SWEEP_PERIOD`] with the time since the first call.
    pub fn sweep(&self, now: Duration) {
        self.now.set(now);
        let mut connections = self.connections.borrow_mut();
        let (idle_max, contended) = (self.settings.idle_max, self.memory.contended());
        for watched in connections.values_mut() {
            let client = watched.connection.peer.address;
            match watched.judge(now, idle_max, contended) {
                Verdict::Keep => continue,
                Verdict::Idle => {
                    watched.connection.ends(Counter::ClosedIdle);
                    debug!(%client, "connection closed: idle for connections.max.idle.ms");
                }
                Verdict::Stalled => {
                    watched.connection.ends(Counter::ClosedForMemory);
                    if let Some(left_out) = self.told_of_stalled.due(now) {
                        warn!(
                            %client, left_out,
                            "connection closed: it announced a request that does not come, and others wait for the memory"
                        );
                    }
                }
            }
            watched.connection.close();
        }
        self.make_room_for_requests(&connections, now);
        self.make_room_for_replies(&connections, now);
    }

    /// Ends those who have held most of the request memory for as long as others have been waiting for it: however steadily
    /// the bytes of a request trickle, and whatever a request waits for that is its client's own to bring about.
    fn make_room_for_requests(&self, connections: &Map<u64, Watched>, now: Duration) {
        let (queued, sweeps) = self.queued.get();
        if sweeps < PATIENCE_SWEEPS {
            return self.queued.set((queued, sweeps + 1));
        }
        self.queued.set((self.memory.queued(), 1));
        for kind in [RequestKind::Small, RequestKind::Large] {
            if !self.memory.waits_since(queued, kind) {
                continue;
            }
            let held = |watched: &Watched| watched.connection.progress.held_bytes(kind);
            let holders = || connections.values().filter(|it| it.holding_sweeps >= PATIENCE_SWEEPS && held(it) > 0);
            let largest = holders().map(held).max().unwrap_or_default();
            // Who holds much less than others is not whom the others wait for.
            for watched in holders().filter(|it| 2 * held(it) >= largest) {
                watched.connection.ends(Counter::ClosedForMemory);
                if let Some(left_out) = self.told_of_stalled.due(now) {
                    warn!(
                        client = %watched.connection.peer.address, held = held(watched), left_out,
                        "connection closed: its request has held memory for long that others wait for"
                    );
                }
                watched.connection.close();
            }
        }
    }

    /// Ends the connections that hold most of the replies' memory while it is exceeded.
    fn make_room_for_replies(&self, connections: &Map<u64, Watched>, now: Duration) {
        let replies = &self.settings.replies;
        let mut holders: Vec<(usize, &Connection)> = if replies.is_tight() {
            let unread = connections.values().map(|watched| &*watched.connection);
            unread.filter(|it| it.unsent_bytes() > 0).map(|it| (it.held_bytes(), it)).collect()
        } else {
            Vec::new()
        };
        holders.sort_by_key(|(held, _)| *held);
        loop {
            let largest = holders.last().map_or(0, |(held, _)| *held);
            // Said in any case, so that the other cores know.
            let Some(leaving) = replies.close_largest(self.settings.core, largest) else { break };
            if let Some((held, connection)) = holders.pop() {
                connection.ends(Counter::ClosedForMemory);
                if let Some(left_out) = self.told_of_holders.due(now) {
                    warn!(
                        client = %connection.peer.address, held, left_out,
                        "connection closed: unread replies use up their memory, and this client holds most of it (see --memory)"
                    );
                }
                connection.leave_for_others(leaving);
            }
        }
    }

    /// Takes no further requests; those in flight are answered.
    pub fn drain(&self) {
        self.draining.set(true);
        for watched in self.connections.borrow().values() {
            watched.connection.ends(Counter::ClosedByStop);
            watched.connection.drain();
        }
    }

    /// Ends whatever is still open.
    pub fn close(&self) {
        self.connections.borrow().values().for_each(|watched| watched.connection.close());
    }

    /// Connections that are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.connections.borrow().len()
    }

    /// Connections with requests in flight or replies unsent.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.connections.borrow().values().filter(|watched| watched.connection.is_busy()).count()
    }
}

impl Watched {
    fn judge(&mut self, now: Duration, idle_max: Duration, memory_contended: bool) -> Verdict {
        let progress = &self.connection.progress;
        let received = progress.received.get() - self.received;
        let sent = progress.sent.get() - self.sent;
        self.received += received;
        self.sent += sent;
        if received + sent > 0 {
            self.quiet_since = now;
        }
        let holds = [RequestKind::Small, RequestKind::Large].iter().any(|kind| progress.held_bytes(*kind) > 0);
        if !holds || progress.requests.get() != self.requests {
            self.holding_sweeps = 0;
        } else if !progress.waits_for_memory.get() {
            self.holding_sweeps += 1;
        }
        self.requests = progress.requests.get();
        let stalls = progress.arriving_bytes.get() > 0 && !progress.waits_for_memory.get();
        let slow = stalls && memory_contended && received < PROGRESS_BYTES_MIN;
        self.slow_sweeps = if slow { self.slow_sweeps + 1 } else { 0 };
        let quiet = now.saturating_sub(self.quiet_since);

        if self.slow_sweeps >= SLOW_SWEEPS_MAX {
            Verdict::Stalled
        } else if quiet >= idle_max {
            Verdict::Idle
        } else {
            if quiet >= BUFFER_IDLE_MAX {
                self.connection.give_buffer_back();
            }
            Verdict::Keep
        }
    }
}
