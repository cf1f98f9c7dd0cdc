//! Leader epochs over restarts: every life that may have lost something has a new one, and a log that went back is seen.

use std::time::Duration;

use super::bench::{Bench, call};
use crate::{
    base::{ErrorCode, LeaderEpoch, PartitionKey},
    config,
    io::{Slice, sim::Faults},
    partition::Isolation,
    protocol::batch,
    shard::{ListedOffset, OffsetsCall},
    sim::broker::{DIRECTORY, Life, NODE, Settings},
};

/// More than a start takes.
const STEPS_MAX: u64 = 200_000;

fn settings(durability: &str) -> Settings {
    let mut settings = Settings::small();
    let overrides = [format!("durability={durability}"), "offsets.topic.num.partitions=3".to_owned()];
    settings.config = config::load(None, &overrides).expect("good settings").config;
    settings
}

fn epoch(bench: &Bench, key: PartitionKey) -> i32 {
    let told: Vec<i32> = (0..bench.life.cores)
        .map(|core| bench.router(core).image().partition(key).expect("it is there").leader_epoch.0)
        .collect();
    assert!(told.iter().all(|epoch| *epoch == told[0]), "every core says the same: {told:?}");
    told[0]
}

fn ask(bench: &Bench, call: OffsetsCall) -> Result<ListedOffset, ErrorCode> {
    bench.ask(0, |router| async move { router.offsets(call).await.pop().expect("one answer") })
}

/// OffsetForLeaderEpoch as a consumer asks it that believes in `current`.
fn end_of(bench: &Bench, key: PartitionKey, current: i32, epoch: i32) -> Result<(i32, i64), ErrorCode> {
    let answer = ask(bench, OffsetsCall::ForLeaderEpoch(vec![(key, current, epoch)]));
    answer.map(|listed| (listed.leader_epoch.0, listed.offset.0))
}

fn log_end(bench: &Bench, key: PartitionKey) -> i64 {
    let listed = ask(bench, OffsetsCall::List(vec![(key, -1, -1)], Isolation::ReadUncommitted)).expect("it is there");
    listed.offset.0
}

/// What a fetch from `offset` says to a reader that believes in `current` and has read records of `fetched` last.
fn refusal(bench: &Bench, key: PartitionKey, offset: i64, current: i32, fetched: i32) -> Option<String> {
    let mut call = call(&[(key, offset)], 1, Duration::ZERO);
    call.partitions[0].1.current_leader_epoch = Some(LeaderEpoch(current));
    call.partitions[0].1.last_fetched_epoch = Some(LeaderEpoch(fetched));
    let answer = bench.fetch(0, call).pop().expect("one answer");
    let diverging = answer.diverging.map(|(epoch, end)| format!("diverges: {epoch} {end}"));
    answer.error.map(|error| format!("{error:?}")).or(diverging)
}

/// The epoch of each batch, as it lies in the log.
fn batch_epochs(bench: &Bench, key: PartitionKey) -> Vec<i32> {
    let fetched = bench.fetch(0, call(&[(key, 0)], 1, Duration::ZERO)).pop().expect("one answer");
    let bytes: Vec<u8> = fetched.records.iter().flat_map(|slice: &Slice| slice.iter().copied()).collect();
    batch::batches(&bytes).map(|batch| batch.expect("whole").header.leader_epoch.0).collect()
}

#[test]
fn a_life_that_did_not_end_in_order_is_followed_by_a_new_epoch_and_one_that_did_is_not() {
    for seed in 0..10 {
        let mut bench = Bench::start_with(seed, 2, settings("flush"));
        let id = bench.topic("t", 2);
        let key = bench.partition_on(id, 1);
        let empty = bench.partition_on(id, 0);
        assert_eq!((epoch(&bench, key), epoch(&bench, empty)), (0, 0));
        bench.produce(0, key, 0..3).expect("stored");

        bench.life.kill();
        bench.restart(1 + seed as usize % 3);
        assert_eq!((epoch(&bench, key), epoch(&bench, empty)), (1, 1), "seed {seed}: after a kill");
        assert_eq!(refusal(&bench, key, 3, 0, 0).as_deref(), Some("FencedLeaderEpoch"));
        assert_eq!(refusal(&bench, key, 3, 2, 0).as_deref(), Some("UnknownLeaderEpoch"));
        assert_eq!(refusal(&bench, key, 3, 1, 0), None, "nothing is lost");
        assert_eq!(end_of(&bench, key, 1, 0), Ok((0, 3)));
        assert_eq!(end_of(&bench, key, 0, 0), Err(ErrorCode::FencedLeaderEpoch));
        bench.produce(0, key, 3..5).expect("stored");
        assert_eq!(end_of(&bench, key, 1, 0), Ok((0, 3)), "seed {seed}");
        assert_eq!(end_of(&bench, key, 1, 1), Ok((1, 5)), "seed {seed}");
        assert_eq!(batch_epochs(&bench, key), [0, 1], "seed {seed}");

        bench.life.stop();
        while !bench.life.stopped.get() {
            bench.sim.run_steps(50);
        }
        bench.sim.stop(NODE);
        bench.life.ended();
        bench.restart(2);
        assert_eq!((epoch(&bench, key), epoch(&bench, empty)), (1, 1), "seed {seed}: after a clean stop");
        assert_eq!(end_of(&bench, key, 1, 0), Ok((0, 3)), "seed {seed}");

        bench.power_cut(2);
        bench.power_cut(1);
        assert_eq!((epoch(&bench, key), epoch(&bench, empty)), (3, 3), "seed {seed}: after two power cuts");
        bench.produce(0, key, 5..6).expect("stored");
        assert_eq!(end_of(&bench, key, 3, 2), Ok((1, 5)), "seed {seed}: nobody wrote in epoch 2");
        assert_eq!(end_of(&bench, key, 3, 3), Ok((3, 6)), "seed {seed}");
        assert_eq!(batch_epochs(&bench, key), [0, 1, 3], "seed {seed}");
    }
}

