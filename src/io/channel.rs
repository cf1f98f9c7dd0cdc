//! Waiting within one core: [`oneshot`], [`queue`], [`Notify`], [`Semaphore`]. Nothing here is `Send`.

mod notify;
mod oneshot;
mod queue;
mod semaphore;

pub use self::{
    notify::{Notified, Notify},
    oneshot::{OneshotReceiver, OneshotSender, oneshot},
    queue::{QueueReceiver, QueueSender, TrySendError, queue},
    semaphore::{Acquire, Permit, Semaphore},
};
