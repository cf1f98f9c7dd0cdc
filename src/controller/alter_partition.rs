//! Leaders say who is in sync: AlterPartition (56, KIP-497, KIP-903).

use kafka_protocol::messages::{
    AlterPartitionRequest, AlterPartitionResponse,
    alter_partition_request::{self, BrokerState},
    alter_partition_response::{PartitionData, TopicData},
};

use super::{
    Controller,
    transition::{RECOVERED, RECOVERING},
};
use crate::{
    base::{BrokerId, ErrorCode, PartitionKey, TopicId},
    metadata::PartitionRegistration,
    protocol::metadata_records::MetadataRecord,
};

/// Most partitions that one decision changes: a batch of records has a bound.
const CHANGES_MAX: usize = 10_000;

/// The last version that names in-sync replicas without their epochs.
const WITHOUT_EPOCHS_LAST: i16 = 2;

/// The epoch of a broker of which nothing more is known than its id.
const ANY_EPOCH: i64 = -1;

impl Controller {
    /// AlterPartition, versions 2–3.
    pub fn alter_partition(
        &mut self,
        request: &AlterPartitionRequest,
        version: i16,
    ) -> (Vec<MetadataRecord>, AlterPartitionResponse) {
        let broker = BrokerId(request.broker_id.0);
        let answer = AlterPartitionResponse::default();
        if self.registered_in(broker, request.broker_epoch).is_none() {
            return (Vec::new(), answer.with_error_code(ErrorCode::StaleBrokerEpoch.code()));
        }
        let mut records = Vec::new();
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| {
                let key = PartitionKey { topic_id: TopicId(topic.topic_id), partition: asked.partition_index };
                match self.alter(broker, key, asked, version, &mut records) {
                    Ok(altered) => altered,
                    Err(error) => PartitionData::default()
                        .with_partition_index(asked.partition_index)
                        .with_error_code(error.code())
                        .with_leader_id((-1).into()),
                }
            });
            TopicData::default().with_topic_id(topic.topic_id).with_partitions(partitions.collect())
        });
        let topics = topics.collect();
        (records, answer.with_topics(topics))
    }

    /// Changes one partition, at once, so that whoever names it twice is refused. What it is afterwards.
    fn alter(
        &mut self,
        broker: BrokerId,
        key: PartitionKey,
        asked: &alter_partition_request::PartitionData,
        version: i16,
        records: &mut Vec<MetadataRecord>,
    ) -> Result<PartitionData, ErrorCode> {
        let topic = self.image.topic_by_id(key.topic_id).ok_or(ErrorCode::UnknownTopicId)?;
        let partition = topic.partition(key.partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let named = in_sync(asked, version);
        self.check_alteration(broker, partition, asked, &named)?;
        if records.len() >= CHANGES_MAX {
            return Err(ErrorCode::OperationNotAttempted);
        }
        let change = self.transition(key, None, |transition| {
            transition.in_sync = named.iter().map(|(replica, _)| *replica).collect();
            transition.leader_recovery_state = asked.leader_recovery_state;
        });
        if let Some(change) = change {
            let record = MetadataRecord::PartitionChange(change);
            self.apply(std::slice::from_ref(&record));
            records.push(record);
        }
        let altered = self.image.partition(key).expect("it was there before it was changed");
        if altered.leader != Some(broker) {
            // The change completed a reassignment that takes the leader away.
            return Err(ErrorCode::NewLeaderElected);
        }
        let in_sync = altered.in_sync_replicas.iter().map(|replica| replica.0.into());
        Ok(PartitionData::default()
            .with_partition_index(key.partition)
            .with_leader_id(broker.0.into())
            .with_leader_epoch(altered.leader_epoch.0)
            .with_isr(in_sync.collect())
            .with_leader_recovery_state(altered.leader_recovery_state)
            .with_partition_epoch(altered.partition_epoch))
    }

    fn check_alteration(
        &self,
        broker: BrokerId,
        partition: &PartitionRegistration,
        asked: &alter_partition_request::PartitionData,
        in_sync: &[(BrokerId, i64)],
    ) -> Result<(), ErrorCode> {
        if asked.leader_epoch > partition.leader_epoch.0 || asked.partition_epoch > partition.partition_epoch {
            // The leader knows more than we do: somebody else must be the controller.
            return Err(ErrorCode::NotController);
        }
        if asked.leader_epoch < partition.leader_epoch.0 {
            return Err(ErrorCode::FencedLeaderEpoch);
        }
        if partition.leader != Some(broker) {
            return Err(ErrorCode::InvalidRequest);
        }
        if asked.partition_epoch < partition.partition_epoch {
            return Err(ErrorCode::InvalidUpdateVersion);
        }
        let mut seen = Vec::with_capacity(partition.replicas.len());
        for (replica, _) in in_sync {
            if seen.contains(replica) || !partition.replicas.contains(replica) {
                return Err(ErrorCode::InvalidRequest);
            }
            seen.push(*replica);
        }
        let state = asked.leader_recovery_state;
        let alone = in_sync.len() == 1;
        let good_state = match state {
            RECOVERED => true,
            // Who recovers is in sync with nobody yet, and recovers from an election alone.
            RECOVERING => alone && partition.leader_recovery_state == RECOVERING,
            _ => false,
        };
        if !seen.contains(&broker) || !good_state {
            return Err(ErrorCode::InvalidRequest);
        }
        // KIP-903: a broker that has begun a new life may not have what its last one had.
        let eligible = |(replica, epoch): &(BrokerId, i64)| {
            let registered = self.image.broker(*replica);
            let same_life = registered.is_some_and(|it| *epoch == ANY_EPOCH || *epoch == it.broker_epoch);
            same_life && self.is_active(*replica)
        };
        if in_sync.iter().all(eligible) { Ok(()) } else { Err(ErrorCode::IneligibleReplica) }
    }
}

