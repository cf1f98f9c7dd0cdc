//! The result of a comparison as Markdown, HTML and JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::{
    compare::{Finding, Judged, Rounds},
    report::{
        html::{escape, page, setting_lines},
        json::Setting,
        plot::{Line, Plot, Scale},
    },
    target::Target,
    workload::units::{show_count, show_ns},
};

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
fn words(finding: &Finding, pairs: usize) -> String {
    let Some(judged) = &finding.judged else {
        return format!("too few samples: {} of {pairs} pairs have it on both sides", finding.pairs);
    };
    if finding.differs {
        let change = (judged.ratio - 1.0) * 100.0;
        format!("{} by {:.1} %", if change > 0.0 { "higher" } else { "lower" }, change.abs())
    } else if judged.p_value <= 0.05 {
        "differs alone, but is not shown over all rows together: more pairs are needed".to_owned()
    } else if judged.ratio_low.is_none() {
        "too few pairs to tell".to_owned()
    } else {
        format!("no difference seen; smallest detectable {:.1} %", judged.smallest_detectable * 100.0)
    }
}

fn show_interval(judged: &Judged) -> String {
    match (judged.ratio_low, judged.ratio_high) {
        (Some(low), Some(high)) => format!("{low:.3} – {high:.3}"),
        _ => "– (too few pairs)".to_owned(),
    }
}

/// Name, medians, ratio, interval, p and words.
fn cells(finding: &Finding, pairs: usize) -> [String; 7] {
    let dash = || "–".to_owned();
    let median = |value: Option<f64>| value.map_or_else(dash, |value| show(&finding.name, value));
    let of = |show: fn(&Judged) -> String| finding.judged.as_ref().map_or_else(dash, show);
    [
        finding.name.clone(),
        median(finding.base_median),
        median(finding.candidate_median),
        of(|judged| format!("{:.3}", judged.ratio)),
        of(show_interval),
        of(|judged| format!("{:.4}", judged.p_value)),
        words(finding, pairs),
    ]
}

/// Who is compared, as HTML.
pub fn targets(rounds: &Rounds) -> String {
    let plan = rounds.plan();
    let shown = |target: &Target| escape(&target.to_string());
    format!("<dl><dt>base</dt><dd>{}</dd><dt>candidate</dt><dd>{}</dd></dl>", shown(&plan.base), shown(&plan.candidate))
}

/// What stands behind the rows.
fn footing(rounds: &Rounds) -> String {
    format!(
        "{} pairs of rounds, {} dropped for CPU steal, {} of {} rounds with the generator late; order within pairs drawn from seed {}; sign-flip test, Holm over the rows.",
        rounds.pairs.len(),
        rounds.dropped,
        rounds.late_rounds(),
        rounds.pairs.len() * 2,
        rounds.plan().seed
    )
}

