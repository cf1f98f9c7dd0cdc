//! A member of a classic consumer group: joins, divides the partitions by range if it leads, and beats. One thread each;
//! it only tells the consumer under measurement which partitions it has, and commits where that one stands.

pub mod offsets;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest,
        join_group_request::JoinGroupRequestProtocol, join_group_response::JoinGroupResponseMember,
        leave_group_request::MemberIdentity, sync_group_request::SyncGroupRequestAssignment,
    },
    protocol::StrBytes,
};

use crate::{
    client::{
        admin::Admin,
        cluster::Layout,
        error::{ClientError, codes},
        link::Link,
    },
    control::{Shared, Tell},
    fetch,
};

const SESSION_TIMEOUT_MS: i32 = 30_000;
const REBALANCE_TIMEOUT_MS: i32 = 60_000;
const HEARTBEAT_STEP: Duration = Duration::from_millis(100);
const HEARTBEAT_STEPS: usize = 10;
/// Every fifth heartbeat, as the Java consumer's auto.commit.interval.ms of 5 s.
const HEARTBEATS_PER_COMMIT: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);
const JOIN_TIMEOUT: Duration = Duration::from_secs(90);
const PROTOCOL: &str = "range";

/// What one member needs.
pub struct Member {
    pub bootstrap: Vec<String>,
    pub group: String,
    pub layout: Arc<Layout>,
    /// Where the consumers stand.
    pub fetch: Arc<fetch::Settings>,
    pub worker: usize,
    pub consumer: usize,
    pub shared: Arc<Shared>,
}

/// Membership in one generation.
struct Joined {
    member_id: StrBytes,
    generation: i32,
    partitions: BTreeSet<u32>,
}

impl Member {
    /// Stays in the group until the run is over, then leaves.
    pub fn run(self) {
        let mut member_id = StrBytes::default();
        while !self.is_over() {
            let Ok(mut link) = self.coordinator() else {
                std::thread::sleep(PAUSE);
                continue;
            };
            // Errors end the connection; the next round finds the coordinator anew and joins again.
            if self.stay(&mut link, &mut member_id).is_err() {
                std::thread::sleep(PAUSE);
            }
            if self.is_over() && !member_id.is_empty() {
                self.leave(&mut link, &member_id);
            }
        }
    }

    fn is_over(&self) -> bool {
        self.shared.quit.load(Ordering::Relaxed)
    }

    fn coordinator(&self) -> Result<Link, ClientError> {
        let mut admin = Admin::new(&self.bootstrap, "ringtail-loadgen-group");
        let key = StrBytes::from_string(self.group.clone());
        let version = admin.link()?.versions().pick::<FindCoordinatorRequest>()?;
        // From version 4 several keys are asked for at once.
        let request = FindCoordinatorRequest::default().with_key_type(0);
        let request = if version >= 4 { request.with_coordinator_keys(vec![key]) } else { request.with_key(key) };
        let response = admin.link()?.call_at("FindCoordinator", version, &request)?;
        let (code, host, port) = match response.coordinators.first() {
            Some(found) => (found.error_code, found.host.clone(), found.port),
            None => (response.error_code, response.host.clone(), response.port),
        };
        refuse("finding the group's coordinator", code)?;
        let host = if host.contains(':') { format!("[{}]", host.as_str()) } else { host.to_string() };
        Link::connect(&format!("{host}:{port}"), "ringtail-loadgen-group", JOIN_TIMEOUT)
    }

    /// Joins and beats, generation after generation, until something fails or the run is over.
    fn stay(&self, link: &mut Link, member_id: &mut StrBytes) -> Result<(), ClientError> {
        while !self.is_over() {
            link.wait_at_most(JOIN_TIMEOUT);
            let joined = match self.join(link, member_id) {
                Ok(joined) => joined,
                Err(ClientError::Code { code: codes::UNKNOWN_MEMBER_ID, .. }) => {
                    *member_id = StrBytes::default();
                    continue;
                }
                Err(ClientError::Code { code: codes::REBALANCE_IN_PROGRESS, .. }) => continue,
                Err(error) => return Err(error),
            };
            self.beat(link, &joined)?;
            // The partitions may go to somebody else now, or the run is over.
            let committed = self.commit(link, &joined, &joined.partitions)?;
            if self.is_over() {
                self.check_committed(link, &committed)?;
            }
        }
        Ok(())
    }

