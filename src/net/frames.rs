//! Cuts a connection's bytes into request frames: a length of four bytes, big-endian, and as many bytes as it says.
//!
//! Frames that arrive whole are cut out of what was received without a copy. A larger one gets memory of its own and is
//! received straight into it; only the part that had come along is moved.

use std::{fmt, io, rc::Rc};

use bytes::{Buf, Bytes};

use super::memory::{Charge, RequestMemory};
use crate::{
    base::copied,
    io::{RECEIVED_BYTES_MAX, Received},
};

/// A frame with its length that is not larger is a small one: what is received at once may have it whole.
pub const SMALL_BYTES_MAX: usize = RECEIVED_BYTES_MAX;

/// With less room than this behind what was received, every next frame would have to be moved.
const ROOM_BYTES_MIN: usize = SMALL_BYTES_MAX / 4;

/// The smallest request head: key, version, correlation id.
const FRAME_BYTES_MIN: usize = 8;

/// The first charge of a large frame beyond what has arrived; every next one doubles.
const FIRST_STEP_BYTES: usize = 64 * 1024;

const LENGTH_BYTES: usize = 4;

/// A frame's api key and version: what it takes to serve depends on them.
pub const START_BYTES: usize = 4;

/// Where the bytes come from: a stream, or a script in tests.
pub trait Source {
    /// Receives what has come; nothing is the end. There is to be `room` for so much behind what was received before.
    async fn receive(&mut self, room: usize) -> io::Result<Received>;
    /// Receives at most `up_to` bytes behind what `into` holds, within its capacity; 0 is the end.
    async fn receive_into(&mut self, into: &mut Vec<u8>, up_to: usize) -> io::Result<usize>;
    /// Told when a frame waits for memory (so that its sender is not blamed for the silence), and when it goes on.
    fn waits_for_memory(&mut self, waits: bool);
    /// Told how many bytes are charged for the large frame that is arriving; 0 when it is whole.
    fn large_frame(&mut self, charged: usize);
}

/// One request as it came, without its length, and the memory that it is charged for.
pub struct Frame {
    /// Head and body.
    pub bytes: Bytes,
    /// Keep it until the request has been answered.
    pub charge: Charge,
}

/// Why no further frame comes.
#[derive(Debug)]
pub enum FrameError {
    /// The peer closed between two frames.
    Closed,
    /// The peer closed inside a frame.
    CutOff {
        /// Bytes that the frame announced.
        announced: usize,
    },
    /// The length is negative or too small for a request.
    Length(i32),
    /// The length is above `socket.request.max.bytes` or above what `--memory` leaves.
    TooLarge {
        /// Bytes that the frame announced.
        announced: usize,
        /// Bytes that are allowed.
        limit: usize,
        /// Whether that follows from `--memory`, and not from `socket.request.max.bytes`.
        by_memory: bool,
    },
    /// The system gives no memory.
    NoMemory {
        /// Bytes that the frame announced.
        announced: usize,
    },
    /// The socket failed.
    Io(io::Error),
}

impl fmt::Display for FrameError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => out.write_str("closed by the peer"),
            Self::CutOff { announced } => write!(out, "closed by the peer inside a request of {announced} bytes"),
            Self::Length(length) => write!(out, "announced a request of {length} bytes"),
            Self::TooLarge { announced, limit, by_memory } => {
                let of = if *by_memory { "the memory for requests allows" } else { "socket.request.max.bytes is" };
                write!(out, "announced a request of {announced} bytes, {of} {limit}")
            }
            Self::NoMemory { announced } => write!(out, "no memory for a request of {announced} bytes"),
            Self::Io(error) => write!(out, "{error}"),
        }
    }
}

/// The receiving side of one connection.
pub struct FrameReader {
    /// What has come and is not handed on.
    received: Received,
    /// `socket.request.max.bytes`.
    frame_bytes_max: usize,
    memory: Rc<RequestMemory>,
    estimate: Estimate,
}

/// What serving a frame takes in all, in bytes, given its first [`START_BYTES`] and its length.
pub type Estimate = Rc<dyn Fn(&[u8], usize) -> usize>;

