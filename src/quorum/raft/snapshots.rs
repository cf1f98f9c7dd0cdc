//! Snapshots: writing one makes the logs short, and a voter that is too far behind gets one from the leader, piece by piece.
//!
//! Raft hands out where a snapshot ends, and no more. Who gets to know asks for its bytes from where it is, again when
//! nothing comes, and begins anew with another one; when all are there, raft hears of it as if it had just come.

use std::rc::Rc;

use ::raft::{SnapshotStatus, eraftpb::Message};
use tracing::{info, warn};

use super::{
    RaftQuorum,
    store::Base,
    voting::{epoch_of, raft_id},
    wire::{self, Mark, PIECE_BYTES_MAX, Packet, Piece},
};
use crate::{
    base::{BrokerId, Offset},
    metadata::Position,
    protocol::metadata_records::MetadataRecord,
    quorum::snapshot,
};

/// Who has sent no piece for so many ticks is asked again.
const ASK_AGAIN_TICKS: usize = 4;
/// Who has not asked for a piece for so many ticks is told of a snapshot anew, of the newest then.
const SEND_AGAIN_TICKS: usize = 40;
/// A snapshot that nobody has asked for so long is not kept in memory.
const KEEP_TICKS: usize = 100;

/// A snapshot that comes in.
pub(super) struct Incoming {
    from: BrokerId,
    /// What raft will be told when all is there.
    message: Message,
    base: Base,
    /// The length of the whole, once a piece has said it.
    total: Option<u64>,
    bytes: Vec<u8>,
    /// Since something has come, or was asked for.
    quiet_ticks: usize,
}

/// A snapshot that has come.
pub(super) struct Received {
    pub base: Base,
    bytes: Vec<u8>,
    pub records: Vec<MetadataRecord>,
}

/// The snapshot that others are given.
#[derive(Default)]
pub(super) struct Serving {
    bytes: Option<(Mark, Rc<Vec<u8>>)>,
    is_loading: bool,
    unused_ticks: usize,
}

impl Base {
    /// How far an image goes that ends here.
    pub(super) fn position(&self) -> Position {
        Position { last_offset: self.end_offset.plus(-1), epoch: epoch_of(self.mark.term) }
    }
}

impl RaftQuorum {
    pub(super) async fn take_snapshot(&self, position: Position, records: &[MetadataRecord]) {
        self.bytes_since_snapshot.set(0);
        let previous = snapshot::take(&self.io, &self.replica, &self.seat.snapshots, position, records).await;
        let end = position.last_offset.plus(1);
        let base = self.node.borrow().store().ending_at(end, self.told.applied.get());
        if let Some(base) = base.filter(|base| base.end_offset == end) {
            self.node.borrow_mut().mut_store().set_snapshot(base);
        }
        let Some(previous) = previous else { return };
        let high_watermark = self.replica.high_watermark();
        match self.replica.follow(&[], high_watermark, previous).await {
            Ok(()) => snapshot::remove_older(&self.io, &self.seat.snapshots, previous).await,
            Err(error) => warn!(?error, "metadata log could not be shortened"),
        }
        self.compact_to.set(Some(previous));
        self.news.notify_all();
    }

    /// Raft tells a follower of a snapshot.
    pub(super) fn sends_snapshot(&self, to: BrokerId) {
        self.outgoing.borrow_mut().insert(to, 0);
    }

    /// Begins to fetch a snapshot that a leader tells of. Gives false if raft is to look at the message at once.
    pub(super) fn fetch_snapshot(&self, from: BrokerId, message: &Message) -> bool {
        let metadata = message.get_snapshot().get_metadata();
        let mark = Mark { term: metadata.term, index: metadata.index };
        let end_offset = Offset(i64::try_from(wire::end_offset(message.get_snapshot())).unwrap_or_default());
        let is_known = self.node.borrow().raft.raft_log.committed >= mark.index;
        if is_known {
            return false;
        }
        let mut message = message.clone();
        message.mut_snapshot().mut_metadata().set_conf_state(self.node.borrow().store().conf_state());
        let base = Base { mark, end_offset };
        let mut incoming = self.incoming.borrow_mut();
        match incoming.as_mut().filter(|incoming| incoming.base == base && incoming.from == from) {
            Some(incoming) => incoming.message = message,
            None => {
                info!(%from, end = %end_offset, "the metadata comes as a snapshot");
                let (total, bytes, quiet_ticks) = (None, Vec::new(), 0);
                *incoming = Some(Incoming { from, message, base, total, bytes, quiet_ticks });
            }
        }
        drop(incoming);
        self.ask_for_piece();
        true
    }

    fn ask_for_piece(&self) {
        let asked = self.incoming.borrow().as_ref().map(|it| (it.from, it.base.mark, it.bytes.len() as u64));
        if let Some((from, mark, position)) = asked {
            self.send(from, &Packet::Want(mark, position));
        }
    }

    /// Gives a piece of the newest snapshot to whoever asks.
    pub(super) fn serve(self: &Rc<Self>, to: BrokerId, mark: Mark, position: u64) {
        if let Some(quiet_ticks) = self.outgoing.borrow_mut().get_mut(&to) {
            *quiet_ticks = 0;
        }
        let newest = self.node.borrow().store().snapshot_base().filter(|base| base.mark == mark);
        let Some(base) = newest else { return self.send(to, &Packet::Gone(mark)) };
        let mut serving = self.serving.borrow_mut();
        serving.unused_ticks = 0;
        match &serving.bytes {
            Some((loaded, bytes)) if *loaded == mark => self.send_piece(to, mark, position, bytes),
            // One at a time; who asks meanwhile asks again.
            _ if serving.is_loading => {}
            _ => {
                serving.is_loading = true;
                self.io.spawner.spawn(self.clone().load(to, base, position));
            }
        }
    }

