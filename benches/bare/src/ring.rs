//! One io_uring: connections are accepted and received from with multishot operations into a ring of provided buffers.
//! What the kernel reads or writes belongs to the ring until its completion is here.
#![allow(unsafe_code)]

use std::{
    collections::HashMap,
    fs::File,
    io,
    net::{Shutdown, TcpListener, TcpStream},
    ops::Range,
    os::fd::{AsRawFd, FromRawFd},
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::{IoUring, cqueue, opcode, squeue, types};

pub const PAGE_BYTES: usize = 4_096;
const BUFFERS: u16 = 512;
const BUFFER_BYTES: usize = 16 << 10;
const BUFFER_GROUP: u16 = 1;
const ENTRIES: u32 = 1_024;
const COMPLETIONS: u32 = 4_096;

/// The lowest bits of an operation's user data; above them is the connection.
const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;
const WRITE: u64 = 3;
const KIND_BITS: u32 = 2;

#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Page([u8; PAGE_BYTES]);

/// Memory that direct I/O takes.
pub struct Block(Box<[Page]>);

impl Block {
    pub fn new(bytes: usize) -> Self {
        Self(vec![Page([0; PAGE_BYTES]); bytes.div_ceil(PAGE_BYTES)].into_boxed_slice())
    }

    pub fn bytes(&mut self) -> &mut [u8] {
        bytes_of(&mut self.0)
    }
}

fn bytes_of(pages: &mut [Page]) -> &mut [u8] {
    let bytes = size_of_val(pages);
    // SAFETY: a page is PAGE_BYTES initialised bytes without padding, pages follow one another, and they are borrowed as long
    // as the slice is.
    unsafe { std::slice::from_raw_parts_mut(pages.as_mut_ptr().cast(), bytes) }
}

/// Where a provided buffer lies in the pool.
fn pages_of(buffer: u16) -> Range<usize> {
    const PAGES: usize = BUFFER_BYTES / PAGE_BYTES;
    usize::from(buffer) * PAGES..(usize::from(buffer) + 1) * PAGES
}

/// What has happened.
pub enum Event<'a> {
    Received {
        connection: u64,
        bytes: &'a [u8],
    },
    /// The other side hung up, or the connection failed; nothing more comes of it.
    Closed {
        connection: u64,
    },
    Sent {
        connection: u64,
    },
    Written(Block),
}

struct Connection {
    socket: TcpStream,
    /// Of the send in flight.
    sending: Option<Vec<u8>>,
    closed: bool,
}

pub struct Ring {
    ring: IoUring,
    listener: TcpListener,
    journal: File,
    pool: Box<[Page]>,
    /// The entries of the ring of provided buffers; its tail is in the first one.
    entries: Box<[Page]>,
    tail: u16,
    connections: HashMap<u64, Connection>,
    next_connection: u64,
    /// Of the write in flight, and its length.
    writing: Option<(Block, usize)>,
    completed: Vec<cqueue::Entry>,
}

