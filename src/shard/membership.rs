//! A broker's part in a cluster of several, on the controller's core: it carries the quorum's packets, tells the cores who leads,
//! registers with the controller and goes on telling it that it lives.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use kafka_protocol::{
    messages::{
        BrokerHeartbeatRequest, BrokerRegistrationRequest,
        broker_registration_request::{Feature, Listener},
    },
    protocol::StrBytes,
};
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::{
    base::{BrokerId, ErrorCode},
    config::Voter,
    controller::{asks::cluster::FenceDead, supported_features},
    io::{Io, channel::Notify},
    log::Fatal,
    peer::{Link, LinkError},
    protocol::{
        metadata_records::BrokerEndpoint,
        quorum_packets::{self, Envelope},
    },
    quorum::{RaftQuorum, Transport},
    shard::{cluster::Cluster, core::Core},
};

/// Packets for one voter that wait for their way. Of more the oldest are dropped: raft says it again.
const WAITING_BYTES_MAX: usize = 32 << 20;

/// How long a voter may take to take packets.
const PACKETS_TIMEOUT: Duration = Duration::from_secs(2);

/// Between two tries to reach a voter that was not reached.
const UNREACHED_PAUSE: Duration = Duration::from_millis(100);

/// How long the controller may take to answer one question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two questions that were refused.
const REFUSED_PAUSE: Duration = Duration::from_millis(200);

/// What the controller writes down about this broker when it starts.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Where clients reach it.
    pub end_points: Vec<BrokerEndpoint>,
    /// `directory.id` of `meta.properties`.
    pub directory: Uuid,
}

/// Carries the quorum's packets to the other voters.
pub(super) struct Post {
    boxes: Vec<Rc<Outgoing>>,
}

/// What waits for its way to one voter.
struct Outgoing {
    voter: Voter,
    packets: RefCell<VecDeque<Vec<u8>>>,
    bytes: Cell<usize>,
    news: Notify,
}

impl Post {
    /// A way to each other voter; it lives as long as the core does.
    /// `is_dead` is told of one that was there and whose process runs no more.
    pub(super) fn open(
        io: &Io,
        me: BrokerId,
        cluster_id: &str,
        voters: &[Voter],
        is_dead: Rc<dyn Fn(BrokerId)>,
    ) -> Rc<Self> {
        let others = voters.iter().filter(|voter| voter.id != me);
        let boxes = others.map(|voter| {
            let outgoing = Rc::new(Outgoing {
                voter: voter.clone(),
                packets: RefCell::default(),
                bytes: Cell::new(0),
                news: Notify::new(),
            });
            io.spawner.spawn(deliver(io.clone(), outgoing.clone(), me, cluster_id.to_owned(), is_dead.clone()));
            outgoing
        });
        Rc::new(Self { boxes: boxes.collect() })
    }
}

impl Transport for Post {
    fn send(&self, to: BrokerId, packet: Vec<u8>) {
        let Some(outgoing) = self.boxes.iter().find(|outgoing| outgoing.voter.id == to) else { return };
        let mut packets = outgoing.packets.borrow_mut();
        let mut bytes = outgoing.bytes.get() + packet.len();
        packets.push_back(packet);
        while bytes > WAITING_BYTES_MAX
            && let Some(oldest) = packets.pop_front()
        {
            bytes -= oldest.len();
        }
        outgoing.bytes.set(bytes);
        outgoing.news.notify_all();
    }
}

async fn deliver(io: Io, outgoing: Rc<Outgoing>, me: BrokerId, cluster_id: String, is_dead: Rc<dyn Fn(BrokerId)>) {
    let link = Link::new(&io, "ringtail-quorum", &outgoing.voter.host, outgoing.voter.port);
    let envelope = Envelope { cluster_id: &cluster_id, from: me.0, to: outgoing.voter.id.0 };
    let mut refused = 0;
    let mut was_there = false;
    loop {
        let news = outgoing.news.notified();
        if outgoing.packets.borrow().is_empty() {
            news.await;
        }
        let packets: Vec<Vec<u8>> = outgoing.packets.take().into();
        outgoing.bytes.set(0);
        let id = link.correlation_id();
        let frame = quorum_packets::encode(id, &envelope, &packets);
        match link.exchange(frame, PACKETS_TIMEOUT).await {
            Ok(answer) => {
                was_there = true;
                let code = quorum_packets::code(&answer, id);
                let code = code.map_or(Some(ErrorCode::UnknownServerError), ErrorCode::try_from_code);
                if code != refused_as(refused) {
                    refused = code.map_or(0, |code| code.code());
                    if let Some(code) = code {
                        let voter = &outgoing.voter;
                        warn!(voter = voter.id.0, host = voter.host, port = voter.port, ?code, "a voter refuses us");
                    }
                }
                if code.is_some() {
                    io.clock.sleep(REFUSED_PAUSE).await;
                }
            }
            Err(error) => {
                debug!(voter = outgoing.voter.id.0, %error, "a voter was not reached");
                // Its machine answers that nobody listens there any more.
                if error == LinkError::Refused && std::mem::take(&mut was_there) {
                    is_dead(outgoing.voter.id);
                }
                io.clock.sleep(UNREACHED_PAUSE).await;
            }
        }
    }
}