/// With `durability=write` a power cut takes acknowledged records away, and other records get their offsets.
#[test]
fn a_log_that_went_back_is_seen_by_who_had_read_more() {
    let mut went_back = 0;
    for seed in 0..40 {
        let mut bench = Bench::start_with(seed, 1, settings("write"));
        let key = bench.partition_on(bench.topic("t", 1), 0);
        for number in 0..12 {
            bench.produce(0, key, number..number + 1).expect("stored");
        }
        let position = log_end(&bench, key);
        assert_eq!(position, 12);
        bench.power_cut(1);
        let end = log_end(&bench, key);
        // As many again: the position that was read up to exists, with other records before it.
        for number in 100..112 {
            bench.produce(0, key, number..number + 1).expect("stored");
        }
        if end == position {
            continue;
        }
        went_back += 1;
        let hint = format!("seed {seed}: went back from {position} to {end}");
        assert_eq!(refusal(&bench, key, position, 0, 0).as_deref(), Some("FencedLeaderEpoch"), "{hint}");
        // What a consumer does then: learns the epoch, asks where its own ends, and goes back there.
        let now = epoch(&bench, key);
        assert_eq!(now, 1, "{hint}");
        let told = end_of(&bench, key, now, 0).expect("the epoch is ours");
        // If nothing of epoch 0 is left, Kafka gives the asked one back, and that it ends where the log begins.
        assert_eq!(told, (0, end), "{hint}");
        assert_eq!(refusal(&bench, key, position, now, 0), Some(format!("diverges: 0 {end}")), "{hint}");
        assert_eq!(refusal(&bench, key, end, now, 0), None, "{hint}");
    }
    assert!(went_back > 5, "the power cuts took too little: {went_back}");
}

/// Whenever a start ends: what it told nobody may be told again, what it told is never told by another.
#[test]
fn no_two_lives_serve_in_one_epoch_however_short_a_start_was() {
    for seed in 0..60 {
        let settings = settings("flush");
        let bench = Bench::start_with(seed, 2, settings.clone());
        let topic_id = bench.topic("t", 40);
        let keys: Vec<PartitionKey> = (0..40).map(|partition| PartitionKey { topic_id, partition }).collect();
        let mut told: Vec<i32> = keys.iter().map(|key| epoch(&bench, *key)).collect();
        bench.life.kill();
        for round in 0..6 {
            bench.sim.set_faults(NODE, Faults::default());
            let life = Life::begin(&bench.sim, &settings, 1 + (seed as usize + round) % 2);
            let steps = if round % 3 == 2 { STEPS_MAX } else { bench.sim.below(400) };
            let mut taken = 0;
            while !life.ready.get() && taken < steps {
                bench.sim.run_steps(1);
                taken += 1;
            }
            if life.ready.get() {
                let image = life.router(0).expect("it is ready").image();
                for (key, told) in keys.iter().zip(&mut told) {
                    let now = image.partition(*key).expect("it is there").leader_epoch.0;
                    assert!(now > *told, "seed {seed} round {round}: {key} served in {told} and again in {now}");
                    *told = now;
                }
            }
            if bench.sim.below(2) == 0 { life.kill() } else { life.power_cut() }
        }
    }
}

/// Each start writes something for every partition; the next ones must not have to read all of it.
#[test]
fn what_starts_add_to_the_metadata_log_does_not_pile_up() {
    let mut bench = Bench::start_with(1, 1, settings("flush"));
    let key = PartitionKey { topic_id: bench.topic("t", 100), partition: 7 };
    for life in 1..=20 {
        bench.life.kill();
        bench.restart(1);
        assert_eq!(epoch(&bench, key), life);
    }
    let snapshots: Vec<i64> = bench.sim.block_on(NODE, 0, |io| async move {
        let path = std::path::Path::new(DIRECTORY).join("__cluster_metadata-0");
        let entries = io.disk.read_dir(&path).await.expect("it is there");
        let end = |name: &str| name.strip_suffix(".checkpoint")?.split('-').next()?.parse().ok();
        entries.iter().filter_map(|entry| end(&entry.name)).collect()
    });
    let end = bench.router(0).image_offset().0;
    assert!(end > 20 * 100, "each start is written down: {end}");
    assert!(snapshots.iter().any(|snapshot| end - snapshot < 5 * 100), "{snapshots:?} of {end}");
}
