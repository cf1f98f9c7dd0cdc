//! After a restart, before clients come back: what is there, held against what was promised. And at the end, all of it.

use std::time::Duration;

use crate::{
    base::{ErrorCode, Offset, PartitionKey},
    partition::Isolation,
    shard::{FetchCall, OffsetsCall, Router},
    sim::{consumer::part, member, records, world::World},
};

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

/// Reads everything that is there, of partitions and of groups.
pub async fn all(world: &World, router: &Router) {
    for key in world.model.keys() {
        let ends = ends_of(world, router, key).await;
        let (mut start, end) = ends.unwrap_or_else(|| panic!("{}: offline on a good disk", world.model.hint(key)));
        let mut found = Vec::new();
        let mut from = start;
        while from < end {
            let call = FetchCall {
                partitions: vec![(key, part(from.0, 1 << 20))],
                isolation: Isolation::ReadUncommitted,
                max_bytes: 1 << 20,
                min_bytes: 1,
                max_wait: Duration::ZERO,
            };
            let fetched = router.fetch(call).await.pop().expect("one answer");
            let hint = world.model.hint(key);
            let retention = world.model.with(key, |it| it.retention);
            if retention && fetched.error == Some(ErrorCode::OffsetOutOfRange) {
                // Retention has passed by.
                start = fetched.log_start_offset;
                from = start;
                found.clear();
                continue;
            }
            assert_eq!(fetched.error, None, "{hint}");
            let mut records = records::records(&fetched.records, &hint);
            let last = records.last().unwrap_or_else(|| panic!("{hint}: nothing at {from} of {end}")).0;
            records.retain(|(offset, _)| *offset >= from);
            found.extend(records);
            from = last.plus(1);
        }
        world.model.all(key, start, &found);
    }
    let committed: Vec<_> = world.model.committed.borrow().keys().cloned().collect();
    for (group, index) in committed {
        let partition = router.coordinator_of(&group).expect("somebody committed");
        let answer = router.group(partition, member::fetch_request(&group, index)).await;
        let answer = answer.unwrap_or_else(|error| panic!("{}: {group}: {error:?}", world.seed()));
        world.model.committed(&group, index, member::fetched_offset(&answer).max(0));
    }
}
