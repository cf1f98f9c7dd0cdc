//! Answers and actions that wait until what they depend on is durable.

use std::rc::Rc;

use crate::{
    base::ErrorCode,
    coordinator::{
        Coordinator, RELOAD_AFTER,
        machine::{EffectsOf, StateMachine},
    },
    io::channel::OneshotReceiver,
    replica::Appended,
};

/// Records on their way to the log.
#[derive(Default)]
pub(super) struct Appends {
    pub pending: Vec<OneshotReceiver<Appended>>,
    /// What they add to the log, in batches.
    pub bytes: u64,
}

/// A decision whose records are on their way to the disk.
pub(super) struct Held<M: StateMachine> {
    term: u64,
    appends: Appends,
    answers: Vec<(u64, M::Answer)>,
    actions: Vec<M::Action>,
}

impl<M: StateMachine> Coordinator<M> {
    /// Lets a decision take effect once its records, and those of all decisions before it, are durable.
    pub(super) fn hold(self: &Rc<Self>, effects: EffectsOf<M>, appends: Appends) {
        let (answers, actions) = (effects.answers, effects.actions);
        if appends.pending.is_empty() && answers.is_empty() && actions.is_empty() {
            return;
        }
        self.held.borrow_mut().push_back(Held { term: self.term.get(), appends, answers, actions });
        self.release_some();
    }

    /// Lets go what may. A decision without records goes at once if nothing is before it.
    fn release_some(self: &Rc<Self>) {
        if self.releasing.get() {
            return;
        }
        loop {
            let next = {
                let mut held = self.held.borrow_mut();
                match held.front() {
                    Some(first) if first.appends.pending.is_empty() => held.pop_front(),
                    Some(_) | None => None,
                }
            };
            let Some(next) = next else { break };
            self.take_effect(next.answers, next.actions);
        }
        if !self.held.borrow().is_empty() {
            self.releasing.set(true);
            self.io.spawner.spawn(self.clone().release());
        }
    }

    async fn release(self: Rc<Self>) {
        loop {
            let Some(next) = self.held.borrow_mut().pop_front() else { break };
            for append in next.appends.pending {
                let appended = append.await.unwrap_or(Err(ErrorCode::KafkaStorageError));
                if let (Err(error), true) = (appended, next.term == self.term.get()) {
                    self.fail(error);
                    self.load_later(RELOAD_AFTER);
                }
            }
            if next.term == self.term.get() {
                self.log_bytes.set(self.log_bytes.get() + next.appends.bytes);
                self.take_effect(next.answers, next.actions);
            }
        }
        self.releasing.set(false);
        self.rewrite_if_long();
        self.changed.notify_all();
    }

    fn take_effect(self: &Rc<Self>, answers: Vec<(u64, M::Answer)>, actions: Vec<M::Action>) {
        for (token, answer) in answers {
            let asker = self.askers.borrow_mut().remove(&token);
            if let Some(asker) = asker {
                let _ = asker.send(Ok(answer));
            }
        }
        for action in actions {
            self.io.spawner.spawn(self.clone().act(action, self.term.get()));
        }
    }

    /// Has an action done, and tells the machine what it came to. Once the machine is gone, nothing more is done of it.
    async fn act(self: Rc<Self>, action: M::Action, term: u64) {
        let over = async {
            loop {
                let changed = self.changed.notified();
                if self.term.get() != term {
                    return None;
                }
                changed.await;
            }
        };
        let done = (self.actor)(action);
        let outcome = futures_lite::future::or(over, async { Some(done.await) }).await;
        if let Some(request) = outcome {
            self.tell(request);
        }
    }
}
