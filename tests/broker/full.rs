//! A disk that fills up while the broker runs: appends are refused, everything else goes on, and with room so do appends.

use std::{
    fs,
    time::{Duration, Instant},
};

use rdkafka::{error::KafkaError, types::RDKafkaErrorCode};

use super::{
    clients,
    mount::Mount,
    process::{Broker, command, fresh_directory},
};

const DISK_MIB: u64 = 160;
const FILLER_BYTES: usize = 48 << 20;
const VALUE_BYTES: usize = 60_000;

/// Without retries the client tells what the broker said.
const AT_ONCE: [(&str, &str); 2] = [("retries", "0"), ("linger.ms", "0")];

#[test]
fn a_full_disk_refuses_appends_and_serves_everything_else() {
    let directory = fresh_directory("full");
    let Some(_mount) = Mount::new(&directory.join("disk"), DISK_MIB) else { return };
    let filler = directory.join("disk/filler");
    fs::write(&filler, vec![7; FILLER_BYTES]).expect("room for it");
    let on_it = format!("log.dirs={}", directory.join("disk/data").display());
    let start = || Broker::spawn(&directory, command(&directory, &["--override", &on_it]));
    let mut broker = start();
    clients::create_topic(broker.address(), "full", 2);
    clients::commit(broker.address(), "readers", "full", 0, 3);
    let producer = clients::producer(broker.address(), &AT_ONCE);
    let value = vec![b'x'; VALUE_BYTES];

    let mut acknowledged = 0;
    let refusal = loop {
        match clients::send(&producer, "full", 0, None, &value) {
            Ok(offset) => acknowledged = offset + 1,
            Err(error) => break error,
        }
        assert!((acknowledged as u64) < (DISK_MIB << 20) / VALUE_BYTES as u64, "more than the disk can hold");
    };
    let storage_error = KafkaError::MessageProduction(RDKafkaErrorCode::KafkaStorageError);
    assert_eq!(refusal, storage_error, "{}", broker.log());
    broker.assert_alive();
    assert!(acknowledged > 100, "{acknowledged} were acknowledged before");

    // Reads and metadata go on, and nothing that was acknowledged is gone.
    assert_eq!(clients::watermarks(broker.address(), "full", 0), (0, acknowledged));
    let read = clients::read_all(broker.address(), "full", 0);
    assert_eq!(read.len() as i64, acknowledged);
    assert!(read.iter().all(|message| message.value.as_deref() == Some(&value[..])));
    assert_eq!(clients::committed(broker.address(), "readers", "full", 0), Some(3));
    let said = broker.log().lines().filter(|line| line.contains("no room on the disk")).count();
    // Once for each core that ran out.
    assert!((1..=2).contains(&said), "said {said} times:\n{}", broker.log());

    // With room again, appends go on by themselves.
    fs::remove_file(&filler).expect("our own file");
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = clients::send(&producer, "full", 0, None, &value) {
        assert!(Instant::now() < deadline, "still {error} with room on the disk:\n{}", broker.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    broker.kill();
    let broker = start();
    assert_eq!(clients::read_all(broker.address(), "full", 0).len() as i64, acknowledged + 1);
}

#[test]
fn a_broker_killed_on_a_full_disk_starts_again_and_has_everything() {
    let directory = fresh_directory("full-kill");
    let Some(_mount) = Mount::new(&directory.join("disk"), DISK_MIB) else { return };
    let filler = directory.join("disk/filler");
    fs::write(&filler, vec![7; FILLER_BYTES]).expect("room for it");
    let on_it = format!("log.dirs={}", directory.join("disk/data").display());
    let start = || Broker::spawn(&directory, command(&directory, &["--override", &on_it]));
    let broker = start();
    clients::create_topic(broker.address(), "full", 1);
    let producer = clients::producer(broker.address(), &AT_ONCE);
    let value = vec![b'x'; VALUE_BYTES];
    let mut acknowledged = 0;
    while let Ok(offset) = clients::send(&producer, "full", 0, None, &value) {
        acknowledged = offset + 1;
    }
    broker.kill();
    // Not one byte is free when it starts.
    let mut rest = fs::File::create(directory.join("disk/rest")).expect("a name");
    while std::io::Write::write_all(&mut rest, &[7; 4096]).is_ok() {}
    let broker = start();
    assert_eq!(clients::watermarks(broker.address(), "full", 0), (0, acknowledged));
    assert_eq!(clients::read_all(broker.address(), "full", 0).len() as i64, acknowledged, "{}", broker.log());
}

#[test]
fn a_disk_that_others_fill_keeps_no_broker_from_starting() {
    let directory = fresh_directory("full-start");
    let Some(_mount) = Mount::new(&directory.join("disk"), DISK_MIB) else { return };
    let on_it = format!("log.dirs={}", directory.join("disk/data").display());
    let start = || Broker::spawn(&directory, command(&directory, &["--override", &on_it]));
    let mut number = 0;
    let mut fill = || {
        number += 1;
        let mut rest = fs::File::create(directory.join(format!("disk/rest-{number}"))).expect("a name");
        while std::io::Write::write_all(&mut rest, &[7; 4096]).is_ok() {}
    };
    let broker = start();
    clients::create_topic(broker.address(), "few", 1);
    clients::create_topic(broker.address(), "gone", 1);
    let producer = clients::producer(broker.address(), &AT_ONCE);
    for _ in 0..3 {
        clients::send(&producer, "few", 0, None, b"value").expect("there is room");
    }
    let mut broker = broker;
    for round in 0..6 {
        // The disk is full at the end of each life, and at the beginning of the next.
        fill();
        if round % 2 == 0 {
            broker.kill()
        } else {
            let _status = broker.terminate();
        }
        fill();
        broker = start();
        assert_eq!(clients::read_all(broker.address(), "few", 0).len(), 3, "round {round}:\n{}", broker.log());
    }
    clients::delete_topic(broker.address(), "gone");
    for number in 1..=12 {
        fs::remove_file(directory.join(format!("disk/rest-{number}"))).expect("our own file");
    }
    let producer = clients::producer(broker.address(), &AT_ONCE);
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = clients::send(&producer, "few", 0, None, b"value") {
        assert!(Instant::now() < deadline, "still {error} with room on the disk:\n{}", broker.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}
