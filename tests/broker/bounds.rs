//! What is bounded: it is said, it cuts off nobody who only takes his time, and what the settings allow is accepted.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use super::{
    clients, confined,
    hostile::{frame, rss_kib},
    process::{Broker, fresh_directory},
};

/// Fetch v4 of partition 0 from an offset, of so many bytes.
fn fetch(topic: &str, offset: i64, bytes_max: i32) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend((-1i32).to_be_bytes());
    body.extend(0i32.to_be_bytes());
    body.extend(1i32.to_be_bytes());
    body.extend(bytes_max.to_be_bytes());
    body.push(0);
    body.extend(1i32.to_be_bytes());
    body.extend((topic.len() as i16).to_be_bytes());
    body.extend(topic.as_bytes());
    body.extend(1i32.to_be_bytes());
    body.extend(0i32.to_be_bytes());
    body.extend(offset.to_be_bytes());
    body.extend(bytes_max.to_be_bytes());
    frame(1, 4, &body)
}

fn answer(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; i32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// The offset behind the batches that a [`fetch`] brought, and their bytes.
fn fetched(answer: &[u8], topic: &str) -> (Option<i64>, usize) {
    let number = |at: usize| i32::from_be_bytes(answer[at..at + 4].try_into().expect("four bytes"));
    // Correlation id, throttle time, topics, name, partitions, index, error, two offsets, aborted transactions.
    let at = 4 + 4 + 4 + 2 + topic.len() + 4 + 4;
    assert_eq!(answer[at..at + 2], [0, 0], "an error");
    let at = at + 2 + 8 + 8 + 4;
    let length = number(at) as usize;
    let records = &answer[at + 4..at + 4 + length];
    let (mut from, mut next) = (0, None);
    while from < records.len() {
        let field = |at: usize, bytes: usize| &records[from + at..from + at + bytes];
        let base = i64::from_be_bytes(field(0, 8).try_into().expect("eight bytes"));
        let last = i32::from_be_bytes(field(23, 4).try_into().expect("four bytes"));
        next = Some(base + i64::from(last) + 1);
        from += 12 + i32::from_be_bytes(field(8, 4).try_into().expect("four bytes")) as usize;
    }
    assert_eq!(from, records.len(), "whole batches");
    (next, length)
}

#[test]
fn many_readers_that_pause_get_everything_and_memory_stays_within_its_bound() {
    const RECORDS: i64 = 24;
    const READERS: usize = 40;
    let directory = fresh_directory("pausing");
    let mut broker = Broker::start(&directory, &["--memory", "256MiB"]);
    clients::create_topic(broker.address(), "long", 1);
    let producer = clients::producer(broker.address(), &[]);
    let value = vec![b'x'; 900_000];
    let fill = || {
        for _ in 0..RECORDS {
            clients::send(&producer, "long", 0, None, &value).expect("an ack");
        }
    };
    fill();
    let readers: Vec<TcpStream> = (0..READERS)
        .map(|_| {
            let mut stream = broker.connect();
            stream.write_all(&fetch("long", 0, 20_000_000)).expect("sent");
            stream
        })
        .collect();
    // Longer than two seconds, and what they were answered leaves the cache meanwhile.
    for _ in 0..6 {
        fill();
        thread::sleep(Duration::from_millis(500));
    }
    let resident = rss_kib(broker.pid());
    assert!(resident < 256 * 1024, "{resident} KiB resident:\n{}", broker.log());
    let all = |mut stream: TcpStream| {
        let (mut next, mut bytes) = (0, 0);
        while next < RECORDS {
            if next > 0 {
                stream.write_all(&fetch("long", next, 20_000_000)).expect("sent");
            }
            let answer = answer(&mut stream).expect("the whole answer");
            let (reached, length) = fetched(&answer, "long");
            bytes += length;
            next = reached.expect("at least one batch");
        }
        bytes
    };
    for (reader, stream) in readers.into_iter().enumerate() {
        let bytes = all(stream);
        assert!(bytes >= RECORDS as usize * 900_000, "reader {reader} got {bytes} bytes:\n{}", broker.log());
    }
    broker.assert_alive();
}

#[test]
fn with_many_cores_requests_are_as_large_as_the_settings_say() {
    let directory = fresh_directory("large");
    let mut broker = Broker::start(&directory, &["--memory", "512MiB", "--cores", "16"]);
    // Produce v3 to nothing at all, as large as it may be: what follows the body of a request is ignored.
    let produce = |frame_bytes: usize| {
        let mut body = vec![0; frame_bytes - 10];
        body[..4].copy_from_slice(&[0xff, 0xff, 0, 1]);
        frame(0, 3, &body)
    };
    let largest = 100 << 20;
    let mut stream = broker.connect();
    stream.write_all(&produce(22)).expect("sent");
    let small = answer(&mut stream).expect("an answer");
    stream.write_all(&produce(largest)).expect("sent");
    assert_eq!(answer(&mut stream).expect("an answer"), small, "the same as to a small one");
    stream.write_all(&produce(largest + 1)[..100]).expect("sent");
    assert!(answer(&mut stream).is_err(), "one byte more is too much");
    // 32 MiB for each core, and a batch that is half of it.
    clients::create_topic_with(broker.address(), "heavy", 1, &[("max.message.bytes", "20000000")]);
    let settings = [("message.max.bytes", "16000000"), ("batch.size", "16000000")];
    let producer = clients::producer(broker.address(), &settings);
    let value: Vec<u8> = (0..15_000_000_usize).map(|at| ((at * 31) >> 4) as u8).collect();
    clients::send(&producer, "heavy", 0, None, &value).expect("an ack");
    let read = clients::read_all(broker.address(), "heavy", 0);
    assert!(read.len() == 1 && read[0].value.as_ref() == Some(&value), "another value came back");
    broker.assert_alive();
    assert!(!broker.log().contains("socket.request.max.bytes="), "{}", broker.log());
}

#[test]
fn what_memory_does_not_carry_is_said_at_the_start_and_told_as_it_is() {
    let directory = fresh_directory("undercut");
    let memory = ["--memory", "64MiB", "--override", "max.connections=5000"];
    let broker = Broker::start(&directory, &memory);
    let log = broker.log();
    assert!(log.contains("socket.request.max.bytes=104857600, but 64 MiB"), "{log}");
    assert!(log.contains("max.connections=5000, but 64 MiB"), "{log}");
    let described = clients::broker_config(broker.address(), &["socket.request.max.bytes", "max.connections"]);
    let number = |at: usize| described[at].as_deref().expect("a value").parse::<usize>().expect("a number");
    assert!((15_000_000..17_000_000).contains(&number(0)), "{described:?}");
    assert!((700..1025).contains(&number(1)), "{described:?}");
    let mut stream = broker.connect();
    stream.write_all(&(100_i32 << 20).to_be_bytes()).expect("sent");
    assert!(answer(&mut stream).is_err());
    assert!(broker.log().contains("the memory for requests allows"), "{}", broker.log());
}

#[test]
fn fifty_producers_of_large_batches_stay_within_the_least_memory() {
    const PRODUCERS: i32 = 50;
    let directory = fresh_directory("least");
    let mut broker = Broker::start(&directory, &["--memory", "64MiB"]);
    clients::create_topic(broker.address(), "heavy", PRODUCERS);
    let value = vec![b'x'; 900_000];
    let producers: Vec<_> = (0..PRODUCERS).map(|_| clients::producer(broker.address(), &[])).collect();
    let mut most = 0;
    for _ in 0..8 {
        let sent: Vec<_> = (0..)
            .zip(&producers)
            .map(|(partition, producer)| clients::send_later(producer, "heavy", partition, &value))
            .collect();
        for delivery in sent {
            most = most.max(rss_kib(broker.pid()));
            clients::delivered(delivery).expect("an ack");
        }
    }
    assert!(most < 64 * 1024, "{most} KiB resident");
    broker.assert_alive();
}

#[test]
fn a_connection_too_many_is_refused_with_a_line_and_the_others_are_served() {
    let directory = fresh_directory("refused");
    let broker = Broker::start(&directory, &["--override", "max.connections=5"]);
    let mut served: Vec<TcpStream> = (0..5).map(|_| broker.connect()).collect();
    for _ in 0..20 {
        let mut refused = broker.connect();
        let _ = refused.write_all(&frame(18, 0, &[]));
        assert!(answer(&mut refused).is_err(), "a sixth was served");
    }
    for stream in &mut served {
        stream.write_all(&frame(18, 0, &[])).expect("sent");
        answer(stream).expect("an answer");
    }
    let log = broker.log();
    assert_eq!(log.matches("connection refused").count(), 1, "{log}");
    assert!(log.contains("5 connections are open"), "{log}");
}

#[test]
fn five_thousand_connections_beside_one_are_served_and_cost_little() {
    const CONNECTIONS: usize = 5000;
    if let Err(error) = confined::open_files(CONNECTIONS as u64 + 500) {
        eprintln!("skipped: this process may not open so many files: {error}");
        return;
    }
    let directory = fresh_directory("crowd");
    let mut broker = Broker::start(&directory, &["--memory", "512MiB"]);
    clients::create_topic(broker.address(), "busy", 1);
    let producer = clients::producer(broker.address(), &[]);
    clients::send(&producer, "busy", 0, None, b"before").expect("an ack");
    let before = rss_kib(broker.pid());
    let mut crowd: Vec<TcpStream> = (0..CONNECTIONS).map(|_| broker.connect()).collect();
    for stream in crowd.iter_mut().step_by(100) {
        stream.write_all(&frame(18, 0, &[])).expect("sent");
    }
    for stream in crowd.iter_mut().step_by(100) {
        answer(stream).expect("an answer");
    }
    clients::send(&producer, "busy", 0, None, b"beside").expect("an ack");
    // The last one was accepted, so all of them have been.
    let last = crowd.last_mut().expect("thousands");
    last.write_all(&frame(18, 0, &[])).expect("sent");
    answer(last).expect("an answer");
    let each = (rss_kib(broker.pid()) - before) as usize * 1024 / CONNECTIONS;
    assert!(each < 8 << 10, "an idle connection takes {each} bytes");
    broker.assert_alive();
    assert!(!broker.log().contains("connection refused"), "{}", broker.log());
}
