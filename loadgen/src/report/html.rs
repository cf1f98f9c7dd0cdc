//! One self-contained page: style and plots inside, light and dark, readable without network and printable.

use std::fmt::Write;

use hdrhistogram::Histogram;

use crate::{
    client::error::code_name,
    engine::Outcome,
    measure::{Metric, is_backed},
    report::{
        json::{QUANTILES, Setting, rate},
        plot::{Line, Plot, Scale},
    },
    workload::units::{show_count, show_ns},
};

const STYLE: &str = "
:root{--bg:#fbfbf9;--fg:#1d2126;--dim:#636b74;--line:#dfe1dc;--card:#fff;--warm:#8882;--c1:#0b6bcb;--c2:#c2410c;--c3:#15803d;--c4:#9333ea;--c5:#b45309;--bad:#b91c1c;--good:#15803d}
@media(prefers-color-scheme:dark){:root{--bg:#14171a;--fg:#e4e6e8;--dim:#98a1ab;--line:#2d3339;--card:#1b1f23;--warm:#8883;--c1:#5cabff;--c2:#fb923c;--c3:#4ade80;--c4:#c084fc;--c5:#fbbf24;--bad:#f87171;--good:#4ade80}}
*{box-sizing:border-box}body{margin:0 auto;max-width:960px;padding:28px 20px 60px;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif}
h1{font-size:1.6em;margin:0 0 .2em}h2{font-size:1.15em;margin:2em 0 .6em}p{margin:.4em 0}.dim{color:var(--dim)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;background:var(--card)}th,td{white-space:nowrap;padding:6px 10px;border-bottom:1px solid var(--line);text-align:right}th:first-child,td:first-child{text-align:left;white-space:normal}th{font-weight:600;color:var(--dim)}
td.words{white-space:normal;text-align:left;min-width:12em}.wide{overflow-x:auto}.verdict{padding:10px 14px;border-left:4px solid var(--good);background:var(--card);margin:14px 0}.verdict.bad{border-color:var(--bad)}
figure{margin:18px 0;background:var(--card);padding:12px;border:1px solid var(--line);border-radius:6px}figcaption{font-weight:600;margin-bottom:6px}svg{width:100%;height:auto;display:block}
svg text{fill:var(--dim);font:11px system-ui,sans-serif}svg .label{font-size:12px}.grid{stroke:var(--line)}.warm{fill:var(--warm)}polyline{fill:none;stroke-width:1.6;stroke-linejoin:round}
.legend span{margin-right:16px;white-space:nowrap;color:var(--fg);font-size:13px}.legend i{display:inline-block;width:14px;height:3px;margin-right:6px;vertical-align:middle}
.c1{stroke:var(--c1)}.c2{stroke:var(--c2)}.c3{stroke:var(--c3)}.c4{stroke:var(--c4)}.c5{stroke:var(--c5)}.c1 i{background:var(--c1)}.c2 i{background:var(--c2)}.c3 i{background:var(--c3)}.c4 i{background:var(--c4)}.c5 i{background:var(--c5)}
.c1.dot{fill:var(--c1)}.c2.dot{fill:var(--c2)}.c3.dot{fill:var(--c3)}.c4.dot{fill:var(--c4)}.c5.dot{fill:var(--c5)}
pre{white-space:pre-wrap;word-break:break-all;background:var(--card);border:1px solid var(--line);padding:10px;border-radius:6px;font-size:13px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 16px}dt{color:var(--dim)}dd{margin:0;overflow-wrap:anywhere}";

/// The frame around a report's body.
pub fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\"><title>{}</title><style>{STYLE}</style></head><body>{body}</body></html>\n",
        escape(title)
    )
}

/// The report of one run.
pub fn run_page(outcome: &Outcome, setting: &Setting) -> String {
    let mut body = String::new();
    write_run(&mut body, outcome, setting).expect("writing to a string does not fail");
    page(&format!("{} – {}", outcome.workload.name, setting.broker.kind), &body)
}

fn write_run(body: &mut String, outcome: &Outcome, setting: &Setting) -> std::fmt::Result {
    let workload = &outcome.workload;
    let broker = &setting.broker;
    write!(
        body,
        "<h1>{}</h1><p class=\"dim\">{} at {} · {} · acks={} · seed {}</p>",
        escape(&workload.name),
        escape(&broker.kind),
        escape(&broker.bootstrap),
        escape(&broker.durability),
        if workload.acks == -1 { "all".to_owned() } else { workload.acks.to_string() },
        workload.seed,
    )?;
    write_verdict(body, outcome)?;
    write_rate(body, outcome)?;
    write_table(body, outcome)?;
    for plot in plots(outcome) {
        body.push_str(&plot.draw());
    }
    write_errors(body, outcome)?;
    write_setting(body, outcome, setting)
}

fn write_verdict(body: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let broken = outcome.verdict.as_ref().filter(|v| v.is_broken(outcome.workload.idempotence));
    let mut lines = Vec::new();
    if let Some(verdict) = broken {
        lines.push("<b>The broker broke its word.</b>".to_owned());
        lines.extend(verdict.findings.iter().map(|finding| escape(finding)));
    }
    lines.extend(outcome.invalid.iter().map(|reason| format!("<b>Invalid run:</b> {}", escape(reason))));
    if rate(outcome).sustained == Some(false) {
        lines.push("<b>Rate not sustained:</b> the broker fell behind; latencies include the waiting.".to_owned());
    }
    if outcome.interrupted {
        lines.push("Interrupted: the report so far.".to_owned());
    }
    lines.extend(outcome.notes.iter().map(|note| escape(note)));
    let class = if lines.is_empty() { "verdict" } else { "verdict bad" };
    if lines.is_empty() {
        lines.push("Valid run.".to_owned());
    }
    if let Some(verdict) = &outcome.verdict {
        lines.push(format!(
            "Verified {} records: {} lost, {} repeated, {} out of order, {} corrupt batches.",
            show_count(verdict.checked_records),
            show_count(verdict.lost_records),
            show_count(verdict.duplicate_records),
            show_count(verdict.reordered_records),
            show_count(verdict.corrupt_batches)
        ));
    }
    write!(body, "<div class=\"{class}\">{}</div>", lines.join("<br>"))
}

fn write_rate(body: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let rate = rate(outcome);
    body.push_str("<table><tr><th>Rate</th><th>records/s</th><th>MB/s</th></tr>");
    if outcome.workload.mode.produces() {
        match rate.offered_records_per_s {
            Some(offered) => write!(
                body,
                "<tr><td>offered (open loop)</td><td>{}</td><td>{:.2}</td></tr>",
                show_count(offered.round() as u64),
                offered * outcome.workload.record_bytes.mean() / 1e6
            )?,
            None => body.push_str(
                "<tr><td>closed loop (--rate max): latencies are those of a full pipeline</td><td></td><td></td></tr>",
            ),
        }
        write!(
            body,
            "<tr><td>acknowledged</td><td>{}</td><td>{:.2}</td></tr>",
            show_count(rate.achieved_records_per_s.round() as u64),
            rate.achieved_bytes_per_s / 1e6
        )?;
    }
    if outcome.workload.mode.fetches() {
        write!(
            body,
            "<tr><td>consumed</td><td>{}</td><td>{:.2}</td></tr>",
            show_count(rate.consumed_records_per_s.round() as u64),
            rate.consumed_bytes_per_s / 1e6
        )?;
    }
    body.push_str("</table>");
    Ok(())
}

fn write_table(body: &mut String, outcome: &Outcome) -> std::fmt::Result {
    body.push_str("<h2>Latency</h2><div class=\"wide\"><table><tr><th></th>");
    for (name, _) in QUANTILES {
        write!(body, "<th>{name}</th>")?;
    }
    body.push_str("<th>max</th><th>samples</th></tr>");
    for metric in Metric::ALL {
        let histogram = outcome.books.totals.histogram(metric);
        if histogram.is_empty() {
            continue;
        }
        write!(body, "<tr><td>{}</td>", metric.title())?;
        for (_, quantile) in QUANTILES {
            if is_backed(quantile, histogram.len()) {
                write!(body, "<td>{}</td>", show_ns(histogram.value_at_quantile(quantile) as f64))?;
            } else {
                body.push_str("<td title=\"fewer than 100 samples beyond it\">–</td>");
            }
        }
        write!(body, "<td>{}</td><td>{}</td></tr>", show_ns(histogram.max() as f64), show_count(histogram.len()))?;
    }
    body.push_str("</table></div><p class=\"dim\">– fewer than 100 samples beyond it. Latency counts from the moment at which a record was due, whatever the broker did meanwhile.</p>");
    Ok(())
}

fn plots(outcome: &Outcome) -> Vec<Plot> {
    let warm_up = (outcome.window.start - outcome.start) as f64 / 1e9;
    let shaded_until = (warm_up > 0.0).then_some(warm_up);
    let mut plots = vec![percentile_plot(outcome)];
    for metric in [Metric::Latency, Metric::EndToEnd, Metric::Lateness] {
        if outcome.books.totals.histogram(metric).is_empty() {
            continue;
        }
        plots.push(over_time(outcome, metric, shaded_until));
    }
    let series = |name: &str, colour, value: fn(&crate::engine::books::Row) -> u64| {
        let rows = outcome.books.rows.iter().filter(|row| row.duration_s > 0.5);
        let points = rows.map(|row| (row.second as f64, value(row) as f64 / row.duration_s));
        Line { name: name.to_owned(), colour, points: points.collect() }
    };
    plots.push(Plot {
        title: "Throughput".to_owned(),
        x_label: "seconds".to_owned(),
        y_label: "records/s".to_owned(),
        x_scale: Scale::Linear,
        y_scale: Scale::Linear,
        lines: vec![
            series("acknowledged", 1, |row| row.acked_records),
            series("consumed", 3, |row| row.consumed_records),
            series("failed", 2, |row| row.failed_records),
        ],
        x_marks: Vec::new(),
        show_y: |y| show_count(y as u64),
        shaded_until,
    });
    plots
}

/// Percentiles on the HDR scale: each nine has the same width.
fn percentile_plot(outcome: &Outcome) -> Plot {
    let line = |(at, metric): (usize, Metric)| {
        let histogram = outcome.books.totals.histogram(metric);
        let name = metric.title().to_owned();
        (!histogram.is_empty()).then(|| Line { name, colour: at + 1, points: hdr_points(histogram) })
    };
    let metrics = [Metric::Latency, Metric::Service, Metric::EndToEnd, Metric::Lateness];
    let lines: Vec<Line> = metrics.into_iter().enumerate().filter_map(line).collect();
    let furthest = lines.iter().flat_map(|line| &line.points).map(|(x, _)| *x).fold(2.0, f64::max);
    let marks = [
        (1.0, "0"),
        (2.0, "50 %"),
        (10.0, "90 %"),
        (100.0, "99 %"),
        (1e3, "99.9 %"),
        (1e4, "99.99 %"),
        (1e5, "99.999 %"),
        (1e6, "99.9999 %"),
    ];
    Plot {
        title: "Percentiles".to_owned(),
        x_label: "percentile".to_owned(),
        y_label: "time".to_owned(),
        x_scale: Scale::Log,
        y_scale: Scale::Log,
        lines,
        x_marks: marks.into_iter().filter(|(x, _)| *x <= furthest).map(|(x, text)| (x, text.to_owned())).collect(),
        show_y: show_ns,
        shaded_until: None,
    }
}

/// (1 / (1 - quantile), value).
pub fn hdr_points(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let mut points = Vec::new();
    for step in histogram.iter_quantiles(20) {
        let quantile = step.quantile();
        let rest = (1.0 - quantile).max(1.0 / histogram.len() as f64);
        points.push((1.0 / rest, step.value_iterated_to().min(histogram.max()) as f64));
    }
    points
}

/// A second has few samples: its percentiles are drawn with as many beyond them, to show a course; the table wants 100.
const DRAWN_BEYOND: u64 = 10;

fn over_time(outcome: &Outcome, metric: Metric, shaded_until: Option<f64>) -> Plot {
    type Pick = fn(&crate::engine::books::Points) -> u64;
    let picks: [(&str, usize, Pick, u64); 4] = [
        ("p50", 1, |p| p.p50, 2 * DRAWN_BEYOND),
        ("p99", 3, |p| p.p99, 100 * DRAWN_BEYOND),
        ("p99.9", 4, |p| p.p999, 1_000 * DRAWN_BEYOND),
        ("max", 2, |p| p.max, 1),
    ];
    let lines = picks.map(|(name, colour, pick, enough)| {
        let rows = outcome.books.rows.iter();
        let points = rows.filter_map(|row| {
            let points = row.latencies.get(metric.name()).filter(|points| points.count >= enough)?;
            Some((row.second as f64, pick(points) as f64))
        });
        Line { name: name.to_owned(), colour, points: points.collect() }
    });
    Plot {
        title: format!("{}, second by second", metric.title()),
        x_label: "seconds".to_owned(),
        y_label: "time".to_owned(),
        x_scale: Scale::Linear,
        y_scale: Scale::Log,
        lines: lines.into_iter().filter(|line| !line.points.is_empty()).collect(),
        x_marks: Vec::new(),
        show_y: show_ns,
        shaded_until,
    }
}

fn write_errors(body: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let counters = &outcome.books.totals.counters;
    if counters.errors.is_empty() && counters.retries.is_empty() {
        return Ok(());
    }
    body.push_str(
        "<h2>Errors</h2><table><tr><th>Kafka code</th><th>records failed</th><th>batches or fetches retried</th></tr>",
    );
    let mut codes: Vec<i16> = counters.errors.keys().chain(counters.retries.keys()).copied().collect();
    codes.sort_unstable();
    codes.dedup();
    for code in codes {
        let of = |map: &std::collections::BTreeMap<i16, u64>| show_count(map.get(&code).copied().unwrap_or(0));
        write!(
            body,
            "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
            code_name(code),
            of(&counters.errors),
            of(&counters.retries)
        )?;
    }
    body.push_str("</table>");
    Ok(())
}

fn write_setting(body: &mut String, outcome: &Outcome, setting: &Setting) -> std::fmt::Result {
    let machine = &setting.machine;
    let workload = &outcome.workload;
    let pins = if workload.pin.is_empty() { "not pinned".to_owned() } else { format!("pinned to {:?}", workload.pin) };
    let changed: Vec<String> =
        setting.broker.settings.iter().map(|setting| format!("{}={}", setting.name, setting.value)).collect();
    let rows = [
        ("machine", format!("{} · {} × {}", machine.host, machine.cpus_online, machine.cpu_model)),
        ("kernel", machine.kernel.clone()),
        ("cores", format!("{} thread(s), {pins}, allowed {}", workload.threads, machine.cpus_allowed)),
        ("governor", machine.governor.clone()),
        ("memory", format!("{:.1} GiB", machine.memory_bytes as f64 / f64::from(1 << 30))),
        ("file system (of the generator)", machine.file_system.clone()),
        ("generator CPU", format!("{:.0} % of a core in its busiest thread", outcome.books.busiest_worker() * 100.0)),
        (
            "broker",
            format!(
                "{} · cluster {} · {}",
                setting.broker.kind,
                setting.broker.cluster_id,
                setting.broker.brokers.join(", ")
            ),
        ),
        ("features", setting.broker.features.join(", ")),
        ("durability", setting.broker.durability.clone()),
        ("broker settings", changed.join(" · ")),
    ];
    body.push_str("<h2>Where and how</h2><dl>");
    for (name, value) in rows {
        write!(body, "<dt>{name}</dt><dd>{}</dd>", escape(&value))?;
    }
    write!(body, "</dl><pre>{}</pre>", escape(&setting.command))?;
    let workload = serde_json::to_string_pretty(workload).unwrap_or_default();
    write!(body, "<details><summary>Workload</summary><pre>{}</pre></details>", escape(&workload))
}

/// Machine and command of a comparison.
pub fn setting_lines(setting: &Setting) -> String {
    format!(
        "<h2>Where and how</h2><p>{} · {} × {} · kernel {} · governor {} · {}</p><pre>{}</pre>",
        escape(&setting.machine.host),
        setting.machine.cpus_online,
        escape(&setting.machine.cpu_model),
        escape(&setting.machine.kernel),
        escape(&setting.machine.governor),
        escape(&setting.machine.file_system),
        escape(&setting.command)
    )
}

/// Text for HTML: names and messages come from the command line and from the broker.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
