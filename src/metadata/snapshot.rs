//! The image as records: what a snapshot of the metadata log holds.

use super::image::{Image, PartitionRegistration};
use crate::{
    base::{BrokerId, PartitionKey},
    protocol::metadata_records::{ConfigRecord, MetadataRecord, PartitionRecord},
};

impl Image {
    /// Records that make this image out of an empty one.
    #[must_use]
    pub fn snapshot(&self) -> Vec<MetadataRecord> {
        let mut records = Vec::new();
        // Features first, as in Kafka: readers choose record versions by them.
        let features =
            self.features().map(|(name, level)| MetadataRecord::FeatureLevel { name: name.to_owned(), level });
        records.extend(features);
        records.extend(self.brokers().cloned().map(MetadataRecord::RegisterBroker));
        for topic in self.topics() {
            records.push(MetadataRecord::Topic { name: topic.name.to_string(), topic_id: topic.id });
            let partitions = topic.partition_keys().zip(&topic.partitions);
            records.extend(partitions.map(|(key, partition)| MetadataRecord::Partition(record(key, partition))));
        }
        for ((resource_type, resource_name), overrides) in self.configs.iter() {
            records.extend(overrides.iter().map(|(name, value)| {
                MetadataRecord::Config(ConfigRecord {
                    resource_type: *resource_type,
                    resource_name: resource_name.clone(),
                    name: name.clone(),
                    value: Some(value.clone()),
                })
            }));
        }
        let credentials = self.scram_credentials.iter();
        records.extend(credentials.map(|(user, it)| MetadataRecord::ScramCredential(user.clone(), it.clone())));
        records.extend(self.quotas.records().map(MetadataRecord::ClientQuota));
        if self.next_producer_id > 0 {
            records.push(MetadataRecord::ProducerIds {
                broker_id: -1,
                broker_epoch: -1,
                next_producer_id: self.next_producer_id,
            });
        }
        records
    }
}

fn record(key: PartitionKey, partition: &PartitionRegistration) -> PartitionRecord {
    let ids = |ids: &[BrokerId]| ids.iter().map(|id| id.0).collect();
    PartitionRecord {
        partition_id: key.partition,
        topic_id: key.topic_id,
        replicas: ids(&partition.replicas),
        isr: ids(&partition.in_sync_replicas),
        removing_replicas: ids(&partition.removing_replicas),
        adding_replicas: ids(&partition.adding_replicas),
        leader: partition.leader.map_or(-1, |leader| leader.0),
        leader_recovery_state: partition.leader_recovery_state,
        leader_epoch: partition.leader_epoch.0,
        partition_epoch: partition.partition_epoch,
        directories: partition.directories.clone(),
        eligible_leader_replicas: ids(&partition.eligible_leader_replicas),
        last_known_elr: ids(&partition.last_known_elr),
    }
}

#[cfg(test)]
mod tests {
    use crate::protocol::metadata_records::ScramCredential;
    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::{
        base::{LeaderEpoch, TopicId},
        metadata::Inconsistent,
        protocol::metadata_records::{
            BrokerRegistrationChange, ClientQuotaRecord, PartitionChange, QuotaValue, RegisterBroker, TOPIC_RESOURCE,
        },
    };

    const TOPIC: TopicId = TopicId(Uuid::from_u128(7));

    fn partition(index: i32) -> MetadataRecord {
        MetadataRecord::Partition(PartitionRecord {
            partition_id: index,
            topic_id: TOPIC,
            replicas: vec![1],
            isr: vec![1],
            leader: 1,
            ..PartitionRecord::default()
        })
    }

    fn config(value: Option<&str>) -> MetadataRecord {
        MetadataRecord::Config(ConfigRecord {
            resource_type: TOPIC_RESOURCE,
            resource_name: "t".into(),
            name: "retention.ms".into(),
            value: value.map(str::to_owned),
        })
    }

    fn image(records: &[MetadataRecord]) -> Result<Image, Inconsistent> {
        let mut image = Image::default();
        records.iter().try_for_each(|record| image.apply(record))?;
        Ok(image)
    }

