//! The result as JSON. Schema `ringtail-loadgen/run/1`: fields are only added within a version; see METHOD.md.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    client::error::code_name,
    engine::Outcome,
    environment::{BrokerFacts, Machine},
    hlog,
    measure::{Metric, is_backed},
    workload::Mode,
};

pub const SCHEMA: &str = "ringtail-loadgen/run/1";
pub const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// What surrounds a result.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Setting {
    pub machine: Machine,
    pub broker: BrokerFacts,
    pub command: String,
    pub version: String,
}

/// One column's numbers. Percentiles without 100 samples beyond them are left out.
pub fn column(histogram: &Histogram<u64>) -> Value {
    let samples = histogram.len();
    let percentiles: BTreeMap<&str, Value> = QUANTILES
        .iter()
        .filter(|(_, quantile)| is_backed(*quantile, samples))
        .map(|(name, quantile)| {
            let beyond = ((1.0 - quantile) * samples as f64).round() as u64;
            let ns = histogram.value_at_quantile(*quantile);
            (*name, json!({ "ns": ns, "samples_beyond": beyond }))
        })
        .collect();
    json!({
        "samples": samples,
        "min_ns": histogram.min(),
        "mean_ns": histogram.mean(),
        "max_ns": histogram.max(),
        "percentiles": percentiles,
        "histogram_v2_deflate_base64": hlog::encode_once(histogram),
    })
}

/// How the offered rate was met.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RateResult {
    /// None in a closed loop.
    pub offered_records_per_s: Option<f64>,
    pub due_records_per_s: f64,
    pub achieved_records_per_s: f64,
    pub achieved_bytes_per_s: f64,
    pub consumed_records_per_s: f64,
    pub consumed_bytes_per_s: f64,
    /// Whether the acknowledgements that came while the schedule ran are at least 99 % of the records that were due.
    pub sustained: Option<bool>,
}

const SUSTAINED_SHARE: f64 = 0.99;

pub fn rate(outcome: &Outcome) -> RateResult {
    let counters = &outcome.books.totals.counters;
    let mut until = outcome.window.end.min(outcome.ended);
    if outcome.workload.mode == Mode::Fetch && outcome.last_read > outcome.window.start {
        // Reading ends with the log, not with the clock.
        until = until.min(outcome.last_read);
    }
    let seconds = until.saturating_sub(outcome.window.start).max(1) as f64 / 1e9;
    let offered = match outcome.workload.mode {
        Mode::Fetch => None,
        Mode::Produce | Mode::Both => outcome.workload.records_per_second(),
    };
    let due = counters.due_records();
    // A short run is judged with room for the few that are always on their way.
    let missing = due.saturating_sub(counters.acked_in_window);
    let allowed = ((1.0 - SUSTAINED_SHARE) * due as f64).max(100.0).min(due as f64 / 2.0);
    RateResult {
        offered_records_per_s: offered,
        due_records_per_s: due as f64 / seconds,
        achieved_records_per_s: counters.acked_in_window as f64 / seconds,
        achieved_bytes_per_s: counters.acked_bytes_in_window as f64 / seconds,
        consumed_records_per_s: counters.consumed_records as f64 / seconds,
        consumed_bytes_per_s: counters.consumed_bytes as f64 / seconds,
        sustained: offered.map(|_| missing as f64 <= allowed),
    }
}

/// The whole report.
pub fn report(outcome: &Outcome, setting: &Setting) -> Value {
    let totals = &outcome.books.totals;
    let named = |codes: &BTreeMap<i16, u64>| -> BTreeMap<String, u64> {
        codes.iter().map(|(code, count)| (code_name(*code), *count)).collect()
    };
    let columns: BTreeMap<&str, Value> = Metric::ALL
        .into_iter()
        .filter(|metric| !totals.histogram(*metric).is_empty())
        .map(|metric| (metric.name(), column(totals.histogram(metric))))
        .collect();
    json!({
        "schema": SCHEMA,
        "setting": setting,
        "workload": outcome.workload,
        "started_unix_ns": outcome.started_wall_ns,
        "measured_from_s": (outcome.window.start - outcome.start) as f64 / 1e9,
        "measured_until_s": (outcome.window.end.min(outcome.ended).saturating_sub(outcome.start)) as f64 / 1e9,
        "ended_s": outcome.ended.saturating_sub(outcome.start) as f64 / 1e9,
        "interrupted": outcome.interrupted,
        "partitions": outcome.partitions,
        "prefilled_bytes": outcome.prefilled_bytes,
        "valid": outcome.invalid.is_empty(),
        "invalid_because": outcome.invalid,
        "notes": outcome.notes,
        "closed_loop": outcome.workload.mode.produces() && outcome.workload.records_per_second().is_none(),
        "rate": rate(outcome),
        "counters": totals.counters,
        "errors": named(&totals.counters.errors),
        "retries": named(&totals.counters.retries),
        "warm_up": {
            "counters": outcome.books.warm_up.counters,
            "errors": named(&outcome.books.warm_up.counters.errors),
            "retries": named(&outcome.books.warm_up.counters.retries),
        },
        "generator_cpu": {
            "busiest_thread_share": outcome.books.busiest_worker(),
            "ns_per_record": outcome.books.cpu_ns() as f64
                / (totals.counters.due_records() + totals.counters.consumed_records).max(1) as f64,
        },
        "verification": outcome.verdict,
        "group": outcome.group,
        "columns": columns,
        "seconds": outcome.books.rows,
    })
}
