//! The consumer against replies made by hand.

use bytes::BytesMut;
use kafka_protocol::{
    messages::{TopicName, fetch_response::FetchableTopicResponse},
    protocol::StrBytes,
};
use uuid::Uuid;

use super::*;
use crate::{
    client::cluster::{Partition, Topic},
    records::{
        batch::{BatchWriter, Identity, seal},
        compress::Codec,
    },
};

fn consumer(partitions: i32, ledger: &Arc<Ledger>) -> Consumer {
    let layout = Layout {
        topics: vec![Topic { name: TopicName(StrBytes::from_static_str("t")), id: Uuid::from_u128(5) }],
        partitions: (0..partitions).map(|index| Partition { topic: 0, index }).collect(),
    };
    let numbers = layout.numbers();
    let settings = Settings {
        numbers,
        layout: Arc::new(layout),
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 1 << 20,
        partition_max_bytes: 1 << 20,
        check_crc: true,
        run: 9,
        positions: (0..partitions).map(|_| AtomicI64::new(0)).collect(),
        start_at: 0,
        last_read: AtomicU64::new(0),
    };
    let all = (0..partitions as u32).collect();
    let mut consumer = Consumer::new(Arc::new(settings), Some(Arc::clone(ledger)), all);
    consumer.set_leaders(&vec![Some(1); partitions as usize]);
    consumer.connected(1);
    consumer
}

fn batch(base_offset: i64, sequences: std::ops::Range<u64>) -> bytes::Bytes {
    let mut writer = BatchWriter::start(BytesMut::new(), 5);
    for sequence in sequences {
        let stamp = Stamp { run: 9, producer: 3, sequence, intended_ns: 1_000 };
        writer.push(6, None, &stamp.encode(), b"payload");
    }
    let mut bytes = writer.finish(Codec::None, &mut Vec::new()).unwrap();
    bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
    seal(bytes, Identity::NONE)
}

fn reply(session: i32, data: Vec<PartitionData>) -> FetchResponse {
    let topic = FetchableTopicResponse::default().with_topic_id(Uuid::from_u128(5)).with_partitions(data);
    FetchResponse::default().with_session_id(session).with_responses(vec![topic])
}

fn data(partition: i32, records: bytes::Bytes) -> PartitionData {
    PartitionData::default().with_partition_index(partition).with_records(Some(records))
}

fn named(request: &FetchRequest) -> Vec<(i32, i64)> {
    let partitions = request.topics.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|p| (p.partition, p.fetch_offset)).collect()
}

#[test]
fn a_session_names_only_what_changed() {
    let ledger = Arc::new(Ledger::new(3));
    let mut consumer = consumer(3, &ledger);
    let mut recorder = Recorder::default();
    let first = consumer.next_request(1, 18, 0).unwrap();
    assert_eq!((first.session_id, first.session_epoch), (0, 0));
    assert_eq!(named(&first), [(0, 0), (1, 0), (2, 0)]);
    assert!(consumer.next_request(1, 18, 0).is_none(), "one fetch at a time");

    consumer.on_reply(1, 5_000, &reply(77, vec![data(1, batch(0, 0..4))]), &mut recorder);
    let second = consumer.next_request(1, 18, 0).unwrap();
    assert_eq!((second.session_id, second.session_epoch), (77, 1));
    assert_eq!(named(&second), [(1, 4)]);
    assert_eq!(recorder.measured.histogram(Metric::EndToEnd).len(), 4);
    assert_eq!(recorder.measured.histogram(Metric::EndToEnd).max(), 4_001);

    let lost = FetchResponse::default().with_error_code(codes::FETCH_SESSION_ID_NOT_FOUND);
    consumer.on_reply(1, 6_000, &lost, &mut recorder);
    let third = consumer.next_request(1, 18, 0).unwrap();
    assert_eq!((third.session_id, third.session_epoch), (0, 0));
    assert_eq!(named(&third), [(0, 0), (1, 4), (2, 0)]);
}

#[test]
fn a_partition_taken_away_is_forgotten() {
    let ledger = Arc::new(Ledger::new(2));
    let mut consumer = consumer(2, &ledger);
    let mut recorder = Recorder::default();
    consumer.next_request(1, 18, 0).unwrap();
    consumer.on_reply(1, 1, &reply(7, vec![]), &mut recorder);
    consumer.assign(BTreeSet::from([1]));
    let request = consumer.next_request(1, 18, 2).unwrap();
    assert_eq!(request.forgotten_topics_data[0].partitions, [0]);
    assert!(named(&request).is_empty());
}

