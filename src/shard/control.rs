//! The controller's driver: one change at a time is decided, committed, applied on every core, and then answered.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use tracing::error;

use crate::{
    base::{ErrorCode, PartitionKey, TopicId},
    controller::{Controller, PRODUCER_ID_BLOCK, new_leader_epoch},
    coordinator::OFFSETS_TOPIC,
    io::channel::{Semaphore, oneshot},
    protocol::metadata_records::MetadataRecord,
    quorum::Quorum,
    shard::{
        call::{Call, ControlAnswer, ControlRequest, Delta},
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

type Decision = (Vec<MetadataRecord>, ControlAnswer);

impl Control {
    pub(super) fn new(quorum: Quorum, controller: Controller) -> Rc<Self> {
        Rc::new(Self { quorum, controller: RefCell::new(controller), turn: Semaphore::new(1) })
    }
}

impl Core {
    /// Changes the metadata. Only on the controller's core.
    pub(super) async fn control_here(self: &Rc<Self>, request: ControlRequest) -> ControlAnswer {
        let Some(control) = self.control.borrow().clone() else {
            return ControlAnswer::Refused(ErrorCode::NotController);
        };
        // A task of its own: whoever asks may go away, and a change must not end half-way, durable and not applied.
        let (answer, receiver) = oneshot();
        let this = self.clone();
        self.io.spawner.spawn(async move {
            let _ = answer.send(this.change(&control, |controller| this.decide(controller, &request)).await);
        });
        receiver.await.unwrap_or(ControlAnswer::Refused(ErrorCode::NotController))
    }

    /// Decides, commits, applies on every core.
    pub(super) async fn change(
        self: &Rc<Self>,
        control: &Rc<Control>,
        decide: impl FnOnce(&mut Controller) -> Decision,
    ) -> ControlAnswer {
        let _turn = control.turn.acquire(1).await;
        let (records, answer) = decide(&mut control.controller.borrow_mut());
        if records.is_empty() {
            return answer;
        }
        let last_offset = match control.quorum.commit(&records).await {
            Ok(last_offset) => last_offset,
            Err(error) => {
                error!(?error, "metadata could not be committed");
                // The controller has already counted on the records: it is made again from what is durable.
                let image = self.image.borrow().as_ref().clone();
                control.controller.replace(Controller::new(self.statics.as_ref().clone(), image));
                return ControlAnswer::Refused(error);
            }
        };
        // Nothing else was decided since: the turn is ours.
        let image = control.controller.borrow().image().clone();
        self.publish(Delta { image, records, last_offset }).await;
        if control.quorum.wants_snapshot() {
            let records = self.image.borrow().snapshot();
            control.quorum.snapshot(&records).await;
        }
        answer
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

    fn decide(&self, controller: &mut Controller, request: &ControlRequest) -> Decision {
        let mut random = || self.io.rand.uuid();
        match request {
            ControlRequest::CreateTopics(request) => {
                let (records, answer) = controller.create_topics(request, &mut random);
                (records, ControlAnswer::CreateTopics(answer))
            }
            ControlRequest::DeleteTopics(request, version) => {
                let (records, answer) = controller.delete_topics(request, *version);
                (records, ControlAnswer::DeleteTopics(answer))
            }
            ControlRequest::CreatePartitions(request) => {
                let (records, answer) = controller.create_partitions(request);
                (records, ControlAnswer::CreatePartitions(answer))
            }
            ControlRequest::IncrementalAlterConfigs(request) => {
                let (records, answer) = controller.incremental_alter_configs(request);
                (records, ControlAnswer::IncrementalAlterConfigs(answer))
            }
            ControlRequest::AllocateProducerIds => match controller.allocate_producer_ids() {
                Ok((records, first)) => (records, ControlAnswer::ProducerIds(first, PRODUCER_ID_BLOCK)),
                Err(error) => (Vec::new(), ControlAnswer::Refused(error)),
            },
            ControlRequest::EnsureInternalTopic(name) if name == OFFSETS_TOPIC => {
                created(controller.ensure_offsets_topic(&mut random))
            }
            ControlRequest::EnsureInternalTopic(name) | ControlRequest::AutoCreateTopic(name) => {
                let (records, mut answers) = controller.auto_create(&[name], &mut random);
                created(answers.pop().unwrap_or(Err(ErrorCode::UnknownServerError)).map(|id| (records, id)))
            }
        }
    }
}

fn created(result: Result<(Vec<MetadataRecord>, TopicId), ErrorCode>) -> Decision {
    match result {
        Ok((records, _)) => (records, ControlAnswer::Done),
        Err(error) => (Vec::new(), ControlAnswer::Refused(error)),
    }
}
