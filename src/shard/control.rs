//! The controller's driver: one change at a time is decided, committed, applied on every core, and then answered.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use tracing::error;

use crate::{
    base::{ErrorCode, TopicId},
    controller::{Controller, PRODUCER_ID_BLOCK},
    coordinator::OFFSETS_TOPIC,
    io::channel::{Semaphore, oneshot},
    protocol::metadata_records::MetadataRecord,
    quorum::Quorum,
    shard::{
        call::{Call, ControlAnswer, ControlRequest, Delta},
        core::Core,
    },
};

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
        if let Err(error) = control.quorum.commit(&records).await {
            error!(?error, "metadata could not be committed");
            // The controller has already counted on the records: it is made again from what is durable.
            let image = self.image.borrow().as_ref().clone();
            control.controller.replace(Controller::new(self.statics.as_ref().clone(), image));
            return ControlAnswer::Refused(error);
        }
        // Nothing else was decided since: the turn is ours.
        let image = control.controller.borrow().image().clone();
        self.publish(Delta { image, records }).await;
        if control.quorum.wants_snapshot() {
            let records = self.image.borrow().snapshot();
            control.quorum.snapshot(&records).await;
        }
        answer
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
