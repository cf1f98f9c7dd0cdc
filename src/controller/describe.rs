//! DescribeConfigs, decided by an image: any core can answer it from its own.

use kafka_protocol::messages::{
    DescribeConfigsRequest, DescribeConfigsResponse,
    describe_configs_request::DescribeConfigsResource,
    describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult},
};

use super::Refusal;
use super::configs::BROKER_LOGGER_RESOURCE;
use crate::base::{BrokerId, ErrorCode};
use crate::config::{
    Statics,
    describe::{self, Wanted},
};
use crate::metadata::{Image, names};
use crate::protocol::metadata_records::{BROKER_RESOURCE, TOPIC_RESOURCE};

/// DescribeConfigs, versions 1–4. `broker` is the one that answers, `statics` its file and command line.
#[must_use]
pub fn describe_configs(
    image: &Image,
    statics: &Statics,
    broker: BrokerId,
    request: &DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let results = request.resources.iter().map(|resource| {
        let wanted = Wanted {
            // An empty list means all, as null does.
            keys: resource.configuration_keys.as_deref().filter(|keys| !keys.is_empty()),
            synonyms: request.include_synonyms,
            documentation: request.include_documentation,
        };
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone())
            .with_error_message(None);
        match entries(image, statics, broker, resource, &wanted) {
            Ok(configs) => result.with_configs(configs),
            Err(refusal) => result.with_error_code(refusal.code.code()).with_error_message(refusal.message()),
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn entries(
    image: &Image,
    statics: &Statics,
    broker: BrokerId,
    resource: &DescribeConfigsResource,
    wanted: &Wanted<'_>,
) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
    let name = resource.resource_name.as_str();
    let invalid = |message: String| Err(Refusal::new(ErrorCode::InvalidRequest, message));
    let layers = image.layers(statics, broker);
    match resource.resource_type {
        TOPIC_RESOURCE => {
            names::check(name).map_err(|message| Refusal::new(ErrorCode::InvalidTopicException, message))?;
            if image.topic(name).is_none() {
                return Err(Refusal::new(ErrorCode::UnknownTopicOrPartition, ""));
            }
            Ok(describe::topic(&layers.with_topic(image.topic_overrides(name)), wanted))
        }
        BROKER_RESOURCE if name.is_empty() => Ok(describe::cluster(image.cluster_overrides(), wanted)),
        BROKER_RESOURCE => match name.parse::<i32>() {
            Ok(id) if id == broker.0 => Ok(describe::broker(&layers, wanted)),
            Ok(id) => invalid(format!("Unexpected broker id, expected {broker} or empty string, but received {id}")),
            Err(_) => invalid(format!("Broker id must be an integer, but it is: {name}")),
        },
        BROKER_LOGGER_RESOURCE if name.is_empty() => invalid("Broker id must not be empty".to_owned()),
        // There are no loggers whose level could be told one by one.
        BROKER_LOGGER_RESOURCE => Ok(Vec::new()),
        other => invalid(format!("Unsupported resource type: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::tests::{controller, ids};

    fn check(resource_type: i8, name: &'static str, key: Option<&'static str>) -> String {
        let mut controller = controller("num.partitions=3\nlog.retention.ms=9\n");
        controller.auto_create(&["t"], &mut ids());
        let resource = DescribeConfigsResource::default()
            .with_resource_type(resource_type)
            .with_resource_name(name.into())
            .with_configuration_keys(key.map(|key| vec![key.into()]));
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]).with_include_synonyms(true);
        let (image, config) = (controller.image(), &controller.config);
        let response = describe_configs(image, &config.statics, config.node_id, &request);
        let result = &response.results[0];
        if result.error_code != 0 {
            return format!("{} {}", result.error_code, result.error_message.as_deref().unwrap_or_default());
        }
        match &result.configs[..] {
            [one] => format!("{}@{}", one.value.as_deref().unwrap_or("null"), one.config_source),
            many => many.len().to_string(),
        }
    }

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
        // Kafka shows 340 of its 360 keys; four are ours.
        assert_eq!(check(4, "1", None), "344");
        assert_eq!(check(4, "1", Some("num.partitions")), "3@4");
        assert_eq!(check(4, "", None), "0");
        assert_eq!(check(4, "2", None), "42 Unexpected broker id, expected 1 or empty string, but received 2");
        assert_eq!(check(4, "x", None), "42 Broker id must be an integer, but it is: x");
        assert_eq!(check(8, "1", None), "0");
        assert_eq!(check(32, "g", None), "42 Unsupported resource type: 32");
    }
}
