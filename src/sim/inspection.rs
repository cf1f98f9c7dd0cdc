//! After a restart, before clients come back: what is there, held against what was promised. And at the end, all of it.

use std::rc::Rc;

use crate::{
    base::{ErrorCode, Offset, PartitionKey},
    partition::Isolation,
    shard::{OffsetsCall, Router},
    sim::{
        broker::Life,
        connection::Gone,
        consumer::{self, answers, bytes_of, list_offset},
        member,
        records::{self, FIRST_TIMESTAMP, TIMESTAMPS, Value, timestamp_of},
        wire::Wire,
        world::World,
    },
};

/// Questions by timestamp and fetches from the middle that each partition gets at the end.
const QUESTIONS: u64 = 6;

/// What the end of the life before allows to be missing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowed {
    /// Power was cut: what `durability=write` promised is void.
    pub power_cut: bool,
    /// The stop was orderly, so that leader epochs may stay.
    pub clean: bool,
}

/// Compares where every partition begins and ends. Those that are offline are compared when they are back. Gives how many
/// there are.
pub async fn ends(world: &World, router: &Router, allowed: Allowed) -> usize {
    let mut offline = 0;
    for key in world.model.keys() {
        if router.image().partition(key).is_none() {
            // Its deletion was in doubt and happened; the admin client finds out.
            assert!(world.model.is_deleted(key), "{}: it is gone", world.model.hint(key));
            continue;
        }
        let epoch = router.image().partition(key).expect("it was just looked at").leader_epoch;
        world.model.leader_epoch(key, epoch, allowed.clean);
        let Some((start, end)) = ends_of(world, router, key).await else {
            offline += 1;
            continue;
        };
        let may_lose = allowed.power_cut && !world.model.with(key, |it| it.flush);
        world.model.recovered(key, start, end, may_lose);
    }
    offline
}

async fn ends_of(world: &World, router: &Router, key: PartitionKey) -> Option<(Offset, Offset)> {
    let mut ends = [Offset::ZERO; 2];
    for (end, timestamp) in ends.iter_mut().zip([-2, -1]) {
        let call = OffsetsCall::List(vec![(key, -1, timestamp)], Isolation::ReadUncommitted);
        let answer = router.offsets(call).await[0];
        if answer == Err(ErrorCode::KafkaStorageError) {
            return None;
        }
        *end = answer.unwrap_or_else(|error| panic!("{}: {error:?}", world.model.hint(key))).offset;
    }
    Some((ends[0], ends[1]))
}

/// Reads everything that is there, of partitions and of groups, as a client of one core; then asks by timestamp and reads
/// from anywhere, and compares with what was read.
pub async fn all(world: World, life: Rc<Life>, core: usize) {
    let connection = Wire::open(&life).expect("it serves");
    read(&world, &connection).await.expect("it goes on serving");
    let committed: Vec<_> = world.model.committed.borrow().keys().cloned().collect();
    let router = life.router(core).expect("it serves");
    for (group, index) in committed {
        let Some(partition) = router.coordinator_of(&group) else {
            // Somebody tried to commit, before there was a coordinator.
            let acked = world.model.committed.borrow()[&(group.clone(), index)].acked;
            assert_eq!(acked, 0, "{}: {group}: no coordinator", world.seed());
            continue;
        };
        let answer = router.group(partition, member::fetch_request(&group, index)).await;
        let answer = answer.unwrap_or_else(|error| panic!("{}: {group}: {error:?}", world.seed()));
        world.model.committed(&group, index, member::fetched_offset(&answer).max(0));
    }
}

async fn read(world: &World, connection: &Wire) -> Result<(), Gone> {
    for key in world.model.keys() {
        let (start, found) = read_partition(world, connection, key).await?;
        world.model.all(key, start, &found);
        if world.model.with(key, |it| it.retention) {
            continue;
        }
        for _ in 0..QUESTIONS {
            ask_by_timestamp(world, connection, key, &found).await?;
            read_from_anywhere(world, connection, key, &found).await?;
        }
    }
    Ok(())
}