    fn join(&self, link: &mut Link, member_id: &mut StrBytes) -> Result<Joined, ClientError> {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(StrBytes::from_static_str(PROTOCOL))
            .with_metadata(subscription(&self.layout));
        let mut request = JoinGroupRequest::default()
            .with_group_id(self.group_id())
            .with_session_timeout_ms(SESSION_TIMEOUT_MS)
            .with_rebalance_timeout_ms(REBALANCE_TIMEOUT_MS)
            .with_protocol_type(StrBytes::from_static_str("consumer"))
            .with_protocols(vec![protocol])
            .with_member_id(member_id.clone());
        let mut response = link.call("JoinGroup", &request)?;
        if response.error_code == codes::MEMBER_ID_REQUIRED {
            request = request.with_member_id(response.member_id.clone());
            response = link.call("JoinGroup", &request)?;
        }
        refuse("joining the group", response.error_code)?;
        *member_id = response.member_id.clone();
        let assignments =
            if response.leader == response.member_id { self.divide(&response.members) } else { Vec::new() };
        let sync = SyncGroupRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(response.generation_id)
            .with_member_id(response.member_id.clone())
            .with_assignments(assignments);
        let version = link.versions().pick::<SyncGroupRequest>()?;
        let sync = if version >= 5 {
            sync.with_protocol_type(Some(StrBytes::from_static_str("consumer")))
                .with_protocol_name(Some(StrBytes::from_static_str(PROTOCOL)))
        } else {
            sync
        };
        let synced = link.call_at("SyncGroup", version, &sync)?;
        refuse("synchronising the group", synced.error_code)?;
        let partitions = self.parse_assignment(synced.assignment);
        self.shared.group().joins += 1;
        let tell = Tell::Assignment { consumer: self.consumer, partitions: partitions.clone() };
        self.shared.tell(self.worker, tell);
        Ok(Joined { member_id: response.member_id, generation: response.generation_id, partitions })
    }

    /// Beats until the group rebalances (Ok) or the membership is lost (an error or Ok, as the code says).
    fn beat(&self, link: &mut Link, joined: &Joined) -> Result<(), ClientError> {
        for number in 1_u32.. {
            for _ in 0..HEARTBEAT_STEPS {
                std::thread::sleep(HEARTBEAT_STEP);
                if self.is_over() {
                    return Ok(());
                }
            }
            let request = HeartbeatRequest::default()
                .with_group_id(self.group_id())
                .with_generation_id(joined.generation)
                .with_member_id(joined.member_id.clone());
            let response = link.call("Heartbeat", &request)?;
            match response.error_code {
                codes::NONE => {}
                codes::REBALANCE_IN_PROGRESS => return Ok(()),
                codes::ILLEGAL_GENERATION | codes::UNKNOWN_MEMBER_ID | codes::NOT_COORDINATOR => {
                    let nothing = BTreeSet::new();
                    let tell = Tell::Assignment { consumer: self.consumer, partitions: nothing };
                    self.shared.tell(self.worker, tell);
                    return refuse("beating in the group", response.error_code);
                }
                code => refuse("beating in the group", code)?,
            }
            if number.is_multiple_of(HEARTBEATS_PER_COMMIT) {
                self.commit(link, joined, &joined.partitions)?;
            }
        }
        Ok(())
    }

    fn leave(&self, link: &mut Link, member_id: &StrBytes) {
        let request = LeaveGroupRequest::default().with_group_id(self.group_id());
        let version = link.versions().pick::<LeaveGroupRequest>().unwrap_or(0);
        let request = if version >= 3 {
            let member = MemberIdentity::default().with_member_id(member_id.clone());
            request.with_members(vec![member])
        } else {
            request.with_member_id(member_id.clone())
        };
        link.wait_at_most(Duration::from_secs(5));
        // The group is this run's own: if leaving fails, its session time-out ends it.
        let _ = link.call_at("LeaveGroup", version, &request);
    }

    fn group_id(&self) -> GroupId {
        GroupId(StrBytes::from_string(self.group.clone()))
    }

    /// Kafka's range assignor: members in order of their ids take consecutive partitions of each topic.
    fn divide(&self, members: &[JoinGroupResponseMember]) -> Vec<SyncGroupRequestAssignment> {
        let mut ids: Vec<StrBytes> = members.iter().map(|member| member.member_id.clone()).collect();
        ids.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        let shares = range_shares(&self.layout, ids.len());
        let assignments = ids.into_iter().zip(shares).map(|(id, share)| {
            SyncGroupRequestAssignment::default().with_member_id(id).with_assignment(assignment(&self.layout, &share))
        });
        assignments.collect()
    }

