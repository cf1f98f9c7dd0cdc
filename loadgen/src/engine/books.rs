//! The books of a run: what the threads hand over every second, put together.

use std::{collections::BTreeMap, sync::mpsc::Sender};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    hlog::HistogramLog,
    measure::{Metric, Sample},
    worker::Handover,
};

/// One second of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// Seconds since the start of the load, warm-up included.
    pub second: u64,
    /// False in the warm-up.
    pub measured: bool,
    pub duration_s: f64,
    pub acked_records: u64,
    pub acked_bytes: u64,
    pub failed_records: u64,
    pub consumed_records: u64,
    pub consumed_bytes: u64,
    pub produce_requests: u64,
    pub retries: u64,
    /// By metric: p50, p99, p99.9 (0 without enough samples) and max in nanoseconds.
    pub latencies: BTreeMap<&'static str, Points>,
    /// CPU time of the busiest thread, as a share of a core.
    pub cpu: f64,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Points {
    pub count: u64,
    pub p50: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

impl Points {
    fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }
}

struct Pending {
    measured: Sample,
    warm_up: Sample,
    start: u64,
    end: u64,
    cpu: f64,
    reports: usize,
}

/// Totals of the measured part, and the rows.
pub struct Books {
    start: u64,
    measured_from: u64,
    workers: usize,
    pub totals: Sample,
    pub warm_up: Sample,
    pub rows: Vec<Row>,
    pub log: HistogramLog,
    pending: BTreeMap<u64, Pending>,
    finished: usize,
    /// By worker: CPU and wall time in rows that were measured.
    cpu: Vec<(u64, u64)>,
}

impl Books {
    pub fn new(start: u64, measured_from: u64, workers: usize) -> Self {
        Self {
            start,
            measured_from,
            workers,
            totals: Sample::default(),
            warm_up: Sample::default(),
            rows: Vec::new(),
            log: HistogramLog::default(),
            pending: BTreeMap::new(),
            finished: 0,
            cpu: vec![(0, 0); workers],
        }
    }

    /// Takes one thread's interval, gives its samples back, and returns the rows that are complete now.
    pub fn take(&mut self, handover: Handover, returns: &[Sender<Sample>]) -> Vec<Row> {
        let elapsed = handover.end - handover.start;
        self.totals.add(&handover.measured);
        self.warm_up.add(&handover.warm_up);
        if handover.measured.counters.due_records() + handover.measured.counters.consumed_records > 0 {
            let (cpu, wall) = &mut self.cpu[handover.worker];
            *cpu += handover.cpu_ns;
            *wall += elapsed;
        }
        self.finished += usize::from(handover.is_last);
        let pending = self.pending.entry(handover.index).or_insert_with(|| Pending {
            measured: Sample::default(),
            warm_up: Sample::default(),
            start: handover.start,
            end: handover.end,
            cpu: 0.0,
            reports: 0,
        });
        pending.measured.add(&handover.measured);
        pending.warm_up.add(&handover.warm_up);
        pending.end = pending.end.max(handover.end);
        pending.cpu = pending.cpu.max(handover.cpu_ns as f64 / elapsed.max(1) as f64);
        pending.reports += 1;
        for mut sample in [handover.measured, handover.warm_up] {
            sample.clear();
            // A thread that has ended needs no buffers.
            if returns[handover.worker].send(sample).is_err() {
                break;
            }
        }
        self.complete()
    }

    fn complete(&mut self) -> Vec<Row> {
        let mut rows = Vec::new();
        let all_ended = self.finished == self.workers;
        while let Some(entry) = self.pending.first_entry() {
            if entry.get().reports < self.workers && !all_ended {
                break;
            }
            let (second, pending) = entry.remove_entry();
            rows.push(self.row(second, &pending));
        }
        rows
    }

    fn row(&mut self, second: u64, pending: &Pending) -> Row {
        // Replies that cross the border by a hair do not make a second of warm-up a measured one.
        let measured = pending.end > self.measured_from;
        let sample = if measured { &pending.measured } else { &pending.warm_up };
        let offset = pending.start.saturating_sub(self.start);
        self.log.add(offset, pending.end - pending.start, &pending.measured);
        let counters = &sample.counters;
        let histograms = Metric::ALL.into_iter().map(|metric| (metric, sample.histogram(metric)));
        let filled = histograms.filter(|(_, histogram)| !histogram.is_empty());
        Row {
            second,
            measured,
            duration_s: (pending.end - pending.start) as f64 / 1e9,
            acked_records: counters.acked_records,
            acked_bytes: counters.acked_bytes,
            failed_records: counters.failed_records + counters.timed_out_records,
            consumed_records: counters.consumed_records,
            consumed_bytes: counters.consumed_bytes,
            produce_requests: counters.produce_requests,
            retries: counters.retries.values().sum(),
            latencies: filled.map(|(metric, histogram)| (metric.name(), Points::of(histogram))).collect(),
            cpu: pending.cpu,
        }
    }

    /// CPU of the busiest thread while measured, as a share of a core.
    pub fn busiest_worker(&self) -> f64 {
        let shares = self.cpu.iter().map(|(cpu, wall)| *cpu as f64 / (*wall).max(1) as f64);
        shares.fold(0.0, f64::max)
    }

    /// CPU time of all load threads while measured.
    pub fn cpu_ns(&self) -> u64 {
        self.cpu.iter().map(|(cpu, _)| cpu).sum()
    }

    pub fn consumed_bytes(&self) -> u64 {
        self.totals.counters.consumed_bytes + self.warm_up.counters.consumed_bytes
    }
}
