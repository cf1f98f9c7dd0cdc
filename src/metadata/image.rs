//! The image of the cluster that its records leave behind.

use std::sync::Arc;

use imbl::OrdMap;
use uuid::Uuid;

use crate::{
    base::{BrokerId, LeaderEpoch, PartitionKey, TopicId},
    config::{Layers, Overrides, Statics, TopicConfig},
    metadata::{names, quotas::Quotas},
    protocol::metadata_records::{
        BROKER_RESOURCE, BrokerRegistrationChange, ConfigRecord, MetadataRecord, PartitionChange, PartitionRecord,
        RegisterBroker, ScramCredential, ScramUser, TOPIC_RESOURCE,
    },
};

/// The state of the cluster. A clone shares everything with its original, so that each core and each request can have
/// one; what changes afterwards costs the topics that change and a path down to each, however many others there are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Image {
    pub(super) brokers: OrdMap<BrokerId, RegisterBroker>,
    pub(super) topics: OrdMap<TopicId, Arc<Topic>>,
    /// In the order of names, which is the order of answers.
    pub(super) names: OrdMap<Arc<str>, TopicId>,
    /// Topics whose names hold letters that Kafka's metrics cannot tell apart, by the name with these letters made one.
    pub(super) collision_keys: OrdMap<String, TopicId>,
    /// By type and name of the resource.
    pub(super) configs: OrdMap<(i8, String), Overrides>,
    pub(super) features: OrdMap<String, i16>,
    pub(super) quotas: Quotas,
    pub(super) scram_credentials: OrdMap<ScramUser, ScramCredential>,
    pub(super) next_producer_id: i64,
}

/// A topic and its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: Arc<str>,
    /// Its id.
    pub id: TopicId,
    /// Its partitions, by index.
    pub partitions: Vec<PartitionRegistration>,
}

/// A partition as the controller sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionRegistration {
    /// Brokers that hold it, the preferred leader first.
    pub replicas: Vec<BrokerId>,
    /// The in-sync replicas.
    pub in_sync_replicas: Vec<BrokerId>,
    /// Replicas on their way out.
    pub removing_replicas: Vec<BrokerId>,
    /// Replicas on their way in.
    pub adding_replicas: Vec<BrokerId>,
    /// The leader; none: offline.
    pub leader: Option<BrokerId>,
    /// The leader's term.
    pub leader_epoch: LeaderEpoch,
    /// Grows with each change.
    pub partition_epoch: i32,
    /// 0 recovered, 1 recovering.
    pub leader_recovery_state: i8,
    /// The data directory of each replica.
    pub directories: Vec<Uuid>,
    /// KIP-966.
    pub eligible_leader_replicas: Vec<BrokerId>,
    /// KIP-966.
    pub last_known_elr: Vec<BrokerId>,
}

/// A record that does not fit the image: the metadata log is damaged, or was not applied in order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Inconsistent(pub String);

static NO_OVERRIDES: Overrides = Overrides::new();

impl Image {
    /// All registered brokers, by id.
    pub fn brokers(&self) -> impl Iterator<Item = &RegisterBroker> {
        self.brokers.values()
    }

    /// One broker.
    #[must_use]
    pub fn broker(&self, id: BrokerId) -> Option<&RegisterBroker> {
        self.brokers.get(&id)
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.names.values().map(|id| &self.topics[id])
    }

