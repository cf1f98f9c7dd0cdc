#![doc = include_str!("../ARCHITECTURE.md")]
#![warn(missing_docs)]
// Without glommio those who use much of the flows and rules are not there.
#![cfg_attr(not(feature = "glommio"), allow(dead_code, unused_imports))]

// The rooms, from the top of the house to the ground. A room uses only rooms declared below it; `tests/tidy.rs` reads
// this list and enforces it.

// The simulator stands above everything: it drives whole brokers.
#[cfg(test)]
#[allow(clippy::async_yields_async)] // the two stages of a request
mod sim;

// -- edges: sockets, threads, signals ---------------------------------------------------------------------------------
#[cfg(feature = "glommio")]
pub mod cli;
#[cfg(feature = "glommio")]
pub(crate) mod server;
pub(crate) mod net;

// -- flows: in which order things happen ------------------------------------------------------------------------------
pub(crate) mod api;
pub(crate) mod shard;
pub(crate) mod quorum;
pub(crate) mod coordinator;
pub(crate) mod replica;
pub(crate) mod log;
pub(crate) mod peer;
pub(crate) mod io;

// -- rules: what Kafka means ------------------------------------------------------------------------------------------
pub(crate) mod controller;
pub(crate) mod group;
pub(crate) mod partition;
pub(crate) mod metadata;
pub(crate) mod config;
pub(crate) mod metrics;
pub(crate) mod protocol;
pub(crate) mod base;

/// What `tests/` and `benches/` reach into. No interface: all else is the crate's own, so that the compiler tells what
/// nobody uses.
#[doc(hidden)]
pub mod internals {
    pub mod api {
        pub use crate::api::{Context, Identity, Outcome, Session, handle, request, requests};
    }
    pub mod base {
        pub use crate::base::{BrokerId, LeaderEpoch, Offset, PartitionKey, Timestamp, TopicId, copied_bytes};
    }
    pub mod config {
        pub use crate::config::{
            BrokerConfig, Durability, Effect, Layers, Loaded, Note, TopicConfig,
            document::{markdown, server_properties},
            keys::{broker_key, used_broker_keys},
            load,
        };
    }
    pub mod controller {
        pub use crate::controller::asks::CreateTopics;
    }
    pub mod coordinator {
        pub use crate::coordinator::MachineMemory;
    }
    pub mod group {
        pub use crate::group::{GroupAnswer, GroupConfig, GroupRequest, Groups, Joiner};
    }
    pub mod io {
        pub use crate::io::{Io, Slice, sim::Simulation};
    }
    pub mod log {
        pub use crate::log::{
            CoreLog, KnownPartitions, Log, LogConfig, LogSettings,
            index::SegmentIndex,
            journal::{block::BlockBuilder, entry::AppendHead},
            recover,
        };
    }
    pub mod metadata {
        pub use crate::metadata::{Change, Image};
    }
    pub mod partition {
        pub use crate::partition::{
            Assignment, CompressionPolicy, FetchPartition, Fetcher, Isolation, Partition, PartitionState, TopicRules,
            validate,
        };
    }
    pub mod protocol {
        pub mod batch {
            pub use crate::protocol::batch::{BatchBuilder, BatchHeader, BatchInfo, Header, seal};
        }
        pub mod compression {
            pub use crate::protocol::compression::Compression;
        }
        pub mod frame {
            pub use crate::protocol::frame::{parse, peek};
        }
        pub mod guard {
            pub use crate::protocol::guard::{
                ELEMENT_BYTES_MAX, ELEMENTS_MAX, Malformed, check,
                shapes::{Field, Kind, Shape},
            };
        }
        pub mod metadata_records {
            pub use crate::protocol::metadata_records::{MetadataRecord, PartitionRecord};
        }
        pub mod versions {
            pub use crate::protocol::versions::Api;
        }
    }
    pub mod shard {
        pub use crate::shard::{Broker, Registration, RewriteMemory, Started, recover, start};
    }
}
