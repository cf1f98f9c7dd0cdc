//! The scripted broker's answers: as an honest one would give them, with the script's fault in the place meant for it.

use std::{sync::Mutex, time::Duration};

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        create_topics_response::CreatableTopicResult,
        delete_topics_response::DeletableTopicResult,
        fetch_response::{FetchableTopicResponse, PartitionData},
        find_coordinator_response::Coordinator,
        list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
        metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
        offset_fetch_response::{OffsetFetchResponsePartition, OffsetFetchResponseTopic},
        produce_response::{PartitionProduceResponse, TopicProduceResponse},
        *,
    },
    protocol::{Decodable, Encodable, StrBytes},
};
use uuid::Uuid;

use super::{Fault, Log};

const TOPIC_ID: Uuid = Uuid::from_u128(0x70);
const UNKNOWN_TOPIC: i16 = 3;
const POLL: Duration = Duration::from_millis(2);

/// One topic, one group with one member.
pub struct World {
    port: u16,
    topic: Option<(TopicName, i32)>,
    log: Log,
    next_producer: i64,
    generation: i32,
    assignment: Bytes,
    committed: Vec<(TopicName, i32, i64)>,
}

impl World {
    pub fn new(port: u16) -> Self {
        Self {
            port,
            topic: None,
            log: Log::new(),
            next_producer: 100,
            generation: 0,
            assignment: Bytes::new(),
            committed: Vec::new(),
        }
    }

    /// Nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.log.is_empty()
    }
}

fn decode<T: Decodable>(mut body: Bytes, version: i16) -> T {
    T::decode(&mut body, version).expect("the loadgen's requests decode")
}

/// Appends the answer's body. False: none is due (acks=0).
pub fn answer(
    world: &Mutex<World>,
    api: ApiKey,
    version: i16,
    body: Bytes,
    fault: Option<Fault>,
    out: &mut BytesMut,
) -> bool {
    let mut world_now = world.lock().expect("no holder panics");
    let it = &mut *world_now;
    let code = if let Some(Fault::Code(code)) = fault { code } else { 0 };
    let throttle = if let Some(Fault::Throttle(ms)) = fault { ms } else { 0 };
    macro_rules! reply {
        ($response:expr) => {
            $response
                .with_throttle_time_ms(if version >= 1 { throttle } else { 0 })
                .encode(out, version)
                .expect("encodes")
        };
    }
    match api {
        ApiKey::Metadata => reply!(it.metadata(&decode(body, version), code, version)),
        ApiKey::CreateTopics => {
            let request: CreateTopicsRequest = decode(body, version);
            let wanted = request.topics.first().expect("one topic");
            if code == 0 {
                it.topic = Some((wanted.name.clone(), wanted.num_partitions));
            }
            let made = CreatableTopicResult::default().with_name(wanted.name.clone()).with_error_code(code);
            reply!(CreateTopicsResponse::default().with_topics(vec![made]));
        }
        ApiKey::DeleteTopics => {
            let deleted = it.topic.as_ref().map(|(name, _)| name.clone());
            let result = DeletableTopicResult::default().with_name(deleted).with_error_code(code);
            reply!(DeleteTopicsResponse::default().with_responses(vec![result]));
        }
        ApiKey::InitProducerId => {
            it.next_producer += 1;
            let response = InitProducerIdResponse::default().with_error_code(code).with_producer_epoch(0);
            response
                .with_producer_id(ProducerId(it.next_producer))
                .with_throttle_time_ms(throttle)
                .encode(out, version)
                .expect("encodes");
        }
        ApiKey::ListOffsets => reply!(it.list_offsets(&decode(body, version), code)),
        ApiKey::Produce => {
            let request: ProduceRequest = decode(body, version);
            let acks = request.acks;
            reply!(it.produce(&request, code, fault));
            return acks != 0;
        }
        ApiKey::Fetch => {
            let request: FetchRequest = decode(body, version);
            let mut response = it.fetch(&request, code, fault);
            drop(world_now);
            if is_empty(&response) && code == 0 {
                // Others may write meanwhile; then it looks again, once.
                std::thread::sleep(POLL);
                response = world.lock().expect("no holder panics").fetch(&request, code, fault);
            }
            reply!(response);
        }
        ApiKey::FindCoordinator => {
            let node = Coordinator::default()
                .with_key(StrBytes::from_static_str("g"))
                .with_node_id(BrokerId(1))
                .with_host(StrBytes::from_static_str("127.0.0.1"))
                .with_port(i32::from(it.port))
                .with_error_code(code);
            reply!(FindCoordinatorResponse::default().with_coordinators(vec![node]));
        }
        ApiKey::JoinGroup => reply!(it.join(&decode(body, version), code)),
        ApiKey::SyncGroup => {
            let request: SyncGroupRequest = decode(body, version);
            if let Some(own) = request.assignments.first() {
                it.assignment = own.assignment.clone();
            }
            reply!(SyncGroupResponse::default().with_error_code(code).with_assignment(it.assignment.clone()));
        }
        ApiKey::Heartbeat => reply!(HeartbeatResponse::default().with_error_code(code)),
        ApiKey::LeaveGroup => reply!(LeaveGroupResponse::default().with_error_code(code)),
        ApiKey::OffsetCommit => reply!(it.commit(&decode(body, version), code)),
        ApiKey::OffsetFetch => reply!(it.committed(code)),
        other => panic!("{other:?} was not announced"),
    }
    true
}

