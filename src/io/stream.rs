//! Connections: bytes in as they come, bytes out as their owners left them, and where connections come from.
//!
//! Whoever has a [`Stream`] lends it no memory but that of a large body: what was received belongs to the receiver, what is
//! to be sent lies in an [`Outbox`] that a backend may take pieces out of. So a backend may receive into buffers of its own
//! and send when it sees fit. A stream is used by two tasks of its core, of which one receives and one sends.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    task::{Context, Poll},
};

use super::{Io, Outbox, Received, Spawner, forward, sim};

/// What is received at once at most, in bytes; a large body has memory of its own.
pub const RECEIVED_BYTES_MAX: usize = 16 * 1024;

/// How a connection is set up.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamOptions {
    /// The kernel's memory for what is to be sent; `None` leaves it to the kernel, which adapts it to the connection.
    pub send_buffer_bytes: Option<i32>,
    /// The kernel's memory for what has been received; `None` as above.
    pub receive_buffer_bytes: Option<i32>,
}

/// One end of a connection, on its core. Dropping it closes it.
pub enum Stream {
    /// A socket, on glommio's executor of this thread.
    #[cfg(feature = "glommio")]
    Glommio(super::glommio::Stream),
    /// A socket, through the ring of this core.
    #[cfg(feature = "glommio")]
    Ring(super::ring::Stream),
    /// The simulator's.
    Sim(sim::Stream),
}

/// Forwards a call to whichever backend the stream has.
macro_rules! forward_stream {
    ($stream:expr, $backend:ident => $call:expr) => {
        match $stream {
            #[cfg(feature = "glommio")]
            Self::Glommio($backend) => $call,
            #[cfg(feature = "glommio")]
            Self::Ring($backend) => $call,
            Self::Sim($backend) => $call,
        }
    };
}

impl Stream {
    /// Connects to the first address of a host that answers. Takes as long as the system lets it: bound it.
    /// # Errors  `ConnectionRefused` if nobody listens there; `NotFound` if the name has no address; whatever else the system says.
    pub async fn connect(io: &Io, host: &str, port: u16) -> io::Result<Self> {
        let mut failed = io::ErrorKind::NotFound.into();
        for address in addresses(io, host, port).await? {
            match Self::connect_to(io, address).await {
                Err(error) => failed = error,
                connected => return connected,
            }
        }
        Err(failed)
    }

    async fn connect_to(io: &Io, to: SocketAddr) -> io::Result<Self> {
        match &io.spawner {
            #[cfg(feature = "glommio")]
            Spawner::Glommio(spawner) => match spawner.ring() {
                Some(ring) => super::ring::Stream::connect(ring, to).await.map(Self::Ring),
                None => super::glommio::Stream::connect(to).await.map(Self::Glommio),
            },
            Spawner::Sim(spawner) => spawner.connect(to).await.map(Self::Sim),
        }
    }

    /// Sends small pieces at once, asks a silent peer whether it is there, and bounds the kernel's memory.
    /// # Errors  The system's: the connection is of no use then.
    pub fn configure(&self, options: &StreamOptions) -> io::Result<()> {
        forward_stream!(self, stream => stream.configure(options))
    }

    /// Receives what has come, at most [`RECEIVED_BYTES_MAX`]; nothing is the end of the stream. `room` bytes, not more than
    /// that, are to be able to lie right behind what was received before, if that has to be moved otherwise.
    /// # Errors  The system's: the connection is lost.
    pub fn poll_recv(&self, context: &mut Context<'_>, room: usize) -> Poll<io::Result<Received>> {
        forward_stream!(self, stream => stream.poll_recv(context, room))
    }

