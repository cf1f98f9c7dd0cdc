//! Fetch (key 1), versions 4–18.
//! v4 isolation (KIP-98) · v5 log start offset (KIP-107) · v7 sessions (KIP-227) · v9 leader epochs (KIP-320) · v11 rack (KIP-392) ·
//! v12 divergence (KIP-595) · v13 topic ids (KIP-516) · v15 replica state (KIP-903) · v16 node endpoints (KIP-951)
//! Record bytes are answered as they lie in memory or came from the disk.
//! Differs from Kafka: no preferred read replica; a follower below version 15 has no broker epoch and is refused.

mod reply;

use std::{rc::Rc, time::Duration};

use kafka_protocol::messages::{
    FetchRequest,
    fetch_request::{FetchPartition as AskedPartition, FetchTopic, ForgottenTopic},
};
use uuid::Uuid;

use self::reply::{Reply, TopicAnswer};
use crate::{
    api::{Context, Outcome, call::Call, topics, view::View},
    base::{BrokerId, ErrorCode, LeaderEpoch, Offset, PartitionKey, TopicId},
    partition::{
        FetchPartition, Fetcher, Isolation,
        fetch_session::{FetchContext, PartitionAnswer, SessionKey, SessionRequest, TopicRef},
    },
    replica::Fetched,
    shard::FetchCall,
};

pub(super) async fn handle(context: &Rc<Context>, call: Call<FetchRequest>) -> Outcome {
    let (request, call) = call.take();
    let mut reply = Reply::new(call.correlation_id(), call.version, request.isolation_level == 1);
    let session = session_request(&request, call.version);
    let reader = reader(&request, call.version);
    let opened = context.sessions.borrow_mut().open(session, now_ms(context));
    let session = match opened {
        Ok(session) => session,
        Err(error) => return reply.refuse(error),
    };
    let fetched = fetch(context, &call, &request, &session, reader).await;
    if let Some(metering) = &call.asker.metering {
        metering.fetched(fetched.iter().map(|fetched| fetched.bytes).sum());
    }
    reply.mute(call.asker.throttle());
    let answers: Vec<_> = fetched.iter().map(summary).collect();
    let random = context.io.rand.next_u64();
    let replied = context.sessions.borrow_mut().reply(&session, &answers, now_ms(context), random);
    match replied {
        Ok(session_reply) => {
            if session_reply.session_id != 0 {
                call.asker.session.placement.settle();
            }
            reply.session_id = session_reply.session_id;
            reply.topics = listed(session, fetched, &session_reply.include);
            reply.encode()
        }
        Err(error) => reply.refuse(error),
    }
}

fn now_ms(context: &Context) -> i64 {
    (context.io.clock.now().0 / 1_000_000) as i64
}

/// Who asks: a broker that names itself, or anybody else.
fn reader(request: &FetchRequest, version: i16) -> Fetcher {
    let (replica, broker_epoch) = match version {
        15.. => (request.replica_state.replica_id, request.replica_state.replica_epoch),
        _ => (request.replica_id, -1),
    };
    match request.isolation_level {
        _ if replica.0 >= 0 => Fetcher::Follower { broker: BrokerId(replica.0), broker_epoch },
        1 => Fetcher::Consumer(Isolation::ReadCommitted),
        _ => Fetcher::Consumer(Isolation::ReadUncommitted),
    }
}

fn session_request(request: &FetchRequest, version: i16) -> SessionRequest {
    let by_id = version >= 13;
    SessionRequest {
        session_id: request.session_id,
        session_epoch: request.session_epoch,
        by_id,
        follower: matches!(reader(request, version), Fetcher::Follower { .. }),
        partitions: request.topics.iter().flat_map(|topic| wanted(topic, by_id)).collect(),
        forgotten: request.forgotten_topics_data.iter().flat_map(|topic| forgotten(topic, by_id)).collect(),
    }
}

fn wanted(topic: &FetchTopic, by_id: bool) -> impl Iterator<Item = (SessionKey, FetchPartition)> {
    let reference = reference(&topic.topic, topic.topic_id, by_id);
    topic.partitions.iter().map(move |partition| ((reference.clone(), partition.partition), range(partition)))
}

fn forgotten(topic: &ForgottenTopic, by_id: bool) -> impl Iterator<Item = SessionKey> {
    let reference = reference(&topic.topic, topic.topic_id, by_id);
    topic.partitions.iter().map(move |index| (reference.clone(), *index))
}

fn reference(name: &str, id: Uuid, by_id: bool) -> TopicRef {
    if by_id { TopicRef::Id(TopicId(id)) } else { TopicRef::Name(name.into()) }
}

fn range(partition: &AskedPartition) -> FetchPartition {
    let epoch = |epoch: i32| Some(LeaderEpoch(epoch)).filter(|epoch| epoch.0 >= 0);
    FetchPartition {
        fetch_offset: Offset(partition.fetch_offset),
        partition_max_bytes: partition.partition_max_bytes,
        current_leader_epoch: epoch(partition.current_leader_epoch),
        last_fetched_epoch: epoch(partition.last_fetched_epoch),
        log_start_offset: Offset(partition.log_start_offset),
    }
}

