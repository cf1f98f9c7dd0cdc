//! DescribeConfigs (key 32), versions 1–4.
//! v1 synonyms (KIP-226) · v3 types and documentation (KIP-569)
//! Loggers (KIP-412) are the rooms of this house, at the levels that `RINGTAIL_LOG` gave them.
//! Differs from Kafka: client metrics and groups have no configs here.

use std::rc::Rc;

use kafka_protocol::messages::{
    DescribeConfigsRequest, DescribeConfigsResponse,
    describe_configs_request::DescribeConfigsResource,
    describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult},
};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, text, throttled},
        loggers, topics,
        view::View,
    },
    base::ErrorCode,
    config::{
        BrokerConfig,
        describe::{self, Wanted},
    },
    metadata::{Image, names},
    shard::Bounds,
};

mod resource {
    pub const TOPIC: i8 = crate::api::asker::TOPIC_CONFIGS;
    pub const BROKER: i8 = 4;
    pub const BROKER_LOGGER: i8 = 8;
}

type Described = Result<Vec<DescribeConfigsResourceResult>, (ErrorCode, Option<String>)>;

throttled!(DescribeConfigsResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<DescribeConfigsRequest>) -> Outcome {
    let (image, config) = (context.router.image(), context.router.config());
    let request = &call.request;
    let results = request.resources.iter().map(|asked| {
        let wanted = Wanted {
            // Naming none is asking for all, as with Kafka.
            keys: asked.configuration_keys.as_deref().filter(|keys| !keys.is_empty()),
            synonyms: request.include_synonyms,
            documentation: request.include_documentation,
        };
        result(asked, describe_resource(&config, context.router.bounds(), call.view(&image), &image, asked, &wanted))
    });
    call.reply(DescribeConfigsResponse::default().with_results(results.collect()))
}

fn describe_resource(
    config: &BrokerConfig,
    bounds: Option<Bounds>,
    view: View<'_>,
    image: &Image,
    asked: &DescribeConfigsResource,
    wanted: &Wanted<'_>,
) -> Described {
    let broker = config.node.id;
    let layers = image.layers(&config.statics, broker);
    let invalid = |message: String| Err((ErrorCode::InvalidRequest, Some(message)));
    let name = asked.resource_name.as_str();
    view.asker().configs_of(asked.resource_type, name).map_err(|error| (error, None))?;
    match asked.resource_type {
        resource::TOPIC => match view.topic(name) {
            Ok(_) => Ok(describe::topic(&layers.with_topic(image.topic_overrides(name)), wanted)),
            Err(error) => Err((topics::why(error, name), names::check(name).err())),
        },
        resource::BROKER if name.is_empty() => Ok(describe::cluster(image.cluster_overrides(), wanted)),
        resource::BROKER_LOGGER if name.is_empty() => invalid("Broker id must not be empty".to_owned()),
        resource::BROKER | resource::BROKER_LOGGER => match (name.parse::<i32>(), asked.resource_type) {
            (Ok(id), resource::BROKER) if id == broker.0 => Ok(in_force(describe::broker(&layers, wanted), bounds)),
            (Ok(id), _) if id == broker.0 => Ok(loggers::described(wanted)),
            (Ok(id), resource::BROKER) => {
                invalid(format!("Unexpected broker id, expected {broker} or empty string, but received {id}"))
            }
            (Ok(id), _) => invalid(format!("Unexpected broker id, expected {broker} but received {id}")),
            (Err(_), _) => invalid(format!("Broker id must be an integer, but it is: {name}")),
        },
        other => invalid(format!("Unsupported resource type: {other}")),
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
    use crate::{
        api::asker::Asker,
        config::load,
        controller::tests::{controller, ids},
    };

    fn check(resource_type: i8, name: &'static str, key: Option<&'static str>) -> String {
        let file = "num.partitions=3\nlog.retention.ms=9\n";
        let mut controller = controller(file);
        controller.auto_create(&["t"], &mut ids());
        let config = load(Some(("test.properties", file)), &[]).expect("a good file").config;
        let asked =
            DescribeConfigsResource::default().with_resource_type(resource_type).with_resource_name(name.into());
        let keys = key.map(|key| vec![key.into()]);
        let asker = Asker::anybody();
        let view = View::new(controller.image(), &asker);
        let wanted = Wanted { keys: keys.as_deref(), synonyms: true, documentation: false };
        let result = result(&asked, describe_resource(&config, None, view, controller.image(), &asked, &wanted));
        if result.error_code != 0 {
            return format!("{} {}", result.error_code, result.error_message.as_deref().unwrap_or_default());
        }
        match &result.configs[..] {
            [one] => format!("{}@{}", one.value.as_deref().unwrap_or("null"), one.config_source),
            many => many.len().to_string(),
        }
    }

    /// The words are Apache Kafka 4.3.1's own, but for those about a type.
    #[test]
    fn resources_of_each_type() {
        assert_eq!(check(2, "t", None), "34");
        assert_eq!(check(2, "t", Some("retention.ms")), "9@4");
        assert_eq!(check(2, "nope", None), "3 ");
        assert_eq!(
            check(2, "a b", None),
            "17 Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' \
             and '-'"
        );
        // Kafka shows 340 of its 360 keys; five are ours.
        assert_eq!(check(4, "1", None), "345");
        assert_eq!(check(4, "1", Some("num.partitions")), "3@4");
        assert_eq!(check(4, "", None), "0");
        assert_eq!(check(4, "2", None), "42 Unexpected broker id, expected 1 or empty string, but received 2");
        assert_eq!(check(4, "x", None), "42 Broker id must be an integer, but it is: x");
        assert_eq!(check(8, "1", None), "19");
        assert_eq!(check(8, "1", Some("kafka")), "0", "no logger of that name");
        assert_eq!(check(8, "", None), "42 Broker id must not be empty");
        assert_eq!(check(8, "2", None), "42 Unexpected broker id, expected 1 but received 2");
        assert_eq!(check(8, "x", None), "42 Broker id must be an integer, but it is: x");
        assert_eq!(check(32, "g", None), "42 Unsupported resource type: 32");
    }
}
