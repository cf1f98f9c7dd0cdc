//! A member of a classic consumer group, which commits for one partition of its own.

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, OffsetCommitRequest,
        OffsetFetchRequest, SyncGroupRequest, TopicName,
        join_group_request::JoinGroupRequestProtocol,
        join_group_response::JoinGroupResponse,
        leave_group_request::MemberIdentity,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics},
        offset_fetch_response::{OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics},
        sync_group_request::SyncGroupRequestAssignment,
    },
    protocol::StrBytes,
};

use crate::{
    base::ErrorCode,
    group::{GroupAnswer, GroupRequest, Joiner},
    sim::{connection::Gone, wire::Wire, world::World},
};

/// The topic that is committed for; nobody deletes it.
pub const TOPIC: &str = "kept";

/// A member: `index` is the partition it commits for.
pub struct Member {
    world: World,
    group: &'static str,
    index: i32,
    id: StrBytes,
    next: i64,
}

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Sends a group's request to its coordinator. None: there is none yet, or it lost its state.
pub async fn ask(
    world: &World,
    connection: &Wire,
    group: &'static str,
    request: GroupRequest,
) -> Result<Option<GroupAnswer>, Gone> {
    let (answer, code) = send(world, connection, request).await?;
    let absent = [ErrorCode::CoordinatorLoadInProgress, ErrorCode::CoordinatorNotAvailable, ErrorCode::NotCoordinator];
    match ErrorCode::try_from_code(code) {
        Some(error) if absent.contains(&error) => {
            let version = world.version(0, 6);
            let request = FindCoordinatorRequest::default();
            let request = if version < 4 {
                request.with_key(text(group))
            } else {
                request.with_coordinator_keys(vec![text(group)])
            };
            connection.ask(version, &request).await?;
            Ok(None)
        }
        // The group's log is on the same disk.
        Some(ErrorCode::KafkaStorageError) if world.disk_may_refuse.get() => Ok(None),
        _ => Ok(Some(answer)),
    }
}

/// The request in any version that has what it says, and the answer's error.
async fn send(world: &World, connection: &Wire, request: GroupRequest) -> Result<(GroupAnswer, i16), Gone> {
    Ok(match request {
        GroupRequest::Join(request, _) => {
            let answer = connection.ask(world.version(1, 9), &request).await?;
            (GroupAnswer::Join(answer.clone()), answer.error_code)
        }
        GroupRequest::Sync(mut request, _) => {
            let version = world.version(3, 5);
            if version < 5 {
                (request.protocol_type, request.protocol_name) = (None, None);
            }
            let answer = connection.ask(version, &request).await?;
            (GroupAnswer::Sync(answer.clone()), answer.error_code)
        }
        GroupRequest::Heartbeat(request) => {
            let answer = connection.ask(world.version(0, 4), &request).await?;
            (GroupAnswer::Heartbeat(answer.clone()), answer.error_code)
        }
        GroupRequest::Leave(request, _) => {
            let answer = connection.ask(world.version(3, 5), &request).await?;
            (GroupAnswer::Leave(answer.clone()), answer.error_code)
        }
        GroupRequest::Commit(request, _) => {
            let answer = connection.ask(world.version(2, 9), &request).await?;
            let code = answer.topics[0].partitions[0].error_code;
            (GroupAnswer::Commit(answer), code)
        }
        GroupRequest::Fetch(request) => {
            let group = fetch(world, connection, request).await?;
            let code = group.error_code;
            (GroupAnswer::Fetch(group), code)
        }
        other => panic!("no member asks {other:?}"),
    })
}

/// In the form with groups, or the one before.
async fn fetch(
    world: &World,
    connection: &Wire,
    group: OffsetFetchRequestGroup,
) -> Result<OffsetFetchResponseGroup, Gone> {
    let version = world.version(2, 9);
    if version >= 8 {
        let request = OffsetFetchRequest::default().with_groups(vec![group]);
        return Ok(connection.ask(version, &request).await?.groups.remove(0));
    }
    let topics = group.topics.map(|topics| {
        let topic = |topic: OffsetFetchRequestTopics| {
            OffsetFetchRequestTopic::default().with_name(topic.name).with_partition_indexes(topic.partition_indexes)
        };
        topics.into_iter().map(topic).collect()
    });
    let request = OffsetFetchRequest::default().with_group_id(group.group_id).with_topics(topics);
    let answer = connection.ask(version, &request).await?;
    let topics = answer.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|partition| {
            OffsetFetchResponsePartitions::default()
                .with_partition_index(partition.partition_index)
                .with_committed_offset(partition.committed_offset)
                .with_error_code(partition.error_code)
        });
        OffsetFetchResponseTopics::default().with_name(topic.name).with_partitions(partitions.collect())
    });
    Ok(OffsetFetchResponseGroup::default().with_error_code(answer.error_code).with_topics(topics.collect()))
}

