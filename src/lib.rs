#![doc = include_str!("../ARCHITECTURE.md")]
#![warn(missing_docs)]

// The rooms, from the top of the house to the ground. A room uses only rooms declared below it; `tests/tidy.rs` reads
// this list and enforces it.

// The simulator stands above everything: it drives whole brokers.
#[cfg(test)]
mod sim;

// -- edges: sockets, threads, signals ---------------------------------------------------------------------------------
#[cfg(feature = "glommio")]
pub mod cli;
// Above the sockets: it binds, opens and closes them.
#[cfg(feature = "glommio")]
pub mod server;
// Below the process.
#[cfg(feature = "glommio")]
pub mod net;

// -- flows: in which order things happen ------------------------------------------------------------------------------
pub mod api;
pub mod coordinator;
pub mod io;
pub mod log;
pub mod replica;
pub mod shard;

// -- rules: what Kafka means ------------------------------------------------------------------------------------------
pub mod base;
pub mod config;
pub mod controller;
pub mod group;
pub mod metadata;
pub mod partition;
pub mod protocol;
