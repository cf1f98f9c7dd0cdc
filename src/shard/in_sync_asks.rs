//! Asks for other in-sync replicas: what a core wants to ask, and the words for it.

use std::{
    cell::{Cell, OnceCell, RefCell},
    rc::Rc,
};

use kafka_protocol::messages::{
    AlterPartitionRequest, AlterPartitionResponse,
    alter_partition_request::{BrokerState, PartitionData, TopicData},
};

use crate::{
    base::{BrokerId, ErrorCode, LeaderEpoch, PartitionKey, TopicId},
    io::channel::Notify,
    partition::{IsrChange, IsrState},
    replica::Local,
};

/// The way to whoever is the controller; on its core only.
pub type AlterPartition = Rc<dyn Fn(AlterPartitionRequest) -> Local<Result<AlterPartitionResponse, ErrorCode>>>;

/// What a core's leaders want to ask.
#[derive(Default)]
pub struct InSync {
    /// Partitions with a follower that may have caught up.
    pub joining: RefCell<Vec<PartitionKey>>,
    pub news: Notify,
    /// What is to be asked; bounded by the partitions, each of which asks once at a time.
    pub changes: RefCell<Vec<(PartitionKey, IsrChange)>>,
    pub is_asking: Cell<bool>,
    pub controller: OnceCell<AlterPartition>,
}

impl InSync {
    /// A follower of this partition may have caught up.
    pub fn note_joining(&self, key: PartitionKey) {
        self.joining.borrow_mut().push(key);
        self.news.notify_all();
    }
}

pub fn request(me: BrokerId, broker_epoch: i64, changes: &[(PartitionKey, IsrChange)]) -> AlterPartitionRequest {
    let mut topics: Vec<TopicData> = Vec::new();
    for (key, change) in changes {
        let in_sync = std::iter::once((me, broker_epoch)).chain(change.others.iter().copied());
        let in_sync =
            in_sync.map(|(id, epoch)| BrokerState::default().with_broker_id(id.0.into()).with_broker_epoch(epoch));
        let partition = PartitionData::default()
            .with_partition_index(key.partition)
            .with_leader_epoch(change.leader_epoch.0)
            .with_partition_epoch(change.partition_epoch)
            .with_new_isr_with_epochs(in_sync.collect());
        match topics.iter_mut().find(|topic| topic.topic_id == key.topic_id.0) {
            Some(topic) => topic.partitions.push(partition),
            None => topics.push(TopicData::default().with_topic_id(key.topic_id.0).with_partitions(vec![partition])),
        }
    }
    AlterPartitionRequest::default().with_broker_id(me.0.into()).with_broker_epoch(broker_epoch).with_topics(topics)
}

/// What an answer says of one partition. Of one that it lacks nobody knows.
pub fn found(answer: &AlterPartitionResponse, key: PartitionKey) -> Result<IsrState, ErrorCode> {
    let mut topics = answer.topics.iter().filter(|topic| TopicId(topic.topic_id) == key.topic_id);
    let partition = topics.find_map(|topic| topic.partitions.iter().find(|it| it.partition_index == key.partition));
    let partition = partition.ok_or(ErrorCode::RequestTimedOut)?;
    match ErrorCode::try_from_code(partition.error_code) {
        Some(error) => Err(error),
        None => Ok(IsrState {
            leader_epoch: LeaderEpoch(partition.leader_epoch),
            partition_epoch: partition.partition_epoch,
            in_sync_replicas: partition.isr.iter().map(|id| BrokerId(id.0)).collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::alter_partition_response;
    use uuid::Uuid;

    use super::*;

    fn key(topic: u128, partition: i32) -> PartitionKey {
        PartitionKey { topic_id: TopicId(Uuid::from_u128(topic)), partition }
    }

    fn change(partition_epoch: i32, others: &[(i32, i64)]) -> IsrChange {
        let others = others.iter().map(|(id, epoch)| (BrokerId(*id), *epoch)).collect();
        IsrChange { leader_epoch: LeaderEpoch(3), partition_epoch, others }
    }

    #[test]
    fn partitions_of_one_topic_are_asked_for_together_and_the_leader_is_among_those_in_sync() {
        let changes =
            [(key(1, 0), change(5, &[(2, 20)])), (key(2, 7), change(6, &[])), (key(1, 4), change(8, &[(3, 30)]))];
        let asked = request(BrokerId(1), 10, &changes);
        let show = |partition: &PartitionData| {
            let in_sync: Vec<_> =
                partition.new_isr_with_epochs.iter().map(|it| (it.broker_id.0, it.broker_epoch)).collect();
            (partition.partition_index, partition.leader_epoch, partition.partition_epoch, in_sync)
        };
        let topics: Vec<_> =
            asked.topics.iter().map(|topic| topic.partitions.iter().map(show).collect::<Vec<_>>()).collect();
        let first = vec![(0, 3, 5, vec![(1, 10), (2, 20)]), (4, 3, 8, vec![(1, 10), (3, 30)])];
        assert_eq!(topics, [first, vec![(7, 3, 6, vec![(1, 10)])]]);
        assert_eq!((asked.broker_id.0, asked.broker_epoch), (1, 10));
    }

    #[test]
    fn of_a_partition_that_the_answer_lacks_nobody_knows() {
        let answered = |index: i32, error: i16| {
            alter_partition_response::PartitionData::default()
                .with_partition_index(index)
                .with_error_code(error)
                .with_partition_epoch(9)
                .with_isr(vec![1.into()])
        };
        let topic = alter_partition_response::TopicData::default()
            .with_topic_id(Uuid::from_u128(1))
            .with_partitions(vec![answered(0, 0), answered(1, 95)]);
        let answer = AlterPartitionResponse::default().with_topics(vec![topic]);
        assert_eq!(found(&answer, key(1, 0)).map(|state| state.partition_epoch), Ok(9));
        assert_eq!(found(&answer, key(1, 1)), Err(ErrorCode::InvalidUpdateVersion));
        assert_eq!(found(&answer, key(1, 2)), Err(ErrorCode::RequestTimedOut));
        assert_eq!(found(&answer, key(2, 0)), Err(ErrorCode::RequestTimedOut));
    }
}
