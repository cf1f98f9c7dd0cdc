//! Starting executors: one per core, all of them or none.

use std::{
    fmt, fs,
    future::Future,
    io::{self, Read},
    marker::PhantomData,
    rc::Rc,
    sync::mpsc,
    time::Duration,
};

use ::glommio::{ExecutorJoinHandle, GlommioError, LocalExecutorBuilder, Placement, PoolPlacement, io::BufferedFile};

use super::{
    disk::{Disk, plain},
    ladder,
    probe::Unusable,
    sys,
    tasks::{Clock, Spawner, offload_to},
};
use crate::io::{
    self as room, Io, Rand,
    rand::Generator,
    ring::{Driver, Pool, Ring},
};

/// Threads of each core for work that blocks. Not pinned, so that they do not take the core's CPU from it.
const OFFLOAD_THREADS: usize = 2;

/// How long an executor may take to start; it takes milliseconds.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// How the bytes of connections and files get to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Through a ring of our own, in one call a turn.
    Ring,
    /// Through glommio's rings, and system calls for what is received and sent.
    Glommio,
}

impl Door {
    /// Requests in each of glommio's rings at once; more wait outside. Deep where all goes through them, because a full ring
    /// is one way into glommio's wrong park.
    pub(super) const fn glommio_depth(self) -> usize {
        match self {
            Self::Ring => 128,
            Self::Glommio => 1024,
        }
    }
}

/// Why executors did not start, or how one ended.
#[derive(Debug)]
pub enum ExecutorError {
    /// The kernel does not give us a ring.
    Ring(Unusable),
    /// The executor could not be made or started.
    Executor {
        /// Which core.
        core: usize,
        /// In glommio's words.
        message: String,
    },
    /// The executor's thread panicked.
    Panicked {
        /// Which core.
        core: usize,
        /// What it said.
        message: String,
    },
    /// The executor did not start in time.
    Timeout {
        /// Which core.
        core: usize,
    },
}

impl fmt::Display for ExecutorError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(why) => why.fmt(out),
            Self::Executor { core, message } => write!(out, "the executor of core {core} could not start: {message}"),
            Self::Panicked { core, message } => write!(out, "the executor of core {core} panicked: {message}"),
            Self::Timeout { core } => write!(out, "the executor of core {core} did not start in {START_TIMEOUT:?}"),
        }
    }
}

impl std::error::Error for ExecutorError {}

/// Executors that run. Dropping them lets them run on; [`join`](Self::join) waits for their bodies.
pub struct Executors<T: Send + 'static> {
    handles: Vec<ExecutorJoinHandle<Result<T, ExecutorError>>>,
}

impl<T: Send + 'static> Executors<T> {
    /// Waits for all bodies; what they gave, in the order of the cores.
    pub fn join(self) -> Vec<Result<T, ExecutorError>> {
        self.handles.into_iter().enumerate().map(|(core, handle)| join_one(core, handle)).collect()
    }
}

fn join_one<T: Send + 'static>(
    core: usize,
    handle: ExecutorJoinHandle<Result<T, ExecutorError>>,
) -> Result<T, ExecutorError> {
    match handle.join() {
        Ok(result) => result,
        Err(error) => Err(translate(core, error)),
    }
}

fn translate(core: usize, error: GlommioError<()>) -> ExecutorError {
    use ::glommio::{BuilderErrorKind, ReactorErrorKind};
    match error {
        GlommioError::BuilderError(BuilderErrorKind::ThreadPanic(panic)) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let message = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            ExecutorError::Panicked { core, message }
        }
        GlommioError::ReactorError(ReactorErrorKind::MemLockLimit(limit, _)) => {
            ExecutorError::Ring(Unusable::Memlock { limit, cores_that_fit: 0 })
        }
        GlommioError::IoError(error) if error.raw_os_error() == Some(libc::ENOMEM) => {
            // The limit is a user's, not a process's: somebody else may hold most of it.
            let limit = sys::raise_memlock().ok().flatten().unwrap_or(u64::MAX);
            ExecutorError::Ring(Unusable::Memlock { limit, cores_that_fit: core })
        }
        other => ExecutorError::Executor { core, message: other.to_string() },
    }
}