fn is_empty(response: &FetchResponse) -> bool {
    let mut partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    partitions.all(|partition| partition.records.as_ref().is_none_or(Bytes::is_empty))
}

impl World {
    fn metadata(&self, request: &MetadataRequest, code: i16, version: i16) -> MetadataResponse {
        let broker = MetadataResponseBroker::default()
            .with_node_id(BrokerId(1))
            .with_host(StrBytes::from_static_str("127.0.0.1"))
            .with_port(i32::from(self.port));
        let wanted = request.topics.iter().flatten().filter_map(|topic| topic.name.clone());
        let topics = wanted.map(|name| {
            let answer = MetadataResponseTopic::default().with_name(Some(name.clone())).with_error_code(code);
            let Some((_, partitions)) = self.topic.as_ref().filter(|(known, _)| *known == name) else {
                return answer.with_error_code(if code == 0 { UNKNOWN_TOPIC } else { code });
            };
            let partitions = (0..*partitions).map(|index| {
                MetadataResponsePartition::default().with_partition_index(index).with_leader_id(BrokerId(1))
            });
            let id = if version >= 10 { TOPIC_ID } else { Uuid::nil() };
            answer.with_topic_id(id).with_partitions(partitions.collect())
        });
        MetadataResponse::default().with_topics(topics.collect()).with_brokers(vec![broker])
    }