impl FrameReader {
    /// A reader that refuses frames above `frame_bytes_max` (`socket.request.max.bytes`), and large ones that `estimate`
    /// finds to take more than the whole budget for them.
    #[must_use]
    pub fn new(memory: Rc<RequestMemory>, frame_bytes_max: usize, estimate: Estimate) -> Self {
        Self { received: Received::default(), frame_bytes_max, memory, estimate }
    }

    /// Goes on with what another reader of the same connection has [given back](Self::give_back).
    #[must_use]
    pub fn after(mut self, received: &[u8]) -> Self {
        self.received = received.into();
        self
    }

    /// Everything received and not begun: the frame that came last, and what has arrived behind it.
    #[must_use]
    pub fn give_back(self, frame: &Frame) -> Vec<u8> {
        let length = (frame.bytes.len() as i32).to_be_bytes();
        let received = [&length[..], &frame.bytes, self.received.as_slice()].concat();
        copied(received.len());
        received
    }

    /// The next frame. Waits for its bytes, and for room in the core's request memory.
    /// # Errors  Every error ends the connection: there is no telling where the next frame would begin.
    pub async fn next(&mut self, source: &mut impl Source) -> Result<Frame, FrameError> {
        let length = self.length(source).await?;
        if length > SMALL_BYTES_MAX - LENGTH_BYTES && length > self.received.len() - LENGTH_BYTES {
            return self.large(length, source).await;
        }
        let bytes = self.small(length, source).await?;
        Ok(Frame { charge: self.charge_small(source, length).await, bytes })
    }

    /// The announced length, checked. It and whatever came along are in `received` afterwards.
    async fn length(&mut self, source: &mut impl Source) -> Result<usize, FrameError> {
        while self.received.len() < LENGTH_BYTES {
            let next = source.receive(ROOM_BYTES_MIN).await.map_err(FrameError::Io)?;
            if next.is_empty() && self.received.is_empty() {
                return Err(FrameError::Closed);
            }
            if next.is_empty() {
                return Err(FrameError::CutOff { announced: LENGTH_BYTES });
            }
            // All of it: what comes behind the length is in one piece with it.
            let wanted = self.received.len() + next.len();
            let rest = self.received.join(next, wanted);
            debug_assert!(rest.is_empty());
        }
        let raw = self.received.as_slice()[..LENGTH_BYTES].try_into().expect("four bytes were received");
        let length = i32::from_be_bytes(raw);
        let announced = usize::try_from(length).map_err(|_| FrameError::Length(length))?;
        if announced < FRAME_BYTES_MIN {
            return Err(FrameError::Length(length));
        }
        for (limit, by_memory) in [(self.frame_bytes_max, false), (self.memory.frame_bytes_max(), true)] {
            if announced > limit {
                return Err(FrameError::TooLarge { announced, limit, by_memory });
            }
        }
        Ok(announced)
    }

    /// A frame that what is received at once may have whole.
    async fn small(&mut self, length: usize, source: &mut impl Source) -> Result<Bytes, FrameError> {
        let whole = LENGTH_BYTES + length;
        let mut behind = Received::default();
        while self.received.len() < whole {
            let next = source.receive(whole - self.received.len()).await.map_err(FrameError::Io)?;
            if next.is_empty() {
                return Err(FrameError::CutOff { announced: length });
            }
            behind = self.received.join(next, whole);
        }
        let mut frame = self.received.take(whole);
        if !behind.is_empty() {
            self.received = behind;
        }
        frame.advance(LENGTH_BYTES);
        Ok(frame)
    }

    async fn charge_small(&self, source: &mut impl Source, length: usize) -> Charge {
        source.waits_for_memory(true);
        let charge = self.memory.small(length).await;
        source.waits_for_memory(false);
        charge
    }

