//! `ringtail storage check`, and starts on directories in which something is wrong.

use std::{fs, path::Path, process::Command};

use super::{
    clients,
    process::{Broker, command, fresh_directory, refused},
};

const RECORDS: usize = 20;

/// What the check says, and whether it found everything right.
pub fn check(data: &Path) -> (String, bool) {
    let output = Command::new(env!("CARGO_BIN_EXE_ringtail"))
        .args(["storage", "check"])
        .arg(data)
        .output()
        .expect("the broker's binary");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (said, output.status.success())
}

fn fill(broker: &Broker) {
    let producer = clients::producer(broker.address(), &[("linger.ms", "0")]);
    for _ in 0..RECORDS {
        clients::send(&producer, "checked", 0, None, &[b'v'; 100]).expect("acknowledged");
    }
}

/// Turns one bit over.
pub fn flip(file: &Path, position: usize) {
    let mut bytes = fs::read(file).expect("it is there");
    bytes[position] ^= 1;
    fs::write(file, bytes).expect("it may be written");
}

#[test]
fn a_directory_is_verified_and_one_wrong_bit_is_named() {
    let directory = fresh_directory("check");
    let broker = Broker::start(&directory, &[]);
    let data = broker.data();
    clients::create_topic(broker.address(), "checked", 1);
    fill(&broker);
    let (said, fine) = check(&data);
    assert!(!fine && said.contains("in use by another process"), "{said}");
    broker.kill();
    let (said, fine) = check(&data);
    assert!(fine && said.contains("journal blocks"), "after a kill: {said}");

    let broker = Broker::start(&directory, &[]);
    broker.terminate();
    let (said, fine) = check(&data);
    assert!(fine, "after a stop: {said}");

    let segment = data.join("checked-0/00000000000000000000.log");
    flip(&segment, 80);
    let (said, fine) = check(&data);
    assert!(!fine && said.contains(&format!("{} at position 0", segment.display())), "{said}");
    assert!(said.contains("checked-0 is offline"), "{said}");
    flip(&segment, 80);

    let metadata = data.join("__cluster_metadata-0/00000000000000000000.log");
    // The length of the first batch's first record: inside of its sum.
    flip(&metadata, 61);
    let (said, fine) = check(&data);
    assert!(!fine && said.contains(&format!("{} at position 0", metadata.display())), "{said}");
    let why = refused(&mut command(&directory, &[]));
    assert!(why.contains(metadata.to_str().expect("text")) && why.contains("restore it from a copy"), "{why}");
    flip(&metadata, 61);

    let manifest = data.join("ringtail-manifest");
    let kept = fs::read(&manifest).expect("it is there");
    fs::remove_file(&manifest).expect("ours");
    let (said, fine) = check(&data);
    assert!(!fine && said.contains("ringtail-manifest is missing"), "{said}");
    let why = refused(&mut command(&directory, &[]));
    assert!(why.contains("ringtail-manifest is missing"), "{why}");
    fs::write(&manifest, kept).expect("ours");

    let mark = data.join(".kafka_cleanshutdown");
    let kept = fs::read(&mark).expect("a clean stop leaves it");
    fs::remove_file(&mark).expect("ours");
    let why = refused(&mut command(&directory, &[]));
    assert!(why.contains("Apache Kafka has written to the directory"), "{why}");
    fs::write(&mark, kept).expect("ours");

    let broker = Broker::start(&directory, &[]);
    assert_eq!(clients::read_all(broker.address(), "checked", 0).len(), RECORDS, "all of it is there still");
}
