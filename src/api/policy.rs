//! What a client may do, and how much of it. One function decides each for all handlers; today everything is allowed. Nobody is
//! throttled by it: quotas that were set are [`Metering`](super::metering)'s.

use std::time::Duration;

use crate::api::Session;

/// What a client does with a resource: Kafka's ACL operations, by their codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Of records, and of a group's offsets and membership.
    Read = 3,
    /// Of records.
    Write = 4,
    /// Of topics.
    Create = 5,
    /// Of topics, records and groups.
    Delete = 6,
    /// Of a topic's partitions.
    Alter = 7,
    /// Knowing that it is there, and what it is like.
    Describe = 8,
    /// What brokers do with one another.
    ClusterAction = 9,
    /// Reading its settings.
    DescribeConfigs = 10,
    /// Changing its settings.
    AlterConfigs = 11,
    /// Writing with a producer id.
    IdempotentWrite = 12,
}

/// What it is done with: Kafka's resource types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    /// A topic.
    Topic,
    /// A group.
    Group,
    /// The cluster as a whole.
    Cluster,
}

/// The name of the one cluster there is.
pub(crate) const CLUSTER: &str = "kafka-cluster";

/// What a request is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quota {
    /// Bytes appended.
    Produce,
    /// Bytes read.
    Fetch,
    /// Changes of the metadata (KIP-599).
    Mutation,
    /// Time alone (KIP-124).
    Request,
}

/// What clients may do. One a core.
#[derive(Clone, Copy)]
pub(crate) struct Policy {
    /// Whether a client may do this with the resource of that name.
    pub may: fn(&Session, Operation, Resource, &str) -> bool,
    /// For how long a client that has just used so much is not read from.
    pub throttle: fn(&Session, Quota) -> Duration,
}

impl Policy {
    /// Everybody may do everything, as often as they like.
    pub const OPEN: Self = Self { may: |_, _, _, _| true, throttle: |_, _| Duration::ZERO };
}
