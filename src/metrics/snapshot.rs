//! What was counted up to one moment.

use std::{collections::BTreeMap, fmt};

use kafka_protocol::messages::ApiKey;

use crate::metrics::{Counter, Gauge, Metrics, Timer, Times};

/// Everything that a core, or several of them together, counted up to one moment. Its text is one line with what is not zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    counters: [u64; Counter::ALL.len()],
    gauges: [u64; Gauge::ALL.len()],
    timers: [Times; Timer::ALL.len()],
    /// By key.
    requests: BTreeMap<i16, Requests>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Requests {
    closed: u64,
    times: Times,
}

impl Snapshot {
    pub(super) fn of(metrics: &Metrics) -> Self {
        let requests = metrics.requests.iter().zip(0..).filter_map(|(request, key)| {
            let request = request.get()?;
            Some((key, Requests { closed: request.closed.get(), times: request.time.times() }))
        });
        Self {
            counters: metrics.counters.each_ref().map(|counter| counter.get()),
            gauges: metrics.gauges.each_ref().map(|gauge| gauge.get()),
            timers: metrics.timers.each_ref().map(|timer| timer.times()),
            requests: requests.collect(),
        }
    }

    /// The value of a counter.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }

    /// The value of a gauge.
    #[must_use]
    pub fn gauge(&self, gauge: Gauge) -> u64 {
        self.gauges[gauge as usize]
    }

    /// The times of a timer.
    #[must_use]
    pub fn times(&self, timer: Timer) -> &Times {
        &self.timers[timer as usize]
    }

    /// How many requests of this key there were, and how many of them ended their connection.
    #[cfg(test)]
    #[must_use]
    pub fn requests(&self, key: i16) -> (u64, u64) {
        self.requests.get(&key).map_or((0, 0), |requests| (requests.times.count(), requests.closed))
    }

    /// How long requests of this key took; `None` if there were none.
    #[cfg(test)]
    #[must_use]
    pub fn request_times(&self, key: i16) -> Option<&Times> {
        Some(&self.requests.get(&key)?.times)
    }

    /// Takes another core's in.
    pub fn merge(&mut self, other: &Self) {
        self.counters.iter_mut().zip(other.counters).for_each(|(own, other)| *own = own.wrapping_add(other));
        self.gauges.iter_mut().zip(other.gauges).for_each(|(own, other)| *own += other);
        self.timers.iter_mut().zip(&other.timers).for_each(|(own, other)| own.merge(other));
        for (key, other) in &other.requests {
            let own = self.requests.entry(*key).or_default();
            own.closed += other.closed;
            own.times.merge(&other.times);
        }
    }

    /// What has come since an earlier moment. Gauges are as they are.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = self.clone();
        since.counters.iter_mut().zip(earlier.counters).for_each(|(now, before)| *now = now.wrapping_sub(before));
        since.timers.iter_mut().zip(&earlier.timers).for_each(|(now, before)| *now = now.since(before));
        for (key, before) in &earlier.requests {
            if let Some(now) = since.requests.get_mut(key) {
                now.closed = now.closed.saturating_sub(before.closed);
                now.times = now.times.since(&before.times);
            }
        }
        since
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counters = Counter::ALL.iter().map(|counter| (counter.name(), self.counter(*counter)));
        let gauges = Gauge::ALL.iter().map(|gauge| (gauge.name(), self.gauge(*gauge)));
        let mut blank = "";
        for (name, value) in counters.chain(gauges).filter(|(_, value)| *value > 0) {
            write!(out, "{blank}{name}={value}")?;
            blank = " ";
        }
        let timers = Timer::ALL.iter().map(|timer| (timer.name().to_owned(), self.times(*timer), 0));
        let requests = self.requests.iter().map(|(key, requests)| {
            let name = ApiKey::try_from(*key).map_or_else(|()| key.to_string(), |key| format!("{key:?}"));
            (name, &requests.times, requests.closed)
        });
        for (name, times, closed) in timers.chain(requests).filter(|(_, times, _)| times.count() > 0) {
            let [mean, half, most, longest] =
                [times.mean(), times.quantile(500), times.quantile(990), times.quantile(1000)].map(|it| it.as_micros());
            write!(out, "{blank}{name}={} {name}_us={mean}/{half}/{most}/{longest}", times.count())?;
            if closed > 0 {
                write!(out, " {name}_closed={closed}")?;
            }
            blank = " ";
        }
        if blank.is_empty() { out.write_str("nothing") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_line_has_what_is_not_zero_mean_median_99th_and_longest() {
        let metrics = Metrics::default();
        assert_eq!(metrics.snapshot().to_string(), "nothing");
        metrics.add(Counter::BytesIn, 300);
        metrics.set(Gauge::OpenFiles, 2);
        (1..=100).for_each(|millis| metrics.request(0, Duration::from_millis(millis), millis == 100));
        assert_eq!(
            metrics.snapshot().to_string(),
            "bytes_in=300 open_files=2 Produce=100 Produce_us=50500/50331/100663/100663 Produce_closed=1"
        );
    }

    #[test]
    fn cores_add_up_and_a_minute_is_what_came_since() {
        let core = |bytes, requests| {
            let metrics = Metrics::default();
            metrics.add(Counter::BytesIn, bytes);
            metrics.set(Gauge::OpenFiles, bytes);
            metrics.took(Timer::Checkpoint, Duration::from_millis(bytes));
            (0..requests).for_each(|_| metrics.request(3, Duration::from_millis(1), true));
            metrics.snapshot()
        };
        let (first, second) = (core(5, 1), core(7, 3));
        let mut all = Snapshot::default();
        all.merge(&first);
        all.merge(&second);
        assert_eq!((all.counter(Counter::BytesIn), all.gauge(Gauge::OpenFiles)), (12, 12));
        assert_eq!((all.times(Timer::Checkpoint).count(), all.requests(3)), (2, (4, 4)));
        let since = all.since(&first);
        assert_eq!((since.counter(Counter::BytesIn), since.gauge(Gauge::OpenFiles)), (7, 12));
        assert_eq!((since.times(Timer::Checkpoint).count(), since.requests(3)), (1, (3, 3)));
    }
}
