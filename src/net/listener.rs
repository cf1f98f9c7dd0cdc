//! Where clients connect: sockets bound before anything else is touched, opened when the broker can serve.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream as StdStream, ToSocketAddrs},
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use glommio::net::AcceptedTcpStream;
use socket2::Socket;
use tracing::warn;

use super::{
    limits::{ConnectionLimits, Refused, Ticket},
    service::Peer,
};
use crate::{
    api::Identity,
    base::Seldom,
    io::glommio::socket,
    metrics::{Counter, Metrics},
};

/// Connections that the kernel keeps until they are accepted. The kernel cuts it down to net.core.somaxconn.
const BACKLOG: i32 = 1024;

/// How often a free port is looked for that is free for IPv4 and IPv6 alike.
const PORT_TRIES_MAX: usize = 16;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The host part of a listener.
    pub host: Host,
    /// 0 takes a free one.
    pub port: u16,
}

/// The host part of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// Both loopback addresses, since `localhost` may be either; IPv6 only where there is one.
    Loopback,
    /// All addresses of the machine: an empty host, `0.0.0.0` or `::`.
    Any,
    /// A name or an address.
    Named(String),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Loopback => write!(out, "localhost:{}", self.port),
            Host::Any => write!(out, "*:{}", self.port),
            Host::Named(name) if name.contains(':') => write!(out, "[{name}]:{}", self.port),
            Host::Named(name) => write!(out, "{name}:{}", self.port),
        }
    }
}

/// One listener's sockets. Bound, so that the port is known and ours; nobody can connect before [`Listener::open`].
pub struct Listener {
    sockets: Vec<Socket>,
    addresses: Vec<SocketAddr>,
}

/// Why there is no listener.
#[derive(Debug)]
pub struct BindError {
    /// What was asked for.
    pub endpoint: Endpoint,
    /// What the system said.
    pub error: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, error } = self;
        match error.kind() {
            io::ErrorKind::AddrInUse => write!(
                out,
                "port {} is taken by another process ({endpoint}): stop it, or choose another port with \
                 --override listeners=PLAINTEXT://localhost:<port>",
                endpoint.port
            ),
            io::ErrorKind::PermissionDenied => write!(
                out,
                "no right to listen on {endpoint}: ports below 1024 need the capability CAP_NET_BIND_SERVICE; \
                 choose a higher one in listeners"
            ),
            io::ErrorKind::AddrNotAvailable => {
                write!(out, "this machine does not have the address of {endpoint}: correct listeners")
            }
            _ => write!(out, "cannot listen on {endpoint}: {error}: correct listeners"),
        }
    }
}

impl Listener {
    /// Binds an endpoint's sockets.
    /// # Errors  Whichever socket could not be bound; a missing IPv6 is none.
    pub fn bind(endpoint: &Endpoint) -> Result<Self, BindError> {
        let failed = |error| BindError { endpoint: endpoint.clone(), error };
        match &endpoint.host {
            Host::Loopback => Self::bind_pair(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST, endpoint.port).map_err(failed),
            Host::Any => {
                let both = socket::bind(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), endpoint.port));
                let any = match both {
                    Err(error) if has_no_ipv6(&error) => {
                        socket::bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), endpoint.port))
                    }
                    result => result,
                };
                any.and_then(|socket| Self::of(vec![socket])).map_err(failed)
            }
            Host::Named(name) => {
                let mut addresses = (name.trim_matches(['[', ']']), endpoint.port).to_socket_addrs().map_err(failed)?;
                let address = addresses.next().ok_or_else(|| failed(io::ErrorKind::AddrNotAvailable.into()))?;
                socket::bind(address).and_then(|socket| Self::of(vec![socket])).map_err(failed)
            }
        }
    }

    fn bind_pair(v4: Ipv4Addr, v6: Ipv6Addr, port: u16) -> io::Result<Self> {
        for attempt in 1.. {
            let first = socket::bind(SocketAddr::new(v4.into(), port))?;
            let chosen = socket::local_address(&first)?.port();
            match socket::bind(SocketAddr::new(v6.into(), chosen)) {
                Ok(second) => return Self::of(vec![first, second]),
                Err(error) if has_no_ipv6(&error) => return Self::of(vec![first]),
                // The system chose a port that is free for IPv4 alone: let it choose again.
                Err(error) if port == 0 && error.kind() == io::ErrorKind::AddrInUse && attempt < PORT_TRIES_MAX => {}
                Err(error) => return Err(error),
            }
        }
        unreachable!("the loop ends with its last attempt")
    }

    fn of(sockets: Vec<Socket>) -> io::Result<Self> {
        let addresses = sockets.iter().map(socket::local_address).collect::<io::Result<_>>()?;
        Ok(Self { sockets, addresses })
    }

    /// The addresses, with real ports. Never empty.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The port, the same for all addresses.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.addresses[0].port()
    }

    /// Opens the sockets to clients.
    /// # Errors  `AddrInUse` if somebody else opened the same port since it was bound.
    pub fn open(self, endpoint: &Endpoint) -> Result<OpenListener, BindError> {
        for socket in &self.sockets {
            socket.listen(BACKLOG).map_err(|error| BindError { endpoint: endpoint.clone(), error })?;
        }
        Ok(OpenListener(self.sockets))
    }
}

