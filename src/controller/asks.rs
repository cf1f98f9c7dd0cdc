//! What the controller can be asked. A new question is a type with its [`ControlAsk`], here or where it is asked.

pub mod cluster;

use kafka_protocol::messages::{
    AlterClientQuotasRequest, AlterClientQuotasResponse, AlterConfigsRequest, AlterConfigsResponse,
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, AlterUserScramCredentialsRequest,
    AlterUserScramCredentialsResponse, CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest,
    CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse, ElectLeadersRequest, ElectLeadersResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, UnregisterBrokerResponse, UpdateFeaturesRequest,
    UpdateFeaturesResponse,
};
use uuid::Uuid;

use crate::{
    base::{BrokerId, ErrorCode, ProducerId, TopicId},
    controller::{Controller, PRODUCER_ID_BLOCK},
    protocol::metadata_records::MetadataRecord,
};

/// Records to propose, and the answer to give once they are committed.
pub type Decision<Answer> = (Vec<MetadataRecord>, Answer);

/// A question to the controller, with the type of its answer. Decided on the controller's core, one at a time.
pub trait ControlAsk: Send + 'static {
    /// The answer, if the question is not refused as a whole.
    type Answer: Send + 'static;

    /// Decides; `random` draws topic ids. Without records the answer is given at once.
    /// # Errors  What the whole question is refused with. Nothing may have been decided then.
    fn decide(
        self,
        controller: &mut Controller,
        random: &mut dyn FnMut() -> Uuid,
    ) -> Result<Decision<Self::Answer>, ErrorCode>;
}

/// CreateTopics (19).
pub struct CreateTopics(pub CreateTopicsRequest);

impl ControlAsk for CreateTopics {
    type Answer = CreateTopicsResponse;

    fn decide(
        self,
        controller: &mut Controller,
        random: &mut dyn FnMut() -> Uuid,
    ) -> Result<Decision<Self::Answer>, ErrorCode> {
        Ok(controller.create_topics(&self.0, random))
    }
}

/// DeleteTopics (20) and its version.
pub struct DeleteTopics(pub DeleteTopicsRequest, pub i16);

impl ControlAsk for DeleteTopics {
    type Answer = DeleteTopicsResponse;

    fn decide(
        self,
        controller: &mut Controller,
        _: &mut dyn FnMut() -> Uuid,
    ) -> Result<Decision<Self::Answer>, ErrorCode> {
        Ok(controller.delete_topics(&self.0, self.1))
    }
}

/// CreatePartitions (37).
pub struct CreatePartitions(pub CreatePartitionsRequest);

impl ControlAsk for CreatePartitions {
    type Answer = CreatePartitionsResponse;

    fn decide(
        self,
        controller: &mut Controller,
        _: &mut dyn FnMut() -> Uuid,
    ) -> Result<Decision<Self::Answer>, ErrorCode> {
        Ok(controller.create_partitions(&self.0))
    }
}

/// IncrementalAlterConfigs (44), and the broker that was asked it.
pub struct IncrementalAlterConfigs(pub IncrementalAlterConfigsRequest, pub BrokerId);

impl ControlAsk for IncrementalAlterConfigs {
    type Answer = IncrementalAlterConfigsResponse;

    fn decide(
        self,
        controller: &mut Controller,
        _: &mut dyn FnMut() -> Uuid,
    ) -> Result<Decision<Self::Answer>, ErrorCode> {
        Ok(controller.incremental_alter_configs(self.1, &self.0))
    }
}

/// AlterConfigs (33), and the broker that was asked it.
pub struct AlterConfigs(pub AlterConfigsRequest, pub BrokerId);

impl ControlAsk for AlterConfigs {
    type Answer = AlterConfigsResponse;

    fn decide(
        self,
        controller: &mut Controller,
        _: &mut dyn FnMut() -> Uuid,
    ) -> Result<Decision<Self::Answer>, ErrorCode> {
        Ok(controller.alter_configs(self.1, &self.0))
    }
}

