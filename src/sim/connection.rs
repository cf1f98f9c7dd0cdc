//! A client's connection: requests begin in order on one core of the broker, and overlap. It ends with the broker, or when
//! the client drops it; then whatever is in flight is dropped, as `net` does.

use std::rc::Rc;

use crate::{
    io::{
        Io,
        channel::{Notify, OneshotReceiver, QueueSender, TrySendError, oneshot, queue},
        either,
    },
    replica::Local,
    shard::Router,
    sim::broker::{Life, NODE},
};

/// Requests in flight on one connection.
const IN_FLIGHT_MAX: usize = 64;

/// The broker ended before it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

type Job = Box<dyn FnOnce(Router) -> Local<Local<()>>>;

/// See the head of this file.
pub struct Connection {
    jobs: QueueSender<Job>,
    hung_up: Notify,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.hung_up.notify_all();
    }
}

impl Connection {
    /// Opens a connection to a core. None if the broker does not serve.
    pub fn open(life: &Rc<Life>, core: usize) -> Option<Self> {
        let router = life.router(core)?;
        let (jobs, mut requests) = queue::<Job>(IN_FLIGHT_MAX);
        let hung_up = Notify::new();
        let bell = hung_up.clone();
        let over = hung_up.notified();
        life.sim.spawn_on(NODE, core, |io: Io| async move {
            let serve = async {
                while let Some(request) = requests.recv().await {
                    let over = bell.notified();
                    let second = request(router.clone()).await;
                    io.spawner.spawn(async move {
                        let _ = either(over, second).await;
                    });
                }
            };
            let _ = either(over, serve).await;
        });
        Some(Self { jobs, hung_up })
    }

    /// Begins a request behind those that were begun before. `first` hands it over, what it gives waits for the answer.
    pub fn begin<T: 'static>(&self, first: impl FnOnce(Router) -> Local<Local<T>> + 'static) -> OneshotReceiver<T> {
        let (answer, receiver) = oneshot();
        let job: Job = Box::new(move |router| {
            let first = first(router);
            Box::pin(async move {
                let second = first.await;
                let waits: Local<()> = Box::pin(async move {
                    let _ = answer.send(second.await);
                });
                waits
            })
        });
        match self.jobs.try_send(job) {
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => panic!("a client keeps to its own bound"),
        }
        receiver
    }

    /// Asks and waits; all of it after the hand-over.
    /// # Errors  The broker ended.
    pub async fn ask<T: 'static, F>(&self, ask: impl FnOnce(Router) -> F + 'static) -> Result<T, Gone>
    where
        F: Future<Output = T> + 'static,
    {
        let answer = self.begin(move |router| {
            Box::pin(async move {
                let waits: Local<T> = Box::pin(ask(router));
                waits
            })
        });
        answer.await.ok_or(Gone)
    }
}
