//! A broker that keeps nothing: it answers at once, so that the generator's own ceiling and floor can be measured.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        ApiKey, ApiVersionsResponse, BrokerId, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest,
        DeleteTopicsResponse, InitProducerIdResponse, MetadataRequest, MetadataResponse, ProduceRequest,
        ProduceResponse, ProducerId, RequestHeader, ResponseHeader, TopicName,
        api_versions_response::ApiVersion,
        create_topics_response::CreatableTopicResult,
        delete_topics_response::DeletableTopicResult,
        metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
        produce_response::{PartitionProduceResponse, TopicProduceResponse},
    },
    protocol::{Decodable, Encodable, StrBytes},
};
use uuid::Uuid;

use crate::{
    client::wire::FRAME_BYTES_MAX,
    sys::{self, Epoll, Event, Interest},
};

const LISTENER_TOKEN: u64 = u64::MAX;
const READ_BYTES: usize = 256 << 10;
const CONNECTIONS_MAX: usize = 4_096;
const POLL_NS: u64 = 50_000_000;
const UNKNOWN_TOPIC: i16 = 3;
/// What it implements: key, lowest and highest version.
const APIS: [(ApiKey, i16, i16); 6] = [
    (ApiKey::Produce, 3, 13),
    (ApiKey::Metadata, 0, 13),
    (ApiKey::ApiVersions, 0, 4),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::DeleteTopics, 1, 6),
    (ApiKey::InitProducerId, 0, 5),
];

/// How a null broker answers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manners {
    /// Every batch of requests that arrives together is answered that much later, with the CPU kept busy: a slower broker,
    /// for tests of the gate.
    pub delay_ns: u64,
    /// Sent as throttle_time_ms with every produce reply, as a broker with quotas would.
    pub throttle_ms: i32,
}

/// A running null broker; it ends when dropped.
pub struct NullBroker {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    cpu_ns: Arc<AtomicU64>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl NullBroker {
    /// Starts on the loopback interface, in a thread of its own. Port 0 takes a free one.
    pub fn start(port: u16, manners: Manners) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let cpu_ns = Arc::new(AtomicU64::new(0));
        let (stopped, cpu) = (Arc::clone(&stop), Arc::clone(&cpu_ns));
        let body = move || Server::new(listener, address, manners)?.serve(&stopped, &cpu);
        let thread = std::thread::Builder::new().name("null-broker".to_owned()).spawn(body)?;
        Ok(Self { address, stop, cpu_ns, thread: Some(thread) })
    }

    /// CPU time of its thread so far.
    pub fn cpu_ns(&self) -> u64 {
        self.cpu_ns.load(Ordering::Relaxed)
    }
}

impl Drop for NullBroker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Whatever it ended with, nobody depends on it any more.
            let _ = thread.join();
        }
    }
}

struct Peer {
    stream: TcpStream,
    input: BytesMut,
    output: BytesMut,
}

struct Topic {
    id: Uuid,
    partitions: i32,
    offsets: Vec<i64>,
}

struct Server {
    listener: TcpListener,
    epoll: Epoll,
    peers: BTreeMap<u64, Peer>,
    next_token: u64,
    desk: Desk,
}

/// What the null broker answers, without its sockets.
pub struct Desk {
    address: SocketAddr,
    topics: BTreeMap<String, Topic>,
    names: BTreeMap<Uuid, String>,
    next_producer: i64,
    manners: Manners,
}

