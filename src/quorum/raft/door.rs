//! What of another voter's messages may reach raft. Raft counts on its peers to be sound and panics where they are not; here
//! they are held against what is known first.

use ::raft::{
    RawNode, StateRole,
    eraftpb::{Message, MessageType},
};

use super::{store::Store, wire::Malformed};

/// Why a message does not reach raft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No voter would send it.
    Malformed(Malformed),
    /// The leader counts on entries that this voter has acknowledged and does not have: its disk has lost them. It must not
    /// vote as if it had never had them.
    LostEntries {
        /// What the leader says is committed here.
        commit: u64,
        /// Where this log ends.
        last: u64,
    },
}

fn malformed(what: &'static str) -> Result<(), Refused> {
    Err(Refused::Malformed(Malformed::Field(what)))
}

/// Holds a message against this voter's log.
/// # Errors  Why it must not be given to raft.
pub fn check(node: &RawNode<Store>, message: &Message) -> Result<(), Refused> {
    let raft = &node.raft;
    let log = &raft.raft_log;
    let last = log.last_index();
    // Of an earlier term nothing is taken, and those of a later one end this one's leadership first.
    if message.term < raft.term {
        return Ok(());
    }
    let is_leader = raft.state == StateRole::Leader && message.term == raft.term;
    match message.get_msg_type() {
        MessageType::MsgHeartbeat if is_leader => malformed("a second leader of our term"),
        MessageType::MsgAppend | MessageType::MsgSnapshot if is_leader => malformed("a second leader of our term"),
        MessageType::MsgHeartbeat if message.commit > last => {
            Err(Refused::LostEntries { commit: message.commit, last })
        }
        MessageType::MsgSnapshot => {
            let metadata = message.get_snapshot().get_metadata();
            let differs = metadata.index == log.committed && !log.match_term(metadata.index, metadata.term);
            if differs { malformed("a snapshot of another log") } else { Ok(()) }
        }
        MessageType::MsgAppend => check_append(node, message),
        MessageType::MsgAppendResponse if is_leader => {
            let known = if message.reject { message.reject_hint } else { message.index };
            if known > last { malformed("entries acknowledged that were never sent") } else { Ok(()) }
        }
        _ => Ok(()),
    }
}

