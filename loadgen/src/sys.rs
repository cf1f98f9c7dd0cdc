//! The system calls that std lacks: epoll, eventfd, a connect that does not wait, clocks of CPU time, signals.
//!
//! epoll and not io_uring, so that the program runs in a plain container job, where io_uring is usually forbidden.
#![allow(unsafe_code)]

use std::{
    io,
    net::{SocketAddr, TcpStream},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use bytes::{BufMut, BytesMut};

const EVENTS_MAX: usize = 512;

/// Nanoseconds of the monotonic clock. The one clock of the whole program: stamps in records are read from it too.
pub fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// Nanoseconds since the epoch.
pub fn wall_ns() -> u64 {
    clock_ns(libc::CLOCK_REALTIME)
}

/// CPU time of the calling thread in nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    clock_ns(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time of this process in nanoseconds.
pub fn process_cpu_ns() -> u64 {
    clock_ns(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec that outlives the call; the clocks named above always exist on Linux.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// What a descriptor is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    Read,
    ReadWrite,
}

/// One readiness event.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub token: u64,
    pub readable: bool,
    pub writable: bool,
}

/// An epoll instance with its event buffer. Level-triggered.
pub struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
    has_pwait2: bool,
}

impl Epoll {
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked before it becomes an OwnedFd, which then owns it alone.
        let fd = unsafe {
            let fd = check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?;
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Self { fd, events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX], has_pwait2: true })
    }

    pub fn add(&self, fd: &impl AsRawFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_raw_fd(), token, interest)
    }

    pub fn modify(&self, fd: &impl AsRawFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd.as_raw_fd(), token, interest)
    }

    fn control(&self, op: i32, fd: RawFd, token: u64, interest: Interest) -> io::Result<()> {
        let events = match interest {
            Interest::Read => libc::EPOLLIN | libc::EPOLLRDHUP,
            Interest::ReadWrite => libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP,
        };
        let mut event = libc::epoll_event { events: events as u32, u64: token };
        // SAFETY: `event` is valid for the call; the kernel copies it.
        check(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), op, fd, &mut event) })?;
        Ok(())
    }

    /// Waits until something is ready or `timeout_ns` has passed (0 only polls), and appends the events to `out`.
    pub fn wait(&mut self, timeout_ns: u64, out: &mut Vec<Event>) -> io::Result<()> {
        let count = match self.wait_raw(timeout_ns) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        for event in &self.events[..count] {
            let bits = event.events;
            let closed = (libc::EPOLLHUP | libc::EPOLLERR | libc::EPOLLRDHUP) as u32;
            out.push(Event {
                token: event.u64,
                readable: bits & (libc::EPOLLIN as u32 | closed) != 0,
                writable: bits & (libc::EPOLLOUT as u32 | closed) != 0,
            });
        }
        Ok(())
    }

    fn wait_raw(&mut self, timeout_ns: u64) -> io::Result<usize> {
        let fd = self.fd.as_raw_fd();
        let (pointer, length) = (self.events.as_mut_ptr(), EVENTS_MAX as i32);
        if timeout_ns > 0 && self.has_pwait2 {
            let timeout = libc::timespec {
                tv_sec: (timeout_ns / 1_000_000_000) as i64,
                tv_nsec: (timeout_ns % 1_000_000_000) as i64,
            };
            // SAFETY: `pointer` addresses EVENTS_MAX events owned by self; `timeout` outlives the call; no signal mask.
            let result = unsafe { libc::epoll_pwait2(fd, pointer, length, &timeout, std::ptr::null()) };
            match check(result) {
                Ok(count) => return Ok(count as usize),
                Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => self.has_pwait2 = false,
                Err(error) => return Err(error),
            }
        }
        // Before Linux 5.11: whole milliseconds, rounded down, so that the caller polls away the rest and is never late.
        let timeout_ms = (timeout_ns / 1_000_000).min(i32::MAX as u64) as i32;
        // SAFETY: as above.
        let count = check(unsafe { libc::epoll_wait(fd, pointer, length, timeout_ms) })?;
        Ok(count as usize)
    }
}

/// A counter that wakes an epoll from another thread.
pub struct Waker {
    fd: OwnedFd,
}

