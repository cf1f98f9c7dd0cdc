//! Other brokers: connections that this one opens itself, and what it asks over them in Kafka's own protocol.

mod link;
#[cfg(test)]
mod tests;

pub use self::link::{Link, LinkError};
