//! Whole brokers on the simulator: lives that end in kills, power cuts, failing and full disks, clients that know nothing
//! of it, and checkers that hold what was answered against what is there.
//!
//! `RINGTAIL_SEED=n cargo test --locked --lib sim::` replays one schedule, `RINGTAIL_SEEDS=n` runs n fresh ones.

mod admin;
mod asks;
mod at_rest;
mod bench;
mod broker;
mod committed;
mod connection;
mod consumer;
mod controllers;
mod coordinators;
mod epochs;
mod fetches;
mod inspection;
mod member;
mod metrics;
mod model;
mod orders;
mod producer;
mod prober;
mod quorums;
mod quotas;
mod records;
mod requests;
mod rot;
mod retention;
mod rewrites;
mod schedule;
mod serving;
mod turns;
mod wire;
mod world;
