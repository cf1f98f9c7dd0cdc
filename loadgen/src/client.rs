//! The Kafka protocol from a client's side, for any broker.

pub mod admin;
pub mod cluster;
pub mod error;
pub mod guard;
pub mod link;
pub mod socket;
pub mod throttle;
pub mod versions;
pub mod wire;