/// The host has no IPv6 at all, or its loopback has no such address.
fn has_no_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

/// Sockets that clients can connect to, to be accepted from on one core.
pub struct OpenListener(Vec<Socket>);

/// A connection on its way to its core. Closes itself if it does not arrive.
pub struct Accepted {
    pub(super) stream: StdStream,
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

/// Accepting tasks; dropping it stops them and closes the sockets.
pub struct Acceptor(Vec<glommio::Task<()>>);

impl OpenListener {
    /// Accepts on this core for all cores: `deliver` carries each connection to [`Accepted::core`].
    /// `pause` waits a moment when the process has no descriptor left.
    pub fn accept<D, P>(
        self,
        listener: usize,
        limits: &Arc<ConnectionLimits>,
        metrics: &Rc<Metrics>,
        deliver: D,
        pause: P,
    ) -> Acceptor
    where
        D: AsyncFn(Accepted) + Clone + 'static,
        P: AsyncFn() + Clone + 'static,
    {
        let accept = |socket| {
            let (limits, metrics, deliver, pause) = (limits.clone(), metrics.clone(), deliver.clone(), pause.clone());
            glommio::spawn_local(async move { accept_all(socket, listener, limits, metrics, deliver, pause).await })
        };
        Acceptor(self.0.into_iter().map(accept).collect())
    }
}

impl Acceptor {
    /// Stops accepting and closes the sockets.
    pub async fn stop(self) {
        for task in self.0 {
            task.cancel().await;
        }
    }
}

async fn accept_all(
    socket: Socket,
    listener: usize,
    limits: Arc<ConnectionLimits>,
    metrics: Rc<Metrics>,
    deliver: impl AsyncFn(Accepted),
    pause: impl AsyncFn(),
) {
    let acceptor = socket::adopt_listener(socket);
    let mut out_of_descriptors = false;
    let (began, told) = (Instant::now(), Seldom::default());
    loop {
        let accepted = acceptor.shared_accept().await.map_err(io::Error::from);
        match accepted.and_then(|accepted| admit(accepted, listener, &limits)) {
            Ok(Ok(accepted)) => {
                out_of_descriptors = false;
                deliver(accepted).await;
            }
            Ok(Err((client, refused))) => {
                metrics.count(Counter::ConnectionsRefused);
                if let Some(left_out) = told.due(began.elapsed()) {
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
                pause().await;
            }
        }
    }
}

/// A connection that may be served, or who is refused and why.
type Admitted = Result<Accepted, (SocketAddr, Refused)>;

fn admit(accepted: AcceptedTcpStream, listener: usize, limits: &Arc<ConnectionLimits>) -> io::Result<Admitted> {
    let stream = socket::detach(accepted)?;
    let peer = Peer { address: canonical(stream.peer_addr()?), listener, identity: Identity::default() };
    Ok(match limits.admit(peer.address.ip()) {
        Ok(ticket) => Ok(Accepted { stream, peer, ticket, received: Vec::new() }),
        Err(refused) => Err((peer.address, refused)),
    })
}

/// IPv4 clients of a socket for both kinds appear as mapped IPv6 addresses: one client, one address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(host: Host, port: u16) -> Endpoint {
        Endpoint { host, port }
    }

    #[test]
    fn a_port_can_be_opened_once() {
        let any = endpoint(Host::Loopback, 0);
        let first = Listener::bind(&any).unwrap();
        let same = endpoint(Host::Loopback, first.port());
        // Bound by both, opened by one: the race has one winner.
        let second = Listener::bind(&same).unwrap();
        let open = first.open(&any).unwrap();
        let late = second.open(&same).err().expect("the port is taken");
        assert_eq!(late.error.kind(), io::ErrorKind::AddrInUse);
        // Once it is open, another cannot even bind, whatever kind of address it asks for.
        for host in [Host::Loopback, Host::Any, Host::Named("127.0.0.1".into())] {
            let error = Listener::bind(&endpoint(host.clone(), same.port)).err();
            assert!(error.is_some_and(|error| error.to_string().contains("taken by another process")), "{host:?}");
        }
        drop(open);
        Listener::bind(&same).unwrap().open(&same).unwrap();
    }

    #[test]
    fn a_bound_port_refuses_clients_until_it_is_opened() {
        let any = endpoint(Host::Loopback, 0);
        let listener = Listener::bind(&any).unwrap();
        let address = listener.addresses()[0];
        assert!(StdStream::connect(address).is_err());
        let _open = listener.open(&any).unwrap();
        StdStream::connect(address).unwrap();
    }
}
