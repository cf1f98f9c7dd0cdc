//! The cluster as all cores of a broker see it.

use std::{
    rc::Rc,
    sync::atomic::{AtomicI32, AtomicU64, Ordering},
};

use crate::{
    base::{BrokerId, ErrorCode, LeaderEpoch},
    config::Voter,
    io::Instant,
    protocol::quorum_packets::Envelope,
};

/// Who takes another voter's packets; on the core of the metadata log. Gives Kafka's code for why they are not for this voter of
/// this cluster.
pub(super) type TakePackets = Rc<dyn Fn(&Envelope<'_>, &[&[u8]]) -> Result<(), ErrorCode>>;

/// What all cores of a broker that is not alone know of its cluster.
#[derive(Debug)]
pub struct Cluster {
    voters: Vec<Voter>,
    /// Who leads the quorum, as far as is known; -1: nobody is known.
    leader: AtomicI32,
    /// In which epoch.
    epoch: AtomicI32,
    /// Until when the controller takes this broker for alive; in nanoseconds of the clock.
    lease_ns: AtomicU64,
}

impl Cluster {
    /// A cluster of these voters, of which nothing has been heard.
    #[must_use]
    pub(crate) fn new(voters: Vec<Voter>) -> Self {
        Self { voters, leader: AtomicI32::new(-1), epoch: AtomicI32::new(-1), lease_ns: AtomicU64::new(0) }
    }

    /// All voters, this broker among them.
    #[must_use]
    pub(crate) fn voters(&self) -> &[Voter] {
        &self.voters
    }

    /// Who leads the quorum, as far as is known.
    #[must_use]
    pub fn leader(&self) -> Option<BrokerId> {
        let leader = self.leader.load(Ordering::Relaxed);
        (leader >= 0).then_some(BrokerId(leader))
    }

    /// The last epoch that was heard of; -1: none was.
    #[must_use]
    pub fn epoch(&self) -> LeaderEpoch {
        LeaderEpoch(self.epoch.load(Ordering::Relaxed))
    }

    pub(super) fn is_led_by(&self, leader: Option<(BrokerId, LeaderEpoch)>) {
        if let Some((_, epoch)) = leader {
            self.epoch.store(epoch.0, Ordering::Relaxed);
        }
        self.leader.store(leader.map_or(-1, |(leader, _)| leader.0), Ordering::Relaxed);
    }

    /// The controller has heard of this broker, and does not take it for dead before then.
    pub(super) fn is_alive_until(&self, end: Instant) {
        self.lease_ns.fetch_max(end.0, Ordering::Relaxed);
    }

    /// Whether the controller may have taken this broker for dead by now, and others lead what it has led.
    #[must_use]
    pub fn may_be_replaced(&self, now: Instant) -> bool {
        now.0 >= self.lease_ns.load(Ordering::Relaxed)
    }
}
