//! The producer against a simulated server in virtual time: known stalls must be seen in full.

use super::*;
use crate::{
    client::error::{code_name, codes, is_retriable},
    measure::{Metric, Recorder, Window},
    produce::queue::advance_sequence,
    rng::Rng,
    schedule::Arrival,
};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

/// Answers each request after `service_ns`, except while stalled; can answer with codes from a script.
struct Server {
    service_ns: u64,
    stall: Option<(u64, u64)>,
    codes: VecDeque<i16>,
    answers: VecDeque<(u64, Vec<Answer>)>,
    next_offset: i64,
    received: Vec<(u64, Vec<(i32, u64)>)>,
    /// Refuses a batch whose sequence is not the next one.
    next_base: Option<i32>,
}

impl Server {
    fn new(service_ns: u64) -> Self {
        Self {
            service_ns,
            stall: None,
            codes: VecDeque::new(),
            answers: VecDeque::new(),
            next_offset: 0,
            received: Vec::new(),
            next_base: None,
        }
    }

    fn take(&mut self, now: u64, sent: &Sent) {
        let mut done = now + self.service_ns;
        if let Some((from, until)) = self.stall
            && done >= from
            && now < until
        {
            done = until + self.service_ns;
        }
        let base = |batch: &Batch| {
            let bytes = batch.sealed();
            i32::from_be_bytes(bytes[53..57].try_into().unwrap())
        };
        let mut partitions: Vec<u32> = sent.batches.iter().map(|batch| batch.partition).collect();
        partitions.sort_unstable();
        assert!(partitions.is_sorted_by(|a, b| a < b), "a partition twice in one request: {partitions:?}");
        let seen = sent.batches.iter().map(|batch| (base(batch), batch.first_sequence));
        self.received.push((now, seen.collect()));
        let answers = sent.batches.iter().map(|batch| {
            let code = match self.next_base {
                Some(expected) if expected != base(batch) => codes::OUT_OF_ORDER_SEQUENCE_NUMBER,
                Some(_) | None => self.codes.pop_front().unwrap_or(0),
            };
            if code == 0 {
                self.next_base = self.next_base.map(|next| advance_sequence(next, batch.count()));
            }
            let base_offset = if code == 0 { self.next_offset } else { -1 };
            if code == 0 {
                self.next_offset += batch.count() as i64;
            }
            Answer { partition: batch.partition, code, base_offset }
        });
        self.answers.push_back((done, answers.collect()));
    }
}

fn settings() -> Settings {
    Settings {
        partitions: 1,
        sizes: Sizes::Fixed(100),
        keys: 0,
        partitioner: Partitioner::Sticky,
        payload: Payload::new(1, 1.0, 100),
        batch_bytes: 16 << 10,
        batch_records: u32::MAX,
        request_bytes: 1 << 20,
        linger_ns: 0,
        codec: Codec::None,
        in_flight: 5,
        acks: -1,
        idempotence: false,
        timeout_ns: 30 * SECOND,
        run: 1,
        wall_offset_ns: 0,
    }
}

fn producer(settings: Settings, rate: f64, seconds: u64) -> Producer {
    let window = (SECOND, (1 + seconds) * SECOND);
    let schedule = Schedule::open(Arrival::Constant, rate, None, window, 0.0, Rng::new(1, 1));
    let picker = Picker::new(Rng::new(1, 2), settings.partitions);
    let identity = settings.idempotence.then_some((77, 0));
    let leaders = vec![Some(1); settings.partitions];
    let mut producer = Producer::new(0, Arc::new(settings), None, schedule, picker, identity);
    producer.set_leaders(&leaders, 0);
    producer.connected(1, 0);
    producer
}

/// Runs both in virtual time until all is answered. `oversleep` makes the generator late at each wake-up.
fn simulate(producer: &mut Producer, server: &mut Server, oversleep: u64) -> Recorder {
    let mut recorder = Recorder::new(Window { start: SECOND, end: 1_000 * SECOND });
    let mut now = 0;
    while !producer.is_drained() {
        producer.advance(now, &mut recorder);
        while let Some(sent) = producer.next_request(1, now, &mut recorder) {
            server.take(now, sent);
        }
        if producer.awaits_identity() {
            producer.set_identity((78, 0), now);
            continue;
        }
        let reply_at = server.answers.front().map_or(u64::MAX, |(at, _)| *at);
        let wakeup = producer.next_wakeup().min(reply_at);
        assert!(wakeup < u64::MAX || producer.is_drained(), "stuck at {now}");
        now = now.max(wakeup) + if wakeup > now { oversleep } else { 0 };
        while server.answers.front().is_some_and(|(at, _)| *at <= now) {
            let (_, answers) = server.answers.pop_front().unwrap();
            producer.on_reply(1, now, &answers, &mut recorder);
        }
        assert!(now < 10_000 * SECOND, "no end");
    }
    recorder
}

