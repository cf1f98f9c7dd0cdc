//! What a connection asks of whoever handles its requests.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::api::{Identity, ListenerKind};
pub use crate::api::{Outcome, Pending};

/// Who is on the other side.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client's address.
    pub address: SocketAddr,
    /// What the listener that it came through is for.
    pub kind: ListenerKind,
    /// That listener, as an index into the configured ones of its kind.
    pub listener: usize,
    /// What the client has said of itself on the cores that served the connection before.
    pub identity: Identity,
}

/// Handles requests. One per core, cheap to clone.
pub trait Service: Clone + 'static {
    /// What handlers know about a connection's client.
    type Client: 'static;
    /// Makes it, once per connection.
    fn client(&self, peer: &Peer) -> Self::Client;
    /// What goes along to another core of what the client has said of itself.
    fn identity(&self, _client: &Self::Client) -> Identity {
        Identity::default()
    }
    /// Whether this request may be begun while earlier ones of its kind have no reply yet (produce).
    fn pipelines(&self, frame: &[u8]) -> bool;
    /// What serving a frame takes in all, in bytes, given its first four bytes and its length.
    fn memory_estimate(&self, frame_start: &[u8], frame_bytes: usize) -> usize;
    /// The core that should serve this connection from now on instead of ours, because its requests all end there. Asked before each
    /// request; named once, and again only when that has been so for a while.
    fn better_core(&self, _client: &Self::Client) -> Option<usize> {
        None
    }
    /// First stage: when it resolves, the request's place in the order is fixed.
    fn handle(&self, client: &Self::Client, frame: Bytes) -> impl Future<Output = Pending>;
}
