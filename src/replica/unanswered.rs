//! Appends that are in memory and wait for what they promise.

use std::collections::VecDeque;

use crate::{
    base::{ErrorCode, Offset},
    io::channel::OneshotSender,
    replica::{Appended, Produced},
};

/// What an append waits for before it is answered, by `acks`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// 0 and 1: it is on the leader's stable storage. Whoever asked for 0 hears nothing, but is told of a failure.
    Leader,
    /// -1: it is on the stable storage of every in-sync replica.
    All,
}

/// Appends in the order of the offsets at which each ends.
#[derive(Default)]
pub(super) struct Unanswered(VecDeque<Append>);

struct Append {
    end: Offset,
    produced: Produced,
    answer: OneshotSender<Appended>,
}

impl Unanswered {
    /// An append is answered once everything below `end` counts. Mostly that is the last one; duplicates come earlier.
    pub fn push(&mut self, end: Offset, produced: Produced, answer: OneshotSender<Appended>) {
        let place = self.0.iter().rposition(|other| other.end <= end).map_or(0, |index| index + 1);
        self.0.insert(place, Append { end, produced, answer });
    }

    /// Answers what ends at or before `end`.
    pub fn answer_until(&mut self, end: Offset) {
        while self.0.front().is_some_and(|first| first.end <= end) {
            let Some(Append { produced, answer, .. }) = self.0.pop_front() else { return };
            let _ = answer.send(Ok(produced));
        }
    }

    /// Answers everything with an error.
    pub fn refuse_all(&mut self, error: ErrorCode) {
        for append in self.0.drain(..) {
            let _ = append.answer.send(Err(error));
        }
    }
}