/// ElectLeaders (43).
pub struct ElectLeaders(pub ElectLeadersRequest);

impl ControlAsk for ElectLeaders {
    type Answer = ElectLeadersResponse;

    fn decide(
        self,
        controller: &mut Controller,
        _: &mut dyn FnMut() -> Uuid,
    ) -> Result<Decision<Self::Answer>, ErrorCode> {
        Ok(controller.elect_leaders(&self.0))
    }
}

/// AlterPartitionReassignments (45).
pub struct AlterPartitionReassignments(pub AlterPartitionReassignmentsRequest);

impl ControlAsk for AlterPartitionReassignments {
    type Answer = AlterPartitionReassignmentsResponse;

    fn decide(
        self,
        controller: &mut Controller,
        _: &mut dyn FnMut() -> Uuid,
    ) -> Result<Decision<Self::Answer>, ErrorCode> {
        Ok(controller.alter_partition_reassignments(&self.0))
    }
}

/// UpdateFeatures (57) and its version.
pub struct UpdateFeatures(pub UpdateFeaturesRequest, pub i16);

impl ControlAsk for UpdateFeatures {
    type Answer = UpdateFeaturesResponse;

    fn decide(
        self,
        controller: &mut Controller,
        _: &mut dyn FnMut() -> Uuid,
    ) -> Result<Decision<Self::Answer>, ErrorCode> {
        Ok(controller.update_features(&self.0, self.1))
    }
}

/// UnregisterBroker (64).
pub struct UnregisterBroker(pub BrokerId);

impl ControlAsk for UnregisterBroker {
    type Answer = UnregisterBrokerResponse;

    fn decide(
        self,
        controller: &mut Controller,
        _: &mut dyn FnMut() -> Uuid,
    ) -> Result<Decision<Self::Answer>, ErrorCode> {
        Ok(controller.unregister(self.0))
    }
}

/// AlterClientQuotas (49).
pub struct AlterClientQuotas(pub AlterClientQuotasRequest);

impl ControlAsk for AlterClientQuotas {
    type Answer = AlterClientQuotasResponse;

    fn decide(
        self,
        controller: &mut Controller,
        _: &mut dyn FnMut() -> Uuid,
    ) -> Result<Decision<Self::Answer>, ErrorCode> {
        Ok(controller.alter_client_quotas(&self.0))
    }
}

/// AlterUserScramCredentials (51).
pub struct AlterUserScramCredentials(pub AlterUserScramCredentialsRequest);

impl ControlAsk for AlterUserScramCredentials {
    type Answer = AlterUserScramCredentialsResponse;

    fn decide(
        self,
        controller: &mut Controller,
        _: &mut dyn FnMut() -> Uuid,
    ) -> Result<Decision<Self::Answer>, ErrorCode> {
        Ok(controller.alter_user_scram_credentials(&self.0))
    }
}

/// A block of producer ids for one core of a broker: the first of them, and how many there are.
pub struct AllocateProducerIds {
    /// The broker.
    pub broker: BrokerId,
    /// The epoch in which it is registered.
    pub broker_epoch: i64,
}

impl ControlAsk for AllocateProducerIds {
    type Answer = (ProducerId, i64);

    fn decide(
        self,
        controller: &mut Controller,
        _: &mut dyn FnMut() -> Uuid,
    ) -> Result<Decision<Self::Answer>, ErrorCode> {
        let (records, first) = controller.allocate_producer_ids(self.broker, self.broker_epoch)?;
        Ok((records, (first, PRODUCER_ID_BLOCK)))
    }
}

/// A topic with the defaults, made unless it is there: because a client named it, or because the broker needs it. Its id.
pub struct EnsureTopic(pub String);

impl ControlAsk for EnsureTopic {
    type Answer = TopicId;

    fn decide(
        self,
        controller: &mut Controller,
        random: &mut dyn FnMut() -> Uuid,
    ) -> Result<Decision<Self::Answer>, ErrorCode> {
        controller.ensure_topic(&self.0, random)
    }
}
