//! What was acknowledged is there after `kill -9`, at any moment.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    clients::{self, Message},
    confined,
    hostile::deaf,
    process::{self, Broker, fixed_port, fresh_directory},
};

/// Values by partition and offset.
type Acknowledged = BTreeMap<(i32, i64), Vec<u8>>;

#[test]
fn acknowledged_records_survive_kill_9_under_load() {
    let directory = fresh_directory("kill-9");
    let acknowledged: Arc<Mutex<Acknowledged>> = Arc::default();
    for round in 0..3 {
        // Another number of cores each time: nothing on disk depends on it.
        let cores = ["2", "1", "3"][round];
        let broker = Broker::start(&directory, &["--cores", cores]);
        if round == 0 {
            clients::create_topic(broker.address(), "kept", 6);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let settings = [("linger.ms", "0"), ("message.timeout.ms", "30000")];
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let producer = Arc::new(clients::producer(broker.address(), &settings));
                let (sender, stop, acknowledged) = (producer.clone(), stop.clone(), acknowledged.clone());
                let thread = thread::spawn(move || {
                    for number in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let value = format!("round {round} writer {writer} number {number}").into_bytes();
                        let partition = number % 6;
                        if let Ok(offset) = clients::send(&sender, "kept", partition, None, &value) {
                            acknowledged.lock().expect("a healthy test").insert((partition, offset), value);
                        }
                    }
                });
                (producer, thread)
            })
            .collect();
        thread::sleep(Duration::from_millis(700));
        broker.kill();
        stop.store(true, Ordering::Relaxed);
        for (producer, writer) in writers {
            // Nobody answers any more: what is in flight need not wait for its time-out. A last record may follow.
            while !writer.is_finished() {
                clients::give_up(&producer);
                thread::sleep(Duration::from_millis(5));
            }
            writer.join().expect("a writer");
        }
    }
    let broker = Broker::start(&directory, &[]);
    let acknowledged = acknowledged.lock().expect("a healthy test");
    assert!(acknowledged.len() > 50, "only {} records were acknowledged", acknowledged.len());
    let mut found = Acknowledged::new();
    for partition in 0..6 {
        for Message { offset, value, .. } in clients::read_all(broker.address(), "kept", partition) {
            found.insert((partition, offset), value.unwrap_or_default());
        }
    }
    for (place, value) in acknowledged.iter() {
        assert_eq!(found.get(place), Some(value), "{place:?}:\n{}", broker.log());
    }
}

#[test]
fn a_clean_stop_is_quick_and_loses_nothing() {
    let directory = fresh_directory("clean-stop");
    let broker = Broker::start(&directory, &[]);
    clients::create_topic(broker.address(), "calm", 3);
    let producer = clients::producer(broker.address(), &[]);
    for number in 0..300 {
        clients::send(&producer, "calm", number % 3, Some(b"key"), number.to_string().as_bytes()).expect("an ack");
    }
    drop(producer);
    let (status, took) = broker.terminate();
    assert!(status.success(), "exit {status}");
    assert!(took < Duration::from_secs(5), "stopping took {took:?}");
    let broker = Broker::start(&directory, &[]);
    for partition in 0..3 {
        let values: Vec<String> = clients::read_all(broker.address(), "calm", partition)
            .into_iter()
            .map(|message| String::from_utf8(message.value.expect("a value")).expect("text"))
            .collect();
        let wanted: Vec<String> = (0..300).filter(|number| number % 3 == partition).map(|n| n.to_string()).collect();
        assert_eq!(values, wanted);
    }
}

#[test]
fn a_hangup_is_a_clean_stop_unless_it_is_to_be_ignored() {
    let directory = fresh_directory("hangup");
    let mut broker = Broker::start(&directory, &[]);
    broker.signal("HUP");
    let status = broker.wait();
    assert!(status.success(), "exit {status}:\n{}", broker.log());
    let mut command = process::command(&directory, &[]);
    confined::ignoring_hangups(&mut command);
    let mut broker = Broker::spawn(&directory, command);
    assert!(broker.log().contains("clean=true") || broker.log().contains("clean: true"), "{}", broker.log());
    broker.signal("HUP");
    clients::create_topic(broker.address(), "lives", 1);
    thread::sleep(Duration::from_millis(100));
    broker.assert_alive();
    let (status, _) = broker.terminate();
    assert!(status.success(), "exit {status}");
}

