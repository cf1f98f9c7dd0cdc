//! The same behaviour with one executor, two, and more than the machine has.

use super::{
    clients,
    process::{Broker, command, fresh_directory},
};

const PARTITIONS: i32 = 3;
const RECORDS: i32 = 200;

/// What clients see, in words.
fn seen(cores: &str) -> Vec<String> {
    let directory = fresh_directory(&format!("cores-{cores}"));
    let broker = Broker::start(&directory, &["--cores", cores]);
    clients::create_topic(broker.address(), "same", PARTITIONS);
    let producer = clients::producer(broker.address(), &[("enable.idempotence", "true")]);
    let mut seen = Vec::new();
    for number in 0..RECORDS {
        let offset = clients::send(&producer, "same", number % PARTITIONS, Some(b"key"), number.to_string().as_bytes());
        seen.push(format!("{number} at {}", offset.expect("an ack")));
    }
    clients::delete_records(broker.address(), "same", 1, 7);
    clients::commit(broker.address(), "readers", "same", 2, 11);
    seen.push(values(&broker, 1));
    broker.kill();
    let broker = Broker::start(&directory, &["--cores", cores]);
    seen.extend((0..PARTITIONS).map(|partition| values(&broker, partition)));
    seen.push(format!("{:?}", clients::watermarks(broker.address(), "same", 1)));
    seen.push(format!("{:?}", clients::committed(broker.address(), "readers", "same", 2)));
    let (status, _) = broker.terminate();
    seen.push(format!("{status}"));
    seen
}

fn values(broker: &Broker, partition: i32) -> String {
    let messages = clients::read_all(broker.address(), "same", partition);
    let text = |value: Option<Vec<u8>>| String::from_utf8(value.expect("a value")).expect("text");
    messages.into_iter().map(|message| format!("{}={} ", message.offset, text(message.value))).collect()
}

#[test]
fn one_two_or_eight_executors_behave_alike() {
    let one = seen("1");
    assert_eq!(one.len() as i32, RECORDS + 1 + PARTITIONS + 3);
    for cores in ["2", "8"] {
        assert_eq!(seen(cores), one, "{cores} executors");
    }
}

/// Producers of small records, one partition each, on connections that land where they land.
#[test]
fn a_producer_s_connection_moves_to_the_core_of_its_partition() {
    const PRODUCERS: i32 = 24;
    let directory = fresh_directory("move");
    let mut command = command(&directory, &["--cores", "2"]);
    command.env("RINGTAIL_LOG", "debug");
    let broker = Broker::spawn(&directory, command);
    clients::create_topic(broker.address(), "moving", PRODUCERS);
    let producers: Vec<_> = (0..PRODUCERS)
        // Half of them have several requests in flight when the connection moves.
        .map(|partition| {
            let in_flight = if partition % 2 == 0 { "1" } else { "5" };
            let settings = [("enable.idempotence", "true"), ("max.in.flight", in_flight), ("batch.num.messages", "1")];
            clients::producer(broker.address(), &settings)
        })
        .collect();
    for (partition, producer) in (0..).zip(&producers) {
        let value = |number: i64| format!("{partition}-{number}");
        let deliveries =
            (0..120).map(|number| clients::send_later(producer, "moving", partition, value(number).as_bytes()));
        let offsets =
            deliveries.collect::<Vec<_>>().into_iter().map(|delivery| clients::delivered(delivery).expect("an ack"));
        assert!(offsets.eq(0..120), "partition {partition}");
        if partition % 8 < 2 {
            let read =
                clients::read_all(broker.address(), "moving", partition).into_iter().map(|message| message.value);
            assert!(read.eq((0..120).map(|number| Some(value(number).into_bytes()))), "partition {partition}");
        }
    }
    // Which core owns a partition is chance, and so is where a connection lands: that none of 24 moves is one in ten million.
    // A connection that is where it belongs stays there.
    let moves = broker.log().matches("connection moved to another core").count();
    assert!((1..=PRODUCERS as usize).contains(&moves), "{moves} moves:\n{}", broker.log());
    let (status, _) = broker.terminate();
    assert!(status.success());
}
