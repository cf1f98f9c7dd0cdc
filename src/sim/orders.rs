//! Produce across cores: order, time-outs.

use std::time::Duration;

use super::bench::{Bench, begin_produce, begin_produce_all};
use crate::{
    base::{ErrorCode, PartitionKey, TopicId},
    io::sim::Faults,
    sim::broker::NODE,
};

const REQUESTS: u32 = 40;

#[test]
fn what_one_connection_sends_is_stored_in_its_order() {
    for seed in 0..20 {
        let bench = Bench::start(seed, 3);
        let id = bench.topic("t", 3);
        bench.sim.set_faults(NODE, Faults { slow_one_in: 10, ..Faults::default() });
        let connection = bench.connect(seed as usize % 3);
        let keys = [0, 1, 2].map(|partition| PartitionKey { topic_id: id, partition });
        let answers: Vec<_> = (0..REQUESTS)
            .map(|number| {
                let parts = keys.map(|key| (key, number * 2..number * 2 + 2)).to_vec();
                begin_produce_all(&connection, parts, Duration::from_secs(30))
            })
            .collect();
        let mut last = [-1; 3];
        for answer in answers {
            let answer = bench.wait(answer).expect("the broker lives");
            for (last, appended) in last.iter_mut().zip(answer) {
                let offset = appended.expect("stored").base_offset.0;
                assert!(offset > *last, "seed {seed}: {offset} after {last}");
                *last = offset;
            }
        }
        for key in keys {
            assert_eq!(bench.numbers(key), (0..REQUESTS * 2).collect::<Vec<_>>(), "seed {seed} {key}");
        }
    }
}

#[test]
fn who_answered_is_heard_even_if_another_is_late() {
    let bench = Bench::start(1, 2);
    let id = bench.topic("t", 2);
    let (near, far) = (bench.partition_on(id, 0), bench.partition_on(id, 1));
    let unknown = (0..).map(|partition| PartitionKey { topic_id: TopicId(uuid::Uuid::from_u128(5)), partition });
    let nowhere = unknown.into_iter().find(|key| key.core(2) == 0).expect("one of two");
    let connection = bench.connect(0);
    let parts = vec![(near, 0..1), (nowhere, 0..1), (far, 0..1)];
    let answer = begin_produce_all(&connection, parts, Duration::from_micros(1));
    let answer = bench.wait(answer).expect("the broker lives");
    let codes: Vec<_> = answer.into_iter().map(Result::err).collect();
    let late = Some(ErrorCode::RequestTimedOut);
    assert_eq!(codes, [late, Some(ErrorCode::UnknownTopicOrPartition), late]);
    bench.sim.run_for(Duration::from_millis(100));
    assert_eq!((bench.numbers(near), bench.numbers(far)), (vec![0], vec![0]), "late is not lost");
}

#[test]
fn a_log_that_was_there_before_takes_what_comes_at_once() {
    for seed in 0..10 {
        let mut bench = Bench::start(seed, 2);
        let id = bench.topic("t", 2);
        let keys = [0, 1].map(|partition| PartitionKey { topic_id: id, partition });
        for key in keys {
            bench.produce(0, key, 0..3).expect("stored");
        }
        bench.power_cut(1 + seed as usize % 3);
        // The tail has to be read first: while that goes on, more comes.
        let connection = bench.connect(0);
        let answers: Vec<_> =
            (3..9).flat_map(|number| keys.map(|key| begin_produce(&connection, key, number..number + 1))).collect();
        for answer in answers {
            assert!(matches!(bench.wait(answer), Some(Ok(_))), "seed {seed}");
        }
        for key in keys {
            assert_eq!(bench.numbers(key), (0..9).collect::<Vec<_>>(), "seed {seed}");
        }
    }
}
