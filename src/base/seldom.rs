//! Log lines that must not fill a disk because somebody repeats himself.

use std::{cell::Cell, time::Duration};

/// The shortest time between two lines of one kind.
const PERIOD: Duration = Duration::from_secs(10);

/// Lets one line of a kind through in ten seconds, and counts those that were left out.
#[derive(Debug, Default)]
pub struct Seldom {
    last: Cell<Option<Duration>>,
    left_out: Cell<u64>,
}

impl Seldom {
    /// Whether to write the line now: then how many were left out since the last one. `now` is the time since some fixed
    /// moment.
    #[must_use]
    pub fn due(&self, now: Duration) -> Option<u64> {
        if self.last.get().is_some_and(|last| now.saturating_sub(last) < PERIOD) {
            self.left_out.set(self.left_out.get() + 1);
            return None;
        }
        self.last.set(Some(now));
        Some(self.left_out.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_ten_seconds_and_the_rest_is_counted() {
        let seldom = Seldom::default();
        let due = [0, 1, 9, 10, 11, 19, 30, 31].map(|second| seldom.due(Duration::from_secs(second)));
        assert_eq!(due, [Some(0), None, None, Some(2), None, None, Some(2), None]);
    }
}