pub async fn run(world: World, group: &'static str, index: i32) {
    let mut member = Member { world, group, index, id: StrBytes::default(), next: 0 };
    while !member.world.finishing.get() {
        let connection = member.world.connect().await;
        while !member.world.finishing.get() {
            match member.generation(&connection).await {
                Ok(()) => member.world.pause(2000).await,
                Err(Gone) => break,
            }
        }
    }
}

pub fn join_request(group: &'static str, id: &StrBytes) -> GroupRequest {
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(Bytes::from_static(b"m"));
    let request = JoinGroupRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_session_timeout_ms(60)
        .with_rebalance_timeout_ms(80)
        .with_member_id(id.clone())
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    GroupRequest::Join(request, Joiner { client_id: text("c"), client_host: text("/h"), version: 9 })
}

pub fn commit_request(group: &str, member: (&StrBytes, i32), index: i32, offset: i64) -> GroupRequest {
    commit_with(group, member, index, offset, "")
}

/// A commit with a text that is kept with the offset.
pub fn commit_with(group: &str, member: (&StrBytes, i32), index: i32, offset: i64, metadata: &str) -> GroupRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(index)
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text(metadata)));
    let topic = OffsetCommitRequestTopic::default().with_name(TopicName(text(TOPIC))).with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(member.1)
        .with_member_id(member.0.clone())
        .with_retention_time_ms(-1)
        .with_topics(vec![topic]);
    GroupRequest::Commit(request, 9)
}

pub fn fetch_request(group: &str, index: i32) -> GroupRequest {
    let topic =
        OffsetFetchRequestTopics::default().with_name(TopicName(text(TOPIC))).with_partition_indexes(vec![index]);
    GroupRequest::Fetch(
        OffsetFetchRequestGroup::default().with_group_id(GroupId(text(group))).with_topics(Some(vec![topic])),
    )
}

/// The offset in the answer to a [`fetch_request`]; -1 if there is none.
pub fn fetched_offset(answer: &GroupAnswer) -> i64 {
    let GroupAnswer::Fetch(answer) = answer else { panic!("an answer to another question") };
    assert_eq!(answer.error_code, 0);
    answer.topics[0].partitions[0].committed_offset
}

/// The error code in the answer to a [`commit_request`].
pub fn commit_code(answer: &GroupAnswer) -> i16 {
    let GroupAnswer::Commit(answer) = answer else { panic!("an answer to another question") };
    answer.topics[0].partitions[0].error_code
}

impl Member {
    fn hint(&self) -> String {
        format!("{} group {} member {}", self.world.seed(), self.group, self.index)
    }

    /// Joins, syncs, works for a while.
    async fn generation(&mut self, connection: &Wire) -> Result<(), Gone> {
        let Some(joined) = self.join(connection).await? else { return Ok(()) };
        if !self.sync(connection, &joined).await? {
            return Ok(());
        }
        for _ in 0..self.world.rand.below(12) {
            if self.world.finishing.get() {
                break;
            }
            let goes_on = match self.world.rand.below(4) {
                0 => self.heartbeat(connection, &joined).await?,
                1 => self.look(connection).await?,
                _ => self.commit(connection, joined.generation_id).await?,
            };
            if !goes_on {
                return Ok(());
            }
            self.world.pause(6000).await;
        }
        if self.world.one_in(4) {
            self.leave(connection).await?;
        }
        Ok(())
    }

    async fn join(&mut self, connection: &Wire) -> Result<Option<JoinGroupResponse>, Gone> {
        let floor = self.world.model.generation(self.group);
        let answer = ask(&self.world, connection, self.group, join_request(self.group, &self.id)).await?;
        let Some(GroupAnswer::Join(answer)) = answer else { return Ok(None) };
        match ErrorCode::try_from_code(answer.error_code) {
            None => {
                let generation = answer.generation_id;
                assert!(generation >= floor, "{}: generation {generation} after {floor}", self.hint());
                self.id = answer.member_id.clone();
                return Ok(Some(answer));
            }
            Some(ErrorCode::MemberIdRequired) => self.id = answer.member_id,
            Some(ErrorCode::UnknownMemberId) => self.id = StrBytes::default(),
            Some(ErrorCode::RebalanceInProgress) => {}
            Some(other) => panic!("{}: join was refused with {other:?}", self.hint()),
        }
        Ok(None)
    }

