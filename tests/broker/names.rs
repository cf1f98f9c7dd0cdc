//! Topics named like the files that the broker, or Kafka, keeps in the same directory.

use super::{
    clients,
    process::{Broker, fresh_directory},
};

const VALUE_BYTES: usize = 6000;
const RECORDS: i64 = 3;

fn names() -> Vec<String> {
    let names = [
        "ringtail-journal-0",
        "ringtail-checkpoint-0000000000000000-0",
        "ringtail-0-0.journal",
        "ringtail-manifest",
        "ringtail-ballast",
        "ringtail-rescue-x",
        "meta.properties",
        "x.tmp",
        "x-stray",
        "cleaner-offset-checkpoint",
        ".lock",
        ".kafka_cleanshutdown",
    ];
    let long = ["n".repeat(249), format!("a.{}-delete", "0".repeat(32))];
    names.into_iter().map(String::from).chain(long).collect()
}

/// Of the first topic both, since a journal's number is where a partition's is.
fn partitions(name: &str) -> i32 {
    if name == "ringtail-journal-0" { 2 } else { 1 }
}

fn fill(broker: &Broker) {
    let producer = clients::producer(broker.address(), &[("linger.ms", "0")]);
    for name in names() {
        for partition in 0..partitions(&name) {
            for _ in 0..RECORDS {
                clients::send(&producer, &name, partition, None, &[b'v'; VALUE_BYTES]).expect("acknowledged");
            }
        }
    }
}

fn check(broker: &Broker) {
    for name in names() {
        for partition in 0..partitions(&name) {
            let read = clients::read_all(broker.address(), &name, partition);
            assert_eq!(read.len() as i64, RECORDS, "{name}-{partition}:\n{}", broker.log());
        }
    }
}

#[test]
fn a_topic_may_have_the_name_of_a_file() {
    let directory = fresh_directory("names");
    let broker = Broker::start(&directory, &[]);
    for name in names() {
        clients::create_topic(broker.address(), &name, partitions(&name));
    }
    fill(&broker);
    broker.kill();
    let broker = Broker::start(&directory, &[]);
    check(&broker);
    for name in names() {
        clients::delete_topic(broker.address(), &name);
        clients::create_topic(broker.address(), &name, partitions(&name));
    }
    fill(&broker);
    broker.kill();
    let broker = Broker::start(&directory, &[]);
    check(&broker);
}
