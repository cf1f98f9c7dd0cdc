//! What a state machine is to the driver.

use uuid::Uuid;

use crate::{
    base::{Effects, RawRecord, Timestamp},
    metadata::Image,
    protocol::primitives::DecodeError,
};

/// The moment of a decision, and what of the world outside the machine it may depend on.
pub struct Moment<'a> {
    /// In milliseconds since the Unix epoch. Never goes back.
    pub now: Timestamp,
    /// Drawn for this decision alone.
    pub random: Uuid,
    /// The cluster as this core knows it: durable state only.
    pub image: &'a Image,
    /// What the machine may hold from now on, in bytes. The bound is the broker's, so it moves with what other machines hold.
    pub bytes_max: usize,
}

/// What a decision of a machine leads to.
pub type EffectsOf<M> = Effects<<M as StateMachine>::Answer, <M as StateMachine>::Action>;

/// A state that the records of one partition tell, and the requests that are decided against it.
///
/// Decisions are synchronous and see everything that was decided before, durable or not: a machine takes its own records in
/// before it returns them. What is in no record (who waits for what, whose session ends when) dies with the machine.
pub trait StateMachine: Sized + 'static {
    /// What lines in the log call it.
    const NAME: &'static str;
    /// Its settings.
    type Config: Clone;
    /// What it can be asked, by clients and by what its actions come to.
    type Request;
    /// What it answers.
    type Answer;
    /// What it wants done elsewhere once its records are durable. A type without values if there is nothing.
    type Action;

    /// A machine that knows nothing. The log is replayed into it, then it is told that it is [`loaded`](Self::loaded).
    fn new(config: Self::Config) -> Self;

    /// Replaces the settings; they hold from the next decision on.
    fn configure(&mut self, config: Self::Config);

    /// Takes in a record of the log.
    /// # Errors  A record that is not readable. It changed nothing, and the next one may be taken in.
    fn replay(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), DecodeError>;

    /// The log has been replayed to its end: time begins, and actions that were not done are wanted again.
    fn loaded(&mut self, moment: &Moment<'_>) -> EffectsOf<Self>;

    /// Decides a request. Its answer, under `token`, is in these effects or in later ones.
    fn request(&mut self, token: u64, request: Self::Request, moment: &Moment<'_>) -> EffectsOf<Self>;

    /// Nobody waits for that request any more.
    fn abandon(&mut self, token: u64);

    /// Does what is due. If that is much, the next deadline stays in the past, and one calls again.
    fn tick(&mut self, moment: &Moment<'_>) -> EffectsOf<Self>;

    /// When [`Self::tick`] should be called next.
    fn next_deadline(&self) -> Option<Timestamp>;

    /// A topic is gone; the image does not have it any more.
    fn topic_deleted(&mut self, name: &str, moment: &Moment<'_>) -> EffectsOf<Self>;

    /// Everything that a restart would have to find, as records. Appending them makes all earlier ones superfluous.
    fn snapshot(&self) -> Vec<RawRecord>;

    /// About how many bytes it holds in memory.
    fn held_bytes(&self) -> usize;
}