    fn list_offsets(&self, request: &ListOffsetsRequest, code: i16) -> ListOffsetsResponse {
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                let end = self.log.get(&partition.partition_index).map_or(0, |(end, _)| *end);
                let offset = if partition.timestamp == -1 { end } else { 0 };
                ListOffsetsPartitionResponse::default()
                    .with_partition_index(partition.partition_index)
                    .with_offset(offset)
                    .with_error_code(code)
            });
            ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
        });
        ListOffsetsResponse::default().with_topics(topics.collect())
    }

    fn produce(&mut self, request: &ProduceRequest, code: i16, fault: Option<Fault>) -> ProduceResponse {
        let mut response = ProduceResponse::default();
        for topic in &request.topic_data {
            let mut answered =
                TopicProduceResponse::default().with_name(topic.name.clone()).with_topic_id(topic.topic_id);
            for data in &topic.partition_data {
                let batch = data.records.clone().expect("records");
                let base = self.log.get(&data.index).map_or(0, |(end, _)| *end);
                let copies = match fault {
                    Some(Fault::Lose | Fault::Code(_)) => 0,
                    Some(Fault::Double) => 2,
                    _ => 1,
                };
                for _ in 0..copies {
                    self.append(data.index, &batch);
                }
                if let Some(Fault::Lose) = fault {
                    self.log.entry(data.index).or_default().0 += count(&batch);
                }
                let answer = PartitionProduceResponse::default().with_index(data.index).with_error_code(code);
                answered.partition_responses.push(answer.with_base_offset(if code == 0 { base } else { -1 }));
            }
            response.responses.push(answered);
        }
        response
    }

    fn append(&mut self, partition: i32, batch: &Bytes) {
        let (end, batches) = self.log.entry(partition).or_default();
        let mut stored = batch.to_vec();
        // The base offset lies outside the checksum.
        stored[..8].copy_from_slice(&end.to_be_bytes());
        *end += count(batch);
        batches.push(stored.into());
    }

    fn fetch(&self, request: &FetchRequest, code: i16, fault: Option<Fault>) -> FetchResponse {
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|wanted| {
                let empty = (0, Vec::new());
                let (end, batches) = self.log.get(&wanted.partition).unwrap_or(&empty);
                let from = batches.iter().filter(|batch| base(batch) + count(batch) > wanted.fetch_offset);
                let mut records: Vec<u8> = from.flat_map(|batch| batch.to_vec()).collect();
                if let (Some(Fault::Flip), Some(last)) = (fault, records.last_mut()) {
                    *last ^= 1;
                }
                let records = if code == 0 { records } else { Vec::new() };
                PartitionData::default()
                    .with_partition_index(wanted.partition)
                    .with_error_code(code)
                    .with_high_watermark(*end)
                    .with_records(Some(records.into()))
            });
            FetchableTopicResponse::default()
                .with_topic(topic.topic.clone())
                .with_topic_id(topic.topic_id)
                .with_partitions(partitions.collect())
        });
        FetchResponse::default().with_responses(topics.collect())
    }

    fn join(&mut self, request: &JoinGroupRequest, code: i16) -> JoinGroupResponse {
        let me = StrBytes::from_static_str("m1");
        if code == 0 {
            self.generation += 1;
        }
        let protocol = request.protocols.first().expect("a protocol").clone();
        let member = join_group_response::JoinGroupResponseMember::default()
            .with_member_id(me.clone())
            .with_metadata(protocol.metadata);
        JoinGroupResponse::default()
            .with_error_code(code)
            .with_generation_id(self.generation)
            .with_protocol_type(Some(StrBytes::from_static_str("consumer")))
            .with_protocol_name(Some(protocol.name))
            .with_leader(me.clone())
            .with_member_id(me)
            .with_members(vec![member])
    }

    fn commit(&mut self, request: &OffsetCommitRequest, code: i16) -> OffsetCommitResponse {
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                let index = partition.partition_index;
                if code == 0 {
                    self.committed.retain(|(name, known, _)| (name, *known) != (&topic.name, index));
                    self.committed.push((topic.name.clone(), index, partition.committed_offset));
                }
                OffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code)
            });
            OffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
        });
        OffsetCommitResponse::default().with_topics(topics.collect())
    }

    fn committed(&self, code: i16) -> OffsetFetchResponse {
        let topics = self.committed.iter().map(|(name, index, offset)| {
            let partition = OffsetFetchResponsePartition::default()
                .with_partition_index(*index)
                .with_committed_offset(*offset)
                .with_error_code(code);
            OffsetFetchResponseTopic::default().with_name(name.clone()).with_partitions(vec![partition])
        });
        OffsetFetchResponse::default().with_topics(topics.collect())
    }
}

fn base(batch: &Bytes) -> i64 {
    i64::from_be_bytes(batch[..8].try_into().expect("eight bytes"))
}

/// The record count in a batch's header.
fn count(batch: &Bytes) -> i64 {
    i64::from(i32::from_be_bytes(batch[57..61].try_into().expect("four bytes")))
}