fn refused_as(code: i16) -> Option<ErrorCode> {
    ErrorCode::try_from_code(code)
}

impl Core {
    /// A broker's process is gone: it need not be waited for until its session is over, if this one is the controller.
    pub(super) fn fence_dead(self: &Rc<Self>, broker: BrokerId) {
        if self.is_led_elsewhere() {
            return;
        }
        let registered = self.image.borrow().broker(broker).map(|registered| registered.broker_epoch);
        let Some(broker_epoch) = registered else { return };
        let this = self.clone();
        self.io.spawner.spawn(async move {
            let fenced = this.control_here(Box::new(FenceDead { broker, broker_epoch })).await;
            info!(%broker, fenced = fenced.is_ok(), "a broker's process is gone");
        });
    }
}

/// See the head of this file.
pub(super) struct Member {
    core: Rc<Core>,
    pub(super) quorum: Rc<RaftQuorum>,
    cluster: Arc<Cluster>,
    fatal: Fatal,
    incarnation: Uuid,
    broker_epoch: Cell<i64>,
    /// The broker is to stop, and wants to be led from nowhere.
    leaves: Cell<bool>,
    left: Notify,
    may_leave: Cell<bool>,
}

impl Member {
    /// Takes part from now on: tells who leads as soon as that is known.
    pub(super) fn begin(core: &Rc<Core>, quorum: Rc<RaftQuorum>, cluster: Arc<Cluster>, fatal: Fatal) -> Rc<Self> {
        let member = Rc::new(Self {
            core: core.clone(),
            quorum: quorum.clone(),
            cluster: cluster.clone(),
            fatal,
            incarnation: core.io.rand.uuid(),
            broker_epoch: Cell::new(-1),
            leaves: Cell::new(false),
            left: Notify::new(),
            may_leave: Cell::new(false),
        });
        core.io.spawner.spawn(async move {
            loop {
                let changed = quorum.leader_changed();
                let leader = quorum.leader();
                cluster.is_led_by(leader);
                debug!(?leader, "the quorum's leader");
                changed.await;
            }
        });
        member
    }

    /// Takes packets of another voter's.
    /// # Errors  Kafka's code for why they are not for this voter of this cluster.
    pub(super) fn take_packets(&self, envelope: &Envelope<'_>, packets: &[&[u8]]) -> Result<(), ErrorCode> {
        if envelope.cluster_id != self.core.broker.cluster_id {
            warn!(from = envelope.from, cluster_id = envelope.cluster_id, "a voter of another cluster");
            return Err(ErrorCode::InconsistentClusterId);
        }
        if envelope.to != self.core.broker.id.0 {
            warn!(from = envelope.from, to = envelope.to, "a voter takes us for another one");
            return Err(ErrorCode::InvalidVoterKey);
        }
        for packet in packets {
            if let Err(error) = self.quorum.receive(BrokerId(envelope.from), packet) {
                warn!(from = envelope.from, %error, "a packet that is none");
                return Err(ErrorCode::InvalidRequest);
            }
        }
        Ok(())
    }

