//! Who is on the other side of a connection.

use std::{
    fmt::Write,
    net::{IpAddr, Ipv6Addr},
};

use kafka_protocol::protocol::StrBytes;

/// The client of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address as Kafka writes it: `/127.0.0.1`.
    pub client_host: StrBytes,
    /// The listener it came through, as an index into the context's endpoints.
    pub listener: usize,
}

/// Where clients of a listener are told to connect to.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The listener's name.
    pub name: String,
    /// The advertised host.
    pub host: StrBytes,
    /// The advertised port: the real one where 0 was asked for.
    pub port: u16,
}

impl Peer {
    /// A client at this address.
    #[must_use]
    pub fn new(address: IpAddr, listener: usize) -> Self {
        Self { client_host: StrBytes::from_string(java_address(address)), listener }
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
    fn addresses_look_like_java_s() {
        let shown = |text: &str| java_address(text.parse().expect("an address"));
        assert_eq!(shown("127.0.0.1"), "/127.0.0.1");
        assert_eq!(shown("::1"), "/0:0:0:0:0:0:0:1");
        assert_eq!(shown("fe80::a:b00"), "/fe80:0:0:0:0:0:a:b00");
        assert_eq!(shown("::ffff:10.0.0.7"), "/10.0.0.7");
    }
}
