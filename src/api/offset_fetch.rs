//! OffsetFetch (key 9), versions 1–9.
//! v2 null asks for all topics, error of the whole group · v5 leader epochs (KIP-320) · v7 require stable (KIP-447; nothing is
//! unstable as long as there are no transactions) · v8 several groups (KIP-709) · v9 member epochs (KIP-848)

use std::rc::Rc;

use kafka_protocol::{
    messages::{
        OffsetFetchRequest, OffsetFetchResponse,
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
        offset_fetch_response::{
            OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
            OffsetFetchResponseTopic, OffsetFetchResponseTopics,
        },
    },
    protocol::StrBytes,
};

use crate::{
    api::{
        Context, Outcome,
        asker::Asker,
        call::{Call, throttled},
        groups,
    },
    group::asks::Fetch,
};

throttled!(OffsetFetchResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<OffsetFetchRequest>) -> Outcome {
    let (request, call) = call.take();
    if call.version < 8 {
        let asked = single(request);
        let topics = asked.topics.clone().unwrap_or_default();
        return call.reply(flat(fetch(context, &call.asker, asked).await, topics, call.version));
    }
    let mut groups = Vec::with_capacity(request.groups.len());
    for group in request.groups {
        groups.push(fetch(context, &call.asker, group).await);
    }
    call.reply(OffsetFetchResponse::default().with_groups(groups))
}

async fn fetch(context: &Context, asker: &Asker, group: OffsetFetchRequestGroup) -> OffsetFetchResponseGroup {
    let asked = group.clone();
    let answer = groups::ask(context, asker, &asked.group_id, Fetch(group)).await;
    let answer = answer.unwrap_or_else(|error| {
        OffsetFetchResponseGroup::default().with_group_id(asked.group_id.clone()).with_error_code(error.code())
    });
    allowed(asker, answer, asked.topics.is_none()).with_group_id(asked.group_id)
}

/// Without the offsets of topics that the asker may not know of: left out if all were asked for, else refused.
fn allowed(asker: &Asker, mut group: OffsetFetchResponseGroup, all: bool) -> OffsetFetchResponseGroup {
    if all {
        group.topics.retain(|topic| asker.topic(&topic.name).is_ok());
        return group;
    }
    for topic in &mut group.topics {
        if let Err(error) = asker.topic(&topic.name) {
            for partition in &mut topic.partitions {
                *partition = OffsetFetchResponsePartitions::default()
                    .with_partition_index(partition.partition_index)
                    .with_committed_offset(-1)
                    .with_metadata(Some(StrBytes::from_static_str("")))
                    .with_error_code(error.code());
            }
        }
    }
    group
}

/// The one group that a request had before v8.
fn single(request: OffsetFetchRequest) -> OffsetFetchRequestGroup {
    let topics = request.topics.map(|topics| {
        let topic = |topic: kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic| {
            OffsetFetchRequestTopics::default().with_name(topic.name).with_partition_indexes(topic.partition_indexes)
        };
        topics.into_iter().map(topic).collect()
    });
    OffsetFetchRequestGroup::default().with_group_id(request.group_id).with_topics(topics)
}

/// One group's answer in the form before v8.
fn flat(
    mut group: OffsetFetchResponseGroup,
    asked: Vec<OffsetFetchRequestTopics>,
    version: i16,
) -> OffsetFetchResponse {
    let code = group.error_code;
    if version < 2 && code != 0 {
        // v1 has no place for an error of the whole group: every partition gets it.
        group.topics = asked.into_iter().map(|topic| refused(topic, code)).collect();
    }
    let partition = |partition: OffsetFetchResponsePartitions| {
        OffsetFetchResponsePartition::default()
            .with_partition_index(partition.partition_index)
            .with_committed_offset(partition.committed_offset)
            .with_committed_leader_epoch(partition.committed_leader_epoch)
            .with_metadata(partition.metadata)
            .with_error_code(partition.error_code)
    };
    let topic = |topic: OffsetFetchResponseTopics| {
        OffsetFetchResponseTopic::default()
            .with_name(topic.name)
            .with_partitions(topic.partitions.into_iter().map(partition).collect())
    };
    let answer = OffsetFetchResponse::default().with_topics(group.topics.into_iter().map(topic).collect());
    if version >= 2 { answer.with_error_code(code) } else { answer }
}

fn refused(topic: OffsetFetchRequestTopics, code: i16) -> OffsetFetchResponseTopics {
    let partition = |index| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(index)
            .with_committed_offset(-1)
            .with_metadata(Some(StrBytes::from_static_str("")))
            .with_error_code(code)
    };
    OffsetFetchResponseTopics::default()
        .with_name(topic.name)
        .with_partitions(topic.partition_indexes.into_iter().map(partition).collect())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{GroupId, TopicName};

    use super::*;
    use crate::{api::call::text, base::ErrorCode, protocol::frame};

    #[test]
    fn a_group_s_error_has_its_place_in_every_old_version() {
        for version in 1..=7 {
            let asked = vec![
                OffsetFetchRequestTopics::default().with_name(TopicName(text("t"))).with_partition_indexes(vec![0, 5]),
            ];
            let group = OffsetFetchResponseGroup::default().with_error_code(ErrorCode::NotCoordinator.code());
            let answer = flat(group, asked, version);
            if version == 1 {
                let partitions = &answer.topics[0].partitions;
                assert!(partitions.len() == 2 && partitions.iter().all(|partition| partition.error_code == 16));
                assert!(partitions.iter().all(|partition| partition.committed_offset == -1));
            } else {
                assert_eq!((answer.error_code, answer.topics.len()), (16, 0));
            }
            frame::reply(1, version, &answer).unwrap_or_else(|why| panic!("v{version}: {why}"));
        }
    }

    #[test]
    fn old_requests_become_one_group() {
        let request = OffsetFetchRequest::default().with_group_id(GroupId(text("g"))).with_topics(None);
        assert!(single(request).topics.is_none(), "null asks for all");
    }
}
