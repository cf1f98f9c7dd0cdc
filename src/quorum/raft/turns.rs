//! The task that drives raft: what has come, what is proposed, a tick if it is time; then what raft makes of it goes out,
//! once it is on stable storage.

use std::rc::Rc;

use ::raft::{
    RawNode, Ready, StateRole,
    eraftpb::{HardState, Message, MessageType},
};
use tracing::{debug, error, info, warn};

use super::{
    Proposed, RaftQuorum, Received, Status,
    door::{self, Refused},
    store::Store,
    voter_log::{Addition, Rewritten, VoterLog},
    voting::{Joined, Stage, broker_of, epoch_of, raft_id},
    wire::{Answer, Mark, Packet},
};
use crate::{base::BrokerId, io::either};

/// A voter with a new disk asks every so many ticks.
const QUESTION_TICKS: usize = 4;

/// A log that gets so long, and twice as long as it was, is written anew though no snapshot asks for it: elections are written
/// to it as well.
const LOG_BYTES: u64 = if cfg!(test) { 256 * 1024 } else { 16 * 1024 * 1024 };

/// What a change of draws another election timeout.
type Draw = (u64, StateRole, u64, u64);

/// What only this task knows.
struct Turns {
    quorum: Rc<RaftQuorum>,
    log: VoterLog,
    joined: Option<Joined>,
    /// How long the log was when it was written anew.
    rewritten_bytes: u64,
    ticks: usize,
    /// How often this voter has stood for election.
    elections: u64,
    drawn: Option<(Draw, usize)>,
}

/// The process must end: why.
struct Fatal(String);

/// Drives a voter until the process ends.
pub(super) async fn run(quorum: Rc<RaftQuorum>, log: VoterLog, joined: Option<Joined>) {
    let mut turns =
        Turns { quorum: quorum.clone(), log, joined, rewritten_bytes: 0, ticks: 0, elections: 0, drawn: None };
    turns.settle();
    let tick = quorum.seat.settings.tick;
    let mut next_tick = quorum.io.clock.now();
    loop {
        let news = quorum.news.notified();
        if !turns.has_work() {
            either(news, quorum.io.clock.sleep_until(next_tick)).await;
        }
        let is_time = quorum.io.clock.now() >= next_tick;
        if is_time {
            // Not one for each that was missed: whoever was held up has not waited for a leader.
            next_tick = quorum.io.clock.now() + tick;
        }
        if let Err(Fatal(why)) = turns.turn(is_time).await {
            (quorum.fatal)(why);
            return;
        }
    }
}

impl Turns {
    fn has_work(&self) -> bool {
        let quorum = &self.quorum;
        let has_input = !quorum.inbox.borrow().is_empty() || !quorum.proposals.borrow().is_empty();
        has_input || quorum.compact_to.get().is_some() || quorum.gives_leadership_away.get()
    }

    async fn turn(&mut self, is_time: bool) -> Result<(), Fatal> {
        self.take_applied();
        self.take_proposals();
        while let Some(received) = self.next_packet() {
            self.take_packet(received).await?;
        }
        // Behind what has come: a leader's word that waited here counts.
        if is_time {
            self.tick();
        }
        if self.quorum.gives_leadership_away.take() {
            self.give_leadership_away();
        }
        while self.quorum.node.borrow().has_ready() {
            self.handle_ready().await?;
        }
        self.advance_stage();
        self.answer_askers();
        self.compact().await?;
        self.tell_status();
        Ok(())
    }

    fn take_applied(&self) {
        let applied = self.quorum.told.applied.get();
        let mut node = self.quorum.node.borrow_mut();
        if applied > node.raft.raft_log.applied() {
            node.advance_apply_to(applied);
        }
    }

    fn take_proposals(&mut self) {
        let proposals = std::mem::take(&mut *self.quorum.proposals.borrow_mut());
        for Proposed { epoch, data } in proposals {
            let mut node = self.quorum.node.borrow_mut();
            let leads = node.raft.state == StateRole::Leader && epoch_of(node.raft.term) == epoch;
            if !leads || node.propose(Vec::new(), data).is_err() {
                // Whoever has proposed it hears that this voter leads no more, and that it leads again if it does.
                self.quorum.told.dropped.set(true);
                self.quorum.progress.notify_all();
            }
        }
    }