/// The correction test: 1,000 requests a second, and a broker that stalls for a second.
#[test]
fn a_stall_of_a_second_is_seen_by_a_thousand_records() {
    let one_each = Settings { batch_records: 1, ..settings() };
    let mut server = Server::new(MS / 5);
    server.stall = Some((5 * SECOND, 6 * SECOND));
    let recorder = simulate(&mut producer(one_each, 1_000.0, 10), &mut server, 0);
    let latency = recorder.measured.histogram(Metric::Latency);
    let lateness = recorder.measured.histogram(Metric::Lateness);
    let service = recorder.measured.histogram(Metric::Service);
    assert_eq!(latency.len(), 10_000);
    let delayed = latency.len() - latency.count_between(0, MS);
    assert!((995..1_060).contains(&delayed), "{delayed} delayed samples");
    // The delays are spread evenly over the second (and the 40 ms of catching up): half of them are above half a second.
    let long = latency.len() - latency.count_between(0, SECOND / 2);
    assert!((490..545).contains(&long), "{long} above half a second");
    // Without correction only the five requests in flight would have shown it.
    let uncorrected = service.len() - service.count_between(0, MS);
    assert!(uncorrected <= 10, "{uncorrected}");
    // The broker's stall is not the generator's fault.
    assert!(lateness.max() <= 1_000, "{} ns late", lateness.max());
}

#[test]
fn the_generators_own_delay_is_lateness() {
    let mut server = Server::new(MS / 5);
    let recorder = simulate(&mut producer(settings(), 100.0, 10), &mut server, 3 * MS);
    let lateness = recorder.measured.histogram(Metric::Lateness);
    assert_eq!(lateness.len(), 1_000);
    let median = lateness.value_at_quantile(0.5);
    assert!((29 * MS / 10..31 * MS / 10).contains(&median), "{median}");
}

#[test]
fn linger_gathers_and_is_not_lateness() {
    let lingering = Settings { linger_ns: 10 * MS, ..settings() };
    let mut server = Server::new(MS / 5);
    let recorder = simulate(&mut producer(lingering, 1_000.0, 2), &mut server, 0);
    assert_eq!(recorder.measured.counters.acked_records, 2_000);
    assert!((180..230).contains(&server.received.len()), "{}", server.received.len());
    assert!(recorder.measured.histogram(Metric::Lateness).max() <= 1_000);
    let latency = recorder.measured.histogram(Metric::Latency);
    assert!(latency.max() >= 10 * MS && latency.min() < 2 * MS);
}

#[test]
fn retriable_errors_are_retried_and_their_time_counts() {
    let mut server = Server::new(MS);
    server.codes = VecDeque::from([6, 6, 0]);
    let mut producer = producer(settings(), 1.0, 1);
    let recorder = simulate(&mut producer, &mut server, 0);
    assert!(producer.wants_metadata);
    let counters = &recorder.measured.counters;
    assert_eq!((counters.acked_records, counters.failed_records), (1, 0));
    assert_eq!(counters.retries, BTreeMap::from([(6, 2)]));
    // Two back-offs of 100 and 200 ms and three round trips.
    let latency = recorder.measured.histogram(Metric::Latency).max();
    assert!((302 * MS..305 * MS).contains(&latency), "{latency}");
}

#[test]
fn fatal_errors_are_counted_and_stay_in_the_percentiles() {
    let mut server = Server::new(MS);
    server.codes = VecDeque::from([0, 10, 0]);
    let recorder = simulate(&mut producer(settings(), 10.0, 1), &mut server, 0);
    let counters = &recorder.measured.counters;
    assert_eq!((counters.acked_records, counters.failed_records), (9, 1));
    assert_eq!(counters.errors, BTreeMap::from([(10, 1)]));
    assert_eq!(recorder.measured.histogram(Metric::Latency).len(), 10);
}

