//! The controller's driver: one change at a time is decided, committed, applied on every core, and then answered.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use tracing::error;

use crate::{
    base::{ErrorCode, PartitionKey},
    controller::{Controller, asks::Decision, new_leader_epoch},
    io::channel::{Semaphore, oneshot},
    metadata::Change,
    quorum::Quorum,
    shard::{
        call::{AnyAnswer, AnyControlAsk, Call, Delta},
        core::Core,
    },
};

/// New leader epochs are written so many at a time: 160 KiB of records, one write.
const LEADER_EPOCHS_A_BATCH: usize = 4096;

/// Lives on the controller's core.
pub(super) struct Control {
    quorum: Quorum,
    /// Ahead of the cores' images by what is being committed.
    controller: RefCell<Controller>,
    turn: Semaphore,
}

impl Control {
    pub(super) fn new(quorum: Quorum, controller: Controller) -> Rc<Self> {
        Rc::new(Self { quorum, controller: RefCell::new(controller), turn: Semaphore::new(1) })
    }
}

impl Core {
    /// Asks the controller. Only on its core.
    ///
    /// # Errors
    /// What the question is refused with, or why what was decided is not durable.
    pub(super) async fn control_here(self: &Rc<Self>, ask: Box<dyn AnyControlAsk>) -> Result<AnyAnswer, ErrorCode> {
        let control = self.control.borrow().clone().ok_or(ErrorCode::NotController)?;
        // A task of its own: whoever asks may go away, and a change must not end half-way, durable and not applied.
        let (answer, receiver) = oneshot();
        let this = self.clone();
        self.io.spawner.spawn(async move {
            let decide = |controller: &mut Controller| ask.decide_any(controller, &mut || this.io.rand.uuid());
            let _ = answer.send(this.change(&control, decide).await);
        });
        receiver.await.unwrap_or(Err(ErrorCode::NotController))
    }

    /// Decides, commits, applies on every core.
    ///
    /// # Errors
    /// What the decision is refused with, or why it is not durable.
    pub(super) async fn change<Answer>(
        self: &Rc<Self>,
        control: &Rc<Control>,
        decide: impl FnOnce(&mut Controller) -> Result<Decision<Answer>, ErrorCode>,
    ) -> Result<Answer, ErrorCode> {
        let _turn = control.turn.acquire(1).await;
        let (records, answer) = decide(&mut control.controller.borrow_mut())?;
        if records.is_empty() {
            return Ok(answer);
        }
        let last_offset = match control.quorum.commit(&records).await {
            Ok(last_offset) => last_offset,
            Err(error) => {
                error!(?error, "metadata could not be committed");
                // The controller has already counted on the records: it is made again from what is durable.
                let image = self.image.borrow().as_ref().clone();
                control.controller.replace(Controller::new(self.statics.as_ref().clone(), image));
                return Err(error);
            }
        };
        let mut change = Change::of(&self.image.borrow());
        // Nothing else was decided since: the turn is ours.
        change.apply(&records).expect("what was decided fits the image that it was decided against");
        let (image, touched) = change.finish();
        self.publish(Delta { image, touched, last_offset }).await;
        if control.quorum.wants_snapshot() {
            let records = self.image.borrow().snapshot();
            control.quorum.snapshot(&records).await;
        }
        Ok(answer)
    }

    /// Makes it durable that these partitions, which this broker leads, have begun a new leader epoch. Every image has it
    /// already; until this is done nothing may be served.
    ///
    /// # Errors
    /// What the metadata log answers. Some may have begun it for good: the next start raises them once more.
    pub(super) async fn commit_leader_epochs(&self, control: &Control, keys: &[PartitionKey]) -> Result<(), ErrorCode> {
        let _turn = control.turn.acquire(1).await;
        for keys in keys.chunks(LEADER_EPOCHS_A_BATCH) {
            let records: Vec<_> = keys.iter().map(|key| new_leader_epoch(*key, self.broker.id)).collect();
            control.quorum.commit(&records).await?;
        }
        Ok(())
    }

    async fn publish(self: &Rc<Self>, delta: Delta) {
        let delta = Arc::new(delta);
        let mut answers = Vec::new();
        for core in (0..self.mesh.cores()).filter(|core| *core != self.index()) {
            answers.push(self.call(core, Call::Apply(delta.clone())).await.1);
        }
        self.apply(&delta).await;
        for answer in answers {
            answer.await;
        }
    }
}
