//! The guard against glommio 0.9.0 parking with runnable tasks.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
    time::Duration,
};

use ::glommio::timer::Timer;

/// First rung while tasks run: the longest stall that the bug can cause, unless it strikes twice.
const BUSY_RUNG: Duration = Duration::from_millis(20);

/// First rung of an idle executor, and its part for each executor of the process: each wake-up costs about 140 µs of
/// CPU, and all of them together stay below 1 % of one core.
const IDLE_RUNG: Duration = Duration::from_millis(100);
const IDLE_RUNG_PER_CORE: Duration = Duration::from_millis(30);

/// Each rung is so many times longer than the one below.
const RUNG_FACTOR: u32 = 4;
const RUNGS: u32 = 6;

/// Tasks run since the last rung, the ladder itself included, above which an executor counts as busy.
const IDLE_TASKS: u64 = 8;

/// Keeps several timers pending at growing distances, for ever. One ticking timer would not do: when it fires in the very
/// gap in which the executor parks wrongly, nothing is pending any more. With the ladder a park ends at the next rung.
pub(super) async fn keep_timers_pending(cores: usize) {
    let cores = u32::try_from(cores).unwrap_or(u32::MAX);
    let idle_rung = IDLE_RUNG.max(IDLE_RUNG_PER_CORE.saturating_mul(cores));
    loop {
        // Asking resets the count, and nobody else asks.
        let tasks = ::glommio::executor().executor_stats().tasks_executed();
        let first = if tasks > IDLE_TASKS { BUSY_RUNG } else { idle_rung };
        let mut rungs: Vec<Timer> = (0..RUNGS).map(|rung| Timer::new(first * RUNG_FACTOR.pow(rung))).collect();
        poll_fn(|context| {
            let mut fired = false;
            // All of them are polled, since a timer is armed by its first poll.
            for rung in &mut rungs {
                fired |= Pin::new(rung).poll(context).is_ready();
            }
            if fired { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}
