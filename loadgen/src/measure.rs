//! What is measured: HdrHistograms in nanoseconds and counters, taken apart by second, warm-up kept out.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

/// Three significant digits from 1 ns to 10 minutes; longer values count as 10 minutes.
const LONGEST_NS: u64 = 600_000_000_000;
const DIGITS: u8 = 3;

/// The columns of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Reply minus intended send time, of each record.
    Latency,
    /// Reply minus actual send time.
    Service,
    /// Send minus the moment at which a record was due and had a slot: the generator's own fault.
    Lateness,
    /// Read by a consumer minus intended send time.
    EndToEnd,
    /// Fetch reply minus fetch request, of replies with records.
    Fetch,
}

impl Metric {
    pub const ALL: [Self; 5] = [Self::Latency, Self::Service, Self::Lateness, Self::EndToEnd, Self::Fetch];

    pub fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Service => "service",
            Self::Lateness => "lateness",
            Self::EndToEnd => "end_to_end",
            Self::Fetch => "fetch",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::Latency => "Produce latency from the intended send time",
            Self::Service => "Produce service time (reply − actual send)",
            Self::Lateness => "Lateness of the generator itself",
            Self::EndToEnd => "End-to-end latency from the intended send time",
            Self::Fetch => "Fetch round trip",
        }
    }
}

pub fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_NS, DIGITS).expect("1 ns to 10 min at 3 digits is a valid range")
}

/// Counts of records, bytes and errors.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Counters {
    pub acked_records: u64,
    pub acked_bytes: u64,
    /// Records answered while the measured schedule ran, whenever they were due: what the broker sustained.
    pub acked_in_window: u64,
    pub acked_bytes_in_window: u64,
    pub failed_records: u64,
    pub timed_out_records: u64,
    pub produce_requests: u64,
    pub consumed_records: u64,
    pub consumed_bytes: u64,
    pub fetch_requests: u64,
    pub reconnects: u64,
    /// Silence that brokers asked for with throttle_time_ms, over all connections.
    pub throttled_ns: u64,
    /// Failed records by Kafka code.
    pub errors: BTreeMap<i16, u64>,
    /// Batches sent again, and fetches answered with an error, by Kafka code.
    pub retries: BTreeMap<i16, u64>,
}

impl Counters {
    pub fn add(&mut self, other: &Self) {
        self.acked_records += other.acked_records;
        self.acked_bytes += other.acked_bytes;
        self.acked_in_window += other.acked_in_window;
        self.acked_bytes_in_window += other.acked_bytes_in_window;
        self.failed_records += other.failed_records;
        self.timed_out_records += other.timed_out_records;
        self.produce_requests += other.produce_requests;
        self.consumed_records += other.consumed_records;
        self.consumed_bytes += other.consumed_bytes;
        self.fetch_requests += other.fetch_requests;
        self.reconnects += other.reconnects;
        self.throttled_ns += other.throttled_ns;
        for (code, count) in &other.errors {
            *self.errors.entry(*code).or_default() += count;
        }
        for (code, count) in &other.retries {
            *self.retries.entry(*code).or_default() += count;
        }
    }

    /// Every record that was due, whatever became of it.
    pub fn due_records(&self) -> u64 {
        self.acked_records + self.failed_records + self.timed_out_records
    }
}

/// One stretch of a run: its histograms and counters.
#[derive(Clone, Debug)]
pub struct Sample {
    histograms: [Histogram<u64>; 5],
    pub counters: Counters,
}

impl Default for Sample {
    fn default() -> Self {
        Self { histograms: std::array::from_fn(|_| new_histogram()), counters: Counters::default() }
    }
}

impl Sample {
    pub fn histogram(&self, metric: Metric) -> &Histogram<u64> {
        &self.histograms[metric as usize]
    }

    pub fn record(&mut self, metric: Metric, ns: u64) {
        self.record_n(metric, ns, 1);
    }

    pub fn record_n(&mut self, metric: Metric, ns: u64, count: u64) {
        self.histograms[metric as usize].saturating_record_n(ns.max(1), count);
    }

    pub fn add(&mut self, other: &Self) {
        for (own, other) in self.histograms.iter_mut().zip(&other.histograms) {
            if !other.is_empty() {
                own.add(other).expect("all histograms have the same range");
            }
        }
        self.counters.add(&other.counters);
    }

    pub fn clear(&mut self) {
        for histogram in &mut self.histograms {
            if !histogram.is_empty() {
                histogram.reset();
            }
        }
        self.counters = Counters::default();
    }
}

/// A percentile is only stated with this many samples beyond it.
pub const SAMPLES_BEYOND: u64 = 100;

/// Whether `quantile` has enough samples beyond it to be stated.
pub fn is_backed(quantile: f64, samples: u64) -> bool {
    // (1 - 0.99) * 10,000 must be 100, though it is a little less in binary.
    ((1.0 - quantile) * samples as f64 + 1e-6) as u64 >= SAMPLES_BEYOND
}

/// When records count as measured, in monotonic nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub start: u64,
    pub end: u64,
}

/// One thread's books. Records are told apart by their intended time: before the window starts they are warm-up.
#[derive(Debug, Default)]
pub struct Recorder {
    pub measured: Sample,
    pub warm_up: Sample,
    window: Option<Window>,
}

