//! A quorum of several voters, by the crate `raft`: a majority of them has what is committed, on stable storage.
//!
//! Raft's own log ([`voter_log`]) is apart from the metadata's: that holds what is committed, as every broker of a Kafka cluster
//! has it. An entry is a batch of records; where it lies in the metadata's log follows from the records before it, so nothing
//! else has to be kept. [`turns`] is the one task that drives raft, [`told`] takes over what is committed and tells it,
//! [`voting`] says from when on a voter votes, [`snapshots`] brings those up to date who are too far behind.

mod door;
mod entry;
mod open;
mod snapshots;
mod store;
#[cfg(test)]
mod tests;
mod told;
mod turns;
mod voter_log;
mod voting;
mod wire;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
};

use ::raft::RawNode;

pub use self::{
    open::OpenError,
    voting::{RaftSettings, Seat},
    wire::{Malformed, PACKET_BYTES_MAX},
};
use self::{
    snapshots::{Incoming, Received as ReceivedSnapshot, Serving},
    store::Store,
    voting::{Disks, Stage},
    wire::{Head, Packet},
};
use crate::{
    base::{BrokerId, ErrorCode, LeaderEpoch, Offset},
    io::{
        Io,
        channel::{Notified, Notify},
        either,
    },
    log::Fatal,
    metadata::Position,
    protocol::metadata_records::MetadataRecord,
    quorum::{Event, LocalFuture, Quorum},
    replica::Replica,
};

/// Packets that wait for their turn, in bytes. What comes on top is lost, as a network may lose it.
const INBOX_BYTES_MAX: usize = 4 * PACKET_BYTES_MAX;

/// After so many bytes of committed records a snapshot is worth its cost. Less in tests, so that simulated voters get there.
const SNAPSHOT_BYTES: u64 = if cfg!(test) { 4 * 1024 } else { 2 * 1024 * 1024 };

/// Carries packets to the other voters. Never waits; may lose them, double them, and change their order.
pub trait Transport {
    /// Sends a packet, of at most [`PACKET_BYTES_MAX`].
    fn send(&self, to: BrokerId, packet: Vec<u8>);
}

/// One voter of a quorum of several. Lives on the core of the metadata log.
pub struct RaftQuorum {
    io: Io,
    seat: Seat,
    /// The number of this voter's disk.
    disk: u64,
    replica: Rc<Replica>,
    transport: Rc<dyn Transport>,
    fatal: Fatal,
    /// Changed by the turns' task alone.
    node: RefCell<RawNode<Store>>,
    stage: RefCell<Stage>,
    disks: RefCell<Disks>,
    inbox: RefCell<VecDeque<Received>>,
    inbox_bytes: Cell<usize>,
    proposals: RefCell<VecDeque<Proposed>>,
    /// Voters that have asked how far this one is.
    askers: RefCell<BTreeSet<BrokerId>>,
    gives_leadership_away: Cell<bool>,
    /// For the turns' task.
    news: Notify,
    status: Cell<Status>,
    leader_changed: Notify,
    /// The last entry that raft has handed over as committed.
    committed: Cell<u64>,
    told: told::Told,
    /// For whoever waits for what is told.
    progress: Notify,
    bytes_since_snapshot: Cell<u64>,
    /// Everything before that offset may be forgotten.
    compact_to: Cell<Option<Offset>>,
    /// A snapshot that comes in.
    incoming: RefCell<Option<Incoming>>,
    /// One that is whole, until raft has taken it.
    received: RefCell<Option<ReceivedSnapshot>>,
    /// Who is sent a snapshot, and for how many ticks nothing was heard of that.
    outgoing: RefCell<BTreeMap<BrokerId, usize>>,
    serving: RefCell<Serving>,
}

struct Received {
    from: BrokerId,
    head: Head,
    packet: Packet,
    bytes: usize,
}

struct Proposed {
    epoch: LeaderEpoch,
    data: Vec<u8>,
}

/// What others want to know of raft's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Status {
    /// Who leads, as far as is known.
    leader: Option<(BrokerId, LeaderEpoch)>,
    /// This voter leads, and takes proposals.
    leads: Option<LeaderEpoch>,
}

