//! One connection to one address: opened when it is needed, opened anew after it has failed.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    fmt,
    future::poll_fn,
    io,
    rc::Rc,
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::{
    messages::{RequestHeader, ResponseHeader},
    protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes},
};

use crate::{
    io::{
        Either, Io, Outbox, RECEIVED_BYTES_MAX, Stream, StreamOptions,
        channel::{Notify, OneshotReceiver, OneshotSender, QueueReceiver, QueueSender, TrySendError, oneshot, queue},
        either,
    },
    protocol::frame::LENGTH_BYTES,
};

/// Requests of one link that have no answer yet.
const IN_FLIGHT_MAX: usize = 64;

/// The longest answer in bytes: what a peer sends may not take more memory than this.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// Nobody listens there: the broker does not run.
    Refused,
    /// There is no way there, or the name is not known.
    Unreachable,
    /// The connection ended: the request may have been served, or not.
    Lost,
    /// No answer in time: as [`LinkError::Lost`].
    TimedOut,
    /// What came is no answer to what was asked.
    Malformed,
    /// Too many requests have no answer yet.
    Busy,
}

impl fmt::Display for LinkError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Refused => "nobody listens there",
            Self::Unreachable => "it cannot be reached",
            Self::Lost => "the connection was lost",
            Self::TimedOut => "it did not answer in time",
            Self::Malformed => "it answered something else",
            Self::Busy => "too many requests have no answer",
        })
    }
}

impl std::error::Error for LinkError {}

/// A frame without its length, and where its answer goes.
type Asked = (Bytes, OneshotSender<Bytes>);

/// A way to one address. Requests go out in the order in which they are made, and are answered in it.
pub struct Link {
    io: Io,
    client_id: StrBytes,
    host: String,
    port: u16,
    open: RefCell<Option<Open>>,
    next_id: Cell<i32>,
}

/// Why a connection has ended, once it has.
type Ended = Rc<Cell<Option<LinkError>>>;

/// A connection that was opened, or is being opened.
struct Open {
    frames: QueueSender<Asked>,
    over: Notify,
    ended: Ended,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.over.notify_all();
    }
}

impl Link {
    /// A way to an address. Nothing is opened before something is asked.
    #[must_use]
    pub fn new(io: &Io, client_id: &str, host: &str, port: u16) -> Self {
        Self {
            io: io.clone(),
            client_id: StrBytes::from_string(client_id.to_owned()),
            host: host.to_owned(),
            port,
            open: RefCell::default(),
            next_id: Cell::new(0),
        }
    }

    /// Asks in that version of the request, and waits for the answer, to connect included, for so long. After a failure the
    /// next request opens a new connection.
    /// # Errors  Why there is no answer.
    pub async fn request<R: Request>(
        &self,
        request: &R,
        version: i16,
        timeout: Duration,
    ) -> Result<R::Response, LinkError> {
        let correlation_id = self.correlation_id();
        let frame = self.frame(R::KEY, R::header_version(version), version, correlation_id, |out| {
            request.encode(out, version).map_err(drop)
        })?;
        let answer = self.exchange(frame, timeout).await?;
        let decoded = decode::<R>(answer, correlation_id, version);
        if decoded.is_err() {
            self.close();
        }
        decoded
    }

    /// Sends a frame, without its length, and gives the answer's, without its length: head and body as they came.
    /// # Errors  Why there is no answer.
    pub async fn exchange(&self, frame: Bytes, timeout: Duration) -> Result<Bytes, LinkError> {
        let deadline = self.io.clock.now() + timeout;
        let (answer, ended) = self.send(frame)?;
        match either(answer, self.io.clock.sleep_until(deadline)).await {
            Either::Left(Some(answer)) => Ok(answer),
            Either::Left(None) => Err(ended.get().unwrap_or(LinkError::Lost)),
            Either::Right(()) => {
                // Answers come in order: whoever does not answer this one answers no other.
                self.close();
                Err(LinkError::TimedOut)
            }
        }
    }

    /// Ends the connection, if there is one: who waits gets `Lost`.
    pub fn close(&self) {
        self.open.borrow_mut().take();
    }

    /// A number for the next request.
    pub fn correlation_id(&self) -> i32 {
        self.next_id.replace(self.next_id.get().wrapping_add(1) & i32::MAX)
    }

    fn frame(
        &self,
        key: i16,
        header_version: i16,
        version: i16,
        correlation_id: i32,
        body: impl FnOnce(&mut BytesMut) -> Result<(), ()>,
    ) -> Result<Bytes, LinkError> {
        let mut out = BytesMut::new();
        let head = RequestHeader::default()
            .with_request_api_key(key)
            .with_request_api_version(version)
            .with_correlation_id(correlation_id)
            .with_client_id(Some(self.client_id.clone()));
        // A field that this version lacks: ours to know, and nothing has been sent.
        head.encode(&mut out, header_version).map_err(|_| LinkError::Malformed)?;
        body(&mut out).map_err(|()| LinkError::Malformed)?;
        Ok(out.freeze())
    }

