//! One client's connection: a reader task that takes requests in, and a writer task that sends their replies in order.
//!
//! Everything above sees frames and outcomes only; the stream is known here alone.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    io,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures_lite::future::poll_once;
use tracing::{debug, info, warn};

use super::{
    accept::Accepted,
    frames::{Frame, FrameError, FrameReader, SMALL_BYTES_MAX, Source},
    limits::Ticket,
    memory::{Charge, RequestKind, RequestMemory},
    service::{Outcome, Peer, Pending, Service},
};
use crate::{
    api::Identity,
    io::{BYTES_AT_ONCE_MAX, Clock, Instant, Outbox, Received, Spawner, Stream},
    metrics::{Counter, Metrics},
    shard::{Held, Leaving, ReplyMemory},
};

/// Requests of one connection that have been begun and have no reply yet. Only produce requests ever overlap.
const REQUESTS_IN_FLIGHT_MAX: usize = 128;

/// Reply bytes that may lie unsent before the next request is begun.
const UNSENT_BYTES_MAX: usize = 1 << 20;

/// One connection, as its two tasks and the core's sweeper see it. Lives on one core.
pub(super) struct Connection {
    stream: Stream,
    pub(super) peer: Peer,
    in_flight: RefCell<VecDeque<InFlight>>,
    /// Requests begun whose outcome is not known yet, the one that the writer waits for included.
    open_requests: Cell<usize>,
    /// Whether all open requests are ones that pipeline.
    all_pipeline: Cell<bool>,
    /// Until then no request is begun: the client is throttled, and has its answer already (KIP-219).
    muted_until: Cell<Option<Instant>>,
    state: Cell<State>,
    reader: Waiting,
    writer: Waiting,
    outbox: RefCell<Outbox>,
    /// What the broker counts of the outbox while the socket takes no more.
    held: RefCell<Held>,
    /// Closed so that others find room, and not rid of its replies yet.
    leaving: RefCell<Option<Leaving>>,
    pub(super) progress: Progress,
    clock: Clock,
    metrics: Rc<Metrics>,
    /// Why it ends, as it is counted; who says it first is right.
    ended: Cell<Option<Counter>>,
    /// Taken out when the connection leaves for another core.
    ticket: RefCell<Option<Ticket>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Another core goes on with it; here nothing is in flight.
    Leaving,
    /// No further request is read; replies still go out.
    Draining,
    /// Nothing is read or sent any more.
    Closed,
}

/// What the sweeper looks at. Counted in bytes since the connection began.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) received: Cell<u64>,
    pub(super) sent: Cell<u64>,
    pub(super) unsent: Cell<usize>,
    /// Bytes charged for a frame larger than the connection's buffer while it is being received, else 0.
    pub(super) arriving_bytes: Cell<usize>,
    /// The reader waits for memory: its silence is our doing.
    pub(super) waits_for_memory: Cell<bool>,
    /// A request that is whole and cannot be begun before the client reads its replies or an earlier one of its own that
    /// waits is answered.
    behind_its_own: Cell<Option<(RequestKind, usize)>>,
    /// A request that has been begun and takes as long as it asks to: a fetch, a join, whatever is not a produce.
    parked: Cell<Option<(RequestKind, usize)>>,
    /// Large frames received and requests begun: as long as it stays the same, one request holds what is held.
    pub(super) requests: Cell<u64>,
}

impl Progress {
    /// Bytes of the memory for requests that are held for as long as the client likes.
    pub(super) fn held_bytes(&self, kind: RequestKind) -> usize {
        let whole = [&self.behind_its_own, &self.parked].map(|request| match request.get() {
            Some((of, bytes)) if of == kind => bytes,
            _ => 0,
        });
        let arriving = if kind == RequestKind::Large { self.arriving_bytes.get() } else { 0 };
        arriving + whole.iter().sum::<usize>()
    }

    fn count_request(&self) {
        self.requests.set(self.requests.get() + 1);
    }
}

