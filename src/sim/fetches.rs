//! Fetches over several cores: what wakes them, what ends them, what they may hold.

use std::time::Duration;

use super::bench::{Bench, begin_produce, call, numbers};
use crate::{
    base::ErrorCode,
    shard::{FetchCall, ReplyMemory},
};

const LONG: Duration = Duration::from_secs(20);
/// Messages, a journal's write, messages.
const SOON: Duration = Duration::from_millis(50);

#[test]
fn a_long_poll_is_woken_from_every_core() {
    for seed in 0..20 {
        let bench = Bench::start(seed, 3);
        let id = bench.topic("t", 3);
        for (asker, owner) in [(0, 0), (0, 1), (1, 0), (2, 2), (1, 2)] {
            let keys = [0, 1, 2].map(|core| bench.partition_on(id, core));
            let ends = keys.map(|key| (key, bench.numbers(key).len() as i64));
            let (poll, writer) = (bench.connect(asker), bench.connect((owner + 1) % 3));
            let waits = poll.begin(move |router| {
                Box::pin(async move {
                    let waits: crate::replica::Local<_> =
                        Box::pin(async move { router.fetch(call(&ends, 1, LONG)).await });
                    waits
                })
            });
            bench.sim.run_for(Duration::from_millis(5));
            let begun = bench.sim.now();
            let written = begin_produce(&writer, keys[owner], 7..8);
            let fetched = bench.wait(waits).expect("the broker lives");
            let taken = bench.sim.now().since(begun);
            assert!(taken < SOON, "seed {seed}: {asker} waits {taken:?} for core {owner}");
            let found: Vec<Vec<u32>> = fetched.iter().map(numbers).collect();
            let expected = [0, 1, 2].map(|core| if core == owner { vec![7] } else { Vec::new() });
            assert_eq!(found, expected, "seed {seed}");
            assert!(matches!(bench.wait(written), Some(Ok(_))), "seed {seed}");
        }
        bench.sim.run_for(SOON);
        let watches: usize = (0..3).map(|core| bench.router(core).watches()).sum();
        assert_eq!(watches, 0, "seed {seed}: what has been answered watches nothing");
    }
}

#[test]
fn too_little_is_waited_for_to_the_end_and_without_asking_again_and_again() {
    let wait = Duration::from_millis(700);
    for seed in 0..10 {
        let bench = Bench::start(seed, 2);
        let id = bench.topic("t", 2);
        let keys = [bench.partition_on(id, 0), bench.partition_on(id, 1)];
        for key in keys {
            bench.produce(0, key, 0..2).expect("stored");
        }
        bench.sim.run_for(Duration::from_secs(1));
        let (begun, polls) = (bench.sim.now(), bench.sim.polls());
        let fetched = bench.fetch(0, call(&keys.map(|key| (key, 0)), 1 << 20, wait));
        let (taken, polls) = (bench.sim.now().since(begun), bench.sim.polls() - polls);
        assert!(taken >= wait && taken < wait + SOON, "seed {seed}: {taken:?}");
        assert_eq!(fetched.iter().map(numbers).collect::<Vec<_>>(), [[0, 1], [0, 1]], "seed {seed}");
        assert!(polls < 1000, "seed {seed}: {polls} turns of tasks for one that waits");
    }
}

#[test]
fn enough_of_both_cores_together_ends_the_wait() {
    let bench = Bench::start(3, 2);
    let id = bench.topic("t", 2);
    let keys = [bench.partition_on(id, 0), bench.partition_on(id, 1)];
    bench.produce(0, keys[0], 0..3).expect("stored");
    let first = bench.fetch(0, call(&[(keys[0], 0)], 1, Duration::ZERO))[0].bytes;
    let poll = bench.connect(1);
    let wanted = call(&keys.map(|key| (key, 0)), first + 1, LONG);
    let waits = poll.begin(move |router| {
        Box::pin(async move {
            let waits: crate::replica::Local<_> = Box::pin(async move { router.fetch(wanted).await });
            waits
        })
    });
    bench.sim.run_for(Duration::from_millis(100));
    let begun = bench.sim.now();
    bench.produce(0, keys[1], 5..6).expect("stored");
    let fetched = bench.wait(waits).expect("the broker lives");
    assert!(bench.sim.now().since(begun) < SOON);
    assert_eq!(fetched.iter().map(numbers).collect::<Vec<_>>(), [vec![0, 1, 2], vec![5]]);
}

