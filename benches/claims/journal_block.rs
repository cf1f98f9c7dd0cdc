//! A journal block is built: entries of many partitions one behind the other, padded, summed.

use ringtail::internals::{
    base::{LeaderEpoch, Offset, PartitionKey, TopicId},
    io::{Io, Simulation},
    log::{AppendHead, BlockBuilder},
};
use uuid::Uuid;

use crate::case::Case;

/// What the log stamps and hands over apart from the rest.
const STAMP_BYTES: usize = 16;

pub fn cases() -> Vec<Case> {
    vec![
        case("journal_block/1_batch_of_1_kib", 1, 1024),
        case("journal_block/64_batches_of_1_kib", 64, 1024),
        case("journal_block/1_batch_of_1_mib", 1, 1 << 20),
    ]
}

fn case(name: &'static str, batches: u128, batch_bytes: usize) -> Case {
    // Only its memory is used, so the simulator never runs.
    let simulation = Simulation::new(1);
    let io = simulation.io(0, 0);
    let batch: Vec<u8> = (0..batch_bytes).map(|at| at as u8).collect();
    Case::new(name, move || {
        let _world = &simulation;
        block(&io, batches, &batch)
    })
}

fn block(io: &Io, batches: u128, batch: &[u8]) -> usize {
    let buffer = io.disk.allocate((64 + batches as usize * (batch.len() + 64)).next_multiple_of(4096));
    let mut block = BlockBuilder::new(buffer);
    for number in 0..batches {
        let head = AppendHead {
            key: PartitionKey { topic_id: TopicId(Uuid::from_u128(number)), partition: 3 },
            base_offset: Offset(1 << 30),
            leader_epoch: LeaderEpoch(4),
            segment_base: Offset(1 << 20),
            position: 77,
            length: batch.len() as u32,
        };
        let (stamp, rest) = batch.split_at(STAMP_BYTES);
        block.add(&[&head.encode(), stamp, rest]);
    }
    let sum = block.seal([7; 16], 42, 43, 41);
    block.into_buffer().len() + (sum & 1) as usize
}
