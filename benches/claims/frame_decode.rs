//! A frame becomes a request: head read, lengths held against the bytes that are there, codec. Records stay where they lie.

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        FetchRequest, ProduceRequest, RequestHeader, TopicName,
        fetch_request::{FetchPartition, FetchTopic},
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::{Decodable, Encodable, HeaderVersion, StrBytes},
};
use ringtail::internals::{
    api,
    protocol::{frame, guard},
};

use crate::case::Case;

pub fn cases() -> Vec<Case> {
    let one_record = produce(1, 1024);
    let many_partitions = produce(50, 1024);
    let fetch = fetch(100);
    vec![
        Case::new("frame_decode/produce_1_partition", move || decode::<ProduceRequest>(&one_record)),
        Case::new("frame_decode/produce_50_partitions", move || decode::<ProduceRequest>(&many_partitions)),
        Case::new("frame_decode/fetch_100_partitions", move || decode::<FetchRequest>(&fetch)),
    ]
}

/// As `api` does for each frame.
fn decode<R: Decodable>(frame: &Bytes) -> usize {
    let api = frame::peek(frame).and_then(|(key, _)| api::request(key));
    let head = frame::parse(frame.clone(), api).expect("a good head");
    let taken = guard::check(head.api, head.version, &head.body).expect("honest lengths");
    let mut body = head.body;
    let request = R::decode(&mut body, head.version).expect("a good body");
    drop(request);
    taken
}

fn produce(partitions: i32, record_bytes: usize) -> Bytes {
    let data = (0..partitions).map(|index| {
        PartitionProduceData::default().with_index(index).with_records(Some(vec![7; record_bytes].into()))
    });
    let topic = TopicProduceData::default().with_name(name()).with_partition_data(data.collect());
    framed(0, 9, &ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic]))
}

fn fetch(partitions: i32) -> Bytes {
    let asked = (0..partitions).map(|index| {
        FetchPartition::default().with_partition(index).with_fetch_offset(1 << 20).with_partition_max_bytes(1 << 20)
    });
    let topic = FetchTopic::default().with_topic(name()).with_partitions(asked.collect());
    framed(1, 12, &FetchRequest::default().with_max_bytes(50 << 20).with_min_bytes(1).with_topics(vec![topic]))
}

fn name() -> TopicName {
    TopicName(StrBytes::from_static_str("orders"))
}

fn framed<R: Encodable + HeaderVersion>(key: i16, version: i16, request: &R) -> Bytes {
    let mut out = BytesMut::new();
    RequestHeader::default()
        .with_request_api_key(key)
        .with_request_api_version(version)
        .with_correlation_id(5)
        .with_client_id(Some(StrBytes::from_static_str("rdkafka")))
        .encode(&mut out, R::header_version(version))
        .expect("a head that fits its version");
    request.encode(&mut out, version).expect("a request that fits its version");
    out.freeze()
}
