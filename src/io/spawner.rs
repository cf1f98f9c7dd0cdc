//! Tasks of one core, and work that would block it.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use super::{
    OnTheWay,
    channel::{Notify, OneshotReceiver, oneshot},
    either, forward, sim,
};

/// Starts tasks on its core.
#[derive(Clone)]
pub enum Spawner {
    /// glommio's executor of this thread.
    #[cfg(feature = "glommio")]
    Glommio(super::glommio::Spawner),
    /// The simulator's.
    Sim(sim::Spawner),
}

impl Spawner {
    /// Starts a task that runs to its end by itself.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        forward!(self, spawner => spawner.spawn(task));
    }

    /// The ring of this core, if it has one of its own.
    #[cfg(feature = "glommio")]
    pub(super) fn ring(&self) -> Option<&super::ring::Ring> {
        match self {
            Self::Glommio(spawner) => spawner.ring(),
            Self::Sim(_) => None,
        }
    }

    /// What replies of this core hold that are on their way into the kernel; none is, where they go at once.
    #[must_use]
    pub fn on_the_way(&self) -> OnTheWay {
        #[cfg(feature = "glommio")]
        if let Some(ring) = self.ring() {
            return ring.on_the_way().clone();
        }
        OnTheWay::default()
    }

    /// Starts a task whose value can be waited for. Dropping the handle leaves the task running.
    pub fn spawn_with_handle<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> JoinHandle<T> {
        let (sender, receiver) = oneshot();
        self.spawn(async move {
            // Nobody waiting for the value is fine.
            let _unwanted = sender.send(task.await);
        });
        JoinHandle(receiver)
    }

    /// Starts a task that ends, wherever it waits, when it is told to.
    pub fn spawn_stoppable(&self, task: impl Future<Output = ()> + 'static) -> StoppableTask {
        let over = Notify::new();
        let told = over.notified();
        let ended = self.spawn_with_handle(async move {
            let _told_or_done = either(told, task).await;
        });
        StoppableTask { over, ended: Some(ended) }
    }
}

/// Waits for a task's value. Never resolves if the task was dropped unfinished, which happens only together with
/// its whole core.
pub struct JoinHandle<T>(OneshotReceiver<T>);

impl<T> Future for JoinHandle<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match Pin::new(&mut self.0).poll(context) {
            Poll::Ready(Some(value)) => Poll::Ready(value),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

/// A task that ends when this is dropped.
pub struct StoppableTask {
    over: Notify,
    ended: Option<JoinHandle<()>>,
}

impl StoppableTask {
    /// Ends the task, and waits until all that it held is gone.
    pub async fn stop(mut self) {
        self.over.notify_all();
        if let Some(ended) = self.ended.take() {
            ended.await;
        }
    }
}

impl Drop for StoppableTask {
    fn drop(&mut self) {
        self.over.notify_all();
    }
}