impl Waker {
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked before it becomes an OwnedFd, which then owns it alone.
        let fd = unsafe {
            let fd = check(libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC))?;
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Self { fd })
    }

    pub fn wake(&self) {
        let one = 1u64;
        // SAFETY: eight bytes of `one` are readable. A full counter (EAGAIN) has already woken the reader.
        unsafe { libc::write(self.fd.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    pub fn drain(&self) {
        let mut count = 0u64;
        // SAFETY: eight bytes of `count` are writable. EAGAIN means that there was nothing to drain.
        unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut count).cast(), 8) };
    }
}

impl AsRawFd for Waker {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Starts a TCP connect without waiting for it: the socket becomes writable when it is done, one way or the other.
pub fn connect_start(address: SocketAddr) -> io::Result<TcpStream> {
    let (family, storage, length) = raw_address(address);
    let flags = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers; the result is checked before the stream takes ownership.
    let stream = unsafe {
        let fd = check(libc::socket(family, flags, 0))?;
        TcpStream::from_raw_fd(fd)
    };
    // SAFETY: `storage` holds an address of `length` bytes of the family it names.
    let result = unsafe { libc::connect(stream.as_raw_fd(), (&raw const storage).cast(), length) };
    match check(result) {
        Ok(_) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn raw_address(address: SocketAddr) -> (i32, libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all-zero bytes are a valid sockaddr_storage.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_storage is larger than, and aligned for, every socket address.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(raw) };
            let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            (libc::AF_INET, storage, length)
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(raw) };
            let length = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            (libc::AF_INET6, storage, length)
        }
    }
}

/// Reads once from the socket into the spare room of `buffer` (no zeroing first). 0 means that the peer has closed.
pub fn receive(stream: &TcpStream, buffer: &mut BytesMut) -> io::Result<usize> {
    let spare = buffer.chunk_mut();
    let (pointer, length) = (spare.as_mut_ptr(), spare.len());
    // SAFETY: `pointer` addresses `length` writable bytes of the buffer's spare room.
    let count = unsafe { libc::recv(stream.as_raw_fd(), pointer.cast(), length, 0) };
    if count < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just initialised `count` bytes there.
    unsafe { buffer.advance_mut(count as usize) };
    Ok(count as usize)
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static INTERRUPTS: AtomicU32 = AtomicU32::new(0);

extern "C" fn on_interrupt(_signal: i32) {
    INTERRUPTED.store(true, Ordering::Relaxed);
    if INTERRUPTS.fetch_add(1, Ordering::Relaxed) >= 1 {
        // SAFETY: _exit is async-signal-safe. A second Ctrl-C means now.
        unsafe { libc::_exit(130) };
    }
}

/// Makes SIGINT and SIGTERM end the run cleanly; a second one ends the process at once.
pub fn catch_interrupts() {
    let handler = on_interrupt as extern "C" fn(i32);
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler only touches atomics and calls _exit, both async-signal-safe.
        unsafe { libc::signal(signal, handler as *const () as libc::sighandler_t) };
    }
}

/// Whether SIGINT or SIGTERM has arrived.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Sends a signal to the process group of a child that was started as its leader. No error: it may be gone already.
pub fn signal_group(leader: u32, signal: i32) {
    // SAFETY: no pointers. The caller started the group and has not reaped its leader.
    unsafe { libc::kill(-(leader as i32), signal) };
}

/// Asks for timers with no slack in this thread, so that a sleep ends within microseconds of its time.
pub fn tighten_timers() {
    // SAFETY: PR_SET_TIMERSLACK takes a number; it cannot fail for 1.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1, 0, 0, 0) };
}

/// Raises the soft limit of open files to the hard one and returns it.
pub fn raise_file_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit that outlives both calls.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
    }
    limit.rlim_cur
}

/// Clock ticks a second in `/proc/<pid>/stat`.
pub fn clock_ticks() -> u64 {
    // SAFETY: no pointers.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    if ticks > 0 { ticks as u64 } else { 100 }
}

pub fn as_duration(ns: u64) -> Duration {
    Duration::from_nanos(ns)
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
