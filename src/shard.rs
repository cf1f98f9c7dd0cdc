//! One core's whole world: its replicas, the calls it takes from other cores, and the way to theirs.

mod administration;
mod call;
mod cluster;
mod control;
mod controller_link;
mod coordinators;
mod core;
mod fetch;
mod fetcher;
mod fetchers;
mod housekeeping;
mod in_sync;
mod in_sync_asks;
mod inbox;
mod leader;
mod membership;
mod metrics;
mod offsets;
mod produce;
mod quota_use;
mod replies;
mod rewrites;
mod router;
mod settings;
mod start;

pub use self::{
    call::{FetchCall, ListedOffset, OffsetsCall, ProducePart, mesh_bytes},
    cluster::Cluster,
    core::Broker,
    membership::Registration,
    quota_use::Used,
    replies::{Held, Leaving, ReplyMemory},
    rewrites::{RewriteMemory, Rewriting},
    router::{Bounds, Router},
    start::{CoreSeed, Started, check, recover, start},
};
#[cfg(test)]
pub use self::{core::TopicView, start::start_with};
