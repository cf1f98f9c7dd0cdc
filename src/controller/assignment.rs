//! Which brokers hold a new partition.

use uuid::Uuid;

use super::{Controller, Refusal};
use crate::base::{BrokerId, ErrorCode, TopicId};
use crate::protocol::metadata_records::PartitionRecord;

impl Controller {
    /// Brokers for each of `count` new partitions, spread evenly; `start` is where the first goes.
    pub(super) fn place(
        &self,
        start: usize,
        count: usize,
        replication_factor: i16,
    ) -> Result<Vec<Vec<BrokerId>>, Refusal> {
        let brokers = self.broker_ids();
        let replicas = usize::try_from(replication_factor).unwrap_or(0);
        if replicas > brokers.len() {
            return Err(Refusal::new(
                ErrorCode::InvalidReplicationFactor,
                format!(
                    "Unable to replicate the partition {replicas} time(s): The target replication factor of {replicas} \
                     cannot be reached because only {} broker(s) are registered or some brokers have all their log \
                     directories cordoned.",
                    brokers.len()
                ),
            ));
        }
        let on = |partition: usize, replica: usize| brokers[(start + partition + replica) % brokers.len()];
        Ok((0..count).map(|partition| (0..replicas).map(|replica| on(partition, replica)).collect()).collect())
    }

    /// Whether brokers that a client named can hold a partition; all partitions of a topic have as many.
    pub(super) fn check_assignment(
        &self,
        brokers: &[BrokerId],
        replication_factor: Option<usize>,
    ) -> Result<(), Refusal> {
        let refuse = |message: String| Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, message));
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
        let live = self.broker_ids();
        let isr: Vec<i32> = brokers.iter().filter(|broker| live.contains(broker)).map(|broker| broker.0).collect();
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
    fn directory(&self, broker: BrokerId) -> Uuid {
        match self.image.broker(broker).map(|broker| broker.log_dirs.as_slice()) {
            Some([directory]) => *directory,
            Some(_) | None => Uuid::nil(),
        }
    }
}
