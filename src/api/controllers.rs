//! What brokers ask the controller, on the controllers' listener alone.

use kafka_protocol::messages::{
    AllocateProducerIdsRequest, AlterPartitionRequest, BrokerHeartbeatRequest, BrokerRegistrationRequest,
    EnvelopeRequest,
};

use crate::{
    api::{
        allocate_producer_ids, alter_partition, broker_heartbeat, broker_registration, forwarding,
        row::{Row, alone, small},
    },
    protocol::guard::shapes,
};

/// The rows of these requests, by key.
#[allow(clippy::async_yields_async)] // that is what two stages are
pub(crate) static CONTROLLER_ROWS: &[Row] = &[
    alone!(
        AlterPartition,
        AlterPartitionRequest,
        &shapes::ALTER_PARTITION,
        ClusterAction,
        Request,
        small(16),
        alter_partition::handle
    ),
    alone!(Envelope, EnvelopeRequest, &shapes::ENVELOPE, ClusterAction, Request, small(16), forwarding::handle),
    alone!(
        BrokerRegistration,
        BrokerRegistrationRequest,
        &shapes::BROKER_REGISTRATION,
        ClusterAction,
        Request,
        small(16),
        broker_registration::handle
    ),
    alone!(
        BrokerHeartbeat,
        BrokerHeartbeatRequest,
        &shapes::BROKER_HEARTBEAT,
        ClusterAction,
        Request,
        small(4),
        broker_heartbeat::handle
    ),
    alone!(
        AllocateProducerIds,
        AllocateProducerIdsRequest,
        &shapes::ALLOCATE_PRODUCER_IDS,
        ClusterAction,
        Request,
        small(4),
        allocate_producer_ids::handle
    ),
];
