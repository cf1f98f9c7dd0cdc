//! Waiting within one core: [`oneshot`], [`queue`], [`Notify`], [`Watch`], [`Semaphore`]. Nothing here is `Send`.

mod notify;
mod oneshot;
mod queue;
mod semaphore;

pub use notify::{Notified, Notify, Watch};
pub use oneshot::{OneshotReceiver, OneshotSender, oneshot};
pub use queue::{QueueReceiver, QueueSender, TrySendError, queue};
pub use semaphore::{Acquire, Permit, Semaphore};
