//! OffsetCommit (key 8), versions 2–9.
//! v2–4 retention time · v6 leader epochs (KIP-320) · v7 static members (KIP-345)
//! Topics and partitions that do not exist are answered here; the coordinator sees the rest, with topic ids.

use std::rc::Rc;

use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, TopicName,
    offset_commit_request::OffsetCommitRequestTopic,
    offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, throttled},
        groups, topics,
        view::View,
    },
    base::{ErrorCode, Map},
    group::asks::Commit,
};

throttled!(OffsetCommitResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<OffsetCommitRequest>) -> Outcome {
    let (mut request, call) = call.take();
    if let Err(error) = call.asker.group(&request.group_id) {
        return call.reply(OffsetCommitResponse::default().with_topics(refused(request.topics, error)));
    }
    let (mut answers, known) = sort(call.view(&context.router.image()), std::mem::take(&mut request.topics));
    if known.is_empty() && !answers.is_empty() {
        return call.reply(OffsetCommitResponse::default().with_topics(answers));
    }
    request.topics = known;
    let group_id = request.group_id.clone();
    let committed = groups::ask(context, &call.asker, &group_id, Commit(request, call.version)).await;
    merge(&mut answers, committed.map(|answer| answer.topics));
    call.reply(OffsetCommitResponse::default().with_topics(answers))
}

/// Every partition with the same error.
fn refused(asked: Vec<OffsetCommitRequestTopic>, error: ErrorCode) -> Vec<OffsetCommitResponseTopic> {
    let partition =
        |index| OffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(error.code());
    let topic = |topic: OffsetCommitRequestTopic| {
        let partitions = topic.partitions.iter().map(|asked| partition(asked.partition_index));
        OffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions.collect())
    };
    asked.into_iter().map(topic).collect()
}

/// Marks what the coordinator has to answer. Not a code of Kafka's; [`merge`] leaves none of them.
const OPEN: i16 = i16::MIN;

/// The answer with its errors filled in and the rest [`OPEN`], and the request without what does not exist.
fn sort(
    view: View<'_>,
    asked: Vec<OffsetCommitRequestTopic>,
) -> (Vec<OffsetCommitResponseTopic>, Vec<OffsetCommitRequestTopic>) {
    let mut answers = Vec::with_capacity(asked.len());
    let mut known = Vec::with_capacity(asked.len());
    for mut topic in asked {
        let found = view.topic(&topic.name);
        let refusal = |index: i32| found.and_then(|found| topics::partition(found, index)).err();
        let partitions = topic.partitions.iter().map(|partition| {
            let index = partition.partition_index;
            let code = refusal(index).map_or(OPEN, |error| error.code());
            OffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code)
        });
        answers.push(
            OffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions.collect()),
        );
        topic.partitions.retain(|partition| refusal(partition.partition_index).is_none());
        if let (Ok(found), false) = (found, topic.partitions.is_empty()) {
            topic.topic_id = found.id.0;
            known.push(topic);
        }
    }
    (answers, known)
}

/// Fills the coordinator's answers in.
fn merge(answers: &mut [OffsetCommitResponseTopic], committed: Result<Vec<OffsetCommitResponseTopic>, ErrorCode>) {
    let mut codes: Map<(TopicName, i32), i16> = Map::default();
    let default = match committed {
        Ok(topics) => {
            for topic in topics {
                for partition in topic.partitions {
                    codes.insert((topic.name.clone(), partition.partition_index), partition.error_code);
                }
            }
            // The coordinator answers for all it was given; if it ever did not, success must not be claimed.
            ErrorCode::UnknownServerError
        }
        Err(error) => error,
    };
    for topic in answers {
        for partition in topic.partitions.iter_mut().filter(|partition| partition.error_code == OPEN) {
            let code = codes.get(&(topic.name.clone(), partition.partition_index));
            partition.error_code = code.copied().unwrap_or(default.code());
        }
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;

    use super::*;
    use crate::api::{asker::Asker, call::text};

    fn name(name: &str) -> TopicName {
        TopicName(text(name))
    }

    #[test]
    fn what_does_not_exist_is_not_asked() {
        let partition = OffsetCommitRequestPartition::default().with_partition_index(4);
        let topic =
            OffsetCommitRequestTopic::default().with_name(name("gone")).with_partitions(vec![partition.clone()]);
        let there = OffsetCommitRequestTopic::default()
            .with_name(name("b"))
            .with_partitions([1, 2].map(|index| partition.clone().with_partition_index(index)).to_vec());
        let (answers, known) = sort(View::new(&topics::test_image(), &Asker::anybody()), vec![topic, there]);
        assert_eq!(answers[0].partitions[0].error_code, 3);
        assert_eq!(answers[1].partitions.iter().map(|answer| answer.error_code).collect::<Vec<_>>(), [OPEN, 3]);
        assert_eq!(known.len(), 1);
        assert_eq!(known[0].topic_id.as_u128(), 2, "the coordinator writes the id down");
        assert_eq!(known[0].partitions.len(), 1);
    }

    #[test]
    fn answers_are_merged_and_errors_fill_the_gaps() {
        let partition =
            |index, code| OffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code);
        let topic = |partitions| OffsetCommitResponseTopic::default().with_name(name("t")).with_partitions(partitions);
        let codes = |committed| {
            let mut answers = vec![topic(vec![partition(0, OPEN), partition(1, 3), partition(2, OPEN)])];
            merge(&mut answers, committed);
            answers[0].partitions.iter().map(|partition| partition.error_code).collect::<Vec<_>>()
        };
        assert_eq!(codes(Ok(vec![topic(vec![partition(2, 12), partition(0, 0)])])), [0, 3, 12]);
        assert_eq!(codes(Ok(vec![topic(vec![partition(0, 0)])])), [0, 3, -1]);
        assert_eq!(codes(Err(ErrorCode::NotCoordinator)), [16, 3, 16]);
    }
}
