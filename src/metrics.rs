//! What a core counts: plain counters, gauges and times, written by the core that they belong to without a lock.
//!
//! Every core has a [`Metrics`] among its doors (`io::Io`). A [`Snapshot`] of it is plain data that crosses cores; snapshots
//! of several cores add up to the broker's. Each variant of [`Counter`], [`Gauge`] and [`Timer`] says what it is, and which of
//! Kafka's JMX names it answers to where there is one, so that an endpoint can use those.
//!
//! A counter costs an addition to memory of this core. A time costs two readings of the clock and three additions
//! ([`Histogram`]).

mod histogram;
mod rate;
mod snapshot;

use std::{
    cell::{Cell, OnceCell},
    rc::Rc,
    time::Duration,
};

pub use self::{
    histogram::{Histogram, Times},
    rate::{Rate, Windows},
    snapshot::Snapshot,
};

/// Makes an enum whose variants have a name each, in the order in which they are told.
macro_rules! named {
    ($(#[$about:meta])* $kind:ident { $($(#[$meaning:meta])* $variant:ident => $name:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $kind {
            $($(#[$meaning])* $variant,)*
        }

        impl $kind {
            /// Every one.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// What it is called in log lines.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

named! {
    /// What only grows.
    Counter {
        /// Batches that partitions of this core were asked to append.
        Appends => "appends",
        /// Bytes of these batches: `kafka.server:type=BrokerTopicMetrics,name=BytesInPerSec`.
        BytesIn => "bytes_in",
        /// Partitions that were refused in produce requests: `kafka.server:type=BrokerTopicMetrics,name=FailedProduceRequestsPerSec`.
        FailedProduces => "failed_produces",
        /// Record bytes that fetches were answered with: `kafka.server:type=BrokerTopicMetrics,name=BytesOutPerSec`.
        BytesOut => "bytes_out",
        /// Partitions that were refused in fetches: `kafka.server:type=BrokerTopicMetrics,name=FailedFetchRequestsPerSec`.
        FailedFetches => "failed_fetches",
        /// Records that are as durable as their topic asks: `kafka.server:type=BrokerTopicMetrics,name=MessagesInPerSec`, which
        /// counts them a moment earlier.
        FlushedRecords => "flushed_records",
        /// Blocks that the journal has written; [`Timer::JournalWrite`] has their times.
        JournalBlocks => "journal_blocks",
        /// Bytes of these blocks, padding included.
        JournalBytes => "journal_bytes",
        /// Checkpoints that were made; [`Timer::Checkpoint`] has their times.
        Checkpoints => "checkpoints",
        /// Reads that memory could not answer.
        ColdReads => "cold_reads",
        /// Batches that coordinators appended: `kafka.server:type=group-coordinator-metrics,name=batch-flush-rate`.
        CoordinatorAppends => "coordinator_appends",
        /// Connections that this core began to serve: `kafka.server:type=socket-server-metrics,name=connection-creation-total`.
        ConnectionsOpened => "connections_opened",
        /// Connections that were refused: too many in all or of one address.
        ConnectionsRefused => "connections_refused",
        /// Connections that went on with another core.
        ConnectionsMoved => "connections_moved",
        /// Connections that the client closed, or that were lost. All that were closed together are
        /// `kafka.server:type=socket-server-metrics,name=connection-close-total`.
        ClosedByClient => "closed_by_client",
        /// Connections closed for a frame that cannot be a request, or not one that is served here.
        ClosedForFrame => "closed_for_frame",
        /// Connections closed for what a request said.
        ClosedForRequest => "closed_for_request",
        /// Connections closed after `connections.max.idle.ms`: `kafka.server:type=socket-server-metrics,name=expired-connections-killed-count`.
        ClosedIdle => "closed_idle",
        /// Connections closed for keeping memory from others: for a request that does not come, or replies that are not read.
        ClosedForMemory => "closed_for_memory",
        /// Connections closed by the broker's stop.
        ClosedByStop => "closed_by_stop",
        /// Bytes received from clients: `kafka.server:type=socket-server-metrics,name=incoming-byte-total`.
        BytesReceived => "bytes_received",
        /// Bytes sent to clients: `kafka.server:type=socket-server-metrics,name=outgoing-byte-total`.
        BytesSent => "bytes_sent",
    }
}

named! {
    /// What goes up and down.
    Gauge {
        /// Connections that are open: `kafka.server:type=socket-server-metrics,name=connection-count`.
        Connections => "connections",
        /// Fetches that wait for records: `kafka.server:type=DelayedOperationPurgatory,name=PurgatorySize,delayedOperation=Fetch`.
        WaitingFetches => "waiting_fetches",
        /// Produce requests that wait until they are durable: `kafka.server:type=DelayedOperationPurgatory,name=PurgatorySize,delayedOperation=Produce`.
        WaitingProduces => "waiting_produces",
        /// Bytes of records in memory.
        CacheBytes => "cache_bytes",
        /// Bytes of records that no segment has yet.
        DirtyBytes => "dirty_bytes",
        /// Bytes of the journal that a recovery would read.
        JournalUsedBytes => "journal_used_bytes",
        /// Segment files that are open.
        OpenFiles => "open_files",
    }
}

named! {
    /// What takes time.
    Timer {
        /// From the beginning of a journal block's write to its end, syncs included: `kafka.log:type=LogFlushStats,name=LogFlushRateAndTimeMs`.
        JournalWrite => "journal_write",
        /// Segments written and synced, and the checkpoint.
        Checkpoint => "checkpoint",
    }
}

/// One more than the largest key of a request that is counted.
pub const REQUEST_KEYS: usize = 96;

/// What one core counts. Lives on that core.
#[derive(Debug)]
pub struct Metrics {
    counters: [Cell<u64>; Counter::ALL.len()],
    gauges: [Cell<u64>; Gauge::ALL.len()],
    timers: [Histogram; Timer::ALL.len()],
    /// By key; made when the first request of a key is counted.
    requests: [OnceCell<Box<Request>>; REQUEST_KEYS],
}

/// Requests of one key.
#[derive(Debug, Default)]
struct Request {
    /// Those that ended the connection instead of being answered.
    closed: Cell<u64>,
    time: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            counters: Default::default(),
            gauges: Default::default(),
            timers: Default::default(),
            requests: [const { OnceCell::new() }; REQUEST_KEYS],
        }
    }
}

impl Metrics {
    /// Counts one more.
    pub fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts so many more.
    pub fn add(&self, counter: Counter, more: u64) {
        let cell = &self.counters[counter as usize];
        cell.set(cell.get().wrapping_add(more));
    }

    /// Sets a gauge that somebody else keeps the books of.
    pub fn set(&self, gauge: Gauge, value: u64) {
        self.gauges[gauge as usize].set(value);
    }

    /// Raises a gauge by one until the guard is dropped.
    #[must_use]
    pub fn raised(self: &Rc<Self>, gauge: Gauge) -> Raised {
        self.gauges[gauge as usize].update(|value| value + 1);
        Raised { metrics: self.clone(), gauge }
    }

    /// Counts what took so long.
    pub fn took(&self, timer: Timer, time: Duration) {
        self.timers[timer as usize].record(time);
    }

    /// Counts a request of this key that took so long from its first byte's handling to its answer:
    /// `kafka.network:type=RequestMetrics,name=RequestsPerSec,request=…` and `name=TotalTimeMs`. `closed` says that it ended the
    /// connection.
    pub fn request(&self, key: i16, time: Duration, closed: bool) {
        let Some(request) = usize::try_from(key).ok().and_then(|key| self.requests.get(key)) else { return };
        let request = request.get_or_init(Box::default);
        request.closed.set(request.closed.get() + u64::from(closed));
        request.time.record(time);
    }

    /// Everything as it is now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(self)
    }
}

/// A gauge that is one higher as long as this lives.
#[derive(Debug)]
pub struct Raised {
    metrics: Rc<Metrics>,
    gauge: Gauge,
}

impl Drop for Raised {
    fn drop(&mut self) {
        self.metrics.gauges[self.gauge as usize].update(|value| value - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_the_place_of_each_is_its_own() {
        let counters = Counter::ALL.map(|counter| (counter as usize, counter.name()));
        let gauges = Gauge::ALL.map(|gauge| (gauge as usize, gauge.name()));
        let timers = Timer::ALL.map(|timer| (timer as usize, timer.name()));
        for named in [&counters[..], &gauges, &timers] {
            assert!(named.iter().enumerate().all(|(place, (index, _))| place == *index));
        }
        let mut names: Vec<_> = counters.iter().chain(&gauges).chain(&timers).map(|(_, name)| *name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn what_is_counted_is_in_the_snapshot_of_that_moment() {
        let metrics = Rc::new(Metrics::default());
        metrics.count(Counter::Appends);
        metrics.add(Counter::BytesIn, 100);
        let raised = [metrics.raised(Gauge::WaitingFetches), metrics.raised(Gauge::WaitingFetches)];
        metrics.set(Gauge::CacheBytes, 7);
        metrics.took(Timer::JournalWrite, Duration::from_micros(90));
        metrics.request(1, Duration::from_millis(2), false);
        metrics.request(1, Duration::from_millis(2), true);
        // No request has such a key.
        metrics.request(-1, Duration::ZERO, false);
        metrics.request(REQUEST_KEYS as i16, Duration::ZERO, false);
        let before = metrics.snapshot();
        drop(raised);
        metrics.count(Counter::Appends);
        let after = metrics.snapshot();
        assert_eq!((before.counter(Counter::Appends), before.counter(Counter::BytesIn)), (1, 100));
        assert_eq!((before.gauge(Gauge::WaitingFetches), before.gauge(Gauge::CacheBytes)), (2, 7));
        assert_eq!(before.times(Timer::JournalWrite).count(), 1);
        assert_eq!((before.requests(1), before.requests(0)), ((2, 1), (0, 0)));
        assert_eq!((after.counter(Counter::Appends), after.gauge(Gauge::WaitingFetches)), (2, 0));
    }
}
