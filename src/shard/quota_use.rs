//! What clients under a quota have used lately, of all cores together: a quota is a broker's, and a client may have connections to
//! several cores. Nobody comes here as long as no quota is set.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{
    base::Map,
    metrics::{Rate, Windows},
};

/// So many users and clients are counted one by one. Whoever comes when all of them are there is counted together with all others
/// who do.
const COUNTED_MAX: usize = 10_000;

/// A name's bytes that tell it apart; what is beyond is counted together.
const NAME_BYTES_MAX: usize = 256;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Used {
    /// Bytes of produce requests.
    Produced,
    /// Bytes of records that were fetched.
    Fetched,
    /// Time of a core, in percent of it.
    Time,
}

/// Whose use is counted; no name: of all of them.
type Who = (Used, Option<String>, Option<String>);

/// The rates. One for each broker.
#[derive(Debug, Default)]
pub struct QuotaUse {
    rates: Mutex<Rates>,
}

#[derive(Debug, Default)]
struct Rates {
    by_client: Map<Who, Rate>,
    /// When those that are over were taken out last.
    swept: Duration,
}

impl QuotaUse {
    /// Takes in what a user's client has used just now; for how long it may use no more, to stay under `bound` a second. `now` is
    /// since the process's beginning, on every core.
    pub fn used(
        &self,
        (used, user, client_id): (Used, Option<&str>, Option<&str>),
        amount: f64,
        bound: f64,
        windows: Windows,
        now: Duration,
    ) -> Duration {
        let name = |name: Option<&str>| name.map(|name| name[..name.floor_char_boundary(NAME_BYTES_MAX)].to_owned());
        let mut who = (used, name(user), name(client_id));
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        if !rates.by_client.contains_key(&who) && !rates.has_room(windows, now) {
            who = (used, None, None);
        }
        rates.by_client.entry(who).or_default().used(amount, bound, windows, now)
    }
}

impl Rates {
    /// Whether one more may be counted. Those that have used nothing lately go, looked for once in a window.
    fn has_room(&mut self, windows: Windows, now: Duration) -> bool {
        if self.by_client.len() >= COUNTED_MAX && now.saturating_sub(self.swept) >= windows.length {
            self.swept = now;
            self.by_client.retain(|_, rate| !rate.is_over(windows, now));
        }
        self.by_client.len() < COUNTED_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOWS: Windows = Windows { count: 11, length: Duration::from_secs(1) };

    #[test]
    fn clients_are_told_apart_and_those_beyond_the_bound_are_one() {
        let quotas = QuotaUse::default();
        let used = |client: &str, seconds: u64| {
            let who = (Used::Produced, None, Some(client));
            quotas.used(who, 800.0, 100.0, WINDOWS, Duration::from_secs(seconds)).as_millis()
        };
        assert_eq!((used("a", 100), used("b", 100), used("a", 100)), (0, 0, 6000));
        let long = "x".repeat(1 << 20);
        assert_eq!(used(&long, 100), 0);
        for client in 0..COUNTED_MAX {
            used(&client.to_string(), 100);
        }
        let counted = || quotas.rates.lock().expect("nobody panics").by_client.len();
        assert_eq!(counted(), COUNTED_MAX + 1, "and those who share");
        assert!(used("one more", 100) > 0, "it is counted with all the others");
        // When their windows are over there is room again.
        assert_eq!((used("one more", 200), counted()), (0, 1));
    }
}
