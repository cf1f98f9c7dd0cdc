#![doc = include_str!("../ARCHITECTURE.md")]
#![warn(missing_docs)]

// The rooms, from the top of the house to the ground. A room uses only rooms declared below it; `tests/tidy.rs` reads
// this list and enforces it.

// The simulator stands above everything: it drives whole brokers.
#[cfg(test)]
#[allow(clippy::async_yields_async)] // the two stages of a request
mod sim;

// -- edges: sockets, threads, signals ---------------------------------------------------------------------------------
#[cfg(feature = "glommio")]
pub mod cli;
#[cfg(feature = "glommio")]
pub mod server;
#[cfg(feature = "glommio")]
pub mod net;

// -- flows: in which order things happen ------------------------------------------------------------------------------
pub mod api;
pub mod shard;
pub mod quorum;
pub mod coordinator;
pub mod replica;
pub mod log;
pub mod io;

// -- rules: what Kafka means ------------------------------------------------------------------------------------------
pub mod controller;
pub mod group;
pub mod partition;
pub mod metadata;
pub mod config;
pub mod metrics;
pub mod protocol;
pub mod base;
