//! Waiting within one core: [`oneshot`], [`Notify`], [`Semaphore`], [`queue`].
//! Nothing here is `Send`.

mod notify;
mod oneshot;
mod queue;
mod semaphore;

pub use self::{
    notify::{Notified, Notify},
    oneshot::{OneshotReceiver, OneshotSender, oneshot},
    queue::{QueueReceiver, QueueSender, TrySendError, queue},
    semaphore::Semaphore,
};