    /// How many topics there are.
    #[must_use]
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// The topic of that name.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.names.get(name).map(|id| &self.topics[id])
    }

    /// The topic whose name Kafka's metrics could not tell from `name`.
    #[must_use]
    pub fn colliding_topic(&self, name: &str) -> Option<&Arc<Topic>> {
        let id = names::collision_key(name).and_then(|key| self.collision_keys.get(&key))?;
        self.topic_by_id(*id)
    }

    /// The topic of that id.
    #[must_use]
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics.get(&id)
    }

    /// One partition.
    #[must_use]
    pub fn partition(&self, key: PartitionKey) -> Option<&PartitionRegistration> {
        self.topic_by_id(key.topic_id)?.partition(key.partition)
    }

    /// Every partition there is, by topic name and index.
    pub fn partition_keys(&self) -> impl Iterator<Item = PartitionKey> {
        self.topics().flat_map(|topic| topic.partition_keys())
    }

    /// What was set for one topic.
    #[must_use]
    pub fn topic_overrides(&self, name: &str) -> &Overrides {
        self.overrides(TOPIC_RESOURCE, name)
    }

    /// What was set for one broker while it ran.
    #[must_use]
    pub fn broker_overrides(&self, id: BrokerId) -> &Overrides {
        self.overrides(BROKER_RESOURCE, &id.to_string())
    }

    /// What was set for all brokers while they ran.
    #[must_use]
    pub fn cluster_overrides(&self) -> &Overrides {
        self.overrides(BROKER_RESOURCE, "")
    }

    /// What was set for one resource.
    #[must_use]
    pub fn overrides(&self, resource_type: i8, name: &str) -> &Overrides {
        self.configs.get(&(resource_type, name.to_owned())).unwrap_or(&NO_OVERRIDES)
    }

    /// All layers of settings of one broker.
    #[must_use]
    pub fn layers<'a>(&'a self, statics: &'a Statics, broker: BrokerId) -> Layers<'a> {
        let layers = Layers::of(statics);
        Layers { cluster: self.cluster_overrides(), broker: self.broker_overrides(broker), ..layers }
    }

    /// The settings that count for one topic on one broker.
    #[must_use]
    pub fn topic_config(&self, statics: &Statics, broker: BrokerId, name: &str) -> TopicConfig {
        TopicConfig::of(&self.layers(statics, broker).with_topic(self.topic_overrides(name)))
    }

    /// The finalized level of a feature; 0: not finalized.
    #[must_use]
    pub fn feature(&self, name: &str) -> i16 {
        self.features.get(name).copied().unwrap_or(0)
    }

    /// All finalized features and their levels, by name.
    pub fn features(&self) -> impl Iterator<Item = (&str, i16)> {
        self.features.iter().map(|(name, level)| (name.as_str(), *level))
    }

    /// All SCRAM credentials, by user and mechanism.
    pub fn scram_credentials(&self) -> impl Iterator<Item = (&ScramUser, &ScramCredential)> {
        self.scram_credentials.iter()
    }

    /// One SCRAM credential.
    #[must_use]
    pub fn scram_credential(&self, user: &ScramUser) -> Option<&ScramCredential> {
        self.scram_credentials.get(user)
    }

    /// What clients may use.
    #[must_use]
    pub fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// The first producer id that no broker has.
    #[must_use]
    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }

    /// Applies one record.
    /// # Errors  A record about a broker, topic or partition that is not there, or a second topic of one name.
    pub fn apply(&mut self, record: &MetadataRecord) -> Result<(), Inconsistent> {
        match record {
            MetadataRecord::RegisterBroker(broker) => {
                self.brokers.insert(BrokerId(broker.broker_id), broker.clone());
            }
            MetadataRecord::UnregisterBroker { broker_id, .. } => {
                self.brokers.remove(&BrokerId(*broker_id));
            }
            MetadataRecord::FenceBroker { broker_id, .. } => self.broker_mut(*broker_id)?.fenced = true,
            MetadataRecord::UnfenceBroker { broker_id, .. } => self.broker_mut(*broker_id)?.fenced = false,
            MetadataRecord::BrokerRegistrationChange(change) => self.change_broker(change)?,
            MetadataRecord::Topic { name, topic_id } => self.add_topic(name, *topic_id)?,
            MetadataRecord::Partition(record) => self.add_partition(record)?,
            MetadataRecord::PartitionChange(change) => self.change_partition(change)?,
            MetadataRecord::RemoveTopic { topic_id } => self.remove_topic(*topic_id)?,
            MetadataRecord::Config(record) => self.set_config(record),
            MetadataRecord::ScramCredential(user, credential) => {
                self.scram_credentials.insert(user.clone(), credential.clone());
            }
            MetadataRecord::RemoveScramCredential(user) => {
                self.scram_credentials.remove(user);
            }
            MetadataRecord::ClientQuota(record) => self.quotas.set(record),
            MetadataRecord::FeatureLevel { name, level: 0 } => {
                self.features.remove(name);
            }
            MetadataRecord::FeatureLevel { name, level } => {
                self.features.insert(name.clone(), *level);
            }
            MetadataRecord::ProducerIds { next_producer_id, .. } => {
                self.next_producer_id = self.next_producer_id.max(*next_producer_id);
            }
            // A batch of ours holds whole decisions, so that the marks of KIP-868 have nothing to hold together.
            MetadataRecord::NoOp
            | MetadataRecord::BeginTransaction
            | MetadataRecord::EndTransaction
            | MetadataRecord::AbortTransaction
            | MetadataRecord::Other { .. } => {}
        }
        Ok(())
    }

    fn broker_mut(&mut self, id: i32) -> Result<&mut RegisterBroker, Inconsistent> {
        let broker = self.brokers.get_mut(&BrokerId(id));
        broker.ok_or_else(|| Inconsistent(format!("broker {id} changes and is not registered")))
    }

    fn change_broker(&mut self, change: &BrokerRegistrationChange) -> Result<(), Inconsistent> {
        let broker = self.broker_mut(change.broker_id)?;
        broker.fenced = change.fenced.unwrap_or(broker.fenced);
        broker.in_controlled_shutdown = change.in_controlled_shutdown.unwrap_or(broker.in_controlled_shutdown);
        if !change.log_dirs.is_empty() {
            broker.log_dirs.clone_from(&change.log_dirs);
        }
        Ok(())
    }

    fn add_topic(&mut self, name: &str, id: TopicId) -> Result<(), Inconsistent> {
        if self.names.contains_key(name) || self.topics.contains_key(&id) {
            return Err(Inconsistent(format!("topic {name} with id {id} is there already")));
        }
        if let Some(key) = names::collision_key(name) {
            self.collision_keys.insert(key, id);
        }
        let name: Arc<str> = name.into();
        self.names.insert(Arc::clone(&name), id);
        self.topics.insert(id, Arc::new(Topic { name, id, partitions: Vec::new() }));
        Ok(())
    }

    fn topic_mut(&mut self, id: TopicId) -> Result<&mut Topic, Inconsistent> {
        let topic = self.topics.get_mut(&id);
        topic.map(Arc::make_mut).ok_or_else(|| Inconsistent(format!("topic id {id} changes and is not there")))
    }

    fn add_partition(&mut self, record: &PartitionRecord) -> Result<(), Inconsistent> {
        let topic = self.topic_mut(record.topic_id)?;
        let index = record.partition_id;
        let next = topic.partitions.len();
        match usize::try_from(index) {
            // Kafka writes partitions in order; a record for one that is there replaces it, as in a snapshot read twice.
            Ok(index) if index < next => topic.partitions[index] = PartitionRegistration::of(record),
            Ok(index) if index == next => topic.partitions.push(PartitionRegistration::of(record)),
            _ => return Err(Inconsistent(format!("partition {index} of {} follows {next} partitions", topic.name))),
        }
        Ok(())
    }

    fn change_partition(&mut self, change: &PartitionChange) -> Result<(), Inconsistent> {
        let topic = self.topic_mut(change.topic_id)?;
        let partition = usize::try_from(change.partition_id).ok().and_then(|index| topic.partitions.get_mut(index));
        match partition {
            Some(partition) => partition.change(change),
            None => {
                return Err(Inconsistent(format!(
                    "partition {} of {} changes and is not there",
                    change.partition_id, topic.name
                )));
            }
        }
        Ok(())
    }

    fn remove_topic(&mut self, id: TopicId) -> Result<(), Inconsistent> {
        let topic = self.topics.remove(&id);
        let topic = topic.ok_or_else(|| Inconsistent(format!("topic id {id} goes and is not there")))?;
        self.names.remove(&topic.name);
        if let Some(key) = names::collision_key(&topic.name) {
            self.collision_keys.remove(&key);
        }
        // The settings go with the topic; no record says so.
        let resource = (TOPIC_RESOURCE, topic.name.to_string());
        if self.configs.contains_key(&resource) {
            self.configs.remove(&resource);
        }
        Ok(())
    }

    fn set_config(&mut self, record: &ConfigRecord) {
        let configs = &mut self.configs;
        let resource = (record.resource_type, record.resource_name.clone());
        if let Some(value) = &record.value {
            configs.entry(resource).or_default().insert(record.name.clone(), value.clone());
        } else if let Some(overrides) = configs.get_mut(&resource) {
            overrides.remove(&record.name);
            if overrides.is_empty() {
                configs.remove(&resource);
            }
        }
    }
}

