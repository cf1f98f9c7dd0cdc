//! AlterConfigs (key 33), versions 0–2: what is not given goes. Answered when the change is durable and every core has it.
//! Differs from Kafka: a resource that is named twice is refused; Kafka never answers.

use std::rc::Rc;

use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, alter_configs_response::AlterConfigsResourceResponse,
};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, throttled},
    },
    base::ErrorCode,
    controller::asks::AlterConfigs,
};

throttled!(AlterConfigsResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<AlterConfigsRequest>) -> Outcome {
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
    let mut responses = match context.router.control(AlterConfigs(request, context.router.broker_id())).await {
        Ok(answer) => answer.responses,
        Err(error) => names.into_iter().map(|name| refused(name, error)).collect(),
    };
    responses.append(&mut denied);
    call.reply(AlterConfigsResponse::default().with_responses(responses))
}
