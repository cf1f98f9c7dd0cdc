//! Waiting within one core: [`oneshot`], [`Notify`], [`Semaphore`]; for the simulated clients of tests a queue as well.
//! Nothing here is `Send`.

mod notify;
mod oneshot;
#[cfg(test)]
mod queue;
mod semaphore;

#[cfg(test)]
pub use self::queue::{QueueReceiver, QueueSender, TrySendError, queue};
pub use self::{
    notify::{Notified, Notify},
    oneshot::{OneshotReceiver, OneshotSender, oneshot},
    semaphore::Semaphore,
};
