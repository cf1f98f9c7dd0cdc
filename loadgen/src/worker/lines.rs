//! The connections of one worker: who owns which, at which versions it speaks, and when a lost one is tried again.

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc};

use kafka_protocol::messages::{
    FetchRequest, FetchResponse, ProduceRequest,
    produce_request::{PartitionProduceData, TopicProduceData},
};

use crate::{
    client::{
        cluster::{Layout, Numbers},
        socket::Socket,
        throttle::Throttled,
        wire::{Reply, decode_body},
    },
    fetch::TOPIC_ID_VERSION,
    produce::{Answer, Sent},
    sys::Epoll,
};

const RECONNECT_PAUSE_NS: u64 = 100_000_000;

/// The connection is of no use any more: closed, reset, or it broke the protocol.
#[derive(Clone, Copy, Debug)]
pub struct Lost;

/// Whose connection it is, by place in the worker's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    Producer(usize),
    Consumer(usize),
}

/// Topics and partitions by number, and numbers by topic and partition.
#[derive(Clone)]
pub struct TopicNames {
    pub layout: Arc<Layout>,
    pub numbers: Arc<Numbers>,
}

struct Line {
    owner: Owner,
    broker: i32,
    socket: Socket<()>,
    produce_version: Option<i16>,
    fetch_version: Option<i16>,
}

/// All connections of a worker. A token is a place in the list plus a generation, so that a late event hits nobody else.
pub struct Lines {
    client_id: String,
    acks: i16,
    has_topic_ids: bool,
    topics: TopicNames,
    lines: Vec<Option<Line>>,
    generations: Vec<u32>,
    free: Vec<usize>,
    by_owner: BTreeMap<(Owner, i32), u64>,
    brokers: BTreeMap<i32, Vec<SocketAddr>>,
    /// Not before this time; counts the attempts, which take a broker's addresses in turn.
    retries: BTreeMap<(Owner, i32), (u64, usize)>,
    answers: Vec<Answer>,
}

impl Lines {
    pub fn new(client_id: String, acks: i16, has_topic_ids: bool, topics: TopicNames) -> Self {
        Self {
            client_id,
            acks,
            has_topic_ids,
            topics,
            lines: Vec::new(),
            generations: Vec::new(),
            free: Vec::new(),
            by_owner: BTreeMap::new(),
            brokers: BTreeMap::new(),
            retries: BTreeMap::new(),
            answers: Vec::new(),
        }
    }

    pub fn set_brokers(&mut self, brokers: BTreeMap<i32, Vec<SocketAddr>>) {
        self.brokers = brokers;
    }

    fn line(&mut self, token: u64) -> Option<&mut Line> {
        let place = token as u32 as usize;
        if self.generations.get(place) != Some(&((token >> 32) as u32)) {
            return None;
        }
        self.lines[place].as_mut()
    }

    pub fn owner(&mut self, token: u64) -> Option<(Owner, i32)> {
        self.line(token).map(|line| (line.owner, line.broker))
    }

    pub fn find(&self, owner: Owner, broker: i32) -> Option<u64> {
        self.by_owner.get(&(owner, broker)).copied()
    }

    pub fn all(&self) -> Vec<(u64, Owner, i32)> {
        self.by_owner.iter().map(|((owner, broker), token)| (*token, *owner, *broker)).collect()
    }

    /// Whether the handshake is done.
    pub fn is_ready(&mut self, token: u64) -> bool {
        self.line(token).is_some_and(|line| line.socket.wire.versions().is_some())
    }

    /// For how many nanoseconds the broker wants silence after the handshake.
    pub fn first_silence_ns(&mut self, token: u64) -> u64 {
        let versions = self.line(token).and_then(|line| line.socket.wire.versions());
        versions.map_or(0, |versions| versions.throttle_time_ms as u64 * 1_000_000)
    }

    /// Connects unless there is a connection, or it is too early to try again.
    pub fn connect(&mut self, owner: Owner, broker: i32, now: u64, epoll: &Epoll) {
        let key = (owner, broker);
        if self.by_owner.contains_key(&key) {
            return;
        }
        let (not_before, attempts) = self.retries.get(&key).copied().unwrap_or((0, 0));
        let Some(addresses) = self.brokers.get(&broker).filter(|_| now >= not_before) else {
            return;
        };
        let address = addresses[attempts % addresses.len()];
        self.retries.insert(key, (now + RECONNECT_PAUSE_NS, attempts + 1));
        let place = self.free.pop().unwrap_or_else(|| {
            self.lines.push(None);
            self.generations.push(0);
            self.lines.len() - 1
        });
        let token = u64::from(self.generations[place]) << 32 | place as u64;
        match Socket::connect(address, &self.client_id, token, epoll) {
            Ok(socket) => {
                let line = Line { owner, broker, socket, produce_version: None, fetch_version: None };
                self.lines[place] = Some(line);
                self.by_owner.insert(key, token);
            }
            // Tried again after the pause, at the next address.
            Err(_) => self.free.push(place),
        }
    }

