//! What is under way in the kernel, with all that it points to.

use std::{
    collections::VecDeque,
    ffi::CString,
    io,
    ops::Range,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    rc::Rc,
    sync::Arc,
};

use io_uring::{opcode, squeue, types::Fd};

use super::{
    bell::Bell,
    buffers::GROUP,
    stream::{Listener, Socket},
};
use crate::io::{Buffer, Slice, channel::OneshotSender, glommio};

/// Tells the kernel that there is nothing to receive yet, as far as we know: it need not try first.
const POLL_FIRST: u16 = 1;

/// An operation. It owns what the kernel reads or writes meanwhile, and keeps descriptors open, until it has completed.
pub(super) enum Op {
    /// Some bytes, into a buffer of the ring's.
    Receive(Rc<Socket>, More),
    /// Until there is something to receive.
    Readable(Rc<Socket>),
    /// Until there is room to send.
    Writable(Rc<Socket>),
    Send(Rc<Socket>, Box<Sending>),
    Accept(Rc<Listener>),
    /// Until the core's bell has been rung.
    Bell(Arc<Bell>, Box<[u8; 8]>),
    Open(Box<OpenOp>),
    File(Box<FileOp>),
}

/// Whether more is known to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum More {
    Known,
    Unknown,
}

impl Op {
    /// The entry for the kernel. It points only to what this operation owns and does not move with it.
    pub(super) fn entry(&mut self) -> squeue::Entry {
        match self {
            Self::Receive(socket, more) => opcode::Recv::new(Fd(socket.descriptor()), std::ptr::null_mut(), 0)
                .buf_group(GROUP)
                .ioprio(if *more == More::Known { 0 } else { POLL_FIRST })
                .build()
                .flags(squeue::Flags::BUFFER_SELECT),
            Self::Readable(socket) => opcode::PollAdd::new(Fd(socket.descriptor()), libc::POLLIN as u32).build(),
            Self::Writable(socket) => opcode::PollAdd::new(Fd(socket.descriptor()), libc::POLLOUT as u32).build(),
            Self::Send(socket, sending) => sending.entry(socket.descriptor()),
            Self::Accept(listener) => {
                let descriptor = Fd(listener.descriptor());
                opcode::Accept::new(descriptor, std::ptr::null_mut(), std::ptr::null_mut())
                    .flags(libc::SOCK_CLOEXEC)
                    .build()
            }
            Self::Bell(bell, counter) => {
                opcode::Read::new(Fd(bell.event().as_raw_fd()), counter.as_mut_ptr(), counter.len() as u32).build()
            }
            Self::Open(operation) => {
                let OpenOp { path, flags, .. } = &**operation;
                opcode::OpenAt::new(Fd(libc::AT_FDCWD), path.as_ptr()).flags(*flags).mode(0o644).build()
            }
            Self::File(operation) => operation.entry(),
        }
    }
}

/// Pieces on their way into a socket.
#[derive(Default)]
pub(super) struct Sending {
    pub(super) pieces: VecDeque<Slice>,
    /// How much of the first piece is not to be sent again.
    pub(super) skip: usize,
    pub(super) left: usize,
    /// Bytes of the pieces that are not parts of a core's buffers.
    pub(super) own_bytes: usize,
    vectors: Vec<libc::iovec>,
    header: Option<libc::msghdr>,
}

impl Sending {
    fn entry(&mut self, descriptor: RawFd) -> squeue::Entry {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let skip = |index| if index == 0 { self.skip } else { 0 };
        if let [piece] = self.pieces.make_contiguous() {
            let bytes = &piece[self.skip..];
            return opcode::Send::new(Fd(descriptor), bytes.as_ptr(), bytes.len() as u32).flags(flags).build();
        }
        self.vectors.clear();
        self.vectors.extend(self.pieces.iter().enumerate().map(|(index, piece)| {
            let bytes = &piece[skip(index)..];
            libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
        }));
        let header = self.header.insert(libc::msghdr {
            msg_name: std::ptr::null_mut(),
            msg_namelen: 0,
            msg_iov: self.vectors.as_mut_ptr(),
            msg_iovlen: self.vectors.len() as _,
            msg_control: std::ptr::null_mut(),
            msg_controllen: 0,
            msg_flags: 0,
        });
        opcode::SendMsg::new(Fd(descriptor), header).flags(flags as u32).build()
    }

    /// What would be free if the pieces were not there, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.pieces.iter().map(Slice::held_share).sum()
    }

    /// Takes out what the kernel has taken. Whether that was all.
    pub(super) fn sent(&mut self, bytes: usize) -> bool {
        self.left -= bytes.min(self.left);
        let mut sent = self.skip + bytes;
        while self.pieces.front().is_some_and(|piece| piece.len() <= sent) {
            sent -= self.pieces.pop_front().map_or(0, |piece| piece.len());
        }
        self.skip = sent;
        self.left == 0
    }
}

/// The opening of a file.
pub(super) struct OpenOp {
    pub(super) path: CString,
    pub(super) flags: i32,
    pub(super) done: OneshotSender<io::Result<OwnedFd>>,
}

/// A read or a write of a file.
pub(super) struct FileOp {
    /// Kept open.
    pub(super) file: glommio::File,
    pub(super) position: u64,
    pub(super) memory: FileMemory,
    pub(super) done: OneshotSender<(i32, FileMemory)>,
}

/// What is read into or written.
pub(super) enum FileMemory {
    Read(Buffer),
    Write(crate::io::SharedBuffer, Range<usize>),
}

impl FileOp {
    fn entry(&mut self) -> squeue::Entry {
        let descriptor = Fd(self.file.raw_fd());
        match &mut self.memory {
            FileMemory::Read(buffer) => {
                let bytes = buffer.as_mut();
                opcode::Read::new(descriptor, bytes.as_mut_ptr(), bytes.len() as u32).offset(self.position).build()
            }
            FileMemory::Write(buffer, range) => {
                let start = buffer.start().wrapping_add(range.start);
                opcode::Write::new(descriptor, start, range.len() as u32).offset(self.position).build()
            }
        }
    }
}
