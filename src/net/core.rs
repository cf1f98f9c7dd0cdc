//! All connections of one core, and the sweeper that ends those which cost others something or nobody needs.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use tracing::{debug, info};

use super::{connection::Connection, listener::Accepted, memory::RequestMemory, service::Service, socket};
use crate::{base::Map, io::Clock};

/// How often connections are looked at. Time-outs are as exact as this.
pub const SWEEP_PERIOD: Duration = Duration::from_secs(1);

/// A client that leaves its replies unread for so long is gone or means harm.
const UNREAD_MAX: Duration = Duration::from_secs(30);

/// The same, when the replies of all connections together hold more memory than they should.
const UNREAD_CONTENDED_MAX: Duration = Duration::from_secs(2);

/// While others wait for request memory, who holds some must send at least so many bytes between two sweeps.
const PROGRESS_BYTES_MIN: u64 = 4096;

/// So many sweeps with less progress end the connection.
const SLOW_SWEEPS_MAX: u32 = 2;

/// What connections may do.
#[derive(Clone, Debug)]
pub struct NetSettings {
    /// `socket.request.max.bytes`.
    pub frame_bytes_max: usize,
    /// `connections.max.idle.ms`.
    pub idle_max: Duration,
    /// Memory for requests of one core, in bytes.
    pub request_bytes: usize,
    /// Reply bytes of one core that may lie unsent before slow readers are closed sooner.
    pub unsent_bytes: usize,
    /// `socket.send.buffer.bytes`; `None` leaves it to the kernel, which adapts it to the connection.
    pub send_buffer_bytes: Option<i32>,
    /// `socket.receive.buffer.bytes`; likewise.
    pub receive_buffer_bytes: Option<i32>,
}

/// One core's connections.
pub struct NetCore<S> {
    service: S,
    settings: NetSettings,
    clock: Clock,
    memory: Rc<RequestMemory>,
    connections: RefCell<Map<u64, Watched>>,
    last_id: Cell<u64>,
    /// Time by the last sweep, since the first one.
    now: Cell<Duration>,
    draining: Cell<bool>,
    /// Carries a connection to the core that goes on with it.
    send: Box<dyn Fn(Accepted)>,
}

/// A connection and what the sweeper saw of it last.
struct Watched {
    connection: Rc<Connection>,
    received: u64,
    sent: u64,
    quiet_since: Duration,
    unread_since: Option<Duration>,
    slow_sweeps: u32,
}

/// Why the sweeper ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Keep,
    Idle,
    Unread,
    Stalled,
}

impl<S: Service> NetCore<S> {
    /// A core without connections. `send` carries those that another core should serve to [`Accepted::core`].
    #[must_use]
    pub fn new(service: S, settings: NetSettings, clock: Clock, send: impl Fn(Accepted) + 'static) -> Rc<Self> {
        let memory = RequestMemory::new(settings.request_bytes, settings.frame_bytes_max);
        Rc::new(Self {
            service,
            settings,
            clock,
            memory,
            connections: RefCell::default(),
            last_id: Cell::new(0),
            now: Cell::default(),
            draining: Cell::new(false),
            send: Box::new(send),
        })
    }

    /// Serves a connection from now on. Must be called on the core that the connection is for.
    pub fn take(self: &Rc<Self>, accepted: Accepted) {
        if self.draining.get() {
            return;
        }
        let core = self.clone();
        glommio::spawn_local(async move { core.serve(accepted).await }).detach();
    }

    async fn serve(&self, accepted: Accepted) {
        let Accepted { stream, peer, ticket, received } = accepted;
        let client = peer.address;
        let stream = socket::adopt_stream(stream);
        let prepared = stream
            .set_nodelay(true)
            .map_err(std::io::Error::from)
            .and_then(|()| socket::keep_alive(&stream))
            .and_then(|()| {
                socket::set_buffer_bytes(&stream, self.settings.send_buffer_bytes, self.settings.receive_buffer_bytes)
            });
        if let Err(error) = prepared {
            debug!(%client, %error, "connection lost at once");
            return;
        }
        let id = self.last_id.get() + 1;
        self.last_id.set(id);
        let connection = Connection::new(stream, peer, ticket, self.clock.clone());
        let watched = Watched {
            connection: connection.clone(),
            received: 0,
            sent: 0,
            quiet_since: self.now.get(),
            unread_since: None,
            slow_sweeps: 0,
        };
        self.connections.borrow_mut().insert(id, watched);
        let leaves = connection.serve(&self.service, &self.memory, self.settings.frame_bytes_max, &received).await;
        self.connections.borrow_mut().remove(&id);
        // Closed here before another core has it, as far as this one's descriptor goes.
        drop(connection);
        if let Some(accepted) = leaves {
            (self.send)(accepted);
        }
    }

    /// Looks at every connection; to be called each [`SWEEP_PERIOD`] with the time since the first call.
    pub fn sweep(&self, now: Duration) {
        self.now.set(now);
        let mut connections = self.connections.borrow_mut();
        let unsent: usize = connections.values().map(|watched| watched.connection.progress.unsent.get()).sum();
        let pressure = Pressure {
            unread_max: if unsent > self.settings.unsent_bytes { UNREAD_CONTENDED_MAX } else { UNREAD_MAX },
            idle_max: self.settings.idle_max,
            memory_contended: self.memory.contended(),
        };
        for watched in connections.values_mut() {
            let client = watched.connection.peer.address;
            match watched.judge(now, &pressure) {
                Verdict::Keep => continue,
                Verdict::Idle => debug!(%client, "connection closed: idle for connections.max.idle.ms"),
                Verdict::Unread => info!(%client, "connection closed: the client does not read its replies"),
                Verdict::Stalled => info!(%client, "connection closed: a request was announced and does not come"),
            }
            watched.connection.close();
        }
    }

    /// Takes no further requests; those in flight are answered.
    pub fn drain(&self) {
        self.draining.set(true);
        self.connections.borrow().values().for_each(|watched| watched.connection.drain());
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

struct Pressure {
    unread_max: Duration,
    idle_max: Duration,
    memory_contended: bool,
}

impl Watched {
    fn judge(&mut self, now: Duration, pressure: &Pressure) -> Verdict {
        let progress = &self.connection.progress;
        let received = progress.received.get() - self.received;
        let sent = progress.sent.get() - self.sent;
        self.received += received;
        self.sent += sent;
        if received + sent > 0 {
            self.quiet_since = now;
        }
        let unread = progress.unsent.get() > 0 && sent == 0;
        self.unread_since = if unread { self.unread_since.or(Some(now)) } else { None };
        let stalls = progress.inside_large_frame.get() && !progress.waits_for_memory.get();
        let slow = stalls && pressure.memory_contended && received < PROGRESS_BYTES_MIN;
        self.slow_sweeps = if slow { self.slow_sweeps + 1 } else { 0 };

        if self.unread_since.is_some_and(|since| now.saturating_sub(since) >= pressure.unread_max) {
            Verdict::Unread
        } else if self.slow_sweeps >= SLOW_SWEEPS_MAX {
            Verdict::Stalled
        } else if now.saturating_sub(self.quiet_since) >= pressure.idle_max {
            Verdict::Idle
        } else {
            Verdict::Keep
        }
    }
}