    async fn load(self: Rc<Self>, to: BrokerId, base: Base, position: u64) {
        let read = snapshot::read_at(&self.io, &self.seat.snapshots, base.end_offset).await;
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(error) => {
                warn!(%error, "a metadata snapshot could not be read for another voter");
                None
            }
        };
        let mut serving = self.serving.borrow_mut();
        serving.is_loading = false;
        let Some(bytes) = bytes else { return self.send(to, &Packet::Gone(base.mark)) };
        let bytes = Rc::new(bytes);
        self.send_piece(to, base.mark, position, &bytes);
        serving.bytes = Some((base.mark, bytes));
    }

    fn send_piece(&self, to: BrokerId, mark: Mark, position: u64, bytes: &[u8]) {
        let Some(rest) = usize::try_from(position).ok().and_then(|position| bytes.get(position..)) else { return };
        if rest.is_empty() {
            return;
        }
        let total = bytes.len() as u64;
        let bytes = rest[..rest.len().min(PIECE_BYTES_MAX)].to_vec();
        self.send(to, &Packet::Piece(Piece { mark, position, total, bytes }));
    }

    /// Takes a piece that is next. Gives the message for raft when it was the last one.
    pub(super) fn take_piece(&self, from: BrokerId, piece: Piece) -> Option<Message> {
        let is_whole = {
            let mut incoming = self.incoming.borrow_mut();
            let incoming =
                incoming.as_mut().filter(|incoming| incoming.from == from && incoming.base.mark == piece.mark)?;
            let is_next = piece.position == incoming.bytes.len() as u64;
            if !is_next || incoming.total.is_some_and(|total| total != piece.total) {
                return None;
            }
            incoming.quiet_ticks = 0;
            incoming.total = Some(piece.total);
            incoming.bytes.extend_from_slice(&piece.bytes);
            incoming.bytes.len() as u64 == piece.total
        };
        if !is_whole {
            self.ask_for_piece();
            return None;
        }
        let Incoming { message, base, bytes, .. } = self.incoming.take()?;
        let Some(records) = snapshot::decode_snapshot(&bytes) else {
            warn!(%from, "a snapshot of another voter is not whole");
            return None;
        };
        *self.received.borrow_mut() = Some(Received { base, bytes, records });
        Some(message)
    }

    /// The snapshot is there no more: the leader tells of a newer one.
    pub(super) fn give_up(&self, from: BrokerId, mark: Mark) {
        let mut incoming = self.incoming.borrow_mut();
        if incoming.as_ref().is_some_and(|incoming| incoming.from == from && incoming.base.mark == mark) {
            *incoming = None;
        }
    }

    /// Writes a snapshot that raft has taken as the newest one.
    /// # Errors  Why the process must end.
    pub(super) async fn install(&self, mark: Mark) -> Result<Base, String> {
        let (base, bytes) = match &mut *self.received.borrow_mut() {
            Some(received) if received.base.mark == mark => (received.base, std::mem::take(&mut received.bytes)),
            Some(_) | None => return Err("raft has taken a snapshot that has not come".to_owned()),
        };
        let failed = |error: std::io::Error| format!("a metadata snapshot cannot be written: {error}");
        self.replica.log().make_directory().await.map_err(failed)?;
        snapshot::store(&self.io, &self.seat.snapshots, base.position(), &bytes).await.map_err(failed)?;
        Ok(base)
    }

    /// The log begins behind the snapshot now: whoever follows the metadata begins anew there.
    pub(super) fn installed(&self) {
        *self.told.replaced.borrow_mut() = self.received.borrow_mut().take();
        self.progress.notify_all();
    }

    pub(super) fn tick_snapshots(&self) {
        self.tick_incoming();
        self.tick_outgoing();
        let mut serving = self.serving.borrow_mut();
        serving.unused_ticks += 1;
        if serving.unused_ticks > KEEP_TICKS {
            serving.bytes = None;
        }
    }

    fn tick_incoming(&self) {
        let mut incoming = self.incoming.borrow_mut();
        let Some(quiet_ticks) = incoming.as_mut().map(|incoming| {
            incoming.quiet_ticks += 1;
            incoming.quiet_ticks
        }) else {
            return;
        };
        if quiet_ticks > SEND_AGAIN_TICKS {
            // Whoever leads by now tells of its own.
            *incoming = None;
        }
        drop(incoming);
        if quiet_ticks % ASK_AGAIN_TICKS == 0 {
            self.ask_for_piece();
        }
    }

    fn tick_outgoing(&self) {
        let mut late = Vec::new();
        self.outgoing.borrow_mut().retain(|to, quiet_ticks| {
            *quiet_ticks += 1;
            let is_late = *quiet_ticks > SEND_AGAIN_TICKS;
            if is_late {
                late.push(*to);
            }
            !is_late
        });
        for to in late {
            // Nothing happens if it is not waiting for one any more.
            self.node.borrow_mut().report_snapshot(raft_id(to), SnapshotStatus::Failure);
        }
    }
}
