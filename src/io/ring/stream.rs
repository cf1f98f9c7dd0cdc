//! Connections whose bytes go through the ring.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    net::{SocketAddr, TcpStream as StdStream},
    os::fd::{AsRawFd, OwnedFd, RawFd},
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use socket2::Socket as OpenSocket;

use super::{
    Ring, STARVES,
    op::{self, More, Op, Sending},
};
use crate::{
    base::copied,
    io::{Outbox, Received, StreamOptions, glommio::DetachedStream, glommio::socket},
};

/// Replies that are not longer go out with the turn's one call; longer ones at once, which costs them a call of their own
/// and saves them a turn.
const WITH_THE_TURN_BYTES_MAX: usize = 8 * 1024;

/// A socket as its operations see it. It is closed when the last of them has completed.
pub(super) struct Socket {
    stream: StdStream,
    /// What has come and was not asked for since.
    arrived: RefCell<Option<io::Result<Received>>>,
    more: Cell<More>,
    /// The operation that waits for bytes.
    receiving: Cell<Option<u64>>,
    receiver: RefCell<Option<Waker>>,
    /// The operation that sends, or waits for room.
    sending: Cell<Option<u64>>,
    sender: RefCell<Option<Waker>>,
    failed: RefCell<Option<io::Error>>,
    /// One that is not in use.
    spare: RefCell<Option<Box<Sending>>>,
}

impl Socket {
    pub(super) fn descriptor(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// What a receive gave.
    pub(super) fn received(&self, result: io::Result<Received>, more: More) {
        self.receiving.set(None);
        self.more.set(more);
        *self.arrived.borrow_mut() = Some(result);
        wake(&self.receiver);
    }

    /// A receive found nothing that it could take: ask again.
    pub(super) fn may_receive(&self) {
        self.receiving.set(None);
        wake(&self.receiver);
    }

    /// There was no buffer for what has come: it is there, for the next receive.
    pub(super) fn starves(&self) {
        self.receiving.set(Some(STARVES));
        self.more.set(More::Known);
    }

    /// A send has ended.
    pub(super) fn sent(&self, mut sending: Box<Sending>, failed: Option<io::Error>) {
        self.sending.set(None);
        sending.pieces.clear();
        *self.spare.borrow_mut() = Some(sending);
        if failed.is_some() {
            *self.failed.borrow_mut() = failed;
        }
        wake(&self.sender);
    }

    pub(super) fn may_send(&self) {
        self.sending.set(None);
        wake(&self.sender);
    }

    /// The operation of this socket has another key.
    pub(super) fn sends_as(&self, key: u64) {
        self.sending.set(Some(key));
    }
}

fn wake(waiting: &RefCell<Option<Waker>>) {
    let waker = waiting.borrow_mut().take();
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn wait(waiting: &RefCell<Option<Waker>>, context: &Context<'_>) {
    let mut waiting = waiting.borrow_mut();
    match &mut *waiting {
        Some(waker) => waker.clone_from(context.waker()),
        None => *waiting = Some(context.waker().clone()),
    }
}

/// A connection of this core.
pub struct Stream {
    ring: Ring,
    socket: Rc<Socket>,
}

impl Stream {
    pub(in crate::io) fn attach(ring: &Ring, stream: StdStream, received: Option<Received>) -> Self {
        let socket = Socket {
            stream,
            arrived: RefCell::new(received.map(Ok)),
            more: Cell::new(More::Known),
            receiving: Cell::default(),
            receiver: RefCell::default(),
            sending: Cell::default(),
            sender: RefCell::default(),
            failed: RefCell::default(),
            spare: RefCell::default(),
        };
        Self { ring: ring.clone(), socket: Rc::new(socket) }
    }

    pub(in crate::io) async fn connect(ring: &Ring, to: SocketAddr) -> io::Result<Self> {
        let stream = Self::attach(ring, socket::begin_connecting(to)?, None);
        let socket = &stream.socket;
        socket.sending.set(Some(ring.start(Op::Writable(socket.clone()))));
        poll_fn(|context| stream.poll_sent(context)).await?;
        socket::connected(&socket.stream)?;
        Ok(stream)
    }

    pub(in crate::io) fn configure(&self, options: &StreamOptions) -> io::Result<()> {
        let stream = &self.socket.stream;
        stream.set_nodelay(true)?;
        socket::keep_alive(stream)?;
        socket::set_buffer_bytes(stream, options.send_buffer_bytes, options.receive_buffer_bytes)
    }

    pub(in crate::io) fn poll_recv(&self, context: &mut Context<'_>, _room: usize) -> Poll<io::Result<Received>> {
        let socket = &self.socket;
        let arrived = socket.arrived.borrow_mut().take();
        if let Some(arrived) = arrived {
            return Poll::Ready(arrived);
        }
        wait(&socket.receiver, context);
        if socket.receiving.get().is_none() {
            socket.receiving.set(Some(self.ring.start(Op::Receive(socket.clone(), socket.more.get()))));
        }
        Poll::Pending
    }

    pub(in crate::io) fn poll_recv_into(
        &self,
        context: &mut Context<'_>,
        into: &mut Vec<u8>,
        up_to: usize,
    ) -> Poll<io::Result<usize>> {
        let socket = &self.socket;
        let arrived = socket.arrived.borrow_mut().take();
        if let Some(arrived) = arrived {
            let mut received = arrived?;
            let taken = received.len().min(up_to).min(into.capacity() - into.len());
            into.extend_from_slice(&received.take(taken));
            copied(taken);
            if !received.is_empty() {
                *socket.arrived.borrow_mut() = Some(Ok(received));
            }
            return Poll::Ready(Ok(taken));
        }
        if socket.receiving.get().is_none() {
            match socket::receive_into(&socket.stream, into, up_to) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    socket.receiving.set(Some(self.ring.start(Op::Readable(socket.clone()))));
                }
                result => return Poll::Ready(result),
            }
        }
        wait(&socket.receiver, context);
        Poll::Pending
    }