impl RaftQuorum {
    /// Takes a packet of another voter's; whose it is the connection says. It has its turn later.
    /// # Errors  One that no voter of this quorum would send: nothing has changed then.
    pub fn receive(&self, from: BrokerId, packet: &[u8]) -> Result<(), Malformed> {
        let (head, decoded) = wire::decode(packet, self.seat.quorum())?;
        if !self.seat.others().any(|other| other == from) {
            return Err(Malformed::Stranger(from));
        }
        if let Packet::Raft(message) = &decoded {
            let (me, sender) = (voting::raft_id(self.seat.me), voting::raft_id(from));
            if (message.from, message.to) != (sender, me) {
                return Err(Malformed::Field("a message between others"));
            }
        }
        let is_for_an_earlier_disk = head.to_disk != 0 && head.to_disk != self.disk;
        let bytes = packet.len();
        if is_for_an_earlier_disk || self.inbox_bytes.get() + bytes > INBOX_BYTES_MAX {
            return Ok(());
        }
        self.inbox_bytes.set(self.inbox_bytes.get() + bytes);
        self.inbox.borrow_mut().push_back(Received { from, head, packet: decoded, bytes });
        self.news.notify_all();
        Ok(())
    }

    /// Who leads the quorum, as far as is known here, and in which epoch.
    pub fn leader(&self) -> Option<(BrokerId, LeaderEpoch)> {
        self.status.get().leader
    }

    /// Resolves at the next change of [`leader`](Self::leader): look at it after making this.
    pub fn leader_changed(&self) -> Notified {
        self.leader_changed.notified()
    }

    /// Gives leadership away, for a stop: to the voter that has most of the log. Returns when another one leads, or when it
    /// is not worth while waiting any longer.
    pub async fn transfer(&self) {
        let settings = &self.seat.settings;
        let ticks = u32::try_from(2 * settings.election_ticks).unwrap_or(u32::MAX);
        let deadline = self.io.clock.now() + settings.tick.saturating_mul(ticks);
        if self.status.get().leader.is_none_or(|(leader, _)| leader != self.seat.me) {
            return;
        }
        self.gives_leadership_away.set(true);
        self.news.notify_all();
        loop {
            let changed = self.leader_changed();
            let is_other = self.leader().is_some_and(|(leader, _)| leader != self.seat.me);
            if is_other || self.io.clock.now() >= deadline {
                return;
            }
            either(changed, self.io.clock.sleep_until(deadline)).await;
        }
    }

    fn encode(&self, to: BrokerId, packet: &Packet) -> Vec<u8> {
        let to_disk = self.disks.borrow().of(to);
        wire::encode(&Head { quorum: self.seat.quorum(), from_disk: self.disk, to_disk }, packet)
    }

    fn send(&self, to: BrokerId, packet: &Packet) {
        self.transport.send(to, self.encode(to, packet));
    }
}

impl Quorum for Rc<RaftQuorum> {
    fn propose(&self, epoch: LeaderEpoch, records: Vec<MetadataRecord>) -> Result<Offset, ErrorCode> {
        if self.told.leads.get() != Some(epoch) || self.status.get().leads != Some(epoch) {
            return Err(ErrorCode::NotController);
        }
        let Some(data) = entry::of_records(&self.io, &records) else {
            // Whoever has proposed it counts on it already, and begins anew.
            self.told.leads.set(None);
            self.progress.notify_all();
            return Err(ErrorCode::PolicyViolation);
        };
        let next_offset = self.told.next_offset.get().plus(records.len() as i64);
        self.told.next_offset.set(next_offset);
        self.proposals.borrow_mut().push_back(Proposed { epoch, data });
        self.news.notify_all();
        Ok(next_offset.plus(-1))
    }

    fn next(&self) -> LocalFuture<'_, Event> {
        Box::pin(self.next_event())
    }

    fn wants_snapshot(&self) -> bool {
        self.bytes_since_snapshot.get() >= SNAPSHOT_BYTES
    }

    fn snapshot<'a>(&'a self, position: Position, records: &'a [MetadataRecord]) -> LocalFuture<'a, ()> {
        Box::pin(self.take_snapshot(position, records))
    }
}