    /// Receives behind what `into` holds, at most `up_to` bytes and within its capacity, of which there must be some. The
    /// memory need not be initialised, so a large body costs neither a `memset` nor a page before its bytes have arrived.
    /// Gives the number of bytes; 0 is the end of the stream.
    /// # Errors  The system's: the connection is lost.
    pub fn poll_recv_into(
        &self,
        context: &mut Context<'_>,
        into: &mut Vec<u8>,
        up_to: usize,
    ) -> Poll<io::Result<usize>> {
        forward_stream!(self, stream => stream.poll_recv_into(context, into, up_to))
    }

    /// Holds no memory for what may come, until something does.
    pub fn rest(&self) {
        forward_stream!(self, stream => stream.rest());
    }

    /// Sends some of what is in the outbox, which must not be empty, and takes it out. Nothing is copied in user space. Gives
    /// the number of bytes, at most [`BYTES_AT_ONCE_MAX`](super::BYTES_AT_ONCE_MAX); waits while the peer does not read. A
    /// few bytes may be on their way only: see [`poll_sent`](Self::poll_sent).
    /// # Errors  The system's: the connection is lost.
    pub fn poll_send(&self, context: &mut Context<'_>, outbox: &mut Outbox) -> Poll<io::Result<usize>> {
        forward_stream!(self, stream => stream.poll_send(context, outbox))
    }

    /// Waits until the kernel has what was sent: before that a drop would lose it.
    /// # Errors  The system's: the connection is lost.
    #[cfg_attr(not(feature = "glommio"), allow(unused_variables))]
    pub fn poll_sent(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            #[cfg(feature = "glommio")]
            Self::Ring(stream) => stream.poll_sent(context),
            #[cfg(feature = "glommio")]
            Self::Glommio(_) => Poll::Ready(Ok(())),
            Self::Sim(_) => Poll::Ready(Ok(())),
        }
    }

    /// Bytes that were sent and are on their way only: see [`poll_sent`](Self::poll_sent).
    #[must_use]
    pub fn unsent_bytes(&self) -> usize {
        match self {
            #[cfg(feature = "glommio")]
            Self::Ring(stream) => stream.unsent_bytes(),
            #[cfg(feature = "glommio")]
            Self::Glommio(_) => 0,
            Self::Sim(_) => 0,
        }
    }

    /// What would be free if they were not, in bytes; of memory that others hold as well, a share.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        match self {
            #[cfg(feature = "glommio")]
            Self::Ring(stream) => stream.held_bytes(),
            #[cfg(feature = "glommio")]
            Self::Glommio(_) => 0,
            Self::Sim(_) => 0,
        }
    }

    /// Receives nothing more: the receiver sees the end of the stream, what is to be sent still goes out.
    pub fn end_receiving(&self) {
        forward_stream!(self, stream => stream.end_receiving());
    }

    /// Ends both directions at once, so that tasks that wait see it. If the outbox is not empty, what the peer has not
    /// received is dropped with it, instead of the kernel keeping it for minutes.
    pub fn end(&self, outbox: &Outbox) {
        forward_stream!(self, stream => stream.end(outbox));
    }

    /// The connection for another core, with what has been received and not given. Nobody may be waiting on this end, which
    /// is to be dropped.
    /// # Errors  `EMFILE` if no descriptor is left.
    pub async fn detach(&self) -> io::Result<DetachedStream> {
        Ok(match self {
            #[cfg(feature = "glommio")]
            Self::Glommio(stream) => DetachedStream::Glommio(stream.detach()?),
            #[cfg(feature = "glommio")]
            Self::Ring(stream) => DetachedStream::Glommio(stream.detach().await?),
            Self::Sim(stream) => DetachedStream::Sim(stream.detach()),
        })
    }
}

/// The addresses of a host, which may be one itself.
async fn addresses(io: &Io, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    match &io.spawner {
        #[cfg(feature = "glommio")]
        Spawner::Glommio(_) => super::glommio::addresses(host, port).await,
        Spawner::Sim(_) => Err(io::ErrorKind::NotFound.into()),
    }
}

