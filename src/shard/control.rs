//! The driver of the metadata: what the quorum commits becomes the image of every core, and as long as this broker leads the
//! quorum its controller decides what is proposed, one change at a time.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tracing::{debug, error, info};

use crate::{
    base::{BrokerId, ErrorCode, LeaderEpoch, Offset, PartitionKey},
    controller::{Controller, asks::Decision, new_leader_epoch},
    io::channel::{Notify, OneshotSender, Semaphore, oneshot},
    log::Fatal,
    metadata::{Change, CommittedBatch, Image, Place, Position, StreamError},
    protocol::metadata_records::MetadataRecord,
    quorum::{Event, Quorum},
    shard::{
        call::{AnyAnswer, AnyControlAsk, Call, Delta},
        core::{Core, PARTITIONS_A_TURN},
    },
};

/// New leader epochs are written so many at a time: 160 KiB of records, one write.
const LEADER_EPOCHS_A_BATCH: usize = 4096;

/// Between two looks of the controller at what time alone brings about.
const TICK: Duration = Duration::from_millis(100);

/// Between the quorum and the cores. Lives on the core of the metadata log, as long as the broker does.
pub(super) struct Driver {
    quorum: Box<dyn Quorum>,
    /// Told when the metadata cannot be followed any more.
    fatal: Fatal,
    /// How far the image of this core goes.
    position: Cell<Position>,
    /// There as long as this broker leads the quorum.
    control: RefCell<Option<Control>>,
    gained: Notify,
    /// Of those who want to change something.
    turn: Semaphore,
}

/// Who decides, from one gain of the quorum's leadership to its loss.
struct Control {
    epoch: LeaderEpoch,
    /// Ahead of the cores' images by what is proposed.
    controller: Controller,
    proposal: Option<Proposal>,
}

/// Records that are proposed and not committed yet.
struct Proposal {
    last_offset: Offset,
    outcome: OneshotSender<Result<(), ErrorCode>>,
}

impl Driver {
    /// Follows the quorum from the last offset in the image on.
    pub(super) fn new(quorum: Box<dyn Quorum>, fatal: Fatal, last_offset: Offset) -> Rc<Self> {
        Rc::new(Self {
            quorum,
            fatal,
            position: Cell::new(Position { last_offset, epoch: LeaderEpoch(-1) }),
            control: RefCell::default(),
            gained: Notify::new(),
            turn: Semaphore::new(1),
        })
    }

    /// Waits until this broker leads the quorum.
    pub(super) async fn leads(&self) {
        while self.control.borrow().is_none() {
            self.gained.notified().await;
        }
    }

    /// This broker decides from here on.
    fn gain(&self, epoch: LeaderEpoch, controller: Controller) -> Result<(), StreamError> {
        self.lose(ErrorCode::NotController);
        let Position { last_offset, epoch: reached } = self.position.get();
        if epoch < reached {
            return Err(StreamError::OldEpoch { reached, found: epoch });
        }
        if epoch > reached {
            info!(%epoch, %last_offset, "this broker is the controller");
        }
        self.position.set(Position { last_offset, epoch });
        *self.control.borrow_mut() = Some(Control { epoch, controller, proposal: None });
        self.gained.notify_all();
        Ok(())
    }

    /// This broker decides no more. Whoever waits for what it has proposed is told; those who wait for their turn find nobody.
    fn lose(&self, error: ErrorCode) {
        let Some(Control { epoch, proposal, .. }) = self.control.borrow_mut().take() else { return };
        match proposal {
            Some(proposal) => {
                error!(%epoch, ?error, "metadata could not be committed");
                let _ = proposal.outcome.send(Err(error));
            }
            None => info!(%epoch, "this broker is the controller no more"),
        }
    }

