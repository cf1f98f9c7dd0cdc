//! IncrementalAlterConfigs (key 44), versions 0–1 (KIP-339). Answered when the change is durable and every core has it.

use std::rc::Rc;

use kafka_protocol::messages::{
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
    incremental_alter_configs_response::AlterConfigsResourceResponse,
};

use crate::{
    api::{Context, Outcome, call::Call},
    controller::asks::IncrementalAlterConfigs,
};

pub(super) async fn handle(context: &Rc<Context>, call: Call<IncrementalAlterConfigsRequest>) -> Outcome {
    let (request, call) = call.take();
    let names: Vec<_> =
        request.resources.iter().map(|resource| (resource.resource_type, resource.resource_name.clone())).collect();
    let error = match context.router.control(IncrementalAlterConfigs(request, context.router.broker_id())).await {
        Ok(answer) => return call.reply(&answer),
        Err(error) => error,
    };
    let refused = |(resource_type, name)| {
        AlterConfigsResourceResponse::default()
            .with_resource_type(resource_type)
            .with_resource_name(name)
            .with_error_code(error.code())
    };
    call.reply(&IncrementalAlterConfigsResponse::default().with_responses(names.into_iter().map(refused).collect()))
}
