//! What the members of a group commit, and whether the broker gives it back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
};

use kafka_protocol::{
    messages::{
        OffsetCommitRequest, OffsetFetchRequest,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::OffsetFetchRequestTopic,
    },
    protocol::StrBytes,
};
use uuid::Uuid;

use crate::{
    client::{
        error::{ClientError, codes},
        link::Link,
    },
    group::{Joined, Member},
};

/// Up to here a request names one group, above it several.
const ONE_GROUP_VERSION: i16 = 7;
/// Findings kept for the report; all are counted.
const FINDINGS_MAX: usize = 20;

/// What the members of a run's group did together.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct GroupBooks {
    /// Assignments received, over all members.
    pub joins: u64,
    /// OffsetCommit requests without an error.
    pub commits: u64,
    /// Refused offsets by Kafka code.
    pub commit_errors: BTreeMap<i16, u64>,
    /// Offsets that were read back at the end and compared.
    pub checked_offsets: u64,
    /// Of these, other than what had been committed.
    pub lost_offsets: u64,
    pub findings: Vec<String>,
}

impl GroupBooks {
    fn compare(&mut self, partition: &str, committed: i64, found: i64) {
        self.checked_offsets += 1;
        if committed != found {
            self.lost_offsets += 1;
            if self.findings.len() < FINDINGS_MAX {
                self.findings.push(format!("{partition}: offset {committed} was committed, {found} came back"));
            }
        }
    }
}

impl Member {
    /// Commits where the consumers stand in these partitions. Returns what the broker has accepted.
    pub(super) fn commit(
        &self,
        link: &mut Link,
        joined: &Joined,
        partitions: &BTreeSet<u32>,
    ) -> Result<BTreeMap<u32, i64>, ClientError> {
        let position = |partition: u32| self.fetch.positions[partition as usize].load(Ordering::Relaxed);
        let mut offsets: BTreeMap<u32, i64> = partitions.iter().map(|number| (*number, position(*number))).collect();
        if offsets.is_empty() {
            return Ok(offsets);
        }
        let request = OffsetCommitRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id_or_member_epoch(joined.generation)
            .with_member_id(joined.member_id.clone())
            .with_topics(self.commit_topics(&offsets));
        let version = link.versions().pick::<OffsetCommitRequest>()?;
        let response = link.call_at("OffsetCommit", version, &request)?;
        let numbers = self.layout.numbers();
        let mut books = self.shared.group();
        let errors_before = books.commit_errors.values().sum::<u64>();
        for topic in &response.topics {
            for partition in &topic.partitions {
                if partition.error_code != codes::NONE {
                    *books.commit_errors.entry(partition.error_code).or_default() += 1;
                    let number = numbers.find(topic.name.as_str(), Uuid::nil(), partition.partition_index);
                    number.and_then(|number| offsets.remove(&number));
                }
            }
        }
        books.commits += u64::from(books.commit_errors.values().sum::<u64>() == errors_before);
        Ok(offsets)
    }

    fn commit_topics(&self, offsets: &BTreeMap<u32, i64>) -> Vec<OffsetCommitRequestTopic> {
        let mut topics: BTreeMap<u32, OffsetCommitRequestTopic> = BTreeMap::new();
        for (number, offset) in offsets {
            let partition = self.layout.partitions[*number as usize];
            let topic = topics.entry(partition.topic).or_insert_with(|| {
                let name = self.layout.topics[partition.topic as usize].name.clone();
                OffsetCommitRequestTopic::default().with_name(name)
            });
            topic.partitions.push(
                OffsetCommitRequestPartition::default()
                    .with_partition_index(partition.index)
                    .with_committed_offset(*offset)
                    .with_committed_leader_epoch(-1)
                    .with_committed_metadata(Some(StrBytes::default())),
            );
        }
        topics.into_values().collect()
    }

    /// Reads the accepted offsets back and compares.
    pub(super) fn check_committed(&self, link: &mut Link, committed: &BTreeMap<u32, i64>) -> Result<(), ClientError> {
        let mut topics: BTreeMap<u32, OffsetFetchRequestTopic> = BTreeMap::new();
        for number in committed.keys() {
            let partition = self.layout.partitions[*number as usize];
            let topic = topics.entry(partition.topic).or_insert_with(|| {
                let name = self.layout.topics[partition.topic as usize].name.clone();
                OffsetFetchRequestTopic::default().with_name(name)
            });
            topic.partition_indexes.push(partition.index);
        }
        if topics.is_empty() {
            return Ok(());
        }
        let request = OffsetFetchRequest::default()
            .with_group_id(self.group_id())
            .with_topics(Some(topics.into_values().collect()));
        let version = link.versions().pick_at_most::<OffsetFetchRequest>(ONE_GROUP_VERSION)?;
        let response = link.call_at("OffsetFetch", version, &request)?;
        super::refuse("reading the committed offsets", response.error_code)?;
        let numbers = self.layout.numbers();
        let mut found = BTreeMap::new();
        for topic in &response.topics {
            for partition in topic.partitions.iter().filter(|partition| partition.error_code == codes::NONE) {
                let number = numbers.find(topic.name.as_str(), Uuid::nil(), partition.partition_index);
                found.extend(number.map(|number| (number, partition.committed_offset)));
            }
        }
        let mut books = self.shared.group();
        for (number, offset) in committed {
            // -1 is what a broker answers that knows of no commit.
            books.compare(&self.layout.name(*number), *offset, found.get(number).copied().unwrap_or(-1));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_that_does_not_come_back_is_lost() {
        let mut books = GroupBooks::default();
        books.compare("t-0", 7, 7);
        books.compare("t-1", 7, -1);
        assert_eq!((books.checked_offsets, books.lost_offsets), (2, 1));
        assert_eq!(books.findings, ["t-1: offset 7 was committed, -1 came back"]);
    }
}
