//! Which core serves a connection best: the one that its appends all go to.

use std::cell::Cell;

/// The number of small appends in a row that must have gone to one other core before the connection is moved there: a
/// client that changes partitions now and then is not to wander.
const APPENDS_BEFORE_MOVE: u32 = 32;

/// The largest append, in bytes, that counts as small. What a larger one costs is its bytes, and a second core that shares
/// the work is welcome.
const SMALL_APPEND_BYTES: usize = 16 << 10;

/// What is known of where a connection's requests end. One a connection and core.
#[derive(Debug, Default)]
pub(super) struct Placement {
    /// The other core that the last appends went to, and how many in a row.
    appends: Cell<Option<(usize, u32)>>,
    /// This core knows things of the client that another would not.
    settled: Cell<bool>,
}

impl Placement {
    /// The client has appended so many bytes, all of them to partitions of one other core, or (`None`) not so.
    pub(super) fn appended(&self, other_core: Option<usize>, bytes: usize) {
        if bytes > SMALL_APPEND_BYTES {
            return;
        }
        let in_a_row = |core| match self.appends.get() {
            Some((before, count)) if before == core => count.saturating_add(1),
            Some(_) | None => 1,
        };
        self.appends.set(other_core.map(|core| (core, in_a_row(core))));
    }

    /// The client has something on this core that cannot be moved, such as a fetch session.
    pub(super) fn settle(&self) {
        self.settled.set(true);
    }

    /// The core that would serve this connection better, since its appends have all gone there for a while; then counts anew.
    pub(super) fn better_core(&self) -> Option<usize> {
        let (core, count) = self.appends.get()?;
        if count < APPENDS_BEFORE_MOVE || self.settled.get() {
            return None;
        }
        self.appends.set(None);
        Some(core)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_small_appends_to_one_other_core_make_it_the_better_one() {
        let append = |client: &Placement, core, times| (0..times).for_each(|_| client.appended(core, 100));
        let client = Placement::default();
        append(&client, Some(1), APPENDS_BEFORE_MOVE - 1);
        assert_eq!(client.better_core(), None);
        append(&client, Some(1), 1);
        assert_eq!(client.better_core(), Some(1));
        assert_eq!(client.better_core(), None, "it is said once");
        append(&client, Some(1), APPENDS_BEFORE_MOVE);
        assert_eq!(client.better_core(), Some(1), "and once more after a while");

        // Its own core, several cores, another core: each begins anew.
        for interruption in [None, Some(2)] {
            append(&client, Some(1), APPENDS_BEFORE_MOVE - 1);
            append(&client, interruption, 1);
            append(&client, Some(1), 1);
            assert_eq!(client.better_core(), None, "{interruption:?}");
        }
        // Large ones say nothing either way.
        let client = Placement::default();
        append(&client, Some(1), APPENDS_BEFORE_MOVE - 1);
        (0..99).for_each(|_| client.appended(Some(1), SMALL_APPEND_BYTES + 1));
        assert_eq!(client.better_core(), None);
        client.appended(None, SMALL_APPEND_BYTES + 1);
        append(&client, Some(1), 1);
        assert_eq!(client.better_core(), Some(1));
        // Who has a fetch session stays.
        let client = Placement::default();
        client.settle();
        append(&client, Some(1), 2 * APPENDS_BEFORE_MOVE);
        assert_eq!(client.better_core(), None);
    }
}
