//! Who is on the other side of a connection.

use std::{
    cell::Cell,
    fmt::Write,
    net::{IpAddr, Ipv6Addr},
};

use kafka_protocol::protocol::StrBytes;

/// So many small appends in a row must have gone to one other core before the connection is moved there: a client
/// that changes partitions now and then is not to wander.
const APPENDS_BEFORE_MOVE: u32 = 32;

/// Above this size, in bytes, what a request costs is its bytes, and a second core that shares the work is welcome.
const SMALL_APPEND_BYTES: usize = 16 << 10;

/// The client of a connection.
#[derive(Debug)]
pub struct Peer {
    /// Its address as Kafka writes it: `/127.0.0.1`.
    pub client_host: StrBytes,
    /// The listener it came through, as an index into the context's endpoints.
    pub listener: usize,
    /// The other core that the last appends went to, and how many in a row.
    appends: Cell<Option<(usize, u32)>>,
    /// This core knows things of the client that another would not.
    settled: Cell<bool>,
}

impl Peer {
    /// A client at this address.
    #[must_use]
    pub fn new(address: IpAddr, listener: usize) -> Self {
        let client_host = StrBytes::from_string(java_address(address));
        Self { client_host, listener, appends: Cell::default(), settled: Cell::default() }
    }

    /// The client appends so many bytes, all of them to partitions of one other core, or (`None`) not so.
    pub(super) fn appends(&self, other_core: Option<usize>, bytes: usize) {
        if bytes > SMALL_APPEND_BYTES {
            return;
        }
        let in_a_row = |core| match self.appends.get() {
            Some((before, count)) if before == core => count.saturating_add(1),
            Some(_) | None => 1,
        };
        self.appends.set(other_core.map(|core| (core, in_a_row(core))));
    }

    /// The client has something on this core that cannot be moved, such as a fetch session.
    pub(super) fn settle(&self) {
        self.settled.set(true);
    }

    /// The other core that this connection's appends have all gone to for a while; then counts anew.
    #[must_use]
    pub fn better_core(&self) -> Option<usize> {
        let (core, count) = self.appends.get()?;
        if count < APPENDS_BEFORE_MOVE || self.settled.get() {
            return None;
        }
        self.appends.set(None);
        Some(core)
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
    fn many_small_appends_to_one_other_core_make_it_the_better_one() {
        let peer = || Peer::new(IpAddr::from([127, 0, 0, 1]), 0);
        let append = |peer: &Peer, core, times| (0..times).for_each(|_| peer.appends(core, 100));
        let client = peer();
        append(&client, Some(1), APPENDS_BEFORE_MOVE - 1);
        assert_eq!(client.better_core(), None);
        append(&client, Some(1), 1);
        assert_eq!(client.better_core(), Some(1));
        assert_eq!(client.better_core(), None, "it is said once");
        append(&client, Some(1), APPENDS_BEFORE_MOVE);
        assert_eq!(client.better_core(), Some(1), "and once more after a while");

        // Its own core, several cores, another core: each begins anew.
        for interruption in [None, Some(2)] {
            append(&client, Some(1), APPENDS_BEFORE_MOVE - 1);
            append(&client, interruption, 1);
            append(&client, Some(1), 1);
            assert_eq!(client.better_core(), None, "{interruption:?}");
        }
        // Large ones say nothing either way.
        let client = peer();
        append(&client, Some(1), APPENDS_BEFORE_MOVE - 1);
        (0..99).for_each(|_| client.appends(Some(1), SMALL_APPEND_BYTES + 1));
        assert_eq!(client.better_core(), None);
        client.appends(None, SMALL_APPEND_BYTES + 1);
        append(&client, Some(1), 1);
        assert_eq!(client.better_core(), Some(1));
        // Who has a fetch session stays.
        let client = peer();
        client.settle();
        append(&client, Some(1), 2 * APPENDS_BEFORE_MOVE);
        assert_eq!(client.better_core(), None);
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
