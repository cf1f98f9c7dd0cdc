//! How a simulated broker serves clients: the product's listener and connections, between the network and the handlers.

use std::{rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    api::{self, Identity, ListenerKind, Outcome, Session},
    io::{BoundAddress, Io, StreamOptions},
    net::{
        Accepted, Acceptor, ConnectionLimits, LargeRequests, Mailbox, NetCore, NetSettings, OpenListener, Peer,
        Pending, Service,
    },
    shard::ReplyMemory,
};

/// Where the broker listens.
pub const PORT: u16 = 9092;

/// Bytes of the largest request, and what all large ones may have together.
const REQUEST_BYTES_MAX: usize = 2 << 20;
const LARGE_REQUEST_BYTES: usize = 6 << 20;
/// Bytes of the small requests of a core.
const SMALL_REQUEST_BYTES: usize = 64 << 10;
/// More bytes of replies that are not read than there will be.
const REPLY_BYTES: usize = 1 << 30;
/// More connections than there will be.
const CONNECTIONS_MAX: usize = 1000;

/// The handlers of a core, as they are when a request comes: tests put others in their place.
#[derive(Clone)]
pub struct Handlers(Rc<dyn Fn() -> Option<Rc<api::Context>>>);

impl Service for Handlers {
    type Client = Rc<Session>;

    fn client(&self, peer: &Peer) -> Rc<Session> {
        Rc::new(Session::new(peer.address.ip(), peer.listener, peer.identity.clone()))
    }

    fn identity(&self, client: &Rc<Session>) -> Identity {
        client.identity()
    }

    fn pipelines(&self, frame: &[u8]) -> bool {
        api::pipelines(frame)
    }

    fn memory_estimate(&self, frame_start: &[u8], frame_bytes: usize) -> usize {
        api::memory_estimate(frame_start, frame_bytes)
    }

    fn better_core(&self, client: &Rc<Session>) -> Option<usize> {
        client.better_core()
    }

    async fn handle(&self, client: &Rc<Session>, frame: Bytes) -> Pending {
        match (self.0)() {
            Some(context) => api::handle(&context, client, frame).await,
            None => Box::pin(async { Outcome::Close("the broker has ended".into()) }),
        }
    }
}

/// What the cores of a life share to serve clients.
#[derive(Clone)]
pub struct Serving {
    limits: Arc<ConnectionLimits>,
    large_requests: Arc<LargeRequests>,
    replies: Arc<ReplyMemory>,
    mailboxes: Vec<Mailbox<Accepted>>,
}

impl Serving {
    pub fn new(cores: usize) -> Self {
        Self {
            limits: ConnectionLimits::new(CONNECTIONS_MAX, CONNECTIONS_MAX, cores),
            large_requests: LargeRequests::new(LARGE_REQUEST_BYTES, REQUEST_BYTES_MAX),
            replies: ReplyMemory::new(cores, REPLY_BYTES, REPLY_BYTES),
            mailboxes: (0..cores).map(|_| Mailbox::default()).collect(),
        }
    }

    /// Serves the connections of a core. `context` is what its handlers know, as long as the broker lives.
    pub fn serve(
        &self,
        io: &Io,
        core: usize,
        context: impl Fn() -> Option<Rc<api::Context>> + 'static,
    ) -> Rc<NetCore<Handlers>> {
        let settings = NetSettings {
            frame_bytes_max: REQUEST_BYTES_MAX,
            idle_max: Duration::from_secs(600),
            small_request_bytes: SMALL_REQUEST_BYTES,
            large_requests: self.large_requests.clone(),
            replies: self.replies.clone(),
            core,
            stream: StreamOptions::default(),
        };
        let net = NetCore::new(Handlers(Rc::new(context)), settings, io, self.deliver());
        io.spawner.spawn(net.clone().receive(self.mailboxes[core].clone()));
        io.spawner.spawn(net.clone().sweep_on(|| ()));
        net
    }

    /// Opens the broker's address to clients, on the first core.
    pub fn open(&self, bound: BoundAddress, io: &Io) -> Acceptor {
        let open = OpenListener::open(vec![bound]).expect("a bound address can be opened");
        open.accept(ListenerKind::Clients, 0, &self.limits, io, self.deliver())
    }

    fn deliver(&self) -> impl Fn(Accepted) + Clone + use<> {
        let mailboxes = self.mailboxes.clone();
        move |accepted| mailboxes[accepted.core()].put(accepted)
    }
}
