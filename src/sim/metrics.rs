//! What a broker counts is what was done to it.

use std::{
    io::Write,
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};

use kafka_protocol::messages::{ApiKey, MetadataRequest};
use tracing::Level;

use crate::{
    api,
    base::{ErrorCode, PartitionKey, ProducerId, TopicId},
    controller::asks::EnsureTopic,
    io::sim::Faults,
    metadata::names::CONSUMER_OFFSETS,
    metrics::{Counter, Gauge, REQUEST_KEYS, Snapshot, Timer},
    protocol::compression::Compression,
    sim::{
        bench::{Bench, begin_produce, call},
        broker::{NODE, Settings},
        member::{commit_code, commit_request, text},
        producer,
        records::{self, Value},
        wire::{self, Wire},
    },
};

impl Bench {
    fn metrics(&self, core: usize) -> Snapshot {
        self.ask(core, |router| async move { router.metrics().await })
    }
}

/// A broker that makes no checkpoint by itself while a test looks.
fn calm() -> Bench {
    let mut settings = Settings::small();
    settings.log.checkpoint_interval = Duration::from_secs(3600);
    Bench::start_with(1, 2, settings)
}

#[test]
fn appends_fetches_and_journal_blocks_of_all_cores_are_counted() {
    let bench = calm();
    let id = bench.topic("t", 2);
    let keys = [0, 1].map(|core| bench.partition_on(id, core));
    let before = bench.metrics(0);
    for key in keys {
        bench.produce(0, key, 0..5).expect("stored");
    }
    let fetched = bench.fetch(1, call(&keys.map(|key| (key, 0)), 1, Duration::ZERO));
    let bytes: usize = fetched.iter().map(|part| part.bytes).sum();
    let unknown = PartitionKey { topic_id: TopicId(uuid::Uuid::from_u128(5)), partition: 0 };
    assert_eq!(
        bench.fetch(0, call(&[(unknown, 0)], 1, Duration::ZERO))[0].error,
        Some(ErrorCode::UnknownTopicOrPartition)
    );
    // Whichever core is asked, the answer is the broker's.
    for core in [0, 1] {
        let counted = bench.metrics(core).since(&before);
        let count = |counter| counted.counter(counter);
        assert_eq!((count(Counter::Appends), count(Counter::FlushedRecords)), (2, 10));
        assert_eq!((count(Counter::BytesIn), count(Counter::BytesOut)), (bytes as u64, bytes as u64));
        assert_eq!((count(Counter::FailedFetches), count(Counter::ColdReads)), (1, 0));
        let blocks = count(Counter::JournalBlocks);
        assert!(blocks >= 2 && count(Counter::JournalBytes) >= 4096 * blocks, "{counted}");
        assert_eq!(counted.times(Timer::JournalWrite).count(), blocks);
        assert!(counted.times(Timer::JournalWrite).mean() > Duration::ZERO, "writing takes time");
        assert!(counted.gauge(Gauge::CacheBytes) >= bytes as u64 && counted.gauge(Gauge::DirtyBytes) >= bytes as u64);
        assert!(counted.gauge(Gauge::JournalUsedBytes) >= 2 * 4096);
    }
}

#[test]
fn checkpoints_cold_reads_and_open_files_are_counted() {
    let bench = Bench::start(1, 1);
    let key = PartitionKey { topic_id: bench.topic("t", 1), partition: 0 };
    // More than the memory for records holds.
    for batch in 0..400 {
        bench.produce(0, key, batch * 40..batch * 40 + 40).expect("stored");
    }
    bench.sim.run_for(Duration::from_secs(1));
    let before = bench.metrics(0);
    assert!(before.counter(Counter::Checkpoints) > 0 && before.gauge(Gauge::OpenFiles) > 0, "{before}");
    assert_eq!(before.times(Timer::Checkpoint).count(), before.counter(Counter::Checkpoints));
    assert_eq!(bench.fetch(0, call(&[(key, 0)], 1, Duration::ZERO))[0].error, None);
    assert_eq!(bench.metrics(0).since(&before).counter(Counter::ColdReads), 1);
}

