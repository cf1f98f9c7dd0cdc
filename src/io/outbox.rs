//! The bytes that one connection has still to send: pieces as their owners left them, in order.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::Slice;

/// The pieces that are sent at once at most; the kernel's own bound is 1,024, and copying more vectors costs more than it saves.
pub const PIECES_AT_ONCE_MAX: usize = 64;

/// The bytes that are sent at once at most, so that one fast consumer does not hold the core.
pub const BYTES_AT_ONCE_MAX: usize = 1 << 20;

/// Replies gathered for one system call when several are ready together.
const GATHERED_BYTES_MAX: usize = 256 * 1024;

/// Pieces to be sent. They are kept, and with them the memory that they lease, until the kernel has taken them.
#[derive(Default)]
pub struct Outbox {
    pieces: VecDeque<Slice>,
    /// How much of the first piece has been sent.
    sent_of_first: usize,
    unsent_bytes: usize,
    /// Bytes of the pieces that are not parts of a core's buffers.
    own_bytes: usize,
}

fn own_bytes(piece: &Slice) -> usize {
    if piece.is_of_a_buffer() { 0 } else { piece.len() }
}

impl Outbox {
    /// Adds a reply behind what is there.
    pub fn push(&mut self, reply: Vec<Slice>) {
        self.unsent_bytes += reply.iter().map(|piece| piece.len()).sum::<usize>();
        self.own_bytes += reply.iter().map(own_bytes).sum::<usize>();
        // Empty pieces would only fill vectors of the system call.
        self.pieces.extend(reply.into_iter().filter(|piece| !piece.is_empty()));
    }

    /// Whether one more reply may go out in the same system call.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.unsent_bytes < GATHERED_BYTES_MAX && self.pieces.len() < PIECES_AT_ONCE_MAX
    }

    /// Bytes not taken by the kernel yet.
    #[must_use]
    pub fn unsent_bytes(&self) -> usize {
        self.unsent_bytes
    }

    /// Memory of the replies' own that they hold until they are sent, in bytes: all but records.
    #[must_use]
    pub fn own_bytes(&self) -> usize {
        self.own_bytes
    }

    /// What would be free if the replies were not there, in bytes; of memory that others hold as well, a share.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.pieces.iter().map(Slice::held_share).sum()
    }

    /// Whether all of it fits one system call and is not longer than that.
    #[cfg_attr(not(feature = "glommio"), allow(dead_code))]
    pub(super) fn is_within(&self, bytes: usize) -> bool {
        self.unsent_bytes <= bytes && self.pieces.len() <= PIECES_AT_ONCE_MAX
    }

    /// Hands all of it over: the pieces, and how much of the first has been sent. Gives the number of unsent bytes.
    #[cfg_attr(not(feature = "glommio"), allow(dead_code))]
    pub(super) fn hand_over(&mut self, pieces: &mut VecDeque<Slice>, sent_of_first: &mut usize) -> usize {
        std::mem::swap(&mut self.pieces, pieces);
        *sent_of_first = std::mem::take(&mut self.sent_of_first);
        self.own_bytes = 0;
        std::mem::take(&mut self.unsent_bytes)
    }

    /// The unsent bytes from the first on, as a gathering write wants them.
    pub(super) fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let skip = |index| if index == 0 { self.sent_of_first } else { 0 };
        self.pieces.iter().enumerate().map(move |(index, piece)| &piece[skip(index)..])
    }

    /// Lets go of the first `bytes`.
    /// # Errors  `WriteZero` if `bytes` is 0 although something was to be sent.
    pub(super) fn sent(&mut self, bytes: usize) -> io::Result<()> {
        if bytes == 0 && self.unsent_bytes > 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.unsent_bytes -= bytes;
        let mut left = self.sent_of_first + bytes;
        while let Some(first) = self.pieces.front() {
            if first.len() > left {
                break;
            }
            left -= first.len();
            self.own_bytes -= own_bytes(first);
            self.pieces.pop_front();
        }
        self.sent_of_first = left;
        Ok(())
    }
}

/// Memory of one core's replies' own that is on its way into the kernel, for any core to look at. It is no longer in an
/// [`Outbox`], and stays for as long as a client does not read.
#[derive(Clone, Debug, Default)]
pub struct OnTheWay(Arc<AtomicUsize>);

impl OnTheWay {
    /// In bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    // Its core alone changes it, so no more is needed than a load and a store.
    #[cfg_attr(not(feature = "glommio"), allow(dead_code))]
    pub(super) fn more(&self, bytes: usize) {
        self.0.store(self.bytes() + bytes, Ordering::Relaxed);
    }

    #[cfg_attr(not(feature = "glommio"), allow(dead_code))]
    pub(super) fn less(&self, bytes: usize) {
        self.0.store(self.bytes() - bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_kernel_takes_the_rest_follows_in_order() {
        let reply: Vec<Slice> =
            [0, 5, 0, 1, 300, 7, 0].iter().map(|length| Slice::from(vec![*length as u8; *length])).collect();
        let whole: Vec<u8> = reply.iter().flat_map(|piece| piece.as_ref().to_vec()).collect();
        for step in [1, 2, 5, 6, 150, 313] {
            let mut outbox = Outbox::default();
            outbox.push(reply.clone());
            let mut seen = Vec::new();
            while outbox.unsent_bytes() > 0 {
                let taken: Vec<u8> = outbox.slices().flatten().copied().take(step).collect();
                outbox.sent(taken.len()).expect("some bytes were sent");
                seen.extend(taken);
            }
            assert_eq!(seen, whole, "in steps of {step}");
            assert_eq!((outbox.pieces.len(), outbox.own_bytes(), outbox.held_bytes()), (0, 0, 0));
        }
    }

    #[test]
    fn pieces_are_sent_from_where_their_owner_left_them() {
        let reply: Vec<Slice> = (1..5).map(|length| Slice::from(vec![7; length * 1000])).collect();
        let mut outbox = Outbox::default();
        outbox.push(reply.clone());
        assert!(outbox.slices().zip(&reply).all(|(sent, piece)| sent.as_ptr() == piece.as_ptr()));
    }

    #[test]
    fn a_socket_that_takes_nothing_is_an_error() {
        let mut outbox = Outbox::default();
        outbox.push(vec![Slice::from(b"x".to_vec())]);
        assert!(outbox.sent(0).is_err());
    }
}
