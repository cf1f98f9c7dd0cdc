//! A client's connection as the wire has it: whole frames in, whole frames out, in order. What `net::connection` does with
//! them is done here by hand (the next request begins when its turn has come, answers leave in order, an `Outcome::Close`
//! ends the connection, a connection moves to a better core); below it everything is the product's: head, guard, codec,
//! handlers.

use std::{cell::Cell, net::Ipv4Addr, rc::Rc};

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::{RequestHeader, ResponseHeader},
    protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes},
};

use crate::{
    api::{self, Identity, Outcome, Pending, Session},
    io::{
        Io,
        channel::{Notify, OneshotReceiver, OneshotSender, QueueReceiver, QueueSender, TrySendError, oneshot, queue},
        either,
    },
    sim::{
        broker::{Life, NODE},
        connection::Gone,
    },
};

/// Requests in flight on one connection.
const IN_FLIGHT_MAX: usize = 64;

/// A frame without its length, and where its answer goes.
type Asked = (Bytes, OneshotSender<Bytes>);

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

/// The broker's end of a connection, on one core.
struct Served {
    life: Rc<Life>,
    core: usize,
    frames: QueueReceiver<Asked>,
    hung_up: Notify,
    /// What the client has said of itself.
    identity: Identity,
}

/// What both tasks of a connection look at.
#[derive(Default)]
struct Open {
    requests: Cell<usize>,
    closed: Cell<bool>,
    changed: Notify,
}

impl Wire {
    /// Opens a connection to a core. None if the broker does not serve.
    pub fn open(life: &Rc<Life>, core: usize) -> Option<Self> {
        life.context(core)?;
        let (frames, received) = queue(IN_FLIGHT_MAX);
        let hung_up = Notify::new();
        Served { life: life.clone(), core, frames: received, hung_up: hung_up.clone(), identity: Identity::default() }
            .begin(None);
        Some(Self { life: life.clone(), frames, hung_up, correlation_id: Cell::new(1) })
    }

    /// Sends a request behind those that were sent before.
    pub fn begin<R: Request>(
        &self,
        version: i16,
        request: &R,
    ) -> impl Future<Output = Result<R::Response, Gone>> + use<R> + 'static {
        let correlation_id = self.correlation_id.get();
        self.correlation_id.set(correlation_id + 1);
        let answer = self.send(frame(version, correlation_id, request));
        async move {
            let bytes = answer.await.ok_or(Gone)?;
            Ok(decode::<R>(bytes, correlation_id, version))
        }
    }

    /// Asks and waits.
    /// # Errors  The broker ended, or hung up.
    pub async fn ask<R: Request>(&self, version: i16, request: &R) -> Result<R::Response, Gone> {
        self.begin(version, request).await
    }

    /// Sends any bytes. What comes back is an answer with its length, or nothing more on this connection.
    pub fn send(&self, frame: Bytes) -> OneshotReceiver<Bytes> {
        let (answer, receiver) = oneshot();
        match self.frames.try_send((frame, answer)) {
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => panic!("a client keeps to its own bound"),
        }
        receiver
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
    let length = i32::from_be_bytes(bytes[..4].try_into().expect("an answer has a length"));
    assert_eq!(length as usize, bytes.len() - 4, "{} v{version}: the answer's length", R::KEY);
    let mut bytes = bytes.split_off(4);
    let head = ResponseHeader::decode(&mut bytes, R::Response::header_version(version)).expect("an answer's head");
    assert_eq!(head.correlation_id, correlation_id, "{} v{version}: answers come in order", R::KEY);
    let answer = R::Response::decode(&mut bytes, version).unwrap_or_else(|why| panic!("{} v{version}: {why}", R::KEY));
    assert!(bytes.is_empty(), "{} v{version}: {} bytes behind the answer", R::KEY, bytes.len());
    answer
}

impl Served {
    /// Serves on its core, beginning with a frame that another core has received.
    fn begin(self, first: Option<Asked>) {
        let life = self.life.clone();
        life.sim.clone().spawn_on(NODE, self.core, |io| async move {
            let over = self.hung_up.notified();
            let _ = either(over, self.serve(io, first)).await;
        });
    }

    async fn serve(mut self, io: Io, mut first: Option<Asked>) {
        let Some(context) = self.life.context(self.core) else { return };
        let session = Rc::new(Session::new(Ipv4Addr::LOCALHOST.into(), 0, self.identity.clone()));
        let open = Rc::new(Open::default());
        let (pending, outcomes) = queue(IN_FLIGHT_MAX);
        let (over, writing) = (self.hung_up.notified(), write(outcomes, open.clone()));
        io.spawner.spawn(async move {
            let _ = either(over, writing).await;
        });
        let mut all_pipeline = true;
        loop {
            let asked = match first.take() {
                Some(asked) => Some(asked),
                None => self.frames.recv().await,
            };
            let Some((frame, answer)) = asked else { return };
            if let Some(core) = session.better_core().filter(|core| *core < self.life.cores) {
                open.until(|| open.requests.get() == 0).await;
                if !open.closed.get() {
                    Self { core, identity: session.identity(), ..self }.begin(Some((frame, answer)));
                }
                return;
            }
            let pipelines = api::pipelines(&frame);
            open.until(|| {
                let requests = open.requests.get();
                requests == 0 || (pipelines && all_pipeline && requests < IN_FLIGHT_MAX)
            })
            .await;
            if open.closed.get() {
                return;
            }
            all_pipeline = pipelines;
            open.requests.set(open.requests.get() + 1);
            let outcome = api::handle(&context, &session, frame).await;
            // The writer ends with the connection.
            let _ = pending.try_send((outcome, answer));
        }
    }
}

impl Open {
    /// Waits until `ready` holds or the connection is closed.
    async fn until(&self, mut ready: impl FnMut() -> bool) {
        while !ready() && !self.closed.get() {
            let changed = self.changed.notified();
            if !ready() && !self.closed.get() {
                changed.await;
            }
        }
    }
}

/// Sends what becomes of the requests, in their order.
async fn write(mut outcomes: QueueReceiver<(Pending, OneshotSender<Bytes>)>, open: Rc<Open>) {
    while let Some((pending, answer)) = outcomes.recv().await {
        match pending.await {
            Outcome::Reply(pieces, _) => {
                let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
                let _ = answer.send(bytes.into());
            }
            Outcome::Nothing => {}
            Outcome::Close(_) => open.closed.set(true),
        }
        open.requests.set(open.requests.get() - 1);
        open.changed.notify_all();
        if open.closed.get() {
            return;
        }
    }
}