/// The replicas that are said to be in sync, and their epochs.
fn in_sync(asked: &alter_partition_request::PartitionData, version: i16) -> Vec<(BrokerId, i64)> {
    if version <= WITHOUT_EPOCHS_LAST {
        return asked.new_isr.iter().map(|replica| (BrokerId(replica.0), ANY_EPOCH)).collect();
    }
    let state = |state: &BrokerState| (BrokerId(state.broker_id.0), state.broker_epoch);
    asked.new_isr_with_epochs.iter().map(state).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::rig::Rig;

    /// What leader `broker` asks of partition 0 of `t`, where it knows all there is to know.
    fn asked(rig: &Rig, in_sync: &[i32]) -> alter_partition_request::PartitionData {
        let partition = rig.partition(0);
        let state = |id: &i32| {
            let epoch = rig.epochs.get(id).copied().unwrap_or(ANY_EPOCH);
            BrokerState::default().with_broker_id((*id).into()).with_broker_epoch(epoch)
        };
        alter_partition_request::PartitionData::default()
            .with_leader_epoch(partition.leader_epoch.0)
            .with_partition_epoch(partition.partition_epoch)
            .with_new_isr_with_epochs(in_sync.iter().map(state).collect())
    }

    fn request(
        rig: &Rig,
        broker: i32,
        partitions: Vec<alter_partition_request::PartitionData>,
    ) -> AlterPartitionRequest {
        let topic = alter_partition_request::TopicData::default().with_topic_id(rig.key(0).topic_id.0);
        AlterPartitionRequest::default()
            .with_broker_id(broker.into())
            .with_broker_epoch(rig.epochs[&broker])
            .with_topics(vec![topic.with_partitions(partitions)])
    }

    /// The code for one partition, and what it is like afterwards.
    fn alter(rig: &mut Rig, broker: i32, partition: alter_partition_request::PartitionData) -> (i16, String) {
        let request = request(rig, broker, vec![partition]);
        let answer = rig.decide(|controller| controller.alter_partition(&request, 3));
        assert_eq!(answer.error_code, 0);
        let told = &answer.topics[0].partitions[0];
        let is = rig.partition(0);
        if told.error_code == 0 {
            let isr: Vec<_> = is.in_sync_replicas.iter().map(|id| id.0.into()).collect();
            assert_eq!((told.leader_epoch, told.partition_epoch), (is.leader_epoch.0, is.partition_epoch));
            assert_eq!((told.leader_id.0, &told.isr), (broker, &isr));
        }
        (told.error_code, rig.show(0))
    }

    #[test]
    fn in_sync_replicas_leave_and_come_back() {
        let mut rig = Rig::of(&[1, 2, 3]);
        rig.topic(&[&[1, 2, 3]], &[("min.insync.replicas", "2")]);
        for (in_sync, shown) in [
            (&[1, 2][..], "1 e0 isr=1,2"),
            // Nothing changes, nothing is written.
            (&[1, 2], "1 e0 isr=1,2"),
            (&[1], "1 e0 isr=1 elr=2"),
            (&[1, 3], "1 e0 isr=1,3"),
            (&[3, 1, 2], "1 e0 isr=3,1,2"),
        ] {
            let asked = asked(&rig, in_sync);
            assert_eq!(alter(&mut rig, 1, asked), (0, shown.to_owned()));
        }
        // 2 was in sync when nothing more was committed, so it may lead when 1 dies.
        let alone = asked(&rig, &[1]);
        alter(&mut rig, 1, alone);
        rig.kill(1);
        assert_eq!(rig.show(0), "2 e1 isr=2 elr=3,1");
        rig.kill(2);
        rig.kill(3);
        assert_eq!(rig.show(0), "none e3 isr= elr=1,2,3");
    }

    #[test]
    fn a_version_without_epochs_is_taken_at_its_word() {
        let mut rig = Rig::of(&[1, 2]);
        rig.topic(&[&[1, 2]], &[]);
        let asked = asked(&rig, &[]).with_new_isr(vec![1.into()]);
        let request = request(&rig, 1, vec![asked]);
        let answer = rig.decide(|controller| controller.alter_partition(&request, 2));
        assert_eq!((answer.topics[0].partitions[0].error_code, &*rig.show(0)), (0, "1 e0 isr=1"));
    }

    #[test]
    fn what_is_refused() {
        let mut rig = Rig::of(&[1, 2, 3]);
        rig.topic(&[&[1, 2]], &[]);
        let good = asked(&rig, &[1]);
        let shrunk = good.clone();
        assert_eq!(alter(&mut rig, 1, shrunk).0, 0);
        // (leader epoch 0, partition epoch 1, in-sync replicas 1)
        let good = asked(&rig, &[1, 2]);
        let mut refused = |broker, shape: fn(&mut alter_partition_request::PartitionData), error: ErrorCode| {
            let mut asked = good.clone();
            shape(&mut asked);
            assert_eq!(alter(&mut rig, broker, asked.clone()), (error.code(), "1 e0 isr=1".to_owned()), "{asked:?}");
        };
        refused(1, |it| it.partition_index = 1, ErrorCode::UnknownTopicOrPartition);
        refused(1, |it| it.leader_epoch = 1, ErrorCode::NotController);
        refused(1, |it| it.partition_epoch = 2, ErrorCode::NotController);
        refused(1, |it| it.leader_epoch = -1, ErrorCode::FencedLeaderEpoch);
        refused(2, |_| {}, ErrorCode::InvalidRequest);
        refused(1, |it| it.partition_epoch = 0, ErrorCode::InvalidUpdateVersion);
        refused(1, |it| it.new_isr_with_epochs.clear(), ErrorCode::InvalidRequest);
        refused(1, |it| it.new_isr_with_epochs[0].broker_id = 3.into(), ErrorCode::InvalidRequest);
        refused(1, |it| it.new_isr_with_epochs[1].broker_id = 1.into(), ErrorCode::InvalidRequest);
        refused(1, |it| drop(it.new_isr_with_epochs.remove(0)), ErrorCode::InvalidRequest);
        refused(1, |it| it.leader_recovery_state = 1, ErrorCode::InvalidRequest);
        refused(1, |it| it.leader_recovery_state = 2, ErrorCode::InvalidRequest);
        refused(1, |it| it.new_isr_with_epochs[1].broker_epoch -= 1, ErrorCode::IneligibleReplica);
        refused(1, |it| it.new_isr_with_epochs[0].broker_epoch += 1, ErrorCode::IneligibleReplica);
        let request = request(&rig, 1, vec![good.clone()]);
        let mut stale = request.clone();
        stale.broker_epoch += 1;
        let answer = rig.decide(|controller| controller.alter_partition(&stale, 3));
        assert_eq!((answer.error_code, answer.topics.len()), (ErrorCode::StaleBrokerEpoch.code(), 0));
        let mut unknown = request;
        unknown.topics[0].topic_id = uuid::Uuid::from_u128(8);
        let answer = rig.decide(|controller| controller.alter_partition(&unknown, 3));
        assert_eq!(answer.topics[0].partitions[0].error_code, ErrorCode::UnknownTopicId.code());
    }

    #[test]
    fn a_partition_that_is_named_twice_is_changed_once() {
        let mut rig = Rig::of(&[1, 2]);
        rig.topic(&[&[1, 2]], &[]);
        let request = request(&rig, 1, vec![asked(&rig, &[1]), asked(&rig, &[1, 2])]);
        let answer = rig.decide(|controller| controller.alter_partition(&request, 3));
        let codes: Vec<_> = answer.topics[0].partitions.iter().map(|it| it.error_code).collect();
        assert_eq!((codes, &*rig.show(0)), (vec![0, ErrorCode::InvalidUpdateVersion.code()], "1 e0 isr=1"));
    }

    #[test]
    fn who_is_fenced_stopping_or_in_a_new_life_comes_into_no_in_sync_set() {
        let mut rig = Rig::of(&[1, 2, 3]);
        rig.topic(&[&[1, 2, 3]], &[]);
        let ineligible = ErrorCode::IneligibleReplica.code();
        rig.kill(2);
        let with_dead = asked(&rig, &[1, 3, 2]);
        assert_eq!(alter(&mut rig, 1, with_dead), (ineligible, "1 e0 isr=1,3".to_owned()));
        // What the leader has of it is what its last life had fetched.
        let mut with_last_life = asked(&rig, &[1, 3, 2]);
        rig.start(2);
        with_last_life.partition_epoch = rig.partition(0).partition_epoch;
        assert_eq!(alter(&mut rig, 1, with_last_life), (ineligible, "1 e0 isr=1,3".to_owned()));
        let with_this_life = asked(&rig, &[1, 3, 2]);
        assert_eq!(alter(&mut rig, 1, with_this_life), (0, "1 e0 isr=1,3,2".to_owned()));
    }

    #[test]
    fn an_unclean_leader_says_when_it_has_recovered() {
        let mut rig = Rig::of(&[1, 2]);
        rig.topic(&[&[1, 2]], &[("unclean.leader.election.enable", "true")]);
        rig.kill(2);
        rig.kill(1);
        rig.start(2);
        rig.start(1);
        assert_eq!(rig.show(0), "2 e2 isr=2 recovering");
        let both = asked(&rig, &[2, 1]).with_leader_recovery_state(RECOVERING);
        assert_eq!(alter(&mut rig, 2, both).0, ErrorCode::InvalidRequest.code());
        let both = asked(&rig, &[2, 1]);
        assert_eq!(alter(&mut rig, 2, both), (0, "2 e2 isr=2,1".to_owned()));
    }
}
