//! A member of a classic consumer group, which commits for one partition of its own.

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, OffsetCommitRequest, SyncGroupRequest,
        TopicName,
        join_group_request::JoinGroupRequestProtocol,
        join_group_response::JoinGroupResponse,
        leave_group_request::MemberIdentity,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
        sync_group_request::SyncGroupRequestAssignment,
    },
    protocol::StrBytes,
};

use crate::{
    base::ErrorCode,
    coordinator::OFFSETS_TOPIC,
    group::{GroupAnswer, GroupRequest, Peer},
    shard::ControlRequest,
    sim::{
        connection::{Connection, Gone},
        world::World,
    },
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
    connection: &Connection,
    group: &'static str,
    request: GroupRequest,
) -> Result<Option<GroupAnswer>, Gone> {
    let answer = connection.ask(move |router| async move {
        // As the handler does it: offsets of a topic that is not there are refused before the coordinator sees them.
        if matches!(request, GroupRequest::Commit(..)) && router.image().topic(TOPIC).is_none() {
            return None;
        }
        if router.coordinator_of(group).is_none() {
            router.control(ControlRequest::EnsureInternalTopic(OFFSETS_TOPIC.to_owned())).await;
        }
        match router.coordinator_of(group) {
            Some(partition) => router.group(partition, request).await.ok(),
            None => None,
        }
    });
    answer.await
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
    GroupRequest::Join(request, Peer { client_id: text("c"), client_host: text("/h"), version: 9 })
}

pub fn commit_request(group: &str, member: (&StrBytes, i32), index: i32, offset: i64) -> GroupRequest {
    commit_with(group, member, index, offset, "")
}

/// The same with a text that is kept with the offset.
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
    async fn generation(&mut self, connection: &Connection) -> Result<(), Gone> {
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

    async fn join(&mut self, connection: &Connection) -> Result<Option<JoinGroupResponse>, Gone> {
        let floor = self.world.model.generation(self.group);
        let answer = ask(connection, self.group, join_request(self.group, &self.id)).await?;
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
    async fn sync(&mut self, connection: &Connection, joined: &JoinGroupResponse) -> Result<bool, Gone> {
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
        let answer = ask(connection, self.group, GroupRequest::Sync(request, 5)).await?;
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

    async fn heartbeat(&mut self, connection: &Connection, joined: &JoinGroupResponse) -> Result<bool, Gone> {
        let request = HeartbeatRequest::default()
            .with_group_id(GroupId(text(self.group)))
            .with_generation_id(joined.generation_id)
            .with_member_id(self.id.clone());
        let answer = ask(connection, self.group, GroupRequest::Heartbeat(request)).await?;
        let Some(GroupAnswer::Heartbeat(answer)) = answer else { return Ok(false) };
        Ok(ErrorCode::try_from_code(answer.error_code).is_none_or(|error| self.fenced(error)))
    }

    async fn commit(&mut self, connection: &Connection, generation: i32) -> Result<bool, Gone> {
        self.next += 1 + self.world.rand.below(3) as i64;
        self.world.model.commits(self.group, self.index, self.next);
        let request = commit_request(self.group, (&self.id, generation), self.index, self.next);
        let Some(answer) = ask(connection, self.group, request).await? else { return Ok(false) };
        match ErrorCode::try_from_code(commit_code(&answer)) {
            None => {
                self.world.model.committed(self.group, self.index, self.next);
                self.world.model.commits.set(self.world.model.commits.get() + 1);
                Ok(true)
            }
            Some(error) => Ok(self.fenced(error)),
        }
    }

    /// Reads back what is committed. Nobody else commits for this partition.
    async fn look(&self, connection: &Connection) -> Result<bool, Gone> {
        let answer = ask(connection, self.group, fetch_request(self.group, self.index)).await?;
        if let Some(answer) = answer {
            let offset = fetched_offset(&answer).max(0);
            self.world.model.committed(self.group, self.index, offset);
        }
        Ok(true)
    }

    async fn leave(&mut self, connection: &Connection) -> Result<(), Gone> {
        let request = LeaveGroupRequest::default()
            .with_group_id(GroupId(text(self.group)))
            .with_members(vec![MemberIdentity::default().with_member_id(self.id.clone())]);
        ask(connection, self.group, GroupRequest::Leave(request, 5)).await?;
        self.id = StrBytes::default();
        Ok(())
    }
}
