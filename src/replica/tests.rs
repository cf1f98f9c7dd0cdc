//! Two replicas of one partition, with nobody between them but the test.

use std::{path::Path, rc::Rc};

use bytes::{Bytes, BytesMut};

use super::{follow::FollowError, *};
use crate::{
    base::{BrokerId, LeaderEpoch, TopicId},
    io::{Io, sim::Simulation},
    log::{CoreLog, KnownPartitions, LivePartitions, LogConfig, LogSettings, recover},
    partition::{AssignedRole, FollowRefusal, Isolation, PartitionState},
    protocol::batch::batches,
};

const LEADER: BrokerId = BrokerId(1);
const FOLLOWER: BrokerId = BrokerId(2);

fn key() -> PartitionKey {
    PartitionKey { topic_id: TopicId(uuid::Uuid::from_u128(100)), partition: 0 }
}

fn leads(epoch: i32, others: &[BrokerId]) -> Assignment {
    let others = others.iter().map(|id| (*id, true)).collect();
    Assignment { role: AssignedRole::Leader { others }, ..Assignment::alone(LeaderEpoch(epoch)) }
}

fn follows(epoch: i32) -> Assignment {
    Assignment { role: AssignedRole::Follower { leader: Some(LEADER) }, ..Assignment::alone(LeaderEpoch(epoch)) }
}

/// A replica in a directory of its own, whose flushes are followed as a core does it.
pub async fn open(io: &Io, directory: &str, assignment: &Assignment) -> Rc<Replica> {
    open_with(io, directory, assignment, LogSettings::default().dirty_max_bytes).await
}

async fn open_with(io: &Io, directory: &str, assignment: &Assignment, dirty_max_bytes: usize) -> Rc<Replica> {
    let mut live = LivePartitions::default();
    live.insert(key(), ("t".to_owned(), LogConfig::default()));
    let known = KnownPartitions::from(live);
    let settings = LogSettings {
        journal_start_bytes: 1 << 20,
        journal_file_bytes: 1 << 19,
        dirty_max_bytes,
        ..LogSettings::default()
    };
    let mut recovered = recover(io, Path::new(directory), &settings, 1, |_| Ok(known)).await.unwrap();
    let fatal = Rc::new(|reason| panic!("{reason}"));
    let (core_log, restored) = CoreLog::start(io, recovered.cores.remove(0), fatal).await.unwrap();
    let core_log = Rc::new(core_log);
    let found = restored.into_iter().find(|it| it.key == key());
    let (log, state) = match found {
        Some(found) => (found.log, found.state),
        None => (core_log.create(key(), "t", LogConfig::default()), PartitionState::default()),
    };
    let replica = Replica::new(io.clone(), log, Partition::restored(assignment, state));
    let source = replica.clone();
    core_log.set_state_source(Rc::new(move |_| Some(source.inspect(Partition::state))));
    let flushed = replica.clone();
    io.spawner.spawn(async move {
        loop {
            for (_, end) in core_log.next_flushed().await {
                flushed.flushed(end);
            }
        }
    });
    replica
}

pub fn values(values: &[&str]) -> ValidBatch {
    let mut batch = BatchBuilder::new();
    for value in values {
        batch.push(1, None, Some(value.as_bytes()));
    }
    built(batch)
}

fn from(offset: Offset, epoch: i32) -> FetchPartition {
    FetchPartition {
        fetch_offset: offset,
        partition_max_bytes: 1 << 20,
        current_leader_epoch: Some(LeaderEpoch(epoch)),
        last_fetched_epoch: None,
        log_start_offset: Offset(-1),
    }
}

fn joined(records: &[Slice]) -> Bytes {
    let mut all = BytesMut::new();
    records.iter().for_each(|slice| all.extend_from_slice(slice));
    all.freeze()
}

