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
    shard::Bounds,
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
        resource::BROKER if asked.resource_name.parse() == Ok(broker.0) => {
            Ok(in_force(describe::broker(&layers, wanted), context.router.bounds()))
        }
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

/// Settings above what the process can do are told as what is in force; the synonyms still say what was set.
fn in_force(
    mut entries: Vec<DescribeConfigsResourceResult>,
    bounds: Option<Bounds>,
) -> Vec<DescribeConfigsResourceResult> {
    let Some(bounds) = bounds else { return entries };
    let caps = [("max.connections", bounds.connections_max), ("socket.request.max.bytes", bounds.request_bytes_max)];
    for entry in &mut entries {
        let set = entry.value.as_ref().and_then(|value| value.parse::<usize>().ok());
        if let Some((_, cap)) = caps.iter().find(|(name, cap)| *name == entry.name.as_str() && set > Some(*cap)) {
            entry.value = Some(text(&cap.to_string()));
        }
    }
    entries
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_process_cannot_do_is_not_told_as_if_it_could() {
        let entry = |(name, value): (&str, &str)| {
            DescribeConfigsResourceResult::default().with_name(text(name)).with_value(Some(text(value)))
        };
        let told = |bounds: Option<Bounds>| {
            let settings = [
                ("max.connections", "2147483647"),
                ("socket.request.max.bytes", "104857600"),
                ("num.partitions", "2147483647"),
            ];
            let told = in_force(settings.map(entry).to_vec(), bounds).into_iter();
            told.map(|entry| entry.value.expect("a value").to_string()).collect::<Vec<_>>()
        };
        assert_eq!(told(None), ["2147483647", "104857600", "2147483647"]);
        let small = Bounds { connections_max: 1000, request_bytes_max: 14_000_000 };
        assert_eq!(told(Some(small)), ["1000", "14000000", "2147483647"]);
        let large = Bounds { connections_max: usize::MAX, request_bytes_max: usize::MAX };
        assert_eq!(told(Some(large)), told(None));
    }
}