    /// It holds none.
    pub(in crate::io) fn rest(&self) {}

    pub(in crate::io) fn poll_send(&self, context: &mut Context<'_>, outbox: &mut Outbox) -> Poll<io::Result<usize>> {
        ready!(self.poll_sent(context))?;
        let socket = &self.socket;
        if outbox.is_within(WITH_THE_TURN_BYTES_MAX) {
            let mut sending = socket.spare.borrow_mut().take().unwrap_or_default();
            sending.own_bytes = outbox.own_bytes();
            self.ring.on_the_way().more(sending.own_bytes);
            let bytes = outbox.hand_over(&mut sending.pieces, &mut sending.skip);
            sending.left = bytes;
            socket.sending.set(Some(self.ring.start(Op::Send(socket.clone(), sending))));
            return Poll::Ready(Ok(bytes));
        }
        let sent = match socket::send_pieces(&socket.stream, outbox.slices()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                socket.sending.set(Some(self.ring.start(Op::Writable(socket.clone()))));
                wait(&socket.sender, context);
                return Poll::Pending;
            }
            result => result?,
        };
        outbox.sent(sent)?;
        Poll::Ready(Ok(sent))
    }

    pub(in crate::io) fn poll_sent(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = &self.socket;
        if socket.sending.get().is_some() {
            wait(&socket.sender, context);
            return Poll::Pending;
        }
        match socket.failed.borrow_mut().take() {
            Some(error) => Poll::Ready(Err(error)),
            None => Poll::Ready(Ok(())),
        }
    }

    pub(in crate::io) fn unsent_bytes(&self) -> usize {
        let sending = self.socket.sending.get().and_then(|key| self.ring.look_at_sending(key, |sending| sending.left));
        sending.unwrap_or(0)
    }

    pub(in crate::io) fn held_bytes(&self) -> usize {
        let sending = self.socket.sending.get();
        sending.and_then(|key| self.ring.look_at_sending(key, op::Sending::held_bytes)).unwrap_or(0)
    }

    pub(in crate::io) fn end_receiving(&self) {
        socket::shut_down_read(&self.socket.stream);
    }

    pub(in crate::io) fn end(&self, outbox: &Outbox) {
        if outbox.unsent_bytes() > 0 || self.socket.sending.get().is_some() {
            socket::discard_unsent_on_close(&self.socket.stream);
        }
        socket::shut_down(&self.socket.stream);
    }

    pub(in crate::io) async fn detach(&self) -> io::Result<DetachedStream> {
        if let Some(receiving) = self.socket.receiving.get() {
            self.ring.cancel(receiving);
        }
        poll_fn(|context| {
            if self.socket.receiving.get().is_none() {
                return Poll::Ready(());
            }
            wait(&self.socket.receiver, context);
            Poll::Pending
        })
        .await;
        poll_fn(|context| self.poll_sent(context)).await?;
        let arrived = self.socket.arrived.borrow_mut().take().transpose()?;
        Ok(DetachedStream::with(self.socket.stream.try_clone()?, arrived))
    }
}

#[cfg(test)]
impl Stream {
    pub(super) fn receive_for_test(&self) -> Op {
        Op::Receive(self.socket.clone(), More::Unknown)
    }

    pub(super) fn starves_for_test(&self) -> bool {
        self.socket.receiving.get() == Some(STARVES)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        for operation in [self.socket.receiving.get(), self.socket.sending.get()].into_iter().flatten() {
            self.ring.cancel(operation);
        }
    }
}

/// A listening socket as its operation sees it.
pub(super) struct Listener {
    socket: OpenSocket,
    accepting: Cell<Option<u64>>,
    accepted: RefCell<Option<io::Result<StdStream>>>,
    waiting: RefCell<Option<Waker>>,
}

impl Listener {
    pub(super) fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// What an accept gave.
    pub(super) fn accepted(&self, result: io::Result<OwnedFd>) {
        self.accepting.set(None);
        *self.accepted.borrow_mut() = Some(result.map(StdStream::from));
        wake(&self.waiting);
    }
}

/// A listening socket of this core.
pub struct Incoming {
    ring: Ring,
    listener: Rc<Listener>,
}

impl Incoming {
    pub(in crate::io) fn attach(ring: &Ring, socket: OpenSocket) -> Self {
        let listener =
            Listener { socket, accepting: Cell::default(), accepted: RefCell::default(), waiting: RefCell::default() };
        Self { ring: ring.clone(), listener: Rc::new(listener) }
    }

    pub(in crate::io) async fn next(&self) -> io::Result<DetachedStream> {
        let accepted = poll_fn(|context| {
            let accepted = self.listener.accepted.borrow_mut().take();
            if let Some(accepted) = accepted {
                return Poll::Ready(accepted);
            }
            wait(&self.listener.waiting, context);
            if self.listener.accepting.get().is_none() {
                self.listener.accepting.set(Some(self.ring.start(Op::Accept(self.listener.clone()))));
            }
            Poll::Pending
        });
        Ok(DetachedStream::with(accepted.await?, None))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(accepting) = self.listener.accepting.get() {
            self.ring.cancel(accepting);
        }
    }
}
