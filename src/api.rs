//! What clients can ask. One table of requests; one file per request.
//!
//! A handler has two stages. The first, awaiting [`handle`], hands the request over to whoever owns what it names: the order
//! of a connection's requests is fixed by awaiting one `handle` before the next. The second, the [`Pending`], waits for the
//! outcome. Only Produce does anything in its first stage, so only Produce may be begun while earlier ones have no
//! reply yet ([`pipelines`]).

mod api_versions;
mod call;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_topic_partitions;
mod fetch;
mod find_coordinator;
mod groups;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_groups;
mod list_offsets;
mod loggers;
mod metadata;
mod offset_commit;
mod offset_fetch;
mod offset_for_leader_epoch;
mod operations;
mod peer;
mod produce;
mod sync_group;
mod topics;

use std::{cell::RefCell, future::Future, pin::Pin, rc::Rc};

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;

use self::call::Call;
pub use self::peer::{Endpoint, Peer};
use crate::{
    base::Set,
    io::{Instant, Io, Slice},
    partition::fetch_session::FetchSessions,
    protocol::frame::{self, RequestHead},
    shard::Router,
};

/// What handlers know. One per core.
pub struct Context {
    router: Router,
    io: Io,
    /// What clients are told to connect to, by listener.
    endpoints: Vec<Endpoint>,
    /// Fetch sessions of this core's connections.
    sessions: RefCell<FetchSessions>,
    /// Topics that are being created because a client named them.
    creating: RefCell<Set<String>>,
}

impl Context {
    /// The context of one of so many cores. `endpoints` has an entry for each listener, by the index that [`Peer`]s carry.
    #[must_use]
    pub fn new(router: Router, io: Io, endpoints: Vec<Endpoint>, cores: usize) -> Rc<Self> {
        let slots = router.config().requests.fetch_session_slots.div_ceil(cores);
        let sessions = RefCell::new(FetchSessions::new(slots));
        Rc::new(Self { router, io, endpoints, sessions, creating: RefCell::default() })
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
    /// An answer: length, head and body, in pieces that are sent as they lie.
    Reply(Vec<Slice>),
    /// No answer: Produce with `acks=0`.
    Nothing,
    /// The connection ends, for the reason given.
    Close(String),
}

/// A request's second stage.
pub type Pending = Pin<Box<dyn Future<Output = Outcome>>>;

/// A request's first stage, where it has one: a future whose value is the second one.
type Begun = Pin<Box<dyn Future<Output = Pending>>>;

enum Handler {
    /// Hands over in order first, then waits.
    Ordered(fn(Rc<Context>, Rc<Peer>, RequestHead) -> Begun),
    /// All in the second stage, once every earlier request has its reply.
    Alone(fn(Rc<Context>, Rc<Peer>, RequestHead) -> Pending),
}

/// One request.
struct Row {
    key: ApiKey,
    /// Memory that it takes while it is served, beyond record bytes of the log: so much at least ...
    fixed_bytes: usize,
    /// ... and so many times its frame.
    frame_times: usize,
    handler: Handler,
}

macro_rules! alone {
    ($key:ident, $fixed:expr, $times:expr, $handle:path) => {
        Row {
            key: ApiKey::$key,
            fixed_bytes: $fixed,
            frame_times: $times,
            handler: Handler::Alone(|context, peer, head| {
                Box::pin(async move {
                    let began = context.io.clock.now();
                    let outcome = match Call::decode(peer, head) {
                        Ok(call) => $handle(&context, call).await,
                        Err(why) => Outcome::Close(why),
                    };
                    context.counted(ApiKey::$key, began, outcome)
                })
            }),
        }
    };
}

/// Fixed memory of a request with a short answer.
const SMALL: usize = 8 << 10;
/// Fixed memory of a request whose answer lists topics or settings.
const LISTING: usize = 128 << 10;

/// Every request. What is not here is neither advertised nor decoded.
#[allow(clippy::async_yields_async)] // that is what two stages are
static TABLE: [Row; 25] = [
    Row {
        key: ApiKey::Produce,
        fixed_bytes: SMALL,
        frame_times: 1,
        handler: Handler::Ordered(|context, peer, head| {
            Box::pin(async move {
                let began = context.io.clock.now();
                match Call::decode(peer, head) {
                    Ok(call) => produce::begin(context, call, began).await,
                    Err(why) => {
                        let outcome = context.counted(ApiKey::Produce, began, Outcome::Close(why));
                        Box::pin(std::future::ready(outcome))
                    }
                }
            })
        }),
    },
    alone!(Fetch, SMALL, 8, fetch::handle),
    alone!(ListOffsets, SMALL, 16, list_offsets::handle),
    alone!(Metadata, LISTING, 16, metadata::handle),
    alone!(OffsetCommit, SMALL, 16, offset_commit::handle),
    alone!(OffsetFetch, SMALL, 16, offset_fetch::handle),
    alone!(FindCoordinator, SMALL, 16, find_coordinator::handle),
    alone!(JoinGroup, SMALL, 4, join_group::handle),
    alone!(Heartbeat, SMALL, 2, heartbeat::handle),
    alone!(LeaveGroup, SMALL, 16, leave_group::handle),
    alone!(SyncGroup, SMALL, 4, sync_group::handle),
    alone!(DescribeGroups, LISTING, 16, describe_groups::handle),
    alone!(ListGroups, LISTING, 16, list_groups::handle),
    Row {
        key: ApiKey::ApiVersions,
        fixed_bytes: SMALL,
        frame_times: 2,
        handler: Handler::Alone(|context, peer, head| {
            Box::pin(async move {
                let began = context.io.clock.now();
                let outcome = api_versions::handle(&context, peer, head);
                context.counted(ApiKey::ApiVersions, began, outcome)
            })
        }),
    },
    alone!(CreateTopics, LISTING, 32, create_topics::handle),
    alone!(DeleteTopics, SMALL, 32, delete_topics::handle),
    alone!(DeleteRecords, SMALL, 16, delete_records::handle),
    alone!(InitProducerId, SMALL, 2, init_producer_id::handle),
    alone!(OffsetForLeaderEpoch, SMALL, 16, offset_for_leader_epoch::handle),
    alone!(DescribeConfigs, LISTING, 32, describe_configs::handle),
    alone!(CreatePartitions, SMALL, 32, create_partitions::handle),
    alone!(DeleteGroups, SMALL, 32, delete_groups::handle),
    alone!(IncrementalAlterConfigs, SMALL, 32, incremental_alter_configs::handle),
    alone!(DescribeCluster, SMALL, 2, describe_cluster::handle),
    alone!(DescribeTopicPartitions, LISTING, 32, describe_topic_partitions::handle),
];

fn row(key: i16) -> Option<&'static Row> {
    TABLE.binary_search_by_key(&key, |row| row.key as i16).ok().map(|index| &TABLE[index])
}

