//! The simulated network: connections between nodes, whose bytes take time, come in pieces, wait for a slow reader, and get
//! lost when a connection is cut.

use std::{
    cell::Cell,
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    io,
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};

use super::{
    tasks::Sleep,
    world::{Event, World},
};
use crate::io::{
    BYTES_AT_ONCE_MAX, Instant, Io, Outbox, PIECES_AT_ONCE_MAX, RECEIVED_BYTES_MAX, Received, StreamOptions,
};

/// The first port of those who connect.
const CLIENT_PORT_MIN: u16 = 32_768;

/// What becomes of connections that are opened from now on. Without faults all that is sent at once comes at once, soon.
#[derive(Clone, Debug)]
pub struct Network {
    /// Bytes of each direction that were sent and not received; more has to wait.
    pub buffer_bytes: usize,
    /// Of one connection in so many, bytes come in pieces of any size, also one by one. Here and below, 0 is none.
    pub pieces_one_in: u64,
    /// One connection in so many is slow: its buffers hold little, and what is sent is on its way for long.
    pub slow_one_in: u64,
    /// One connection in so many ends at any byte, of either direction.
    pub cut_one_in: u64,
    /// Within the first so many bytes.
    pub cut_bytes_max: usize,
    /// If that is not 0, half of those that are cut end at any moment within so many nanoseconds instead: whatever has arrived
    /// by then goes on being done.
    pub cut_ns_max: u64,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            buffer_bytes: 64 << 10,
            pieces_one_in: 0,
            slow_one_in: 0,
            cut_one_in: 0,
            cut_bytes_max: 16 << 10,
            cut_ns_max: 0,
        }
    }
}

/// Bytes that a direction of a slow connection holds.
const SLOW_BUFFER_BYTES: usize = 4096;

/// Nanoseconds that bytes are on their way, at least and at most; and on a slow connection.
const DELAY_NS: (u64, u64) = (10_000, 60_000);
const SLOW_DELAY_NS: (u64, u64) = (50_000, 400_000);

/// The world's part of the network.
#[derive(Default)]
pub(super) struct Addresses {
    pub(super) network: Network,
    bound: BTreeMap<SocketAddr, Arc<Bound>>,
    connected: u16,
}

/// A connection. Its ends may live on different nodes, and be carried from core to core.
struct Link {
    addresses: [SocketAddr; 2],
    in_pieces: bool,
    delay_ns: (u64, u64),
    buffer_bytes: usize,
    state: Mutex<State>,
}

struct State {
    /// By who sends.
    ways: [Way; 2],
    /// Ends that nobody holds any more.
    closed: [bool; 2],
    /// Ends that receive nothing more by their own will.
    deaf: [bool; 2],
    /// The connection was cut: nothing more arrives.
    reset: bool,
}

/// One direction.
#[derive(Default)]
struct Way {
    /// Sent and not received.
    pieces: VecDeque<Bytes>,
    bytes: usize,
    /// Of these, the first so many have arrived.
    arrived: usize,
    /// Nothing more is sent; and the receiver has been told.
    ended: bool,
    end_arrived: bool,
    /// Something is on its way.
    moves: bool,
    /// The connection is cut when so many more bytes have arrived.
    cut_after: Option<usize>,
    receiver: Option<Waker>,
    sender: Option<Waker>,
}

impl State {
    fn wakers(&mut self) -> Vec<Waker> {
        self.ways.iter_mut().flat_map(|way| [way.receiver.take(), way.sender.take()]).flatten().collect()
    }

