//! A client's batch is held against Kafka's rules: sum, structure, once over every record.

use bytes::Bytes;
use ringtail::internals::{
    base::Timestamp,
    partition::{TopicRules, validate},
    protocol::{batch::BatchBuilder, compression::Compression},
};

use crate::case::Case;

const NOW: Timestamp = 1_700_000_000_000;
const PRODUCE_VERSION: i16 = 9;

pub fn cases() -> Vec<Case> {
    vec![
        case("batch_validation/1_record_of_1_kib", batch(Compression::None, 1, 1024)),
        case("batch_validation/1000_records_of_100_bytes", batch(Compression::None, 1000, 100)),
        case("batch_validation/1000_records_of_100_bytes_lz4", batch(Compression::Lz4, 1000, 100)),
    ]
}

fn case(name: &'static str, batch: Bytes) -> Case {
    let rules = TopicRules::default();
    Case::new(name, move || {
        let valid = validate(batch.clone(), &rules, PRODUCE_VERSION, NOW).expect("a good batch");
        valid.bytes.len()
    })
}

fn batch(codec: Compression, records: i64, value_bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new().compressed(codec, codec.default_level());
    for index in 0..records {
        // Neither constant nor noise: about half of it compresses.
        let value: Vec<u8> = (0..value_bytes as i64).map(|at| ((at * (index % 17 + 1)) >> 2) as u8).collect();
        builder.push(NOW + index, Some(&index.to_be_bytes()), Some(&value));
    }
    builder.build()
}
