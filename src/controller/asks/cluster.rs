//! What brokers ask the controller about themselves and one another.

use kafka_protocol::messages::{
    AlterPartitionRequest, AlterPartitionResponse, BrokerHeartbeatRequest, BrokerHeartbeatResponse,
    BrokerRegistrationRequest, BrokerRegistrationResponse,
};
use uuid::Uuid;

use super::{ControlAsk, Decision};
use crate::{
    base::{BrokerId, ErrorCode},
    controller::Controller,
};

/// BrokerRegistration (62). Whoever takes it from a connection has held its cluster id against ours.
pub struct RegisterBroker(pub BrokerRegistrationRequest);

impl ControlAsk for RegisterBroker {
    type Answer = BrokerRegistrationResponse;

    fn decide(
        self,
        controller: &mut Controller,
        _: &mut dyn FnMut() -> Uuid,
    ) -> Result<Decision<Self::Answer>, ErrorCode> {
        Ok(controller.register(&self.0))
    }
}

/// BrokerHeartbeat (63).
pub struct BrokerHeartbeat(pub BrokerHeartbeatRequest);

impl ControlAsk for BrokerHeartbeat {
    type Answer = BrokerHeartbeatResponse;

    fn decide(
        self,
        controller: &mut Controller,
        _: &mut dyn FnMut() -> Uuid,
    ) -> Result<Decision<Self::Answer>, ErrorCode> {
        Ok(controller.heartbeat(&self.0))
    }
}

/// AlterPartition (56) and its version.
pub struct AlterPartition(pub AlterPartitionRequest, pub i16);

impl ControlAsk for AlterPartition {
    type Answer = AlterPartitionResponse;

    fn decide(
        self,
        controller: &mut Controller,
        _: &mut dyn FnMut() -> Uuid,
    ) -> Result<Decision<Self::Answer>, ErrorCode> {
        Ok(controller.alter_partition(&self.0, self.1))
    }
}

/// A broker whose process is known to be gone, in the epoch in which it was: it is fenced before its session is over.
pub struct FenceDead {
    /// The broker.
    pub broker: BrokerId,
    /// The epoch in which it was registered.
    pub broker_epoch: i64,
}

impl ControlAsk for FenceDead {
    type Answer = ();

    fn decide(
        self,
        controller: &mut Controller,
        _: &mut dyn FnMut() -> Uuid,
    ) -> Result<Decision<Self::Answer>, ErrorCode> {
        Ok((controller.fence_dead(self.broker, self.broker_epoch), ()))
    }
}
