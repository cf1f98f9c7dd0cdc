//! Threads for what has no place in a ring: names, space, whole file systems.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    task::{Poll, Waker},
    thread,
};

type Job = Box<dyn FnOnce() + Send>;

/// A few threads of one core. They end when the last handle is dropped, behind the jobs that were given before.
#[derive(Clone, Debug)]
pub(in crate::io) struct Pool(mpsc::Sender<Job>);

/// A job's value on its way back, and who waits for it.
struct Outcome<T> {
    value: Option<T>,
    waiting: Option<Waker>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// So many threads. They run where the calling thread may run, so it is not a pinned one that calls.
    /// # Errors  The system's: it gives no thread.
    pub(in crate::io) fn start(threads: usize) -> std::io::Result<Self> {
        let (sender, jobs) = mpsc::channel::<Job>();
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..threads {
            let jobs = jobs.clone();
            thread::Builder::new().name("offload".to_owned()).spawn(move || {
                loop {
                    let job = lock(&jobs).recv();
                    match job {
                        Ok(job) => job(),
                        Err(mpsc::RecvError) => return,
                    }
                }
            })?;
        }
        Ok(Self(sender))
    }

    /// Has some work done that nobody waits for.
    pub(in crate::io) fn give(&self, work: impl FnOnce() + Send + 'static) {
        assert!(self.0.send(Box::new(work)).is_ok(), "the threads wait for jobs");
    }

    /// Runs some work on one of the threads. It is done whether or not it is waited for.
    pub(in crate::io) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let outcome = Arc::new(Mutex::new(Outcome { value: None, waiting: None }));
        let done = outcome.clone();
        self.give(move || {
            let value = work();
            let waiting = {
                let mut outcome = lock(&done);
                outcome.value = Some(value);
                outcome.waiting.take()
            };
            waiting.into_iter().for_each(Waker::wake);
        });
        poll_fn(move |context| {
            let mut outcome = lock(&outcome);
            if let Some(value) = outcome.value.take() {
                return Poll::Ready(value);
            }
            outcome.waiting = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}