    fn cut(&mut self) {
        self.reset = true;
        for way in &mut self.ways {
            // What has arrived can still be received.
            way.bytes = way.arrived;
            way.ended = true;
        }
    }
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something that whoever waits on this connection should see.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let wakers = {
            let mut state = self.lock();
            change(&mut state);
            state.wakers()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Sees to it that what `side` has sent arrives, and its end.
    fn set_off(self: &Arc<Self>, world: &World, side: usize, state: &mut State) {
        let way = &mut state.ways[side];
        let all_there = way.arrived == way.bytes && way.ended == way.end_arrived;
        if way.moves || all_there || state.reset {
            return;
        }
        way.moves = true;
        let (least, most) = self.delay_ns;
        let due = world.now().0 + least + world.below(most - least);
        let link = self.clone();
        world.schedule(due, Event::Call(Box::new(move |world| link.arrive(world, side))));
    }

    /// Something that `side` has sent arrives.
    fn arrive(self: &Arc<Self>, world: &World, side: usize) {
        let wakers = {
            let mut state = self.lock();
            state.ways[side].moves = false;
            if !state.reset {
                self.take_in(world, side, &mut state);
            }
            if state.reset { state.wakers() } else { state.ways[side].receiver.take().into_iter().collect() }
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    fn take_in(self: &Arc<Self>, world: &World, side: usize, state: &mut State) {
        if state.closed[1 - side] && state.ways[side].bytes > 0 {
            // Nobody is there any more.
            return state.cut();
        }
        let way = &mut state.ways[side];
        let left = way.bytes - way.arrived;
        let mut arriving = if self.in_pieces { piece(world, left) } else { left };
        let cut = way.cut_after.filter(|after| *after <= arriving);
        arriving = cut.unwrap_or(arriving);
        way.cut_after = way.cut_after.map(|after| after - arriving);
        way.arrived += arriving;
        world.note(10, arriving as u64);
        if cut.is_some() {
            // To its receiver it may look as if the sender had closed it.
            way.end_arrived = world.one_in(2);
            return state.cut();
        }
        way.end_arrived = way.ended && way.arrived == way.bytes;
        self.set_off(world, side, state);
    }
}

/// How many of `left` bytes come together.
fn piece(world: &World, left: usize) -> usize {
    match left {
        0 | 1 => left,
        _ if world.one_in(4) => 1,
        _ => 1 + world.below(left as u64) as usize,
    }
}

/// One end of a connection, on its core.
pub struct Stream {
    world: Rc<World>,
    link: Arc<Link>,
    side: usize,
    detached: Cell<bool>,
}

impl Stream {
    pub(in crate::io) fn configure(&self, _: &StreamOptions) -> io::Result<()> {
        Ok(())
    }

    pub(in crate::io) fn poll_recv(&self, context: &mut Context<'_>, _room: usize) -> Poll<io::Result<Received>> {
        self.poll_piece(context, RECEIVED_BYTES_MAX).map_ok(|piece| BytesMut::from(piece).into())
    }

    pub(in crate::io) fn poll_recv_into(
        &self,
        context: &mut Context<'_>,
        into: &mut Vec<u8>,
        up_to: usize,
    ) -> Poll<io::Result<usize>> {
        let room = up_to.min(into.capacity() - into.len());
        assert!(room > 0, "asked to receive into no room: 0 would read as the end of the stream");
        self.poll_piece(context, room).map_ok(|piece| {
            into.extend_from_slice(&piece);
            piece.len()
        })
    }

    fn poll_piece(&self, context: &mut Context<'_>, at_most: usize) -> Poll<io::Result<Bytes>> {
        let mut state = self.link.lock();
        let (deaf, reset) = (state.deaf[self.side], state.reset);
        let way = &mut state.ways[1 - self.side];
        if way.arrived == 0 {
            if deaf || way.end_arrived {
                return Poll::Ready(Ok(Bytes::new()));
            }
            if reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            way.receiver = Some(context.waker().clone());
            return Poll::Pending;
        }
        let first = way.pieces.front_mut().expect("what has arrived was sent");
        let taken = first.split_to(first.len().min(at_most).min(way.arrived));
        if first.is_empty() {
            way.pieces.pop_front();
        }
        way.bytes -= taken.len();
        way.arrived -= taken.len();
        let sender = way.sender.take();
        drop(state);
        if let Some(sender) = sender {
            sender.wake();
        }
        Poll::Ready(Ok(taken))
    }

    pub(in crate::io) fn rest(&self) {}

    pub(in crate::io) fn poll_send(&self, context: &mut Context<'_>, outbox: &mut Outbox) -> Poll<io::Result<usize>> {
        let mut state = self.link.lock();
        if state.reset || state.ways[self.side].ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let way = &mut state.ways[self.side];
        let room = self.link.buffer_bytes.saturating_sub(way.bytes);
        if room == 0 {
            way.sender = Some(context.waker().clone());
            return Poll::Pending;
        }
        let mut left = room.min(BYTES_AT_ONCE_MAX);
        let mut piece = Vec::new();
        for slice in outbox.slices().take(PIECES_AT_ONCE_MAX) {
            let taken = slice.len().min(left);
            piece.extend_from_slice(&slice[..taken]);
            left -= taken;
        }
        if self.link.in_pieces {
            piece.truncate(self::piece(&self.world, piece.len()));
        }
        let sent = piece.len();
        way.bytes += sent;
        way.pieces.push_back(piece.into());
        self.link.set_off(&self.world, self.side, &mut state);
        outbox.sent(sent)?;
        Poll::Ready(Ok(sent))
    }

    pub(in crate::io) fn end_receiving(&self) {
        self.link.change(|state| state.deaf[self.side] = true);
    }

    pub(in crate::io) fn end(&self, outbox: &Outbox) {
        self.link.change(|state| {
            if outbox.unsent_bytes() > 0 {
                state.cut();
            }
            state.deaf[self.side] = true;
            state.ways[self.side].ended = true;
            self.link.set_off(&self.world, self.side, state);
        });
    }

    pub(in crate::io) fn detach(&self) -> DetachedStream {
        self.detached.set(true);
        DetachedStream(Some((self.link.clone(), self.side)))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.detached.get() {
            return;
        }
        self.link.change(|state| {
            // As in TCP: whoever goes without having received everything does not say goodbye.
            if state.ways[1 - self.side].bytes > 0 {
                state.cut();
            }
            state.closed[self.side] = true;
            state.ways[self.side].ended = true;
            self.link.set_off(&self.world, self.side, state);
        });
    }
}

/// A connection on its way to its core.
pub struct DetachedStream(Option<(Arc<Link>, usize)>);

impl DetachedStream {
    pub(in crate::io) fn peer_address(&self) -> io::Result<SocketAddr> {
        let (link, side) = self.0.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        Ok(link.addresses[1 - side])
    }

    pub(in crate::io) fn attach(mut self, io: &Io) -> Stream {
        let (link, side) = self.0.take().expect("it is taken once");
        Stream { world: world_of(io), link, side, detached: Cell::new(false) }
    }
}

impl Drop for DetachedStream {
    fn drop(&mut self) {
        if let Some((link, side)) = self.0.take() {
            link.change(|state| {
                state.closed[side] = true;
                state.cut();
            });
        }
    }
}

fn world_of(io: &Io) -> Rc<World> {
    io.clock.simulated().expect("simulated connections live on simulated cores").world().clone()
}

/// An address of a node. Whoever held it before may have died with it.
struct Bound {
    address: SocketAddr,
    state: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    held: bool,
    open: bool,
    connections: VecDeque<DetachedStream>,
    waker: Option<Waker>,
}

impl Bound {
    fn new(address: SocketAddr) -> Arc<Self> {
        Arc::new(Self { address, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An address that is ours.
pub struct BoundAddress(Arc<Bound>);

impl BoundAddress {
    pub(super) fn bind(world: &World, address: SocketAddr) -> io::Result<Self> {
        let mut addresses = world.addresses.borrow_mut();
        let bound = addresses.bound.entry(address).or_insert_with(|| Bound::new(address));
        if std::mem::replace(&mut bound.lock().held, true) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        Ok(Self(bound.clone()))
    }

    pub(in crate::io) fn address(&self) -> io::Result<SocketAddr> {
        Ok(self.0.address)
    }

    pub(in crate::io) fn open(&self) -> io::Result<()> {
        self.0.lock().open = true;
        Ok(())
    }

    pub(in crate::io) fn attach(self, _: &Io) -> Incoming {
        Incoming(self)
    }
}

impl Drop for BoundAddress {
    fn drop(&mut self) {
        let unaccepted = std::mem::take(&mut *self.0.lock());
        drop(unaccepted);
    }
}

/// The connections that come to an address.
pub struct Incoming(BoundAddress);

impl Incoming {
    pub(in crate::io) async fn next(&self) -> DetachedStream {
        poll_fn(|context| {
            let mut waiting = self.0.0.lock();
            if let Some(connection) = waiting.connections.pop_front() {
                return Poll::Ready(connection);
            }
            waiting.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// The address of a node.
#[must_use]
pub fn address(node: usize, port: u16) -> SocketAddr {
    let node = u8::try_from(node + 1).expect("a simulation has a few nodes");
    SocketAddr::new(Ipv4Addr::new(10, 0, 0, node).into(), port)
}

/// Connects a node to an address, once that has been heard of there.
pub(super) async fn connect(world: Rc<World>, node: usize, to: SocketAddr) -> io::Result<Stream> {
    let due = world.now().0 + DELAY_NS.0 + world.below(DELAY_NS.1 - DELAY_NS.0);
    Sleep::until(&world, Instant(due)).await;
    let bound = world.addresses.borrow().bound.get(&to).cloned().ok_or(io::ErrorKind::ConnectionRefused)?;
    if !bound.lock().open {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    let link = link(&world, node, to);
    let waker = {
        let mut waiting = bound.lock();
        waiting.connections.push_back(DetachedStream(Some((link.clone(), 1))));
        waiting.waker.take()
    };
    if let Some(waker) = waker {
        waker.wake();
    }
    Ok(Stream { world, link, side: 0, detached: Cell::new(false) })
}

fn link(world: &World, node: usize, to: SocketAddr) -> Arc<Link> {
    let (network, port) = {
        let mut addresses = world.addresses.borrow_mut();
        addresses.connected = addresses.connected.wrapping_add(1) % (u16::MAX - CLIENT_PORT_MIN);
        (addresses.network.clone(), CLIENT_PORT_MIN + addresses.connected)
    };
    let befalls = |one_in: u64| one_in > 0 && world.one_in(one_in);
    let mut ways = [Way::default(), Way::default()];
    let is_cut = befalls(network.cut_one_in);
    let cut_at = (is_cut && network.cut_ns_max > 0 && world.one_in(2)).then(|| world.below(network.cut_ns_max));
    if is_cut && cut_at.is_none() {
        let way = &mut ways[world.below(2) as usize];
        way.cut_after = Some(1 + world.below(network.cut_bytes_max as u64) as usize);
    }
    let slow = befalls(network.slow_one_in);
    let link = Arc::new(Link {
        addresses: [address(node, port), to],
        in_pieces: befalls(network.pieces_one_in),
        delay_ns: if slow { SLOW_DELAY_NS } else { DELAY_NS },
        buffer_bytes: if slow { SLOW_BUFFER_BYTES.min(network.buffer_bytes) } else { network.buffer_bytes },
        state: Mutex::new(State { ways, closed: [false; 2], deaf: [false; 2], reset: false }),
    });
    if let Some(after) = cut_at {
        let link = link.clone();
        world.schedule(world.now().0 + after, Event::Call(Box::new(move |_| link.change(State::cut))));
    }
    link
}