async fn read_partition(
    world: &World,
    connection: &Wire,
    key: PartitionKey,
) -> Result<(Offset, Vec<(Offset, Value)>), Gone> {
    let hint = world.model.hint(key);
    let name = world.model.name_of(key.topic_id).expect("its topic is there");
    'anew: loop {
        let mut ends = [0; 2];
        for (end, timestamp) in ends.iter_mut().zip([-2, -1]) {
            let listed = list_offset(connection, world.version(1, 10), &name, key.partition, timestamp).await?;
            *end = listed.unwrap_or_else(|error| panic!("{hint}: {error:?}")).0;
        }
        let [start, end] = ends;
        let mut found: Vec<(Offset, Value)> = Vec::new();
        let mut from = start;
        while from < end {
            let version = world.version(4, 18);
            let request = consumer::request(version, &name, &[(key, from, 1 << 20)]);
            let answer = connection.ask(version, &request).await?;
            let fetched = answers(version, key.topic_id, answer).remove(&key).expect("one answer");
            let error = ErrorCode::try_from_code(fetched.error_code);
            if error == Some(ErrorCode::OffsetOutOfRange) && world.model.with(key, |it| it.retention) {
                // Retention has passed by.
                continue 'anew;
            }
            assert_eq!(error, None, "{hint}");
            let mut records = records::records_of(&bytes_of(&fetched), &hint);
            let last = records.last().unwrap_or_else(|| panic!("{hint}: nothing at {from} of {end}")).0;
            records.retain(|(offset, _)| offset.0 >= from);
            found.extend(records);
            from = last.0 + 1;
        }
        return Ok((Offset(start), found));
    }
}

/// A timestamp leads to the first record that is not older, -3 to the first of the newest.
async fn ask_by_timestamp(
    world: &World,
    connection: &Wire,
    key: PartitionKey,
    found: &[(Offset, Value)],
) -> Result<(), Gone> {
    let hint = world.model.hint(key);
    let name = world.model.name_of(key.topic_id).expect("its topic is there");
    let newest = found.iter().map(|(_, value)| timestamp_of(*value)).max();
    let timestamp = match world.rand.below(6) {
        0 => -3,
        1 if newest.is_some() => newest.unwrap_or(0) + world.rand.below(2) as i64,
        _ => FIRST_TIMESTAMP + world.rand.below(u64::from(TIMESTAMPS)) as i64,
    };
    let version = world.version(if timestamp == -3 { 7 } else { 1 }, 10);
    let listed = list_offset(connection, version, &name, key.partition, timestamp).await?;
    let listed = listed.unwrap_or_else(|error| panic!("{hint}: {error:?} for {timestamp}"));
    let wanted = if timestamp == -3 { newest.unwrap_or(i64::MAX) } else { timestamp };
    let expected = found.iter().find(|(_, value)| timestamp_of(*value) >= wanted);
    let expected = expected.map_or((-1, -1), |(offset, value)| (offset.0, timestamp_of(*value)));
    assert_eq!(listed, expected, "{hint}: timestamp {timestamp} v{version}");
    Ok(())
}

/// A fetch from any offset, the middle of a batch as well, gives what is there from it on.
async fn read_from_anywhere(
    world: &World,
    connection: &Wire,
    key: PartitionKey,
    found: &[(Offset, Value)],
) -> Result<(), Gone> {
    if found.is_empty() {
        return Ok(());
    }
    let hint = world.model.hint(key);
    let name = world.model.name_of(key.topic_id).expect("its topic is there");
    let place = world.rand.below(found.len() as u64) as usize;
    let from = found[place].0;
    let version = world.version(4, 18);
    let max_bytes = 1 + world.rand.below(20_000) as i32;
    let answer = connection.ask(version, &consumer::request(version, &name, &[(key, from.0, max_bytes)])).await?;
    let fetched = answers(version, key.topic_id, answer).remove(&key).expect("one answer");
    assert_eq!(fetched.error_code, 0, "{hint}: from {from}");
    let records = records::records_of(&bytes_of(&fetched), &hint);
    let first = records.first().unwrap_or_else(|| panic!("{hint}: nothing at {from}")).0;
    assert!(first <= from, "{hint}: asked from {from}, got from {first}");
    let records: Vec<_> = records.into_iter().filter(|(offset, _)| *offset >= from).collect();
    assert!(found[place..].starts_with(&records) && !records.is_empty(), "{hint}: from {from}: {records:?}");
    Ok(())
}