/// A connection on its way to its core. Dropping it closes it.
pub enum DetachedStream {
    /// A socket.
    #[cfg(feature = "glommio")]
    Glommio(super::glommio::DetachedStream),
    /// The simulator's.
    Sim(sim::DetachedStream),
}

impl DetachedStream {
    /// Who is at the other end.
    /// # Errors  The system's: the connection is lost.
    pub fn peer_address(&self) -> io::Result<SocketAddr> {
        forward!(self, stream => stream.peer_address())
    }

    /// Takes the connection to the core that this is called on, whose doors are given.
    #[must_use]
    pub fn attach(self, io: &Io) -> Stream {
        match self {
            #[cfg(feature = "glommio")]
            Self::Glommio(stream) => match io.spawner.ring() {
                Some(ring) => Stream::Ring(stream.attach_to(ring)),
                None => Stream::Glommio(stream.attach()),
            },
            Self::Sim(stream) => Stream::Sim(stream.attach(io)),
        }
    }
}

/// An address that is ours, so that its port is known; nobody can connect before [`open`](Self::open).
pub enum BoundAddress {
    /// A socket.
    #[cfg(feature = "glommio")]
    Glommio(super::glommio::BoundAddress),
    /// The simulator's.
    Sim(sim::BoundAddress),
}

impl BoundAddress {
    /// Binds an address of this machine; port 0 takes a free one.
    /// # Errors  `AddrInUse` if somebody listens there already; whatever else the system says.
    #[cfg(feature = "glommio")]
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        super::glommio::BoundAddress::bind(address).map(Self::Glommio)
    }

    /// The address, with its real port.
    /// # Errors  The system's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        forward!(self, bound => bound.address())
    }

    /// Lets clients connect.
    /// # Errors  `AddrInUse` if somebody else opened the same port since it was bound.
    pub fn open(&self) -> io::Result<()> {
        forward!(self, bound => bound.open())
    }

    /// Takes what comes there to the core that this is called on, whose doors are given.
    #[must_use]
    pub fn attach(self, io: &Io) -> Incoming {
        match self {
            #[cfg(feature = "glommio")]
            Self::Glommio(bound) => match io.spawner.ring() {
                Some(ring) => Incoming::Ring(bound.attach_to(ring)),
                None => Incoming::Glommio(bound.attach()),
            },
            Self::Sim(bound) => Incoming::Sim(bound.attach(io)),
        }
    }
}

/// The connections that come to an address, on one core. Dropping it closes the address.
pub enum Incoming {
    /// A socket, on glommio's executor of this thread.
    #[cfg(feature = "glommio")]
    Glommio(super::glommio::Incoming),
    /// A socket, through the ring of this core.
    #[cfg(feature = "glommio")]
    Ring(super::ring::Incoming),
    /// The simulator's.
    Sim(sim::Incoming),
}

impl Incoming {
    /// Waits for the next one, which may be for any core.
    /// # Errors  The system's; the next one may come all the same.
    pub async fn next(&self) -> io::Result<DetachedStream> {
        match self {
            #[cfg(feature = "glommio")]
            Self::Glommio(incoming) => incoming.next().await.map(DetachedStream::Glommio),
            #[cfg(feature = "glommio")]
            Self::Ring(incoming) => incoming.next().await.map(DetachedStream::Glommio),
            Self::Sim(incoming) => Ok(DetachedStream::Sim(incoming.next().await)),
        }
    }
}

/// What every backend's streams do, shown on the two ends of a connection that live on one core.
#[cfg(test)]
pub(super) mod conformance {
    use std::{future::poll_fn, time::Duration};

    use futures_lite::future::poll_once;

    use super::*;
    use crate::io::{Slice, join_all};

    async fn receive(stream: &Stream) -> io::Result<Received> {
        poll_fn(|context| stream.poll_recv(context, RECEIVED_BYTES_MAX / 4)).await
    }