    fn next_packet(&self) -> Option<Received> {
        let received = self.quorum.inbox.borrow_mut().pop_front()?;
        self.quorum.inbox_bytes.set(self.quorum.inbox_bytes.get() - received.bytes);
        Some(received)
    }

    async fn take_packet(&mut self, received: Received) -> Result<(), Fatal> {
        let Received { from, head, packet, .. } = received;
        let quorum = self.quorum.clone();
        if packet == Packet::Question {
            self.asked(from, head.from_disk);
            return Ok(());
        }
        if !quorum.disks.borrow_mut().heard(from, head.from_disk) {
            debug!(%from, "a packet of a disk that is no more");
            return Ok(());
        }
        match packet {
            Packet::Question => {}
            Packet::Answer(answer) => return self.answered(from, answer).await,
            Packet::Raft(message) => return self.step(from, message),
            Packet::Want(mark, position) => quorum.serve(from, mark, position),
            Packet::Piece(piece) => {
                if let Some(message) = quorum.take_piece(from, piece) {
                    self.step_checked(message);
                    if quorum.node.borrow().snap().is_none() {
                        // What it has was committed here meanwhile.
                        *quorum.received.borrow_mut() = None;
                    }
                }
            }
            Packet::Gone(mark) => quorum.give_up(from, mark),
        }
        Ok(())
    }

    /// A voter with a new disk: what was sent to its earlier one has not arrived.
    fn asked(&mut self, from: BrokerId, disk: u64) {
        let Some(is_new) = self.quorum.disks.borrow_mut().is_new(from, disk) else { return };
        if is_new {
            info!(voter = %from, "a voter begins with an empty disk");
            let mut node = self.quorum.node.borrow_mut();
            if let Some(progress) = node.raft.mut_prs().get_mut(raft_id(from)) {
                progress.snapshot_failure();
                progress.matched = 0;
                progress.become_probe();
            }
        }
        self.quorum.askers.borrow_mut().insert(from);
    }

    /// Tells the askers how far this voter is, on stable storage.
    fn answer_askers(&self) {
        let askers = std::mem::take(&mut *self.quorum.askers.borrow_mut());
        for asker in askers {
            let answer = {
                let node = self.quorum.node.borrow();
                let last = node.store().last();
                Answer { term: node.store().hard_state().term, last: (last.term, last.index) }
            };
            self.quorum.send(asker, &Packet::Answer(answer));
        }
    }

    async fn answered(&mut self, from: BrokerId, answer: Answer) -> Result<(), Fatal> {
        let others = self.quorum.seat.others().count();
        let all = self.quorum.stage.borrow_mut().answered(from, answer, others);
        let Some((term, joined)) = all else { return Ok(()) };
        let hard_state = {
            let mut node = self.quorum.node.borrow_mut();
            if term > node.raft.term {
                node.raft.become_follower(term, ::raft::INVALID_ID);
                // For whom its earlier disk has voted nobody knows: so for nobody else any more.
                node.raft.vote = raft_id(self.quorum.seat.me);
            }
            node.raft.hard_state()
        };
        self.joined = Some(joined);
        let addition = Addition { joined: Some(joined), hard_state: Some(hard_state), ..Addition::default() };
        self.add(&addition).await?;
        let last = self.quorum.node.borrow().store().last();
        let stage = Stage::of(self.joined, last);
        info!(term, ?stage, "all other voters have been heard");
        *self.quorum.stage.borrow_mut() = stage;
        Ok(())
    }

    async fn add(&mut self, addition: &Addition<'_>) -> Result<(), Fatal> {
        let written = self.log.append(addition).await;
        written.map_err(|error| Fatal(format!("{} cannot be written: {error}", self.log.path().display())))
    }

    fn step(&mut self, from: BrokerId, message: Message) -> Result<(), Fatal> {
        if !self.may_step(message.get_msg_type()) {
            return Ok(());
        }
        let checked = door::check(&self.quorum.node.borrow(), &message);
        match checked {
            Ok(())
                if message.get_msg_type() == MessageType::MsgSnapshot && self.quorum.fetch_snapshot(from, &message) => {
            }
            Ok(()) => self.step_checked(message),
            Err(Refused::Malformed(error)) => warn!(%from, %error, "a message of another voter is refused"),
            Err(Refused::LostEntries { commit, last }) => {
                return Err(Fatal(format!(
                    "the quorum's log ends at entry {last}, and this voter has acknowledged entries up to {commit}: its disk has lost some"
                )));
            }
        }
        Ok(())
    }

