//! Time: a monotonic clock, the wall clock, sleeping, and giving I/O a turn.

use std::{fmt, ops::Add, time::Duration};

use super::{forward, sim};
use crate::base::Timestamp;

/// Monotonic time: nanoseconds since the process (or the simulation) began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// Time from `earlier` to this instant; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}", Duration::from_nanos(self.0))
    }
}

/// The clock of one core.
#[derive(Clone)]
pub enum Clock {
    /// The machine's time.
    #[cfg(feature = "glommio")]
    Glommio(super::glommio::Clock),
    /// Virtual time.
    Sim(sim::Clock),
}

impl Clock {
    /// Monotonic time.
    #[must_use]
    pub fn now(&self) -> Instant {
        forward!(self, clock => clock.now())
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        forward!(self, clock => clock.wall())
    }

    /// Waits at least `duration`. Does not give way to other tasks if it is zero: that is [`yield_now`](Self::yield_now).
    pub async fn sleep(&self, duration: Duration) {
        self.sleep_until(self.now() + duration).await;
    }

    /// Waits until `deadline` has passed.
    pub async fn sleep_until(&self, deadline: Instant) {
        forward!(self, clock => clock.sleep_until(deadline).await);
    }

    /// Lets other tasks run *and* completed I/O be seen. Costs about 7 µs, so a long loop calls it every 200–500 µs.
    /// (glommio's own yields do not poll for I/O; this one reads a byte of `/dev/null` through the ring.)
    pub async fn yield_now(&self) {
        forward!(self, clock => clock.yield_now().await);
    }

    /// The simulator's clock, if this is one.
    pub(super) fn simulated(&self) -> Option<&sim::Clock> {
        match self {
            #[cfg(feature = "glommio")]
            Self::Glommio(_) => None,
            Self::Sim(clock) => Some(clock),
        }
    }
}
