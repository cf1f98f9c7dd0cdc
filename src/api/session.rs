//! Who asks: one session a connection.

use std::{
    cell::RefCell,
    fmt::Write,
    net::{IpAddr, Ipv6Addr},
};

use kafka_protocol::protocol::StrBytes;

use crate::api::placement::Placement;

/// Whoever has not said who it is. Nobody can say so yet.
const ANONYMOUS: &str = "User:ANONYMOUS";

/// Of each of the names that a client gives its software so many bytes are kept: a request has room for many more.
const SOFTWARE_BYTES_MAX: usize = 64;

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// Clients, and other brokers for records.
    Clients,
    /// Other controllers, and brokers for the controller: one of `controller.listener.names`.
    Controllers,
}

/// The client of a connection, on the core that serves it.
#[derive(Debug)]
pub struct Session {
    /// Its address as Kafka writes it: `/127.0.0.1`.
    pub client_host: StrBytes,
    /// What the listener that it came through is for.
    pub(super) kind: ListenerKind,
    /// That listener, as an index into the context's advertised listeners; who came through a controllers' one, which is not
    /// advertised, is told of the first.
    pub listener: usize,
    /// What its requests say about where it is served best.
    pub(super) placement: Placement,
    identity: RefCell<Identity>,
}

/// What a client has said of itself, or proved: it holds for the whole connection, and goes along to another core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    principal: StrBytes,
    software: Option<Software>,
}

/// What the client runs (KIP-511).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Software {
    name: StrBytes,
    version: StrBytes,
}

impl Default for Identity {
    fn default() -> Self {
        Self { principal: StrBytes::from_static_str(ANONYMOUS), software: None }
    }
}

impl Session {
    /// A client at this address that came through this listener. `identity` is what it has said so far.
    #[must_use]
    pub fn new(address: IpAddr, listener: usize, identity: Identity) -> Self {
        Self::through(ListenerKind::Clients, address, listener, identity)
    }

    /// Whoever came through a controllers' listener.
    #[must_use]
    pub fn of_controllers(address: IpAddr, identity: Identity) -> Self {
        Self::through(ListenerKind::Controllers, address, 0, identity)
    }

    fn through(kind: ListenerKind, address: IpAddr, listener: usize, identity: Identity) -> Self {
        let client_host = StrBytes::from_string(java_address(address));
        Self { client_host, kind, listener, placement: Placement::default(), identity: RefCell::new(identity) }
    }

    /// What the client has said so far.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity.borrow().clone()
    }

    /// Its user, without the word before the name: as quotas know it.
    pub(super) fn user(&self) -> StrBytes {
        let identity = self.identity.borrow();
        let principal = &identity.principal;
        principal.split_once(':').map_or_else(|| principal.clone(), |(_, name)| StrBytes::from_string(name.to_owned()))
    }

    /// The client has named its software. Copied: a slice would keep the request's whole frame.
    pub(super) fn runs(&self, name: &str, version: &str) {
        let kept = |text: &str| StrBytes::from_string(text.chars().take(SOFTWARE_BYTES_MAX).collect());
        self.identity.borrow_mut().software = Some(Software { name: kept(name), version: kept(version) });
    }

    /// The core that would serve this connection better, since its appends have all gone there for a while; then counts anew.
    #[must_use]
    pub fn better_core(&self) -> Option<usize> {
        self.placement.better_core()
    }
}

/// Java's `InetAddress.toString` of an address without a name: IPv6 without `::`.
fn java_address(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => format!("/{address}"),
        IpAddr::V6(address) => java_ipv6(address),
    }
}

fn java_ipv6(address: Ipv6Addr) -> String {
    let mut text = String::from("/");
    for (index, segment) in address.segments().into_iter().enumerate() {
        let colon = if index == 0 { "" } else { ":" };
        write!(text, "{colon}{segment:x}").expect("writing to a string does not fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_a_client_is_goes_along_and_stays_small() {
        let address = IpAddr::from([127, 0, 0, 1]);
        let session = Session::new(address, 0, Identity::default());
        assert_eq!(session.identity().principal.as_str(), "User:ANONYMOUS");
        session.runs("apache-kafka-java", &"4".repeat(1 << 20));
        let moved = Session::new(address, 0, session.identity());
        let software = moved.identity().software.expect("it was named");
        assert_eq!((software.name.as_str(), software.version.len()), ("apache-kafka-java", SOFTWARE_BYTES_MAX));
    }

    #[test]
    fn addresses_look_like_java_s() {
        let shown = |text: &str| java_address(text.parse().expect("an address"));
        assert_eq!(shown("127.0.0.1"), "/127.0.0.1");
        assert_eq!(shown("::1"), "/0:0:0:0:0:0:0:1");
        assert_eq!(shown("fe80::a:b00"), "/fe80:0:0:0:0:0:a:b00");
        assert_eq!(shown("::ffff:10.0.0.7"), "/10.0.0.7");
    }
}
