//! The brokers' sessions: when each was heard of last. They are the controller's own: the next one begins them anew.

use std::collections::BTreeMap;

use crate::base::BrokerId;

/// Longest time between two decisions that counts: while a controller is stopped it hears of nobody, and when it goes on
/// their heartbeats wait in its sockets.
const GAP_MAX_MS: u64 = 500;

/// When each broker was heard of last.
#[derive(Clone, Debug)]
pub(super) struct Sessions {
    timeout_ms: u64,
    /// Nothing before the first decision.
    now_ms: Option<u64>,
    by_broker: BTreeMap<BrokerId, Session>,
}

/// One broker's session.
#[derive(Clone, Copy, Debug)]
struct Session {
    broker_epoch: i64,
    heard_ms: u64,
    /// How far its image went then.
    metadata_offset: i64,
    /// The last record that takes leaderships from it, once it wants to stop.
    stops_behind: Option<i64>,
}

impl Sessions {
    pub fn new(timeout_ms: u64) -> Self {
        Self { timeout_ms, now_ms: None, by_broker: BTreeMap::new() }
    }

    /// Goes on to `now_ms`, by a clock that never goes back. The sessions of `alive` begin with the first time that is told.
    pub fn set_now(&mut self, now_ms: u64, alive: impl Iterator<Item = (BrokerId, i64)>) {
        match self.now_ms.replace(now_ms) {
            Some(before) => {
                let missed = now_ms.saturating_sub(before).saturating_sub(GAP_MAX_MS);
                self.by_broker.values_mut().for_each(|session| session.heard_ms += missed);
            }
            None => alive.for_each(|(broker, broker_epoch)| self.hear(broker, broker_epoch, -1)),
        }
    }

    /// Whether the broker was heard of in that epoch within the time of a session.
    pub fn is_valid(&self, broker: BrokerId, broker_epoch: i64) -> bool {
        let session = self.by_broker.get(&broker).filter(|session| session.broker_epoch == broker_epoch);
        session.is_some_and(|session| !self.is_over(session))
    }

    /// A broker registers, or sends a heartbeat.
    pub fn hear(&mut self, broker: BrokerId, broker_epoch: i64, metadata_offset: i64) {
        let heard_ms = self.now_ms.unwrap_or(0);
        let new = Session { broker_epoch, heard_ms, metadata_offset, stops_behind: None };
        let session = self.by_broker.entry(broker).or_insert(new);
        let stops_behind = session.stops_behind.filter(|_| session.broker_epoch == broker_epoch);
        *session = Session { stops_behind, ..new };
    }

    /// The broker is taken for dead, or is gone.
    pub fn end(&mut self, broker: BrokerId) {
        self.by_broker.remove(&broker);
    }

    /// The broker may stop once everybody's image has reached `offset`.
    pub fn stop_behind(&mut self, broker: BrokerId, offset: i64) {
        if let Some(session) = self.by_broker.get_mut(&broker) {
            session.stops_behind = Some(session.stops_behind.unwrap_or(offset).max(offset));
        }
    }

    /// What [`stop_behind`](Self::stop_behind) was told.
    pub fn stops_behind(&self, broker: BrokerId) -> Option<i64> {
        self.by_broker.get(&broker).and_then(|session| session.stops_behind)
    }

    /// How far a broker's image went when it was heard of; -1: not yet.
    pub fn metadata_offset(&self, broker: BrokerId) -> i64 {
        self.by_broker.get(&broker).map_or(-1, |session| session.metadata_offset)
    }

    /// Takes out the sessions that are over: the brokers and their epochs.
    pub fn expire(&mut self) -> Vec<(BrokerId, i64)> {
        let over = self.by_broker.iter().filter(|(_, session)| self.is_over(session));
        let over: Vec<_> = over.map(|(broker, session)| (*broker, session.broker_epoch)).collect();
        over.iter().for_each(|(broker, _)| self.end(*broker));
        over
    }

    fn is_over(&self, session: &Session) -> bool {
        self.now_ms.is_some_and(|now| now.saturating_sub(session.heard_ms) > self.timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const B: BrokerId = BrokerId(2);

    fn at(sessions: &mut Sessions, times: impl IntoIterator<Item = u64>) -> Vec<(BrokerId, i64)> {
        let mut over = Vec::new();
        for now_ms in times {
            sessions.set_now(now_ms, std::iter::empty());
            over.extend(sessions.expire());
        }
        over
    }

    #[test]
    fn a_session_ends_when_nothing_was_heard_for_its_time() {
        let mut sessions = Sessions::new(3000);
        sessions.set_now(10_000, [(B, 7)].into_iter());
        assert_eq!(at(&mut sessions, (10_000..=13_000).step_by(100)), []);
        assert!(sessions.is_valid(B, 7) && !sessions.is_valid(B, 8) && !sessions.is_valid(BrokerId(3), 7));
        sessions.hear(B, 7, 40);
        assert_eq!((at(&mut sessions, (13_100..=16_000).step_by(100)), sessions.metadata_offset(B)), (vec![], 40));
        assert_eq!(at(&mut sessions, [16_100]), [(B, 7)]);
        assert!(!sessions.is_valid(B, 7));
        assert_eq!(at(&mut sessions, [16_200]), []);
    }

    #[test]
    fn time_in_which_the_controller_was_stopped_ends_no_session() {
        let mut sessions = Sessions::new(3000);
        sessions.set_now(0, [(B, 7)].into_iter());
        assert_eq!(at(&mut sessions, [100, 60_000, 60_100]), []);
        assert_eq!(at(&mut sessions, (60_200..=62_400).step_by(100)), []);
        assert_eq!(at(&mut sessions, [62_500]), [(B, 7)]);
    }

    #[test]
    fn a_new_life_does_not_stop_because_the_last_one_wanted_to() {
        let mut sessions = Sessions::new(3000);
        sessions.hear(B, 7, 1);
        sessions.stop_behind(B, 50);
        sessions.stop_behind(B, 40);
        sessions.hear(B, 7, 2);
        assert_eq!(sessions.stops_behind(B), Some(50));
        sessions.hear(B, 9, 3);
        assert_eq!(sessions.stops_behind(B), None);
    }
}
