//! Memory that the disk, the sockets and other cores share without copying: [`Buffer`], [`SharedBuffer`], [`Slice`], [`Tail`].
//!
//! A buffer is allocated by one core (its home), filled there, and read by any core. glommio's buffers must be freed on
//! the core that made them, so memory whose last reference is dropped elsewhere travels home and is freed there.
#![allow(unsafe_code)]

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    any::Any,
    fmt,
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::{Deref, Range},
    ptr::NonNull,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::ThreadId,
};

use bytes::Bytes;

/// Alignment of positions, lengths and memory for direct I/O, in bytes. 4096 holds on every device;
/// glommio's own figure is read from the wrong device when the file system lies on a partition.
pub const ALIGNMENT: usize = 4096;

/// `length` rounded up to the alignment of direct I/O.
#[must_use]
pub const fn align_up(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT)
}

/// The place where one core's memory goes back to. Shared by all buffers of that core.
pub(super) struct Home {
    owner: ThreadId,
    live_bytes: AtomicUsize,
    pinned_bytes: AtomicUsize,
    returned: Mutex<Returned>,
}

/// Memory whose last reference was dropped on another core and which waits for its owner.
#[derive(Default)]
struct Returned {
    closed: bool,
    values: Vec<Returning>,
}

/// A backend's value on its way back to its core. It is never dropped by this type: a wrong thread must not run its destructor.
struct Returning {
    value: ManuallyDrop<Box<dyn Any>>,
    length: usize,
}

// SAFETY: a `Returning` is only carried between threads; `Home::reclaim` and `Home::close`, which run on the owner's
// thread (asserted there), are the only ones that look inside.
unsafe impl Send for Returning {}

impl Home {
    /// A home for the buffers of the calling thread.
    pub(super) fn here() -> Arc<Self> {
        Arc::new(Self {
            owner: std::thread::current().id(),
            live_bytes: AtomicUsize::new(0),
            pinned_bytes: AtomicUsize::new(0),
            returned: Mutex::default(),
        })
    }

    fn is_here(&self) -> bool {
        std::thread::current().id() == self.owner
    }

    /// Bytes allocated by this core and not freed yet, those on their way home included.
    #[cfg(test)]
    pub(super) fn live_bytes(&self) -> usize {
        self.live_bytes.load(Ordering::Relaxed)
    }

    /// Frees what other cores have sent back. Only on the owner's thread.
    pub(super) fn reclaim(&self) {
        assert!(self.is_here(), "buffers are freed by the core that made them");
        let values = std::mem::take(&mut self.lock().values);
        values.into_iter().for_each(|returning| self.free(returning));
    }

    /// Frees what has come back and leaks what comes later: the core's executor ends. Only on the owner's thread.
    #[cfg_attr(not(feature = "glommio"), allow(dead_code))]
    pub(super) fn close(&self) {
        self.reclaim();
        self.lock().closed = true;
    }

    fn free(&self, returning: Returning) {
        drop(ManuallyDrop::into_inner(returning.value));
        self.live_bytes.fetch_sub(returning.length, Ordering::Relaxed);
    }