fn check_append(node: &RawNode<Store>, message: &Message) -> Result<(), Refused> {
    let log = &node.raft.raft_log;
    let committed = log.committed;
    if message.index < committed {
        // Raft answers with what is committed and looks at nothing else.
        return Ok(());
    }
    // A leader has everything that is committed: the entry before its first is of that term at least.
    let term = log.term(committed).unwrap_or_default();
    if message.log_term < term || (message.index == committed && message.log_term != term) {
        return malformed("a leader without what is committed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ::raft::{
        Config,
        eraftpb::{Entry, HardState},
    };
    use slog::{Discard, Logger, o};

    use super::*;
    use crate::{
        base::Offset,
        io::sim::Simulation,
        quorum::raft::{
            entry,
            store::Base,
            wire::{self, Mark},
        },
    };

    const ME: u64 = 1;

    fn node(base: u64, entries: u64) -> RawNode<Store> {
        let mut store = Store::new(vec![1, 2, 3]);
        let mark = Mark { term: 2, index: base };
        store.replace(Base { mark, end_offset: Offset(base as i64) });
        for index in base + 1..=base + entries {
            let data = entry::tests::data(1).into();
            store.append(&[Entry { index, term: 2 + (index - base) / 4, data, ..Entry::default() }]);
        }
        store.set_hard_state(HardState { term: 4, vote: 0, commit: base + entries / 2, ..HardState::default() });
        let config = Config { id: ME, applied: base, check_quorum: true, pre_vote: true, ..Config::default() };
        RawNode::new(&config, store, &Logger::root(Discard, o!())).expect("sound")
    }

    fn drain(node: &mut RawNode<Store>) {
        while node.has_ready() {
            let ready = node.ready();
            let metadata = ready.snapshot().get_metadata();
            let snapshot = metadata.index;
            if snapshot > 0 {
                let mark = Mark { term: metadata.term, index: metadata.index };
                node.mut_store().replace(Base { mark, end_offset: Offset(0) });
            }
            node.mut_store().append(ready.entries());
            if let Some(hard_state) = ready.hs() {
                node.mut_store().set_hard_state(hard_state.clone());
            }
            let light = node.advance_append(ready);
            if let Some(commit) = light.commit_index() {
                node.mut_store().set_commit(commit);
            }
            node.advance_apply();
        }
    }

    /// Whatever another voter says that can be said at all, raft does not panic.
    #[test]
    fn no_message_makes_raft_panic() {
        let rand = Simulation::new(5).io(0, 0).rand;
        let (mut refused, mut led) = (0, 0);
        for round in 0..400 {
            let mut node = node(rand.below(2) * 10, rand.below(12));
            for _ in 0..80 {
                if rand.below(6) == 0 && node.raft.state != StateRole::Leader {
                    node.raft.campaign(if rand.below(2) == 0 { b"CampaignElection" } else { b"CampaignPreElection" });
                    drain(&mut node);
                }
                let last = node.raft.raft_log.last_index();
                let mut message = Message::default();
                message.set_msg_type(wire::kinds()[rand.below(10) as usize]);
                (message.from, message.to) = (2 + rand.below(2), ME);
                message.term = (node.raft.term + rand.below(4)).saturating_sub(1).max(1);
                message.log_term = rand.below(message.term + 2);
                message.index = (last + rand.below(6)).saturating_sub(rand.below(8));
                message.commit = (last + rand.below(4)).saturating_sub(rand.below(6));
                message.commit_term = rand.below(message.term + 1);
                message.reject_hint = (last + rand.below(4)).saturating_sub(rand.below(8));
                message.reject = rand.below(3) == 0;
                if message.get_msg_type() == MessageType::MsgSnapshot {
                    let mark = Mark { term: rand.below(message.term + 1), index: message.index };
                    message.set_snapshot(wire::snapshot(mark, 0));
                    message.mut_snapshot().mut_metadata().set_conf_state(node.store().conf_state());
                }
                if message.get_msg_type() == MessageType::MsgAppend {
                    let mut entries = Vec::new();
                    let mut term = message.log_term.max(1);
                    for place in 1..=rand.below(4) {
                        term += rand.below(2);
                        let data = entry::tests::data(1).into();
                        entries.push(Entry { index: message.index + place, term, data, ..Entry::default() });
                    }
                    message.set_entries(entries.into());
                }
                // The wire refuses some, the door others.
                let head = wire::Head { quorum: 0, from_disk: 1, to_disk: 1 };
                let packet = wire::encode(&head, &wire::Packet::Raft(message.clone()));
                if wire::decode(&packet, 0).is_err() || check(&node, &message).is_err() {
                    refused += 1;
                    continue;
                }
                let _ = node.step(message);
                drain(&mut node);
                led += u64::from(node.raft.state == StateRole::Leader);
                if rand.below(4) == 0 {
                    node.tick();
                    drain(&mut node);
                }
            }
            assert!(node.raft.raft_log.committed <= node.raft.raft_log.last_index(), "round {round}");
        }
        assert!(refused > 1000 && led > 200, "{refused} refused, {led} times a leader");
    }

    #[test]
    fn what_only_a_disk_that_forgets_can_cause_is_told() {
        let node = node(10, 4);
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgHeartbeat);
        (message.from, message.to, message.term, message.commit) = (2, ME, 4, 15);
        assert_eq!(check(&node, &message), Err(Refused::LostEntries { commit: 15, last: 14 }));
        message.commit = 14;
        assert_eq!(check(&node, &message), Ok(()));
    }
}
