//! AlterConfigs (key 33), versions 0–2: what is not given goes. Answered when the change is durable and every core has it.
//! Differs from Kafka: a resource that is named twice is refused; Kafka never answers.

use std::rc::Rc;

use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, alter_configs_request::AlterConfigsResource,
    alter_configs_response::AlterConfigsResourceResponse,
};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, throttled},
        config_changes::{self, Resource},
    },
    base::ErrorCode,
    controller::asks::AlterConfigs,
};

throttled!(AlterConfigsResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<AlterConfigsRequest>) -> Outcome {
    let (mut request, call) = call.take();
    let resource = |asked: &AlterConfigsResource| (asked.resource_type, asked.resource_name.clone());
    let (allowed, denied) = config_changes::sort(&call.asker, std::mem::take(&mut request.resources), resource);
    let resources: Vec<_> = allowed.iter().map(resource).collect();
    request.resources = allowed;
    let refused = |((resource_type, name), error): (Resource, ErrorCode)| {
        AlterConfigsResourceResponse::default()
            .with_resource_type(resource_type)
            .with_resource_name(name)
            .with_error_code(error.code())
    };
    let mut responses = match context.router.control(AlterConfigs(request, context.router.broker_id())).await {
        Ok(answer) => answer.responses,
        Err(error) => resources.into_iter().map(|resource| refused((resource, error))).collect(),
    };
    responses.extend(denied.into_iter().map(refused));
    call.reply(AlterConfigsResponse::default().with_responses(responses))
}
