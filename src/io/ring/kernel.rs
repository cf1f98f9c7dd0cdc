//! The kernel's side of the ring: what goes in, what comes out, and waiting for it.
#![allow(unsafe_code)]

use std::{collections::VecDeque, io, time::Duration};

use io_uring::{
    IoUring, cqueue, squeue,
    types::{SubmitArgs, Timespec},
};

/// Entries that are handed over at once at most; more are handed over earlier.
pub(in crate::io) const ENTRIES: u32 = 256;

/// Completions that have room; the kernel keeps those beyond.
pub(in crate::io) const COMPLETIONS: u32 = 2048;

/// What became of an operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub(super) key: u64,
    /// As the system call's, or the negated error.
    pub(super) result: i32,
    pub(super) flags: u32,
}

/// A ring of this thread.
pub(super) struct Kernel {
    ring: IoUring,
    /// Completions that had to be taken out to make room for entries.
    taken: VecDeque<Completion>,
}

impl Kernel {
    /// # Errors  The kernel's: it has no ring, or none of this kind.
    pub(super) fn new() -> io::Result<Self> {
        let ring = IoUring::builder()
            // Completions are worked on when we look for them, and not when an interrupt finds us.
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(COMPLETIONS)
            .build(ENTRIES)?;
        Ok(Self { ring, taken: VecDeque::new() })
    }

    pub(super) fn submitter(&self) -> io_uring::Submitter<'_> {
        self.ring.submitter()
    }

    /// Adds an entry, to be handed over with the next [`enter`](Self::enter).
    ///
    /// # Safety
    /// What the entry points to must be valid, and nobody else's, until its completion has been taken out.
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: the caller's promise.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            self.hand_over();
        }
    }

    /// Makes room for more entries.
    fn hand_over(&mut self) {
        if let Err(error) = self.ring.submit()
            && !passes(&error)
        {
            panic!("the kernel takes no more entries of a ring: {error}");
        }
        // A ring that is full of completions takes no entries.
        let completions = self.ring.completion().map(Completion::from);
        self.taken.extend(completions);
    }

    /// Whether something has happened that nobody has looked at. Costs no system call.
    pub(super) fn has_news(&mut self) -> bool {
        let (_, submission, completion) = self.ring.split();
        let flagged = submission.taskrun() || submission.cq_overflow();
        flagged || !completion.is_empty() || !self.taken.is_empty()
    }

    /// Hands over the entries; with `wait`, also waits so long for something to happen. Without any of it no system call.
    pub(super) fn enter(&mut self, wait: Option<Duration>) {
        let entered = match wait {
            Some(wait) if self.taken.is_empty() => {
                let wait = Timespec::from(wait);
                self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&wait))
            }
            Some(_) | None => {
                let submission = self.ring.submission();
                let idle = submission.is_empty() && !submission.taskrun() && !submission.cq_overflow();
                drop(submission);
                if idle { Ok(0) } else { self.ring.submit() }
            }
        };
        if let Err(error) = entered
            && !passes(&error)
        {
            panic!("a ring's kernel side failed: {error}");
        }
    }

    /// Takes out what has completed, at most as much as there is room for in the ring.
    pub(super) fn reap(&mut self, into: &mut Vec<Completion>) {
        into.extend(self.taken.drain(..));
        into.extend(self.ring.completion().map(Completion::from));
    }
}

impl From<cqueue::Entry> for Completion {
    fn from(entry: cqueue::Entry) -> Self {
        Self { key: entry.user_data(), result: entry.result(), flags: entry.flags() }
    }
}

/// Errors after which the same call works again: time is over, a signal came, completions or memory stand in the way.
fn passes(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN | libc::ENOMEM))
}
