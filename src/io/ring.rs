//! Our own io_uring, beside glommio's, on glommio's executor: what the connections of a core receive and send, and what is
//! read from files and written to them, goes to the kernel in one call a turn, however many of them there are.
//!
//! A turn: completions wake tasks; these and whoever they wake run until none has anything left to do; then one call hands
//! over what they want and takes what has completed meanwhile. When nothing has, the core waits in this ring. glommio runs
//! the tasks and gives the memory; its own rings have nothing of ours, so that nobody has to look at them.
#![allow(unsafe_code)]

mod bell;
mod buffers;
mod driver;
mod files;
mod kernel;
mod op;
mod pool;
mod stream;
#[cfg(test)]
mod tests;
mod timers;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::{Future, poll_fn},
    io,
    os::fd::{FromRawFd, OwnedFd},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use io_uring::{cqueue, opcode};
use slab::Slab;

pub use self::stream::{Incoming, Stream};
pub(super) use self::{
    bell::Bell,
    driver::Driver,
    kernel::{COMPLETIONS, ENTRIES},
    pool::Pool,
};
use self::{
    bell::TaskWaker,
    buffers::Buffers,
    kernel::{Completion, Kernel},
    op::{More, Op},
    timers::{Sleep, Timers},
};
use super::{Instant, OnTheWay};

/// The key of operations whose end nobody waits for.
const NOBODYS: u64 = u64::MAX;

/// What a receive has for a key while its connection waits for a buffer: no operation has it.
const STARVES: u64 = u64::MAX - 1;

/// A ring that ends has so long to get back what the kernel still has.
const END_STEP: Duration = Duration::from_millis(10);
const END_STEPS_MAX: usize = 100;

/// One core's ring. Cheap to clone; stays on its core.
#[derive(Clone)]
pub(super) struct Ring(Rc<Inner>);

struct Inner {
    // In the order in which they are dropped: the kernel lets go of the buffers with its ring.
    kernel: RefCell<Kernel>,
    buffers: RefCell<Buffers>,
    operations: RefCell<Slab<Op>>,
    completions: RefCell<Vec<Completion>>,
    bell: Arc<Bell>,
    timers: Timers,
    /// Tasks that let others, and the kernel, go first.
    yielding: RefCell<Vec<Waker>>,
    /// Connections for whose bytes there was no buffer, in their order: each turn has as many of them ask again as find one,
    /// so that a crowd costs each of its members one attempt in vain and not one a turn.
    starving: RefCell<VecDeque<Rc<stream::Socket>>>,
    /// Memory of replies' own that the kernel has not taken yet.
    on_the_way: OnTheWay,
    /// What else is looked at in every turn: it wakes its tasks if there is something for them, and says whether there is.
    watched: RefCell<Vec<Box<dyn Fn() -> bool>>>,
    /// Polls of this core's tasks.
    polls: Cell<u64>,
    ended: Cell<bool>,
}

impl Ring {
    /// A ring for this thread.
    /// # Errors  The kernel's: it has none of this kind.
    pub(super) fn new() -> io::Result<Self> {
        let kernel = Kernel::new()?;
        let buffers = Buffers::new(&kernel)?;
        let ring = Self(Rc::new(Inner {
            kernel: RefCell::new(kernel),
            buffers: RefCell::new(buffers),
            operations: RefCell::default(),
            completions: RefCell::default(),
            bell: Bell::new(),
            timers: Timers::default(),
            yielding: RefCell::default(),
            starving: RefCell::default(),
            on_the_way: OnTheWay::default(),
            watched: RefCell::default(),
            polls: Cell::new(0),
            ended: Cell::new(false),
        }));
        ring.attend_bell();
        Ok(ring)
    }

    pub(super) fn bell(&self) -> &Arc<Bell> {
        &self.0.bell
    }

    fn timers(&self) -> &Timers {
        &self.0.timers
    }

    /// Looks at something in every turn.
    pub(super) fn watch(&self, look: impl Fn() -> bool + 'static) {
        self.0.watched.borrow_mut().push(Box::new(look));
    }

    /// Waits until a deadline.
    pub(super) fn sleep_until(&self, deadline: Instant) -> impl Future<Output = ()> {
        Sleep::new(self.clone(), deadline)
    }