    /// Proposes, and waits until every core has what was proposed. Whoever asks has the turn.
    async fn propose(&self, records: Vec<MetadataRecord>) -> Result<(), ErrorCode> {
        let proposed = match self.control.borrow_mut().as_mut() {
            Some(control) => self.quorum.propose(control.epoch, records).map(|last_offset| {
                let (outcome, receiver) = oneshot();
                control.proposal = Some(Proposal { last_offset, outcome });
                receiver
            }),
            None => Err(ErrorCode::NotController),
        };
        match proposed {
            Ok(outcome) => outcome.await.unwrap_or(Err(ErrorCode::NotController)),
            Err(error) => {
                // The controller has counted on the records already.
                self.lose(error);
                Err(error)
            }
        }
    }

    /// Lets the controller decide, and answers when every core has what was decided.
    /// # Errors  What the decision is refused with, `NotController` without leadership, or what the quorum answers.
    pub(super) async fn change<Answer>(
        &self,
        decide: impl FnOnce(&mut Controller) -> Result<Decision<Answer>, ErrorCode>,
    ) -> Result<Answer, ErrorCode> {
        let _turn = self.turn.acquire(1).await;
        let decided = self.control.borrow_mut().as_mut().map(|control| decide(&mut control.controller));
        let (records, answer) = decided.unwrap_or(Err(ErrorCode::NotController))?;
        if !records.is_empty() {
            self.propose(records).await?;
        }
        Ok(answer)
    }

    /// Writes down that these partitions, which `leader` leads, have begun a new leader epoch. Every image has it already, and
    /// goes as far in the log as these records will; until this is done nothing may be served.
    /// # Errors  What the quorum answers. Some may have begun it for good: the next start raises them once more.
    pub(super) async fn commit_leader_epochs(&self, leader: BrokerId, keys: &[PartitionKey]) -> Result<(), ErrorCode> {
        let _turn = self.turn.acquire(1).await;
        for keys in keys.chunks(LEADER_EPOCHS_A_BATCH) {
            self.propose(keys.iter().map(|key| new_leader_epoch(*key, leader)).collect()).await?;
        }
        Ok(())
    }

    /// Whether a batch that is next may come now.
    fn check_proposed(&self, batch: &CommittedBatch) -> Result<(), StreamError> {
        let Some((epoch, proposed)) = self
            .control
            .borrow()
            .as_ref()
            .map(|control| (control.epoch, control.proposal.as_ref().map(|proposal| proposal.last_offset)))
        else {
            return Ok(());
        };
        if epoch < batch.epoch {
            // The quorum has gone on without us, and the word of it is still under way.
            self.lose(ErrorCode::NotController);
        } else if proposed != Some(batch.last_offset) && !batch.records.is_empty() {
            return Err(StreamError::NotProposed { base_offset: batch.base_offset });
        }
        Ok(())
    }

    /// Answers whoever proposed a batch that every core has now.
    fn settle(&self, batch: &CommittedBatch) {
        let mut control = self.control.borrow_mut();
        let Some(control) = control.as_mut().filter(|control| control.epoch == batch.epoch) else { return };
        if let Some(proposal) = control.proposal.take_if(|proposal| proposal.last_offset <= batch.last_offset) {
            let _ = proposal.outcome.send(Ok(()));
        }
    }
}

impl Core {
    /// Takes what the quorum tells, one after the other, until something of it cannot be: then the process ends.
    pub(super) async fn follow_quorum(self: Rc<Self>, driver: Rc<Driver>) {
        loop {
            let taken = match driver.quorum.next().await {
                Event::Committed(batch) => self.take_committed(&driver, batch).await,
                Event::Gained(epoch) => {
                    let image = self.image.borrow().as_ref().clone();
                    driver.gain(epoch, Controller::new(self.statics.as_ref().clone(), image))
                }
                Event::Replaced { position, records } => self.replace_image(&driver, position, &records).await,
                Event::Lost(error) => {
                    driver.lose(error);
                    Ok(())
                }
            };
            if let Err(error) = taken {
                driver.lose(ErrorCode::NotController);
                (driver.fatal)(error.to_string());
                return;
            }
        }
    }