    fn send(&self, frame: Bytes) -> Result<(OneshotReceiver<Bytes>, Ended), LinkError> {
        let (answer, receiver) = oneshot();
        let mut asked = (frame, answer);
        if let Some(open) = self.open.borrow().as_ref().filter(|open| open.ended.get().is_none()) {
            match open.frames.try_send(asked) {
                Ok(()) => return Ok((receiver, open.ended.clone())),
                Err(TrySendError::Full(_)) => return Err(LinkError::Busy),
                Err(TrySendError::Closed(back)) => asked = back,
            }
        }
        let open = self.connect();
        let ended = open.ended.clone();
        if open.frames.try_send(asked).is_err() {
            return Err(LinkError::Lost);
        }
        *self.open.borrow_mut() = Some(open);
        Ok((receiver, ended))
    }

    /// Opens a connection in a task of its own, which ends with it.
    fn connect(&self) -> Open {
        let (frames, asked) = queue(IN_FLIGHT_MAX);
        let over = Notify::new();
        let told = over.notified();
        let ended = Rc::new(Cell::new(None));
        let (io, host, port, how) = (self.io.clone(), self.host.clone(), self.port, ended.clone());
        self.io.spawner.spawn(async move {
            let talk = async {
                let stream = Stream::connect(&io, &host, port).await.map_err(|error| unreachable(&error))?;
                stream.configure(&StreamOptions::default()).map_err(|_| LinkError::Lost)?;
                talk(&stream, asked).await
            };
            let ended = match either(told, talk).await {
                Either::Right(Err(error)) => error,
                Either::Right(Ok(())) | Either::Left(_) => LinkError::Lost,
            };
            how.set(Some(ended));
        });
        Open { frames, over, ended }
    }
}

fn unreachable(error: &io::Error) -> LinkError {
    if error.kind() == io::ErrorKind::ConnectionRefused { LinkError::Refused } else { LinkError::Unreachable }
}

fn decode<R: Request>(mut bytes: Bytes, correlation_id: i32, version: i16) -> Result<R::Response, LinkError> {
    let malformed = |_| LinkError::Malformed;
    let head = ResponseHeader::decode(&mut bytes, R::Response::header_version(version)).map_err(malformed)?;
    if head.correlation_id != correlation_id {
        return Err(LinkError::Malformed);
    }
    let answer = R::Response::decode(&mut bytes, version).map_err(malformed)?;
    if bytes.is_empty() { Ok(answer) } else { Err(LinkError::Malformed) }
}

/// Those who wait for an answer, in their order.
type Waiting = RefCell<VecDeque<OneshotSender<Bytes>>>;

/// Sends and receives until either way ends.
async fn talk(stream: &Stream, asked: QueueReceiver<Asked>) -> Result<(), LinkError> {
    let waiting = Waiting::default();
    match either(send(stream, asked, &waiting), receive(stream, &waiting)).await {
        Either::Left(ended) | Either::Right(ended) => ended,
    }
}

async fn send(stream: &Stream, mut asked: QueueReceiver<Asked>, waiting: &Waiting) -> Result<(), LinkError> {
    let mut outbox = Outbox::default();
    while let Some((frame, answer)) = asked.recv().await {
        waiting.borrow_mut().push_back(answer);
        let length = i32::try_from(frame.len()).map_err(|_| LinkError::Malformed)?;
        outbox.push(vec![length.to_be_bytes().to_vec().into(), frame.into()]);
        while outbox.unsent_bytes() > 0 {
            poll_fn(|context| stream.poll_send(context, &mut outbox)).await.map_err(|_| LinkError::Lost)?;
        }
    }
    Ok(())
}

async fn receive(stream: &Stream, waiting: &Waiting) -> Result<(), LinkError> {
    let mut received = BytesMut::new();
    loop {
        let piece = poll_fn(|context| stream.poll_recv(context, RECEIVED_BYTES_MAX / 4)).await;
        match piece {
            Ok(piece) if !piece.is_empty() => received.extend_from_slice(piece.as_slice()),
            Ok(_) | Err(_) => return Err(LinkError::Lost),
        }
        while let Some(length) = received.first_chunk().copied().map(i32::from_be_bytes) {
            let length = usize::try_from(length).map_err(|_| LinkError::Malformed)?;
            if length > ANSWER_BYTES_MAX {
                return Err(LinkError::Malformed);
            }
            if received.len() < LENGTH_BYTES + length && length <= RECEIVED_BYTES_MAX {
                break;
            }
            received.advance(LENGTH_BYTES);
            let answer = whole(stream, &mut received, length).await?;
            let asker = waiting.borrow_mut().pop_front().ok_or(LinkError::Malformed)?;
            // Who asked may have gone.
            let _gone = asker.send(answer);
        }
    }
}

/// An answer of which the beginning is there. A long one is received right into memory of its own, which it takes as it comes.
async fn whole(stream: &Stream, received: &mut BytesMut, length: usize) -> Result<Bytes, LinkError> {
    if received.len() >= length {
        return Ok(received.split_to(length).freeze());
    }
    let mut answer = Vec::with_capacity(length);
    answer.extend_from_slice(&received.split());
    while answer.len() < length {
        let left = length - answer.len();
        match poll_fn(|context| stream.poll_recv_into(context, &mut answer, left)).await {
            Ok(0) | Err(_) => return Err(LinkError::Lost),
            Ok(_) => {}
        }
    }
    Ok(answer.into())
}