    /// Receives a frame into memory of its own, charged in steps as its bytes really arrive.
    async fn large(&mut self, length: usize, source: &mut impl Source) -> Result<Frame, FrameError> {
        let mut charge = self.memory.large();
        let mut body = Vec::new();
        // Only address space: a page becomes memory when its first byte is received.
        body.try_reserve_exact(length).map_err(|_| FrameError::NoMemory { announced: length })?;
        let arrived = std::mem::take(&mut self.received);
        body.extend_from_slice(&arrived.as_slice()[LENGTH_BYTES..]);
        copied(body.len());
        drop(arrived);
        let mut needed = None;
        while body.len() < length {
            if needed.is_none() && body.len() >= START_BYTES {
                needed = Some(self.check_estimate(&body[..START_BYTES], length)?);
            }
            if body.len() >= charge.bytes() {
                let step = FIRST_STEP_BYTES.max(body.len());
                source.waits_for_memory(true);
                charge.grow_to(length.min(body.len() + step)).await;
                source.waits_for_memory(false);
                source.large_frame(charge.bytes());
            }
            let room = charge.bytes() - body.len();
            if source.receive_into(&mut body, room).await.map_err(FrameError::Io)? == 0 {
                return Err(FrameError::CutOff { announced: length });
            }
        }
        // Decoding it takes more than its bytes; the sender is no longer to blame for a wait.
        source.waits_for_memory(true);
        charge.grow_to(needed.unwrap_or(length).clamp(length, self.memory.frame_bytes_max())).await;
        source.waits_for_memory(false);
        source.large_frame(0);
        Ok(Frame { bytes: Bytes::from(body), charge })
    }

