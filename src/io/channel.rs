//! Waiting within one core: [`oneshot`], [`queue`], [`Notify`], [`Watch`], [`Semaphore`]. Nothing here is `Send`.

mod notify;
mod oneshot;
mod queue;
mod semaphore;

pub use self::{
    notify::{Notified, Notify, Watch},
    oneshot::{OneshotReceiver, OneshotSender, oneshot},
    queue::{QueueReceiver, QueueSender, TrySendError, queue},
    semaphore::{Acquire, Permit, Semaphore},
};
