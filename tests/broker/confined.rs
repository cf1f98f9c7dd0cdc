//! What a machine may forbid or take away: set for one child process, or for one connection.
#![allow(unsafe_code)]

use std::{
    io,
    net::TcpStream,
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::Command,
};

/// The system calls of io_uring: setup, enter and register have neighbouring numbers on every architecture.
const IO_URING_FIRST: u32 = 425;
const IO_URING_LAST: u32 = 427;

/// `CAP_IPC_LOCK`: who has it may lock what he likes.
const CAP_IPC_LOCK: libc::c_ulong = 14;

fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Refuses io_uring to the child, as a container's seccomp profile does.
pub fn without_io_uring(command: &mut Command) -> &mut Command {
    let statement = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let jump = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let load_number = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let at_least = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    let above = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
    let answer = (libc::BPF_RET | libc::BPF_K) as u16;
    let mut program = [
        statement(load_number, 0),
        jump(at_least, IO_URING_FIRST, 0, 2),
        jump(above, IO_URING_LAST, 1, 0),
        statement(answer, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        statement(answer, libc::SECCOMP_RET_ALLOW),
    ];
    let confine = move || {
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: plain numbers.
        checked(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
        // SAFETY: `filter` and the program that it points to live through the call; the kernel copies them.
        checked(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) })
    };
    // SAFETY: between fork and exec it makes two system calls and touches memory of its own only.
    unsafe { command.pre_exec(confine) }
}

/// Lets the child lock so many bytes and no more, whoever runs it.
pub fn with_memlock(command: &mut Command, bytes: u64) -> &mut Command {
    let confine = move || {
        // Refused to those who do not have it either; then there is nothing to take away.
        // SAFETY: plain numbers.
        let _ = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0) };
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
        // SAFETY: `limit` lives through the call.
        checked(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) })
    };
    // SAFETY: between fork and exec it makes two system calls and touches memory of its own only.
    unsafe { command.pre_exec(confine) }
}

/// Lets this process open so many files.
/// # Errors  If its hard limit is lower.
pub fn open_files(count: u64) -> io::Result<()> {
    // SAFETY: rlimit is plain data, writable for the call.
    let mut limit: libc::rlimit = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    checked(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_cur.max(count);
    // SAFETY: `limit` lives through the call.
    checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })
}

/// Starts the child as `nohup` does.
pub fn ignoring_hangups(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec it makes one system call.
    let ignore = || match unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    };
    // SAFETY: as above.
    unsafe { command.pre_exec(ignore) }
}

/// Ends a connection without a word to the other side, as a machine does that loses power.
/// # Errors  Where the right to do so is missing; the connection is then closed as usual.
pub fn vanish(stream: TcpStream) -> io::Result<()> {
    /// `linux/tcp.h`; a socket under repair is closed silently.
    const TCP_REPAIR: libc::c_int = 19;
    let on: libc::c_int = 1;
    let size = std::mem::size_of_val(&on) as libc::socklen_t;
    // SAFETY: `on` lives through the call and its size is given.
    let set =
        unsafe { libc::setsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, TCP_REPAIR, (&raw const on).cast(), size) };
    checked(set)
}
