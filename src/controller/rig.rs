//! A controller with several brokers, for tests: every decision is replayed, and time is theirs.

use std::collections::BTreeMap;

use kafka_protocol::messages::{
    AlterPartitionRequest, BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerRegistrationRequest,
    BrokerRegistrationResponse,
    alter_partition_request::{BrokerState, PartitionData, TopicData},
    broker_registration_request::{Feature, Listener},
};
use uuid::Uuid;

use super::{Controller, tests::replays};
use crate::{
    base::{BrokerId, PartitionKey, TopicId},
    config::load,
    metadata::{Image, PartitionRegistration},
    protocol::metadata_records::{ConfigRecord, MetadataRecord, PartitionChange, TOPIC_RESOURCE},
};

pub(super) struct Rig {
    pub controller: Controller,
    pub offset: i64,
    pub now_ms: u64,
    /// The epochs of brokers as they know them.
    pub epochs: BTreeMap<i32, i64>,
    lives: u128,
}

impl Rig {
    /// No broker yet.
    pub fn new() -> Self {
        let controller = Controller::new(load(None, &[]).expect("good settings").config, Image::default());
        Self { controller, offset: 0, now_ms: 0, epochs: BTreeMap::new(), lives: 0 }
    }

    /// These brokers, alive.
    pub fn of(brokers: &[i32]) -> Self {
        let mut rig = Self::new();
        brokers.iter().for_each(|broker| rig.start(*broker));
        rig
    }

    /// Lets the controller decide, and holds the records against what it has made of them.
    pub fn decide<T>(&mut self, decide: impl FnOnce(&mut Controller) -> (Vec<MetadataRecord>, T)) -> T {
        self.controller.set_now(self.now_ms);
        self.controller.set_next_offset(self.offset);
        let before = self.controller.image().clone();
        let (records, answer) = decide(&mut self.controller);
        replays(&before, &records, &self.controller);
        self.offset += records.len() as i64;
        answer
    }

    /// What a broker says when a life of it begins, with the directory of that number.
    pub fn registration(&mut self, broker: i32, directory: u128) -> BrokerRegistrationRequest {
        self.lives += 1;
        let listener = Listener::default().with_name("PLAINTEXT".into()).with_host("h".into()).with_port(9092);
        let feature = Feature::default()
            .with_name("metadata.version".into())
            .with_min_supported_version(7)
            .with_max_supported_version(30);
        BrokerRegistrationRequest::default()
            .with_broker_id(broker.into())
            .with_incarnation_id(Uuid::from_u128(self.lives))
            .with_listeners(vec![listener])
            .with_features(vec![feature])
            .with_rack(None)
            .with_log_dirs(vec![Uuid::from_u128(directory)])
    }

    pub fn register(&mut self, request: &BrokerRegistrationRequest) -> BrokerRegistrationResponse {
        let answer = self.decide(|controller| controller.register(request));
        if answer.error_code == 0 {
            self.epochs.insert(request.broker_id.0, answer.broker_epoch);
        }
        answer
    }

    /// A life of a broker begins with its own directory, and serves.
    pub fn start(&mut self, broker: i32) {
        let request = self.registration(broker, 1000 + u128::from(broker.unsigned_abs()));
        assert_eq!(self.register(&request).error_code, 0);
        assert!(!self.beat(broker, self.offset - 1).is_fenced);
    }

    /// An ordinary heartbeat of a broker whose image goes so far.
    pub fn beat(&mut self, broker: i32, offset: i64) -> BrokerHeartbeatResponse {
        self.heartbeat(broker, |request| request.with_current_metadata_offset(offset))
    }

    pub fn heartbeat(
        &mut self,
        broker: i32,
        shape: impl FnOnce(BrokerHeartbeatRequest) -> BrokerHeartbeatRequest,
    ) -> BrokerHeartbeatResponse {
        let epoch = self.epochs.get(&broker).copied().unwrap_or(-1);
        let request = BrokerHeartbeatRequest::default().with_broker_id(broker.into()).with_broker_epoch(epoch);
        let request = shape(request);
        self.decide(|controller| controller.heartbeat(&request))
    }

