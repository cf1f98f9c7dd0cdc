//! Committed offsets: OffsetCommit, OffsetFetch, OffsetDelete.

use std::collections::BTreeMap;

use kafka_protocol::{
    messages::{
        OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, TopicName,
        offset_commit_request::OffsetCommitRequestPartition,
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
        offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic},
        offset_fetch_request::OffsetFetchRequestGroup,
        offset_fetch_response::{OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics},
    },
    protocol::StrBytes,
};
use uuid::Uuid;

use super::{
    GroupAnswer, GroupConfig,
    machine::FULL,
    owned,
    state::{Group, Membership, Step},
};
use crate::{
    base::{ErrorCode, LeaderEpoch, Offset, RawRecord},
    protocol::{
        offsets_records::{self, OffsetValue},
        primitives::STRING_BYTES_MAX,
    },
};

/// What an offset weighs beside its metadata: twice, as the tree it lies in is half empty.
const OFFSET_BYTES: usize = 2 * size_of::<(i32, OffsetValue)>();
/// What a topic weighs beside its name and offsets.
const TOPIC_BYTES: usize = 128;
/// "No retention time asked for", in a request.
const DEFAULT_RETENTION_MS: i64 = -1;

/// Answers every partition of a commit with the same error.
pub(super) fn commit_refusal(request: &OffsetCommitRequest, error: ErrorCode) -> GroupAnswer {
    commit_answer(request, |_, _| error.code())
}

fn commit_answer(
    request: &OffsetCommitRequest,
    mut code: impl FnMut(&TopicName, &OffsetCommitRequestPartition) -> i16,
) -> GroupAnswer {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code(&topic.name, partition))
        });
        OffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
    });
    GroupAnswer::Commit(OffsetCommitResponse::default().with_topics(topics.collect()))
}

/// What a group that is not there answers: nothing was committed.
pub(super) fn fetch_nothing(request: &OffsetFetchRequestGroup) -> GroupAnswer {
    Offsets::default().fetch(request)
}

pub(super) fn delete_refusal(error: ErrorCode) -> GroupAnswer {
    GroupAnswer::OffsetDelete(OffsetDeleteResponse::default().with_error_code(error.code()))
}

/// What a group committed, by topic and partition. Changes only by [`Self::replay`].
#[derive(Clone, Debug, Default)]
pub(super) struct Offsets {
    topics: BTreeMap<StrBytes, BTreeMap<i32, OffsetValue>>,
    bytes: usize,
}

impl Offsets {
    /// Takes in an offset, or that it is forgotten.
    pub fn replay(&mut self, topic: &StrBytes, partition: i32, value: Option<OffsetValue>) {
        match value {
            Some(value) => self.put(topic, partition, value),
            None => self.remove(topic, partition),
        }
    }

    fn put(&mut self, topic: &StrBytes, partition: i32, value: OffsetValue) {
        if !self.topics.contains_key(topic) {
            self.bytes += TOPIC_BYTES + topic.len();
            self.topics.insert(owned(topic), BTreeMap::new());
        }
        let partitions = self.topics.get_mut(topic).expect("there since the line above");
        self.bytes += offset_bytes(&value);
        if let Some(earlier) = partitions.insert(partition, value) {
            self.bytes -= offset_bytes(&earlier);
        }
    }

    fn remove(&mut self, topic: &StrBytes, partition: i32) {
        let Some(partitions) = self.topics.get_mut(topic) else { return };
        self.bytes -= partitions.remove(&partition).as_ref().map_or(0, offset_bytes);
        if partitions.is_empty() {
            self.topics.remove(topic);
            self.bytes -= TOPIC_BYTES + topic.len();
        }
    }

    /// Decides on an offset: appends its record and takes it in.
    fn decide(&mut self, topic: &StrBytes, partition: i32, value: Option<OffsetValue>, step: &mut Step<'_>) {
        let key = offsets_records::offset_key(step.group_id, topic, partition);
        step.record(key, value.as_ref().map(OffsetValue::write));
        self.replay(topic, partition, value);
    }

    fn find(&self, topic: &StrBytes, partition: i32) -> Option<&OffsetValue> {
        self.topics.get(topic)?.get(&partition)
    }

    /// All of them, by topic and partition.
    pub fn iter(&self) -> impl Iterator<Item = (&StrBytes, i32, &OffsetValue)> {
        let topics = self.topics.iter();
        topics.flat_map(|(topic, all)| all.iter().map(move |(partition, value)| (topic, *partition, value)))
    }

