//! Leader epochs over restarts of the real process, and a consumer that lives through them.

use std::{
    io::{Read, Write},
    time::Duration,
};

use bytes::{Buf, Bytes};
use kafka_protocol::{messages::MetadataResponse, protocol::Decodable};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::Message,
};

use super::{
    clients, hostile,
    process::{Broker, fixed_port, fresh_directory},
};

/// The leader epoch of a topic's first partition, as Metadata v7 tells it.
fn leader_epoch(broker: &Broker, topic: &str) -> i32 {
    let mut body = 1i32.to_be_bytes().to_vec();
    body.extend((topic.len() as i16).to_be_bytes());
    body.extend(topic.as_bytes());
    body.push(0); // no auto-creation
    let mut stream = broker.connect();
    stream.write_all(&hostile::frame(3, 7, &body)).expect("a broker that reads");
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("an answer");
    let mut answer = vec![0; i32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).expect("all of it");
    let mut answer = Bytes::from(answer);
    answer.advance(4); // correlation id
    let answer = MetadataResponse::decode(&mut answer, 7).expect("an answer of that version");
    answer.topics[0].partitions[0].leader_epoch
}

fn consumed(consumer: &BaseConsumer, count: usize) -> Vec<String> {
    let mut values = Vec::new();
    for _ in 0..600 {
        // Anything else: the broker is away, or the end is reached.
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            values.push(String::from_utf8(message.payload().expect("a value").to_vec()).expect("text"));
        }
        if values.len() >= count {
            break;
        }
    }
    values
}

#[test]
fn a_consumer_goes_on_over_kill_9_in_a_new_epoch_and_a_clean_stop_keeps_it() {
    let directory = fresh_directory("epochs");
    let listener = format!("listeners=PLAINTEXT://127.0.0.1:{}", fixed_port());
    let start = || Broker::start(&directory, &["--override", &listener]);
    let broker = start();
    clients::create_topic(broker.address(), "t", 1);
    assert_eq!(leader_epoch(&broker, "t"), 0);
    let send = |broker: &Broker, values: &[&str]| {
        let producer = clients::producer(broker.address(), &[]);
        for value in values {
            clients::send(&producer, "t", 0, None, value.as_bytes()).expect("stored");
        }
    };
    send(&broker, &["a", "b", "c"]);
    let consumer = clients::consumer(broker.address(), "over", &[("reconnect.backoff.max.ms", "100")]);
    let mut all = TopicPartitionList::new();
    all.add_partition_offset("t", 0, Offset::Beginning).expect("a valid offset");
    consumer.assign(&all).expect("assigned");
    assert_eq!(consumed(&consumer, 3), ["a", "b", "c"]);

    broker.kill();
    let broker = start();
    assert_eq!(leader_epoch(&broker, "t"), 1, "after kill -9");
    send(&broker, &["d", "e"]);
    assert_eq!(consumed(&consumer, 2), ["d", "e"], "nothing again, nothing left out");

    let (status, _) = broker.terminate();
    assert!(status.success());
    let broker = start();
    assert_eq!(leader_epoch(&broker, "t"), 1, "after a clean stop");
    send(&broker, &["f"]);
    assert_eq!(consumed(&consumer, 1), ["f"]);
    broker.kill();
    let broker = start();
    broker.kill();
    let broker = start();
    assert_eq!(leader_epoch(&broker, "t"), 3, "after two kills");
    assert_eq!(clients::watermarks(broker.address(), "t", 0), (0, 6));
}