pub fn markdown(findings: &[Finding], rounds: &Rounds) -> String {
    let mut text =
        String::from("| | base | candidate | ratio | 95 % interval | p | |\n|---|--:|--:|--:|---|--:|---|\n");
    let mut write = || -> std::fmt::Result {
        for f in findings {
            writeln!(text, "| {} |", cells(f, rounds.pairs.len()).join(" | "))?;
        }
        writeln!(text, "\n{}", footing(rounds))
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

/// One page: the table, every ratio with its interval, and the pairs one by one.
pub fn html(findings: &[Finding], rounds: &Rounds, setting: &Setting) -> String {
    let mut body = String::from("<h1>Comparison</h1>");
    let mut write = || -> std::fmt::Result {
        body.push_str(&targets(rounds));
        body.push_str("<div class=\"wide\"><table><tr><th></th><th>base</th><th>candidate</th><th>ratio</th><th>95 % interval</th><th>p</th><th></th></tr>");
        for f in findings {
            let [first @ .., last] = cells(f, rounds.pairs.len()).map(|cell| escape(&cell));
            write!(body, "<tr><td>{}</td><td class=\"words\">{last}</td></tr>", first.join("</td><td>"))?;
        }
        write!(body, "</table></div><p class=\"dim\">{}</p>", footing(rounds))?;
        body.push_str(&forest(findings));
        for finding in findings.iter().filter(|finding| finding.name.contains("latency")) {
            body.push_str(&pairs_plot(rounds, &finding.name, &[]).draw());
        }
        body.push_str(&setting_lines(setting));
        Ok(())
    };
    write().expect("writing to a string does not fail");
    page("Comparison", &body)
}

/// Candidate over base, pair by pair, beside equality and `levels` of a name and a ratio.
pub fn pairs_plot(rounds: &Rounds, name: &str, levels: &[(&str, f64)]) -> Plot {
    let ratios = rounds.differences(name);
    let points: Vec<(f64, f64)> = ratios.iter().enumerate().map(|(at, d)| ((at + 1) as f64, d.exp())).collect();
    let last = points.len() as f64;
    let level = |name: &str, colour, y| Line { name: name.to_owned(), colour, points: vec![(1.0, y), (last, y)] };
    let mut lines = vec![Line { name: "pairs".to_owned(), colour: 1, points }, level("equal", 3, 1.0)];
    lines.extend(levels.iter().map(|(name, ratio)| level(name, 2, *ratio)));
    Plot {
        title: format!("{}: candidate over base", escape(name)),
        x_label: "pair".to_owned(),
        y_label: "ratio".to_owned(),
        x_scale: Scale::Linear,
        y_scale: Scale::Log,
        lines,
        x_marks: Vec::new(),
        show_y: |y| format!("{y:.2}"),
        shaded_until: None,
    }
}

/// Every ratio as a dot on its interval, on one logarithmic scale around 1.
fn forest(findings: &[Finding]) -> String {
    const ROW: f64 = 24.0;
    const LEFT: f64 = 260.0;
    const WIDTH: f64 = 860.0;
    let furthest = findings
        .iter()
        .filter_map(|f| f.judged.as_ref())
        .flat_map(|judged| [Some(judged.ratio), judged.ratio_low, judged.ratio_high])
        .flatten()
        .filter(|ratio| *ratio > 0.0)
        .map(|ratio| ratio.ln().abs())
        .fold(0.05, f64::max);
    let at = |ratio: f64| LEFT + (ratio.ln() / furthest * 0.95 + 1.0) / 2.0 * (WIDTH - LEFT - 20.0);
    let rows: Vec<(&Finding, &Judged)> = findings.iter().filter_map(|f| Some((f, f.judged.as_ref()?))).collect();
    let height = ROW * (rows.len() as f64 + 1.5);
    let mut svg = format!(
        "<figure><figcaption>Candidate over base, with 95 % intervals</figcaption><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"ratios\"><line class=\"c3\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"4\" y2=\"{1:.1}\"/>",
        at(1.0),
        height - ROW * 1.2
    );
    let mut write = || -> std::fmt::Result {
        for (row, (f, judged)) in rows.iter().enumerate() {
            let y = ROW * (row as f64 + 0.7);
            let colour = if f.differs { "c2" } else { "c1" };
            write!(
                svg,
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 10.0,
                y + 4.0,
                escape(&f.name)
            )?;
            if let (Some(low), Some(high)) = (judged.ratio_low, judged.ratio_high) {
                write!(
                    svg,
                    "<line class=\"{colour}\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
                    at(low),
                    at(high)
                )?;
            }
            write!(svg, "<circle class=\"{colour} dot\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4\"/>", at(judged.ratio))?;
        }
        for ratio in [(-furthest).exp(), 1.0, furthest.exp()] {
            write!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{ratio:.3}</text>",
                at(ratio),
                height - 8.0
            )?;
        }
        Ok(())
    };
    write().expect("writing to a string does not fail");
    svg.push_str("</svg><p class=\"legend\"><span class=\"c2\"><i></i>differs</span><span class=\"c1\"><i></i>not shown to differ</span><span class=\"c3\"><i></i>equal</span></p></figure>");
    svg
}