/// Reads what the session says; one answer a partition, in its order.
async fn fetch(
    context: &Context,
    call: &Call<()>,
    request: &FetchRequest,
    session: &FetchContext,
    reader: Fetcher,
) -> Vec<Fetched> {
    let image = context.router.image();
    let view = call.view(&image);
    let keys: Vec<_> = session.partitions.iter().map(|(key, _)| find(view, key)).collect();
    let asked = keys.iter().zip(&session.partitions).filter_map(|(key, (_, range))| Some(((*key).ok()?, *range)));
    let most = context.router.config().requests.fetch_max_bytes;
    let under_quota = call.asker.metering.as_ref().and_then(|metering| metering.fetch_bytes_max());
    let most = under_quota.map_or(most, |bytes| most.min(i32::try_from(bytes).unwrap_or(i32::MAX)));
    let max_bytes = request.max_bytes.clamp(0, most);
    let call = FetchCall {
        partitions: asked.collect(),
        reader,
        max_bytes: max_bytes as usize,
        min_bytes: request.min_bytes.clamp(0, max_bytes) as usize,
        max_wait: Duration::from_millis(request.max_wait_ms.max(0) as u64),
    };
    let mut fetched = context.router.fetch(call).await.into_iter();
    let answer = |key: Result<PartitionKey, ErrorCode>| match key {
        Ok(_) => match fetched.next() {
            // As in Kafka, an error comes without offsets.
            Some(Fetched { error: Some(error), .. }) => Fetched::refused(error),
            Some(fetched) => fetched,
            None => Fetched::refused(ErrorCode::UnknownServerError),
        },
        Err(error) => Fetched::refused(error),
    };
    keys.into_iter().map(answer).collect()
}

fn find(view: View<'_>, (topic, index): &SessionKey) -> Result<PartitionKey, ErrorCode> {
    let topic = match topic {
        TopicRef::Name(name) => view.topic(name),
        TopicRef::Id(id) => view.topic_by_id(*id),
    };
    topics::partition(topic?, *index)
}

fn summary(fetched: &Fetched) -> PartitionAnswer {
    PartitionAnswer {
        has_records: fetched.bytes > 0,
        has_error: fetched.error.is_some(),
        has_redirect: fetched.diverging.is_some(),
        high_watermark: fetched.high_watermark.0,
        log_start_offset: fetched.log_start_offset.0,
    }
}

/// The partitions that the reply lists; neighbours of one topic together.
fn listed(session: FetchContext, fetched: Vec<Fetched>, include: &[bool]) -> Vec<TopicAnswer> {
    let mut topics: Vec<TopicAnswer> = Vec::new();
    let partitions = session.partitions.into_iter().zip(fetched).zip(include).filter(|(_, included)| **included);
    for ((((topic, index), _), fetched), _) in partitions {
        match topics.last_mut().filter(|last| last.topic == topic) {
            Some(last) => last.partitions.push((index, fetched)),
            None => topics.push(TopicAnswer { topic, partitions: vec![(index, fetched)] }),
        }
    }
    topics
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::TopicName;

    use super::*;
    use crate::api::{
        asker::Asker,
        call::{code, text},
    };

    fn topic(name: &str, id: u128) -> FetchTopic {
        let partitions = [0, 9, 1].map(|index| AskedPartition::default().with_partition(index).with_fetch_offset(7));
        FetchTopic::default()
            .with_topic(TopicName(text(name)))
            .with_topic_id(Uuid::from_u128(id))
            .with_partitions(partitions.to_vec())
    }

    fn check(name: &str, id: u128, version: i16) -> [i16; 3] {
        let request = FetchRequest::default().with_topics(vec![topic(name, id)]);
        let session = session_request(&request, version);
        let (image, asker) = (topics::test_image(), Asker::anybody());
        let found = |place: usize| code(find(View::new(&image, &asker), &session.partitions[place].0).err());
        [found(0), found(1), found(2)]
    }

    #[test]
    fn partitions_are_found_by_name_or_id() {
        assert_eq!(check("b", 0, 12), [0, 3, 0]);
        assert_eq!(check("", 2, 13), [0, 3, 0]);
        assert_eq!(check("nope", 0, 12), [3, 3, 3]);
        assert_eq!(check("", 77, 13), [100, 100, 100]);
    }

    #[test]
    fn who_names_a_broker_is_a_follower() {
        let uncommitted = Fetcher::Consumer(Isolation::ReadUncommitted);
        for (version, replica, state, expected) in [
            (4, 5, -1, Fetcher::Follower { broker: BrokerId(5), broker_epoch: -1 }),
            (4, -1, -1, uncommitted),
            (4, -2, -1, uncommitted),
            (15, -1, 5, Fetcher::Follower { broker: BrokerId(5), broker_epoch: 9 }),
            (15, -1, -1, uncommitted),
        ] {
            let mut request = FetchRequest::default().with_replica_id(replica.into());
            request.replica_state.replica_id = state.into();
            request.replica_state.replica_epoch = 9;
            assert_eq!(reader(&request, version), expected, "version {version}: {replica}, {state}");
        }
    }

    #[test]
    fn epochs_below_zero_are_no_epochs() {
        let asked = AskedPartition::default().with_current_leader_epoch(-1).with_last_fetched_epoch(3);
        let range = range(&asked);
        assert_eq!((range.current_leader_epoch, range.last_fetched_epoch), (None, Some(LeaderEpoch(3))));
    }

    #[test]
    fn what_is_listed_stands_by_topic() {
        let request = FetchRequest::default().with_topics(vec![topic("a", 0), topic("b", 0)]);
        let mut sessions = crate::partition::fetch_session::FetchSessions::new(1);
        let session = sessions.open(session_request(&request, 12), 0).expect("a full fetch");
        let fetched = (0..6).map(|_| Fetched::default()).collect();
        let answers = listed(session, fetched, &[true, false, true, false, false, true]);
        let show = |answer: &TopicAnswer| {
            format!("{:?}{:?}", answer.topic, answer.partitions.iter().map(|(index, _)| *index).collect::<Vec<_>>())
        };
        assert_eq!(answers.iter().map(show).collect::<Vec<_>>(), ["Name(\"a\")[0, 1]", "Name(\"b\")[1]"]);
    }
}
