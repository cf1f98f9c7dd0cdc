//! When retention looks, and that it does.

use std::time::Duration;

use super::{
    bench::{Bench, call},
    broker::Settings,
};
use crate::{base::ErrorCode, config};

#[test]
fn retention_looks_after_the_first_delay_and_then_at_its_interval() {
    let overrides = ["log.retention.ms=1", "log.initial.task.delay.ms=100000", "log.retention.check.interval.ms=60000"];
    let config = config::load(None, &overrides.map(str::to_owned)).expect("good settings").config;
    let bench = Bench::start_with(1, 2, Settings { config, ..Settings::small() });
    let id = bench.topic("t", 2);
    let keys = [0, 1].map(|core| bench.partition_on(id, core));
    // What is there at the time, in seconds after the start: the first look is at 100, the second at 160. All records' times lie
    // within the first 50.
    let mut now = 0;
    for (until, begin, there) in [(98, 0, true), (103, 0, false), (155, 2, true), (163, 2, false)] {
        if there {
            for key in keys {
                bench.produce(0, key, 0..2).expect("stored");
            }
        }
        bench.sim.run_for(Duration::from_secs(until - now));
        now = until;
        for fetched in bench.fetch(0, call(&keys.map(|key| (key, begin)), 1, Duration::ZERO)) {
            let gone = fetched.error == Some(ErrorCode::OffsetOutOfRange);
            assert_eq!(gone, !there, "after {until} s: {:?}", fetched.error);
        }
    }
}