/// One fetch of the follower: what it has not got, and how far that is committed.
async fn pull(leader: &Replica, follower: &Replica, epoch: i32) {
    let asked = from(follower.durable_end(), epoch);
    let fetched = leader.fetch(&asked, Fetcher::Follower { broker: FOLLOWER, broker_epoch: 7 }, 1 << 20, true).await;
    assert_eq!(fetched.error, None);
    let records = joined(&fetched.records);
    follower.follow(&records, fetched.high_watermark, fetched.log_start_offset).await.unwrap();
    follower.log().flushed(follower.inspect(Partition::log_end_offset)).await.unwrap();
    follower.flushed(follower.inspect(Partition::log_end_offset));
}

async fn all_of(replica: &Replica, upto: Offset) -> Bytes {
    joined(&replica.read(Offset::ZERO, 1 << 20, upto, true).await.unwrap().slices)
}

#[test]
fn an_answer_waits_for_what_its_acks_promise() {
    Simulation::new(1).block_on(0, 0, |io| async move {
        let leader = open(&io, "leader", &leads(0, &[FOLLOWER])).await;
        let follower = open(&io, "follower", &follows(0)).await;
        let one = leader.append(values(&["a", "b"]), Acks::Leader);
        let mut all = leader.append(values(&["c"]), Acks::All);
        let stored = one.await.unwrap().unwrap();
        assert_eq!((stored.base_offset, leader.high_watermark()), (Offset(0), Offset(0)), "durable, not committed");
        leader.log().flushed(Offset(3)).await.unwrap();
        assert_eq!(all.try_recv(), None, "the follower has not got it");
        let consumer = Fetcher::Consumer(Isolation::ReadUncommitted);
        assert_eq!(leader.fetch(&from(Offset(0), 0), consumer, 1 << 20, true).await.bytes, 0, "nothing is committed");

        pull(&leader, &follower, 0).await;
        assert_eq!(follower.durable_end(), Offset(3));
        assert_eq!(all.try_recv(), None, "it has it on disk, and has not said so");
        pull(&leader, &follower, 0).await;
        assert_eq!(all.await.unwrap().unwrap().base_offset, Offset(2));
        assert_eq!((leader.high_watermark(), follower.high_watermark()), (Offset(3), Offset(3)));
        assert_eq!(all_of(&leader, Offset(3)).await, all_of(&follower, Offset(3)).await, "byte for byte");
    });
}

#[test]
fn a_follower_serves_nobody_and_takes_over_with_what_it_has() {
    Simulation::new(2).block_on(0, 0, |io| async move {
        let leader = open(&io, "leader", &leads(0, &[FOLLOWER])).await;
        let follower = open(&io, "follower", &follows(0)).await;
        let pending = leader.append(values(&["a"]), Acks::All);
        leader.log().flushed(Offset(1)).await.unwrap();
        pull(&leader, &follower, 0).await;
        let refused = Err(ErrorCode::NotLeaderOrFollower);
        assert_eq!(follower.append(values(&["x"]), Acks::Leader).await, Some(refused));
        assert_eq!(follower.delete_records(-1).await, Err(ErrorCode::NotLeaderOrFollower));
        let consumer = Fetcher::Consumer(Isolation::ReadUncommitted);
        let fetched = follower.fetch(&from(Offset(0), 0), consumer, 1 << 20, true).await;
        assert_eq!(fetched.error, Some(ErrorCode::NotLeaderOrFollower));
        let stranger = leader
            .fetch(&from(Offset(0), 0), Fetcher::Follower { broker: BrokerId(9), broker_epoch: 7 }, 1 << 20, true)
            .await;
        assert_eq!(stranger.error, Some(ErrorCode::NotLeaderOrFollower));

        // Terms change: whoever waited at the old leader is told, and the new one goes on where its log ends.
        let bell = Notify::new();
        let _number = leader.watch(&bell);
        let rung = bell.notified();
        leader.assign(&follows(1));
        rung.await;
        assert_eq!(pending.await, Some(refused));
        follower.assign(&leads(1, &[]));
        assert_eq!(follower.high_watermark(), Offset(1), "alone in sync, it commits what it has");
        let stored = follower.append(values(&["b"]), Acks::All).await.unwrap().unwrap();
        assert_eq!(stored.base_offset, Offset(1));
        let epochs = follower.inspect(|partition| partition.state_ref().epochs.export());
        assert_eq!(epochs, "0\n2\n0 0\n1 1\n");
    });
}