    fn check_estimate(&self, start: &[u8], announced: usize) -> Result<usize, FrameError> {
        let needed = (self.estimate)(start, announced);
        let total = self.memory.large_total();
        if needed > total {
            // What a frame of its kind may be long, about: estimates are a multiple of the length.
            let limit = (total as u128 * announced as u128 / needed as u128) as usize;
            return Err(FrameError::TooLarge { announced, limit, by_memory: true });
        }
        Ok(needed)
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use futures_lite::future::block_on;

    use super::*;
    use crate::{base::copied_bytes, net::memory::LargeRequests};

    fn memory(total: usize, frame_bytes_max: usize) -> Rc<RequestMemory> {
        RequestMemory::new(1 << 20, LargeRequests::new(total, frame_bytes_max))
    }

    /// Gives its bytes in pieces of the given sizes, again and again, then ends. They lie in a buffer, one behind the other
    /// while that has room, or each in memory of its own.
    struct Script {
        bytes: Vec<u8>,
        at: usize,
        sizes: Vec<usize>,
        turn: usize,
        buffer: Option<BytesMut>,
    }

    impl Script {
        fn new(bytes: Vec<u8>, sizes: &[usize]) -> Self {
            Self { bytes, at: 0, sizes: sizes.to_vec(), turn: 0, buffer: Some(BytesMut::new()) }
        }

        fn next(&mut self, room: usize) -> Vec<u8> {
            let size = self.sizes[self.turn % self.sizes.len()].min(room).min(self.bytes.len() - self.at);
            self.turn += 1;
            self.at += size;
            self.bytes[self.at - size..self.at].to_vec()
        }
    }

    impl Source for Script {
        async fn receive(&mut self, room: usize) -> io::Result<Received> {
            assert!((1..=RECEIVED_BYTES_MAX).contains(&room));
            let Some(mut buffer) = self.buffer.take() else {
                return Ok(BytesMut::from(&self.next(RECEIVED_BYTES_MAX)[..]).into());
            };
            if buffer.len() < room {
                buffer = BytesMut::zeroed(RECEIVED_BYTES_MAX);
            }
            let piece = self.next(buffer.len());
            buffer[..piece.len()].copy_from_slice(&piece);
            let received = buffer.split_to(piece.len());
            self.buffer = Some(buffer);
            Ok(received.into())
        }

        async fn receive_into(&mut self, into: &mut Vec<u8>, up_to: usize) -> io::Result<usize> {
            assert!(into.capacity() - into.len() >= up_to.min(1));
            let piece = self.next(up_to.min(into.capacity() - into.len()));
            into.extend_from_slice(&piece);
            Ok(piece.len())
        }

        fn waits_for_memory(&mut self, _: bool) {}
        fn large_frame(&mut self, _: usize) {}
    }

    fn framed(body: &[u8]) -> Vec<u8> {
        [&(body.len() as i32).to_be_bytes()[..], body].concat()
    }

    /// Bodies that tell their index and position.
    fn bodies(lengths: &[usize]) -> Vec<Vec<u8>> {
        let body = |(index, length): (usize, &usize)| (0..*length).map(|at| (index * 31 + at * 7) as u8).collect();
        lengths.iter().enumerate().map(body).collect()
    }

    fn reader(frame_bytes_max: usize) -> FrameReader {
        FrameReader::new(memory(16 << 20, frame_bytes_max), frame_bytes_max, Rc::new(|_, length| length))
    }

    fn read_all(bytes: Vec<u8>, sizes: &[usize], frame_bytes_max: usize) -> (Vec<Bytes>, FrameError) {
        read_to_end(Script::new(bytes, sizes), frame_bytes_max)
    }

    fn read_to_end(mut script: Script, frame_bytes_max: usize) -> (Vec<Bytes>, FrameError) {
        let mut reader = reader(frame_bytes_max);
        let mut frames = Vec::new();
        loop {
            match block_on(reader.next(&mut script)) {
                Ok(frame) => frames.push(frame.bytes),
                Err(error) => return (frames, error),
            }
        }
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_arrive() {
        let near = SMALL_BYTES_MAX - LENGTH_BYTES;
        let lengths =
            [8, 9, 100, near - 1, near, near + 1, 8, 70_000, 1 << 20, 3000, 3000, 3000, 3000, 3000, 12, 200_000];
        let bodies = bodies(&lengths);
        let wire: Vec<u8> = bodies.iter().flat_map(|body| framed(body)).collect();
        for sizes in [&[1_usize][..], &[3, 1, 4], &[usize::MAX], &[5000], &[16 * 1024, 1], &[4, 100_000]] {
            let script = Script::new(wire.clone(), sizes);
            let scattered = Script { buffer: None, ..Script::new(wire.clone(), sizes) };
            for script in [script, scattered] {
                let (frames, end) = read_to_end(script, 2 << 20);
                assert_eq!(frames, bodies, "in pieces of {sizes:?}");
                assert!(matches!(end, FrameError::Closed), "{end}");
            }
        }
    }

    #[test]
    fn another_reader_goes_on_where_one_stopped() {
        let bodies = bodies(&[100, 8, 3000, SMALL_BYTES_MAX, 12, 40_000, 9]);
        let wire: Vec<u8> = bodies.iter().flat_map(|body| framed(body)).collect();
        for sizes in [&[1_usize][..], &[3, 1, 4], &[usize::MAX], &[5000]] {
            let mut script = Script::new(wire.clone(), sizes);
            // Each frame is begun by the reader that comes after the one which received it.
            let mut received = Vec::new();
            for body in &bodies {
                let mut first = reader(1 << 20).after(&received);
                let frame = block_on(first.next(&mut script)).expect("a frame");
                let mut second = reader(1 << 20).after(&first.give_back(&frame));
                let frame = block_on(second.next(&mut script)).expect("the same frame");
                assert_eq!(&frame.bytes, body, "in pieces of {sizes:?}");
                received = second.received.as_slice().to_vec();
            }
            assert_eq!(received, [0; 0]);
        }
    }

    #[test]
    fn frames_that_fit_are_handed_on_where_they_lie() {
        let bodies = bodies(&[3000, 5000, 4000]);
        let wire: Vec<u8> = bodies.iter().flat_map(|body| framed(body)).collect();
        let before = copied_bytes();
        let (frames, _) = read_all(wire, &[usize::MAX], 1 << 20);
        assert_eq!(copied_bytes(), before);
        // One behind the other in the buffer into which the socket wrote them, their lengths between them.
        for pair in frames.windows(2) {
            assert_eq!(pair[1].as_ptr() as usize, pair[0].as_ptr() as usize + pair[0].len() + LENGTH_BYTES);
        }
    }

    #[test]
    fn of_frames_across_two_pieces_only_those_are_copied() {
        let bodies = bodies(&[4000; 64]);
        let wire: Vec<u8> = bodies.iter().flat_map(|body| framed(body)).collect();
        for buffer in [Some(BytesMut::new()), None] {
            let before = copied_bytes();
            let script = Script { buffer, ..Script::new(wire.clone(), &[usize::MAX]) };
            // Everything that comes is as long as the buffer: about every fourth frame lies across an end.
            assert_eq!(read_to_end(script, 1 << 20).0, bodies);
            let ends = (wire.len() / RECEIVED_BYTES_MAX) as u64;
            assert!(copied_bytes() - before <= ends * 4004, "{} bytes", copied_bytes() - before);
        }
    }

    #[test]
    fn of_a_large_frame_only_what_came_along_is_moved() {
        for first in [4, 100, SMALL_BYTES_MAX] {
            let wire = framed(&bodies(&[1 << 20])[0]);
            let before = copied_bytes();
            // The script's own turns: the beginning, then all the rest.
            let (frames, _) = read_all(wire, &[first, usize::MAX, usize::MAX], 2 << 20);
            assert_eq!(frames.len(), 1);
            assert_eq!(copied_bytes() - before, (first - LENGTH_BYTES) as u64, "{first} bytes came first");
        }
    }

    #[test]
    fn bad_lengths_end_the_connection() {
        for length in [i32::MIN, -1, 0, 7] {
            let (frames, end) = read_all([length.to_be_bytes().to_vec(), vec![0; 64]].concat(), &[usize::MAX], 1000);
            assert!(frames.is_empty());
            assert!(matches!(end, FrameError::Length(seen) if seen == length), "{end}");
        }
        for length in [1001, i32::MAX] {
            let (_, end) = read_all(length.to_be_bytes().to_vec(), &[1], 1000);
            assert!(matches!(end, FrameError::TooLarge { limit: 1000, by_memory: false, .. }), "{end}");
        }
        let mut reader = FrameReader::new(memory(1000, 2000), 2000, Rc::new(|_, length| length));
        let end = block_on(reader.next(&mut Script::new(1001_i32.to_be_bytes().to_vec(), &[4])));
        assert!(matches!(end, Err(FrameError::TooLarge { limit: 900, by_memory: true, .. })));
    }

    #[test]
    fn a_frame_that_would_take_too_much_is_refused_by_its_kind() {
        let memory = memory(10 << 20, 1 << 20);
        // Requests of kind 7 take 32 times their length.
        let estimate: Estimate = Rc::new(|start, length| if start[1] == 7 { 32 * length } else { length });
        for (kind, refused) in [(0, false), (7, true)] {
            let mut body = vec![0; 500_000];
            body[1] = kind;
            let mut reader = FrameReader::new(memory.clone(), 1 << 20, estimate.clone());
            let result = block_on(reader.next(&mut Script::new(framed(&body), &[1000])));
            assert_eq!(matches!(result, Err(FrameError::TooLarge { limit: 327_680, .. })), refused, "kind {kind}");
        }
    }

    #[test]
    fn a_frame_cut_off_is_not_handed_on() {
        let wire = framed(&bodies(&[50_000])[0]);
        for kept in [1, 3, 4, 5, 100, 49_999] {
            let (frames, end) = read_all(wire[..kept].to_vec(), &[1000], 1 << 20);
            assert!(frames.is_empty());
            assert!(matches!(end, FrameError::CutOff { .. }), "{kept} bytes: {end}");
        }
    }

    #[test]
    fn an_announcer_is_charged_for_little_more_than_it_sends() {
        let memory = memory(64 << 20, 40 << 20);
        let mut reader = FrameReader::new(memory, 40 << 20, Rc::new(|_, length| length));
        let sent = 100_000;
        let wire = [&(30_i32 << 20).to_be_bytes()[..], &vec![1; sent]].concat();
        // The script ends where a stalled peer would stand still; the charge at that moment is what it held.
        struct Watched(Script, usize);
        impl Source for Watched {
            async fn receive(&mut self, room: usize) -> io::Result<Received> {
                self.0.receive(room).await
            }
            async fn receive_into(&mut self, into: &mut Vec<u8>, up_to: usize) -> io::Result<usize> {
                self.1 = self.1.max(into.len() + up_to);
                self.0.receive_into(into, up_to).await
            }
            fn waits_for_memory(&mut self, _: bool) {}
            fn large_frame(&mut self, _: usize) {}
        }
        let mut source = Watched(Script::new(wire, &[10_000]), 0);
        assert!(matches!(block_on(reader.next(&mut source)), Err(FrameError::CutOff { .. })));
        assert!(source.1 <= 2 * sent + FIRST_STEP_BYTES, "held {} bytes for {sent}", source.1);
    }

    #[test]
    fn frames_cut_from_the_buffer_stay_whole_when_it_is_used_again() {
        let bodies = bodies(&[2000; 64]);
        let wire: Vec<u8> = bodies.iter().flat_map(|body| framed(body)).collect();
        // All frames are kept while later ones are received.
        let (frames, _) = read_all(wire, &[7000, 300], 1 << 20);
        assert_eq!(frames, bodies);
    }
}