    fn give_back(&self, returning: Returning) {
        if self.is_here() {
            return self.free(returning);
        }
        let mut returned = self.lock();
        // After the owner has gone nobody may run the destructor: the memory is leaked, which happens at process exit only.
        if !returned.closed {
            returned.values.push(returning);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Returned> {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many bytes of one core's memory only readers keep alive any more. Any core may ask.
#[derive(Clone)]
pub struct Pinned(Arc<Home>);

impl Pinned {
    pub(super) fn of(home: &Arc<Home>) -> Self {
        Self(home.clone())
    }

    /// Bytes whose owner has let go of them and that slices still refer to.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.pinned_bytes.load(Ordering::Relaxed)
    }
}

/// Where a buffer's bytes come from.
enum Backing {
    /// From the global allocator: may be freed by any thread.
    Plain { layout: Layout },
    /// From the core's backend (`value` keeps the bytes alive): freed at home only.
    Homed {
        value: ManuallyDrop<Box<dyn Any>>,
        /// Makes `value` as short as the buffer, which nothing else refers to.
        shrink: fn(&mut dyn Any, usize),
    },
}

struct Memory {
    start: NonNull<u8>,
    length: usize,
    /// Bytes from the start that readers may see. Only grows while the memory is shared.
    published: AtomicUsize,
    /// Its owner has let go of it while others still read: counted in the home until they are done.
    pinned: AtomicBool,
    backing: Backing,
    home: Arc<Home>,
}

impl Memory {
    /// The owner drops its reference after this.
    fn let_go(this: &Arc<Self>) {
        if Arc::strong_count(this) > 1 && !this.pinned.swap(true, Ordering::Relaxed) {
            this.home.pinned_bytes.fetch_add(this.length, Ordering::Relaxed);
        }
    }
}

// SAFETY: readers see only bytes below `published`, which are never written again while a reference exists; bytes above
// are touched by the one `Buffer` or `Tail` only. The backend's value is reached at home only (`SharedBuffer::value`
// checks) and dropped at home only (`Home::give_back`).
unsafe impl Send for Memory {}
// SAFETY: as above; `published` is atomic and release/acquire ordered with the bytes it covers.
unsafe impl Sync for Memory {}

impl Drop for Memory {
    fn drop(&mut self) {
        if *self.pinned.get_mut() {
            self.home.pinned_bytes.fetch_sub(self.length, Ordering::Relaxed);
        }
        match &mut self.backing {
            Backing::Plain { layout } => {
                // SAFETY: `start` came from `alloc_zeroed` with this layout, and this is the last reference.
                unsafe { dealloc(self.start.as_ptr(), *layout) };
                self.home.live_bytes.fetch_sub(self.length, Ordering::Relaxed);
            }
            Backing::Homed { value, .. } => {
                // SAFETY: `value` is taken exactly once, here, and `self` is not used afterwards.
                let value = ManuallyDrop::new(unsafe { ManuallyDrop::take(value) });
                self.home.give_back(Returning { value, length: self.length });
            }
        }
    }
}

/// Memory that one core writes: aligned to [`ALIGNMENT`], zero-filled when made, its length as asked for.
/// Stays on its core; [`share`](Self::share) or [`Tail::new`] let others read it.
pub struct Buffer {
    memory: Arc<Memory>,
    stays_here: PhantomData<*mut ()>,
}

impl Buffer {
    /// Zero-filled memory from the global allocator, counted in `home`.
    pub(super) fn plain(length: usize, home: &Arc<Home>) -> Self {
        let layout =
            Layout::from_size_align(length.max(1), ALIGNMENT).expect("a buffer's length fits an address space");
        // SAFETY: the layout's size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        Self::of(start, length, Backing::Plain { layout }, home)
    }

    /// Memory of the backend, which `value` keeps alive.
    ///
    /// # Safety
    /// `start..start + length` must be valid for reads and writes and initialised as long as `value` lives, wherever
    /// `value` is moved, and nothing else may touch it while this buffer or what is made of it exists, except through
    /// clones of what `value` holds that only read.
    #[cfg_attr(not(feature = "glommio"), allow(dead_code))]
    pub(super) unsafe fn homed(
        start: NonNull<u8>,
        length: usize,
        value: Box<dyn Any>,
        shrink: fn(&mut dyn Any, usize),
        home: &Arc<Home>,
    ) -> Self {
        Self::of(start, length, Backing::Homed { value: ManuallyDrop::new(value), shrink }, home)
    }

    fn of(start: NonNull<u8>, length: usize, backing: Backing, home: &Arc<Home>) -> Self {
        home.live_bytes.fetch_add(length, Ordering::Relaxed);
        let memory = Memory {
            start,
            length,
            published: AtomicUsize::new(0),
            pinned: AtomicBool::new(false),
            backing,
            home: home.clone(),
        };
        Self { memory: Arc::new(memory), stays_here: PhantomData }
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.memory.length
    }

    /// The bytes.
    #[cfg(test)]
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the memory is initialised and this buffer is the only one that refers to it.
        unsafe { std::slice::from_raw_parts(self.memory.start.as_ptr(), self.memory.length) }
    }

    /// The bytes, for writing.
    // Not the trait: a call should not need to say which of its types it means.
    #[allow(clippy::should_implement_trait)]
    pub fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: the memory is initialised, this buffer is the only one that refers to it, and it is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.memory.start.as_ptr(), self.memory.length) }
    }

    /// Cuts the buffer to its first `length` bytes, so that they are the whole of it when it is written to a file.
    /// # Panics
    /// If the buffer is shorter.
    pub fn truncate(&mut self, length: usize) {
        assert!(length <= self.len(), "a buffer is cut, never made longer");
        let memory = Arc::get_mut(&mut self.memory).expect("nothing else refers to a buffer's memory");
        if let Backing::Homed { value, shrink, .. } = &mut memory.backing {
            shrink(value.as_mut(), length);
        }
        memory.home.live_bytes.fetch_sub(memory.length - length, Ordering::Relaxed);
        memory.length = length;
    }

    /// Ends the writing: from now on any core may read all of it.
    #[must_use]
    pub fn share(self) -> SharedBuffer {
        self.memory.published.store(self.memory.length, Ordering::Release);
        SharedBuffer { memory: self.memory }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Buffer({} bytes)", self.len())
    }
}

