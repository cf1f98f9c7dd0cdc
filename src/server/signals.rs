//! SIGTERM, SIGINT and SIGHUP (the terminal is gone): the first asks for an orderly stop, the second ends the process at
//! once.

#![allow(unsafe_code)]

use std::{
    io, mem, process, ptr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use futures_lite::future::poll_fn;
use tracing::info;

/// Says to all cores that the broker is to stop. Cheap to clone; any thread may raise it.
#[derive(Clone, Default)]
pub struct Stop(Arc<Shared>);

#[derive(Default)]
struct Shared {
    raised: AtomicBool,
    /// One entry for each wait that is not over, so a few per core.
    waiting: Mutex<Vec<Waker>>,
}

impl Stop {
    /// Asks for the stop. Later calls change nothing.
    pub fn raise(&self) {
        self.0.raised.store(true, Ordering::SeqCst);
        let waiting = mem::take(&mut *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Whether the stop was asked for.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.0.raised.load(Ordering::SeqCst)
    }

    /// Waits until the stop is asked for.
    pub async fn raised(&self) {
        poll_fn(|context| {
            // Under the lock, so that a stop raised in between finds the waker.
            let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if self.is_raised() {
                return Poll::Ready(());
            }
            waiting.retain(|waker| !waker.will_wake(context.waker()));
            waiting.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Takes over the stopping signals. Must be called before any other thread is started: they inherit the mask.
/// # Errors  If the system gives no thread.
pub fn watch(stop: Stop) -> io::Result<()> {
    let signals = stopping_signals();
    // SAFETY: `signals` is an initialised set, and the old mask is not wanted.
    let error = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, ptr::null_mut()) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    thread::Builder::new().name("signals".into()).spawn(move || take_signals(&stop))?;
    Ok(())
}

/// Some senders deliver one signal twice, to the process and to its group (`timeout` does): that is one request to stop.
const SAME_REQUEST: Duration = Duration::from_millis(250);

fn take_signals(stop: &Stop) {
    let signals = stopping_signals();
    let mut asked = None;
    loop {
        let mut signal = 0;
        // SAFETY: `signals` is an initialised set, `signal` is writable for the call.
        if unsafe { libc::sigwait(&raw const signals, &raw mut signal) } != 0 {
            continue;
        }
        let first = *asked.get_or_insert_with(Instant::now);
        if stop.is_raised() && first.elapsed() < SAME_REQUEST {
            continue;
        }
        if stop.is_raised() {
            // The journal holds whatever is not in its place yet, so nothing is lost by leaving now.
            process::exit(128 + signal);
        }
        let signal = match signal {
            libc::SIGTERM => "SIGTERM",
            libc::SIGHUP => "SIGHUP",
            _ => "SIGINT",
        };
        info!(signal, "stopping; a second signal quits at once");
        stop.raise();
    }
}

fn stopping_signals() -> libc::sigset_t {
    // SAFETY: sigset_t is plain data, initialised by sigemptyset before it is used; the signal numbers are valid.
    unsafe {
        let mut signals = mem::zeroed();
        libc::sigemptyset(&raw mut signals);
        libc::sigaddset(&raw mut signals, libc::SIGTERM);
        libc::sigaddset(&raw mut signals, libc::SIGINT);
        // Who starts the broker under `nohup` wants it to outlive the terminal.
        if !is_ignored(libc::SIGHUP) {
            libc::sigaddset(&raw mut signals, libc::SIGHUP);
        }
        signals
    }
}

/// Whether whoever started the process has it ignore a signal.
fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: sigaction is plain data; without a new action the call only writes the present one.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        libc::sigaction(signal, ptr::null(), &raw mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;

    use super::*;

    #[test]
    fn a_stop_reaches_those_who_wait_and_those_who_come_later() {
        let stop = Stop::default();
        let waits: Vec<_> = (0..4)
            .map(|_| {
                let stop = stop.clone();
                thread::spawn(move || block_on(stop.raised()))
            })
            .collect();
        stop.raise();
        waits.into_iter().for_each(|wait| wait.join().expect("it was woken"));
        block_on(stop.raised());
    }
}
