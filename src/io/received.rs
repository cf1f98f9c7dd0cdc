//! What a stream gives when something has come.

use bytes::{Bytes, BytesMut};

use crate::base::copied;

/// Bytes that have been received, and the memory in which they lie: whoever has them may keep them, and frames are cut out
/// of them where they are. Today a part of the stream's buffer.
#[derive(Default)]
pub struct Received(BytesMut);

impl Received {
    /// How many bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none. From [`Stream::poll_recv`](super::Stream::poll_recv) that is the end of the stream.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// Takes the first `bytes` out, where they lie.
    /// # Panics
    /// If there are fewer.
    pub fn take(&mut self, bytes: usize) -> Bytes {
        // What is empty holds no memory, so that the stream's buffer can be used again.
        let taken = if bytes == self.0.len() { std::mem::take(&mut self.0) } else { self.0.split_to(bytes) };
        taken.freeze()
    }

    /// Adds what was received next. What lies right behind is added whole and where it is, as it does while the stream's
    /// buffer has room; of what lies elsewhere as much is copied as it takes to have `wanted` bytes in one piece, and the
    /// rest is given back.
    #[must_use]
    pub fn join(&mut self, mut next: Self, wanted: usize) -> Self {
        if self.0.is_empty() {
            *self = next;
        } else if self.0.as_ptr_range().end == next.0.as_ptr() {
            self.0.unsplit(next.0);
        } else {
            let rest = next.0.split_off(wanted.saturating_sub(self.len()).min(next.len()));
            self.copy_in(&next.0, wanted);
            return Self(rest);
        }
        Self::default()
    }

    fn copy_in(&mut self, next: &[u8], wanted: usize) {
        if self.0.capacity() - self.0.len() < next.len() {
            // Memory of its own, once: the next pieces find room behind this one.
            let mut whole = BytesMut::with_capacity(wanted);
            whole.extend_from_slice(&self.0);
            copied(self.0.len());
            self.0 = whole;
        }
        self.0.extend_from_slice(next);
        copied(next.len());
    }
}

impl From<BytesMut> for Received {
    fn from(bytes: BytesMut) -> Self {
        Self(bytes)
    }
}

impl From<&[u8]> for Received {
    fn from(bytes: &[u8]) -> Self {
        copied(bytes.len());
        Self(BytesMut::from(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::copied_bytes;

    fn received(bytes: &[u8]) -> Received {
        BytesMut::from(bytes).into()
    }

    #[test]
    fn what_lies_behind_is_joined_where_it_is() {
        let mut buffer = BytesMut::from(&b"abcdefgh"[..]);
        let mut first = Received::from(buffer.split_to(3));
        let (start, before) = (first.as_slice().as_ptr(), copied_bytes());
        assert!(first.join(buffer.split_to(4).into(), 5).is_empty());
        assert_eq!((first.as_slice(), first.as_slice().as_ptr()), (&b"abcdefg"[..], start));
        assert_eq!(first.take(5), b"abcde"[..]);
        assert!(first.join(buffer.into(), 9).is_empty());
        assert_eq!((first.take(3), first.len(), copied_bytes()), (Bytes::from_static(b"fgh"), 0, before));
    }

    #[test]
    fn of_what_lies_elsewhere_only_what_is_needed_is_copied() {
        let mut first = received(b"ab");
        let before = copied_bytes();
        assert!(first.join(received(b"c"), 6).is_empty());
        let own = first.as_slice().as_ptr();
        let rest = first.join(received(b"defgh"), 6);
        assert_eq!((first.as_slice(), rest.as_slice()), (&b"abcdef"[..], &b"gh"[..]));
        // The first two are moved once, however many pieces come behind them.
        assert_eq!((first.as_slice().as_ptr(), copied_bytes() - before), (own, 2 + 1 + 3));
    }

    #[test]
    fn what_was_taken_gives_the_buffer_back() {
        let mut buffer = BytesMut::zeroed(64);
        let start = buffer.as_ptr();
        let mut all = Received::from(buffer.split_to(64));
        drop(all.take(64));
        buffer.reserve(64);
        assert_eq!(buffer.as_ptr(), start);
        assert!(all.is_empty());
    }
}
