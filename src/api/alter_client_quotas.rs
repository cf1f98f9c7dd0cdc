//! AlterClientQuotas (key 49), versions 0–1 (KIP-546). Answered when the change is durable and every core has it.
//! Differs from Kafka: an address must be one, names of hosts are not looked up.

use std::rc::Rc;

use kafka_protocol::messages::{
    AlterClientQuotasRequest, AlterClientQuotasResponse, alter_client_quotas_request,
    alter_client_quotas_response::{EntityData, EntryData},
};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, throttled},
    },
    base::ErrorCode,
    controller::asks::AlterClientQuotas,
};

throttled!(AlterClientQuotasResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<AlterClientQuotasRequest>) -> Outcome {
    let (request, call) = call.take();
    let entities: Vec<_> = request.entries.iter().map(|entry| entry.entity.clone()).collect();
    let answer = match call.asker.cluster() {
        Ok(()) => context.router.control(AlterClientQuotas(request)).await,
        Err(error) => Err(error),
    };
    call.reply(answer.unwrap_or_else(|error| refused(entities, error)))
}

/// Every entity with the same error.
fn refused(entities: Vec<Vec<alter_client_quotas_request::EntityData>>, error: ErrorCode) -> AlterClientQuotasResponse {
    let told = |part: alter_client_quotas_request::EntityData| {
        EntityData::default().with_entity_type(part.entity_type).with_entity_name(part.entity_name)
    };
    let entries = entities.into_iter().map(|entity| {
        EntryData::default().with_error_code(error.code()).with_entity(entity.into_iter().map(told).collect())
    });
    AlterClientQuotasResponse::default().with_entries(entries.collect())
}
