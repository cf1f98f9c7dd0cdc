//! What the generator itself costs: its ceiling, its latency floor and its CPU, against a broker that does nothing.

use std::fmt::Write;

use bytes::BytesMut;
use serde::Serialize;

use crate::{
    engine::{self, Outcome},
    failure::Failure,
    measure::Metric,
    null_broker::{Manners, NullBroker},
    records::{
        batch::{BatchWriter, Identity, seal},
        compress::Codec,
        stamp::Stamp,
    },
    report::json::rate,
    sys,
    workload::{
        Workload,
        shape::Shape,
        units::{show_count, show_ns},
    },
};

const ENCODE_NS: u64 = 1_000_000_000;

/// One measurement against the null broker.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    pub name: &'static str,
    pub records_per_s: f64,
    pub requests_per_s: f64,
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub lateness_p99_ns: u64,
    /// Of the generator's load threads.
    pub cpu_ns_per_request: f64,
    pub null_broker_cpu_ns_per_request: f64,
}

/// The whole self-test. Schema `ringtail-loadgen/self-test/1`.
#[derive(Clone, Debug, Serialize)]
pub struct SelfTest {
    pub schema: &'static str,
    pub encoded_records_per_s: f64,
    pub cases: Vec<Case>,
}

const CASES: [(&str, &str); 4] = [
    (
        "floor: 1 connection, 1,000 requests/s",
        "mode='produce'\nrate=1000\nrecord-bytes=100\nbatch-records=1\nduration='4s'\nwarm-up='1s'",
    ),
    (
        "floor: 16 connections, 8,000 requests/s",
        "mode='produce'\nrate=8000\nproducers=16\npartitions=16\nrecord-bytes=100\nbatch-records=1\nduration='4s'\nwarm-up='1s'",
    ),
    (
        "ceiling: small requests, 16 connections",
        "mode='produce'\nrate='max'\nproducers=16\npartitions=16\nrecord-bytes=100\nbatch-records=1\nduration='4s'\nwarm-up='1s'",
    ),
    (
        "ceiling: 100-byte records in 256 KiB batches",
        "mode='produce'\nrate='max'\nrecord-bytes=100\nbatch-bytes='256KiB'\nduration='4s'\nwarm-up='1s'",
    ),
];

/// Runs everything; some 25 seconds.
pub fn run() -> Result<SelfTest, Failure> {
    let encoded_records_per_s = encode_rate();
    let mut cases = Vec::new();
    for (name, toml) in CASES {
        let workload = Workload::resolve(&Shape::from_toml(toml)?)?;
        let broker = NullBroker::start(0, Manners::default())
            .map_err(|error| Failure(format!("cannot start the null broker: {error}")))?;
        let outcome = engine::run(&workload, &[broker.address.to_string()], &mut |_| {})?;
        cases.push(case(name, &outcome, broker.cpu_ns()));
    }
    Ok(SelfTest { schema: "ringtail-loadgen/self-test/1", encoded_records_per_s, cases })
}

fn case(name: &'static str, outcome: &Outcome, broker_cpu_ns: u64) -> Case {
    let totals = &outcome.books.totals;
    let measured = totals.counters.produce_requests.max(1) as f64;
    let all = measured + outcome.books.warm_up.counters.produce_requests as f64;
    let seconds = (outcome.window.end - outcome.window.start) as f64 / 1e9;
    let latency = totals.histogram(Metric::Latency);
    Case {
        name,
        records_per_s: rate(outcome).achieved_records_per_s,
        requests_per_s: measured / seconds,
        p50_ns: latency.value_at_quantile(0.5),
        p99_ns: latency.value_at_quantile(0.99),
        lateness_p99_ns: totals.histogram(Metric::Lateness).value_at_quantile(0.99),
        cpu_ns_per_request: outcome.books.cpu_ns() as f64 / measured,
        null_broker_cpu_ns_per_request: broker_cpu_ns as f64 / all,
    }
}

/// 100-byte records a second that one core encodes into sealed batches, the buffer reused.
fn encode_rate() -> f64 {
    let payload = [7u8; 100 - crate::records::stamp::STAMP_BYTES];
    let mut buffer = BytesMut::with_capacity(300 << 10);
    let mut scratch = Vec::new();
    let (start, mut records) = (sys::monotonic_ns(), 0u64);
    while sys::monotonic_ns() < start + ENCODE_NS {
        let mut writer = BatchWriter::start(buffer, 1);
        while writer.len() < 256 << 10 {
            let stamp = Stamp { run: 1, producer: 1, sequence: records, intended_ns: records };
            writer.push(1, None, &stamp.encode(), &payload);
            records += 1;
        }
        let bytes = writer.finish(Codec::None, &mut scratch).expect("nothing is compressed");
        let sealed = std::hint::black_box(seal(bytes, Identity::NONE));
        buffer = sealed.try_into_mut().unwrap_or_default();
    }
    records as f64 * 1e9 / (sys::monotonic_ns() - start) as f64
}

/// The result for a terminal.
pub fn text(result: &SelfTest) -> String {
    let mut text = String::new();
    let mut write = || -> std::fmt::Result {
        writeln!(
            text,
            "encoder       {} records/s of 100 bytes on one core\n",
            show_count(result.encoded_records_per_s as u64)
        )?;
        writeln!(
            text,
            "{:<46}{:>12}{:>12}{:>10}{:>10}{:>10}{:>14}",
            "against the built-in null broker", "records/s", "requests/s", "p50", "p99", "late p99", "CPU/request"
        )?;
        for case in &result.cases {
            writeln!(
                text,
                "{:<46}{:>12}{:>12}{:>10}{:>10}{:>10}{:>14}",
                case.name,
                show_count(case.records_per_s as u64),
                show_count(case.requests_per_s as u64),
                show_ns(case.p50_ns as f64),
                show_ns(case.p99_ns as f64),
                show_ns(case.lateness_p99_ns as f64),
                show_ns(case.cpu_ns_per_request),
            )?;
        }
        writeln!(
            text,
            "\nThe null broker runs on the same machine and takes CPU too ({} a small request): floors are upper bounds.",
            show_ns(result.cases.get(1).map_or(0.0, |case| case.null_broker_cpu_ns_per_request))
        )
    };
    write().expect("writing to a string does not fail");
    text
}