    fn may_step(&self, kind: MessageType) -> bool {
        match &*self.quorum.stage.borrow() {
            Stage::Asks(_) => false,
            Stage::Follows(_) => {
                matches!(kind, MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot)
            }
            Stage::Votes => true,
        }
    }

    fn step_checked(&mut self, message: Message) {
        // Raft has no use for some, and says so.
        let _ = self.quorum.node.borrow_mut().step(message);
        self.settle();
    }

    fn tick(&mut self) {
        self.ticks += 1;
        let quorum = self.quorum.clone();
        match &*quorum.stage.borrow() {
            Stage::Asks(answers) => {
                if self.ticks % QUESTION_TICKS == 1 {
                    let missing = quorum.seat.others().filter(|other| !answers.contains_key(other));
                    missing.for_each(|other| quorum.send(other, &Packet::Question));
                }
                return;
            }
            Stage::Follows(_) => {}
            Stage::Votes => self.tick_raft(),
        }
        quorum.tick_snapshots();
        self.settle();
    }

    fn tick_raft(&mut self) {
        let mut node = self.quorum.node.borrow_mut();
        let was_leader = node.raft.state == StateRole::Leader;
        if node.tick() && !was_leader {
            self.elections += 1;
        }
    }

    /// Raft draws its timeouts from the thread's randomness; here all of it comes from one place, so that a seed replays it.
    fn settle(&mut self) {
        let mut node = self.quorum.node.borrow_mut();
        let raft = &node.raft;
        let draw: Draw = (raft.term, raft.state, raft.leader_id, self.elections);
        let timeout = match self.drawn {
            Some((drawn, timeout)) if drawn == draw => timeout,
            Some(_) | None => {
                let most = self.quorum.seat.settings.election_ticks;
                most + (self.quorum.io.rand.next_u64() % most as u64) as usize
            }
        };
        self.drawn = Some((draw, timeout));
        node.raft.set_randomized_election_timeout(timeout);
    }

    fn give_leadership_away(&mut self) {
        let mut node = self.quorum.node.borrow_mut();
        if node.raft.state != StateRole::Leader {
            return;
        }
        let me = node.raft.id;
        let others = node.raft.prs().iter().filter(|(id, progress)| **id != me && progress.recent_active);
        if let Some((to, _)) = others.max_by_key(|(id, progress)| (progress.matched, **id)) {
            let to = *to;
            node.transfer_leader(to);
        }
    }

    /// Sends, writes, and sends what had to wait for that; then raft goes on.
    async fn handle_ready(&mut self) -> Result<(), Fatal> {
        let mut ready = self.quorum.node.borrow_mut().ready();
        // Only a leader has some: its followers write while it writes.
        self.quorum.send_messages(ready.take_messages());
        let mut committed = ready.take_committed_entries();
        self.write(&ready).await?;
        self.quorum.send_messages(ready.take_persisted_messages());
        let mut light = {
            let mut node = self.quorum.node.borrow_mut();
            let snapshot = ready.snapshot().get_metadata().index;
            let mut light = node.advance_append(ready);
            if snapshot > 0 {
                // Only now: raft has heard that it is durable.
                node.advance_apply_to(snapshot);
            }
            if let Some(commit) = light.commit_index() {
                node.mut_store().set_commit(commit);
            }
            committed.extend(light.take_committed_entries());
            light
        };
        self.quorum.send_messages(light.take_messages());
        self.settle();
        if let Some(last) = committed.last() {
            self.quorum.committed.set(last.index);
            self.quorum.progress.notify_all();
        }
        Ok(())
    }

