//! `ringtail-loadgen`: load for any Kafka broker, and the truth about its latency.

pub mod cli;
pub mod client;
pub mod control;
pub mod engine;
pub mod environment;
pub mod failure;
pub mod fetch;
pub mod group;
pub mod hlog;
pub mod measure;
pub mod null_broker;
pub mod produce;
pub mod progress;
pub mod records;
pub mod report;
pub mod rng;
pub mod schedule;
pub mod self_test;
pub mod stats;
pub mod sys;
pub mod verify;
pub mod worker;
pub mod workload;
