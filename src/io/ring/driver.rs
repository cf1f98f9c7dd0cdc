//! Who turns the ring: a task of glommio's executor that is always runnable. When no other is, the core waits in here.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use ::glommio::io::BufferedFile;

use super::{Boxed, Ring};

/// While tasks find work for one another, the kernel is asked after so many rounds of them at the latest.
const ROUNDS_MAX: u32 = 16;

/// A core that has just worked looks so long for more before it waits: less than what being woken costs.
const SPIN: Duration = Duration::from_micros(30);

/// What spins that found something are worth at most; each that found nothing takes two. With none left no spin is tried,
/// but for one in so many waits.
const CREDIT_MAX: i32 = 6;
const CREDIT_MIN: i32 = -2;
const UNPAID_WAITS: u32 = 64;

/// The longest wait, and its part for each executor of the process: glommio gets a turn behind it.
const WAIT_MAX: Duration = Duration::from_millis(100);
const WAIT_MAX_PER_CORE: Duration = Duration::from_millis(30);

/// Turns a core's ring, until the ring ends.
pub(in crate::io) struct Driver {
    ring: Ring,
    /// `/dev/null`, of which a byte is read through glommio's ring to give glommio a turn.
    null: Rc<BufferedFile>,
    glommio_turn: Option<Boxed<()>>,
    polls_seen: u64,
    rounds: u32,
    /// Whether the last round found nothing to do.
    was_quiet: bool,
    credit: i32,
    unpaid_waits: u32,
    wait_max: Duration,
}

impl Driver {
    /// The driver of a ring, for one of `cores` executors.
    pub(in crate::io) fn new(ring: &Ring, null: Rc<BufferedFile>, cores: usize) -> Self {
        let cores = u32::try_from(cores).unwrap_or(u32::MAX);
        Self {
            ring: ring.clone(),
            null,
            glommio_turn: None,
            polls_seen: 0,
            rounds: 0,
            was_quiet: false,
            credit: CREDIT_MAX,
            unpaid_waits: 0,
            wait_max: WAIT_MAX.max(WAIT_MAX_PER_CORE.saturating_mul(cores)),
        }
    }

    /// Everything that a turn looks at. Whether somebody has something to do now.
    fn turn(&self, wait: Option<Duration>) -> bool {
        let ring = &self.ring.0;
        let mut found = self.ring.turn(wait) > 0;
        found |= ring.timers.first().is_some() && ring.timers.fire(crate::io::glommio::now());
        let yielding = ring.yielding.take();
        found |= !yielding.is_empty();
        yielding.into_iter().for_each(Waker::wake);
        found | self.look()
    }

    /// Whether other threads have left something.
    fn look(&self) -> bool {
        let ring = &self.ring.0;
        let woken = ring.bell.take_woken();
        let found = !woken.is_empty();
        woken.into_iter().for_each(Waker::wake);
        ring.watched.borrow().iter().fold(found, |found, look| look() | found)
    }

    /// Looks for more for a moment, if that has paid lately.
    fn spin(&mut self) -> bool {
        if self.credit <= 0 {
            self.unpaid_waits += 1;
            if !self.unpaid_waits.is_multiple_of(UNPAID_WAITS) {
                return false;
            }
        }
        let began = Instant::now();
        while began.elapsed() < SPIN {
            if self.ring.0.kernel.borrow_mut().has_news() || self.look() {
                self.credit = (self.credit + 1).min(CREDIT_MAX);
                return true;
            }
            std::hint::spin_loop();
        }
        self.credit = (self.credit - 2).max(CREDIT_MIN);
        false
    }

    /// Waits in the ring. Whether somebody has something to do then.
    fn wait(&self) -> bool {
        let ring = &self.ring.0;
        ring.bell.will_wait();
        // Behind the announcement, so that whoever comes later rings.
        let found = self.look() || {
            let wait = match ring.timers.first() {
                Some(deadline) => deadline.since(crate::io::glommio::now()).min(self.wait_max),
                None => self.wait_max,
            };
            self.turn(Some(wait))
        };
        ring.bell.is_awake();
        found
    }

    /// Lets glommio look at its rings. Nothing of ours goes through them, so that once in a while is enough.
    fn give_glommio_a_turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let null = self.null.clone();
        let turn = self.glommio_turn.get_or_insert_with(|| {
            Box::pin(async move {
                // Only the trip through the ring matters, not what came back.
                let _nothing = null.read_at(0, 1).await;
            })
        });
        let done = turn.as_mut().poll(context);
        if done.is_ready() {
            self.glommio_turn = None;
        }
        done
    }

    /// One step; then whoever it has woken runs. Pending while glommio has its turn.
    fn step(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.glommio_turn.is_some() {
            return self.give_glommio_a_turn(context);
        }
        let polls = self.ring.0.polls.get();
        let others_ran = polls != self.polls_seen;
        self.polls_seen = polls;
        if others_ran && self.rounds < ROUNDS_MAX {
            self.rounds += 1;
            self.was_quiet = false;
            return Poll::Ready(());
        }
        self.rounds = 0;
        if self.turn(None) {
            self.was_quiet = false;
            return Poll::Ready(());
        }
        // Once more: a task of glommio's own may stand behind us that wakes one of ours.
        if !std::mem::replace(&mut self.was_quiet, true) {
            return Poll::Ready(());
        }
        self.was_quiet = false;
        if self.spin() || self.wait() { Poll::Ready(()) } else { self.give_glommio_a_turn(context) }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.ring.0.ended.get() {
            return Poll::Ready(());
        }
        if self.step(context).is_ready() {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
