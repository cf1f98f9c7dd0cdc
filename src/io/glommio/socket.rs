//! The socket calls that neither glommio nor std offers: gathering send, receive into spare capacity, bind before
//! listen, and moving a descriptor into or out of glommio.

#![allow(unsafe_code)]

use std::{
    io::{self, IoSlice},
    net::{Shutdown, SocketAddr, TcpStream as StdStream, ToSocketAddrs},
    os::fd::{AsRawFd, FromRawFd, IntoRawFd},
    time::Duration,
};

use ::glommio::net::{AcceptedTcpStream, TcpListener, TcpStream};
use socket2::{Domain, SockRef, Socket, Type};

use super::tasks::offload;
use crate::io::{BYTES_AT_ONCE_MAX, PIECES_AT_ONCE_MAX};

/// Sends the beginning of `pieces` in one call and never waits. Nothing is copied in user space.
/// Takes at most [`PIECES_AT_ONCE_MAX`] pieces and [`BYTES_AT_ONCE_MAX`] bytes; returns how many bytes the kernel took.
/// # Errors  `WouldBlock` if the socket's buffer is full; anything else ends the connection.
pub(in crate::io) fn send_pieces<'a>(
    stream: &impl AsRawFd,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> io::Result<usize> {
    let mut vectors = [IoSlice::new(&[]); PIECES_AT_ONCE_MAX];
    let mut count = 0;
    let mut room = BYTES_AT_ONCE_MAX;
    for piece in pieces.filter(|piece| !piece.is_empty()) {
        if count == PIECES_AT_ONCE_MAX || room == 0 {
            break;
        }
        let taken = piece.len().min(room);
        vectors[count] = IoSlice::new(&piece[..taken]);
        count += 1;
        room -= taken;
    }
    if count == 0 {
        return Ok(0);
    }
    // glommio's sockets are blocking ones, so MSG_DONTWAIT is what keeps the core from being parked in here.
    let socket = SockRef::from(stream);
    uninterrupted(|| socket.send_vectored_with_flags(&vectors[..count], libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL))
}

/// Receives at most `up_to` bytes behind what `into` holds and never waits. The memory need not be initialised, so a
/// large body costs neither a `memset` nor a page before its bytes have arrived.
/// Returns 0 at the end of the stream. The caller has reserved the capacity: at most what is spare is received.
/// # Errors  `WouldBlock` if nothing is there; anything else ends the connection.
pub(in crate::io) fn receive_into(stream: &impl AsRawFd, into: &mut Vec<u8>, up_to: usize) -> io::Result<usize> {
    let spare = into.spare_capacity_mut();
    let length = spare.len().min(up_to);
    assert!(length > 0, "asked to receive into no room: 0 would read as the end of the stream");
    let socket = SockRef::from(stream);
    let received = uninterrupted(|| socket.recv_with_flags(&mut spare[..length], libc::MSG_DONTWAIT))?;
    // SAFETY: the kernel has just initialised exactly `received` bytes behind the old length, within the capacity.
    unsafe { into.set_len(into.len() + received) };
    Ok(received)
}

/// The call's result once no signal has come in between.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// A socket bound to `address` that does not listen yet: its port is known, but nobody can connect.
/// SO_REUSEADDR lets a restart pass connections in TIME_WAIT; without SO_REUSEPORT a second listener on the port fails.
/// # Errors  `AddrInUse` if somebody listens there already; whatever else the system says.
pub(super) fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // The wildcard address serves IPv4 as well, as Java's sockets do, whatever net.ipv6.bindv6only says.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// The address that a bound socket got, with the port that the system chose for port 0.
/// # Errors  whatever the system says.
pub(super) fn local_address(socket: &Socket) -> io::Result<SocketAddr> {
    Ok(socket.local_addr()?.as_socket().expect("bound to an address of the internet"))
}

