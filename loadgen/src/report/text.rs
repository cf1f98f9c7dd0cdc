//! The summary on the terminal.

use std::fmt::Write;

use crate::{
    client::error::code_name,
    engine::Outcome,
    measure::{Metric, is_backed},
    report::json::{QUANTILES, Setting, rate},
    workload::{
        Mode, Rate,
        units::{show_count, show_ns},
    },
};

/// What a person wants to know, in the order of importance.
pub fn summary(outcome: &Outcome, setting: &Setting) -> String {
    let mut text = String::new();
    write(&mut text, outcome, setting).expect("writing to a string does not fail");
    text
}

fn write(text: &mut String, outcome: &Outcome, setting: &Setting) -> std::fmt::Result {
    let workload = &outcome.workload;
    let rate = rate(outcome);
    let broker = &setting.broker;
    writeln!(
        text,
        "\n{} against {} at {} ({}; {})",
        workload.name,
        broker.kind,
        broker.bootstrap,
        broker.durability,
        broker.features.iter().find(|f| f.starts_with("metadata.version")).map_or("no features announced", |f| f),
    )?;
    if workload.mode.produces() {
        let loop_kind = match workload.rate {
            Rate::Max => {
                "closed loop (--rate max): latencies are those of a full pipeline, not of an offered load".to_owned()
            }
            Rate::RecordsPerSecond(_) | Rate::BytesPerSecond(_) => {
                format!("offered {} records/s, open loop", show_count(rate.offered_records_per_s.unwrap_or(0.0) as u64))
            }
        };
        writeln!(text, "  {loop_kind}; acks={}, seed {}", show_acks(workload.acks), workload.seed)?;
        writeln!(
            text,
            "  acknowledged  {} records/s, {:.2} MB/s{}",
            show_count(rate.achieved_records_per_s.round() as u64),
            rate.achieved_bytes_per_s / 1e6,
            if rate.sustained == Some(false) { "   RATE NOT SUSTAINED: the broker fell behind" } else { "" },
        )?;
    }
    if workload.mode.fetches() {
        writeln!(
            text,
            "  consumed      {} records/s, {:.2} MB/s",
            show_count(rate.consumed_records_per_s.round() as u64),
            rate.consumed_bytes_per_s / 1e6
        )?;
    }
    table(text, outcome)?;
    errors(text, outcome)?;
    writeln!(text, "  generator     {:.0} % of a core in its busiest thread", outcome.books.busiest_worker() * 100.0)?;
    verdict(text, outcome)?;
    for note in &outcome.notes {
        writeln!(text, "  note: {note}")?;
    }
    for reason in &outcome.invalid {
        writeln!(text, "  INVALID: {reason}")?;
    }
    if outcome.interrupted {
        writeln!(text, "  interrupted: this is the report so far")?;
    }
    Ok(())
}

fn show_acks(acks: i16) -> &'static str {
    match acks {
        0 => "0 (nothing answers: latency is only until the record is handed to the socket)",
        1 => "1",
        _ => "all",
    }
}

fn table(text: &mut String, outcome: &Outcome) -> std::fmt::Result {
    writeln!(
        text,
        "\n  {:<34}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>13}",
        "", "p50", "p90", "p99", "p99.9", "p99.99", "max", "samples"
    )?;
    for metric in Metric::ALL {
        let histogram = outcome.books.totals.histogram(metric);
        if histogram.is_empty() {
            continue;
        }
        let title = match metric {
            Metric::Latency => "latency from intended send time",
            Metric::Service => "service time from actual send",
            Metric::Lateness => "lateness of the generator itself",
            Metric::EndToEnd => "end to end from intended send time",
            Metric::Fetch => "fetch round trip",
        };
        write!(text, "  {title:<34}")?;
        for (_, quantile) in QUANTILES {
            let cell = if is_backed(quantile, histogram.len()) {
                show_ns(histogram.value_at_quantile(quantile) as f64)
            } else {
                "–".to_owned()
            };
            write!(text, "{cell:>10}")?;
        }
        writeln!(text, "{:>10}{:>13}", show_ns(histogram.max() as f64), show_count(histogram.len()))?;
    }
    writeln!(text, "  (– fewer than 100 samples beyond it)\n")
}

fn errors(text: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let books = &outcome.books;
    // What went wrong in the warm-up is no part of the numbers, but explains them.
    for (counters, when) in [(&books.totals.counters, ""), (&books.warm_up.counters, " (in the warm-up)")] {
        for (code, count) in &counters.errors {
            writeln!(text, "  failed        {} records: {}{when}", show_count(*count), code_name(*code))?;
        }
        for (code, count) in &counters.retries {
            writeln!(text, "  retried       {} times: {}{when}", show_count(*count), code_name(*code))?;
        }
        if counters.throttled_ns > 0 {
            let silence = show_ns(counters.throttled_ns as f64);
            writeln!(text, "  throttled     {silence} in all: the broker asked for it{when}")?;
        }
        if counters.reconnects > 0 {
            writeln!(text, "  reconnected   {} times{when}", show_count(counters.reconnects))?;
        }
    }
    Ok(())
}

fn verdict(text: &mut String, outcome: &Outcome) -> std::fmt::Result {
    if let Some(group) = &outcome.group {
        let errors: Vec<String> =
            group.commit_errors.iter().map(|(code, count)| format!(", {count} {}", code_name(*code))).collect();
        writeln!(
            text,
            "  group         {} joins, {} commits{}; {} offsets read back, {} lost",
            group.joins,
            group.commits,
            errors.concat(),
            group.checked_offsets,
            group.lost_offsets
        )?;
    }
    let Some(verdict) = &outcome.verdict else {
        if outcome.workload.mode == Mode::Produce {
            writeln!(text, "  verified      nothing: no consumer (--mode both reads back)")?;
        }
        return Ok(());
    };
    let is_broken = verdict.is_broken(outcome.workload.idempotence);
    writeln!(
        text,
        "  verified      {} records: {}{} lost, {} repeated, {} out of order, {} corrupt batches",
        show_count(verdict.checked_records),
        if is_broken { "BROKEN: " } else { "" },
        show_count(verdict.lost_records),
        show_count(verdict.duplicate_records),
        show_count(verdict.reordered_records),
        show_count(verdict.corrupt_batches),
    )?;
    for finding in &verdict.findings {
        writeln!(text, "    {finding}")?;
    }
    if verdict.unchecked_partitions > 0 {
        writeln!(
            text,
            "    {} partitions were not checked to the end: the consumer was too far behind",
            verdict.unchecked_partitions
        )?;
    }
    Ok(())
}