    pub fn close(&mut self, token: u64, now: u64) {
        let Some((owner, broker)) = self.owner(token) else {
            return;
        };
        let place = token as u32 as usize;
        self.lines[place] = None;
        self.generations[place] = self.generations[place].wrapping_add(1);
        self.free.push(place);
        self.by_owner.remove(&(owner, broker));
        let attempts = self.retries.get(&(owner, broker)).map_or(0, |(_, attempts)| *attempts);
        self.retries.insert((owner, broker), (now + RECONNECT_PAUSE_NS, attempts));
    }

    pub fn on_writable(&mut self, token: u64, epoll: &Epoll) -> Result<(), Lost> {
        self.line(token).map_or(Ok(()), |line| line.socket.on_writable(epoll).map_err(|_| Lost))
    }

    pub fn on_readable(&mut self, token: u64) -> Result<(), Lost> {
        self.line(token).map_or(Ok(()), |line| line.socket.on_readable().map_err(|_| Lost))
    }

    pub fn flush(&mut self, token: u64, epoll: &Epoll) -> io::Result<()> {
        self.line(token).map_or(Ok(()), |line| line.socket.flush(epoll))
    }

    fn next_reply(&mut self, token: u64) -> Result<Option<Reply<()>>, Lost> {
        let has_topic_ids = self.has_topic_ids;
        let Some(line) = self.line(token) else {
            return Ok(None);
        };
        let reply = line.socket.wire.next_reply().map_err(|_| Lost)?;
        if line.produce_version.is_none()
            && let Some(versions) = line.socket.wire.versions()
        {
            let cap = |before: i16| if has_topic_ids { i16::MAX } else { before };
            line.produce_version = versions.pick_at_most::<ProduceRequest>(cap(12)).ok();
            line.fetch_version = versions.pick_at_most::<FetchRequest>(cap(TOPIC_ID_VERSION - 1)).ok();
        }
        Ok(reply)
    }

    /// The answers of the next produce reply, and for how many nanoseconds the broker wants silence.
    pub fn next_answers(&mut self, token: u64) -> Result<Option<(&[Answer], u64)>, Lost> {
        let Some(reply) = self.next_reply(token)? else {
            return Ok(None);
        };
        let response = decode_body::<ProduceRequest>(&reply.body, reply.version).map_err(|_| Lost)?;
        self.answers.clear();
        for topic in &response.responses {
            for partition in &topic.partition_responses {
                let number = self.topics.numbers.find(topic.name.as_str(), topic.topic_id, partition.index);
                self.answers.extend(number.map(|number| Answer {
                    partition: number,
                    code: partition.error_code,
                    base_offset: partition.base_offset,
                }));
            }
        }
        Ok(Some((&self.answers, ProduceRequest::silence(reply.version, &response).as_nanos() as u64)))
    }

    /// The next fetch reply, and for how many nanoseconds the broker wants silence.
    pub fn next_fetched(&mut self, token: u64) -> Result<Option<(FetchResponse, u64)>, Lost> {
        let Some(reply) = self.next_reply(token)? else {
            return Ok(None);
        };
        let response = decode_body::<FetchRequest>(&reply.body, reply.version).map_err(|_| Lost)?;
        let silence_ns = FetchRequest::silence(reply.version, &response).as_nanos() as u64;
        Ok(Some((response, silence_ns)))
    }

    pub fn fetch_version(&mut self, token: u64) -> Option<i16> {
        self.line(token)?.fetch_version
    }

    pub fn send_fetch(&mut self, token: u64, request: &FetchRequest) -> Result<(), Lost> {
        let Some(line) = self.line(token) else {
            return Err(Lost);
        };
        let version = line.fetch_version.ok_or(Lost)?;
        line.socket.wire.send((), version, request, true).map_err(|_| Lost)
    }

    pub fn send_produce(&mut self, token: u64, sent: &Sent, timeout_ns: u64) -> Result<(), Lost> {
        let acks = self.acks;
        let layout = Arc::clone(&self.topics.layout);
        let Some(line) = self.line(token) else {
            return Err(Lost);
        };
        let version = line.produce_version.ok_or(Lost)?;
        let request = ProduceRequest::default()
            .with_acks(acks)
            .with_timeout_ms((timeout_ns / 1_000_000) as i32)
            .with_topic_data(topic_data(sent, &layout, version));
        line.socket.wire.send((), version, &request, acks != 0).map_err(|_| Lost)
    }
}

fn topic_data(sent: &Sent, layout: &Layout, version: i16) -> Vec<TopicProduceData> {
    let mut topics: Vec<(u32, TopicProduceData)> = Vec::with_capacity(1);
    for batch in &sent.batches {
        let partition = layout.partitions[batch.partition as usize];
        let data = PartitionProduceData::default().with_index(partition.index).with_records(Some(batch.sealed()));
        // Kafka answers a topic that is named twice in one request with an error, so each is gathered.
        if let Some((_, topic)) = topics.iter_mut().find(|(place, _)| *place == partition.topic) {
            topic.partition_data.push(data);
            continue;
        }
        let topic = &layout.topics[partition.topic as usize];
        let fresh = TopicProduceData::default().with_partition_data(vec![data]);
        let fresh = if version >= TOPIC_ID_VERSION {
            fresh.with_topic_id(topic.id)
        } else {
            fresh.with_name(topic.name.clone())
        };
        topics.push((partition.topic, fresh));
    }
    topics.into_iter().map(|(_, topic)| topic).collect()
}