    /// Time goes by, while these brokers are heard of every half second.
    pub fn pass(&mut self, ms: u64, alive: &[i32]) {
        for _ in 0..ms / 100 {
            self.now_ms += 100;
            if self.now_ms.is_multiple_of(500) {
                for broker in alive {
                    self.beat(*broker, self.offset - 1);
                }
            }
            self.decide(|controller| (controller.tick(), ()));
        }
    }

    /// A broker is killed, and that is noticed.
    pub fn kill(&mut self, broker: i32) {
        let epoch = self.epochs[&broker];
        self.decide(|controller| (controller.fence_dead(BrokerId(broker), epoch), ()));
    }

    /// Makes topic `t` with a partition for each of these assignments, which may differ in their number of replicas.
    pub fn topic(&mut self, assignments: &[&[i32]], configs: &[(&str, &str)]) {
        let topic_id = TopicId(Uuid::from_u128(7));
        let mut records = vec![MetadataRecord::Topic { name: "t".to_owned(), topic_id }];
        records.extend(configs.iter().map(|(name, value)| {
            MetadataRecord::Config(ConfigRecord {
                resource_type: TOPIC_RESOURCE,
                resource_name: "t".to_owned(),
                name: (*name).to_owned(),
                value: Some((*value).to_owned()),
            })
        }));
        self.decide(|controller| {
            records.extend(assignments.iter().enumerate().map(|(index, replicas)| {
                let replicas: Vec<BrokerId> = replicas.iter().copied().map(BrokerId).collect();
                MetadataRecord::Partition(controller.partition_record(topic_id, index, &replicas))
            }));
            controller.apply(&records);
            (records, ())
        });
    }

    /// Replicas of a partition come to be in sync, with nothing else changing.
    pub fn in_sync(&mut self, index: i32, in_sync: &[i32]) {
        let PartitionKey { topic_id, partition } = self.key(index);
        let change = PartitionChange { isr: Some(in_sync.to_vec()), ..PartitionChange::of(topic_id, partition) };
        self.decide(|controller| {
            let records = vec![MetadataRecord::PartitionChange(change)];
            controller.apply(&records);
            (records, ())
        });
    }

    /// The leader of a partition says who is in sync; the code.
    pub fn alter(&mut self, index: i32, leader: i32, in_sync: &[i32]) -> i16 {
        let (key, partition) = (self.key(index), self.partition(index));
        let state = |id: &i32| BrokerState::default().with_broker_id((*id).into()).with_broker_epoch(self.epochs[id]);
        let partition = PartitionData::default()
            .with_partition_index(index)
            .with_leader_epoch(partition.leader_epoch.0)
            .with_partition_epoch(partition.partition_epoch)
            .with_new_isr_with_epochs(in_sync.iter().map(state).collect());
        let topic = TopicData::default().with_topic_id(key.topic_id.0).with_partitions(vec![partition]);
        let request = AlterPartitionRequest::default()
            .with_broker_id(leader.into())
            .with_broker_epoch(self.epochs[&leader])
            .with_topics(vec![topic]);
        let answer = self.decide(|controller| controller.alter_partition(&request, 3));
        answer.topics[0].partitions[0].error_code
    }

    pub fn key(&self, index: i32) -> PartitionKey {
        self.controller.image().topic("t").expect("it was made").key(index)
    }

    pub fn partition(&self, index: i32) -> &PartitionRegistration {
        self.controller.image().partition(self.key(index)).expect("it was made")
    }

    /// A partition of `t`: leader, leader epoch, in-sync replicas, and what else is not empty.
    pub fn show(&self, index: i32) -> String {
        let it = self.partition(index);
        let ids = |ids: &[BrokerId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let leader = it.leader.map_or("none".to_owned(), |leader| leader.to_string());
        let mut shown = format!("{leader} e{} isr={}", it.leader_epoch.0, ids(&it.in_sync_replicas));
        for (name, list) in [
            ("elr", &it.eligible_leader_replicas),
            ("last", &it.last_known_elr),
            ("adding", &it.adding_replicas),
            ("removing", &it.removing_replicas),
        ] {
            if !list.is_empty() {
                shown += &format!(" {name}={}", ids(list));
            }
        }
        if it.leader_recovery_state != 0 {
            shown += " recovering";
        }
        assert_eq!(it.directories.len(), it.replicas.len());
        shown
    }
}