/// Takes a frame, without its length. When this returns, the request's place in the order is fixed.
pub async fn handle(context: &Rc<Context>, peer: &Rc<Peer>, frame: Bytes) -> Pending {
    let head = match frame::parse(frame) {
        Ok(head) => head,
        Err(why) => return closing(why.to_string()),
    };
    let row =
        row(head.api.key as i16).expect("the table has every api that heads are read for; a test holds them together");
    match row.handler {
        Handler::Ordered(begin) => begin(context.clone(), peer.clone(), head).await,
        Handler::Alone(run) => run(context.clone(), peer.clone(), head),
    }
}

/// Whether a request may be begun while earlier ones that also may have no reply yet. Needs the frame's first four bytes.
#[must_use]
pub fn pipelines(frame_start: &[u8]) -> bool {
    frame::peek(frame_start).and_then(|(key, _)| row(key)).is_some_and(|row| matches!(row.handler, Handler::Ordered(_)))
}

/// Bytes to ask of the core's request memory before a frame of this length is read. Needs the frame's first four bytes.
#[must_use]
pub fn memory_estimate(frame_start: &[u8], frame_bytes: usize) -> usize {
    // Unknown requests are closed, not served: they cost their frame.
    let (fixed_bytes, frame_times) =
        frame::peek(frame_start).and_then(|(key, _)| row(key)).map_or((0, 1), |row| (row.fixed_bytes, row.frame_times));
    fixed_bytes.saturating_add(frame_bytes.saturating_mul(frame_times))
}

fn closing(why: String) -> Pending {
    Box::pin(std::future::ready(Outcome::Close(why)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::versions::APIS;

    #[test]
    fn every_advertised_api_has_a_handler_and_no_other() {
        let handled: Vec<_> = TABLE.iter().map(|row| row.key as i16).collect();
        let advertised: Vec<_> = APIS.iter().map(|api| api.key as i16).collect();
        assert_eq!(handled, advertised);
    }

    #[test]
    fn only_produce_overlaps() {
        for api in &APIS {
            let start = [&(api.key as i16).to_be_bytes()[..], &api.max.to_be_bytes()].concat();
            assert_eq!(pipelines(&start), api.key == ApiKey::Produce, "{}", api.name);
            assert!(memory_estimate(&start, 100) >= 100 + SMALL);
        }
        assert!(!pipelines(&[0, 0, 0]));
        assert_eq!(memory_estimate(&[0x7f, 0xff, 0, 0], 64), 64);
    }
}