impl Topic {
    /// One partition.
    #[must_use]
    pub fn partition(&self, index: i32) -> Option<&PartitionRegistration> {
        usize::try_from(index).ok().and_then(|index| self.partitions.get(index))
    }

    /// The key of one of its partitions, whether it is there or not.
    #[must_use]
    pub fn key(&self, index: i32) -> PartitionKey {
        PartitionKey { topic_id: self.id, partition: index }
    }

    /// The keys of its partitions, by index.
    pub fn partition_keys(&self) -> impl Iterator<Item = PartitionKey> {
        (0..).zip(&self.partitions).map(|(index, _)| self.key(index))
    }
}

pub(super) fn ids(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

impl PartitionRegistration {
    fn of(record: &PartitionRecord) -> Self {
        Self {
            replicas: ids(&record.replicas),
            in_sync_replicas: ids(&record.isr),
            removing_replicas: ids(&record.removing_replicas),
            adding_replicas: ids(&record.adding_replicas),
            leader: leader(record.leader),
            leader_epoch: LeaderEpoch(record.leader_epoch),
            partition_epoch: record.partition_epoch,
            leader_recovery_state: record.leader_recovery_state,
            directories: record.directories.clone(),
            eligible_leader_replicas: ids(&record.eligible_leader_replicas),
            last_known_elr: ids(&record.last_known_elr),
        }
    }

    fn change(&mut self, change: &PartitionChange) {
        let set = |field: &mut Vec<BrokerId>, new: &Option<Vec<i32>>| {
            if let Some(new) = new {
                *field = ids(new);
            }
        };
        set(&mut self.replicas, &change.replicas);
        set(&mut self.in_sync_replicas, &change.isr);
        set(&mut self.removing_replicas, &change.removing_replicas);
        set(&mut self.adding_replicas, &change.adding_replicas);
        set(&mut self.eligible_leader_replicas, &change.eligible_leader_replicas);
        set(&mut self.last_known_elr, &change.last_known_elr);
        if let Some(new) = change.leader {
            self.leader = leader(new);
            self.leader_epoch = LeaderEpoch(self.leader_epoch.0.saturating_add(1));
        }
        if let Some(state) = change.leader_recovery_state {
            self.leader_recovery_state = state;
        }
        if let Some(directories) = &change.directories {
            self.directories.clone_from(directories);
        }
        self.partition_epoch = self.partition_epoch.saturating_add(1);
    }
}

fn leader(id: i32) -> Option<BrokerId> {
    (id >= 0).then_some(BrokerId(id))
}
