//! The result of a comparison as text, Markdown rows and JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::compare::{Finding, Rounds};
use crate::report::json::Setting;
use crate::workload::units::{show_count, show_ns};

pub const SCHEMA: &str = "ringtail-loadgen/compare/1";

/// A value in its own unit.
pub fn show(name: &str, value: f64) -> String {
    if name.ends_with("records/s") {
        show_count(value.round() as u64)
    } else if name.ends_with("RSS") {
        format!("{:.1} MiB", value / 1_048_576.0)
    } else {
        show_ns(value)
    }
}

/// What the row means, in words.
pub fn words(finding: &Finding) -> String {
    if finding.differs {
        let change = (finding.ratio - 1.0) * 100.0;
        format!("{} by {:.1} %", if change > 0.0 { "higher" } else { "lower" }, change.abs())
    } else {
        format!("no difference seen; smallest detectable {:.1} %", finding.smallest_detectable * 100.0)
    }
}

pub fn markdown(findings: &[Finding], rounds: &Rounds) -> String {
    let mut text =
        String::from("| | base | candidate | ratio | 95 % interval | p | |\n|---|--:|--:|--:|---|--:|---|\n");
    let mut write = || -> std::fmt::Result {
        for f in findings {
            writeln!(
                text,
                "| {} | {} | {} | {:.3} | {:.3} – {:.3} | {:.4} | {} |",
                f.name,
                show(&f.name, f.base_median),
                show(&f.name, f.candidate_median),
                f.ratio,
                f.ratio_low,
                f.ratio_high,
                f.p_value,
                words(f)
            )?;
        }
        writeln!(
            text,
            "\n{} pairs of rounds, {} dropped for CPU steal, {} of {} rounds with the generator late; order within pairs drawn from seed {}; sign-flip test, Holm over the rows.",
            rounds.pairs.len(),
            rounds.dropped,
            rounds.late_rounds(),
            rounds.pairs.len() * 2,
            rounds.plan().seed
        )
    };
    write().expect("writing to a string does not fail");
    text
}

pub fn json(findings: &[Finding], rounds: &Rounds, setting: &Setting) -> Value {
    json!({
        "schema": SCHEMA,
        "setting": setting,
        "plan": rounds.plan(),
        "pairs": rounds.pairs,
        "dropped_for_steal": rounds.dropped,
        "findings": findings,
    })
}