    pub fn count(&self) -> usize {
        self.topics.values().map(BTreeMap::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    pub fn are_of(&self, topic: &StrBytes) -> bool {
        self.topics.contains_key(topic)
    }

    /// What they hold in memory.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn records(&self, group_id: &str) -> impl Iterator<Item = RawRecord> {
        self.iter().map(move |(topic, partition, value)| {
            (offsets_records::offset_key(group_id, topic, partition), Some(value.write()))
        })
    }

    /// Forgets an offset, if there is one.
    pub fn forget(&mut self, topic: &StrBytes, partition: i32, step: &mut Step<'_>) {
        if self.find(topic, partition).is_some() {
            self.decide(topic, partition, None, step);
        }
    }

    /// Forgets all offsets of a topic.
    pub fn forget_topic(&mut self, topic: &StrBytes, step: &mut Step<'_>) {
        let partitions: Vec<i32> = self.topics.get(topic).into_iter().flat_map(BTreeMap::keys).copied().collect();
        for partition in partitions {
            self.forget(topic, partition, step);
        }
    }

    pub fn forget_all(&mut self, step: &mut Step<'_>) {
        let topics: Vec<StrBytes> = self.topics.keys().cloned().collect();
        for topic in topics {
            self.forget_topic(&topic, step);
        }
    }

    fn commit(
        &mut self,
        topic: &TopicName,
        partition: i32,
        value: OffsetValue,
        bytes_max: usize,
        step: &mut Step<'_>,
    ) -> Result<(), ErrorCode> {
        if topic.len() > STRING_BYTES_MAX {
            return Err(ErrorCode::InvalidTopicException);
        }
        if !metadata_fits(&value.metadata, step.config) {
            return Err(ErrorCode::OffsetMetadataTooLarge);
        }
        let known = self.find(&topic.0, partition);
        let growth = offset_bytes(&value).saturating_sub(known.map_or(0, offset_bytes)) + TOPIC_BYTES + topic.len();
        if known.is_none() && self.bytes + growth > bytes_max {
            step.effects.full = true;
            return Err(FULL);
        }
        self.decide(&topic.0, partition, Some(value), step);
        Ok(())
    }

    pub fn fetch(&self, request: &OffsetFetchRequestGroup) -> GroupAnswer {
        let topics = match &request.topics {
            Some(topics) => topics
                .iter()
                .map(|topic| {
                    let partitions = topic.partition_indexes.iter().map(|index| {
                        let value = self.find(&topic.name.0, *index);
                        fetched(*index, value.filter(|value| same_topic(value.topic_id, topic.topic_id)))
                    });
                    OffsetFetchResponseTopics::default()
                        .with_name(topic.name.clone())
                        .with_topic_id(topic.topic_id)
                        .with_partitions(partitions.collect())
                })
                .collect(),
            None => self
                .topics
                .iter()
                .map(|(topic, partitions)| {
                    let partitions = partitions.iter().map(|(index, value)| fetched(*index, Some(value)));
                    OffsetFetchResponseTopics::default()
                        .with_name(TopicName(topic.clone()))
                        .with_partitions(partitions.collect())
                })
                .collect(),
        };
        let group_id = request.group_id.clone();
        GroupAnswer::Fetch(OffsetFetchResponseGroup::default().with_group_id(group_id).with_topics(topics))
    }
}

impl Membership {
    /// Whether somebody may commit.
    fn check_commit(&self, request: &OffsetCommitRequest) -> Result<(), ErrorCode> {
        match self {
            // An administrator, or a consumer that assigns its partitions itself.
            Self::Empty if request.generation_id_or_member_epoch < 0 => Ok(()),
            Self::Empty => Err(ErrorCode::UnknownMemberId),
            Self::Classic(classic) => classic.check_commit(request),
        }
    }

    /// Whether the group reads the topic, or may do so for all that we know.
    pub fn is_subscribed(&self, topic: &StrBytes) -> bool {
        match self {
            Self::Empty => false,
            Self::Classic(classic) => classic.is_subscribed(topic),
        }
    }

    /// Whether it can be told which offsets members still need.
    fn tells_subscriptions(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Classic(classic) => classic.tells_subscriptions(),
        }
    }
}