#[test]
fn who_waits_is_in_the_gauges_as_long_as_he_waits() {
    let bench = calm();
    let key = bench.partition_on(bench.topic("t", 2), 0);
    let connection = bench.connect(1);
    let fetch = connection.begin(move |router| {
        Box::pin(async move {
            let waits: crate::replica::Local<_> =
                Box::pin(async move { router.fetch(call(&[(key, 0)], 1, Duration::from_secs(600))).await });
            waits
        })
    });
    bench.sim.run_for(Duration::from_secs(1));
    bench.sim.set_faults(NODE, Faults { latency_ns: 1_000_000_000..1_000_000_001, ..Faults::default() });
    let writer = bench.connect(0);
    let produced = begin_produce(&writer, key, 0..1);
    bench.sim.run_for(Duration::from_millis(10));
    let waiting = |counted: &Snapshot| (counted.gauge(Gauge::WaitingFetches), counted.gauge(Gauge::WaitingProduces));
    assert_eq!(waiting(&bench.metrics(0)), (1, 1));
    bench.wait(produced).expect("the broker lives").expect("stored");
    assert_eq!(bench.wait(fetch).expect("the broker lives").len(), 1);
    assert_eq!(waiting(&bench.metrics(0)), (0, 0));
    // A client that goes away waits no longer.
    let connection = bench.connect(1);
    drop(connection.begin::<()>(move |router| {
        Box::pin(async move {
            let waits: crate::replica::Local<_> = Box::pin(async move {
                router.fetch(call(&[(key, 1)], 1, Duration::from_secs(600))).await;
            });
            waits
        })
    }));
    bench.sim.run_for(Duration::from_secs(1));
    assert_eq!(waiting(&bench.metrics(0)), (1, 0));
    drop(connection);
    bench.sim.run_for(Duration::from_secs(1));
    assert_eq!(waiting(&bench.metrics(0)), (0, 0));
}

#[test]
fn requests_are_counted_by_key_with_their_times_and_those_that_end_a_connection() {
    let bench = calm();
    let key = bench.partition_on(bench.topic("t", 2), 1);
    let wire = Rc::new(Wire::open(&bench.life).expect("the broker serves"));
    let batch = |numbers: std::ops::Range<u32>| {
        let values = numbers.map(|number| Value { writer: 0, number });
        records::batch(values, (ProducerId(-1), -1), Compression::None)
    };
    let asked = wire.clone();
    bench.wait(async move {
        let good = producer::request(9, key, "t", batch(0..3), -1);
        asked.ask(9, &good).await.expect("an answer");
        // Two partitions in one request, one of them unknown.
        let mut half = producer::request(9, key, "t", batch(3..4), -1);
        half.topic_data.extend(producer::request(9, key, "nobody's", batch(0..1), -1).topic_data);
        asked.ask(9, &half).await.expect("an answer");
        asked.ask(4, &MetadataRequest::default()).await.expect("an answer");
    });
    let whole = wire::frame(4, 1, &MetadataRequest::default());
    let cut = whole.slice(..whole.len() - 1);
    bench.wait(async move { assert!(wire.send(cut).await.is_none(), "the connection ends") });
    let counted = bench.metrics(1);
    assert_eq!((counted.requests(ApiKey::Produce as i16), counted.requests(ApiKey::Metadata as i16)), ((2, 0), (2, 1)));
    assert_eq!((counted.counter(Counter::FailedProduces), counted.counter(Counter::Appends)), (1, 2));
    // A produce takes at least as long as the disk.
    let times = counted.request_times(ApiKey::Produce as i16).expect("there were some");
    assert!(times.quantile(0) >= counted.times(Timer::JournalWrite).quantile(0), "{counted}");
}

#[test]
fn what_coordinators_append_is_counted() {
    let bench = calm();
    let before = bench.metrics(0);
    let committed = bench.ask(0, |router| async move {
        router.control(EnsureTopic(CONSUMER_OFFSETS.to_owned())).await.expect("made");
        let partition = router.coordinator_of("g").expect("the topic is there");
        router.group(partition, commit_request("g", (&text(""), -1), 0, 5)).await
    });
    assert_eq!(committed.map(|answer| commit_code(&answer)), Ok(0));
    let counted = bench.metrics(0).since(&before);
    assert_eq!(counted.counter(Counter::CoordinatorAppends), 1);
}

#[test]
fn every_key_that_is_served_can_be_counted() {
    assert!(api::requests().all(|api| (api.key as usize) < REQUEST_KEYS));
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nobody panics").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What the broker says of itself within so many seconds, at a level.
fn told(level: Level, seconds: u64) -> Vec<String> {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(level).with_ansi(false).with_writer(move || writer.clone());
    tracing::subscriber::with_default(subscriber.finish(), || {
        let bench = calm();
        let key = bench.partition_on(bench.topic("t", 2), 1);
        bench.produce(0, key, 0..5).expect("stored");
        bench.sim.run_for(Duration::from_secs(seconds));
    });
    let text = String::from_utf8(lines.0.lock().expect("nobody panics").clone()).expect("text");
    text.lines().filter(|line| line.contains("ringtail::metrics")).map(str::to_owned).collect()
}

#[test]
fn the_log_has_one_line_a_minute_at_debug_and_none_above() {
    let lines = told(Level::DEBUG, 150);
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines[0].contains("appends=1 ") && lines[0].contains(" journal_write="), "{lines:#?}");
    assert!(!lines[1].contains("appends="), "only what came since: {lines:#?}");
    assert_eq!(told(Level::INFO, 150), Vec::<String>::new());
}
