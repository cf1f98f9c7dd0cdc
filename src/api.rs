//! What clients can ask. One table of requests; one file per request.
//!
//! A handler has two stages. The first, awaiting [`handle`], hands the request over to whoever owns what it names: the order
//! of a connection's requests is fixed by awaiting one `handle` before the next. The second, the [`Pending`], waits for the
//! outcome. Only Produce does anything in its first stage, so only Produce may be begun while earlier ones have no
//! reply yet ([`pipelines`]).

mod acls;
mod alter_client_quotas;
mod alter_configs;
mod alter_partition;
mod alter_partition_reassignments;
mod api_versions;
mod allocate_producer_ids;
mod asker;
mod broker_heartbeat;
mod broker_registration;
mod brokers;
mod call;
mod config_changes;
pub(crate) mod controllers;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_client_quotas;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_quorum;
mod describe_topic_partitions;
mod elect_leaders;
mod fetch;
mod find_coordinator;
mod forwarding;
mod groups;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_config_resources;
mod list_groups;
mod list_offsets;
mod list_partition_reassignments;
mod loggers;
mod metadata;
mod metering;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod operations;
mod placement;
pub(crate) mod policy;
mod produce;
mod row;
mod raft_voters;
mod scatter;
mod scram_credentials;
mod session;
mod sync_group;
pub(crate) mod table;
mod topics;
mod transactions;
mod unregister_broker;
mod update_features;
mod view;
#[cfg(test)]
pub(crate) mod toy;

use std::{cell::RefCell, future::Future, pin::Pin, rc::Rc, time::Duration};

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;

pub use self::{
    brokers::AdvertisedListener,
    session::{Identity, ListenerKind, Session},
};
use self::{
    policy::Policy,
    table::{TABLE, Table},
};
use crate::{
    base::Set,
    io::{Instant, Io, Slice, channel::Semaphore},
    partition::fetch_session::FetchSessions,
    protocol::versions::Api,
    shard::Router,
};

/// What handlers know. One per core.
pub struct Context {
    table: &'static Table,
    policy: Policy,
    router: Router,
    io: Io,
    /// What clients are told to connect to, by listener.
    advertised: Vec<AdvertisedListener>,
    /// Fetch sessions of this core's connections.
    sessions: RefCell<FetchSessions>,
    /// Topics that are being created because a client named them.
    creating: RefCell<Set<String>>,
    /// Had by the one large batch of this core that is being validated: between two of them everything else has its turn.
    large_turn: Semaphore,
}

impl Context {
    /// The context of one of so many cores. `advertised` has an entry for each listener, by the index that [`Session`]s carry.
    #[must_use]
    pub fn new(router: Router, io: Io, advertised: Vec<AdvertisedListener>, cores: usize) -> Rc<Self> {
        let slots = router.config().requests.fetch_session_slots.div_ceil(cores);
        let sessions = RefCell::new(FetchSessions::new(slots));
        Rc::new(Self {
            table: &TABLE,
            policy: Policy::OPEN,
            router,
            io,
            advertised,
            sessions,
            creating: RefCell::default(),
            large_turn: Semaphore::new(1),
        })
    }

    /// A context of this core with other requests, for clients that may do other things.
    #[cfg(test)]
    pub(crate) fn with(&self, table: &'static Table, policy: Policy) -> Rc<Self> {
        let sessions = RefCell::new(FetchSessions::new(0));
        let (router, io, advertised) = (self.router.clone(), self.io.clone(), self.advertised.clone());
        let large_turn = self.large_turn.clone();
        Rc::new(Self { table, policy, router, io, advertised, sessions, creating: RefCell::default(), large_turn })
    }

    /// Counts a request that began to be served then, with what becomes of it.
    fn counted(&self, key: ApiKey, began: Instant, outcome: Outcome) -> Outcome {
        let time = self.io.clock.now().since(began);
        self.io.metrics.request(key as i16, time, matches!(outcome, Outcome::Close(_)));
        outcome
    }
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Outcome {
    /// An answer: length, head and body, in pieces that are sent as they lie. Nothing more is taken from the connection for so
    /// long after it (KIP-219).
    Reply(Vec<Slice>, Duration),
    /// No answer: Produce with `acks=0`.
    Nothing,
    /// The connection ends, for the reason given.
    Close(String),
}

/// A request's second stage.
pub type Pending = Pin<Box<dyn Future<Output = Outcome>>>;

/// Takes a frame, without its length. When this returns, the request's place in the order is fixed.
pub async fn handle(context: &Rc<Context>, session: &Rc<Session>, frame: Bytes) -> Pending {
    context.table.begin(context, session, frame).await
}

/// Whether a request may be begun while earlier ones that also may have no reply yet. Needs the frame's first four bytes.
#[must_use]
pub fn pipelines(frame_start: &[u8]) -> bool {
    TABLE.pipelines(frame_start)
}

/// Bytes to ask of the core's request memory before a frame of this length is read. Needs the frame's first four bytes.
#[must_use]
pub fn memory_estimate(frame_start: &[u8], frame_bytes: usize) -> usize {
    TABLE.memory_estimate(frame_start, frame_bytes)
}

/// Every request that is answered, by key. Nothing else is advertised or decoded.
pub fn requests() -> impl Iterator<Item = &'static Api> {
    TABLE.apis()
}

/// The request with a key as it comes off the wire, if it is answered.
#[must_use]
pub fn request(key: i16) -> Option<&'static Api> {
    TABLE.row(key).map(|row| &row.api)
}