/// Whatever code a broker answers: either the records are sent again, or they have failed with it; none is forgotten.
#[test]
fn every_code_is_either_retried_or_a_failure() {
    for (code, idempotence) in (-1..=133).filter(|code| *code != 0).flat_map(|code| [(code, false), (code, true)]) {
        let mut server = Server::new(MS);
        server.codes = VecDeque::from([0, code]);
        let settings = Settings { idempotence, batch_records: 1, in_flight: 1, ..settings() };
        let mut producer = producer(settings, 10.0, 1);
        let recorder = simulate(&mut producer, &mut server, 0);
        let counters = &recorder.measured.counters;
        let name = code_name(code);
        assert_eq!(recorder.measured.histogram(Metric::Latency).len(), 10, "{name}");
        if code == codes::DUPLICATE_SEQUENCE_NUMBER {
            // The broker has these records already.
            assert_eq!((counters.acked_records, server.received.len()), (10, 10), "{name}");
        } else if is_retriable(code) {
            assert_eq!((counters.acked_records, counters.failed_records), (10, 0), "{name}");
            assert_eq!((&counters.retries, server.received.len()), (&BTreeMap::from([(code, 1)]), 11), "{name}");
            assert!(producer.wants_metadata, "{name}");
        } else {
            assert_eq!((counters.acked_records, counters.failed_records), (9, 1), "{name}");
            assert_eq!((&counters.errors, server.received.len()), (&BTreeMap::from([(code, 1)]), 10), "{name}");
        }
    }
}

#[test]
fn an_idempotent_batch_keeps_its_sequence_and_order_when_sent_again() {
    let idempotent = Settings { idempotence: true, batch_records: 1, ..settings() };
    let mut server = Server::new(20 * MS);
    // Number 1 fails; those in flight behind it are then out of sequence.
    server.next_base = Some(0);
    server.codes = VecDeque::from([0, 6]);
    let recorder = simulate(&mut producer(idempotent, 200.0, 1), &mut server, 0);
    assert_eq!(recorder.measured.counters.acked_records, 200);
    for (_, batches) in &server.received {
        for (base, sequence) in batches {
            assert_eq!(*base as u64, *sequence, "a batch is sent again under its own sequence");
        }
    }
    let resent: Vec<u64> = server.received.iter().flat_map(|(_, b)| b).map(|(_, s)| *s).collect();
    let mut last_of = BTreeMap::new();
    for (at, sequence) in resent.iter().enumerate() {
        last_of.insert(*sequence, at);
    }
    assert!(last_of.values().is_sorted(), "final attempts are in order");
}

/// Replies slower than the back-off: what is sent meanwhile must not overtake what is on its way back, for ever.
#[test]
fn one_refused_batch_does_not_disorder_a_slow_broker_for_ever() {
    let idempotent = Settings { idempotence: true, batch_records: 1, ..settings() };
    let mut server = Server::new(300 * MS);
    server.next_base = Some(0);
    server.codes = VecDeque::from([0, 6]);
    let recorder = simulate(&mut producer(idempotent, 12.0, 10), &mut server, 0);
    let counters = &recorder.measured.counters;
    assert_eq!(counters.acked_records, 120);
    let out_of_order = counters.retries.get(&45).copied().unwrap_or(0);
    assert!(out_of_order <= 5, "{:?}", counters.retries);
    // What had to wait for the answers of those before it was late through no fault of the generator.
    let lateness = recorder.measured.histogram(Metric::Lateness);
    assert!(lateness.max() <= 1_000, "{} ns late", lateness.max());
}

#[test]
fn after_a_lost_batch_an_idempotent_producer_starts_over() {
    let idempotent = Settings { idempotence: true, batch_records: 1, in_flight: 1, ..settings() };
    let mut server = Server::new(MS);
    server.codes = VecDeque::from([0, 87]);
    let recorder = simulate(&mut producer(idempotent, 100.0, 1), &mut server, 0);
    assert_eq!(recorder.measured.counters.acked_records, 99);
    let bases: Vec<i32> = server.received.iter().flat_map(|(_, b)| b).map(|(base, _)| *base).collect();
    assert_eq!(bases[..4], [0, 1, 0, 1], "fresh sequences under the new id");
}

#[test]
fn what_is_never_answered_counts_as_its_time_out() {
    let short = Settings { timeout_ns: 2 * SECOND, ..settings() };
    let mut producer = producer(short, 100.0, 3);
    let mut recorder = Recorder::new(Window { start: SECOND, end: 4 * SECOND });
    for now in (0..8 * SECOND).step_by(10 * MS as usize) {
        producer.advance(now, &mut recorder);
        while producer.next_request(1, now, &mut recorder).is_some() {}
    }
    producer.give_up(8 * SECOND, &mut recorder);
    assert!(producer.is_drained());
    let counters = &recorder.measured.counters;
    assert_eq!(counters.timed_out_records, 300);
    assert_eq!(counters.errors, BTreeMap::from([(7, 300)]));
    let latency = recorder.measured.histogram(Metric::Latency);
    assert!(latency.min() >= 1_999 * MS && latency.max() <= 2_002 * MS);
}