#[test]
fn limits_hold_over_all_cores_but_the_first_batch_always_comes() {
    let bench = Bench::start(4, 2);
    let id = bench.topic("t", 2);
    let keys = [bench.partition_on(id, 1), bench.partition_on(id, 0)];
    for key in keys {
        bench.produce(0, key, 0..4).expect("stored");
    }
    for (max_bytes, expected) in [(1 << 20, [4, 4]), (1, [4, 0])] {
        let limited = FetchCall { max_bytes, ..call(&keys.map(|key| (key, 0)), 1, LONG) };
        let found: Vec<usize> = bench.fetch(0, limited).iter().map(|part| numbers(part).len()).collect();
        assert_eq!(found, expected, "{max_bytes}");
    }
}

#[test]
fn unread_replies_of_others_make_a_fetch_shorter_and_never_wait_for_long() {
    let bench = Bench::start(6, 2);
    let id = bench.topic("t", 2);
    let keys = [bench.partition_on(id, 1), bench.partition_on(id, 0)];
    for (key, number) in keys.iter().flat_map(|key| (0..4).map(move |number| (*key, number))) {
        bench.produce(0, key, number..number + 1).expect("stored");
    }
    let replies = ReplyMemory::new(2, 100_000, 101_000);
    for core in 0..2 {
        bench.router(core).keep_to(&replies);
    }
    let mut unread = replies.holder();
    let mut fetch = |held: usize, min_bytes: usize| {
        unread.set(held);
        let begun = bench.sim.now();
        let fetched = bench.fetch(0, call(&keys.map(|key| (key, 0)), min_bytes, LONG));
        (fetched.iter().map(|part| numbers(part).len()).collect::<Vec<_>>(), bench.sim.now().since(begun))
    };
    let (found, taken) = fetch(0, 1);
    assert_eq!((found, taken < SOON), (vec![4, 4], true));
    // The first batch of each core, at once, however many bytes it should wait for.
    for min_bytes in [1, 50_000] {
        let (found, taken) = fetch(100_500, min_bytes);
        assert_eq!((found, taken < SOON), (vec![1, 1], true), "{min_bytes}");
    }
    // More than may be held at all: the fetch gives whoever closes the largest holder some time.
    let (found, taken) = fetch(101_001, 1);
    let two = Duration::from_secs(2);
    assert_eq!((found, taken >= two && taken < two + SOON), (vec![1, 1], true), "{taken:?}");
}

#[test]
fn a_client_that_hangs_up_leaves_nothing_behind() {
    for seed in 0..10 {
        let bench = Bench::start(seed, 2);
        let id = bench.topic("t", 2);
        let keys = [0, 1].map(|core| (bench.partition_on(id, core), 0));
        let one = |index: usize| call(&keys[index..=index], 1, LONG);
        for wanted in [one(0), one(1), call(&keys, 1, LONG)] {
            let poll = bench.connect(0);
            drop(poll.begin(move |router| {
                Box::pin(async move {
                    let waits: crate::replica::Local<()> = Box::pin(async move { drop(router.fetch(wanted).await) });
                    waits
                })
            }));
            bench.sim.run_for(Duration::from_millis(20));
            assert!(bench.router(0).watches() + bench.router(1).watches() > 0, "seed {seed}: it waits");
            drop(poll);
            bench.sim.run_for(Duration::from_millis(20));
            let left = [bench.router(0).watches(), bench.router(1).watches()];
            assert_eq!(left, [0, 0], "seed {seed}");
        }
    }
}

#[test]
fn a_deleted_topic_ends_the_wait() {
    let bench = Bench::start(5, 2);
    let id = bench.topic("t", 2);
    let keys = [0, 1].map(|core| (bench.partition_on(id, core), 0));
    let poll = bench.connect(1);
    let waits = poll.begin(move |router| {
        Box::pin(async move {
            let waits: crate::replica::Local<_> = Box::pin(async move { router.fetch(call(&keys, 1, LONG)).await });
            waits
        })
    });
    bench.sim.run_for(Duration::from_millis(10));
    bench.delete("t");
    let begun = bench.sim.now();
    let fetched = bench.wait(waits).expect("the broker lives");
    assert!(bench.sim.now().since(begun) < SOON);
    assert!(fetched.iter().any(|part| part.error == Some(ErrorCode::UnknownTopicOrPartition)));
}
