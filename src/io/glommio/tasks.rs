//! Time and tasks on a glommio executor.

use std::{
    future::Future,
    io,
    rc::Rc,
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ::glommio::io::BufferedFile;

use crate::{base::Timestamp, io::Instant};

/// The moment from which all cores count, so that their instants can be compared.
fn beginning() -> std::time::Instant {
    static BEGINNING: OnceLock<std::time::Instant> = OnceLock::new();
    *BEGINNING.get_or_init(std::time::Instant::now)
}

/// The machine's time.
#[derive(Clone)]
pub struct Clock {
    /// `/dev/null`: a read of it through the ring is the one yield that lets glommio look for completed I/O.
    null: Rc<BufferedFile>,
}

impl Clock {
    pub(super) async fn open() -> io::Result<Self> {
        beginning();
        let null = BufferedFile::open("/dev/null").await.map_err(super::disk::plain)?;
        Ok(Self { null: Rc::new(null) })
    }

    pub(in crate::io) fn now(&self) -> Instant {
        Instant(u64::try_from(beginning().elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    pub(in crate::io) fn wall(&self) -> Timestamp {
        // A clock set before 1970 gives 0.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Timestamp::try_from(since_epoch.as_millis()).unwrap_or(Timestamp::MAX)
    }

    pub(in crate::io) async fn sleep_until(&self, deadline: Instant) {
        let wait = deadline.since(self.now());
        if !wait.is_zero() {
            ::glommio::timer::sleep(wait).await;
        }
    }

    pub(in crate::io) async fn yield_now(&self) {
        // Only the trip through the ring matters, not what came back.
        let _nothing = self.null.read_at(0, 1).await;
    }
}

/// Starts tasks on the executor of this thread.
#[derive(Clone)]
pub struct Spawner {
    pub(super) _here: std::marker::PhantomData<*mut ()>,
}

impl Spawner {
    pub(in crate::io) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        ::glommio::spawn_local(task).detach();
    }
}

pub(super) async fn offload<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    ::glommio::executor().spawn_blocking(work).await
}