impl Group {
    /// `room` is what the machine may still hold.
    pub(super) fn commit(&mut self, request: &OffsetCommitRequest, room: usize, step: &mut Step<'_>) -> GroupAnswer {
        if let Err(error) = self.membership.check_commit(request) {
            return commit_refusal(request, error);
        }
        match &mut self.membership {
            Membership::Empty => {}
            Membership::Classic(classic) => classic.committed(&request.member_id, step.now),
        }
        let expire_timestamp = (request.retention_time_ms != DEFAULT_RETENTION_MS)
            .then(|| step.now.saturating_add(request.retention_time_ms).max(0));
        let ids: BTreeMap<StrBytes, Uuid> =
            request.topics.iter().map(|topic| (topic.name.0.clone(), topic.topic_id)).collect();
        let bytes_max = self.offsets.bytes() + room;
        commit_answer(request, |topic, partition| {
            let metadata = partition.committed_metadata.clone().unwrap_or_default();
            let value = OffsetValue {
                offset: Offset(partition.committed_offset),
                leader_epoch: (partition.committed_leader_epoch >= 0)
                    .then_some(LeaderEpoch(partition.committed_leader_epoch)),
                metadata: owned(&metadata),
                commit_timestamp: step.now,
                expire_timestamp,
                topic_id: ids.get(&topic.0).copied().unwrap_or_default(),
            };
            let result = self.offsets.commit(topic, partition.partition_index, value, bytes_max, step);
            result.err().map_or(0, |error| error.code())
        })
    }

    pub(super) fn delete_offsets(&mut self, request: &OffsetDeleteRequest, step: &mut Step<'_>) -> GroupAnswer {
        if !self.membership.tells_subscriptions() {
            return delete_refusal(ErrorCode::NonEmptyGroup);
        }
        let topics = request.topics.iter().map(|topic| {
            let subscribed = self.membership.is_subscribed(&topic.name.0);
            let partitions = topic.partitions.iter().map(|partition| {
                let index = partition.partition_index;
                let answer = OffsetDeleteResponsePartition::default().with_partition_index(index);
                if subscribed {
                    return answer.with_error_code(ErrorCode::GroupSubscribedToTopic.code());
                }
                self.offsets.forget(&topic.name.0, index, step);
                answer
            });
            OffsetDeleteResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
        });
        GroupAnswer::OffsetDelete(OffsetDeleteResponse::default().with_topics(topics.collect()))
    }
}

fn fetched(index: i32, value: Option<&OffsetValue>) -> OffsetFetchResponsePartitions {
    let answer = OffsetFetchResponsePartitions::default()
        .with_partition_index(index)
        .with_committed_offset(-1)
        .with_committed_leader_epoch(-1)
        .with_metadata(Some(StrBytes::new()));
    let Some(value) = value else { return answer };
    answer
        .with_committed_offset(value.offset.0)
        .with_committed_leader_epoch(value.leader_epoch.map_or(-1, |epoch| epoch.0))
        .with_metadata(Some(value.metadata.clone()))
}

// An offset of a topic that was deleted and created again means nothing; an id that either side does not know says nothing.
pub(super) fn same_topic(committed: Uuid, asked: Uuid) -> bool {
    committed.is_nil() || asked.is_nil() || committed == asked
}

fn metadata_fits(metadata: &str, config: &GroupConfig) -> bool {
    // No string has more UTF-16 units than bytes, so most need not be counted.
    let counted =
        metadata.len() <= config.offset_metadata_max || metadata.encode_utf16().count() <= config.offset_metadata_max;
    counted && metadata.len() <= STRING_BYTES_MAX
}

