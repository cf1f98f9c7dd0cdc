//! Clients: listeners, connections (frames in, replies out in request order) and the limits on both.
//!
//! A request's bytes are charged to the core's request memory before they are received, handed to a
//! [`Service`] as one contiguous piece, and its reply leaves as the pieces that the service gives. Nothing above this
//! room sees a stream, and below it are `io`'s: sockets in production, a simulated network in tests.

mod accept;
mod connection;
mod core;
mod frames;
mod limits;
#[cfg(feature = "glommio")]
mod listener;
mod mailbox;
mod memory;
mod service;

#[cfg(test)]
mod tests;

#[cfg(feature = "glommio")]
pub use self::listener::{BoundListener, Endpoint, Host};
#[cfg(test)]
pub use self::{accept::OpenListener, service::Outcome};
pub use self::{
    accept::{Accepted, Acceptor},
    core::{NetCore, NetSettings},
    limits::ConnectionLimits,
    mailbox::Mailbox,
    memory::LargeRequests,
    service::{Peer, Pending, Service},
};
