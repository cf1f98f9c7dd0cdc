//! DescribeConfigs (key 32), versions 1–4.
//! v1 synonyms (KIP-226) · v3 types and documentation (KIP-569)
//! Differs from Kafka: topics and brokers only; loggers, client metrics and groups have no configs here.

use std::rc::Rc;

use kafka_protocol::messages::{
    DescribeConfigsRequest, DescribeConfigsResponse,
    describe_configs_request::DescribeConfigsResource,
    describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult},
};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, text},
        topics,
    },
    base::ErrorCode,
    config::describe::{self, Wanted},
    metadata::{Image, names},
};

mod resource {
    pub const TOPIC: i8 = 2;
    pub const BROKER: i8 = 4;
}

type Described = Result<Vec<DescribeConfigsResourceResult>, (ErrorCode, Option<String>)>;

pub(super) async fn handle(context: &Rc<Context>, call: Call<DescribeConfigsRequest>) -> Outcome {
    let image = context.router.image();
    let request = &call.request;
    let results = request.resources.iter().map(|asked| {
        let wanted = Wanted {
            // Naming none is asking for all, as with Kafka.
            keys: asked.configuration_keys.as_deref().filter(|keys| !keys.is_empty()),
            synonyms: request.include_synonyms,
            documentation: request.include_documentation,
        };
        result(asked, describe_resource(context, &image, asked, &wanted))
    });
    call.reply(&DescribeConfigsResponse::default().with_results(results.collect()))
}

fn describe_resource(
    context: &Context,
    image: &Image,
    asked: &DescribeConfigsResource,
    wanted: &Wanted<'_>,
) -> Described {
    let config = context.router.config();
    let broker = context.router.broker_id();
    let layers = image.layers(&config.statics, broker);
    match asked.resource_type {
        resource::TOPIC => match image.topic(&asked.resource_name) {
            Some(_) => Ok(describe::topic(&layers.with_topic(image.topic_overrides(&asked.resource_name)), wanted)),
            None => Err((topics::why_absent(&asked.resource_name), names::check(&asked.resource_name).err())),
        },
        resource::BROKER if asked.resource_name.is_empty() => Ok(describe::cluster(image.cluster_overrides(), wanted)),
        resource::BROKER if asked.resource_name.parse::<i32>().is_err() => Err((
            ErrorCode::InvalidRequest,
            Some(format!("Broker id must be an integer, but it is: {}", asked.resource_name)),
        )),
        resource::BROKER if asked.resource_name.parse() == Ok(broker.0) => Ok(describe::broker(&layers, wanted)),
        resource::BROKER => Err((
            ErrorCode::InvalidRequest,
            Some(format!(
                "Unexpected broker id, expected {broker} or empty string, but received {}",
                asked.resource_name
            )),
        )),
        other => Err((ErrorCode::InvalidRequest, Some(format!("Unsupported resource type: {other}")))),
    }
}

fn result(asked: &DescribeConfigsResource, described: Described) -> DescribeConfigsResult {
    let result = DescribeConfigsResult::default()
        .with_resource_type(asked.resource_type)
        .with_resource_name(asked.resource_name.clone())
        // Kafka's word for "no message" here is the empty one, not null.
        .with_error_message(Some(text("")));
    match described {
        Ok(configs) => result.with_configs(configs),
        Err((error, why)) => {
            result.with_error_code(error.code()).with_error_message(Some(text(why.as_deref().unwrap_or_default())))
        }
    }
}