    /// Everything up to the end, small and large pieces in turn.
    async fn receive_all(stream: &Stream) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let received = receive(stream).await?;
            if received.is_empty() {
                return Ok(all);
            }
            all.extend_from_slice(received.as_slice());
            all.reserve(40_000);
            if poll_fn(|context| stream.poll_recv_into(context, &mut all, 30_000)).await? == 0 {
                return Ok(all);
            }
        }
    }

    async fn send_all(stream: &Stream, outbox: &mut Outbox) -> io::Result<()> {
        while outbox.unsent_bytes() > 0 {
            let before = outbox.unsent_bytes();
            let sent = poll_fn(|context| stream.poll_send(context, outbox)).await?;
            assert_eq!(before - outbox.unsent_bytes(), sent);
        }
        Ok(())
    }

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|at| ((at * 31) >> 3) as u8).collect()
    }

    /// The same bytes in pieces of uneven sizes, none among them.
    fn outbox(bytes: &[u8]) -> Outbox {
        let mut outbox = Outbox::default();
        let cut =
            |piece: &[u8]| [&piece[..piece.len() / 3], &[], &piece[piece.len() / 3..]].map(|it| it.to_vec().into());
        outbox.push(bytes.chunks(7001).flat_map(|piece| -> [Slice; 3] { cut(piece) }).collect());
        outbox
    }

    /// Bytes go both ways at once, whole and in order, from where their owner left them; the end comes behind them.
    pub async fn all_of_it_arrives(here: Stream, there: Stream) {
        let sent = bytes(300_000);
        let (mut to, mut from) = (outbox(&sent), outbox(&sent[..100_000]));
        let both = join_all([&mut to, &mut from].into_iter().zip([&here, &there]).map(|(outbox, stream)| {
            let other = if std::ptr::eq(stream, &here) { &there } else { &here };
            async move {
                let wanted = outbox.unsent_bytes();
                let receive = async {
                    let mut all = Vec::with_capacity(wanted);
                    while all.len() < wanted {
                        poll_fn(|context| other.poll_recv_into(context, &mut all, wanted)).await.expect("more");
                    }
                    all
                };
                let (sent, received) = futures_lite::future::zip(send_all(stream, outbox), receive).await;
                sent.expect("sent");
                received
            }
        }));
        let received = both.await;
        assert!(received[0] == sent && received[1] == sent[..100_000]);
        send_all(&here, &mut outbox(b"the last words")).await.expect("sent");
        drop(here);
        assert_eq!(receive_all(&there).await.expect("an orderly end"), b"the last words");
    }

    /// What nobody reads makes the sender wait, and nobody else: it goes on when the reader does.
    pub async fn who_does_not_read_makes_the_sender_wait(here: Stream, there: Stream) {
        let sent = bytes(24 << 20);
        let mut unsent = outbox(&sent);
        let first = {
            let mut sending = Box::pin(send_all(&here, &mut unsent));
            // Until the buffers in between are full.
            let mut turns = 0;
            while turns < 20_000 && poll_once(&mut sending).await.is_none() {
                turns += 1;
            }
            assert_eq!(turns, 20_000, "all of it was sent");
            receive(&there).await.expect("some")
        };
        let begun = sent.len() - unsent.unsent_bytes();
        let (rest, received) = futures_lite::future::zip(
            async { send_all(&here, &mut unsent).await.map(|()| drop(here)) },
            receive_all(&there),
        )
        .await;
        rest.expect("sent");
        assert!(begun > 0 && [first.as_slice(), &received.expect("received")].concat() == sent);
    }

    /// What the kernel has not taken is told, wherever it lies, until it is: a small reply may be out of the outbox.
    pub async fn what_is_not_taken_is_told(io: Io, here: Stream, there: Stream) {
        const PIECE_BYTES: usize = 4000;
        let small = StreamOptions { send_buffer_bytes: Some(4096), receive_buffer_bytes: Some(4096) };
        here.configure(&small).expect("a connection");
        there.configure(&small).expect("a connection");
        let on_the_way = io.spawner.on_the_way();
        let told = |unsent: &Outbox| {
            assert_eq!((here.unsent_bytes() > 0, here.held_bytes()), (on_the_way.bytes() > 0, on_the_way.bytes()));
            unsent.own_bytes() + on_the_way.bytes()
        };
        let mut unsent = Outbox::default();
        let mut begun = 0;
        // Until the buffers in between are full.
        loop {
            unsent.push(vec![bytes(PIECE_BYTES).into()]);
            begun += PIECE_BYTES;
            let taken = async {
                send_all(&here, &mut unsent).await.expect("sent");
                poll_fn(|context| here.poll_sent(context)).await.expect("sent");
                true
            };
            let late = async {
                io.clock.sleep(Duration::from_millis(100)).await;
                false
            };
            if !futures_lite::future::or(taken, late).await {
                break;
            }
            assert_eq!(told(&unsent), 0);
        }
        assert_eq!(told(&unsent), PIECE_BYTES);
        let rest = async {
            send_all(&here, &mut unsent).await.expect("sent");
            poll_fn(|context| here.poll_sent(context)).await.expect("sent");
        };
        let receive = async {
            let mut received = 0;
            while received < begun {
                received += receive(&there).await.expect("more").len();
            }
        };
        futures_lite::future::zip(rest, receive).await;
        assert_eq!(told(&unsent), 0);
    }

    /// A receiver that rests is woken by what comes; what it has had before stays.
    pub async fn a_receiver_that_rests_misses_nothing(here: Stream, there: Stream) {
        let mut seen = Vec::new();
        for turn in 0..4_u8 {
            let mut waiting = Box::pin(receive(&there));
            assert!(poll_once(&mut waiting).await.is_none());
            there.rest();
            assert!(poll_once(&mut waiting).await.is_none());
            send_all(&here, &mut outbox(&[turn; 3])).await.expect("sent");
            let mut received = waiting.await.expect("something");
            while received.len() < 3 {
                let next = receive(&there).await.expect("the rest");
                let wanted = received.len() + next.len();
                assert!(received.join(next, wanted).is_empty());
            }
            seen.push(received);
        }
        let seen: Vec<u8> = seen.iter().flat_map(|it| it.as_slice().to_vec()).collect();
        assert_eq!(seen, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]);
    }

    /// Whoever receives nothing more still sends; and a connection that ends with something unsent loses it.
    pub async fn both_directions_end_as_they_are_told(here: Stream, there: Stream) {
        there.end_receiving();
        assert!(receive(&there).await.expect("the end").is_empty());
        send_all(&there, &mut outbox(b"still there")).await.expect("sent");
        let mut all = Vec::with_capacity(11);
        while all.len() < 11 {
            poll_fn(|context| here.poll_recv_into(context, &mut all, 11)).await.expect("more");
        }
        assert_eq!(all, b"still there");
        there.end(&outbox(b"never sent"));
        drop(there);
        // It may seem to be closed or lost.
        assert_eq!(receive_all(&here).await.unwrap_or_default(), b"");
    }

    /// Another task of another core goes on where this one stopped.
    pub async fn a_detached_stream_goes_on(io: Io, here: Stream, there: Stream) {
        send_all(&here, &mut outbox(b"before")).await.expect("sent");
        let detached = there.detach().await.expect("a descriptor");
        let from = detached.peer_address().expect("connected");
        drop(there);
        let there = detached.attach(&io);
        send_all(&here, &mut outbox(b" and behind")).await.expect("sent");
        let detached = here.detach().await.expect("a descriptor");
        assert_ne!(detached.peer_address().expect("connected"), from);
        drop(here);
        drop(detached);
        let all = receive_all(&there).await;
        // One that arrives nowhere is closed, with or without what was on the way.
        assert!(all.is_err() || b"before and behind".starts_with(&all.expect("looked at")));
    }
}
