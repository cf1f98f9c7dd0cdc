//! ListConfigResources (key 74), versions 0–1 (KIP-1142).
//! v0 knows client metrics alone (KIP-714), and there are none here · v1 types
//! Differs from Kafka: neither client metrics nor groups have settings here.

use std::rc::Rc;

use kafka_protocol::messages::{
    ListConfigResourcesRequest, ListConfigResourcesResponse, list_config_resources_response::ConfigResource,
};

use crate::{
    api::{
        Context, Outcome,
        asker::TOPIC_CONFIGS,
        call::{Call, text, throttled},
    },
    base::{ErrorCode, Set},
    metadata::Image,
};

const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;
/// What v1 can be asked for; naming none is asking for all.
const TYPES: [i8; 5] = [TOPIC_CONFIGS, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];

throttled!(ListConfigResourcesResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<ListConfigResourcesRequest>) -> Outcome {
    let answer = ListConfigResourcesResponse::default();
    if let Err(error) = call.asker.cluster() {
        return call.reply(answer.with_error_code(error.code()));
    }
    match types(call.version, &call.request.resource_types) {
        Ok(types) => call.reply(answer.with_config_resources(listed(&context.router.image(), &types))),
        Err(error) => call.reply(answer.with_error_code(error.code())),
    }
}

fn types(version: i16, asked: &[i8]) -> Result<Set<i8>, ErrorCode> {
    match (version, asked) {
        (0, _) => Ok(Set::from_iter([CLIENT_METRICS])),
        (_, []) => Ok(TYPES.into_iter().collect()),
        (_, asked) if asked.iter().all(|one| TYPES.contains(one)) => Ok(asked.iter().copied().collect()),
        (_, _) => Err(ErrorCode::UnsupportedVersion),
    }
}

fn listed(image: &Image, types: &Set<i8>) -> Vec<ConfigResource> {
    let resource = |kind, name: &str| ConfigResource::default().with_resource_type(kind).with_resource_name(text(name));
    let mut resources = Vec::new();
    if types.contains(&TOPIC_CONFIGS) {
        resources.extend(image.topics().map(|topic| resource(TOPIC_CONFIGS, &topic.name)));
    }
    for kind in [BROKER, BROKER_LOGGER].into_iter().filter(|kind| types.contains(kind)) {
        resources.extend(image.brokers().map(|broker| resource(kind, &broker.broker_id.to_string())));
    }
    resources
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::topics;

    #[test]
    fn types_by_version() {
        let sorted = |version, asked: &[i8]| {
            types(version, asked).map(|types| {
                let mut types: Vec<i8> = types.into_iter().collect();
                types.sort_unstable();
                types
            })
        };
        assert_eq!(sorted(0, &[]), Ok(vec![16]));
        assert_eq!(sorted(1, &[]), Ok(vec![2, 4, 8, 16, 32]));
        assert_eq!(sorted(1, &[4, 2, 4]), Ok(vec![2, 4]));
        assert_eq!(sorted(1, &[2, 99]), Err(ErrorCode::UnsupportedVersion));
    }

    #[test]
    fn topics_are_listed_whether_they_have_settings_or_not() {
        let found = listed(&topics::test_image(), &Set::from_iter([TOPIC_CONFIGS, GROUP]));
        let names: Vec<_> = found.iter().map(|one| one.resource_name.as_str()).collect();
        assert_eq!(names, ["__consumer_offsets", "a", "b"]);
    }
}
