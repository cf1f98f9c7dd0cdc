//! Which brokers hold a new partition.

use std::{collections::BTreeMap, ops::Range};

use uuid::Uuid;

use super::{ApiError, Controller};
use crate::{
    base::{BrokerId, ErrorCode, TopicId},
    protocol::metadata_records::PartitionRecord,
};

impl Controller {
    /// Brokers for partitions of a topic, spread evenly over those that are alive, and each partition over as many racks as can
    /// be. Ids are random, so that topics begin on random brokers; partitions that are added later go where they would have
    /// gone at once. If there are too few alive, others that are registered follow when they come back.
    pub(super) fn place(
        &self,
        topic_id: TopicId,
        partitions: Range<usize>,
        replication_factor: i16,
    ) -> Result<Vec<Vec<BrokerId>>, ApiError> {
        let alive = self.interleaved(self.alive());
        let replicas = usize::try_from(replication_factor).unwrap_or(0);
        let registered = self.image.brokers().count();
        if replicas > registered || alive.is_empty() {
            let why = match replicas > registered {
                true => format!(
                    "The target replication factor of {replicas} cannot be reached because only {registered} broker(s) are \
                     registered or some brokers have all their log directories cordoned."
                ),
                false => "All brokers are currently fenced.".to_owned(),
            };
            let message = format!("Unable to replicate the partition {replicas} time(s): {why}");
            return Err(ApiError::new(ErrorCode::InvalidReplicationFactor, message));
        }
        let start = (topic_id.0.as_u128() % 1024) as usize;
        let away: Vec<_> = self.image.brokers().map(|broker| BrokerId(broker.broker_id)).collect();
        let away = self.interleaved(away.into_iter().filter(|broker| !alive.contains(broker)).collect());
        Ok(partitions
            .map(|partition| {
                let mut chosen = self.chosen(&alive, start, partition, replicas.min(alive.len()));
                chosen.extend(self.chosen(&away, start, partition, replicas - chosen.len()));
                chosen
            })
            .collect())
    }

    /// So many of these brokers for a partition, no rack twice while there is one without it.
    fn chosen(&self, brokers: &[BrokerId], start: usize, partition: usize, replicas: usize) -> Vec<BrokerId> {
        if replicas == 0 {
            return Vec::new();
        }
        let order = spread(brokers.len(), start, partition, brokers.len());
        let mut left: Vec<BrokerId> = order.into_iter().map(|place| brokers[place]).collect();
        let mut racks: BTreeMap<Option<&str>, usize> = BTreeMap::new();
        let mut chosen = Vec::with_capacity(replicas);
        while chosen.len() < replicas {
            let used = |broker: &BrokerId| racks.get(&self.rack(*broker)).copied().unwrap_or(0);
            let next = (0..left.len()).min_by_key(|index| used(&left[*index])).expect("there are as many brokers");
            let broker = left.remove(next);
            *racks.entry(self.rack(broker)).or_default() += 1;
            chosen.push(broker);
        }
        chosen
    }

    /// The brokers, by id, one of each rack after the other, so that leaders that follow each other are in different ones.
    fn interleaved(&self, brokers: Vec<BrokerId>) -> Vec<BrokerId> {
        let mut seen: BTreeMap<Option<&str>, usize> = BTreeMap::new();
        let mut rounds: Vec<(usize, Option<&str>, BrokerId)> = Vec::with_capacity(brokers.len());
        for broker in brokers {
            let rack = self.rack(broker);
            let round = seen.entry(rack).or_default();
            rounds.push((*round, rack, broker));
            *round += 1;
        }
        rounds.sort_unstable();
        rounds.into_iter().map(|(_, _, broker)| broker).collect()
    }