    /// The leader gives each member the generation and its own id; each member finds its own again.
    async fn sync(&mut self, connection: &Wire, joined: &JoinGroupResponse) -> Result<bool, Gone> {
        let assignment = |id: &StrBytes| Bytes::from(format!("{}:{}", joined.generation_id, id.as_str()));
        let mut request = SyncGroupRequest::default()
            .with_group_id(GroupId(text(self.group)))
            .with_generation_id(joined.generation_id)
            .with_member_id(self.id.clone())
            .with_protocol_type(Some(text("consumer")))
            .with_protocol_name(Some(text("range")));
        if joined.leader == self.id {
            let all = joined.members.iter().map(|member| {
                SyncGroupRequestAssignment::default()
                    .with_member_id(member.member_id.clone())
                    .with_assignment(assignment(&member.member_id))
            });
            request = request.with_assignments(all.collect());
        }
        let answer = ask(&self.world, connection, self.group, GroupRequest::Sync(request, 5)).await?;
        let Some(GroupAnswer::Sync(answer)) = answer else { return Ok(false) };
        match ErrorCode::try_from_code(answer.error_code) {
            None => {
                assert_eq!(answer.assignment, assignment(&self.id), "{}", self.hint());
                self.world.model.synced(self.group, joined.generation_id);
                Ok(true)
            }
            Some(error) => Ok(self.fenced(error)),
        }
    }

    /// What follows from an error of an established member: always a new join. Gives false.
    fn fenced(&mut self, error: ErrorCode) -> bool {
        match error {
            ErrorCode::UnknownMemberId => self.id = StrBytes::default(),
            ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration => {}
            other => panic!("{}: refused with {other:?}", self.hint()),
        }
        false
    }

    async fn heartbeat(&mut self, connection: &Wire, joined: &JoinGroupResponse) -> Result<bool, Gone> {
        let request = HeartbeatRequest::default()
            .with_group_id(GroupId(text(self.group)))
            .with_generation_id(joined.generation_id)
            .with_member_id(self.id.clone());
        let answer = ask(&self.world, connection, self.group, GroupRequest::Heartbeat(request)).await?;
        let Some(GroupAnswer::Heartbeat(answer)) = answer else { return Ok(false) };
        Ok(ErrorCode::try_from_code(answer.error_code).is_none_or(|error| self.fenced(error)))
    }

    async fn commit(&mut self, connection: &Wire, generation: i32) -> Result<bool, Gone> {
        self.next += 1 + self.world.rand.below(3) as i64;
        self.world.model.commits(self.group, self.index, self.next);
        let request = commit_request(self.group, (&self.id, generation), self.index, self.next);
        let topics = self.world.model.topics.borrow().clone();
        let answer = ask(&self.world, connection, self.group, request).await.inspect_err(|Gone| {
            self.world.model.commit_unanswered(self.group, self.index, self.next);
        });
        let Some(answer) = answer? else { return Ok(false) };
        match ErrorCode::try_from_code(commit_code(&answer)) {
            Some(ErrorCode::UnknownTopicOrPartition) => {
                let known = topics.get(TOPIC).is_some_and(|topic| topic.partitions > self.index);
                assert!(!known, "{}: the partition is there, but not for a commit", self.hint());
                Ok(true)
            }
            None => {
                self.world.model.committed(self.group, self.index, self.next);
                self.world.model.commits.set(self.world.model.commits.get() + 1);
                Ok(true)
            }
            Some(error) => Ok(self.fenced(error)),
        }
    }

    /// Reads back what is committed. Nobody else commits for this partition.
    async fn look(&self, connection: &Wire) -> Result<bool, Gone> {
        let answer = ask(&self.world, connection, self.group, fetch_request(self.group, self.index)).await?;
        if let Some(answer) = answer {
            let offset = fetched_offset(&answer).max(0);
            self.world.model.committed(self.group, self.index, offset);
        }
        Ok(true)
    }

    async fn leave(&mut self, connection: &Wire) -> Result<(), Gone> {
        let request = LeaveGroupRequest::default()
            .with_group_id(GroupId(text(self.group)))
            .with_members(vec![MemberIdentity::default().with_member_id(self.id.clone())]);
        ask(&self.world, connection, self.group, GroupRequest::Leave(request, 5)).await?;
        self.id = StrBytes::default();
        Ok(())
    }
}
