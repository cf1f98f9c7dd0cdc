//! Connections: glommio says when a socket is ready, the calls on it are our own.

use std::{
    cell::{Cell, RefCell},
    io,
    net::{SocketAddr, TcpStream as StdStream},
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use ::glommio::net::{TcpListener, TcpStream};
use bytes::BytesMut;
use futures_lite::{AsyncRead, AsyncWrite};
use socket2::Socket;

use super::socket;
use crate::io::{
    Outbox, RECEIVED_BYTES_MAX, Received, StreamOptions,
    ring::{self, Ring},
};

/// Connections that the kernel keeps until they are accepted. The kernel cuts it down to net.core.somaxconn.
const BACKLOG: i32 = 1024;

/// A connection of this executor.
pub struct Stream {
    tcp: RefCell<TcpStream>,
    /// Where the next bytes go: initialised in all its length, so that the socket may write anywhere. None while nothing
    /// has come for long.
    buffer: RefCell<Option<BytesMut>>,
    rests: Cell<bool>,
    receiver: RefCell<Option<Waker>>,
}

impl Stream {
    pub(in crate::io) async fn connect(to: SocketAddr) -> io::Result<Self> {
        let tcp = TcpStream::connect(to).await.map_err(io::Error::from)?;
        let stream = socket::duplicate(&tcp)?;
        socket::connected(&stream)?;
        Ok(DetachedStream::with(stream, None).attach())
    }

    pub(in crate::io) fn configure(&self, options: &StreamOptions) -> io::Result<()> {
        let tcp = self.tcp.borrow();
        tcp.set_nodelay(true).map_err(io::Error::from)?;
        socket::keep_alive(&*tcp)?;
        socket::set_buffer_bytes(&*tcp, options.send_buffer_bytes, options.receive_buffer_bytes)
    }

    pub(in crate::io) fn poll_recv(&self, context: &mut Context<'_>, room: usize) -> Poll<io::Result<Received>> {
        let received = self.poll_read(context, room);
        if received.is_pending() {
            *self.receiver.borrow_mut() = Some(context.waker().clone());
        }
        received
    }

    fn poll_read(&self, context: &mut Context<'_>, room: usize) -> Poll<io::Result<Received>> {
        let mut tcp = self.tcp.borrow_mut();
        let mut buffer = self.buffer.borrow_mut();
        if self.rests.take() {
            *buffer = None;
        }
        if buffer.is_none() {
            ready!(poll_arrival(&mut tcp, context))?;
        }
        let buffer = buffer.get_or_insert_default();
        if buffer.len() < room {
            // Takes the old allocation back if nobody else holds a part of it.
            buffer.clear();
            buffer.reserve(RECEIVED_BYTES_MAX);
            buffer.resize(RECEIVED_BYTES_MAX, 0);
        }
        let received = ready!(Pin::new(&mut *tcp).poll_read(context, buffer))?;
        Poll::Ready(Ok(buffer.split_to(received).into()))
    }

    pub(in crate::io) fn poll_recv_into(
        &self,
        context: &mut Context<'_>,
        into: &mut Vec<u8>,
        up_to: usize,
    ) -> Poll<io::Result<usize>> {
        let mut tcp = self.tcp.borrow_mut();
        loop {
            match socket::receive_into(&*tcp, into, up_to) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(poll_arrival(&mut tcp, context))?,
                result => return Poll::Ready(result),
            }
        }
    }

    pub(in crate::io) fn rest(&self) {
        self.rests.set(true);
        let receiver = self.receiver.borrow_mut().take();
        if let Some(receiver) = receiver {
            receiver.wake();
        }
    }

    pub(in crate::io) fn poll_send(&self, context: &mut Context<'_>, outbox: &mut Outbox) -> Poll<io::Result<usize>> {
        let mut tcp = self.tcp.borrow_mut();
        let sent = match socket::send_pieces(&*tcp, outbox.slices()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // glommio tries once more and, if the buffer is still full, waits for the socket in its ring. It may
                // send a part: that counts.
                let first = outbox.slices().find(|piece| !piece.is_empty()).expect("the outbox is not empty");
                ready!(Pin::new(&mut *tcp).poll_write(context, first))?
            }
            result => result?,
        };
        outbox.sent(sent)?;
        Poll::Ready(Ok(sent))
    }

    pub(in crate::io) fn end_receiving(&self) {
        socket::shut_down_read(&*self.tcp.borrow());
    }

    pub(in crate::io) fn end(&self, outbox: &Outbox) {
        let tcp = self.tcp.borrow();
        if outbox.unsent_bytes() > 0 {
            socket::discard_unsent_on_close(&*tcp);
        }
        socket::shut_down(&*tcp);
    }

    pub(in crate::io) fn detach(&self) -> io::Result<DetachedStream> {
        socket::duplicate(&*self.tcp.borrow()).map(|stream| DetachedStream::with(stream, None))
    }
}

/// Waits until there is something to receive, or the end.
fn poll_arrival(tcp: &mut TcpStream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
    // A read of no bytes takes nothing out of the socket: glommio uses it to wait until there is some.
    Pin::new(tcp).poll_read(context, &mut []).map_ok(drop)
}

/// A connection of no executor. Closes itself if it does not arrive at one.
pub struct DetachedStream {
    socket: StdStream,
    /// What had been received by then and not given.
    received: Option<Received>,
}

impl DetachedStream {
    #[cfg(test)]
    pub(super) fn of(stream: StdStream) -> Self {
        Self::with(stream, None)
    }

    pub(in crate::io) fn with(socket: StdStream, received: Option<Received>) -> Self {
        Self { socket, received }
    }

    pub(in crate::io) fn peer_address(&self) -> io::Result<SocketAddr> {
        self.socket.peer_addr()
    }

    /// On an executor without a ring of its own: nothing was received where it comes from.
    pub(in crate::io) fn attach(self) -> Stream {
        Stream {
            tcp: RefCell::new(socket::adopt_stream(self.socket)),
            buffer: RefCell::default(),
            rests: Cell::new(false),
            receiver: RefCell::default(),
        }
    }

    pub(in crate::io) fn attach_to(self, ring: &Ring) -> ring::Stream {
        ring::Stream::attach(ring, self.socket, self.received)
    }
}

/// A socket that is bound.
pub struct BoundAddress(Socket);

impl BoundAddress {
    pub(in crate::io) fn bind(address: SocketAddr) -> io::Result<Self> {
        socket::bind(address).map(Self)
    }

    pub(in crate::io) fn address(&self) -> io::Result<SocketAddr> {
        socket::local_address(&self.0)
    }

    pub(in crate::io) fn open(&self) -> io::Result<()> {
        self.0.listen(BACKLOG)
    }

    pub(in crate::io) fn attach(self) -> Incoming {
        Incoming(socket::adopt_listener(self.0))
    }

    pub(in crate::io) fn attach_to(self, ring: &Ring) -> ring::Incoming {
        ring::Incoming::attach(ring, self.0)
    }
}

/// A listening socket of this executor.
pub struct Incoming(TcpListener);

impl Incoming {
    pub(in crate::io) async fn next(&self) -> io::Result<DetachedStream> {
        let accepted = self.0.shared_accept().await.map_err(io::Error::from)?;
        socket::detach(accepted).map(|stream| DetachedStream::with(stream, None))
    }
}