/// Whether to say that a request was too large for the memory, and how often that was not said.
pub(super) type Told<'a> = dyn Fn() -> Option<u64> + 'a;

struct InFlight {
    pending: Pending,
    /// Given back when the outcome is known.
    _charge: Charge,
}

/// The one task that waits for something on this connection.
#[derive(Default)]
struct Waiting(RefCell<Option<Waker>>);

impl Waiting {
    /// Waits until `ready` holds; looked at again after each [`Self::wake`].
    async fn until(&self, mut ready: impl FnMut() -> bool) {
        poll_fn(|context| {
            if ready() {
                return Poll::Ready(());
            }
            *self.0.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn wake(&self) {
        let waker = self.0.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Connection {
    pub(super) fn new(
        stream: Stream,
        peer: Peer,
        ticket: Ticket,
        clock: Clock,
        metrics: Rc<Metrics>,
        replies: &Arc<ReplyMemory>,
    ) -> Rc<Self> {
        Rc::new(Self {
            stream,
            peer,
            in_flight: RefCell::default(),
            open_requests: Cell::new(0),
            all_pipeline: Cell::new(true),
            muted_until: Cell::default(),
            state: Cell::new(State::Open),
            reader: Waiting::default(),
            writer: Waiting::default(),
            outbox: RefCell::default(),
            held: RefCell::new(replies.holder()),
            leaving: RefCell::default(),
            progress: Progress::default(),
            clock,
            metrics,
            ended: Cell::new(None),
            ticket: RefCell::new(Some(ticket)),
        })
    }

    /// Serves the connection to its end, or until another core should go on: then that is what comes back.
    /// Resolves when both tasks are done.
    pub(super) async fn serve<S: Service>(
        self: &Rc<Self>,
        spawner: &Spawner,
        service: &S,
        memory: &Rc<RequestMemory>,
        frame_bytes_max: usize,
        received: &[u8],
        told_of_large: &Told<'_>,
    ) -> Option<Accepted> {
        let writer = spawner.spawn_with_handle(self.clone().write());
        let estimate = {
            let service = service.clone();
            Rc::new(move |start: &[u8], length| service.memory_estimate(start, length))
        };
        let client = service.client(&self.peer);
        let frames = FrameReader::new(memory.clone(), frame_bytes_max, estimate).after(received);
        let received = self.read(service, &client, frames, told_of_large).await;
        writer.await;
        self.depart(received?, service.identity(&client)).await
    }

    /// The connection as another core takes it over; `None` if it was closed meanwhile, or no descriptor is left.
    async fn depart(&self, received: Vec<u8>, identity: Identity) -> Option<Accepted> {
        if self.state.get() != State::Leaving {
            return None;
        }
        match self.stream.detach().await {
            Ok(stream) => {
                let ticket = self.ticket.take()?;
                debug!(client = %self.peer.address, core = ticket.core(), "connection moved to another core");
                Some(Accepted { stream, peer: Peer { identity, ..self.peer.clone() }, ticket, received })
            }
            Err(error) => {
                info!(client = %self.peer.address, %error, "connection closed: it could not be moved to another core");
                None
            }
        }
    }

    /// Takes no further request; what is in flight is answered, then the connection ends.
    pub(super) fn drain(&self) {
        if self.state.get() == State::Open {
            self.state.set(State::Draining);
            self.stream.end_receiving();
            self.wake_both();
        }
    }

    /// Ends the connection now; unsent replies are dropped.
    pub(super) fn close(&self) {
        if self.state.replace(State::Closed) != State::Closed {
            self.stream.end(&self.outbox.borrow());
            self.wake_both();
        }
    }

    /// As [`Self::close`], for the sake of what its replies hold.
    pub(super) fn leave_for_others(&self, leaving: Leaving) {
        *self.leaving.borrow_mut() = Some(leaving);
        self.close();
    }

    /// Says why it ends, unless that has been said.
    pub(super) fn ends(&self, reason: Counter) {
        if self.ended.get().is_none() {
            self.ended.set(Some(reason));
        }
    }

    /// Why it has ended. Clients that go away are all whose end nobody here has brought about.
    pub(super) fn ended(&self) -> Counter {
        self.ended.get().unwrap_or(Counter::ClosedByClient)
    }

    /// Whether requests are in flight or replies unsent.
    pub(super) fn is_busy(&self) -> bool {
        self.open_requests.get() > 0 || self.unsent_bytes() > 0
    }

    /// Bytes of replies that the kernel has not taken.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.progress.unsent.get() + self.stream.unsent_bytes()
    }

    /// What its unsent replies keep from others, in bytes. Looks at every piece.
    pub(super) fn held_bytes(&self) -> usize {
        self.outbox.borrow().held_bytes() + self.stream.held_bytes()
    }

    /// Nothing has come for long: it is waited for without a buffer.
    pub(super) fn give_buffer_back(&self) {
        self.stream.rest();
    }

    fn wake_both(&self) {
        self.reader.wake();
        self.writer.wake();
    }

    fn is_open(&self) -> bool {
        self.state.get() == State::Open
    }

    fn is_closed(&self) -> bool {
        self.state.get() == State::Closed
    }

    // -- reader -------------------------------------------------------------------------------------------------------

    /// What has been received and not begun, if the connection leaves for another core.
    async fn read<S: Service>(
        &self,
        service: &S,
        client: &S::Client,
        mut frames: FrameReader,
        told_of_large: &Told<'_>,
    ) -> Option<Vec<u8>> {
        while self.is_open() {
            match frames.next(&mut StreamSource(self)).await {
                Ok(frame) => {
                    if let Some(core) = service.better_core(client)
                        && frame.bytes.len() <= SMALL_BYTES_MAX
                        && self.leave(core).await
                    {
                        return Some(frames.give_back(&frame));
                    }
                    self.begin(service, client, frame).await;
                }
                Err(error) => {
                    self.report_end(&error, told_of_large);
                    // Requests that came before are still answered, as Kafka does; a broken socket has nobody to answer.
                    if matches!(error, FrameError::Io(_)) {
                        self.close();
                    }
                    break;
                }
            }
        }
        if self.is_open() {
            self.state.set(State::Draining);
        }
        self.writer.wake();
        None
    }

    /// Waits until nothing is in flight, so that no reply can overtake another; then ends both tasks without closing.
    /// Returns whether the connection leaves.
    async fn leave(&self, core: usize) -> bool {
        self.reader
            .until(|| !self.is_open() || (self.open_requests.get() == 0 && self.progress.unsent.get() == 0))
            .await;
        let moved = self.is_open() && self.ticket.borrow_mut().as_mut().is_some_and(|ticket| ticket.move_to(core));
        if moved {
            self.state.set(State::Leaving);
            self.writer.wake();
        }
        moved
    }

    fn report_end(&self, error: &FrameError, told_of_large: &Told<'_>) {
        let client = self.peer.address;
        self.ends(match error {
            FrameError::Closed | FrameError::Io(_) | FrameError::CutOff { .. } => Counter::ClosedByClient,
            FrameError::Length(_) | FrameError::TooLarge { .. } | FrameError::NoMemory { .. } => {
                Counter::ClosedForFrame
            }
        });
        match error {
            // The settings allow it: whoever set them should know.
            FrameError::TooLarge { by_memory: true, .. } => {
                if let Some(left_out) = told_of_large() {
                    warn!(%client, left_out, reason = %error, "connection closed (see --memory)");
                }
            }
            FrameError::Closed => debug!(%client, "connection closed by the client"),
            // A client that is killed, and every close of our own.
            FrameError::Io(_) | FrameError::CutOff { .. } => debug!(%client, reason = %error, "connection lost"),
            FrameError::Length(_) | FrameError::TooLarge { .. } | FrameError::NoMemory { .. } => {
                info!(%client, reason = %error, "connection closed");
            }
        }
    }

    /// First stage of a request: waits for its turn, then fixes its place in the order.
    async fn begin<S: Service>(&self, service: &S, client: &S::Client, frame: Frame) {
        let pipelines = service.pipelines(&frame.bytes);
        let charged = (frame.charge.kind(), frame.charge.bytes());
        self.reader
            .until(|| {
                let open = self.open_requests.get();
                let in_turn = open == 0 || (pipelines && self.all_pipeline.get() && open < REQUESTS_IN_FLIGHT_MAX);
                let reads = self.progress.unsent.get() <= UNSENT_BYTES_MAX;
                // Produces before it are the broker's to finish.
                let behind_its_own = !reads || !(in_turn || self.all_pipeline.get());
                self.progress.behind_its_own.set(behind_its_own.then_some(charged));
                self.is_closed() || (in_turn && reads)
            })
            .await;
        while let Some(until) = self.muted_until.take()
            && !self.is_closed()
        {
            let over = self.clock.sleep(until.since(self.clock.now()));
            futures_lite::future::or(over, self.reader.until(|| !self.is_open())).await;
        }
        if self.is_closed() {
            return;
        }
        self.all_pipeline.set(pipelines);
        self.open_requests.set(self.open_requests.get() + 1);
        self.progress.parked.set((!pipelines).then_some(charged));
        self.progress.count_request();
        let pending = service.handle(client, frame.bytes).await;
        self.in_flight.borrow_mut().push_back(InFlight { pending, _charge: frame.charge });
        self.writer.wake();
    }

    // -- writer -------------------------------------------------------------------------------------------------------

    async fn write(self: Rc<Self>) {
        let mut next = None;
        loop {
            let Some(outcome) = self.next_outcome(&mut next).await else { break };
            let mut go_on = self.take(outcome);
            // What else is ready goes out in the same call.
            while go_on && self.outbox.borrow().has_room() {
                let Some(outcome) = self.outcome_at_hand(&mut next).await else { break };
                go_on = self.take(outcome);
            }
            if let Err(error) = self.send().await {
                self.ends(Counter::ClosedByClient);
                debug!(client = %self.peer.address, %error, "connection lost while sending");
                break;
            }
            if !go_on {
                break;
            }
        }
        // Whatever was in flight has nobody left to answer.
        drop(next);
        *self.outbox.borrow_mut() = Outbox::default();
        self.held.borrow_mut().set(0);
        *self.leaving.borrow_mut() = None;
        self.progress.unsent.set(0);
        if self.state.get() != State::Leaving {
            // What was handed over last would be lost with the connection; an error only says that nobody reads it.
            let _lost = poll_fn(|context| self.poll_sent(context)).await;
            self.close();
        }
        let abandoned = std::mem::take(&mut *self.in_flight.borrow_mut());
        drop(abandoned);
    }

    /// Puts a reply into the outbox; false if the connection is to end after what is in there.
    fn take(&self, outcome: Outcome) -> bool {
        let mut outbox = self.outbox.borrow_mut();
        match outcome {
            Outcome::Reply(pieces, mute) => {
                if !mute.is_zero() {
                    self.muted_until.set(Some(self.clock.now() + mute));
                }
                outbox.push(pieces);
            }
            Outcome::Nothing => {}
            Outcome::Close(reason) => {
                self.ends(Counter::ClosedForRequest);
                info!(client = %self.peer.address, %reason, "connection closed");
                return false;
            }
        }
        self.progress.unsent.set(outbox.unsent_bytes());
        true
    }

    /// The outcome of the oldest request; `None` when there is none and none will come, or the connection is closed.
    async fn next_outcome(&self, next: &mut Option<InFlight>) -> Option<Outcome> {
        let outcome = poll_fn(|context| {
            if self.is_closed() {
                return Poll::Ready(None);
            }
            // Kept also while the request itself is polled: a close has to wake this task.
            *self.writer.0.borrow_mut() = Some(context.waker().clone());
            if next.is_none() {
                *next = self.in_flight.borrow_mut().pop_front();
            }
            match next {
                Some(request) => request.pending.as_mut().poll(context).map(Some),
                None if self.is_open() || self.open_requests.get() > 0 => Poll::Pending,
                None => Poll::Ready(None),
            }
        })
        .await;
        self.finished(next, outcome)
    }

    /// As [`Self::next_outcome`], but does not wait.
    async fn outcome_at_hand(&self, next: &mut Option<InFlight>) -> Option<Outcome> {
        if next.is_none() {
            *next = self.in_flight.borrow_mut().pop_front();
        }
        let outcome = match next {
            Some(request) => poll_once(&mut request.pending).await,
            None => None,
        };
        self.finished(next, outcome)
    }

    fn finished(&self, next: &mut Option<InFlight>, outcome: Option<Outcome>) -> Option<Outcome> {
        if outcome.is_some() {
            *next = None;
            self.open_requests.set(self.open_requests.get() - 1);
            // A request that does not pipeline was the only one.
            self.progress.parked.set(None);
            self.reader.wake();
        }
        outcome
    }

    /// Sends all of the outbox. No user-space copy; waits while the socket's buffer is full.
    async fn send(&self) -> io::Result<()> {
        loop {
            if self.outbox.borrow().unsent_bytes() == 0 {
                return Ok(());
            }
            let sent = poll_fn(|context| self.poll_send(context)).await?;
            {
                let outbox = self.outbox.borrow();
                self.progress.sent.set(self.progress.sent.get() + sent as u64);
                self.metrics.add(Counter::BytesSent, sent as u64);
                self.progress.unsent.set(outbox.unsent_bytes());
                self.held.borrow_mut().follow(outbox.own_bytes());
            }
            self.reader.wake();
            if sent == BYTES_AT_ONCE_MAX {
                // A consumer that is as fast as memory must not hold the core.
                self.clock.yield_now().await;
            }
        }
    }

    fn poll_send(&self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.is_closed() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let mut outbox = self.outbox.borrow_mut();
        let sent = self.stream.poll_send(context, &mut outbox);
        if sent.is_pending() {
            // From here on the client makes us hold it.
            self.held.borrow_mut().set(outbox.own_bytes());
        }
        sent
    }

    fn poll_sent(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_closed() {
            return Poll::Ready(Ok(()));
        }
        let sent = self.stream.poll_sent(context);
        if sent.is_pending() {
            // A close has to wake this task.
            *self.writer.0.borrow_mut() = Some(context.waker().clone());
        }
        sent
    }
}

/// The receiving half, as the frame reader wants it.
struct StreamSource<'a>(&'a Connection);

impl StreamSource<'_> {
    fn count(&self, received: usize) {
        self.0.progress.received.set(self.0.progress.received.get() + received as u64);
        self.0.metrics.add(Counter::BytesReceived, received as u64);
    }
}

impl Source for StreamSource<'_> {
    async fn receive(&mut self, room: usize) -> io::Result<Received> {
        let received = poll_fn(|context| self.0.stream.poll_recv(context, room)).await?;
        self.count(received.len());
        Ok(received)
    }

    async fn receive_into(&mut self, into: &mut Vec<u8>, up_to: usize) -> io::Result<usize> {
        let received = poll_fn(|context| self.0.stream.poll_recv_into(context, into, up_to)).await?;
        self.count(received);
        Ok(received)
    }

    fn waits_for_memory(&mut self, waits: bool) {
        self.0.progress.waits_for_memory.set(waits);
    }

    fn large_frame(&mut self, charged: usize) {
        if self.0.progress.arriving_bytes.replace(charged) == 0 {
            self.0.progress.count_request();
        }
    }
}
