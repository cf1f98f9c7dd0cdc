//! Takes connections as they come, and says which core each of them is for.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tracing::warn;

use super::{
    limits::{ConnectionLimits, Refused, Ticket},
    service::Peer,
};
use crate::{
    api::{Identity, ListenerKind},
    base::Seldom,
    io::{BoundAddress, DetachedStream, Io, StoppableTask},
    metrics::Counter,
};

/// Waited when no further connection can be accepted for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Addresses that clients can connect to, to be accepted from on one core.
pub struct OpenListener(Vec<BoundAddress>);

/// A connection on its way to its core. Closes itself if it does not arrive.
pub struct Accepted {
    pub(super) stream: DetachedStream,
    pub(super) peer: Peer,
    pub(super) ticket: Ticket,
    /// What the core that it comes from has received and not begun.
    pub(super) received: Vec<u8>,
}

impl Accepted {
    /// The core that the connection is for.
    #[must_use]
    pub fn core(&self) -> usize {
        self.ticket.core()
    }
}

/// Accepting tasks; dropping it stops them and closes the addresses.
pub struct Acceptor(Vec<StoppableTask>);

impl OpenListener {
    /// Opens bound addresses to clients.
    /// # Errors  `AddrInUse` if somebody else opened the same port since it was bound.
    pub fn open(bound: Vec<BoundAddress>) -> io::Result<Self> {
        bound.iter().try_for_each(BoundAddress::open)?;
        Ok(Self(bound))
    }

    /// Accepts on this core for all cores: `deliver` carries each connection to [`Accepted::core`].
    pub fn accept(
        self,
        kind: ListenerKind,
        listener: usize,
        limits: &Arc<ConnectionLimits>,
        io: &Io,
        deliver: impl Fn(Accepted) + Clone + 'static,
    ) -> Acceptor {
        let accept = |bound| {
            let (limits, io, deliver) = (limits.clone(), io.clone(), deliver.clone());
            let spawner = io.spawner.clone();
            spawner.spawn_stoppable(async move { accept_all(bound, (kind, listener), &limits, &io, deliver).await })
        };
        Acceptor(self.0.into_iter().map(accept).collect())
    }
}

impl Acceptor {
    /// Stops accepting and closes the addresses.
    pub async fn stop(self) {
        for task in self.0 {
            task.stop().await;
        }
    }
}

async fn accept_all(
    bound: BoundAddress,
    listener: (ListenerKind, usize),
    limits: &Arc<ConnectionLimits>,
    io: &Io,
    deliver: impl Fn(Accepted),
) {
    let incoming = bound.attach(io);
    let mut out_of_descriptors = false;
    let (began, told) = (io.clock.now(), Seldom::default());
    loop {
        match incoming.next().await.and_then(|stream| admit(stream, listener, limits)) {
            Ok(Ok(accepted)) => {
                out_of_descriptors = false;
                deliver(accepted);
            }
            Ok(Err((client, refused))) => {
                io.metrics.count(Counter::ConnectionsRefused);
                if let Some(left_out) = told.due(io.clock.now().since(began)) {
                    warn!(%client, left_out, reason = %refused, "connection refused");
                }
            }
            // The client has gone before it was accepted.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::NotConnected) => {}
            Err(error) => {
                // One line for the whole time of want.
                if !out_of_descriptors {
                    warn!(%error, "cannot accept connections; trying again (see ulimit -n)");
                }
                out_of_descriptors = true;
                io.clock.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection that may be served, or who is refused and why.
type Admitted = Result<Accepted, (SocketAddr, Refused)>;

fn admit(
    stream: DetachedStream,
    (kind, listener): (ListenerKind, usize),
    limits: &Arc<ConnectionLimits>,
) -> io::Result<Admitted> {
    let peer = Peer { address: canonical(stream.peer_address()?), kind, listener, identity: Identity::default() };
    Ok(match limits.admit(peer.address.ip()) {
        Ok(ticket) => Ok(Accepted { stream, peer, ticket, received: Vec::new() }),
        Err(refused) => Err((peer.address, refused)),
    })
}

/// IPv4 clients of an address for both kinds appear as mapped IPv6 addresses: one client, one address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
