//! Time and tasks on a glommio executor.

use std::{
    cell::RefCell,
    future::Future,
    rc::Rc,
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ::glommio::io::BufferedFile;

use crate::{
    base::Timestamp,
    io::{
        Instant,
        ring::{Pool, Ring},
    },
};

/// The moment from which all cores count, so that their instants can be compared.
fn beginning() -> std::time::Instant {
    static BEGINNING: OnceLock<std::time::Instant> = OnceLock::new();
    *BEGINNING.get_or_init(std::time::Instant::now)
}

/// Time since then.
pub(in crate::io) fn now() -> Instant {
    Instant(u64::try_from(beginning().elapsed().as_nanos()).unwrap_or(u64::MAX))
}

/// The machine's time.
#[derive(Clone)]
pub struct Clock {
    /// `/dev/null`: a read of it through the ring is the one yield that lets glommio look for completed I/O.
    null: Rc<BufferedFile>,
    ring: Option<Ring>,
}

impl Clock {
    pub(super) fn new(null: Rc<BufferedFile>, ring: Option<Ring>) -> Self {
        beginning();
        Self { null, ring }
    }

    pub(in crate::io) fn now(&self) -> Instant {
        now()
    }

    pub(in crate::io) fn wall(&self) -> Timestamp {
        // A clock set before 1970 gives 0.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Timestamp::try_from(since_epoch.as_millis()).unwrap_or(Timestamp::MAX)
    }

    pub(in crate::io) async fn sleep_until(&self, deadline: Instant) {
        let wait = deadline.since(self.now());
        match &self.ring {
            Some(_) | None if wait.is_zero() => (),
            Some(ring) => ring.sleep_until(deadline).await,
            None => ::glommio::timer::sleep(wait).await,
        }
    }

    pub(in crate::io) async fn yield_now(&self) {
        match &self.ring {
            Some(ring) => ring.yield_now().await,
            None => {
                // Only the trip through the ring matters, not what came back.
                let _nothing = self.null.read_at(0, 1).await;
            }
        }
    }
}

/// Starts tasks on the executor of this thread.
#[derive(Clone)]
pub struct Spawner {
    pub(super) _here: std::marker::PhantomData<*mut ()>,
    pub(super) ring: Option<Ring>,
}

impl Spawner {
    pub(in crate::io) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        match &self.ring {
            Some(ring) => ::glommio::spawn_local(ring.clone().run(task)).detach(),
            None => ::glommio::spawn_local(task).detach(),
        };
    }

    /// The ring of this core, if it has one of its own.
    pub(in crate::io) fn ring(&self) -> Option<&Ring> {
        self.ring.as_ref()
    }
}

pub(super) async fn offload<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let pool = POOL.with_borrow(Option::clone);
    match pool {
        Some(pool) => pool.run(work).await,
        None => ::glommio::executor().spawn_blocking(work).await,
    }
}

/// Work that nobody waits for. Done here and now where the core has no threads of its own.
pub(super) fn offload_and_forget(work: impl FnOnce() + Send + 'static) {
    // At the thread's end they may have gone before what is left to them.
    let pool = POOL.try_with(|pool| pool.borrow().clone()).ok().flatten();
    match pool {
        Some(pool) => pool.give(work),
        None => work(),
    }
}

thread_local! {
    /// The threads of this core, if glommio's are not used.
    static POOL: RefCell<Option<Pool>> = const { RefCell::new(None) };
}

/// Has the work of this core done by these threads from now on.
pub(super) fn offload_to(pool: Pool) {
    POOL.set(Some(pool));
}