fn offset_bytes(value: &OffsetValue) -> usize {
    OFFSET_BYTES + value.metadata.len()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::group::{
        GroupConfig,
        script::{check, check_with},
        state::Group,
    };

    #[test]
    fn a_member_commits_and_anybody_fetches() {
        check(
            "join a v3; +3s; commit a t/0=5; sync a a=x; commit a t/0=5@m,t/1=7,u/0=1; fetch t/0,t/2,x/0; fetch all; commit a t/0=6 gen=0; commit a t/0=6 id=zz; commit - t/0=9; restart; fetch all; fetch all group=h",
            expect![[r#"
                3000 a: joined id=a-1 gen=1 leader=a-1 range [a-1:m]
                3000 a: commit RebalanceInProgress
                3000 + g gen=1 [a-1=x]
                3000 a: synced 'x'
                3000 + g:t/0=5
                3000 + g:t/1=7
                3000 + g:u/0=1
                3000 a: commit ok ok ok
                3000 fetch: ok [t/0=5@m t/2=-1@ x/0=-1@]
                3000 fetch: ok [t/0=5@m t/1=7@ u/0=1@]
                3000 a: commit IllegalGeneration
                3000 a: commit UnknownMemberId
                3000 -: commit UnknownMemberId
                3000 fetch: ok [t/0=5@m t/1=7@ u/0=1@]
                3000 fetch: ok []
            "#]],
        );
    }

    #[test]
    fn a_group_without_members_commits_with_no_generation() {
        check(
            "commit - t/0=5; list; commit a t/0=6 gen=1 id=a-1; commit a t/0=6 gen=1 v8 group=h; commit a t/0=6 gen=1 group=h; fetch all; restart; describe; commit - t/0=5 group=",
            expect![[r#"
                0 + g:t/0=5
                0 -: commit ok
                0 list: [g::Empty:classic]
                0 a: commit UnknownMemberId
                0 a: commit IllegalGeneration
                0 a: commit GroupIdNotFound
                0 fetch: ok [t/0=5@]
                0 describe: ok Empty '' '' []
                0 + :t/0=5
                0 -: commit ok
            "#]],
        );
    }

    #[test]
    fn a_commit_is_a_sign_of_life() {
        check(
            "join a v3 session=10s; +3s; sync a a=x; +8s; commit a t/0=1; +8s; hb a; join b v3; commit a t/0=2; +9s; hb a",
            expect![[r#"
                3000 a: joined id=a-1 gen=1 leader=a-1 range [a-1:m]
                3000 + g gen=1 [a-1=x]
                3000 a: synced 'x'
                11000 + g:t/0=1
                11000 a: commit ok
                19000 a: heartbeat ok
                19000 + g:t/0=2
                19000 a: commit ok
                28000 a: heartbeat RebalanceInProgress
            "#]],
        );
    }

    #[test]
    fn a_group_that_only_keeps_offsets_counts_itself() {
        check_with(
            GroupConfig { bytes_max: 2 * (Group::bytes_of_empty("g") + 500), ..GroupConfig::default() },
            "commit - t/0=1 group=a; commit - t/0=1 group=b; commit - t/0=1 group=c; delete group=a; commit - t/0=1 group=c",
            expect![[r#"
                0 + a:t/0=1
                0 -: commit ok
                0 + b:t/0=1
                0 -: commit ok
                0 -: commit CoordinatorNotAvailable
                0 - a:t/0
                0 delete: ok
                0 + c:t/0=1
                0 -: commit ok
            "#]],
        );
    }

    #[test]
    fn too_much_metadata_is_refused_for_its_partition_alone() {
        check_with(
            GroupConfig { offset_metadata_max: 7, ..GroupConfig::default() },
            "commit - t/0=5@12345678,t/1=6@1234567,t/2=7@ééééééé",
            expect![[r#"
                0 + g:t/1=6
                0 + g:t/2=7
                0 -: commit OffsetMetadataTooLarge ok ok
            "#]],
        );
    }

    #[test]
    fn offsets_are_deleted_unless_the_group_reads_them() {
        check(
            "offsets-delete t/0; commit - t/0=5; commit - u/0=6; offsets-delete t/0; fetch all; join a v3 protos=range:subscribed+u; +3s; sync a a=x; commit a t/1=1; offsets-delete t/1; offsets-delete t/7; offsets-delete u/0; join b v3 group=k type=connect; offsets-delete u/0 group=k",
            expect![[r#"
                0 offsets-delete: GroupIdNotFound []
                0 + g:t/0=5
                0 -: commit ok
                0 + g:u/0=6
                0 -: commit ok
                0 - g:t/0
                0 offsets-delete: ok [ok]
                0 fetch: ok [u/0=6@]
                3000 a: joined id=a-6 gen=1 leader=a-6 range [a-6:........u����]
                3000 + g gen=1 [a-6=x]
                3000 a: synced 'x'
                3000 + g:t/1=1
                3000 a: commit ok
                3000 - g:t/1
                3000 offsets-delete: ok [ok]
                3000 offsets-delete: ok [ok]
                3000 offsets-delete: ok [GroupSubscribedToTopic]
                3000 offsets-delete: NonEmptyGroup []
            "#]],
        );
    }

    #[test]
    fn a_deleted_topic_takes_its_offsets_along() {
        check(
            "commit - t/0=5,t/1=6; commit - u/0=6; commit - t/0=7 group=h; topic-gone t; list; fetch all; topic-gone t",
            expect![[r#"
                0 + g:t/0=5
                0 + g:t/1=6
                0 -: commit ok ok
                0 + g:u/0=6
                0 -: commit ok
                0 + h:t/0=7
                0 -: commit ok
                0 - g:t/0
                0 - g:t/1
                0 - h:t/0
                0 list: [g::Empty:classic]
                0 fetch: ok [u/0=6@]
            "#]],
        );
    }
}
