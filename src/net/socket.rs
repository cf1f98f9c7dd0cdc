//! The socket calls that neither glommio nor std offers: gathering send, receive into spare capacity, bind before
//! listen, and moving a descriptor into or out of glommio.

#![allow(unsafe_code)]

use std::{
    io, mem,
    net::{SocketAddr, TcpStream as StdStream},
    os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd},
    ptr,
};

use glommio::net::{AcceptedTcpStream, TcpListener, TcpStream};

/// The pieces that one `sendmsg` takes; the kernel's own bound is 1,024, and copying more vectors costs more than it saves.
pub const PIECES_PER_CALL_MAX: usize = 64;

/// The bytes that one `sendmsg` takes, so that one fast consumer does not hold the core.
pub const BYTES_PER_CALL_MAX: usize = 1 << 20;

/// Sends the beginning of `pieces` in one call and never waits. Nothing is copied in user space.
/// Takes at most [`PIECES_PER_CALL_MAX`] pieces and [`BYTES_PER_CALL_MAX`] bytes; returns how many bytes the kernel took.
/// # Errors  `WouldBlock` if the socket's buffer is full; anything else ends the connection.
pub fn send_pieces<'a>(stream: &TcpStream, pieces: impl Iterator<Item = &'a [u8]>) -> io::Result<usize> {
    let mut vectors = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; PIECES_PER_CALL_MAX];
    let mut count = 0;
    let mut room = BYTES_PER_CALL_MAX;
    for piece in pieces.filter(|piece| !piece.is_empty()) {
        if count == PIECES_PER_CALL_MAX || room == 0 {
            break;
        }
        let taken = piece.len().min(room);
        vectors[count] = libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: taken };
        count += 1;
        room -= taken;
    }
    if count == 0 {
        return Ok(0);
    }
    // SAFETY: msghdr is plain data for which all zeroes mean "absent".
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = count as _;
    // glommio's sockets are blocking ones, so MSG_DONTWAIT is what keeps the core from being parked in here.
    // SAFETY: the vectors point into `pieces`, which are borrowed until this function returns; the kernel only reads them.
    let sent = unsafe { libc::sendmsg(stream.as_raw_fd(), &message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
}

/// Receives at most `up_to` bytes behind what `into` holds and never waits. The memory need not be initialised, so a
/// large body costs neither a `memset` nor a page before its bytes have arrived.
/// Returns 0 at the end of the stream. The caller has reserved the capacity: at most what is spare is received.
/// # Errors  `WouldBlock` if nothing is there; anything else ends the connection.
pub fn receive_into(stream: &TcpStream, into: &mut Vec<u8>, up_to: usize) -> io::Result<usize> {
    let spare = into.spare_capacity_mut();
    let length = spare.len().min(up_to);
    assert!(length > 0, "asked to receive into no room: 0 would read as the end of the stream");
    // SAFETY: the kernel writes at most `length` bytes into the spare capacity, which `into` owns for the whole call.
    let received = unsafe { libc::recv(stream.as_raw_fd(), spare.as_mut_ptr().cast(), length, libc::MSG_DONTWAIT) };
    if received < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just initialised exactly `received` bytes behind the old length, within the capacity.
    unsafe { into.set_len(into.len() + received as usize) };
    Ok(received as usize)
}

/// A socket bound to `address` that does not listen yet: its port is known, but nobody can connect.
/// SO_REUSEADDR lets a restart pass connections in TIME_WAIT; without SO_REUSEPORT a second listener on the port fails.
/// # Errors  `AddrInUse` if somebody listens there already; whatever else the system says.
pub fn bind(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
    // SAFETY: no pointers.
    let raw = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    set_option(raw, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if address.is_ipv6() {
        // The wildcard address serves IPv4 as well, as Java's sockets do, whatever net.ipv6.bindv6only says.
        let only_ipv6 = i32::from(!address.ip().is_unspecified());
        set_option(raw, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, only_ipv6)?;
    }
    let (storage, length) = to_sockaddr(address);
    // SAFETY: `storage` holds a sockaddr of the family and `length` bytes.
    let bound = unsafe { libc::bind(raw, (&raw const storage).cast(), length) };
    if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

/// Opens a bound socket to clients.
/// # Errors  `AddrInUse` if another socket bound to the same port was quicker.
pub fn listen(socket: &OwnedFd, backlog: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    let result = unsafe { libc::listen(socket.as_raw_fd(), backlog) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The address that a bound socket got, with the port that the system chose for port 0.
/// # Errors  whatever the system says.
pub fn local_address(socket: &OwnedFd) -> io::Result<SocketAddr> {
    std::net::TcpListener::from(socket.try_clone()?).local_addr()
}

/// Gives a listening socket to glommio; must be called on the executor that will accept.
pub fn adopt_listener(socket: OwnedFd) -> TcpListener {
    // SAFETY: the descriptor is owned, and its ownership goes to the listener.
    unsafe { TcpListener::from_raw_fd(socket.into_raw_fd()) }
}

/// Turns what glommio accepted into something that closes itself when it is lost on the way to another core.
/// Must be called on an executor.
/// # Errors  `EMFILE` if no descriptor is left: the connection is closed then.
pub fn detach(accepted: AcceptedTcpStream) -> io::Result<StdStream> {
    duplicate(&accepted.bind_to_executor())
}

/// A second descriptor of a connection, for another core: glommio gives its own away to nobody, so drop that one.
/// # Errors  `EMFILE` if no descriptor is left.
pub fn duplicate(stream: &TcpStream) -> io::Result<StdStream> {
    // SAFETY: no pointers; the descriptor is open as long as `stream` lives.
    let copy = unsafe { libc::fcntl(stream.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 0) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and nobody else owns it.
    Ok(unsafe { StdStream::from_raw_fd(copy) })
}

/// Gives a connection to the executor that this is called on.
pub fn adopt_stream(stream: StdStream) -> TcpStream {
    // SAFETY: the descriptor is owned, and its ownership goes to the glommio stream.
    unsafe { TcpStream::from_raw_fd(stream.into_raw_fd()) }
}

/// Ends both directions at once, so that tasks that wait on the socket wake and see it.
pub fn shut_down(stream: &TcpStream) {
    // An error only says that the peer has already gone.
    // SAFETY: no pointers.
    unsafe { libc::shutdown(stream.as_raw_fd(), libc::SHUT_RDWR) };
}

/// Ends the receiving direction: the reader sees the end of the stream, replies still go out.
pub fn shut_down_read(stream: &TcpStream) {
    // SAFETY: no pointers.
    unsafe { libc::shutdown(stream.as_raw_fd(), libc::SHUT_RD) };
}

/// Makes the close drop what the peer has not read, instead of the kernel keeping it for minutes.
pub fn discard_unsent_on_close(stream: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: `linger` outlives the call and its size is given. An error leaves the default, which is only slower.
    unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            mem::size_of::<libc::linger>() as libc::socklen_t,
        )
    };
}

/// Bounds the kernel's memory for one direction of a connection, in bytes; the kernel doubles it for its own book-keeping.
/// # Errors  whatever the system says.
pub fn set_buffer_bytes(stream: &TcpStream, send: Option<i32>, receive: Option<i32>) -> io::Result<()> {
    if let Some(bytes) = send {
        set_option(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, bytes)?;
    }
    if let Some(bytes) = receive {
        set_option(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, bytes)?;
    }
    Ok(())
}

/// Lets the kernel ask a silent peer whether it is still there, so that one whose machine is gone is let go even where
/// `connections.max.idle.ms` is not to end anything.
/// # Errors  whatever the system says.
pub fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    set_option(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)
}

fn set_option(socket: RawFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: `value` outlives the call and its size is given.
    let result = unsafe {
        libc::setsockopt(socket, level, option, (&raw const value).cast(), mem::size_of::<i32>() as libc::socklen_t)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn to_sockaddr(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: sockaddr_storage is plain data, and all zeroes are a valid one.
    let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let length = match address {
        SocketAddr::V4(address) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_storage is large enough and aligned for every kind of address.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(raw) };
            mem::size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(address) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            };
            // SAFETY: as above.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(raw) };
            mem::size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, length as libc::socklen_t)
}
