//! What a connection asks of whoever handles its requests.

use std::{net::SocketAddr, pin::Pin};

use bytes::Bytes;

use crate::io::Slice;

/// What becomes of a request.
#[derive(Debug)]
pub enum Outcome {
    /// A framed reply: length, head and body, in pieces that are sent as they lie.
    Reply(Vec<Slice>),
    /// No reply (produce with `acks=0`).
    Nothing,
    /// The connection ends, for the reason given.
    Close(String),
}

/// A request's second stage: resolves when its reply is known.
pub type Pending = Pin<Box<dyn Future<Output = Outcome>>>;

/// Who is on the other side.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client's address.
    pub address: SocketAddr,
    /// The listener that it came through, as an index into the configured ones.
    pub listener: usize,
}

/// Handles requests. One per core, cheap to clone.
pub trait Service: Clone + 'static {
    /// Whether this request may be begun while earlier ones of its kind have no reply yet (produce).
    fn pipelines(&self, frame: &[u8]) -> bool;
    /// First stage: when it resolves, the request's place in the order is fixed.
    fn handle(&self, peer: &Peer, frame: Bytes) -> impl Future<Output = Pending>;
}