    fn rack(&self, broker: BrokerId) -> Option<&str> {
        self.image.broker(broker).and_then(|broker| broker.rack.as_deref())
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

    /// Whether one of the brokers that a client named for a new partition is alive, and can lead it.
    pub(super) fn check_leader(&self, partition: usize, brokers: &[BrokerId]) -> Result<(), ApiError> {
        if brokers.iter().any(|broker| self.is_active(*broker)) {
            return Ok(());
        }
        let message = format!(
            "All brokers specified in the manual partition assignment for partition {partition} are fenced or in controlled \
             shutdown."
        );
        Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, message))
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
    fn brokers_that_are_not_alive_only_follow_where_there_are_too_few_others() {
        for change in [
            RegisterBroker { broker_id: 5, fenced: true, ..RegisterBroker::default() },
            RegisterBroker { broker_id: 5, in_controlled_shutdown: true, ..RegisterBroker::default() },
        ] {
            let mut controller = cluster(&[1, 5, 7]);
            controller.image.apply(&MetadataRecord::RegisterBroker(change)).expect("always fits");
            let placed = controller.place(id(9), 0..6, 2).expect("two are alive");
            assert!(!counts(placed.into_iter().flatten()).contains_key(&5));
            let placed = controller.place(id(9), 0..6, 3).expect("three are registered");
            for holders in &placed {
                assert_eq!(holders[2], BrokerId(5));
                let record = controller.partition_record(id(9), 0, holders);
                assert_eq!((record.leader, record.isr.len(), record.replicas.len()), (holders[0].0, 2, 3));
            }
            let refused = controller.place(id(9), 0..6, 4).expect_err("three are registered");
            assert_eq!(refused.code, ErrorCode::InvalidReplicationFactor);
        }
        let refused = cluster(&[]).place(id(9), 0..1, 1).expect_err("nobody is there");
        assert_eq!(refused.code, ErrorCode::InvalidReplicationFactor);
        let mut controller = cluster(&[]);
        let fenced = RegisterBroker { broker_id: 5, fenced: true, ..RegisterBroker::default() };
        controller.image.apply(&MetadataRecord::RegisterBroker(fenced)).expect("always fits");
        let refused = controller.place(id(9), 0..1, 1).expect_err("nobody can lead");
        assert_eq!(refused.code, ErrorCode::InvalidReplicationFactor);
        assert!(controller.check_leader(0, &[BrokerId(5)]).is_err());
    }

    /// A cluster with so many brokers in each rack, ids from 0 in the order of racks.
    fn racks(sizes: &[usize]) -> Controller {
        let mut controller = cluster(&[]);
        let racks = sizes.iter().enumerate().flat_map(|(rack, size)| std::iter::repeat_n(rack, *size));
        for (broker_id, rack) in (0..).zip(racks) {
            let broker = RegisterBroker { broker_id, rack: Some(format!("r{rack}")), ..RegisterBroker::default() };
            controller.image.apply(&MetadataRecord::RegisterBroker(broker)).expect("always fits");
        }
        controller
    }

    #[test]
    fn each_partition_lies_in_as_many_racks_as_can_be() {
        for sizes in [&[1, 1, 1][..], &[2, 2, 2], &[3, 3], &[3, 1, 1], &[2, 3]] {
            let controller = racks(sizes);
            let brokers: Vec<i32> = (0..sizes.iter().sum::<usize>() as i32).collect();
            for replicas in 1..=brokers.len().min(4) {
                let partitions = brokers.len() * (brokers.len() - 1);
                let placed = controller.place(id(5), 0..partitions, replicas as i16).expect("enough brokers");
                for holders in &placed {
                    let rack = |broker: &BrokerId| controller.rack(*broker);
                    let distinct: std::collections::BTreeSet<_> = holders.iter().map(rack).collect();
                    assert_eq!(distinct.len(), replicas.min(sizes.len()), "{sizes:?}: {holders:?}");
                    assert_eq!(counts(holders.iter().copied()).len(), replicas, "{sizes:?}: {holders:?}");
                }
                let (most, least) = most_and_least(&brokers, &counts(placed.iter().map(|holders| holders[0])));
                assert_eq!(most, least, "leaders over {sizes:?}");
                if sizes.iter().all(|size| *size == sizes[0]) {
                    let (most, least) = most_and_least(&brokers, &counts(placed.iter().flatten().copied()));
                    assert!(most - least <= partitions / 4, "{most} and {least} over {sizes:?}, {replicas} replicas");
                }
            }
        }
    }
}
