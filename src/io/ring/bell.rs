//! What wakes a core that waits in its ring, from any thread.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering, fence},
    },
    task::{Wake, Waker},
    thread::{self, ThreadId},
};

use rustix::event::EventfdFlags;

/// One core's bell. Whoever has something for the core rings behind it.
pub(in crate::io) struct Bell {
    event: OwnedFd,
    owner: ThreadId,
    /// The core waits, or is about to look once more before it does.
    waits: AtomicBool,
    /// Tasks that other threads have woken, for the core to run, and whether there are any.
    woken: Mutex<Vec<Waker>>,
    has_woken: AtomicBool,
}

impl Bell {
    /// The bell of the calling thread's core.
    /// # Panics
    /// If the process has no descriptor left, at start.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            event: rustix::event::eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd for a core's bell"),
            owner: thread::current().id(),
            waits: AtomicBool::new(false),
            woken: Mutex::default(),
            has_woken: AtomicBool::new(false),
        })
    }

    pub(super) fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Wakes the core if it waits: what was done before this call is seen by it.
    pub(in crate::io) fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.waits.load(Ordering::SeqCst) && self.waits.swap(false, Ordering::SeqCst) {
            let written = rustix::io::write(&self.event, &1u64.to_ne_bytes());
            assert!(written == Ok(8), "a bell rings: {written:?}");
        }
    }

    /// From here on others ring. The core looks once more behind this before it waits.
    pub(super) fn will_wait(&self) {
        self.waits.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    pub(super) fn is_awake(&self) {
        self.waits.store(false, Ordering::SeqCst);
    }

    /// Tasks that other threads have woken since the last time.
    pub(super) fn take_woken(&self) -> Vec<Waker> {
        if self.has_woken.load(Ordering::SeqCst) && self.has_woken.swap(false, Ordering::SeqCst) {
            return std::mem::take(&mut *self.woken.lock().unwrap_or_else(PoisonError::into_inner));
        }
        Vec::new()
    }

    /// Has the core wake a task of its own.
    fn wake_there(&self, task: Waker) {
        self.woken.lock().unwrap_or_else(PoisonError::into_inner).push(task);
        self.has_woken.store(true, Ordering::SeqCst);
        self.ring();
    }
}

/// A task's waker. glommio's own is used on its core alone: from another thread glommio would have to be asked to look.
pub(super) struct TaskWaker {
    pub(super) inner: Waker,
    pub(super) bell: Arc<Bell>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if thread::current().id() == self.bell.owner {
            self.inner.wake_by_ref();
        } else {
            self.bell.wake_there(self.inner.clone());
        }
    }
}