/// Counted memory that any core may read up to what its owner has published. Cloning costs one atomic addition.
#[derive(Clone)]
pub struct SharedBuffer {
    memory: Arc<Memory>,
}

impl SharedBuffer {
    /// Length in bytes, the unpublished part included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.memory.length
    }

    /// Bytes from the start that may be read.
    #[must_use]
    pub fn published(&self) -> usize {
        self.memory.published.load(Ordering::Acquire)
    }

    /// The published bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: published bytes are initialised and never written again while `self` refers to the memory.
        unsafe { std::slice::from_raw_parts(self.memory.start.as_ptr(), self.published()) }
    }

    /// A view of `range`, which keeps the whole buffer alive.
    /// # Panics
    /// If `range` reaches beyond what is published.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Slice {
        assert!(range.start <= range.end && range.end <= self.published(), "a slice lies within what is published");
        Slice(Piece::Shared { start: range.start, length: range.len(), buffer: self.clone() })
    }

    /// The backend's value behind this memory, if it has one of this type and lives in this `home`.
    #[cfg_attr(not(feature = "glommio"), allow(dead_code))]
    pub(super) fn value<T: Any>(&self, home: &Arc<Home>) -> Option<&T> {
        match &self.memory.backing {
            Backing::Homed { value, .. } if Arc::ptr_eq(&self.memory.home, home) && home.is_here() => {
                value.downcast_ref()
            }
            Backing::Homed { .. } | Backing::Plain { .. } => None,
        }
    }

    /// Start of the memory, for a system call that writes it to a file, the unpublished part included.
    #[cfg_attr(not(feature = "glommio"), allow(dead_code))]
    pub(super) fn start(&self) -> *const u8 {
        self.memory.start.as_ptr()
    }

    /// A copy of `range` as the device would see it now, the unpublished part included: for the simulated disk.
    /// # Panics
    /// If `range` lies outside of the buffer, or this is not its home core.
    pub(super) fn device_view(&self, range: Range<usize>) -> Vec<u8> {
        assert!(range.start <= range.end && range.end <= self.len(), "a write lies within its buffer");
        assert!(self.memory.home.is_here(), "unpublished bytes are seen by their owner only");
        // SAFETY: in range, initialised; the owner, who alone writes the unpublished part, is this thread and does
        // not write while we copy.
        unsafe { std::slice::from_raw_parts(self.memory.start.as_ptr().add(range.start), range.len()) }.to_vec()
    }
}

impl fmt::Debug for SharedBuffer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SharedBuffer({} of {} bytes)", self.published(), self.len())
    }
}

/// The owner's writing handle on a shared buffer: bytes are added behind what is published, then published.
/// There is one per buffer and it stays on the owner's core. From its end on the memory counts as pinned until the last
/// reader is gone ([`Pinned`]).
pub struct Tail {
    buffer: SharedBuffer,
    stays_here: PhantomData<*mut ()>,
}

impl Tail {
    /// Shares `buffer` with its first `published` bytes readable (they were written through the buffer).
    /// # Panics
    /// If `published` is more than the buffer holds.
    #[must_use]
    pub fn new(buffer: Buffer, published: usize) -> Self {
        assert!(published <= buffer.len(), "what is published lies within the buffer");
        buffer.memory.published.store(published, Ordering::Release);
        Self { buffer: SharedBuffer { memory: buffer.memory }, stays_here: PhantomData }
    }

    /// Copies `bytes` behind the published end and publishes them. Returns where they lie.
    /// # Panics
    /// If there is no room: callers look at [`room`](Self::room) first.
    pub fn append(&mut self, bytes: &[u8]) -> Range<usize> {
        self.write_with(bytes.len(), |room| room.copy_from_slice(bytes))
    }

