//! What is shown while a run goes on: a line that rewrites itself in a terminal, one plain line a second elsewhere.

use std::io::{IsTerminal, Write};

use crate::{
    engine::{News, books::Row},
    measure::{Metric, Sample},
    workload::units::{show_count, show_ns},
};

/// Where and how much to show.
pub struct Progress {
    is_quiet: bool,
    is_terminal: bool,
    line_open: bool,
}

impl Progress {
    /// Progress goes to standard error, so that standard output is the result alone.
    pub fn new(is_quiet: bool) -> Self {
        Self { is_quiet, is_terminal: std::io::stderr().is_terminal(), line_open: false }
    }

    pub fn tell(&mut self, news: &News<'_>) {
        if self.is_quiet {
            return;
        }
        match news {
            News::Note(text) => self.print(text, false),
            News::Second { row, totals, left_ns } => {
                let line = second_line(row, totals, *left_ns);
                self.print(&line, true);
            }
        }
    }

    /// Ends a line that rewrites itself.
    pub fn finish(&mut self) {
        if std::mem::take(&mut self.line_open) {
            say("\n");
        }
    }

    fn print(&mut self, line: &str, rewrites: bool) {
        if self.is_terminal && rewrites {
            say(&format!("\r\x1b[K{line}"));
            self.line_open = true;
        } else {
            self.finish();
            say(&format!("{line}\n"));
        }
    }
}

/// If standard error is gone there is nobody to tell, and no reason to end the run.
fn say(text: &str) {
    let mut output = std::io::stderr().lock();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

fn second_line(row: &Row, totals: &Sample, left_ns: u64) -> String {
    let per_second = |count: u64| show_count((count as f64 / row.duration_s.max(1e-3)).round() as u64);
    let phase = if row.measured { "" } else { " warm-up" };
    let mut line = format!("{:>4}s{phase}", row.second + 1);
    if row.acked_records + row.failed_records > 0 || row.consumed_records == 0 {
        line.push_str(&format!("  acked {}/s", per_second(row.acked_records)));
    }
    if row.consumed_records > 0 {
        line.push_str(&format!("  read {}/s", per_second(row.consumed_records)));
    }
    let metric = if totals.histogram(Metric::Latency).is_empty() { Metric::EndToEnd } else { Metric::Latency };
    let histogram = totals.histogram(metric);
    if !histogram.is_empty() {
        line.push_str(&format!(
            "  p50 {}  p99 {} so far",
            show_ns(histogram.value_at_quantile(0.5) as f64),
            show_ns(histogram.value_at_quantile(0.99) as f64)
        ));
    }
    let counters = &totals.counters;
    let errors = counters.failed_records + counters.timed_out_records;
    line.push_str(&format!("  errors {}  left {} s", show_count(errors), left_ns.div_ceil(1_000_000_000)));
    line
}
