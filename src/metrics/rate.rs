//! How much of something was used lately, as Kafka's quotas count it: in windows, of which the oldest are forgotten.

use std::{collections::VecDeque, time::Duration};

/// `quota.window.num` and `quota.window.size.seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// How many are kept, the one that goes on among them.
    pub count: u32,
    /// How long each is.
    pub length: Duration,
}

/// What one window has.
#[derive(Clone, Copy, Debug)]
struct Window {
    began: Duration,
    /// When something came last.
    last: Duration,
    amount: f64,
}

/// What was used in the last windows. Times are since any one beginning.
#[derive(Clone, Debug, Default)]
pub struct Rate {
    /// The oldest first.
    windows: VecDeque<Window>,
}

impl Windows {
    fn kept_for(self) -> Duration {
        self.length.saturating_mul(self.count)
    }

    /// The time in which a client may use as much as its quota says of a second, times so many seconds, at once.
    #[must_use]
    pub fn full(self) -> Duration {
        self.length.saturating_mul(self.count.saturating_sub(1).max(1))
    }
}

impl Rate {
    /// Takes in what was used just now, and says for how long nothing more may be used until the average is `bound` a second
    /// again. A bound that is no number is none.
    pub fn used(&mut self, amount: f64, bound: f64, windows: Windows, now: Duration) -> Duration {
        self.forget(windows, now);
        match self.windows.back_mut().filter(|window| now.saturating_sub(window.began) < windows.length) {
            Some(window) => {
                window.amount += amount;
                window.last = now;
            }
            None => self.windows.push_back(Window { began: now, last: now, amount }),
        }
        let time = self.time(windows, now);
        let average = self.windows.iter().map(|window| window.amount).sum::<f64>() / time.as_secs_f64();
        if average > bound { wait(average, bound, time) } else { Duration::ZERO }
    }

    /// Whether there is nothing left that counts.
    pub fn is_over(&mut self, windows: Windows, now: Duration) -> bool {
        self.forget(windows, now);
        self.windows.is_empty()
    }

    fn forget(&mut self, windows: Windows, now: Duration) {
        self.windows.retain(|window| now.saturating_sub(window.last) < windows.kept_for());
    }

    /// The time that what is there is an average over: all windows but one are taken for full, so that whoever begins is not
    /// measured by its first moment.
    fn time(&self, windows: Windows, now: Duration) -> Duration {
        let began = self.windows.front().map_or(now, |window| window.began);
        let elapsed = now.saturating_sub(began);
        let full = u32::try_from(elapsed.as_nanos() / windows.length.as_nanos().max(1)).unwrap_or(u32::MAX);
        let missing = windows.count.saturating_sub(1).saturating_sub(full);
        (elapsed + windows.length.saturating_mul(missing)).max(windows.length)
    }
}

/// After so long the average over all of the time is the bound, if nothing more is used.
fn wait(average: f64, bound: f64, time: Duration) -> Duration {
    let millis = ((average - bound) / bound * time.as_secs_f64() * 1000.0).round();
    // A bound of next to nothing would make it longer than a duration can be.
    Duration::from_millis(if millis < 1e15 { millis as u64 } else { 1_000_000_000_000_000 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOWS: Windows = Windows { count: 11, length: Duration::from_secs(1) };

    /// Uses so much at such a millisecond under a bound of 100 a second; how many milliseconds are to be waited.
    fn check(uses: &[(u64, f64, u64)]) {
        let mut rate = Rate::default();
        for (now_ms, amount, expected) in uses {
            let wait = rate.used(*amount, 100.0, WINDOWS, Duration::from_millis(*now_ms));
            assert_eq!(wait, Duration::from_millis(*expected), "at {now_ms} ms of {uses:?}");
        }
    }

    /// The figures are those of Apache Kafka's `Rate` and `QuotaUtils.throttleTime`.
    #[test]
    fn whoever_uses_too_much_waits_until_it_is_not_too_much() {
        // Ten seconds' worth may be used at once.
        check(&[(0, 1000.0, 0), (0, 1.0, 10)]);
        check(&[(0, 2000.0, 10_000)]);
        // Having waited, it is at its bound.
        check(&[(0, 2000.0, 10_000), (10_000, 0.0, 10_000)]);
        check(&[(0, 1100.0, 1000), (1000, 0.0, 1000), (10_000, 0.0, 1000), (11_000, 0.0, 0)]);
        check(&[
            (0, 500.0, 0),
            (500, 700.0, 1500),
            (1700, 100.0, 2300),
            (9900, 100.0, 3100),
            (11_300, 50.0, 3200),
            (12_500, 400.0, 0),
            (25_000, 1500.0, 5000),
        ]);
        // A window that has just begun counts in full and is no time yet: at the bound itself Kafka throttles for a window, too.
        let steady: Vec<_> = (0..60).map(|second| (second * 1000, 100.0, if second < 10 { 0 } else { 1000 })).collect();
        check(&steady);
        let below: Vec<_> = (0..60).map(|second| (second * 1000, 90.0, 0)).collect();
        check(&below);
    }

    #[test]
    fn what_is_old_is_forgotten_and_takes_no_memory() {
        let mut rate = Rate::default();
        for second in 0..1000 {
            rate.used(1.0, 100.0, WINDOWS, Duration::from_secs(second));
            assert!(rate.windows.len() <= WINDOWS.count as usize);
        }
        assert!(!rate.is_over(WINDOWS, Duration::from_secs(1009)));
        assert!(rate.is_over(WINDOWS, Duration::from_secs(1010)));
    }

    #[test]
    fn odd_bounds_are_survived() {
        let mut rate = Rate::default();
        assert_eq!(rate.used(1e300, f64::NAN, WINDOWS, Duration::ZERO), Duration::ZERO);
        assert!(rate.used(1e300, 1e-300, WINDOWS, Duration::ZERO) > Duration::from_secs(1 << 30));
        let one = Windows { count: 1, length: Duration::from_secs(1) };
        assert_eq!(Rate::default().used(200.0, 100.0, one, Duration::ZERO), Duration::from_secs(1));
    }
}
