//! IncrementalAlterConfigs (key 44), versions 0–1 (KIP-339). Answered when the change is durable and every core has it.

use std::rc::Rc;

use kafka_protocol::messages::{
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
    incremental_alter_configs_response::AlterConfigsResourceResponse,
};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, throttled},
    },
    base::ErrorCode,
    controller::asks::IncrementalAlterConfigs,
};

throttled!(IncrementalAlterConfigsResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<IncrementalAlterConfigsRequest>) -> Outcome {
    let (mut request, call) = call.take();
    let resources = std::mem::take(&mut request.resources);
    let mut names = Vec::with_capacity(resources.len());
    let mut denied = Vec::new();
    let refused = |(resource_type, name), error: ErrorCode| {
        AlterConfigsResourceResponse::default()
            .with_resource_type(resource_type)
            .with_resource_name(name)
            .with_error_code(error.code())
    };
    for resource in resources {
        let name = (resource.resource_type, resource.resource_name.clone());
        match call.asker.configs_of(resource.resource_type, &resource.resource_name) {
            Ok(()) => {
                names.push(name);
                request.resources.push(resource);
            }
            Err(error) => denied.push(refused(name, error)),
        }
    }
    let mut responses = match context.router.control(IncrementalAlterConfigs(request, context.router.broker_id())).await
    {
        Ok(answer) => answer.responses,
        Err(error) => names.into_iter().map(|name| refused(name, error)).collect(),
    };
    responses.append(&mut denied);
    call.reply(IncrementalAlterConfigsResponse::default().with_responses(responses))
}
