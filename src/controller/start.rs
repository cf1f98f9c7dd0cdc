//! The first records of a cluster, and those of each start of a broker.

use uuid::Uuid;

use super::Controller;
use crate::{
    base::{BrokerId, PartitionKey},
    metadata::Image,
    protocol::metadata_records::{BrokerEndpoint, BrokerFeature, MetadataRecord, PartitionChange, RegisterBroker},
};

/// The level of `metadata.version` that is finalized: 4.3-IV0.
pub const METADATA_VERSION: i16 = 30;

/// The lowest level of `metadata.version` there is: 3.3-IV3.
pub const METADATA_VERSION_MIN: i16 = 7;

/// The one feature that is implemented. `group.version`, `transaction.version` and the others are added with what they
/// stand for; clients choose their protocols by them.
pub(super) const METADATA_VERSION_FEATURE: &str = "metadata.version";

/// What a broker says of itself at its start.
#[derive(Clone, Debug)]
pub struct BrokerRegistration {
    /// `node.id`.
    pub broker: BrokerId,
    /// Drawn for this start.
    pub incarnation: Uuid,
    /// Where clients reach it.
    pub end_points: Vec<BrokerEndpoint>,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// The id of its data directory.
    pub directory: Uuid,
}

impl Controller {
    /// Registers a broker that starts, before it does anything else. `broker_epoch` is the end offset of the metadata log.
    pub fn register_broker(&mut self, registration: BrokerRegistration, broker_epoch: i64) -> Vec<MetadataRecord> {
        let BrokerRegistration { broker, incarnation, end_points, rack, directory } = registration;
        let mut records = self.first_features();
        records.push(MetadataRecord::RegisterBroker(RegisterBroker {
            broker_id: broker.0,
            incarnation_id: incarnation,
            broker_epoch,
            end_points,
            features: supported_features(),
            rack,
            // With one broker nobody waits for it to catch up.
            fenced: false,
            in_controlled_shutdown: false,
            log_dirs: vec![directory],
        }));
        self.apply(&records);
        records
    }
}

/// The features that a broker of this version has, and their levels.
#[must_use]
pub fn supported_features() -> Vec<BrokerFeature> {
    let name = METADATA_VERSION_FEATURE.to_owned();
    vec![BrokerFeature { name, min: METADATA_VERSION_MIN, max: METADATA_VERSION }]
}

/// The partitions that `broker` leads, each of which begins a new leader epoch when the broker's last life did not end
/// in order: its log may have gone back, and whoever has read more learns that from the epoch (KIP-320).
#[must_use]
pub fn partitions_led(image: &Image, broker: BrokerId) -> Vec<PartitionKey> {
    let led = |key: &PartitionKey| image.partition(*key).is_some_and(|partition| partition.leader == Some(broker));
    image.partition_keys().filter(led).collect()
}

/// The record by which a partition begins a new leader epoch under the leader that it has: electing one raises the epoch.
#[must_use]
pub fn new_leader_epoch(key: PartitionKey, leader: BrokerId) -> MetadataRecord {
    let change = PartitionChange::of(key.topic_id, key.partition);
    MetadataRecord::PartitionChange(PartitionChange { leader: Some(leader.0), ..change })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::LeaderEpoch,
        controller::tests::{controller, ids, registration, replays},
    };

    #[test]
    fn features_are_finalized_once_and_the_broker_registers_each_time() {
        let mut controller = controller("");
        assert_eq!(controller.image().features().collect::<Vec<_>>(), [("metadata.version", 30)]);
        let before = controller.image().clone();
        let registration = BrokerRegistration { rack: Some("r".to_owned()), ..registration(2) };
        let records = controller.register_broker(registration, 9);
        assert_eq!(records.len(), 1);
        replays(&before, &records, &controller);
        let broker = controller.image().broker(BrokerId(1)).expect("registered");
        assert_eq!((broker.broker_epoch, broker.rack.as_deref()), (9, Some("r")));
        assert_ne!(controller.image(), &Image::default());
    }

    #[test]
    fn a_new_epoch_is_a_short_record_for_each_partition_that_the_broker_leads() {
        let mut controller = controller("num.partitions=3\n");
        controller.auto_create(&["t"], &mut ids());
        let mut image = controller.image().clone();
        let led = partitions_led(&image, BrokerId(1));
        assert_eq!(led.len(), 3);
        assert!(partitions_led(&image, BrokerId(2)).is_empty());
        for key in &led[1..] {
            let record = new_leader_epoch(*key, BrokerId(1));
            let encoded = record.encode();
            assert!(encoded.len() <= 32, "{} bytes", encoded.len());
            image.apply(&MetadataRecord::decode(&encoded).expect("ours")).expect("consistent");
        }
        let told: Vec<_> = led
            .iter()
            .map(|key| image.partition(*key).expect("it is there"))
            .map(|it| (it.leader_epoch, it.leader))
            .collect();
        let leader = Some(BrokerId(1));
        assert_eq!(told, [(LeaderEpoch(0), leader), (LeaderEpoch(1), leader), (LeaderEpoch(1), leader)]);
    }
}
