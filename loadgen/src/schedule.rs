//! When each record is due. The times come from rate and seed alone, never from what the broker does: that is the open loop.
//!
//! A broker that stalls does not slow the schedule down. The records that were due meanwhile keep their times, and their
//! latency is measured from them, so that a stall is seen by every record that it delayed and not only by one.

use crate::rng::Rng;

/// How due times are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arrival {
    Constant,
    /// Exponential gaps: independent users.
    Poisson,
}

/// Load in bursts: all records of a period are due in its first part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Burst {
    pub on_ns: u64,
    pub off_ns: u64,
}

/// The due times of one producer, in order, in nanoseconds of the monotonic clock.
#[derive(Clone, Debug)]
pub struct Schedule {
    pace: Pace,
    start: u64,
    end: u64,
    next: Option<u64>,
}

#[derive(Clone, Debug)]
enum Pace {
    /// No schedule: a record is due whenever there is room for it, until `left` have been taken.
    Closed {
        left: u64,
    },
    Constant {
        interval: f64,
        phase: f64,
        drawn: u64,
        burst: Option<Burst>,
    },
    Poisson {
        interval: f64,
        at: f64,
        rng: Rng,
        burst: Option<Burst>,
    },
}

impl Schedule {
    /// The closed loop of `--rate max`, between two times.
    pub fn closed(start: u64, end: u64) -> Self {
        Self::closed_count(start, end, u64::MAX)
    }

    /// A closed loop that also ends after `count` records.
    pub fn closed_count(start: u64, end: u64, count: u64) -> Self {
        Self { pace: Pace::Closed { left: count }, start, end, next: (count > 0).then_some(start) }
    }

    /// `per_second` records a second from `start` until `end`. `phase` in 0..1 shifts a constant schedule by a part of its
    /// interval, so that many producers do not fire together.
    pub fn open(
        arrival: Arrival,
        per_second: f64,
        burst: Option<Burst>,
        (start, end): (u64, u64),
        phase: f64,
        rng: Rng,
    ) -> Self {
        // Inside its bursts a bursty schedule runs faster, so that the average is the rate.
        let share = burst.map_or(1.0, |b| b.on_ns as f64 / (b.on_ns + b.off_ns) as f64);
        let interval = 1e9 / per_second * share;
        let pace = match arrival {
            Arrival::Constant => Pace::Constant { interval, phase, drawn: 0, burst },
            Arrival::Poisson => Pace::Poisson { interval, at: 0.0, rng, burst },
        };
        let mut schedule = Self { pace, start, end, next: None };
        schedule.draw();
        schedule
    }

    pub fn is_closed(&self) -> bool {
        matches!(self.pace, Pace::Closed { .. })
    }

    /// The next due time; none when the schedule has ended. A closed schedule is due at once.
    pub fn due(&self) -> Option<u64> {
        self.next
    }

    /// Takes the next due time. A closed schedule gives `now`.
    pub fn take(&mut self, now: u64) -> Option<u64> {
        let due = self.next?;
        if let Pace::Closed { left } = &mut self.pace {
            if now < due {
                return None;
            }
            if now >= self.end || *left == 0 {
                self.next = None;
                return None;
            }
            *left -= 1;
            if *left == 0 {
                self.next = None;
            }
            return Some(now);
        }
        self.draw();
        Some(due)
    }

    /// Ends the schedule early: nothing is due from `now` on.
    pub fn stop(&mut self, now: u64) {
        self.end = self.end.min(now);
        if self.next.is_some_and(|due| due >= self.end) || self.is_closed() {
            self.next = None;
        }
    }

    fn draw(&mut self) {
        let (offset, burst) = match &mut self.pace {
            Pace::Closed { .. } => return,
            Pace::Constant { interval, phase, drawn, burst } => {
                // From the count and not from the previous time: rounding must not add up over hours.
                let offset = (*drawn as f64 + *phase) * *interval;
                *drawn += 1;
                (offset, *burst)
            }
            Pace::Poisson { interval, at, rng, burst } => {
                *at += rng.exponential() * *interval;
                (*at, *burst)
            }
        };
        let offset = offset as u64;
        let offset = match burst {
            Some(burst) => offset / burst.on_ns * (burst.on_ns + burst.off_ns) + offset % burst.on_ns,
            None => offset,
        };
        let due = self.start + offset;
        self.next = (due < self.end).then_some(due);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn times(arrival: Arrival, rate: f64, burst: Option<Burst>, seconds: u64) -> Vec<u64> {
        let window = (5 * SECOND, (5 + seconds) * SECOND);
        let mut schedule = Schedule::open(arrival, rate, burst, window, 0.5, Rng::new(3, 1));
        std::iter::from_fn(|| schedule.take(0)).collect()
    }

    #[test]
    fn constant_does_not_drift() {
        let times = times(Arrival::Constant, 333.0, None, 100);
        assert_eq!(times.len(), 33_300);
        let last = times[times.len() - 1];
        let expected = 5.0 * 1e9 + (33_299.5) * 1e9 / 333.0;
        assert!((last as f64 - expected).abs() < 2.0);
    }

    #[test]
    fn poisson_has_the_rate_and_the_spread() {
        let times = times(Arrival::Poisson, 1_000.0, None, 100);
        assert!((99_000..101_000).contains(&times.len()), "{}", times.len());
        let gaps: Vec<f64> = times.windows(2).map(|w| (w[1] - w[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        let spread = variance.sqrt() / mean;
        assert!((0.97..1.03).contains(&spread), "{spread}");
    }

    #[test]
    fn bursts_keep_the_average_and_leave_the_gaps_empty() {
        let burst = Burst { on_ns: SECOND / 10, off_ns: 9 * SECOND / 10 };
        let times = times(Arrival::Constant, 1_000.0, Some(burst), 10);
        assert_eq!(times.len(), 10_000);
        assert!(times.iter().all(|t| (t - 5 * SECOND) % SECOND < SECOND / 10));
    }

    #[test]
    fn a_stopped_schedule_is_due_no_more() {
        let mut schedule = Schedule::open(Arrival::Constant, 10.0, None, (0, 100 * SECOND), 0.0, Rng::new(1, 1));
        assert_eq!(schedule.take(0), Some(0));
        schedule.stop(SECOND / 4);
        let rest: Vec<u64> = std::iter::from_fn(|| schedule.take(0)).collect();
        assert_eq!(rest, [SECOND / 10, SECOND / 5]);
    }

    #[test]
    fn a_closed_loop_is_due_whenever_asked() {
        let mut schedule = Schedule::closed(10, 100);
        assert_eq!(schedule.take(40), Some(40));
        assert_eq!(schedule.take(40), Some(40));
        assert_eq!(schedule.take(100), None);
        assert_eq!(schedule.due(), None);

        let mut counted = Schedule::closed_count(0, 100, 2);
        assert_eq!([counted.take(1), counted.take(1), counted.take(1)], [Some(1), Some(1), None]);
    }
}