impl Ring {
    /// Takes connections from the listener at once. It is never dropped: so all that the kernel may still look at stays.
    /// # Errors  the kernel's, before 6.1 for instance.
    pub fn start(listener: TcpListener, journal: File) -> io::Result<&'static mut Self> {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun().setup_cqsize(COMPLETIONS);
        let pages = |bytes: usize| vec![Page([0; PAGE_BYTES]); bytes / PAGE_BYTES].into_boxed_slice();
        let ring = Box::leak(Box::new(Self {
            ring: builder.build(ENTRIES)?,
            listener,
            journal,
            pool: pages(usize::from(BUFFERS) * BUFFER_BYTES),
            entries: pages(usize::from(BUFFERS) * size_of::<types::BufRingEntry>()),
            tail: 0,
            connections: HashMap::new(),
            next_connection: 1,
            writing: None,
            completed: Vec::new(),
        }));
        let address = ring.entries.as_mut_ptr() as u64;
        // SAFETY: the entries are page-aligned, BUFFERS long, zeroed, and never freed.
        unsafe { ring.ring.submitter().register_buf_ring_with_flags(address, BUFFERS, BUFFER_GROUP, 0)? };
        (0..BUFFERS).for_each(|buffer| ring.give(buffer));
        ring.accept()?;
        Ok(ring)
    }

    /// One turn of the loop: submits what was asked for, waits for a completion, and tells what has happened. One system call.
    pub fn turn(&mut self, mut tell: impl FnMut(Event<'_>)) -> io::Result<()> {
        match self.ring.submit_and_wait(1) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            Ok(_) | Err(_) => {}
        }
        let mut completed = std::mem::take(&mut self.completed);
        completed.extend(self.ring.completion());
        for completion in completed.drain(..) {
            let connection = completion.user_data() >> KIND_BITS;
            match completion.user_data() & ((1 << KIND_BITS) - 1) {
                ACCEPT => self.accepted(&completion)?,
                RECEIVE => self.received(connection, &completion, &mut tell)?,
                SEND => {
                    if let Some(found) = self.connections.get_mut(&connection) {
                        found.sending = None;
                        tell(Event::Sent { connection });
                        self.forget(connection);
                    }
                }
                _ => {
                    let Some((block, length)) = self.writing.take() else { continue };
                    if completion.result() != length as i32 {
                        return Err(io::Error::other(format!(
                            "a write of {length} bytes gave {}",
                            completion.result()
                        )));
                    }
                    tell(Event::Written(block));
                }
            }
        }
        self.completed = completed;
        Ok(())
    }

    /// One send a connection at a time; false while there is one, or when the connection is gone.
    pub fn is_free(&self, connection: u64) -> bool {
        self.connections.get(&connection).is_some_and(|found| found.sending.is_none() && !found.closed)
    }

    /// Sends all of it; `Sent` comes when it is done.
    pub fn send(&mut self, connection: u64, bytes: Vec<u8>) -> io::Result<()> {
        assert!(self.is_free(connection), "one send a connection at a time");
        let Some(found) = self.connections.get_mut(&connection) else { return Ok(()) };
        let bytes = found.sending.insert(bytes);
        let operation = opcode::Send::new(types::Fd(found.socket.as_raw_fd()), bytes.as_ptr(), bytes.len() as u32)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build()
            .user_data(connection << KIND_BITS | SEND);
        self.push(&operation)
    }

    /// Whether no write is in flight.
    pub fn is_disk_free(&self) -> bool {
        self.writing.is_none()
    }

    /// Writes the head of the block, one at a time; `Written` brings it back.
    pub fn write(&mut self, block: Block, length: usize, position: u64) -> io::Result<()> {
        assert!(
            self.writing.is_none() && length <= block.0.len() * PAGE_BYTES,
            "one write at a time, within its block"
        );
        let (block, _) = self.writing.insert((block, length));
        let operation = opcode::Write::new(types::Fd(self.journal.as_raw_fd()), block.0.as_ptr().cast(), length as u32)
            .offset(position)
            .build()
            .user_data(WRITE);
        self.push(&operation)
    }

    /// Ends a connection; what is still to be sent on it is not.
    pub fn close(&mut self, connection: u64) {
        if let Some(found) = self.connections.get(&connection) {
            // It fails on one that the peer has closed, which is as well.
            let _ = found.socket.shutdown(Shutdown::Both);
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        self.push(&opcode::AcceptMulti::new(types::Fd(self.listener.as_raw_fd())).build().user_data(ACCEPT))
    }

    fn accepted(&mut self, completion: &cqueue::Entry) -> io::Result<()> {
        if completion.result() < 0 {
            return Err(io::Error::from_raw_os_error(-completion.result()));
        }
        // SAFETY: a descriptor that the kernel has just made for us and nobody else knows.
        let socket = unsafe { TcpStream::from_raw_fd(completion.result()) };
        socket.set_nodelay(true)?;
        let connection = self.next_connection;
        self.next_connection += 1;
        self.connections.insert(connection, Connection { socket, sending: None, closed: false });
        self.receive(connection)?;
        if cqueue::more(completion.flags()) { Ok(()) } else { self.accept() }
    }

    fn receive(&mut self, connection: u64) -> io::Result<()> {
        let Some(found) = self.connections.get(&connection) else { return Ok(()) };
        let operation = opcode::RecvMulti::new(types::Fd(found.socket.as_raw_fd()), BUFFER_GROUP)
            .build()
            .user_data(connection << KIND_BITS | RECEIVE);
        self.push(&operation)
    }

    fn received(
        &mut self,
        connection: u64,
        completion: &cqueue::Entry,
        tell: &mut impl FnMut(Event<'_>),
    ) -> io::Result<()> {
        let buffer = cqueue::buffer_select(completion.flags());
        if let (Some(buffer), Ok(count @ 1..)) = (buffer, usize::try_from(completion.result())) {
            // Of the pool this buffer alone: the kernel may be writing to the others.
            tell(Event::Received { connection, bytes: &bytes_of(&mut self.pool[pages_of(buffer)])[..count] });
        }
        if let Some(buffer) = buffer {
            self.give(buffer);
        }
        if cqueue::more(completion.flags()) {
            return Ok(());
        }
        // A receive also ends when no buffer was free, and then begins again.
        if completion.result() > 0 || completion.result() == -libc::ENOBUFS {
            return self.receive(connection);
        }
        if let Some(found) = self.connections.get_mut(&connection) {
            found.closed = true;
            tell(Event::Closed { connection });
            self.forget(connection);
        }
        Ok(())
    }

    /// A connection goes when neither a receive nor a send of it is in flight.
    fn forget(&mut self, connection: u64) {
        if self.connections.get(&connection).is_some_and(|found| found.closed && found.sending.is_none()) {
            self.connections.remove(&connection);
        }
    }

    /// Lends a buffer to the kernel.
    fn give(&mut self, buffer: u16) {
        let address = self.pool[pages_of(buffer)].as_mut_ptr() as u64;
        let base = self.entries.as_mut_ptr().cast::<types::BufRingEntry>();
        let slot = usize::from(self.tail & (BUFFERS - 1));
        // SAFETY: the entries hold BUFFERS of them, the slot is one, and the kernel reads only what is before the tail.
        let entry = unsafe { &mut *base.add(slot) };
        entry.set_addr(address);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies in the first entry, aligned, and only this thread writes it; the kernel reads it atomically.
        let tail = unsafe { AtomicU16::from_ptr(types::BufRingEntry::tail(base).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    fn push(&mut self, operation: &squeue::Entry) -> io::Result<()> {
        // SAFETY: descriptors and memory of every operation belong to this ring, which keeps them until the completion and
        // is never dropped.
        while unsafe { self.ring.submission().push(operation) }.is_err() {
            self.ring.submit()?;
        }
        Ok(())
    }
}