#[test]
fn a_lost_connection_is_retried() {
    let mut producer = producer(settings(), 10.0, 1);
    let mut recorder = Recorder::new(Window { start: SECOND, end: 2 * SECOND });
    producer.advance(SECOND, &mut recorder);
    assert!(producer.next_request(1, SECOND, &mut recorder).is_some());
    producer.on_disconnect(1, codes::NETWORK_EXCEPTION, SECOND + MS, &mut recorder);
    producer.connected(1, SECOND + 2 * MS);
    let later = SECOND + 110 * MS;
    producer.advance(later, &mut recorder);
    let sent = producer.next_request(1, later, &mut recorder).expect("sent again after the back-off");
    assert_eq!(sent.batches[0].first_sequence, 0);
    assert_eq!(recorder.measured.counters.retries, BTreeMap::from([(13, 1)]));
}

#[test]
fn a_throttled_connection_stays_silent_and_the_wait_is_latency() {
    let mut producer = producer(settings(), 10.0, 1);
    let mut recorder = Recorder::new(Window { start: SECOND, end: 2 * SECOND });
    producer.throttle(1, SECOND - MS, SECOND + 350 * MS, &mut recorder);
    for now in (0..2 * SECOND).step_by(MS as usize) {
        producer.advance(now, &mut recorder);
        assert!(
            producer.next_wakeup() <= SECOND + 350 * MS || now >= SECOND + 350 * MS,
            "woken at the end of the silence"
        );
        if let Some(sent) = producer.next_request(1, now, &mut recorder) {
            assert!(now >= SECOND + 350 * MS, "silent until then, not {now}");
            let answer = Answer { partition: sent.batches[0].partition, code: 0, base_offset: 0 };
            producer.on_reply(1, now, &[answer], &mut recorder);
        }
    }
    assert!(producer.is_drained());
    let latency = recorder.measured.histogram(Metric::Latency);
    assert!((349 * MS..352 * MS).contains(&latency.max()), "{}", latency.max());
    assert!(recorder.measured.histogram(Metric::Lateness).max() <= MS);
    assert_eq!(recorder.warm_up.counters.throttled_ns, 351 * MS);
}

#[test]
fn a_closed_loop_fills_its_batches_and_its_slots() {
    let mut recorder = Recorder::default();
    let settings = Settings { partitions: 3, partitioner: Partitioner::RoundRobin, ..settings() };
    let schedule = Schedule::closed(0, SECOND);
    let picker = Picker::new(Rng::new(1, 2), 3);
    let mut producer = Producer::new(0, Arc::new(settings), None, schedule, picker, None);
    producer.set_leaders(&[Some(1); 3], 0);
    producer.connected(1, 0);
    let mut requests = 0;
    loop {
        producer.advance(5, &mut recorder);
        let Some(sent) = producer.next_request(1, 5, &mut recorder) else {
            break;
        };
        assert!(sent.batches.iter().any(|batch| batch.bytes_len() > 16_000));
        requests += 1;
    }
    assert_eq!(requests, 5);
}

#[test]
fn many_partitions_share_requests() {
    let settings = Settings { partitions: 100, partitioner: Partitioner::RoundRobin, linger_ns: 50 * MS, ..settings() };
    let mut server = Server::new(50 * MS);
    let recorder = simulate(&mut producer(settings, 1_000.0, 1), &mut server, 0);
    assert_eq!(recorder.measured.counters.acked_records, 1_000);
    assert!(server.received.len() < 300, "{} requests", server.received.len());
}

/// Batches of very different sizes, so that some do not fit into a request any more when they are closed for it.
#[test]
fn a_partition_is_never_twice_in_one_request() {
    let settings = Settings {
        partitions: 8,
        partitioner: Partitioner::Random,
        sizes: Sizes::Uniform { min: 30, max: 900 },
        payload: Payload::new(1, 1.0, 900),
        batch_bytes: 2 << 10,
        request_bytes: 5 << 10,
        linger_ns: 3 * MS,
        in_flight: 2,
        ..settings()
    };
    let mut server = Server::new(MS);
    let recorder = simulate(&mut producer(settings, 10_000.0, 2), &mut server, MS / 3);
    assert_eq!(recorder.measured.counters.acked_records, 20_000);
}
