//! Segments that were damaged between two lives of the real process: said by the check and at the start, and answered for
//! by their own partition alone.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use kafka_protocol::{
    messages::{FetchResponse, ListOffsetsResponse},
    protocol::Decodable,
};

use super::{
    check::{check, flip},
    clients, hostile,
    process::{Broker, fresh_directory},
};

const CORRUPT_MESSAGE: i16 = 2;
const KAFKA_STORAGE_ERROR: i16 = 56;

/// The answer to a request, behind its correlation id.
fn ask(stream: &mut TcpStream, key: i16, version: i16, body: &[u8]) -> Bytes {
    stream.write_all(&hostile::frame(key, version, body)).expect("a broker that reads");
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("an answer");
    let mut answer = vec![0; i32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).expect("all of it");
    let mut answer = Bytes::from(answer);
    answer.advance(4);
    answer
}

/// One topic and its first partition, as most requests write them.
fn first_partition_of(topic: &str) -> Vec<u8> {
    let mut body = 1i32.to_be_bytes().to_vec();
    body.extend((topic.len() as i16).to_be_bytes());
    body.extend(topic.as_bytes());
    body.extend(1i32.to_be_bytes());
    body.extend(0i32.to_be_bytes());
    body
}

/// The error of a fetch from the beginning.
fn fetched(broker: &Broker, topic: &str) -> i16 {
    let mut body = (-1i32).to_be_bytes().to_vec();
    for number in [0i32, 1, 1 << 20] {
        body.extend(number.to_be_bytes());
    }
    body.push(0);
    body.extend(first_partition_of(topic));
    body.extend(0i64.to_be_bytes());
    body.extend((1i32 << 20).to_be_bytes());
    let answer = FetchResponse::decode(&mut ask(&mut broker.connect(), 1, 4, &body), 4).expect("of that version");
    answer.responses[0].partitions[0].error_code
}

/// The error of a question for the end.
fn asked_for_the_end(broker: &Broker, topic: &str) -> i16 {
    let mut body = (-1i32).to_be_bytes().to_vec();
    body.extend(first_partition_of(topic));
    body.extend((-1i64).to_be_bytes());
    let answer = ListOffsetsResponse::decode(&mut ask(&mut broker.connect(), 2, 1, &body), 1).expect("of that version");
    answer.topics[0].partitions[0].error_code
}

/// Waits for a line that holds all of these.
fn wait_for_line(broker: &Broker, parts: &[&str]) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !broker.log().lines().any(|line| parts.iter().all(|part| line.contains(part))) {
        assert!(Instant::now() < deadline, "no line with {parts:?}:\n{}", broker.log());
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_damaged_segment_takes_its_partition_offline_and_no_other() {
    let directory = fresh_directory("offline");
    let broker = Broker::start(&directory, &[]);
    let data = broker.data();
    for topic in ["damaged", "whole"] {
        clients::create_topic(broker.address(), topic, 1);
        let producer = clients::producer(broker.address(), &[("linger.ms", "0")]);
        for _ in 0..10 {
            clients::send(&producer, topic, 0, None, &[b'v'; 100]).expect("acknowledged");
        }
    }
    let (status, _) = broker.terminate();
    assert!(status.success());

    let segment = data.join("damaged-0/00000000000000000000.log");
    let segment_named = segment.display().to_string();
    flip(&segment, 80);
    let (said, fine) = check(&data);
    assert!(!fine && said.contains(&format!("{segment_named} at position 0")), "{said}");
    assert!(said.contains("damaged-0 is offline there, the others are served"), "{said}");
    assert!(!said.contains("whole-0"), "{said}");

    let broker = Broker::start(&directory, &[]);
    assert_eq!(fetched(&broker, "damaged"), CORRUPT_MESSAGE, "whoever met the damage hears of it");
    wait_for_line(&broker, &["goes offline", &segment_named, "position 0"]);
    assert_eq!(fetched(&broker, "damaged"), CORRUPT_MESSAGE, "and whoever comes later");
    assert_eq!(asked_for_the_end(&broker, "damaged"), KAFKA_STORAGE_ERROR);
    assert_eq!(asked_for_the_end(&broker, "whole"), 0);
    assert_eq!(clients::read_all(broker.address(), "whole", 0).len(), 10);
    let producer = clients::producer(broker.address(), &[]);
    assert_eq!(clients::send(&producer, "whole", 0, None, b"one more").expect("acknowledged"), 10);
    broker.terminate();

    flip(&segment, 80);
    let broker = Broker::start(&directory, &[]);
    assert_eq!(clients::read_all(broker.address(), "damaged", 0).len(), 10, "the next start tries again");
}

#[test]
fn segments_that_are_missing_or_short_are_named_though_nobody_reads_them() {
    let directory = fresh_directory("missing");
    let broker = Broker::start(&directory, &[]);
    let data = broker.data();
    clients::create_topic_with(broker.address(), "holes", 1, &[("segment.bytes", "1048576")]);
    let producer = clients::producer(broker.address(), &[("linger.ms", "0")]);
    for _ in 0..9 {
        clients::send(&producer, "holes", 0, None, &[b'v'; 400_000]).expect("acknowledged");
    }
    let (status, _) = broker.terminate();
    assert!(status.success());

    // Two of them fit into a segment.
    let segment = |base: u64| data.join(format!("holes-0/{base:020}.log"));
    fs::remove_file(segment(2)).expect("a finished segment");
    fs::File::options().write(true).open(segment(4)).and_then(|file| file.set_len(500_000)).expect("another");
    let (said, fine) = check(&data);
    assert!(!fine, "{said}");
    for base in [2, 4] {
        assert!(said.contains(segment(base).to_str().expect("text")), "{said}");
    }
    let broker = Broker::start(&directory, &[]);
    for base in [2, 4] {
        wait_for_line(&broker, &["missing or too short", segment(base).to_str().expect("text")]);
    }
    assert!(!broker.log().contains(segment(0).to_str().expect("text")), "{}", broker.log());
    assert_eq!(fetched(&broker, "holes"), 0, "what is there is served");
}
