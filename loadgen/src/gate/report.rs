//! The gate's result for CI: JUnit XML, Markdown for a job page, HTML, JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::{
    compare::{
        Numbers,
        report::{pairs_plot, show, targets},
    },
    gate::{Verdict, baseline::Baseline},
    report::{
        html::{escape, page, setting_lines},
        json::Setting,
    },
    stats::gate::{Decision, Evidence},
};

pub const SCHEMA: &str = "ringtail-loadgen/gate/1";

fn headline(verdict: &Verdict) -> &'static str {
    match verdict.look.decision {
        Decision::Pass => "pass: every gated latency is within its limit",
        Decision::Regression => "regression: a gated latency is slower than its limit",
        Decision::Inconclusive => "inconclusive: too much noise to tell; more pairs or a quieter machine are needed",
    }
}

fn standing(evidence: &Evidence) -> &'static str {
    match (evidence.is_above, evidence.is_below) {
        (true, _) => "above the limit",
        (false, true) => "below the limit",
        (false, false) => "undecided",
    }
}

/// Name, evidence and limit of each gated number.
fn rows(verdict: &Verdict) -> impl Iterator<Item = (&String, &Evidence, f64)> {
    let names = verdict.names.iter().zip(&verdict.look.metrics);
    names.zip(&verdict.rules.limits).map(|((name, evidence), limit)| (name, evidence, *limit))
}

/// What stands behind the rows.
fn footing(verdict: &Verdict) -> String {
    let rounds = &verdict.rounds;
    format!(
        "{} pairs of rounds of {} planned, looks at {:?}, {} pairs dropped for CPU steal, {} of {} rounds with the generator late. False regressions ≤ {} %, false passes at the limit ≤ {} %, over all metrics and looks. Seed {}.",
        rounds.pairs.len(),
        rounds.plan().pairs,
        verdict.rules.looks,
        rounds.dropped,
        rounds.late_rounds(),
        rounds.pairs.len() * 2,
        verdict.rules.alpha_regression * 100.0,
        verdict.rules.alpha_pass * 100.0,
        rounds.plan().seed
    )
}

pub fn markdown(verdict: &Verdict) -> String {
    let mut text = format!("## Latency gate: {}\n\n", headline(verdict));
    if let Some(baseline) = &verdict.baseline {
        text.push_str(&format!("**{}**\n\n", baseline.warning()));
    }
    let mut write = || -> std::fmt::Result {
        writeln!(text, "| | slowdown | limit | p (above) | p (below) | |\n|---|--:|--:|--:|--:|---|")?;
        for (name, evidence, limit) in rows(verdict) {
            writeln!(
                text,
                "| {name} | {:+.2} % | {:.1} % | {:.4} | {:.4} | {} |",
                evidence.slowdown * 100.0,
                limit * 100.0,
                evidence.p_above_limit,
                evidence.p_below_limit,
                standing(evidence)
            )?;
        }
        writeln!(text, "\n{}", footing(verdict))
    };
    write().expect("writing to a string does not fail");
    text
}

/// One test case for each gated number. What is undecided is skipped, unless the whole gate says otherwise.
pub fn junit(verdict: &Verdict) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let mut write = || -> std::fmt::Result {
        let failures = rows(verdict).filter(|(_, evidence, _)| evidence.is_above).count();
        let skipped = rows(verdict).filter(|(_, evidence, _)| !evidence.is_above && !evidence.is_below).count();
        writeln!(
            text,
            "<testsuite name=\"latency gate\" tests=\"{}\" failures=\"{failures}\" skipped=\"{skipped}\">",
            verdict.names.len()
        )?;
        for (name, evidence, limit) in rows(verdict) {
            let body = format!("{:+.2} % (limit {:.1} %)", evidence.slowdown * 100.0, limit * 100.0);
            let element = match (evidence.is_above, evidence.is_below) {
                (true, _) => format!("<failure message=\"{body}\"/>"),
                (false, true) => String::new(),
                (false, false) => format!("<skipped message=\"undecided: {body}\"/>"),
            };
            writeln!(text, "  <testcase classname=\"latency\" name=\"{}\">{element}</testcase>", escape(name))?;
        }
        writeln!(text, "</testsuite>")
    };
    write().expect("writing to a string does not fail");
    text
}

pub fn json(verdict: &Verdict, setting: &Setting) -> Value {
    json!({
        "schema": SCHEMA,
        "setting": setting,
        "decision": verdict.look.decision,
        "names": verdict.names,
        "look": verdict.look,
        "rules": verdict.rules,
        "plan": verdict.rounds.plan(),
        "pairs": verdict.rounds.pairs,
        "weaker_because": verdict.baseline.as_ref().map(Baseline::warning),
        "dropped_for_steal": verdict.rounds.dropped,
        "late_rounds": verdict.rounds.late_rounds(),
    })
}

pub fn html(verdict: &Verdict, setting: &Setting) -> String {
    let class = if verdict.look.decision == Decision::Pass { "verdict" } else { "verdict bad" };
    let mut body = format!("<h1>Latency gate</h1><div class=\"{class}\">{}</div>", headline(verdict));
    match &verdict.baseline {
        Some(baseline) => body.push_str(&format!("<p><b>{}</b></p>", escape(&baseline.warning()))),
        None => body.push_str(&targets(&verdict.rounds)),
    }
    let mut write = || -> std::fmt::Result {
        body.push_str("<div class=\"wide\"><table><tr><th></th><th>base</th><th>candidate</th><th>slowdown</th><th>limit</th><th>p (above)</th><th>p (below)</th><th></th></tr>");
        for (name, evidence, limit) in rows(verdict) {
            let middle = |rounds: &mut dyn Iterator<Item = &Numbers>| {
                let mut values: Vec<f64> = rounds.filter_map(|numbers| numbers.get(name).copied()).collect();
                values.sort_unstable_by(f64::total_cmp);
                show(name, crate::stats::quantile(&values, 0.5))
            };
            let pairs = &verdict.rounds.pairs;
            let base = match &verdict.baseline {
                Some(baseline) => middle(&mut baseline.pairs.iter().map(|pair| &pair.candidate)),
                None => middle(&mut pairs.iter().map(|pair| &pair.base)),
            };
            write!(
                body,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{:+.2} %</td><td>{:.1} %</td><td>{:.4}</td><td>{:.4}</td><td class=\"words\">{}</td></tr>",
                escape(name),
                base,
                middle(&mut pairs.iter().map(|pair| &pair.candidate)),
                evidence.slowdown * 100.0,
                limit * 100.0,
                evidence.p_above_limit,
                evidence.p_below_limit,
                standing(evidence)
            )?;
        }
        write!(body, "</table></div><p class=\"dim\">{}</p>", footing(verdict))?;
        for (name, _, limit) in rows(verdict).filter(|_| verdict.baseline.is_none()) {
            body.push_str(&pairs_plot(&verdict.rounds, name, &[("limit", 1.0 + limit)]).draw());
        }
        body.push_str(&setting_lines(setting));
        Ok(())
    };
    write().expect("writing to a string does not fail");
    page("Latency gate", &body)
}
