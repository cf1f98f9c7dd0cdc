//! What other cores ask of this one.
//!
//! The inbox never waits for a message to leave: whatever takes time is a task of its own.

use std::rc::Rc;

use crate::{
    base::ErrorCode,
    io::channel::Notify,
    shard::{
        call::{Answer, Call, Message},
        core::Core,
    },
};

impl Core {
    /// Serves other cores until the mesh closes.
    pub(super) async fn serve_inbox(self: Rc<Self>) {
        loop {
            match self.mesh.recv().await {
                Message::Call { from, id, call } => self.serve(from, id, call),
                Message::Answer { id, answer } => self.answered(id, answer),
                Message::EndWait { from, id } => {
                    let parked = self.parked.borrow().get(&(from, id)).cloned();
                    if let Some(parked) = parked {
                        parked.notify_all();
                    }
                }
            }
        }
    }

    fn serve(self: &Rc<Self>, from: usize, id: u64, call: Call) {
        let this = self.clone();
        match call {
            Call::Produce(parts) => {
                // Appending here, not in the task, keeps the order in which the calls arrived.
                let pending: Vec<_> = parts.into_iter().map(|part| self.append(part)).collect();
                self.io.spawner.spawn(async move {
                    let mut answers = Vec::with_capacity(pending.len());
                    for answer in pending {
                        answers.push(answer.await.unwrap_or(Err(ErrorCode::KafkaStorageError)));
                    }
                    this.reply(from, id, Answer::Produce(answers)).await;
                });
            }
            Call::Fetch(call) => {
                let end_wait = Notify::new();
                let wait_ended = end_wait.notified();
                self.parked.borrow_mut().insert((from, id), end_wait);
                self.io.spawner.spawn(async move {
                    let fetched = this.fetch_here(&call, wait_ended).await;
                    this.parked.borrow_mut().remove(&(from, id));
                    this.reply(from, id, Answer::Fetch(fetched)).await;
                });
            }
            Call::Offsets(call) => self.io.spawner.spawn(async move {
                let answers = this.offsets_here(call).await;
                this.reply(from, id, Answer::Offsets(answers)).await;
            }),
            Call::Group(partition, request) => self.io.spawner.spawn(async move {
                let answer = this.group_here(partition, *request).await;
                this.reply(from, id, Answer::Group(Box::new(answer))).await;
            }),
            Call::Control(ask) => self.io.spawner.spawn(async move {
                let answer = this.control_here(ask).await;
                this.reply(from, id, Answer::Control(answer)).await;
            }),
            Call::Apply(delta) => self.io.spawner.spawn(async move {
                this.apply(&delta).await;
                this.reply(from, id, Answer::Applied).await;
            }),
            Call::LogSizes(keys) => self.io.spawner.spawn(async move {
                let sizes = this.log_sizes_here(keys.as_deref());
                this.reply(from, id, Answer::LogSizes(sizes)).await;
            }),
            Call::Producers(key) => self.io.spawner.spawn(async move {
                let found = this.producers_here(key);
                this.reply(from, id, Answer::Producers(found)).await;
            }),
            Call::InSync(changes) => self.io.spawner.spawn(async move {
                let answers = this.ask_in_sync_here(&changes).await;
                this.reply(from, id, Answer::InSync(answers)).await;
            }),
            Call::Metrics => self.io.spawner.spawn(async move {
                let counted = Box::new(this.metrics_here());
                this.reply(from, id, Answer::Metrics(counted)).await;
            }),
        }
    }

    async fn reply(&self, core: usize, id: u64, answer: Answer) {
        self.mesh.send(core, Message::Answer { id, answer }).await;
    }
}
