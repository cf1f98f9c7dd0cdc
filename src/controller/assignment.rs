//! Which brokers hold a new partition.

use std::ops::Range;

use uuid::Uuid;

use super::{ApiError, Controller};
use crate::{
    base::{BrokerId, ErrorCode, TopicId},
    protocol::metadata_records::PartitionRecord,
};

impl Controller {
    /// Brokers for partitions of a topic, spread evenly over those that are alive. Ids are random, so that topics begin on
    /// random brokers; partitions that are added later go where they would have gone at once.
    pub(super) fn place(
        &self,
        topic_id: TopicId,
        partitions: Range<usize>,
        replication_factor: i16,
    ) -> Result<Vec<Vec<BrokerId>>, ApiError> {
        let brokers = self.alive();
        let replicas = usize::try_from(replication_factor).unwrap_or(0);
        if replicas > brokers.len() {
            return Err(ApiError::new(
                ErrorCode::InvalidReplicationFactor,
                format!(
                    "Unable to replicate the partition {replicas} time(s): The target replication factor of {replicas} \
                     cannot be reached because only {} broker(s) are registered or some brokers have all their log \
                     directories cordoned.",
                    brokers.len()
                ),
            ));
        }
        let start = (topic_id.0.as_u128() % 1024) as usize;
        let on = |place| brokers[place];
        let places = partitions.map(|partition| spread(brokers.len(), start, partition, replicas));
        Ok(places.map(|places| places.into_iter().map(on).collect()).collect())
    }

    /// The brokers that may be given partitions, by id.
    pub(super) fn alive(&self) -> Vec<BrokerId> {
        let alive = self.image.brokers().filter(|broker| !broker.fenced && !broker.in_controlled_shutdown);
        alive.map(|broker| BrokerId(broker.broker_id)).collect()
    }

    /// Whether brokers that a client named can hold a partition; all partitions of a topic have as many.
    pub(super) fn check_assignment(
        &self,
        brokers: &[BrokerId],
        replication_factor: Option<usize>,
    ) -> Result<(), ApiError> {
        let refuse = |message: String| Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, message));
        if brokers.is_empty() {
            return refuse("The manual partition assignment includes an empty replica list.".to_owned());
        }
        for (index, broker) in brokers.iter().enumerate() {
            if self.image.broker(*broker).is_none() {
                return refuse(format!(
                    "The manual partition assignment includes broker {broker}, but no such broker is registered."
                ));
            }
            if brokers[..index].contains(broker) {
                return refuse(format!("The manual partition assignment includes the broker {broker} more than once."));
            }
        }
        match replication_factor {
            Some(others) if others != brokers.len() => refuse(format!(
                "The manual partition assignment includes a partition with {} replica(s), but this is not consistent \
                 with previous partitions, which have {others} replica(s).",
                brokers.len()
            )),
            _ => Ok(()),
        }
    }

    /// The record of a fresh partition on these brokers.
    pub(super) fn partition_record(&self, topic_id: TopicId, index: usize, brokers: &[BrokerId]) -> PartitionRecord {
        let replicas: Vec<i32> = brokers.iter().map(|broker| broker.0).collect();
        let alive = self.alive();
        let isr: Vec<i32> = brokers.iter().filter(|broker| alive.contains(broker)).map(|broker| broker.0).collect();
        PartitionRecord {
            partition_id: i32::try_from(index).expect("far fewer partitions are taken"),
            topic_id,
            leader: isr.first().copied().unwrap_or(-1),
            isr,
            replicas,
            directories: brokers.iter().map(|broker| self.directory(*broker)).collect(),
            ..PartitionRecord::default()
        }
    }

    /// The broker's data directory, or nil for "it chooses".
    pub(super) fn directory(&self, broker: BrokerId) -> Uuid {
        match self.image.broker(broker).map(|broker| broker.log_dirs.as_slice()) {
            Some([directory]) => *directory,
            Some(_) | None => Uuid::nil(),
        }
    }
}

