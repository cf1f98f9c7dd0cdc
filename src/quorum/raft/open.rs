//! A voter's start.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
};

use ::raft::{Config, RawNode};
use slog::{Discard, Logger, o};
use tracing::info;

use super::{
    RaftQuorum, Transport,
    told::Told,
    turns,
    voter_log::{VoterLog, VoterLogError},
    voting::{self, Seat, Stage, VOTERS_MAX},
};
use crate::{
    base::{BrokerId, LeaderEpoch, Offset},
    io::{Io, channel::Notify},
    log::Fatal,
    partition::{AssignedRole, Assignment, Partition},
    quorum::snapshot,
    replica::Replica,
};

/// A message carries entries up to so many bytes, and one in any case.
const MESSAGE_BYTES: u64 = 256 * 1024;
/// So many messages with entries may be under way to a voter.
const MESSAGES_IN_FLIGHT: usize = 16;
/// So many bytes of committed entries are handed over at once, and one in any case.
const COMMITTED_BYTES: u64 = 4 * 1024 * 1024;

/// Why a voter cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The list of voters is none.
    #[error(
        "controller.quorum.voters must name broker {0} and up to {VOTERS_MAX} brokers in all, each once, with ids from 0 on"
    )]
    Voters(BrokerId),
    /// The quorum's log cannot be used.
    #[error("{0}")]
    Log(#[from] VoterLogError),
    /// The snapshots cannot be read.
    #[error("the snapshots of the metadata cannot be read: {0}")]
    Snapshots(io::Error),
    /// The metadata is not of this log.
    #[error(
        "the metadata on this disk goes to offset {metadata}, and the quorum's log to {log}: a broker alone has written it, or the quorum's log was removed; either both have to be there or none"
    )]
    Beyond {
        /// Where the metadata ends.
        metadata: Offset,
        /// Where the quorum's log ends.
        log: Offset,
    },
    /// The metadata does not reach to where the log begins.
    #[error("the metadata on this disk goes to offset {metadata}, and the quorum's log begins at {log}")]
    Missing {
        /// Where the metadata ends.
        metadata: Offset,
        /// Where the quorum's log begins.
        log: Offset,
    },
    /// Raft refuses.
    #[error("the quorum cannot start: {0}")]
    Raft(#[from] ::raft::Error),
}

impl RaftQuorum {
    /// Starts a voter whose image goes to `last_offset`, with so many bytes of the metadata's log behind the last snapshot. The
    /// replica of the metadata becomes a follower of what the quorum commits; its flushes must be followed, now or later.
    /// On the core of the metadata log, which ends the process when `fatal` is called.
    /// # Errors  Why this broker must not vote.
    pub async fn open(
        io: &Io,
        seat: Seat,
        replica: Rc<Replica>,
        last_offset: Offset,
        bytes_since_snapshot: u64,
        transport: Rc<dyn Transport>,
        fatal: Fatal,
    ) -> Result<Rc<Self>, OpenError> {
        check_voters(&seat)?;
        let (log, restored) = VoterLog::open(io, &seat).await?;
        let mut store = restored.store;
        let image_end = last_offset.plus(1);
        let (log_end, metadata_end) = (store.end_offset(), replica.inspect(Partition::log_end_offset));
        // A snapshot that has come may be there already without the entry that says so: then the metadata's log is short.
        if metadata_end > log_end || (restored.joined.is_none() && image_end > Offset::ZERO) {
            return Err(OpenError::Beyond { metadata: metadata_end.max(image_end), log: log_end });
        }
        if image_end < store.base().end_offset {
            return Err(OpenError::Missing { metadata: image_end, log: store.base().end_offset });
        }
        let newest =
            snapshot::one_before(io, &seat.snapshots, image_end.plus(1)).await.map_err(OpenError::Snapshots)?;
        let commit = store.hard_state().commit;
        if let Some(end) = newest
            && let Some(base) = store.ending_at(end, commit)
            && base.end_offset == end
        {
            store.set_snapshot(base);
        }
        let term = i32::try_from(store.hard_state().term).expect("terms are checked where they are read");
        let follower = AssignedRole::Follower { leader: None };
        replica.assign(&Assignment { role: follower, ..Assignment::alone(LeaderEpoch(term)) });
        let base = store.base();
        let stage = Stage::of(restored.joined, store.last());
        info!(term, log = %log.path().display(), ?stage, end = %log_end, "this broker is a voter of the metadata quorum");
        let node = RawNode::new(&config(&seat, base.mark.index), store, &Logger::root(Discard, o!()))?;
        let quorum = Rc::new(Self {
            io: io.clone(),
            disk: log.disk(),
            seat,
            replica,
            transport,
            fatal,
            node: RefCell::new(node),
            stage: RefCell::new(stage),
            disks: RefCell::default(),
            inbox: RefCell::default(),
            inbox_bytes: Cell::new(0),
            proposals: RefCell::default(),
            askers: RefCell::default(),
            gives_leadership_away: Cell::new(false),
            news: Notify::new(),
            status: Cell::default(),
            leader_changed: Notify::new(),
            committed: Cell::new(base.mark.index),
            told: Told::new(base.mark.index, image_end, metadata_end < image_end),
            progress: Notify::new(),
            bytes_since_snapshot: Cell::new(bytes_since_snapshot),
            compact_to: Cell::new(None),
            incoming: RefCell::default(),
            received: RefCell::default(),
            outgoing: RefCell::default(),
            serving: RefCell::default(),
        });
        io.spawner.spawn(turns::run(quorum.clone(), log, restored.joined));
        Ok(quorum)
    }
}

fn check_voters(seat: &Seat) -> Result<(), OpenError> {
    let Seat { me, voters, .. } = seat;
    let ascend = voters.windows(2).all(|pair| pair[0] < pair[1]) && voters.iter().all(|voter| voter.0 >= 0);
    let fits = (2..=VOTERS_MAX).contains(&voters.len()) && voters.contains(me);
    if ascend && fits { Ok(()) } else { Err(OpenError::Voters(*me)) }
}

fn config(seat: &Seat, applied: u64) -> Config {
    Config {
        id: voting::raft_id(seat.me),
        election_tick: seat.settings.election_ticks,
        heartbeat_tick: seat.settings.heartbeat_ticks,
        applied,
        max_size_per_msg: MESSAGE_BYTES,
        max_inflight_msgs: MESSAGES_IN_FLIGHT,
        max_committed_size_per_ready: COMMITTED_BYTES,
        // A leader that hears of no majority gives up, and a voter that hears of none does not raise the term.
        check_quorum: true,
        pre_vote: true,
        ..Config::default()
    }
}
