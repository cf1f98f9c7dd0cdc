//! Answers that wait until what they depend on is durable.

use std::rc::Rc;

use crate::{
    base::ErrorCode,
    coordinator::{Coordinator, RELOAD_AFTER},
    group::GroupAnswer,
    io::channel::OneshotReceiver,
    replica::Appended,
};

pub(super) struct Held {
    pub term: u64,
    pub appends: Vec<OneshotReceiver<Appended>>,
    pub answers: Vec<(u64, GroupAnswer)>,
}

impl Coordinator {
    /// Sends what may go. Answers without records go at once if nothing is before them.
    pub(super) fn release_some(self: &Rc<Self>) {
        if self.releasing.get() {
            return;
        }
        loop {
            let next = {
                let mut held = self.held.borrow_mut();
                match held.front() {
                    Some(first) if first.appends.is_empty() => held.pop_front(),
                    Some(_) | None => None,
                }
            };
            let Some(next) = next else { break };
            self.send(next.answers);
        }
        if !self.held.borrow().is_empty() {
            self.releasing.set(true);
            self.io.spawner.spawn(self.clone().release());
        }
    }

    async fn release(self: Rc<Self>) {
        loop {
            let Some(next) = self.held.borrow_mut().pop_front() else { break };
            for append in next.appends {
                let appended = append.await.unwrap_or(Err(ErrorCode::KafkaStorageError));
                if let (Err(error), true) = (appended, next.term == self.term.get()) {
                    self.fail(error);
                }
            }
            if next.term == self.term.get() {
                self.send(next.answers);
            }
        }
        self.releasing.set(false);
        // Only now: what the lost machine had appended behind the failure is in the log by now, or never will be.
        if self.reload.take() {
            self.io.clock.sleep(RELOAD_AFTER).await;
            while self.rewriting.get() {
                self.io.clock.sleep(RELOAD_AFTER).await;
            }
            self.load_until_it_works().await;
        }
    }

    fn send(&self, answers: Vec<(u64, GroupAnswer)>) {
        for (token, answer) in answers {
            let asker = self.tokens.borrow_mut().remove(&token);
            if let Some(asker) = asker {
                let _ = asker.send(Ok(answer));
            }
        }
    }
}
