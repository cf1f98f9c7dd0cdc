//! Leaders and in-sync replicas, when a broker goes, comes or is lost with its disk.

use std::cell::OnceCell;

use uuid::Uuid;

use super::{
    Controller,
    transition::{Brokers, Election, Transition},
};
use crate::{
    base::{BrokerId, PartitionKey},
    config::TopicConfig,
    metadata::PartitionRegistration,
    protocol::metadata_records::{MetadataRecord, PartitionChange},
};

/// What a topic's settings say of its leaders.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeaderRules {
    pub min_insync_replicas: usize,
    /// Whether a replica that is not in sync may lead rather than nobody.
    pub unclean: bool,
}

impl LeaderRules {
    fn of(config: &TopicConfig) -> Self {
        Self {
            min_insync_replicas: usize::try_from(config.min_insync_replicas).unwrap_or(0).max(1),
            unclean: config.unclean_leader_election,
        }
    }

    /// Who is elected without anybody having asked for it.
    pub fn election(self) -> Election {
        if self.unclean { Election::Unclean } else { Election::Online }
    }
}

impl Controller {
    /// Whether a broker may lead, and be in sync.
    pub(super) fn is_active(&self, broker: BrokerId) -> bool {
        let registered = self.image.broker(broker);
        registered.is_some_and(|registered| !registered.fenced && !registered.in_controlled_shutdown)
    }

    /// Takes a broker out of the in-sync replicas of all partitions, and gives others what it leads. If its disk is lost, and
    /// this is what it has instead, it may not lead again what it was in sync with, either.
    pub(super) fn withdraw(&mut self, broker: BrokerId, lost: Option<Uuid>) -> Vec<MetadataRecord> {
        let brokers = Brokers {
            may_lead: &|replica| replica != broker && self.is_active(replica),
            directory: &|replica| lost.filter(|_| replica == broker).unwrap_or_else(|| self.directory(replica)),
            lost: lost.map(|_| broker),
        };
        let concerned = |partition: &PartitionRegistration| match lost.is_some() {
            true => partition.replicas.contains(&broker),
            false => partition.in_sync_replicas.contains(&broker) || partition.leader == Some(broker),
        };
        let records = self.transitions(concerned, &brokers, |transition| {
            transition.in_sync.retain(|replica| *replica != broker);
        });
        self.apply(&records);
        records
    }

    /// Elects leaders for the partitions that have none, where one can be had, and takes from the eligible ones where there are
    /// enough in-sync replicas without them: there more is committed than they have.
    pub(super) fn review_leaders(&mut self) -> Vec<MetadataRecord> {
        let concerned = |partition: &PartitionRegistration| {
            partition.leader.is_none() || !partition.eligible_leader_replicas.is_empty()
        };
        let brokers = Brokers {
            may_lead: &|replica| self.is_active(replica),
            directory: &|replica| self.directory(replica),
            lost: None,
        };
        let records = self.transitions(concerned, &brokers, |_| {});
        self.apply(&records);
        records
    }

    /// Whether a broker leads anything.
    pub(super) fn has_leaderships(&self, broker: BrokerId) -> bool {
        self.image.topics().any(|topic| topic.partitions.iter().any(|partition| partition.leader == Some(broker)))
    }

    /// What one partition's change becomes.
    pub(super) fn transition(
        &self,
        key: PartitionKey,
        election: Option<Election>,
        shape: impl FnOnce(&mut Transition<'_>),
    ) -> Option<PartitionChange> {
        let topic = self.image.topic_by_id(key.topic_id)?;
        let partition = topic.partition(key.partition)?;
        let rules = self.leader_rules(&topic.name);
        let election = election.unwrap_or(rules.election());
        let mut transition = Transition::of(partition, rules.min_insync_replicas, election);
        shape(&mut transition);
        let brokers = Brokers {
            may_lead: &|replica| self.is_active(replica),
            directory: &|replica| self.directory(replica),
            lost: None,
        };
        transition.record(key, &brokers)
    }

    fn transitions(
        &self,
        concerned: impl Fn(&PartitionRegistration) -> bool,
        brokers: &Brokers<'_>,
        shape: impl Fn(&mut Transition<'_>),
    ) -> Vec<MetadataRecord> {
        let defaults = OnceCell::new();
        let mut records = Vec::new();
        for topic in self.image.topics() {
            let rules = OnceCell::new();
            for (key, partition) in topic.partition_keys().zip(&topic.partitions) {
                if !concerned(partition) {
                    continue;
                }
                let rules = rules.get_or_init(|| {
                    // Most topics have the defaults; to read settings is most of the work.
                    match self.image.topic_overrides(&topic.name).is_empty() {
                        true => *defaults.get_or_init(|| self.leader_rules(&topic.name)),
                        false => self.leader_rules(&topic.name),
                    }
                });
                let mut transition = Transition::of(partition, rules.min_insync_replicas, rules.election());
                shape(&mut transition);
                records.extend(transition.record(key, brokers).map(MetadataRecord::PartitionChange));
            }
        }
        records
    }

    /// Whether a topic would rather have an unclean leader than none.
    pub(super) fn allows_unclean(&self, topic: &str) -> bool {
        self.leader_rules(topic).unclean
    }

    fn leader_rules(&self, topic: &str) -> LeaderRules {
        LeaderRules::of(&TopicConfig::of(&self.layers().with_topic(self.image.topic_overrides(topic))))
    }
}