/// Starts one executor for each entry of `cores`, on its own thread: pinned to the given CPU, or unpinned. `io_memory` is
/// the bytes of registered I/O memory of each (three times that is locked; see [`probe::io_memory`](super::probe::io_memory)).
/// Then runs `body(core)` on each. The bodies begin when all executors run.
/// # Errors  What kept the first failing executor from starting; then none runs.
pub fn start<T, B, F>(
    cores: &[Option<usize>],
    io_memory: usize,
    door: Door,
    body: impl Fn(usize) -> B,
) -> Result<Executors<T>, ExecutorError>
where
    T: Send + 'static,
    B: FnOnce(Io) -> F + Send + 'static,
    F: Future<Output = T> + 'static,
{
    let count = cores.len();
    let mut starting = Vec::with_capacity(count);
    for (core, cpu) in cores.iter().enumerate() {
        let (ready, is_ready) = mpsc::channel::<()>();
        let (go, may_go) = mpsc::channel::<()>();
        let body = body(core);
        // Made here, since its threads are not to be pinned.
        let pool = match door {
            Door::Ring => Pool::start(OFFLOAD_THREADS).map(Some),
            Door::Glommio => Ok(None),
        };
        let pool = match pool {
            Ok(pool) => pool,
            Err(error) => {
                abandon(starting);
                return Err(ExecutorError::Executor { core, message: error.to_string() });
            }
        };
        let started = LocalExecutorBuilder::new(cpu.map_or(Placement::Unbound, Placement::Fixed))
            .name("core")
            .io_memory(io_memory)
            .ring_depth(door.glommio_depth())
            .blocking_thread_pool_placement(PoolPlacement::Unbound(if pool.is_some() { 1 } else { OFFLOAD_THREADS }))
            .spawn(move || run(core, count, door, pool, body, ready, may_go));
        match started {
            Ok(handle) => starting.push((handle, is_ready, go)),
            Err(error) => {
                abandon(starting);
                return Err(translate(core, error));
            }
        }
    }
    await_all(starting)
}

type Starting<T> = (ExecutorJoinHandle<Result<T, ExecutorError>>, mpsc::Receiver<()>, mpsc::Sender<()>);

/// Lets the executors go if all are there; otherwise ends them and says what was wrong.
fn await_all<T: Send + 'static>(starting: Vec<Starting<T>>) -> Result<Executors<T>, ExecutorError> {
    let failed = starting
        .iter()
        .enumerate()
        .find_map(|(core, (_, is_ready, _))| is_ready.recv_timeout(START_TIMEOUT).err().map(|error| (core, error)));
    match failed {
        None => {
            let handles = starting.into_iter().map(|(handle, _, go)| {
                // If the executor has died since, `join` says so.
                let _died = go.send(());
                handle
            });
            Ok(Executors { handles: handles.collect() })
        }
        Some((core, mpsc::RecvTimeoutError::Timeout)) => Err(ExecutorError::Timeout { core }),
        Some((core, mpsc::RecvTimeoutError::Disconnected)) => {
            let mut results = abandon(starting);
            Err(match results.swap_remove(core) {
                Err(error) => error,
                Ok(_) => ExecutorError::Executor { core, message: "it ended before it began".to_owned() },
            })
        }
    }
}

/// Ends executors that wait for their start.
fn abandon<T: Send + 'static>(starting: Vec<Starting<T>>) -> Vec<Result<T, ExecutorError>> {
    let handles: Vec<_> = starting.into_iter().map(|(handle, _, _)| handle).collect();
    handles.into_iter().enumerate().map(|(core, handle)| join_one(core, handle)).collect()
}

/// What an executor's thread does.
async fn run<T: 'static, B, F>(
    core: usize,
    cores: usize,
    door: Door,
    pool: Option<Pool>,
    body: B,
    ready: mpsc::Sender<()>,
    may_go: mpsc::Receiver<()>,
) -> Result<T, ExecutorError>
where
    B: FnOnce(Io) -> F,
    F: Future<Output = T> + 'static,
{
    let failed = |error: io::Error| ExecutorError::Executor { core, message: error.to_string() };
    match pool {
        // Where nothing of ours is in glommio's rings, it parks in its turns only, which end by themselves.
        Some(pool) => offload_to(pool),
        None => {
            ::glommio::spawn_local(ladder::keep_timers_pending(cores)).detach();
        }
    }
    let io = doors(door, cores).await.map_err(failed)?;
    // Blocks the thread, on which nothing else runs yet.
    let abandoned = ready.send(()).is_err() || may_go.recv().is_err();
    if abandoned {
        return Err(ExecutorError::Executor { core, message: "another executor could not start".to_owned() });
    }
    let ring = io.spawner.ring().cloned();
    let ended = io.spawner.clone().spawn_with_handle(body(io)).await;
    if let Some(ring) = ring {
        ring.end();
    }
    Ok(ended)
}

/// The doors of the executor of this thread, one of so many.
async fn doors(door: Door, cores: usize) -> io::Result<Io> {
    let mut bytes = [0; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let words = std::array::from_fn(|word| u64::from_ne_bytes(std::array::from_fn(|byte| bytes[word * 8 + byte])));
    let null = Rc::new(BufferedFile::open("/dev/null").await.map_err(plain)?);
    let ring = match door {
        Door::Ring => Some(Ring::new()?),
        Door::Glommio => None,
    };
    if let Some(ring) = &ring {
        ::glommio::spawn_local(Driver::new(ring, null.clone(), cores)).detach();
    }
    let spawner = Spawner { _here: PhantomData, ring: ring.clone() };
    Ok(Io {
        disk: room::Disk::Glommio(Disk::here(spawner.clone())),
        clock: room::Clock::Glommio(Clock::new(null, ring)),
        spawner: room::Spawner::Glommio(spawner),
        rand: Rand::of(Generator::from_state(words)),
        metrics: Rc::default(),
    })
}
