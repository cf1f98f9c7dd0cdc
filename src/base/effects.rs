//! What state machines and whoever drives them say to each other.

use bytes::Bytes;

/// The bytes of a record's key, and of its value unless it is a tombstone.
pub type RawRecord = (Bytes, Option<Bytes>);

/// What follows from a request to a state machine, or from time. The machine has already taken the records in.
#[derive(Clone, Debug)]
pub struct Effects<Answer, Action> {
    /// To append in this order; several batches will do.
    pub records: Vec<RawRecord>,
    /// To send, by token, once every record so far is durable.
    pub answers: Vec<(u64, Answer)>,
    /// To do once every record so far is durable. What comes of it is the machine's next request. Whoever loads the machine
    /// again before that gets the action once more from what was replayed.
    pub actions: Vec<Action>,
    /// Something was refused for want of memory.
    pub full: bool,
}

// Derived, it would ask for defaults of answers and actions.
impl<Answer, Action> Default for Effects<Answer, Action> {
    fn default() -> Self {
        Self { records: Vec::new(), answers: Vec::new(), actions: Vec::new(), full: false }
    }
}

impl<Answer, Action> Effects<Answer, Action> {
    /// Puts what followed later behind.
    pub fn append(&mut self, later: Self) {
        let Self { records, answers, actions, full } = later;
        self.records.extend(records);
        self.answers.extend(answers);
        self.actions.extend(actions);
        self.full |= full;
    }
}
