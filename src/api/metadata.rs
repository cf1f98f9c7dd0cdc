//! Metadata (key 3), versions 0–13.
//! v1 null asks for all topics, an empty list for none (in v0 the empty list asks for all) · v4 auto-creation can be declined ·
//! v7 leader epochs (KIP-320) · v8–10 authorized operations (KIP-430) · v10 topic ids, v12 asked by id (KIP-516)
//! A topic that is created because it was named is answered UNKNOWN_TOPIC_OR_PARTITION once; it is there when asked again.
//! Differs from Kafka: topics come in the order asked for.

use std::rc::Rc;

use kafka_protocol::messages::{
    MetadataRequest, MetadataResponse, TopicName,
    metadata_request::MetadataRequestTopic,
    metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
};
use tracing::warn;
use uuid::Uuid;

use crate::{
    api::{
        Context, Outcome,
        asker::Asker,
        brokers,
        call::{Call, text, throttled},
        operations,
        policy::{CLUSTER, Operation, Resource},
        topics,
        view::View,
    },
    base::{ErrorCode, Set, TopicId},
    metadata::{Topic, names},
};

/// Topics in creation at one time because clients named them. More are answered as unknown, and asked for again.
const CREATING_MAX: usize = 1000;

throttled!(MetadataResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<MetadataRequest>) -> Outcome {
    let image = context.router.image();
    let view = call.view(&image);
    let may_create = context.router.config().topics.auto_create && call.request.allow_auto_topic_creation;
    let topics = match &call.request.topics {
        None => all(view),
        Some(named) if named.is_empty() && call.version == 0 => all(view),
        Some(named) => match refused_names(named, call.version) {
            Some(refused) => return call.reply(MetadataResponse::default().with_topics(refused)),
            None => {
                let (found, absent) = named_topics(view, named, may_create);
                absent.into_iter().for_each(|name| create(context, name));
                found
            }
        },
    };
    let told = call.request.include_topic_authorized_operations;
    let topics = topics.into_iter().map(|topic| {
        let name = topic.name.as_ref().map_or("", |name| name.as_str());
        let operations = if told { operations::topic(&call.asker, name) } else { operations::UNASKED };
        topic.with_topic_authorized_operations(operations)
    });
    let told = call.request.include_cluster_authorized_operations;
    let cluster_operations = if told { operations::cluster(&call.asker) } else { operations::UNASKED };
    let brokers = brokers::all(context, &image, call.asker.session.listener).into_iter().map(|broker| {
        MetadataResponseBroker::default()
            .with_node_id(broker.id)
            .with_host(broker.host)
            .with_port(broker.port)
            .with_rack(broker.rack)
    });
    call.reply(
        MetadataResponse::default()
            .with_brokers(brokers.collect())
            .with_cluster_id(Some(text(context.router.cluster_id())))
            .with_controller_id(brokers::controller(context))
            .with_topics(topics.collect())
            .with_cluster_authorized_operations(cluster_operations),
    )
}

fn all(view: View<'_>) -> Vec<MetadataResponseTopic> {
    view.topics().map(describe).collect()
}

/// Null names and topic ids came into the format before brokers took them: the whole request is refused.
fn refused_names(named: &[MetadataRequestTopic], version: i16) -> Option<Vec<MetadataResponseTopic>> {
    let early = |topic: &MetadataRequestTopic| topic.name.is_none() || topic.topic_id != Uuid::nil();
    if version >= 12 || !named.iter().any(early) {
        return None;
    }
    let refuse = |topic: &MetadataRequestTopic| {
        MetadataResponseTopic::default()
            .with_error_code(ErrorCode::InvalidRequest.code())
            .with_name(Some(topic.name.clone().unwrap_or_default()))
            .with_topic_id(topic.topic_id)
    };
    Some(named.iter().map(refuse).collect())
}

/// The topics that were asked for, each once, and the names to create. If any is asked by id, only ids count.
fn named_topics(
    view: View<'_>,
    named: &[MetadataRequestTopic],
    create: bool,
) -> (Vec<MetadataResponseTopic>, Vec<String>) {
    let by_id = named.iter().any(|topic| topic.topic_id != Uuid::nil());
    let mut answers = Vec::with_capacity(named.len());
    let mut absent = Vec::new();
    let mut seen = Set::default();
    for asked in named {
        if by_id {
            if asked.topic_id == Uuid::nil() || !seen.insert((asked.topic_id, "")) {
                continue;
            }
            answers.push(match view.topic_by_id(TopicId(asked.topic_id)) {
                Ok(topic) => describe(topic),
                Err(error) => MetadataResponseTopic::default()
                    .with_error_code(error.code())
                    .with_name(None)
                    .with_topic_id(asked.topic_id),
            });
            continue;
        }
        let name = asked.name.as_ref().map_or("", |name| name.as_str());
        if !seen.insert((Uuid::nil(), name)) {
            continue;
        }
        answers.push(match view.topic(name) {
            Ok(topic) => describe(topic),
            Err(error) => {
                let mut why = topics::why(error, name);
                if create && why == ErrorCode::UnknownTopicOrPartition {
                    if may_create(view.asker(), name) {
                        absent.push(name.to_owned());
                    } else {
                        why = ErrorCode::TopicAuthorizationFailed;
                    }
                }
                MetadataResponseTopic::default()
                    .with_error_code(why.code())
                    .with_name(Some(TopicName(text(name))))
                    .with_is_internal(names::is_internal(name))
            }
        });
    }
    (answers, absent)
}