#[test]
fn what_does_not_continue_the_log_is_not_taken() {
    Simulation::new(3).block_on(0, 0, |io| async move {
        let leader = open(&io, "leader", &leads(2, &[FOLLOWER])).await;
        let follower = open(&io, "follower", &follows(2)).await;
        for value in ["a", "b", "c"] {
            leader.append(values(&[value]), Acks::Leader).await.unwrap().unwrap();
        }
        let records = all_of(&leader, Offset(3)).await;
        let first = batches(&records).next().unwrap().unwrap().bytes.len();
        let follow = |bytes: Vec<u8>| {
            let follower = follower.clone();
            async move { follower.follow(&bytes, Offset(0), Offset(0)).await }
        };
        let flipped = |place: usize| {
            let mut bytes = records[..first].to_vec();
            bytes[place] ^= 1;
            bytes
        };
        assert_eq!(follow(records[..first - 1].to_vec()).await, Err(FollowError::Malformed), "cut short");
        assert_eq!(follow(flipped(first - 1)).await, Err(FollowError::Malformed), "a record's last byte");
        assert_eq!(follow(flipped(15)).await, Err(FollowError::Refused(FollowRefusal::Epoch)), "of term 3");
        assert_eq!(follower.inspect(Partition::log_end_offset), Offset(0));

        assert_eq!(follow(records.to_vec()).await, Ok(()));
        let overlaps = FollowRefusal::Overlaps { log_end_offset: Offset(3) };
        assert_eq!(follow(records[..first].to_vec()).await, Err(FollowError::Refused(overlaps)), "twice");
        assert_eq!(follower.inspect(Partition::log_end_offset), Offset(3));
    });
}

#[test]
fn a_follower_that_was_killed_has_what_it_said_it_had() {
    let sim = Simulation::new(4);
    let durable = sim.block_on(0, 0, |io| async move {
        let leader = open(&io, "leader", &leads(0, &[FOLLOWER])).await;
        let follower = open(&io, "follower", &follows(0)).await;
        for _ in 0..5 {
            leader.append(values(&["a", "b"]), Acks::Leader).await.unwrap().unwrap();
            pull(&leader, &follower, 0).await;
        }
        (follower.durable_end(), follower.high_watermark())
    });
    sim.power_cut(0);
    sim.block_on(0, 0, move |io| async move {
        let follower = open(&io, "follower", &follows(0)).await;
        assert_eq!(follower.durable_end(), durable.0);
        assert!(follower.high_watermark() <= durable.1, "how far it is committed its leader will say");
        assert_eq!(follower.served(), Err(ErrorCode::NotLeaderOrFollower));
        let leader = open(&io, "leader", &leads(0, &[FOLLOWER])).await;
        pull(&leader, &follower, 0).await;
        pull(&leader, &follower, 0).await;
        assert_eq!((leader.high_watermark(), follower.high_watermark()), (Offset(10), Offset(10)));
    });
}

/// An append that waits for memory goes with leadership, and what it waited for must not be taken for the next one's.
#[test]
fn room_that_comes_for_an_append_that_was_refused_is_nobody_elses() {
    Simulation::new(5).block_on(0, 0, |io| async move {
        let replica = open_with(&io, "leader", &leads(0, &[]), 100_000).await;
        let of = |bytes: usize| values(&["x".repeat(bytes).as_str()]);
        let first = replica.append(of(80_000), Acks::All);
        let mut waits = replica.append(of(30_000), Acks::All);
        // It asks for its room.
        io.clock.yield_now().await;
        assert_eq!(replica.waiting.borrow().len(), 1);
        replica.assign(&follows(1));
        assert_eq!(waits.try_recv(), Some(Err(ErrorCode::NotLeaderOrFollower)));
        replica.assign(&leads(2, &[]));
        let larger = replica.append(of(60_000), Acks::All);
        assert_eq!(first.await, Some(Err(ErrorCode::NotLeaderOrFollower)));
        assert_eq!(larger.await.unwrap().unwrap().base_offset, Offset(1));
    });
}
