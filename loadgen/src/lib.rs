//! `ringtail-loadgen`: load for any Kafka broker, and the truth about its latency.

pub mod client;
pub mod measure;
pub mod produce;
pub mod records;
pub mod rng;
pub mod schedule;
pub mod sys;
pub mod verify;
pub mod workload;
