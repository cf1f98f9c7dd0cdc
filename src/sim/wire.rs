//! A client's connection as the wire has it: frames go out over the simulated network, whose other end are the broker's
//! listener and connections, and answers come back in order.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    rc::Rc,
};

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::{RequestHeader, ResponseHeader},
    protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes},
};

use crate::{
    io::{
        Outbox, Stream,
        channel::{Notify, OneshotReceiver, OneshotSender, QueueReceiver, QueueSender, TrySendError, oneshot, queue},
        either,
        sim::address,
    },
    sim::{
        broker::{CLIENTS, Life, NODE},
        connection::Gone,
        serving::PORT,
    },
};

/// Requests in flight on one connection.
const IN_FLIGHT_MAX: usize = 64;

/// A length goes before every frame.
const LENGTH_BYTES: usize = 4;

/// A frame without its length, and where its answer goes if there is to be one.
type Asked = (Bytes, Option<OneshotSender<Bytes>>);

/// See the head of this file.
pub struct Wire {
    /// The broker at the other end.
    pub life: Rc<Life>,
    frames: QueueSender<Asked>,
    hung_up: Notify,
    correlation_id: Cell<i32>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.hung_up.notify_all();
    }
}

impl Wire {
    /// Connects. None if the broker does not serve; if it ends meanwhile, no answer comes.
    pub fn open(life: &Rc<Life>) -> Option<Self> {
        life.context(0)?;
        let (frames, asked) = queue(IN_FLIGHT_MAX);
        let hung_up = Notify::new();
        let over = hung_up.notified();
        let (connecting, connected) = (life.sim.connect(CLIENTS, address(NODE, PORT)), life.connected.clone());
        connected.set(connected.get() + 1);
        life.sim.spawn_on(CLIENTS, 0, |_| async move {
            let talk = async {
                if let Ok(stream) = connecting.await {
                    talk(&stream, asked).await;
                }
            };
            let _ = either(over, talk).await;
            connected.set(connected.get() - 1);
        });
        Some(Self { life: life.clone(), frames, hung_up, correlation_id: Cell::new(1) })
    }

    /// Sends a request behind those that were sent before.
    pub fn begin<R: Request>(
        &self,
        version: i16,
        request: &R,
    ) -> impl Future<Output = Result<R::Response, Gone>> + use<R> + 'static {
        let correlation_id = self.next_id();
        let answer = self.send(frame(version, correlation_id, request));
        async move {
            let bytes = answer.await.ok_or(Gone)?;
            Ok(decode::<R>(bytes, correlation_id, version))
        }
    }

    /// Asks and waits.
    /// # Errors  The broker ended or hung up, or the connection was cut: it may have happened.
    pub async fn ask<R: Request>(&self, version: i16, request: &R) -> Result<R::Response, Gone> {
        self.begin(version, request).await
    }

    /// Sends a request that has no answer.
    pub fn tell<R: Request>(&self, version: i16, request: &R) {
        self.put((frame(version, self.next_id(), request), None));
    }

    /// Sends any bytes as a frame. What comes back is an answer with its length, or nothing more on this connection.
    pub fn send(&self, frame: Bytes) -> OneshotReceiver<Bytes> {
        let (answer, receiver) = oneshot();
        self.put((frame, Some(answer)));
        receiver
    }

    fn next_id(&self) -> i32 {
        self.correlation_id.replace(self.correlation_id.get() + 1)
    }

    fn put(&self, asked: Asked) {
        match self.frames.try_send(asked) {
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => panic!("a client keeps to its own bound"),
        }
    }
}

/// A request as it goes out, without its length.
pub fn frame<R: Request>(version: i16, correlation_id: i32, request: &R) -> Bytes {
    let mut out = BytesMut::new();
    RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("simulated")))
        .encode(&mut out, R::header_version(version))
        .expect("a good head");
    request.encode(&mut out, version).unwrap_or_else(|why| panic!("{} v{version}: {why}", R::KEY));
    out.freeze()
}

fn decode<R: Request>(mut bytes: Bytes, correlation_id: i32, version: i16) -> R::Response {
    let mut bytes = bytes.split_off(LENGTH_BYTES);
    let head = ResponseHeader::decode(&mut bytes, R::Response::header_version(version)).expect("an answer's head");
    assert_eq!(head.correlation_id, correlation_id, "{} v{version}: answers come in order", R::KEY);
    let answer = R::Response::decode(&mut bytes, version).unwrap_or_else(|why| panic!("{} v{version}: {why}", R::KEY));
    assert!(bytes.is_empty(), "{} v{version}: {} bytes behind the answer", R::KEY, bytes.len());
    answer
}

/// Answers that are waited for, in their order.
type Waiting = RefCell<VecDeque<OneshotSender<Bytes>>>;

/// Sends and receives until either way ends.
async fn talk(stream: &Stream, asked: QueueReceiver<Asked>) {
    let waiting = Waiting::default();
    let _ = either(send(stream, asked, &waiting), receive(stream, &waiting)).await;
}

async fn send(stream: &Stream, mut asked: QueueReceiver<Asked>, waiting: &Waiting) {
    let mut outbox = Outbox::default();
    while let Some((frame, answer)) = asked.recv().await {
        waiting.borrow_mut().extend(answer);
        let length = (frame.len() as i32).to_be_bytes().to_vec();
        outbox.push(vec![length.into(), frame.into()]);
        while outbox.unsent_bytes() > 0 {
            if poll_fn(|context| stream.poll_send(context, &mut outbox)).await.is_err() {
                // What was answered before it was cut may still come.
                return std::future::pending().await;
            }
        }
    }
}

async fn receive(stream: &Stream, waiting: &Waiting) {
    let mut received = BytesMut::new();
    loop {
        match poll_fn(|context| stream.poll_recv(context, 1)).await {
            Ok(piece) if !piece.is_empty() => received.extend_from_slice(piece.as_slice()),
            Ok(_) | Err(_) => return,
        }
        while let Some(whole) = whole(&received) {
            let answer = received.split_to(whole).freeze();
            let asker = waiting.borrow_mut().pop_front().expect("an answer that nobody waits for");
            // Who asked may have gone.
            let _ = asker.send(answer);
        }
    }
}

/// The bytes of the answer that is at the front, its length included, if all of them are there.
fn whole(received: &[u8]) -> Option<usize> {
    let length = i32::from_be_bytes(received.first_chunk().copied()?);
    let whole = LENGTH_BYTES + usize::try_from(length).expect("an answer has a length");
    (received.len() >= whole).then_some(whole)
}