/// Whether a topic of this name may be made: topics at all, or this one.
fn may_create(asker: &Asker, name: &str) -> bool {
    let may = |resource, name| asker.may_do(Operation::Create, resource, name);
    may(Resource::Cluster, CLUSTER) || may(Resource::Topic, name)
}

fn describe(topic: &Topic) -> MetadataResponseTopic {
    let partitions = (0..).zip(&topic.partitions).map(|(index, partition)| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(topics::wire_leader(partition.leader))
            .with_leader_epoch(partition.leader_epoch.0)
            .with_replica_nodes(topics::wire_brokers(&partition.replicas))
            .with_isr_nodes(topics::wire_brokers(&partition.in_sync_replicas))
    });
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(text(&topic.name))))
        .with_topic_id(topic.id.0)
        .with_is_internal(names::is_internal(&topic.name))
        .with_partitions(partitions.collect())
}

/// Creates a topic in the background, unless that is under way.
fn create(context: &Rc<Context>, name: String) {
    {
        let mut creating = context.creating.borrow_mut();
        if creating.len() >= CREATING_MAX || !creating.insert(name.clone()) {
            return;
        }
    }
    let background = context.clone();
    context.io.spawner.spawn(async move {
        if let Err(error) = background.router.ensure_topic(&name).await {
            warn!(topic = name, ?error, "auto-creation failed");
        }
        background.creating.borrow_mut().remove(&name);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Image;

    fn asked(name: Option<&str>, id: u128) -> MetadataRequestTopic {
        MetadataRequestTopic::default()
            .with_name(name.map(|name| TopicName(text(name))))
            .with_topic_id(Uuid::from_u128(id))
    }

    fn show(topics: &[MetadataResponseTopic]) -> String {
        let show = |topic: &MetadataResponseTopic| {
            format!(
                "{}:{}{}",
                topic.name.as_ref().map_or("null", |name| name.as_str()),
                topic.error_code,
                if topic.is_internal { " internal" } else { "" }
            )
        };
        topics.iter().map(show).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn absent_topics_are_answered_once_each_and_only_good_names_created() {
        let named =
            [asked(Some("b"), 0), asked(Some("a b"), 0), asked(Some("b"), 0), asked(Some("__consumer_offsets"), 0)];
        let (found, absent) = named_topics(View::new(&Image::default(), &Asker::anybody()), &named, true);
        assert_eq!(show(&found), "b:3, a b:17, __consumer_offsets:3 internal");
        assert_eq!(absent, ["b", "__consumer_offsets"]);
    }

    #[test]
    fn one_id_makes_names_not_count() {
        let (found, absent) =
            named_topics(View::new(&Image::default(), &Asker::anybody()), &[asked(Some("b"), 0), asked(None, 7)], true);
        assert_eq!(show(&found), "null:100");
        assert!(absent.is_empty());
    }

    #[test]
    fn ids_and_null_names_are_refused_before_version_12() {
        let refused = refused_names(&[asked(None, 0), asked(Some("b"), 0)], 11).expect("refused");
        assert_eq!(show(&refused), ":42, b:42");
        assert!(refused_names(&[asked(None, 7)], 12).is_none());
        assert!(refused_names(&[asked(Some("b"), 0)], 10).is_none());
    }

    #[test]
    fn topics_that_exist_are_described() {
        let (image, asker) = (topics::test_image(), Asker::anybody());
        let view = View::new(&image, &asker);
        assert_eq!(show(&all(view)), "__consumer_offsets:0 internal, a:0, b:0");
        let (found, absent) =
            named_topics(view, &[asked(Some("b"), 0), asked(Some("c"), 0), asked(Some("a"), 0)], true);
        assert_eq!(show(&found), "b:0, c:3, a:0");
        assert_eq!(absent, ["c"]);
        let (by_id, _) = named_topics(view, &[asked(None, 1)], true);
        assert_eq!(show(&by_id), "a:0");
        let partition = &by_id[0].partitions[2];
        assert_eq!((partition.partition_index, partition.leader_id.0, partition.leader_epoch), (2, 1, 5));
        assert_eq!((partition.replica_nodes.len(), partition.isr_nodes.len()), (1, 1));
    }
}
