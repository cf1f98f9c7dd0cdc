//! One core's whole world: its replicas, the calls it takes from other cores, and the way to theirs.

mod call;
mod control;
mod coordinators;
mod core;
mod fetch;
mod housekeeping;
mod inbox;
mod metrics;
mod offsets;
mod produce;
mod replies;
mod rewrites;
mod router;
mod settings;
mod start;

pub use call::{
    Answer, AnyAnswer, AnyControlAsk, Call, FetchCall, ListedOffset, Message, OffsetsCall, ProducePart, mesh_bytes,
};
pub use core::{Broker, Core, TopicView};
pub use produce::ProducePending;
pub use replies::{Held, Leaving, ReplyMemory};
pub use rewrites::{RewriteMemory, Rewriting};
pub use router::{Bounds, Router};
#[cfg(test)]
pub(crate) use start::start_with;
pub use start::{CoreSeed, Registration, StartError, Started, check, recover, start};