    /// Lets `fill` write `length` bytes behind the published end and publishes them. Returns where they lie.
    /// # Panics
    /// If there is no room.
    pub fn write_with(&mut self, length: usize, fill: impl FnOnce(&mut [u8])) -> Range<usize> {
        assert!(length <= self.room(), "an append fits its buffer");
        let start = self.published();
        // SAFETY: the range lies within the memory and above `published`, where no reader looks, and `&mut self` is
        // the only writer. It becomes readable only after `fill` has returned and its borrow has ended.
        let room = unsafe { std::slice::from_raw_parts_mut(self.buffer.memory.start.as_ptr().add(start), length) };
        fill(room);
        self.buffer.memory.published.store(start + length, Ordering::Release);
        start..start + length
    }

    /// Bytes readable so far.
    #[must_use]
    pub fn published(&self) -> usize {
        self.buffer.published()
    }

    /// Length of the buffer, in bytes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes that still fit.
    #[must_use]
    pub fn room(&self) -> usize {
        self.capacity() - self.published()
    }

    /// A view of `range` within what is published.
    /// # Panics
    /// If `range` reaches beyond what is published.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Slice {
        self.buffer.slice(range)
    }

    /// The buffer behind this tail, for writing it to a file or keeping it.
    #[must_use]
    pub fn buffer(&self) -> &SharedBuffer {
        &self.buffer
    }
}

/// Whoever still reads keeps the memory alive alone.
impl Drop for Tail {
    fn drop(&mut self) {
        Memory::let_go(&self.buffer.memory);
    }
}

impl fmt::Debug for Tail {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Tail({} of {} bytes)", self.published(), self.capacity())
    }
}

/// Bytes that may be read by any core, without a copy: a part of a shared buffer, or other counted bytes.
#[derive(Clone)]
pub struct Slice(Piece);

#[derive(Clone)]
enum Piece {
    Shared { buffer: SharedBuffer, start: usize, length: usize },
    Bytes(Bytes),
}

impl Slice {
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Piece::Shared { length, .. } => *length,
            Piece::Bytes(bytes) => bytes.len(),
        }
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A part of this slice; shares the memory.
    /// # Panics
    /// If `range` is not within the slice.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len(), "a part of a slice lies within it");
        match &self.0 {
            Piece::Shared { buffer, start, .. } => {
                Self(Piece::Shared { buffer: buffer.clone(), start: start + range.start, length: range.len() })
            }
            Piece::Bytes(bytes) => Self(Piece::Bytes(bytes.slice(range))),
        }
    }

    /// The slice's part in keeping its memory alive, in bytes: many small slices of one buffer share its size.
    #[must_use]
    pub fn held_share(&self) -> usize {
        match &self.0 {
            Piece::Shared { buffer, .. } => buffer.len() / Arc::strong_count(&buffer.memory).max(1),
            Piece::Bytes(bytes) => bytes.len(),
        }
    }

    /// Whether this is a part of a core's buffer, which is counted there, and not memory of its own.
    #[must_use]
    pub fn is_of_a_buffer(&self) -> bool {
        matches!(self.0, Piece::Shared { .. })
    }

    /// Drops an owner's slice, one that a cache kept: from now on its memory counts as pinned until the last reader is
    /// gone ([`Pinned`]).
    pub fn let_go(self) {
        if let Piece::Shared { buffer, .. } = &self.0 {
            Memory::let_go(&buffer.memory);
        }
    }

    /// Bytes of memory that this slice keeps alive: what a lease is charged with.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        match &self.0 {
            Piece::Shared { buffer, .. } => buffer.len(),
            Piece::Bytes(bytes) => bytes.len(),
        }
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            // The range was checked against what was published when the slice was made, and that never shrinks.
            Piece::Shared { buffer, start, length } => &buffer.as_slice()[*start..*start + *length],
            Piece::Bytes(bytes) => bytes,
        }
    }
}

impl Default for Slice {
    fn default() -> Self {
        Self(Piece::Bytes(Bytes::new()))
    }
}

impl From<Bytes> for Slice {
    fn from(bytes: Bytes) -> Self {
        Self(Piece::Bytes(bytes))
    }
}

