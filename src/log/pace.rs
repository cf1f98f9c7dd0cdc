//! Giving way: a loop over many partitions does not hold up its core.

use std::time::Duration;

use crate::io::{Instant, Io};

/// The core's work is never held up for longer than this by a loop over partitions.
const SLICE_OF_TIME: Duration = Duration::from_micros(500);

/// Gives way to I/O when the slice of time is used up.
pub struct Pace<'a> {
    io: &'a Io,
    since: Instant,
}

impl<'a> Pace<'a> {
    pub fn new(io: &'a Io) -> Self {
        Self { io, since: io.clock.now() }
    }

    /// Called once for each step of the loop.
    pub async fn step(&mut self) {
        if self.io.clock.now().since(self.since) >= SLICE_OF_TIME {
            self.io.clock.yield_now().await;
            self.since = self.io.clock.now();
        }
    }
}