#[test]
fn a_second_signal_quits_at_once_and_loses_nothing() {
    let directory = fresh_directory("two-signals");
    let mut sent = 0;
    // The orderly stop waits half a second for a client that does not read. If this test is held up for longer than that,
    // it is over before the second signal: once more then.
    for attempt in 0.. {
        let mut broker = Broker::start(&directory, &[]);
        if attempt == 0 {
            clients::create_topic(broker.address(), "kept", 1);
        }
        let producer = clients::producer(broker.address(), &[]);
        for _ in 0..20 {
            let value = [sent; 200_000];
            clients::send(&producer, "kept", 0, None, &value).expect("an ack");
            sent += 1;
        }
        let _deaf = deaf(&broker, "kept");
        thread::sleep(Duration::from_millis(200));
        broker.ask_to_stop();
        // Two signals in the same moment would count as one.
        thread::sleep(Duration::from_millis(300));
        if broker.ended().is_none() {
            broker.ask_to_stop();
        }
        let status = broker.wait();
        if status.code() == Some(128 + 15) {
            break;
        }
        assert!(status.success() && attempt < 5, "exit {status}:\n{}", broker.log());
    }
    let broker = Broker::start(&directory, &[]);
    let found: Vec<u8> = clients::read_all(broker.address(), "kept", 0)
        .into_iter()
        .map(|message| message.value.expect("a value")[0])
        .collect();
    assert_eq!(found, (0..sent).collect::<Vec<u8>>());
}

#[test]
fn deleted_records_and_committed_offsets_survive_kill_9() {
    let directory = fresh_directory("kill-9-state");
    let broker = Broker::start(&directory, &[]);
    clients::create_topic(broker.address(), "state", 1);
    let producer = clients::producer(broker.address(), &[]);
    for number in 0..100 {
        clients::send(&producer, "state", 0, None, number.to_string().as_bytes()).expect("an ack");
    }
    clients::delete_records(broker.address(), "state", 0, 40);
    clients::commit(broker.address(), "readers", "state", 0, 70);
    broker.kill();
    let broker = Broker::start(&directory, &[]);
    assert_eq!(clients::watermarks(broker.address(), "state", 0), (40, 100), "Kafka loses DeleteRecords here");
    assert_eq!(clients::committed(broker.address(), "readers", "state", 0), Some(70));
    let first = clients::read_all(broker.address(), "state", 0).into_iter().next().expect("a record");
    assert_eq!((first.offset, first.value), (40, Some(b"40".to_vec())));
}

#[test]
fn an_idempotent_producer_carries_on_over_kill_9_without_duplicates() {
    let directory = fresh_directory("kill-9-idempotent");
    // The system may give a port of its own choice to any client while the broker is away, so this one is not its choice.
    let listeners = format!("listeners=PLAINTEXT://127.0.0.1:{}", fixed_port());
    let mut broker = Broker::start(&directory, &["--override", &listeners]);
    clients::create_topic(broker.address(), "once", 1);
    let producer = clients::producer(
        broker.address(),
        &[("enable.idempotence", "true"), ("message.timeout.ms", "60000"), ("reconnect.backoff.max.ms", "200")],
    );
    let total = 4000;
    let sender = thread::spawn(move || {
        let deliveries: Vec<_> = (0..total)
            .map(|number| {
                thread::sleep(Duration::from_micros(300));
                clients::send_later(&producer, "once", 0, number.to_string().as_bytes())
            })
            .collect();
        deliveries.into_iter().map(clients::delivered).collect::<Result<Vec<_>, _>>()
    });
    for _ in 0..2 {
        thread::sleep(Duration::from_millis(400));
        broker.kill();
        broker = Broker::start(&directory, &["--override", &listeners]);
    }
    sender.join().expect("the sender").expect("every record is acknowledged in the end");
    let values: Vec<i32> = clients::read_all(broker.address(), "once", 0)
        .into_iter()
        .map(|message| String::from_utf8(message.value.expect("a value")).expect("text").parse().expect("a number"))
        .collect();
    assert_eq!(values, (0..total).collect::<Vec<_>>(), "lost, twice or out of order");
}