    /// Makes durable what raft wants to count on, and then lets it read that.
    async fn write(&mut self, ready: &Ready) -> Result<(), Fatal> {
        let quorum = self.quorum.clone();
        let mut base = None;
        if !ready.snapshot().is_empty() {
            let mark =
                Mark { term: ready.snapshot().get_metadata().term, index: ready.snapshot().get_metadata().index };
            base = Some(quorum.install(mark).await.map_err(Fatal)?);
        }
        let hard_state = ready.hs().cloned();
        // That more is committed the leader says again.
        if ready.must_sync() || base.is_some() {
            let mut current = self.hard_state(hard_state.as_ref());
            current.commit = current.commit.max(base.map_or(0, |base| base.mark.index));
            let addition = Addition { base, entries: ready.entries(), hard_state: Some(current), joined: None };
            self.add(&addition).await?;
        }
        let mut node = quorum.node.borrow_mut();
        let store = node.mut_store();
        if let Some(base) = base {
            store.replace(base);
            quorum.committed.set(base.mark.index);
        }
        store.append(ready.entries());
        if let Some(hard_state) = hard_state {
            store.set_hard_state(hard_state);
        }
        drop(node);
        if base.is_some() {
            quorum.installed();
        }
        Ok(())
    }

    fn hard_state(&self, ready: Option<&HardState>) -> HardState {
        ready.cloned().unwrap_or_else(|| self.quorum.node.borrow().store().hard_state().clone())
    }

    fn advance_stage(&self) {
        let last = self.quorum.node.borrow().store().last();
        let mut stage = self.quorum.stage.borrow_mut();
        if let Stage::Follows(joined) = &*stage
            && joined.0 <= last
        {
            info!(?last, "this voter is as far as the others were, and votes");
            *stage = Stage::Votes;
        }
    }

    /// Writes the log anew without what snapshots have made superfluous.
    async fn compact(&mut self) -> Result<(), Fatal> {
        let upto = self.quorum.compact_to.take();
        let is_long = self.log.bytes() > LOG_BYTES.max(2 * self.rewritten_bytes);
        if upto.is_none() && !is_long {
            return Ok(());
        }
        let rewritten = {
            let node = self.quorum.node.borrow();
            let store = node.store();
            let base = upto.and_then(|end| store.ending_at(end, self.quorum.told.applied.get()));
            let base = base.unwrap_or(store.base());
            if !is_long && base.mark.index <= store.base().mark.index {
                return Ok(());
            }
            let entries = store.from(base.mark.index + 1).map(|(entry, _)| entry.clone()).collect();
            Rewritten { base, entries, hard_state: store.hard_state().clone() }
        };
        let written = self.log.rewrite(&rewritten, self.joined).await;
        written.map_err(|error| Fatal(format!("{} cannot be written anew: {error}", self.log.path().display())))?;
        self.rewritten_bytes = self.log.bytes();
        self.quorum.node.borrow_mut().mut_store().compact(rewritten.base);
        debug!(entry = rewritten.base.mark.index, "the quorum's log was written anew");
        Ok(())
    }

    fn tell_status(&self) {
        let quorum = &self.quorum;
        let status = status_of(&quorum.node.borrow(), quorum.seat.me);
        let before = quorum.status.replace(status);
        if before == status {
            return;
        }
        if before.leader != status.leader {
            match status.leader {
                Some((leader, epoch)) => info!(%leader, %epoch, "the metadata quorum has a leader"),
                None => info!("the metadata quorum has no leader that is known here"),
            }
            quorum.leader_changed.notify_all();
        }
        quorum.progress.notify_all();
    }
}

fn status_of(node: &RawNode<Store>, me: BrokerId) -> Status {
    let raft = &node.raft;
    let epoch = epoch_of(raft.term);
    let leads = raft.state == StateRole::Leader && raft.leader_id == raft_id(me) && raft.lead_transferee.is_none();
    Status { leader: broker_of(raft.leader_id).map(|leader| (leader, epoch)), leads: leads.then_some(epoch) }
}

impl RaftQuorum {
    fn send_messages(&self, messages: Vec<Message>) {
        for message in messages {
            let Some(to) = broker_of(message.to) else { continue };
            match message.get_msg_type() {
                MessageType::MsgSnapshot => self.sends_snapshot(to),
                // What a follower is asked to pass on has no place to go to: proposals are made where the leader is.
                kind if super::wire::kind(kind).is_none() => {
                    error!(?kind, "raft wants to send what does not cross the network");
                    continue;
                }
                _ => {}
            }
            self.send(to, &Packet::Raft(message));
        }
    }
}
