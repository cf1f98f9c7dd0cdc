//! The same behaviour with one executor, two, and more than the machine has.

use super::{
    clients,
    process::{Broker, fresh_directory},
};

const PARTITIONS: i32 = 5;
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
    look(&broker, &mut seen);
    broker.kill();
    let broker = Broker::start(&directory, &["--cores", cores]);
    look(&broker, &mut seen);
    let (status, _) = broker.terminate();
    seen.push(format!("{status}"));
    seen
}

fn look(broker: &Broker, seen: &mut Vec<String>) {
    for partition in 0..PARTITIONS {
        let (start, end) = clients::watermarks(broker.address(), "same", partition);
        let values = clients::read_all(broker.address(), "same", partition);
        let values =
            values.into_iter().map(|message| String::from_utf8(message.value.expect("a value")).expect("text"));
        let values = values.collect::<Vec<_>>().join(" ");
        let committed = clients::committed(broker.address(), "readers", "same", partition);
        seen.push(format!("{partition}: {start}..{end} committed {committed:?}: {values}"));
    }
}

#[test]
fn one_two_or_eight_executors_behave_alike() {
    let one = seen("1");
    assert_eq!(one.len() as i32, RECORDS + 2 * PARTITIONS + 1);
    for cores in ["2", "8"] {
        assert_eq!(seen(cores), one, "{cores} executors");
    }
}
