//! What a run of records changes in an image.

use super::image::{Image, Inconsistent};
use crate::{
    base::{PartitionKey, Set, TopicId},
    protocol::metadata_records::{ConfigRecord, MetadataRecord, TOPIC_RESOURCE},
};

/// The ids of what records have changed: whoever follows the image looks at these and at nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Partitions that are new or have changed, in the order of the records. Their topics may be gone again.
    pub partitions: Vec<PartitionKey>,
    /// Topics that are gone.
    pub removed: Vec<TopicId>,
    /// Topics whose settings have changed.
    pub configured: Set<TopicId>,
    /// The settings of a broker or of all brokers have changed, and with them the defaults of every topic.
    pub broker_configured: bool,
}

/// An image on its way to the next one, and what makes the difference between them.
#[derive(Clone, Debug)]
pub struct Change {
    image: Image,
    touched: Touched,
}

impl Change {
    /// Begins with the image of before, which keeps what it has.
    #[must_use]
    pub fn of(image: &Image) -> Self {
        Self { image: image.clone(), touched: Touched::default() }
    }

    /// Applies records behind those that were applied before.
    /// # Errors  The first record that does not fit; what has been applied until then is of no use.
    pub fn apply(&mut self, records: &[MetadataRecord]) -> Result<(), Inconsistent> {
        for record in records {
            self.image.apply(record)?;
            self.note(record);
        }
        Ok(())
    }

    /// The image of after, and what has changed.
    #[must_use]
    pub fn finish(self) -> (Image, Touched) {
        (self.image, self.touched)
    }

    /// The image of after, and what differs, or may, from one that it does not follow from record by record.
    #[must_use]
    pub fn instead_of(self, before: &Image) -> (Image, Touched) {
        let Self { image, .. } = self;
        let topics = |image: &Image| image.topics().map(|topic| topic.id).collect::<Set<TopicId>>();
        let (then, now) = (topics(before), topics(&image));
        let mut removed: Vec<TopicId> = then.difference(&now).copied().collect();
        removed.sort_by_key(|id| id.0);
        let touched =
            Touched { partitions: image.partition_keys().collect(), removed, configured: now, broker_configured: true };
        (image, touched)
    }

    fn note(&mut self, record: &MetadataRecord) {
        let key = |topic_id, partition| PartitionKey { topic_id, partition };
        match record {
            MetadataRecord::Partition(new) => self.touched.partitions.push(key(new.topic_id, new.partition_id)),
            MetadataRecord::PartitionChange(change) => {
                self.touched.partitions.push(key(change.topic_id, change.partition_id));
            }
            MetadataRecord::RemoveTopic { topic_id } => self.touched.removed.push(*topic_id),
            MetadataRecord::Config(config) => self.note_config(config),
            MetadataRecord::RegisterBroker(_)
            | MetadataRecord::UnregisterBroker { .. }
            | MetadataRecord::Topic { .. }
            | MetadataRecord::FenceBroker { .. }
            | MetadataRecord::UnfenceBroker { .. }
            | MetadataRecord::FeatureLevel { .. }
            | MetadataRecord::ClientQuota(_)
            | MetadataRecord::ScramCredential(..)
            | MetadataRecord::RemoveScramCredential(_)
            | MetadataRecord::ProducerIds { .. }
            | MetadataRecord::BrokerRegistrationChange(_)
            | MetadataRecord::NoOp
            | MetadataRecord::BeginTransaction
            | MetadataRecord::EndTransaction
            | MetadataRecord::AbortTransaction
            | MetadataRecord::Other { .. } => {}
        }
    }

    fn note_config(&mut self, config: &ConfigRecord) {
        match config.resource_type {
            TOPIC_RESOURCE => {
                self.touched.configured.extend(self.image.topic(&config.resource_name).map(|topic| topic.id));
            }
            _ => self.touched.broker_configured = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::protocol::metadata_records::{BROKER_RESOURCE, PartitionChange, PartitionRecord};

    fn id(number: u128) -> TopicId {
        TopicId(Uuid::from_u128(number))
    }

    fn topic(number: u128, partitions: i32) -> Vec<MetadataRecord> {
        let partition = |partition_id| {
            MetadataRecord::Partition(PartitionRecord { partition_id, topic_id: id(number), ..Default::default() })
        };
        let topic = MetadataRecord::Topic { name: format!("t{number}"), topic_id: id(number) };
        std::iter::once(topic).chain((0..partitions).map(partition)).collect()
    }

    fn config(resource_type: i8, resource_name: &str) -> MetadataRecord {
        MetadataRecord::Config(ConfigRecord {
            resource_type,
            resource_name: resource_name.to_owned(),
            name: "retention.ms".to_owned(),
            value: Some("5".to_owned()),
        })
    }

    fn image(records: &[MetadataRecord]) -> Image {
        let mut change = Change::of(&Image::default());
        change.apply(records).expect("consistent");
        change.finish().0
    }

    #[test]
    fn what_is_touched_is_what_differs() {
        let before = image(&[topic(1, 2), topic(2, 2), topic(3, 1)].concat());
        let mut change = Change::of(&before);
        change.apply(&topic(4, 1)).expect("consistent");
        let records = [
            MetadataRecord::PartitionChange(PartitionChange::of(id(1), 1)),
            MetadataRecord::RemoveTopic { topic_id: id(2) },
            config(TOPIC_RESOURCE, "t3"),
            config(TOPIC_RESOURCE, "nobody"),
        ];
        change.apply(&records).expect("consistent");
        let (after, touched) = change.finish();
        let key = |topic, partition| PartitionKey { topic_id: id(topic), partition };
        assert_eq!(touched.partitions, [key(4, 0), key(1, 1)]);
        assert_eq!(touched.removed, [id(2)]);
        assert_eq!(touched.configured.into_iter().collect::<Vec<_>>(), [id(3)]);
        assert!(!touched.broker_configured);
        assert_eq!((before.topic_count(), after.topic_count()), (3, 3));
        assert!(before.topic("t2").is_some() && after.topic("t2").is_none());
    }

    #[test]
    fn a_brokers_settings_are_everybodys() {
        for name in ["", "1"] {
            let mut change = Change::of(&Image::default());
            change.apply(&[config(BROKER_RESOURCE, name)]).expect("consistent");
            assert!(change.finish().1.broker_configured);
        }
    }

    #[test]
    fn a_record_that_does_not_fit_is_refused() {
        let mut change = Change::of(&image(&topic(1, 1)));
        assert!(change.apply(&topic(1, 1)).is_err());
    }
}