impl Server {
    fn new(listener: TcpListener, address: SocketAddr, manners: Manners) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        epoll.add(&listener, LISTENER_TOKEN, Interest::Read)?;
        let desk = Desk::new(address, manners);
        Ok(Self { listener, epoll, peers: BTreeMap::new(), next_token: 0, desk })
    }

    fn serve(&mut self, stop: &AtomicBool, cpu_ns: &AtomicU64) -> io::Result<()> {
        let mut events: Vec<Event> = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            events.clear();
            self.epoll.wait(POLL_NS, &mut events)?;
            for event in events.drain(..) {
                if event.token == LISTENER_TOKEN {
                    self.accept()?;
                } else if self.on_peer(event.token).is_err() {
                    self.peers.remove(&event.token);
                }
            }
            cpu_ns.store(sys::thread_cpu_ns(), Ordering::Relaxed);
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.peers.len() >= CONNECTIONS_MAX {
                continue;
            }
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let token = self.next_token;
            self.next_token += 1;
            self.epoll.add(&stream, token, Interest::Read)?;
            let peer = Peer { stream, input: BytesMut::new(), output: BytesMut::new() };
            self.peers.insert(token, peer);
        }
        Ok(())
    }

    /// Reads, answers, writes. A peer that does not read its answers waits for its own next request.
    fn on_peer(&mut self, token: u64) -> io::Result<()> {
        let Some(mut peer) = self.peers.remove(&token) else {
            return Ok(());
        };
        peer.input.reserve(READ_BYTES);
        match sys::receive(&peer.stream, &mut peer.input) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        while let Some(frame) = next_frame(&mut peer.input)? {
            let start = peer.output.len();
            peer.output.put_u32(0);
            let answered = self.desk.answer(frame, &mut peer.output).map_err(io::Error::other)?;
            if answered {
                let length = (peer.output.len() - start - 4) as u32;
                peer.output[start..start + 4].copy_from_slice(&length.to_be_bytes());
            } else {
                peer.output.truncate(start);
            }
        }
        let until = sys::monotonic_ns() + self.desk.manners.delay_ns;
        while self.desk.manners.delay_ns > 0 && sys::monotonic_ns() < until {
            std::hint::spin_loop();
        }
        while !peer.output.is_empty() {
            match peer.stream.write(&peer.output) {
                Ok(count) => peer.output.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.peers.insert(token, peer);
        Ok(())
    }
}

impl Desk {
    /// Metadata names this address as the only broker's.
    pub fn new(address: SocketAddr, manners: Manners) -> Self {
        Self { address, topics: BTreeMap::new(), names: BTreeMap::new(), next_producer: 1_000, manners }
    }

    /// Appends the answer to a request without its length, and without the answer's. False: this request has none (acks=0).
    /// # Errors  what no client that read our ApiVersions sends.
    pub fn answer(&mut self, mut frame: Bytes, out: &mut BytesMut) -> Result<bool, String> {
        let key = frame.get(..2).map(|key| i16::from_be_bytes([key[0], key[1]]));
        let version = frame.get(2..4).map(|version| i16::from_be_bytes([version[0], version[1]]));
        let (Some(key), Some(version)) = (key, version) else {
            return Err("a short request".to_owned());
        };
        let known = APIS.iter().find(|(api, low, high)| *api as i16 == key && (*low..=*high).contains(&version));
        let Some((api, _, _)) = known else {
            return Err(format!("API {key} version {version}"));
        };
        let header = RequestHeader::decode(&mut frame, api.request_header_version(version)).map_err(text)?;
        ResponseHeader::default()
            .with_correlation_id(header.correlation_id)
            .encode(out, api.response_header_version(version))
            .map_err(text)?;
        match api {
            ApiKey::Produce => {
                let request = ProduceRequest::decode(&mut frame, version).map_err(text)?;
                if request.acks == 0 {
                    return Ok(false);
                }
                self.produce(&request).encode(out, version).map_err(text)?;
            }
            ApiKey::Metadata => {
                let request = MetadataRequest::decode(&mut frame, version).map_err(text)?;
                self.metadata(&request).encode(out, version).map_err(text)?;
            }
            ApiKey::CreateTopics => {
                let request = CreateTopicsRequest::decode(&mut frame, version).map_err(text)?;
                self.create(&request).encode(out, version).map_err(text)?;
            }
            ApiKey::DeleteTopics => {
                let request = DeleteTopicsRequest::decode(&mut frame, version).map_err(text)?;
                self.delete(&request).encode(out, version).map_err(text)?;
            }
            ApiKey::InitProducerId => {
                self.next_producer += 1;
                InitProducerIdResponse::default()
                    .with_producer_id(ProducerId(self.next_producer))
                    .with_producer_epoch(0)
                    .encode(out, version)
                    .map_err(text)?;
            }
            _ => versions().encode(out, version).map_err(text)?,
        }
        Ok(true)
    }

    fn produce(&mut self, request: &ProduceRequest) -> ProduceResponse {
        let mut response = ProduceResponse::default().with_throttle_time_ms(self.manners.throttle_ms);
        for data in &request.topic_data {
            let name = self.names.get(&data.topic_id).cloned().unwrap_or_else(|| data.name.to_string());
            let mut answered =
                TopicProduceResponse::default().with_name(data.name.clone()).with_topic_id(data.topic_id);
            for partition in &data.partition_data {
                let offset = self.topics.get_mut(&name).and_then(|t| t.offsets.get_mut(partition.index as usize));
                let answer = PartitionProduceResponse::default().with_index(partition.index);
                answered.partition_responses.push(match offset {
                    Some(offset) => {
                        let base = *offset;
                        *offset += record_count(partition.records.as_ref());
                        answer.with_base_offset(base)
                    }
                    None => answer.with_error_code(UNKNOWN_TOPIC).with_base_offset(-1),
                });
            }
            response.responses.push(answered);
        }
        response
    }

    fn metadata(&self, request: &MetadataRequest) -> MetadataResponse {
        let broker = MetadataResponseBroker::default()
            .with_node_id(BrokerId(1))
            .with_host(StrBytes::from_string(self.address.ip().to_string()))
            .with_port(i32::from(self.address.port()));
        let wanted = request.topics.iter().flatten().filter_map(|topic| topic.name.as_ref());
        let topics = wanted.map(|name| {
            let answer = MetadataResponseTopic::default().with_name(Some(name.clone()));
            let Some(topic) = self.topics.get(name.as_str()) else {
                return answer.with_error_code(UNKNOWN_TOPIC);
            };
            let partitions = (0..topic.partitions).map(|index| {
                MetadataResponsePartition::default()
                    .with_partition_index(index)
                    .with_leader_id(BrokerId(1))
                    .with_leader_epoch(0)
            });
            answer.with_topic_id(topic.id).with_partitions(partitions.collect())
        });
        MetadataResponse::default()
            .with_topics(topics.collect())
            .with_brokers(vec![broker])
            .with_controller_id(BrokerId(1))
            .with_cluster_id(Some(StrBytes::from_static_str("null")))
    }

    fn create(&mut self, request: &CreateTopicsRequest) -> CreateTopicsResponse {
        let made = request.topics.iter().map(|wanted| {
            let id = Uuid::from_u128(0x100 + self.topics.len() as u128);
            let partitions = wanted.num_partitions.clamp(1, 100_000);
            let topic = Topic { id, partitions, offsets: vec![0; partitions as usize] };
            self.names.insert(id, wanted.name.to_string());
            self.topics.insert(wanted.name.to_string(), topic);
            CreatableTopicResult::default().with_name(wanted.name.clone()).with_topic_id(id)
        });
        let made = made.collect();
        CreateTopicsResponse::default().with_topics(made)
    }

    fn delete(&mut self, request: &DeleteTopicsRequest) -> DeleteTopicsResponse {
        let named: Vec<TopicName> = request.topics.iter().filter_map(|topic| topic.name.clone()).collect();
        let names = named.into_iter().chain(request.topic_names.iter().cloned());
        let deleted = names.map(|name| {
            self.topics.remove(name.as_str());
            DeletableTopicResult::default().with_name(Some(name))
        });
        let deleted = deleted.collect();
        DeleteTopicsResponse::default().with_responses(deleted)
    }
}

/// The codec's errors are texts.
fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn versions() -> ApiVersionsResponse {
    let keys = APIS.iter().map(|(api, low, high)| {
        ApiVersion::default().with_api_key(*api as i16).with_min_version(*low).with_max_version(*high)
    });
    ApiVersionsResponse::default().with_api_keys(keys.collect())
}

/// The record count of a batch's header.
fn record_count(records: Option<&Bytes>) -> i64 {
    let count = records.and_then(|bytes| bytes.get(57..61));
    count.map_or(0, |count| i64::from(i32::from_be_bytes([count[0], count[1], count[2], count[3]])))
}

fn next_frame(input: &mut BytesMut) -> io::Result<Option<Bytes>> {
    let Some(head) = input.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*head) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    if input.len() < 4 + length {
        return Ok(None);
    }
    input.advance(4);
    Ok(Some(input.split_to(length).freeze()))
}