    /// Waits until whoever can run has run, and what has completed meanwhile has been seen.
    pub(super) async fn yield_now(&self) {
        let mut asked = false;
        poll_fn(|context| {
            if std::mem::replace(&mut asked, true) {
                return Poll::Ready(());
            }
            self.0.yielding.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Runs a task of this core, so that the turns know of it, and that other threads can wake it.
    pub(super) async fn run<T>(self, task: impl Future<Output = T>) -> T {
        let mut task = pin!(task);
        let mut ours: Option<(Waker, Waker)> = None;
        poll_fn(|context| {
            self.0.polls.set(self.0.polls.get() + 1);
            let inner = context.waker();
            if ours.as_ref().is_none_or(|(known, _)| !known.will_wake(inner)) {
                let waker = TaskWaker { inner: inner.clone(), bell: self.0.bell.clone() };
                ours = Some((inner.clone(), Waker::from(Arc::new(waker))));
            }
            let waker = ours.as_ref().map_or(inner, |(_, waker)| waker);
            task.as_mut().poll(&mut Context::from_waker(waker))
        })
        .await
    }

    /// What replies hold that have been handed to the kernel and not been taken by it.
    pub(super) fn on_the_way(&self) -> &OnTheWay {
        &self.0.on_the_way
    }

    /// Lets the driver, and with it the core, go. Nothing is under way behind this.
    pub(super) fn end(&self) {
        self.0.ended.set(true);
        self.0.finish();
    }

    /// Begins an operation. Its key, for [`cancel`](Self::cancel).
    fn start(&self, operation: Op) -> u64 {
        let mut operations = self.0.operations.borrow_mut();
        let slot = operations.vacant_entry();
        let key = slot.key() as u64;
        let entry = slot.insert(operation).entry().user_data(key);
        // SAFETY: an operation's entry points only to what the operation owns, at addresses that do not change when it is
        // moved, and the operation is kept until its completion is taken out (`complete`), or for ever (`drop`).
        unsafe { self.0.kernel.borrow_mut().push(&entry) };
        drop(operations);
        key
    }

    /// Ends an operation soon, unless it has ended: it completes one way or the other.
    fn cancel(&self, key: u64) {
        let entry = opcode::AsyncCancel::new(key).build().user_data(NOBODYS);
        // SAFETY: the entry points to nothing.
        unsafe { self.0.kernel.borrow_mut().push(&entry) };
    }

    /// Looks at what a send has still to send.
    fn look_at_sending<T>(&self, key: u64, look: impl FnOnce(&op::Sending) -> T) -> Option<T> {
        let operations = self.0.operations.borrow();
        match operations.get(usize::try_from(key).ok()?) {
            Some(Op::Send(_, sending)) => Some(look(sending)),
            Some(_) | None => None,
        }
    }

    /// The one call of a turn; with `wait`, waits so long for something to happen. How much has completed.
    fn turn(&self, wait: Option<Duration>) -> usize {
        let mut completions = self.0.completions.take();
        {
            let mut kernel = self.0.kernel.borrow_mut();
            kernel.enter(wait);
            kernel.reap(&mut completions);
        }
        let count = completions.len();
        completions.drain(..).for_each(|completion| self.complete(completion));
        self.0.completions.replace(completions);
        self.feed_the_starving();
        count
    }

    /// All buffers are back here: so many connections that found none may ask again. Those that do so now are ahead of
    /// whoever comes.
    fn feed_the_starving(&self) {
        for _ in 0..buffers::COUNT {
            let next = self.0.starving.borrow_mut().pop_front();
            let Some(socket) = next else { break };
            socket.may_receive();
        }
    }

    fn complete(&self, Completion { key, result, flags }: Completion) {
        if key == NOBODYS {
            return;
        }
        let operation = self.0.operations.borrow_mut().remove(key as usize);
        let again = matches!(-result, libc::EINTR | libc::EAGAIN);
        match operation {
            Op::Receive(socket, _) => {
                let more = if cqueue::sock_nonempty(flags) { More::Known } else { More::Unknown };
                // An end and an error use no buffer up, but may have taken one.
                let taken = cqueue::buffer_select(flags)
                    .map(|id| self.0.buffers.borrow_mut().take(id, usize::try_from(result).unwrap_or(0)));
                match result {
                    0.. => socket.received(Ok(taken.unwrap_or_default()), more),
                    _ if -result == libc::ENOBUFS => {
                        socket.starves();
                        self.0.starving.borrow_mut().push_back(socket);
                    }
                    _ if again || -result == libc::ECANCELED => socket.may_receive(),
                    _ => socket.received(Err(error(result)), more),
                }
            }
            // What there is, or is wrong, the next call on the socket will tell.
            Op::Readable(socket) => socket.may_receive(),
            Op::Writable(socket) => socket.may_send(),
            Op::Send(socket, mut sending) => {
                let failed = match usize::try_from(result) {
                    Ok(0) => Some(io::ErrorKind::WriteZero.into()),
                    Ok(bytes) if sending.sent(bytes) => None,
                    Ok(_) => return self.send_on(socket, sending),
                    Err(_) if again => return self.send_on(socket, sending),
                    Err(_) => Some(error(result)),
                };
                self.0.on_the_way.less(sending.own_bytes);
                socket.sent(sending, failed);
            }
            Op::Accept(listener) => listener.accepted(match result {
                // SAFETY: the kernel has just made this descriptor for us.
                0.. => Ok(unsafe { OwnedFd::from_raw_fd(result) }),
                _ => Err(error(result)),
            }),
            Op::Bell(..) => self.attend_bell(),
            Op::Open(operation) if again => {
                self.start(Op::Open(operation));
            }
            Op::Open(operation) => {
                // SAFETY: the kernel has just made this descriptor for us.
                let opened = if result < 0 { Err(error(result)) } else { Ok(unsafe { OwnedFd::from_raw_fd(result) }) };
                let _unwanted = operation.done.send(opened);
            }
            Op::File(operation) if again => {
                self.start(Op::File(operation));
            }
            Op::File(operation) => {
                // The one who asked may have gone.
                let _unwanted = operation.done.send((result, operation.memory));
            }
        }
    }

    fn send_on(&self, socket: Rc<stream::Socket>, sending: Box<op::Sending>) {
        let key = self.start(Op::Send(socket.clone(), sending));
        socket.sends_as(key);
    }

    fn attend_bell(&self) {
        self.start(Op::Bell(self.0.bell.clone(), Box::new([0; 8])));
    }
}

fn error(result: i32) -> io::Error {
    io::Error::from_raw_os_error(-result)
}

impl Inner {
    /// Ends what is under way and waits for its end: the kernel may write to what operations own, and some of them own what
    /// owns the ring, so that neither would ever go.
    fn finish(&self) {
        let keys: Vec<u64> = self.operations.borrow().iter().map(|(key, _)| key as u64).collect();
        for key in keys {
            let entry = opcode::AsyncCancel::new(key).build().user_data(NOBODYS);
            // SAFETY: the entry points to nothing.
            unsafe { self.kernel.borrow_mut().push(&entry) };
        }
        for _ in 0..END_STEPS_MAX {
            if self.operations.borrow().is_empty() {
                return;
            }
            let mut completions = Vec::new();
            {
                let mut kernel = self.kernel.borrow_mut();
                kernel.enter(Some(END_STEP));
                kernel.reap(&mut completions);
            }
            completions.into_iter().for_each(|completion| self.forget(completion));
        }
        let operations = self.operations.take();
        if !operations.is_empty() {
            tracing::debug!(
                operations = operations.len(),
                "a ring ends with operations under way: their memory is leaked"
            );
            std::mem::forget(operations);
            self.buffers.borrow_mut().leak();
        }
    }

    /// Takes an operation out whose outcome nobody wants any more.
    fn forget(&self, Completion { key, result, .. }: Completion) {
        let operation = usize::try_from(key).ok().and_then(|key| self.operations.borrow_mut().try_remove(key));
        if let Some(Op::Accept(_) | Op::Open(_)) = &operation
            && result >= 0
        {
            // SAFETY: the kernel has just made this descriptor for us.
            drop(unsafe { OwnedFd::from_raw_fd(result) });
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Asks the kernel for such a ring.
/// # Errors  The kernel's: it is too old (Linux 6.1 has all of it), or forbids it.
pub(super) fn probe() -> io::Result<()> {
    Ring::new().map(drop)
}

/// A future of any kind.
type Boxed<T> = Pin<Box<dyn Future<Output = T>>>;
