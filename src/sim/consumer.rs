//! A consumer of several partitions: long polls with every kind of limit, and a check of all that comes.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    base::{ErrorCode, Offset, PartitionKey},
    partition::{FetchPartition, Isolation},
    replica::Fetched,
    shard::FetchCall,
    sim::{connection::Connection, records, world::World},
};

/// An answer may come so much later than the call allowed: slow disks and messages.
const LATE_MAX: Duration = Duration::from_secs(2);

/// More than there is.
const UNLIMITED: usize = 1 << 20;

/// What was told about a partition before a fetch was sent.
struct Floor {
    high_watermark: i64,
    start: i64,
    losses: u32,
}

pub async fn run(world: World) {
    let mut positions: BTreeMap<PartitionKey, i64> = BTreeMap::new();
    loop {
        let connection = world.connect().await;
        for _ in 0..1 + world.rand.below(30) {
            if world.finishing.get() {
                return;
            }
            if round(&world, &connection, &mut positions).await.is_err() {
                break;
            }
        }
    }
}

/// What one partition of a fetch asks for.
pub fn part(offset: i64, max_bytes: i32) -> FetchPartition {
    FetchPartition {
        fetch_offset: Offset(offset),
        partition_max_bytes: max_bytes,
        current_leader_epoch: None,
        last_fetched_epoch: None,
        log_start_offset: Offset(-1),
    }
}

async fn round(
    world: &World,
    connection: &Connection,
    positions: &mut BTreeMap<PartitionKey, i64>,
) -> Result<(), crate::sim::connection::Gone> {
    let mut keys = world.model.keys();
    keys.retain(|_| !world.one_in(3));
    if keys.is_empty() {
        world.pause(3000).await;
        return Ok(());
    }
    let floors: Vec<Floor> = keys.iter().map(|key| floor(world, *key)).collect();
    let partitions: Vec<_> = keys
        .iter()
        .map(|key| {
            let max_bytes = if world.one_in(4) { world.rand.below(2000) as i32 } else { 1 << 20 };
            (*key, part(*positions.entry(*key).or_default(), max_bytes))
        })
        .collect();
    let call = FetchCall {
        partitions,
        isolation: if world.one_in(2) { Isolation::ReadCommitted } else { Isolation::ReadUncommitted },
        max_bytes: if world.one_in(4) { world.rand.below(5000) as usize } else { UNLIMITED },
        min_bytes: if world.one_in(3) { world.rand.below(4000) as usize } else { 1 },
        max_wait: Duration::from_micros(world.rand.below(60_000)),
    };
    let (begun, asked) = (world.now(), call.clone());
    let fetched = connection.ask(move |router| async move { router.fetch(call).await }).await?;
    let taken = world.now().since(begun);
    check_wait(world, &asked, &fetched, taken);
    assert_eq!(fetched.len(), keys.len(), "{}", world.seed());
    for ((key, floor), fetched) in keys.iter().zip(floors).zip(&fetched) {
        let position = positions.get_mut(key).expect("it was just asked for");
        take(world, *key, &floor, position, fetched);
    }
    Ok(())
}

fn floor(world: &World, key: PartitionKey) -> Floor {
    world.model.with(key, |it| Floor { high_watermark: it.high_watermark, start: it.start, losses: it.losses })
}

/// A fetch answers when there is enough, or something to say, or when its time is up; and then it does answer.
fn check_wait(world: &World, call: &FetchCall, fetched: &[Fetched], taken: Duration) {
    let bytes: usize = fetched.iter().map(|part| part.bytes).sum();
    let said = fetched.iter().any(|part| part.error.is_some());
    // A small limit may cut what was enough before.
    let enough = bytes >= call.min_bytes || said || call.max_bytes < UNLIMITED;
    assert!(enough || taken >= call.max_wait, "{}: {bytes} bytes after {taken:?} for {call:?}", world.seed());
    assert!(taken <= call.max_wait + LATE_MAX, "{}: {taken:?} for {call:?}", world.seed());
    let first = fetched.iter().find(|part| part.bytes > 0).map_or(0, |part| part.bytes);
    assert!(bytes <= call.max_bytes.max(first), "{}: {bytes} bytes for {call:?}", world.seed());
}

fn take(world: &World, key: PartitionKey, floor: &Floor, position: &mut i64, fetched: &Fetched) {
    let model = &world.model;
    let hint = model.hint(key);
    match fetched.error {
        None => {}
        Some(ErrorCode::UnknownTopicOrPartition) => {
            assert!(model.is_deleted(key), "{hint}: the topic is there, but not for a consumer");
            return;
        }
        Some(ErrorCode::OffsetOutOfRange) => {
            let lost = model.with(key, |it| it.losses) > 0;
            let deleted = *position < fetched.log_start_offset.0;
            assert!(deleted || lost, "{hint}: offset {position} was read up to, and is out of range now");
            if deleted {
                model.log_start(key, floor.start, fetched.log_start_offset);
            }
            *position = fetched.log_start_offset.0;
            return;
        }
        // The disk fails.
        Some(ErrorCode::KafkaStorageError | ErrorCode::NotLeaderOrFollower) => return,
        Some(other) => panic!("{hint}: fetch was refused with {other:?}"),
    }
    if model.with(key, |it| it.losses) == floor.losses {
        model.high_watermark(key, floor.high_watermark, fetched.high_watermark);
    }
    model.log_start(key, floor.start, fetched.log_start_offset);
    let records = records::records(&fetched.records, &hint);
    let size: usize = fetched.records.iter().map(|slice| slice.len()).sum();
    assert_eq!(size, fetched.bytes, "{hint}");
    if let Some((first, _)) = records.first() {
        assert!(first.0 <= *position, "{hint}: asked from {position}, got from {first}");
    }
    for (offset, value) in records {
        assert!(offset < fetched.high_watermark, "{hint}: {offset} is not below {}", fetched.high_watermark);
        model.lies(key, offset.0, value);
        if offset.0 >= *position {
            assert_eq!(offset.0, *position, "{hint}: offsets are skipped");
            *position += 1;
        }
    }
    model.reads.set(model.reads.get() + 1);
}