#[test]
fn a_corrupt_batch_is_found_and_passed() {
    let ledger = Arc::new(Ledger::new(1));
    let mut consumer = consumer(1, &ledger);
    let mut recorder = Recorder::default();
    consumer.next_request(1, 18, 0).unwrap();
    let mut bytes = batch(0, 0..2).to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    consumer.on_reply(1, 1, &reply(7, vec![data(0, bytes.into())]), &mut recorder);
    let verdict = ledger.verdict(|_| "t-0".to_owned());
    assert_eq!(verdict.corrupt_batches, 1);
    assert!(consumer.next_request(1, 18, 1).is_none(), "held");
    assert_eq!(named(&consumer.next_request(1, 18, HOLD_NS + 1).unwrap()), [(0, 1)]);
}

#[test]
fn errors_hold_and_ask_for_metadata() {
    let ledger = Arc::new(Ledger::new(1));
    let mut consumer = consumer(1, &ledger);
    let mut recorder = Recorder::default();
    consumer.next_request(1, 18, 0).unwrap();
    let moved = PartitionData::default().with_error_code(6);
    consumer.on_reply(1, 1, &reply(7, vec![moved]), &mut recorder);
    assert!(consumer.wants_metadata);
    assert_eq!(recorder.measured.counters.retries, BTreeMap::from([(6, 1)]));
    assert_eq!(consumer.next_wakeup(), HOLD_NS + 1);
    consumer.set_leaders(&[Some(2)]);
    consumer.connected(2);
    assert_eq!(named(&consumer.next_request(2, 18, 2).unwrap()), [(0, 0)]);
}

#[test]
fn a_throttled_consumer_keeps_silent() {
    let ledger = Arc::new(Ledger::new(1));
    let mut consumer = consumer(1, &ledger);
    let mut recorder = Recorder::default();
    consumer.next_request(1, 18, 0).unwrap();
    consumer.throttle(1, 5, 5 + 3 * HOLD_NS, &mut recorder);
    consumer.on_reply(1, 5, &reply(7, vec![data(0, batch(0, 0..2))]), &mut recorder);
    assert!(consumer.next_request(1, 18, 4 + 3 * HOLD_NS).is_none(), "silent until then");
    assert_eq!(consumer.next_wakeup(), 5 + 3 * HOLD_NS);
    assert_eq!(recorder.measured.counters.throttled_ns, 3 * HOLD_NS);
    assert_eq!(named(&consumer.next_request(1, 18, 5 + 3 * HOLD_NS).unwrap()), [(0, 2)]);
}

/// Whatever the broker answers, for a partition or as a whole, is counted by its code, asked for again, and loses nothing.
#[test]
fn every_code_is_counted_and_asked_for_again() {
    for code in (-1..=133).filter(|code| *code != codes::NONE) {
        let ledger = Arc::new(Ledger::new(2));
        let mut consumer = consumer(2, &ledger);
        let mut recorder = Recorder::default();
        consumer.next_request(1, 18, 0).unwrap();
        consumer.on_reply(1, 1, &reply(7, vec![data(1, batch(0, 0..3))]), &mut recorder);
        consumer.next_request(1, 18, 2).unwrap();
        let refused = PartitionData::default().with_partition_index(1).with_error_code(code).with_log_start_offset(2);
        consumer.on_reply(1, 3, &reply(7, vec![refused]), &mut recorder);
        assert!(consumer.wants_metadata, "code {code}");
        assert!(consumer.next_request(1, 18, 4).is_none(), "code {code}: not at once");
        let again = consumer.next_request(1, 18, 3 + HOLD_NS).unwrap();
        let from = if code == codes::OFFSET_OUT_OF_RANGE { 2 } else { 3 };
        assert_eq!(named(&again), [(1, from)], "code {code}");
        assert_eq!(recorder.measured.counters.retries, BTreeMap::from([(code, 1)]));

        let whole = FetchResponse::default().with_error_code(code);
        let now = 4 + HOLD_NS;
        consumer.on_reply(1, now, &whole, &mut recorder);
        let again = consumer.next_request(1, 18, now + HOLD_NS).unwrap();
        assert_eq!((again.session_id, again.session_epoch), (0, 0), "code {code}: a session of its own");
        assert_eq!(named(&again), [(0, 0), (1, from)], "code {code}");
    }
}

#[test]
fn a_lost_connection_ends_the_session_and_no_position_moves() {
    let ledger = Arc::new(Ledger::new(1));
    let mut consumer = consumer(1, &ledger);
    let mut recorder = Recorder::default();
    consumer.next_request(1, 18, 0).unwrap();
    consumer.on_reply(1, 1, &reply(7, vec![data(0, batch(0, 0..3))]), &mut recorder);
    consumer.next_request(1, 18, 2).unwrap();
    consumer.on_disconnect(1);
    assert!(consumer.wants_metadata);
    assert!(consumer.next_request(1, 18, 3).is_none(), "not connected");
    consumer.connected(1);
    let again = consumer.next_request(1, 18, 4).unwrap();
    assert_eq!((again.session_id, again.session_epoch), (0, 0));
    assert_eq!(named(&again), [(0, 3)]);
}