/// Which of so many brokers hold a partition, the leader first: leaders go round from `start` on, and with each round the
/// followers move one further from their leader, so that the brokers share what a failing one has led. As in Kafka, where
/// there are no racks.
fn spread(brokers: usize, start: usize, partition: usize, replicas: usize) -> Vec<usize> {
    let leader = start + partition;
    let round = partition / brokers.max(1);
    let distance = |replica: usize| if replica == 0 { 0 } else { 1 + (round + replica - 1) % (brokers - 1) };
    (0..replicas).map(|replica| (leader + distance(replica)) % brokers).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        config::load,
        metadata::Image,
        protocol::metadata_records::{MetadataRecord, RegisterBroker},
    };

    /// A controller of a cluster with these brokers, each of them alive.
    fn cluster(brokers: &[i32]) -> Controller {
        let mut image = Image::default();
        for broker_id in brokers {
            let broker = RegisterBroker { broker_id: *broker_id, ..RegisterBroker::default() };
            image.apply(&MetadataRecord::RegisterBroker(broker)).expect("always fits");
        }
        Controller::new(load(None, &[]).expect("good settings").config, image)
    }

    const CLUSTERS: [&[i32]; 3] = [&[1], &[1, 5, 7], &[0, 1, 2, 30, 31]];

    fn id(number: u128) -> TopicId {
        TopicId(Uuid::from_u128(number))
    }

    fn counts(brokers: impl Iterator<Item = BrokerId>) -> BTreeMap<i32, usize> {
        let mut counts = BTreeMap::new();
        brokers.for_each(|broker| *counts.entry(broker.0).or_default() += 1);
        counts
    }

    /// The most and the least that a broker of the cluster has.
    fn most_and_least(brokers: &[i32], counts: &BTreeMap<i32, usize>) -> (usize, usize) {
        let of = |broker: &i32| counts.get(broker).copied().unwrap_or(0);
        (brokers.iter().map(of).max().unwrap_or(0), brokers.iter().map(of).min().unwrap_or(0))
    }

    #[test]
    fn leaders_are_spread_and_no_broker_holds_a_partition_twice() {
        for brokers in CLUSTERS {
            let controller = cluster(brokers);
            for replicas in 1..=brokers.len() {
                for (topic, partitions) in (0..40).flat_map(|topic| (1..=16).map(move |count| (topic, count))) {
                    let placed = controller.place(id(topic), 0..partitions, replicas as i16).expect("enough brokers");
                    let hint = format!("{brokers:?}, {replicas} replicas, {partitions} partitions: {placed:?}");
                    assert_eq!(placed.len(), partitions, "{hint}");
                    for holders in &placed {
                        let distinct = counts(holders.iter().copied());
                        assert!(distinct.len() == replicas && distinct.keys().all(|id| brokers.contains(id)), "{hint}");
                    }
                    let (most, least) = most_and_least(brokers, &counts(placed.iter().map(|holders| holders[0])));
                    assert!(most - least <= 1, "{hint}");
                    let (most, least) = most_and_least(brokers, &counts(placed.iter().flatten().copied()));
                    let whole_rounds = partitions % brokers.len() == 0;
                    assert!(most - least <= if whole_rounds { 0 } else { replicas }, "{hint}");
                }
            }
        }
    }

    #[test]
    fn topics_begin_on_all_brokers() {
        for brokers in CLUSTERS {
            let controller = cluster(brokers);
            let first = |topic| controller.place(id(topic), 0..1, 1).expect("enough brokers")[0][0];
            assert_eq!(counts((0..100).map(first)).len(), brokers.len());
        }
    }

    #[test]
    fn partitions_that_come_later_go_where_they_would_have_gone_at_once() {
        for brokers in CLUSTERS {
            let controller = cluster(brokers);
            let place =
                |partitions| controller.place(id(77), partitions, brokers.len() as i16).expect("enough brokers");
            for first in 0..12 {
                assert_eq!([place(0..first), place(first..12)].concat(), place(0..12), "{brokers:?}");
            }
        }
    }

    #[test]
    fn all_others_share_what_a_failing_broker_has_led() {
        for brokers in CLUSTERS.into_iter().filter(|brokers| brokers.len() > 1) {
            let pairs = brokers.len() * (brokers.len() - 1);
            let placed = cluster(brokers).place(id(3), 0..pairs, 2).expect("enough brokers");
            let distinct: std::collections::BTreeSet<_> = placed.iter().collect();
            assert_eq!(distinct.len(), pairs, "{placed:?}");
        }
    }

    #[test]
    fn brokers_that_are_not_alive_get_nothing_and_do_not_count() {
        for change in [
            RegisterBroker { broker_id: 5, fenced: true, ..RegisterBroker::default() },
            RegisterBroker { broker_id: 5, in_controlled_shutdown: true, ..RegisterBroker::default() },
        ] {
            let mut controller = cluster(&[1, 5, 7]);
            controller.image.apply(&MetadataRecord::RegisterBroker(change)).expect("always fits");
            let placed = controller.place(id(9), 0..6, 2).expect("two are alive");
            assert!(!counts(placed.into_iter().flatten()).contains_key(&5));
            let refused = controller.place(id(9), 0..6, 3).expect_err("two are alive");
            assert_eq!(refused.code, ErrorCode::InvalidReplicationFactor);
        }
        let refused = cluster(&[]).place(id(9), 0..1, 1).expect_err("nobody is there");
        assert_eq!(refused.code, ErrorCode::InvalidReplicationFactor);
    }
}