    fn parse_assignment(&self, bytes: Bytes) -> BTreeSet<u32> {
        parse_assignment(bytes, &self.layout).unwrap_or_default()
    }
}

fn refuse(doing: &str, code: i16) -> Result<(), ClientError> {
    if code == codes::NONE {
        return Ok(());
    }
    Err(ClientError::Code { doing: doing.to_owned(), code, message: String::new() })
}

/// Partition numbers by member, topic by topic.
fn range_shares(layout: &Layout, members: usize) -> Vec<Vec<u32>> {
    let mut shares = vec![Vec::new(); members];
    let mut by_topic: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (number, partition) in layout.partitions.iter().enumerate() {
        by_topic.entry(partition.topic).or_default().push(number as u32);
    }
    for numbers in by_topic.values() {
        let (each, extra) = (numbers.len() / members, numbers.len() % members);
        let mut rest = numbers.as_slice();
        for (at, share) in shares.iter_mut().enumerate() {
            let (mine, others) = rest.split_at(each + usize::from(at < extra));
            share.extend_from_slice(mine);
            rest = others;
        }
    }
    shares
}

/// ConsumerProtocolSubscription, version 0.
fn subscription(layout: &Layout) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    bytes.put_i32(layout.topics.len() as i32);
    for topic in &layout.topics {
        put_string(&mut bytes, topic.name.as_str());
    }
    bytes.put_i32(-1);
    bytes.freeze()
}

/// ConsumerProtocolAssignment, version 0.
fn assignment(layout: &Layout, numbers: &[u32]) -> Bytes {
    let mut by_topic: BTreeMap<u32, Vec<i32>> = BTreeMap::new();
    for number in numbers {
        let partition = layout.partitions[*number as usize];
        by_topic.entry(partition.topic).or_default().push(partition.index);
    }
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    bytes.put_i32(by_topic.len() as i32);
    for (topic, indexes) in by_topic {
        put_string(&mut bytes, layout.topics[topic as usize].name.as_str());
        bytes.put_i32(indexes.len() as i32);
        for index in indexes {
            bytes.put_i32(index);
        }
    }
    bytes.put_i32(-1);
    bytes.freeze()
}

fn put_string(bytes: &mut BytesMut, text: &str) {
    bytes.put_i16(text.len() as i16);
    bytes.put_slice(text.as_bytes());
}

/// None for bytes that do not parse; an empty assignment is a member without partitions.
fn parse_assignment(mut bytes: Bytes, layout: &Layout) -> Option<BTreeSet<u32>> {
    let mut partitions = BTreeSet::new();
    if bytes.is_empty() {
        return Some(partitions);
    }
    let numbers = layout.numbers();
    bytes.try_get_i16().ok()?;
    for _ in 0..bytes.try_get_i32().ok()? {
        let length = usize::try_from(bytes.try_get_i16().ok()?).ok()?;
        if length > bytes.len() {
            return None;
        }
        let name = bytes.split_to(length);
        let name = std::str::from_utf8(&name).ok()?;
        for _ in 0..bytes.try_get_i32().ok()? {
            let index = bytes.try_get_i32().ok()?;
            partitions.extend(numbers.find(name, uuid::Uuid::nil(), index));
        }
    }
    Some(partitions)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::TopicName;

    use super::*;
    use crate::client::cluster::{Partition, Topic};

    fn layout(partitions: &[i32]) -> Layout {
        let mut layout = Layout::default();
        for (topic, count) in partitions.iter().enumerate() {
            let name = TopicName(StrBytes::from_string(format!("t{topic}")));
            layout.topics.push(Topic { name, id: uuid::Uuid::nil() });
            let topic = topic as u32;
            layout.partitions.extend((0..*count).map(|index| Partition { topic, index }));
        }
        layout
    }

    #[test]
    fn range_gives_the_first_members_the_extra_partitions() {
        let shares = range_shares(&layout(&[7, 2]), 3);
        assert_eq!(shares, [vec![0, 1, 2, 7], vec![3, 4, 8], vec![5, 6]]);
    }

    #[test]
    fn an_assignment_comes_back() {
        let layout = layout(&[3, 2]);
        let bytes = assignment(&layout, &[0, 2, 4]);
        assert_eq!(parse_assignment(bytes.clone(), &layout), Some(BTreeSet::from([0, 2, 4])));
        assert_eq!(parse_assignment(bytes.slice(..bytes.len() - 9), &layout), None);
        assert_eq!(parse_assignment(Bytes::new(), &layout), Some(BTreeSet::new()));
    }
}