    /// Registers this broker and waits until the cluster takes it for one that serves. From then on its heart beats.
    /// # Errors  Another broker with our id, or another cluster's.
    pub(super) async fn join(self: &Rc<Self>, registration: Registration) -> Result<(), ErrorCode> {
        let request = self.registration(registration);
        loop {
            match self.core.ask_controller(&request, ANSWER_TIMEOUT).await {
                Ok(answer) => match ErrorCode::try_from_code(answer.error_code) {
                    None => {
                        self.broker_epoch.set(answer.broker_epoch);
                        break;
                    }
                    Some(error @ (ErrorCode::InconsistentClusterId | ErrorCode::UnsupportedVersion)) => {
                        return Err(error);
                    }
                    Some(error) => warn!(?error, "the controller does not register this broker yet"),
                },
                Err(_) => info!("waiting for a controller"),
            }
            self.core.io.clock.sleep(REFUSED_PAUSE).await;
        }
        info!(broker_epoch = self.broker_epoch.get(), "registered");
        while self.beat().await != Some(false) {
            self.core.io.clock.sleep(REFUSED_PAUSE / 4).await;
        }
        self.core.io.spawner.spawn(self.clone().live());
        Ok(())
    }

    fn registration(&self, registration: Registration) -> BrokerRegistrationRequest {
        let Registration { end_points, directory } = registration;
        let text = |text: &str| StrBytes::from_string(text.to_owned());
        let listeners = end_points.iter().map(|point| {
            Listener::default()
                .with_name(text(&point.name))
                .with_host(text(&point.host))
                .with_port(point.port)
                .with_security_protocol(point.security_protocol)
        });
        let features = supported_features().into_iter().map(|feature| {
            Feature::default()
                .with_name(text(&feature.name))
                .with_min_supported_version(feature.min)
                .with_max_supported_version(feature.max)
        });
        BrokerRegistrationRequest::default()
            .with_broker_id(self.core.broker.id.0.into())
            .with_cluster_id(text(&self.core.broker.cluster_id))
            .with_incarnation_id(self.incarnation)
            .with_listeners(listeners.collect())
            .with_features(features.collect())
            .with_rack(self.core.statics.node.rack.as_deref().map(text))
            .with_log_dirs(vec![directory])
            .with_previous_broker_epoch(-1)
    }

    /// Says once that this broker lives. Whether it is fenced; nothing if nobody heard.
    async fn beat(&self) -> Option<bool> {
        let sent = self.core.io.clock.now();
        let request = BrokerHeartbeatRequest::default()
            .with_broker_id(self.core.broker.id.0.into())
            .with_broker_epoch(self.broker_epoch.get())
            .with_current_metadata_offset(self.core.image_offset.get().0)
            .with_want_shut_down(self.leaves.get());
        let session = Duration::from_millis(self.core.statics.cluster.session_timeout_ms);
        let answer = self.core.ask_controller(&request, session).await.ok()?;
        match ErrorCode::try_from_code(answer.error_code) {
            None => {
                if !answer.is_fenced {
                    self.cluster.is_alive_until(sent + session);
                }
                if answer.should_shut_down {
                    self.may_leave.set(true);
                    self.left.notify_all();
                }
                Some(answer.is_fenced)
            }
            Some(error @ (ErrorCode::StaleBrokerEpoch | ErrorCode::BrokerIdNotRegistered)) => {
                (self.fatal)(format!(
                    "the controller knows another life of this broker ({error:?}): does another process have its node.id?"
                ));
                None
            }
            Some(error) => {
                warn!(?error, "the controller refuses a heartbeat");
                None
            }
        }
    }

    async fn live(self: Rc<Self>) {
        let interval = Duration::from_millis(self.core.statics.cluster.heartbeat_interval_ms);
        let mut fenced = false;
        loop {
            self.core.io.clock.sleep(if self.leaves.get() { interval.min(REFUSED_PAUSE / 4) } else { interval }).await;
            match self.beat().await {
                Some(is_fenced) if is_fenced != fenced => {
                    fenced = is_fenced;
                    if fenced {
                        warn!("the controller has taken this broker for dead: others lead what it has led");
                    } else {
                        info!("the controller takes this broker for alive again");
                    }
                }
                Some(_) | None => {}
            }
            if self.may_leave.get() {
                return;
            }
        }
    }

    /// Gives away what this broker leads, the quorum with it, before it stops. Ends when all of it is led elsewhere, or when that
    /// takes too long.
    pub(super) async fn leave(&self, timeout: Duration) {
        if self.broker_epoch.get() < 0 {
            return;
        }
        let left = self.left.notified();
        self.leaves.set(true);
        crate::io::either(left, self.core.io.clock.sleep(timeout)).await;
        if !self.may_leave.get() {
            warn!("the controller has not let this broker go in time");
        }
        self.quorum.transfer().await;
    }
}
