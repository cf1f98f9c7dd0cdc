//! Buffers that the kernel takes one of when bytes come: a connection that waits holds none.
#![allow(unsafe_code)]

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    io, mem,
    ptr::NonNull,
    sync::atomic::{AtomicU16, Ordering},
};

use bytes::BytesMut;
use io_uring::types::BufRingEntry;

use super::kernel::Kernel;
use crate::{
    base::copied,
    io::{ALIGNMENT, RECEIVED_BYTES_MAX, Received},
};

/// The group that receives name.
pub(super) const GROUP: u16 = 1;

/// How many the kernel has at once; whoever finds none tries again when they are back.
pub(super) const COUNT: u16 = 64;

/// What is not longer is copied out, so that the buffer, which the caches have, is used again at once, and so that little is
/// kept alive by little.
const COPIED_BYTES_MAX: usize = 2048;

/// The buffers of one ring.
pub(super) struct Buffers {
    /// What the kernel reads: an entry for each buffer that it has.
    entries: NonNull<BufRingEntry>,
    memory: Vec<BytesMut>,
    tail: u16,
}

fn layout() -> Layout {
    Layout::array::<BufRingEntry>(usize::from(COUNT))
        .and_then(|layout| layout.align_to(ALIGNMENT))
        .expect("a small array's layout")
}

impl Buffers {
    /// # Errors  The kernel's: it knows no such buffers.
    pub(super) fn new(kernel: &Kernel) -> io::Result<Self> {
        // SAFETY: the layout's size is not zero.
        let memory = unsafe { alloc_zeroed(layout()) };
        let entries = NonNull::new(memory.cast()).unwrap_or_else(|| handle_alloc_error(layout()));
        let memory = (0..COUNT).map(|_| BytesMut::with_capacity(RECEIVED_BYTES_MAX)).collect();
        let mut buffers = Self { entries, memory, tail: 0 };
        // SAFETY: the entries are aligned to a page and live until after the ring (see `Inner` in ring.rs, which drops
        // the ring first), and there are as many as is said.
        unsafe { kernel.submitter().register_buf_ring_with_flags(entries.as_ptr() as u64, COUNT, GROUP, 0) }?;
        (0..COUNT).for_each(|id| buffers.lend(id));
        Ok(buffers)
    }

    /// Gives a buffer to the kernel.
    fn lend(&mut self, id: u16) {
        let memory = &mut self.memory[usize::from(id)];
        let slot = usize::from(self.tail & (COUNT - 1));
        // SAFETY: `slot` is within the entries, and the kernel does not look at it before the tail has moved.
        let entry = unsafe { self.entries.add(slot).as_mut() };
        entry.set_addr(memory.spare_capacity_mut().as_mut_ptr() as u64);
        entry.set_len(RECEIVED_BYTES_MAX as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the ring's tail lies in the first entry, as the kernel has it; only it and this thread use it.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// The bytes that the kernel has put into a buffer, of which it has let go.
    pub(super) fn take(&mut self, id: u16, bytes: usize) -> Received {
        let memory = &mut self.memory[usize::from(id)];
        assert!(memory.is_empty() && bytes <= RECEIVED_BYTES_MAX, "the kernel fills an empty buffer");
        // SAFETY: the kernel has initialised so many bytes of the spare capacity, whose length it was told.
        unsafe { memory.set_len(bytes) };
        let received = if bytes <= COPIED_BYTES_MAX {
            copied(bytes);
            let received = BytesMut::from(&memory[..]);
            memory.clear();
            received
        } else {
            mem::replace(memory, BytesMut::with_capacity(RECEIVED_BYTES_MAX))
        };
        self.lend(id);
        received.into()
    }
}

impl Buffers {
    /// Frees none of them: the kernel may still fill one.
    pub(super) fn leak(&mut self) {
        mem::forget(mem::take(&mut self.memory));
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; the ring is gone, so the kernel does not look any more.
        unsafe { dealloc(self.entries.as_ptr().cast(), layout()) };
    }
}
