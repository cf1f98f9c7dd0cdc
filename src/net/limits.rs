//! How many connections there may be, in all and from one address, and which core takes the next one.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// Counts the broker's connections. Shared by all cores: taken on the acceptor's, given back wherever a connection ends.
#[derive(Debug)]
pub struct ConnectionLimits {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    connections_max: usize,
    per_address_max: usize,
    total: usize,
    // Not iterated, so std's hashing cannot change the order of anything; addresses come from strangers.
    by_address: HashMap<IpAddr, usize>,
    by_core: Vec<usize>,
}

/// The right to one connection; given back when dropped.
#[derive(Debug)]
pub struct Ticket {
    limits: Arc<ConnectionLimits>,
    address: IpAddr,
    core: usize,
}

/// Why a connection is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// `max.connections` is reached, or what memory and open files allow.
    #[error(
        "{0} connections are open, all that there may be (max.connections, --memory or the open files allow no \
             more; see the line at the start)"
    )]
    Connections(usize),
    /// `max.connections.per.ip` is reached.
    #[error("{0} connections from this address are open, all that max.connections.per.ip allows")]
    PerAddress(usize),
}

impl ConnectionLimits {
    /// Limits for a whole broker, which spreads its connections over `cores`.
    #[must_use]
    pub fn new(connections_max: usize, per_address_max: usize, cores: usize) -> Arc<Self> {
        let by_core = vec![0; cores];
        let counts = Counts { connections_max, per_address_max, by_core, ..Counts::default() };
        Arc::new(Self { counts: Mutex::new(counts) })
    }

    /// Other limits from now on. Who is connected already stays.
    pub fn set(&self, connections_max: usize, per_address_max: usize) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        (counts.connections_max, counts.per_address_max) = (connections_max, per_address_max);
    }

    /// Counts one more connection from `address` and gives it to the core that has fewest.
    /// Kafka's connections are few and live long, so counting them spreads them better than hashing would.
    /// # Errors  The limit that is reached.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Ticket, Refused> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let (connections_max, per_address_max) = (counts.connections_max, counts.per_address_max);
        if counts.total >= connections_max {
            return Err(Refused::Connections(connections_max));
        }
        let of_address = counts.by_address.entry(address).or_default();
        if *of_address >= per_address_max {
            let refused = Refused::PerAddress(per_address_max);
            if *of_address == 0 {
                counts.by_address.remove(&address);
            }
            return Err(refused);
        }
        *of_address += 1;
        counts.total += 1;
        let core = (0..counts.by_core.len()).min_by_key(|core| counts.by_core[*core]).expect("there is a core");
        counts.by_core[core] += 1;
        Ok(Ticket { limits: self.clone(), address, core })
    }

    /// The connections that are open now.
    #[cfg(test)]
    #[must_use]
    pub fn open(&self) -> usize {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).total
    }
}

impl Ticket {
    /// Takes the connection to another core, unless that would then hold more than twice its share.
    /// Returns whether it does.
    #[must_use]
    pub fn move_to(&mut self, core: usize) -> bool {
        let mut counts = self.limits.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let share = counts.total.div_ceil(counts.by_core.len());
        if counts.by_core.get(core).is_none_or(|connections| *connections >= 2 * share) {
            return false;
        }
        counts.by_core[self.core] -= 1;
        counts.by_core[core] += 1;
        self.core = core;
        true
    }

    /// The core that the connection belongs to.
    #[must_use]
    pub fn core(&self) -> usize {
        self.core
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut counts = self.limits.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.total -= 1;
        counts.by_core[self.core] -= 1;
        if let Some(of_address) = counts.by_address.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_hold_and_tickets_come_back() {
        let limits = ConnectionLimits::new(3, 2, 1);
        let (here, there) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = limits.admit(here).expect("room");
        let _second = limits.admit(here).expect("room");
        assert_eq!(limits.admit(here).err(), Some(Refused::PerAddress(2)));
        let _third = limits.admit(there).expect("room");
        assert_eq!(limits.admit(there).err(), Some(Refused::Connections(3)));
        drop(first);
        assert_eq!(limits.open(), 2);
        let _again = limits.admit(here).expect("room again");
        limits.set(5, 1);
        assert_eq!(limits.admit(here).err(), Some(Refused::PerAddress(1)));
        limits.set(5, 9);
        let _more = [here, there].map(|address| limits.admit(address).expect("more room"));
        assert_eq!(limits.admit(there).err(), Some(Refused::Connections(5)));
    }

    #[test]
    fn connections_spread_over_the_cores() {
        let limits = ConnectionLimits::new(9, 9, 3);
        let admit = || limits.admit(IpAddr::from([127, 0, 0, 1])).expect("room");
        let mut tickets: Vec<Ticket> = (0..6).map(|_| admit()).collect();
        assert_eq!(tickets.iter().map(Ticket::core).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
        drop(tickets.remove(4));
        assert_eq!(admit().core(), 1);
    }

    #[test]
    fn a_core_takes_twice_its_share_and_no_more() {
        let limits = ConnectionLimits::new(9, 9, 3);
        let admit = || limits.admit(IpAddr::from([127, 0, 0, 1])).expect("room");
        let mut tickets: Vec<Ticket> = (0..6).map(|_| admit()).collect();
        // Two each; four is twice that.
        let moved: Vec<bool> = [0, 2, 3, 5].map(|ticket| tickets[ticket].move_to(1)).into();
        assert_eq!(moved, [true, true, false, false]);
        assert_eq!(tickets.iter().map(Ticket::core).collect::<Vec<_>>(), [1, 1, 1, 0, 1, 2]);
        assert!(!tickets[3].move_to(3), "there is no such core");
        drop(tickets);
        assert_eq!(admit().core(), 0, "all came back to where they were");
        assert_eq!(limits.counts.lock().unwrap().by_core, [0, 0, 0]);
    }

    #[test]
    fn an_address_without_connections_is_forgotten() {
        let limits = ConnectionLimits::new(1, 0, 1);
        assert!(limits.admit(IpAddr::from([1, 1, 1, 1])).is_err());
        assert!(limits.counts.lock().unwrap().by_address.is_empty());
    }
}