impl Recorder {
    pub fn new(window: Window) -> Self {
        Self { window: Some(window), ..Self::default() }
    }

    fn start(&self) -> u64 {
        self.window.map_or(0, |window| window.start)
    }

    fn end(&self) -> u64 {
        self.window.map_or(u64::MAX, |window| window.end)
    }

    /// The sample that a record with this intended time belongs to.
    pub fn sample(&mut self, intended: u64) -> &mut Sample {
        if intended >= self.start() { &mut self.measured } else { &mut self.warm_up }
    }

    /// Calls `each` for the warm-up and the measured part of sorted due times.
    fn split(&mut self, intended: &[u64], mut each: impl FnMut(&mut Sample, &[u64])) {
        let start = self.start();
        let at = intended.partition_point(|due| *due < start);
        let (before, after) = intended.split_at(at);
        if !before.is_empty() {
            each(&mut self.warm_up, before);
        }
        if !after.is_empty() {
            each(&mut self.measured, after);
        }
    }

    /// A batch was sent for the first time at `sent`; it could have been at `ready`.
    pub fn sent(&mut self, intended: &[u64], ready: u64, sent: u64) {
        self.split(intended, |sample, times| {
            // Only the records that became due after `ready` have another lateness than the first.
            let at = times.partition_point(|due| *due <= ready);
            if at > 0 {
                sample.record_n(Metric::Lateness, sent.saturating_sub(ready), at as u64);
            }
            for due in &times[at..] {
                sample.record(Metric::Lateness, sent.saturating_sub(*due));
            }
        });
    }

    /// A batch was acknowledged.
    pub fn acked(&mut self, intended: &[u64], sent: u64, now: u64, bytes: u64) {
        if (self.start()..=self.end()).contains(&now) {
            self.measured.counters.acked_in_window += intended.len() as u64;
            self.measured.counters.acked_bytes_in_window += bytes;
        }
        let total = intended.len().max(1) as u64;
        self.split(intended, |sample, times| {
            for due in times {
                sample.record(Metric::Latency, now.saturating_sub(*due));
            }
            let count = times.len() as u64;
            sample.record_n(Metric::Service, now.saturating_sub(sent), count);
            sample.counters.acked_records += count;
            sample.counters.acked_bytes += bytes * count / total;
        });
    }

    /// A batch was refused for good. Its records stay in the percentiles.
    pub fn failed(&mut self, intended: &[u64], sent: Option<u64>, now: u64, code: i16) {
        self.split(intended, |sample, times| {
            for due in times {
                sample.record(Metric::Latency, now.saturating_sub(*due));
            }
            let count = times.len() as u64;
            if let Some(sent) = sent {
                sample.record_n(Metric::Service, now.saturating_sub(sent), count);
            }
            sample.counters.failed_records += count;
            *sample.counters.errors.entry(code).or_default() += count;
        });
    }

    /// Records that nobody acknowledged in time: they count as the time-out.
    pub fn timed_out(&mut self, intended: &[u64], timeout: u64, code: i16) {
        self.split(intended, |sample, times| {
            let count = times.len() as u64;
            sample.record_n(Metric::Latency, timeout, count);
            sample.counters.timed_out_records += count;
            *sample.counters.errors.entry(code).or_default() += count;
        });
    }

    /// The books of what happens now and not to a certain record.
    pub fn at(&mut self, now: u64) -> &mut Counters {
        &mut self.sample(now).counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_needs_a_hundred_samples_beyond_it() {
        assert!(is_backed(0.99, 10_000) && !is_backed(0.99, 9_900));
        assert!(is_backed(0.5, 200) && !is_backed(0.9999, 999_000));
    }

    #[test]
    fn warm_up_stays_out_record_by_record() {
        let mut recorder = Recorder::new(Window { start: 1_000, end: 9_000 });
        recorder.acked(&[900, 990, 1_000, 1_500], 1_600, 2_000, 400);
        assert_eq!(recorder.measured.counters.acked_records, 2);
        assert_eq!(recorder.measured.counters.acked_bytes, 200);
        assert_eq!(recorder.warm_up.counters.acked_records, 2);
        assert_eq!(recorder.measured.histogram(Metric::Latency).max(), 1_000);
    }

    #[test]
    fn lateness_is_per_record() {
        let mut recorder = Recorder::default();
        recorder.sent(&[100, 200, 300], 150, 310);
        let lateness = recorder.measured.histogram(Metric::Lateness);
        let of = |ns| lateness.count_at(ns);
        assert_eq!((of(160), of(110), of(10)), (1, 1, 1));
    }

    #[test]
    fn errors_never_leave_the_percentiles() {
        let mut recorder = Recorder::default();
        recorder.failed(&[0, 0], Some(5), 100, 10);
        recorder.timed_out(&[0], 60_000, 7);
        let sample = &recorder.measured;
        assert_eq!(sample.histogram(Metric::Latency).len(), 3);
        assert_eq!(sample.counters.due_records(), 3);
        assert_eq!(sample.counters.errors, BTreeMap::from([(7, 1), (10, 2)]));
    }
}