    fn sample() -> Vec<MetadataRecord> {
        vec![
            MetadataRecord::FeatureLevel { name: "metadata.version".into(), level: 30 },
            MetadataRecord::RegisterBroker(RegisterBroker { broker_id: 1, fenced: true, ..RegisterBroker::default() }),
            MetadataRecord::BrokerRegistrationChange(BrokerRegistrationChange {
                broker_id: 1,
                fenced: Some(false),
                ..BrokerRegistrationChange::default()
            }),
            MetadataRecord::Topic { name: "t".into(), topic_id: TOPIC },
            partition(0),
            partition(1),
            config(Some("5")),
            MetadataRecord::PartitionChange(PartitionChange { leader: Some(-1), ..PartitionChange::of(TOPIC, 1) }),
            MetadataRecord::ScramCredential(
                ("u".into(), 1),
                ScramCredential {
                    salt: Bytes::from_static(b"s"),
                    stored_key: Bytes::from_static(b"k"),
                    server_key: Bytes::from_static(b"l"),
                    iterations: 4096,
                },
            ),
            MetadataRecord::ClientQuota(ClientQuotaRecord {
                entity: vec![("user".into(), None)],
                key: "producer_byte_rate".into(),
                value: Some(QuotaValue::of(1000.0)),
            }),
            MetadataRecord::ProducerIds { broker_id: 1, broker_epoch: 0, next_producer_id: 3000 },
        ]
    }

    #[test]
    fn a_snapshot_makes_the_same_image() {
        let first = image(&sample()).expect("consistent");
        assert_eq!(image(&first.snapshot()), Ok(first.clone()));
        assert_eq!(first.next_producer_id(), 3000);
        assert_eq!(first.feature("metadata.version"), 30);
        let offline = first.partition(PartitionKey { topic_id: TOPIC, partition: 1 }).expect("it is there");
        assert_eq!((offline.leader, offline.leader_epoch, offline.partition_epoch), (None, LeaderEpoch(1), 1));
        assert!(!first.broker(BrokerId(1)).expect("it is there").fenced);
        // The bytes on disk say the same.
        let decoded: Vec<_> =
            first.snapshot().iter().map(|record| MetadataRecord::decode(&record.encode()).expect("ours")).collect();
        assert_eq!(decoded, first.snapshot());
    }

    #[test]
    fn a_topic_takes_its_settings_along() {
        let mut image = image(&sample()).expect("consistent");
        let before = image.clone();
        image.apply(&MetadataRecord::RemoveTopic { topic_id: TOPIC }).expect("it is there");
        assert!(image.topic("t").is_none() && image.topic_by_id(TOPIC).is_none());
        assert!(image.topic_overrides("t").is_empty());
        // Whoever holds the image of before still sees it.
        assert_eq!(before.topic_overrides("t").len(), 1);
        assert_eq!(before.partition_keys().count(), 2);
    }

    #[test]
    fn settings_without_value_are_removed() {
        let mut image = image(&sample()).expect("consistent");
        image.apply(&config(None)).expect("always fits");
        assert!(image.topic_overrides("t").is_empty());
        image.apply(&config(None)).expect("always fits");
        assert!(!image.snapshot().iter().any(|record| matches!(record, MetadataRecord::Config(_))));
    }

    #[test]
    fn records_that_do_not_fit_are_errors() {
        let refused = |record: MetadataRecord| image(&sample()).expect("consistent").apply(&record).is_err();
        assert!(refused(MetadataRecord::Topic { name: "t".into(), topic_id: TopicId(Uuid::from_u128(8)) }));
        assert!(refused(MetadataRecord::Topic { name: "u".into(), topic_id: TOPIC }));
        assert!(refused(partition(3)));
        assert!(refused(partition(-1)));
        assert!(refused(MetadataRecord::PartitionChange(PartitionChange::of(TOPIC, 2))));
        assert!(refused(MetadataRecord::RemoveTopic { topic_id: TopicId(Uuid::from_u128(8)) }));
        assert!(refused(MetadataRecord::UnfenceBroker { broker_id: 2, broker_epoch: 0 }));
    }

    #[test]
    fn topics_come_in_the_order_of_names() {
        let topics = ["b", "a", "c"].iter().zip(1..);
        let records: Vec<_> = topics
            .map(|(name, id)| MetadataRecord::Topic {
                name: (*name).to_owned(),
                topic_id: TopicId(Uuid::from_u128(id)),
            })
            .collect();
        let image = image(&records).expect("consistent");
        let names = |topics: Vec<&std::sync::Arc<crate::metadata::Topic>>| -> Vec<String> {
            topics.iter().map(|topic| topic.name.to_string()).collect()
        };
        assert_eq!(names(image.topics().collect()), ["a", "b", "c"]);
    }
}
