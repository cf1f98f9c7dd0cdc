//! Batches that their topic wants in another codec: what is made anew is counted until it is stored.

use std::time::Duration;

use kafka_protocol::messages::{
    ProduceRequest, TopicName,
    produce_request::{PartitionProduceData, TopicProduceData},
};

use crate::{
    base::{Offset, PartitionKey, ProducerId, TopicId},
    config,
    protocol::compression::Compression,
    sim::{
        bench::{Bench, call},
        broker::Settings,
        member::text,
        records::{self, Value},
        wire::Wire,
    },
};

/// A few of the batches below.
const REWRITE_BYTES_MAX: usize = 300_000;
const PARTITIONS: i32 = 16;
const RECORDS: u32 = 100;

/// One batch for each partition, which is many times as long when it is not compressed.
fn request(numbers: std::ops::Range<u32>) -> ProduceRequest {
    let values = numbers.map(|number| Value { writer: 0, number });
    let batch = records::batch(values, (ProducerId::NONE, -1), Compression::Zstd);
    let partitions = (0..PARTITIONS)
        .map(|index| PartitionProduceData::default().with_index(index).with_records(Some(batch.clone())))
        .collect();
    let topic = TopicProduceData::default().with_name(TopicName(text("t"))).with_partition_data(partitions);
    ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic])
}

#[test]
fn what_is_made_anew_is_bounded_and_requests_that_have_some_wait_for_no_other() {
    let overrides = ["compression.type=uncompressed", "message.max.bytes=100000", "offsets.topic.num.partitions=1"];
    let config = config::load(None, &overrides.map(str::to_owned)).expect("good settings").config;
    for seed in 0..5 {
        let settings = Settings { config: config.clone(), rewrite_bytes_max: REWRITE_BYTES_MAX, ..Settings::small() };
        let bench = Bench::start_with(seed, 2, settings);
        let topic_id: TopicId = bench.topic("t", PARTITIONS);
        let memory = bench.router(0).rewrite_memory().clone();
        let clients = [(); 3].map(|()| Wire::open(&bench.life).expect("the broker serves"));
        let mut answers = Vec::new();
        for client in &clients {
            for round in 0..2 {
                answers.push(client.begin(9, &request(round * RECORDS..(round + 1) * RECORDS)));
            }
        }
        let mut most = 0;
        for _ in 0..2000 {
            bench.sim.run_steps(10);
            most = most.max(memory.held());
        }
        assert!((REWRITE_BYTES_MAX / 2..=REWRITE_BYTES_MAX).contains(&most), "seed {seed}: {most}");
        for answer in answers {
            let answer = bench.wait(answer).expect("the broker lives");
            let partitions = &answer.responses[0].partition_responses;
            assert_eq!(partitions.len(), PARTITIONS as usize, "seed {seed}");
            let stored = |index: usize| partitions[index].error_code == 0 && partitions[index].index == index as i32;
            assert!((0..partitions.len()).all(stored), "seed {seed}: {partitions:?}");
        }
        assert_eq!(memory.held(), 0, "seed {seed}: all of it is stored");
        for partition in 0..PARTITIONS {
            let key = PartitionKey { topic_id, partition };
            let end = bench.fetch(0, call(&[(key, 0)], 1, Duration::ZERO)).pop().expect("one answer").high_watermark;
            assert_eq!(end, Offset(6 * i64::from(RECORDS)), "seed {seed}, {partition}: every batch once");
        }
    }
}