impl From<Vec<u8>> for Slice {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Piece::Bytes(Bytes::from(bytes)))
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Slice({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value that may be dropped on the thread that made it only, as glommio's buffers.
    struct AtHome {
        bytes: Box<[u8]>,
        thread: ThreadId,
    }

    impl Drop for AtHome {
        fn drop(&mut self) {
            assert_eq!(std::thread::current().id(), self.thread, "dropped on a foreign thread");
            self.bytes.fill(0xdd);
        }
    }

    fn homed(length: usize, home: &Arc<Home>) -> Buffer {
        let mut value = AtHome { bytes: vec![0; length].into(), thread: std::thread::current().id() };
        let start = NonNull::new(value.bytes.as_mut_ptr()).expect("a box is not null");
        // SAFETY: the boxed bytes do not move with `value`, live as long as it, and nothing else touches them.
        unsafe { Buffer::homed(start, length, Box::new(value), |_, _| {}, home) }
    }

    #[test]
    fn a_buffer_is_aligned_and_zero() {
        let home = Home::here();
        let buffer = Buffer::plain(8192, &home);
        assert_eq!(buffer.as_slice().as_ptr() as usize % ALIGNMENT, 0);
        assert!(buffer.as_slice().iter().all(|byte| *byte == 0));
        assert_eq!(home.live_bytes(), 8192);
        drop(buffer);
        assert_eq!(home.live_bytes(), 0);
    }

    #[test]
    fn memory_dropped_elsewhere_is_freed_at_home() {
        let home = Home::here();
        let slice = homed(4096, &home).share().slice(10..20);
        std::thread::spawn(move || drop(slice)).join().unwrap();
        assert_eq!(home.live_bytes(), 4096, "it waits for its owner");
        home.reclaim();
        assert_eq!(home.live_bytes(), 0);
    }

    #[test]
    fn memory_that_outlives_its_core_is_leaked_not_freed_elsewhere() {
        let home = Home::here();
        let slice = homed(64, &home).share().slice(0..64);
        home.close();
        std::thread::spawn(move || drop(slice)).join().unwrap();
        assert_eq!(home.live_bytes(), 64);
    }

    #[test]
    fn a_tail_publishes_what_it_appends_and_readers_on_other_threads_see_it() {
        let home = Home::here();
        let mut tail = Tail::new(Buffer::plain(64 * 1024, &home), 0);
        let readers: Vec<_> = (0..1024u32)
            .map(|number| {
                let range = tail.append(&number.to_le_bytes());
                tail.slice(range)
            })
            .collect();
        assert_eq!((tail.published(), tail.room()), (4096, 60 * 1024));
        let read = std::thread::spawn(move || {
            readers.iter().map(|slice| u32::from_le_bytes((**slice).try_into().unwrap())).collect::<Vec<_>>()
        });
        tail.write_with(100, |room| room.fill(7));
        assert_eq!(read.join().unwrap(), (0..1024).collect::<Vec<_>>());
        assert!(tail.slice(4096..4196).iter().all(|byte| *byte == 7));
    }

    #[test]
    #[should_panic(expected = "within what is published")]
    fn nobody_reads_beyond_what_is_published() {
        let tail = Tail::new(Buffer::plain(4096, &Home::here()), 10);
        let _ = tail.slice(0..11);
    }

    #[test]
    fn what_only_readers_keep_alive_is_counted_once_until_the_last_is_gone() {
        let home = Home::here();
        let pinned = Pinned::of(&home);
        let tail = Tail::new(Buffer::plain(8192, &home), 100);
        let (first, second) = (tail.slice(0..10), tail.slice(0..100));
        assert_eq!(pinned.bytes(), 0, "its owner still has it");
        assert_eq!(first.held_share(), 8192 / 3);
        drop(tail);
        assert_eq!(pinned.bytes(), 8192);
        assert_eq!(first.held_share() + second.held_share(), 8192);
        drop(first);
        assert_eq!(pinned.bytes(), 8192);
        std::thread::spawn(move || drop(second)).join().unwrap();
        assert_eq!(pinned.bytes(), 0);
        // What a cache has kept; and nobody reads when it lets go.
        let kept = homed(4096, &home).share().slice(0..4096);
        let reader = kept.slice(0..1);
        kept.let_go();
        assert_eq!(pinned.bytes(), 4096);
        drop(reader);
        drop(Tail::new(Buffer::plain(8192, &home), 0));
        homed(4096, &home).share().slice(0..1).let_go();
        assert_eq!(pinned.bytes(), 0);
    }

    #[test]
    fn slices_of_both_kinds_cut_alike() {
        let mut buffer = Buffer::plain(16, &Home::here());
        buffer.as_mut().copy_from_slice(b"0123456789abcdef");
        let shared = buffer.share().slice(2..12);
        let bytes = Slice::from(Bytes::from_static(b"23456789ab"));
        for slice in [shared, bytes] {
            assert_eq!(&slice[..], b"23456789ab");
            assert_eq!(&slice.slice(3..5)[..], b"56");
        }
    }
}
