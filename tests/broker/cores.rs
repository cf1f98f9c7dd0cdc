//! The same behaviour with one executor, two, and more than the machine has.

use super::{
    clients,
    process::{Broker, fresh_directory},
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