    async fn take_committed(self: &Rc<Self>, driver: &Driver, batch: CommittedBatch) -> Result<(), StreamError> {
        match driver.position.get().place(&batch)? {
            Place::Next => {
                driver.check_proposed(&batch)?;
                self.apply_committed(driver, &batch).await?;
            }
            Place::Known => debug!(base_offset = %batch.base_offset, "committed metadata that the image has"),
        }
        driver.settle(&batch);
        Ok(())
    }

    /// Goes on from another image than the one that was told.
    async fn replace_image(
        self: &Rc<Self>,
        driver: &Driver,
        position: Position,
        records: &[MetadataRecord],
    ) -> Result<(), StreamError> {
        driver.lose(ErrorCode::NotController);
        let mut change = Change::of(&Image::default());
        for records in records.chunks(PARTITIONS_A_TURN) {
            change.apply(records)?;
            self.io.clock.yield_now().await;
        }
        let (image, touched) = change.instead_of(&self.image.borrow());
        self.publish(Delta { image, touched, last_offset: position.last_offset }).await;
        driver.position.set(position);
        Ok(())
    }

    /// Makes the next image and gives it to every core; then a snapshot is written if it is time for one.
    async fn apply_committed(self: &Rc<Self>, driver: &Driver, batch: &CommittedBatch) -> Result<(), StreamError> {
        let mut change = Change::of(&self.image.borrow());
        for (turn, records) in batch.records.chunks(PARTITIONS_A_TURN).enumerate() {
            if turn > 0 {
                self.io.clock.yield_now().await;
            }
            change.apply(records)?;
        }
        let (image, touched) = change.finish();
        self.publish(Delta { image, touched, last_offset: batch.last_offset }).await;
        let mut position = driver.position.get();
        position.pass(batch);
        driver.position.set(position);
        if driver.quorum.wants_snapshot() {
            // Before anybody is answered: a stop begins when no request is under way, and must not meet a snapshot.
            let records = self.image.borrow().snapshot();
            driver.quorum.snapshot(position, &records).await;
        }
        Ok(())
    }

    /// Asks the controller. Only on its core.
    /// # Errors  What the question is refused with, or why what was decided is not committed.
    pub(super) async fn control_here(self: &Rc<Self>, ask: Box<dyn AnyControlAsk>) -> Result<AnyAnswer, ErrorCode> {
        let driver = self.driver.borrow().clone().ok_or(ErrorCode::NotController)?;
        // A task of its own: whoever asks may go away, and a change that is decided must be proposed.
        let (answer, receiver) = oneshot();
        let this = self.clone();
        self.io.spawner.spawn(async move {
            let decide = |controller: &mut Controller| {
                this.prepare(&driver, controller);
                ask.decide_any(controller, &mut || this.io.rand.uuid())
            };
            let _ = answer.send(driver.change(decide).await);
        });
        receiver.await.unwrap_or(Err(ErrorCode::NotController))
    }

    /// Lets the controller of a cluster see time go by, whenever this broker has it.
    pub(super) async fn let_time_pass(self: Rc<Self>, driver: Rc<Driver>) {
        loop {
            self.io.clock.sleep(TICK).await;
            driver.leads().await;
            let tick = |controller: &mut Controller| {
                self.prepare(&driver, controller);
                Ok((controller.tick(), ()))
            };
            if let Err(error) = driver.change(tick).await {
                debug!(?error, "what time has brought about is left to the next controller");
            }
        }
    }

    /// Tells the controller what is not in the records, before it decides. Whoever does has the turn.
    fn prepare(&self, driver: &Driver, controller: &mut Controller) {
        controller.set_now(self.io.clock.now().0 / 1_000_000);
        controller.set_next_offset(driver.position.get().last_offset.plus(1).0);
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