/// Gives a listening socket to glommio; must be called on the executor that will accept.
pub(super) fn adopt_listener(socket: Socket) -> TcpListener {
    // SAFETY: the descriptor is owned, and its ownership goes to the listener.
    unsafe { TcpListener::from_raw_fd(socket.into_raw_fd()) }
}

/// A socket that has begun to connect; when there is room to send, it has, or has failed ([`connected`] tells).
/// # Errors  whatever the system says.
pub(in crate::io) fn begin_connecting(to: SocketAddr) -> io::Result<StdStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        Ok(()) | Err(_) => Ok(socket.into()),
    }
}

/// Whether a socket has connected. It is one that waits from then on, as accepted ones are.
/// # Errors  `ConnectionRefused` if nobody listens there; whatever else the system says.
pub(in crate::io) fn connected(stream: &StdStream) -> io::Result<()> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    // A port of this machine that nobody listens on may be the one that the system has chosen for ourselves.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nonblocking(false)
}

/// The addresses of a host. Asked on another thread: it may take seconds.
/// # Errors  The system's: it knows none.
pub(in crate::io) async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let host = host.to_owned();
    offload(move || (host.as_str(), port).to_socket_addrs().map(Iterator::collect)).await
}

/// Turns what glommio accepted into something that closes itself when it is lost on the way to another core.
/// Must be called on an executor.
/// # Errors  `EMFILE` if no descriptor is left: the connection is closed then.
pub(super) fn detach(accepted: AcceptedTcpStream) -> io::Result<StdStream> {
    duplicate(&accepted.bind_to_executor())
}

/// A second descriptor of a connection, for another core: glommio gives its own away to nobody, so drop that one.
/// # Errors  `EMFILE` if no descriptor is left.
pub(super) fn duplicate(stream: &impl AsRawFd) -> io::Result<StdStream> {
    Ok(SockRef::from(stream).try_clone()?.into())
}

/// Gives a connection to the executor that this is called on.
pub(super) fn adopt_stream(stream: StdStream) -> TcpStream {
    // SAFETY: the descriptor is owned, and its ownership goes to the glommio stream.
    unsafe { TcpStream::from_raw_fd(stream.into_raw_fd()) }
}

/// Ends both directions at once, so that tasks that wait on the socket wake and see it.
pub(in crate::io) fn shut_down(stream: &impl AsRawFd) {
    // An error only says that the peer has already gone.
    let _ = SockRef::from(stream).shutdown(Shutdown::Both);
}

/// Ends the receiving direction: the reader sees the end of the stream, replies still go out.
pub(in crate::io) fn shut_down_read(stream: &impl AsRawFd) {
    // As above.
    let _ = SockRef::from(stream).shutdown(Shutdown::Read);
}

/// Makes the close drop what the peer has not read, instead of the kernel keeping it for minutes.
pub(in crate::io) fn discard_unsent_on_close(stream: &impl AsRawFd) {
    // An error leaves the default, which is only slower.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Bounds the kernel's memory for one direction of a connection, in bytes; the kernel doubles it for its own book-keeping.
/// # Errors  whatever the system says.
pub(in crate::io) fn set_buffer_bytes(
    stream: &impl AsRawFd,
    send: Option<i32>,
    receive: Option<i32>,
) -> io::Result<()> {
    let socket = SockRef::from(stream);
    let size = |bytes: i32| usize::try_from(bytes).unwrap_or_default();
    if let Some(bytes) = send {
        socket.set_send_buffer_size(size(bytes))?;
    }
    if let Some(bytes) = receive {
        socket.set_recv_buffer_size(size(bytes))?;
    }
    Ok(())
}

/// Lets the kernel ask a silent peer whether it is still there, so that one whose machine is gone is let go even where
/// `connections.max.idle.ms` is not to end anything.
/// # Errors  whatever the system says.
pub(in crate::io) fn keep_alive(stream: &impl AsRawFd) -> io::Result<()> {
    SockRef::from(stream).set_keepalive(true)
}
