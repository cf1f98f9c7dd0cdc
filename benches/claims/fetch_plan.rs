//! A fetch from memory is planned: what may be seen, where it lies, which slices of which chunks go out.

use std::{path::Path, rc::Rc};

use bytes::Bytes;
use ringtail::internals::{
    base::{LeaderEpoch, Offset, PartitionKey, TopicId},
    io::{Io, Simulation},
    log::{CoreLog, KnownPartitions, Log, LogConfig, LogSettings, recover},
    partition::{Assignment, FetchPartition, Fetcher, Isolation, Partition, PartitionState},
    protocol::batch::{BatchBuilder, BatchHeader, BatchInfo},
};
use uuid::Uuid;

use crate::case::Case;

const BATCHES: i64 = 1000;
const RECORD_BYTES: usize = 1000;
const KEY: PartitionKey = PartitionKey { topic_id: TopicId(Uuid::from_u128(9)), partition: 0 };

pub fn cases() -> Vec<Case> {
    vec![
        case("fetch_plan/the_last_batch", BATCHES - 1, 1 << 20),
        case("fetch_plan/64_kib_from_the_middle", BATCHES / 2, 64 << 10),
        case("fetch_plan/all_1000_batches", 0, 50 << 20),
    ]
}

fn case(name: &'static str, from: i64, max_bytes: i32) -> Case {
    let simulation = Simulation::new(1);
    let (core_log, log) = simulation.block_on(0, 0, |io| async move { filled(&io).await });
    let mut state = PartitionState { log_end_offset: Offset(BATCHES), ..PartitionState::default() };
    state.high_watermark = state.log_end_offset;
    let partition = Partition::restored(&Assignment::alone(LeaderEpoch(0)), state);
    let request = FetchPartition {
        fetch_offset: Offset(from),
        partition_max_bytes: max_bytes,
        current_leader_epoch: Some(LeaderEpoch(0)),
        last_fetched_epoch: None,
        log_start_offset: Offset(-1),
    };
    Case::new(name, move || {
        let _alive = (&core_log, &simulation);
        let plan = partition
            .plan_fetch(&request, Fetcher::Consumer(Isolation::ReadUncommitted))
            .expect("an offset that is there");
        let read = log.read_cached(plan.from, max_bytes as usize, plan.upto, true).expect("all of it is in memory");
        assert!(!read.slices.is_empty(), "something is read");
        read.bytes
    })
}

/// A log with all its batches in memory and none of its tasks running.
async fn filled(io: &Io) -> (CoreLog, Rc<Log>) {
    let settings = LogSettings::default();
    let recovered = recover(io, Path::new("data"), &settings, 1, |_| Ok(KnownPartitions::default())).await;
    let seed = recovered.expect("an empty disk").cores.remove(0);
    let started = CoreLog::start(io, seed, Rc::new(|why: String| panic!("{why}"))).await;
    let (core_log, _) = started.expect("a good disk");
    core_log.set_state_source(Rc::new(|_| None));
    let log = core_log.create(KEY, "bench", LogConfig::default());
    let batch = batch();
    let info = BatchInfo::of(&BatchHeader::parse(&batch).expect("our own batch"));
    for number in 0..BATCHES {
        let room = log.reserve(batch.len()).await.expect("room");
        log.append(room, &batch, &info.at(Offset(number), LeaderEpoch(0)));
    }
    (core_log, log)
}

fn batch() -> Bytes {
    let mut batch = BatchBuilder::new();
    batch.push(1_700_000_000_000, None, Some(&[7; RECORD_BYTES]));
    batch.build()
}
