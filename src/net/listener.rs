//! Where clients connect: addresses bound before anything else is touched, opened when the broker can serve.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
};

use super::accept::OpenListener;
use crate::io::{BoundAddress, is_no_address};

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

/// One listener's addresses. Bound, so that the port is known and ours; nobody can connect before [`BoundListener::open`].
pub struct BoundListener {
    bound: Vec<BoundAddress>,
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

impl BoundListener {
    /// Binds an endpoint's addresses.
    /// # Errors  Whichever address could not be bound; a missing IPv6 is none.
    pub fn bind(endpoint: &Endpoint) -> Result<Self, BindError> {
        let failed = |error| BindError { endpoint: endpoint.clone(), error };
        match &endpoint.host {
            Host::Loopback => Self::bind_pair(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST, endpoint.port).map_err(failed),
            Host::Any => {
                let both = BoundAddress::bind(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), endpoint.port));
                let any = match both {
                    Err(error) if is_no_address(&error) => {
                        BoundAddress::bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), endpoint.port))
                    }
                    result => result,
                };
                any.and_then(|bound| Self::of(vec![bound])).map_err(failed)
            }
            Host::Named(name) => {
                let mut addresses = (name.trim_matches(['[', ']']), endpoint.port).to_socket_addrs().map_err(failed)?;
                let address = addresses.next().ok_or_else(|| failed(io::ErrorKind::AddrNotAvailable.into()))?;
                BoundAddress::bind(address).and_then(|bound| Self::of(vec![bound])).map_err(failed)
            }
        }
    }

    fn bind_pair(v4: Ipv4Addr, v6: Ipv6Addr, port: u16) -> io::Result<Self> {
        for attempt in 1.. {
            let first = BoundAddress::bind(SocketAddr::new(v4.into(), port))?;
            let chosen = first.address()?.port();
            match BoundAddress::bind(SocketAddr::new(v6.into(), chosen)) {
                Ok(second) => return Self::of(vec![first, second]),
                Err(error) if is_no_address(&error) => return Self::of(vec![first]),
                // The system chose a port that is free for IPv4 alone: let it choose again.
                Err(error) if port == 0 && error.kind() == io::ErrorKind::AddrInUse && attempt < PORT_TRIES_MAX => {}
                Err(error) => return Err(error),
            }
        }
        unreachable!("the loop ends with its last attempt")
    }

    fn of(bound: Vec<BoundAddress>) -> io::Result<Self> {
        let addresses = bound.iter().map(BoundAddress::address).collect::<io::Result<_>>()?;
        Ok(Self { bound, addresses })
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

    /// Lets clients connect.
    /// # Errors  `AddrInUse` if somebody else opened the same port since it was bound.
    pub fn open(self, endpoint: &Endpoint) -> Result<OpenListener, BindError> {
        OpenListener::open(self.bound).map_err(|error| BindError { endpoint: endpoint.clone(), error })
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream as StdStream;

    use super::*;

    fn endpoint(host: Host, port: u16) -> Endpoint {
        Endpoint { host, port }
    }

    #[test]
    fn a_port_can_be_opened_once() {
        let any = endpoint(Host::Loopback, 0);
        let first = BoundListener::bind(&any).unwrap();
        let same = endpoint(Host::Loopback, first.port());
        // Bound by both, opened by one: the race has one winner.
        let second = BoundListener::bind(&same).unwrap();
        let open = first.open(&any).unwrap();
        let late = second.open(&same).err().expect("the port is taken");
        assert_eq!(late.error.kind(), io::ErrorKind::AddrInUse);
        // Once it is open, another cannot even bind, whatever kind of address it asks for.
        for host in [Host::Loopback, Host::Any, Host::Named("127.0.0.1".into())] {
            let error = BoundListener::bind(&endpoint(host.clone(), same.port)).err();
            assert!(error.is_some_and(|error| error.to_string().contains("taken by another process")), "{host:?}");
        }
        drop(open);
        BoundListener::bind(&same).unwrap().open(&same).unwrap();
    }

    #[test]
    fn a_bound_port_refuses_clients_until_it_is_opened() {
        let any = endpoint(Host::Loopback, 0);
        let listener = BoundListener::bind(&any).unwrap();
        let address = listener.addresses()[0];
        assert!(StdStream::connect(address).is_err());
        let _open = listener.open(&any).unwrap();
        StdStream::connect(address).unwrap();
    }
}
