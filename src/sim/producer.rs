//! An idempotent producer of one partition: batches in flight together, retried in order until they are stored.

use std::collections::VecDeque;

use kafka_protocol::messages::{
    InitProducerIdRequest, ProduceRequest, ProduceResponse, TopicName,
    produce_request::{PartitionProduceData, TopicProduceData},
};

use crate::{
    base::{ErrorCode, PartitionKey, ProducerId},
    protocol::compression::Compression,
    sim::{
        broker::Life,
        connection::Gone,
        member::{TOPIC, text},
        records::{self, Value},
        wire::Wire,
        world::World,
    },
};

/// As in Kafka's clients: the broker remembers five batches.
const IN_FLIGHT_MAX: usize = 5;

struct Batch {
    first: u32,
    count: u32,
    sequence: i32,
    codec: Compression,
}

struct Producer {
    world: World,
    key: PartitionKey,
    writer: u32,
    id: Option<ProducerId>,
    /// The first batch of a producer goes alone: a partition that knows nothing of it takes any sequence.
    begun: bool,
    next: u32,
    sequence: i32,
    losses: u32,
    pending: VecDeque<Batch>,
}

/// What becomes of the producer.
enum Then {
    Reconnect,
    GoOn,
    End,
}

/// Runs until the topic is deleted or the schedule ends.
pub async fn run(world: World, key: PartitionKey) {
    let writer = world.model.writer();
    let losses = world.model.with(key, |promised| promised.losses);
    let mut producer =
        Producer { world, key, writer, id: None, begun: false, next: 0, sequence: 0, losses, pending: VecDeque::new() };
    loop {
        let connection = producer.world.connect().await;
        producer.begin_anew_after_a_loss();
        loop {
            match producer.round(&connection).await {
                Then::GoOn => {}
                Then::Reconnect => break,
                Then::End => return,
            }
        }
    }
}

impl Producer {
    fn begin_anew_after_a_loss(&mut self) {
        let losses = self.world.model.with(self.key, |promised| promised.losses);
        if losses != self.losses {
            self.losses = losses;
            self.writer = self.world.model.writer();
            (self.id, self.begun, self.next, self.sequence) = (None, false, 0, 0);
            self.pending.clear();
        }
    }

    fn top_up(&mut self) {
        let wanted = if self.begun { 1 + self.world.rand.below(IN_FLIGHT_MAX as u64) as usize } else { 1 };
        while self.pending.len() < wanted && !self.world.finishing.get() {
            let count = 1 + self.world.rand.below(6) as u32;
            let codec = match self.world.rand.below(8) {
                0 => Compression::Lz4,
                1 => Compression::Gzip,
                _ => Compression::None,
            };
            self.pending.push_back(Batch { first: self.next, count, sequence: self.sequence, codec });
            self.next += count;
            self.sequence += count as i32;
        }
    }

    async fn round(&mut self, connection: &Wire) -> Then {
        if self.world.model.is_deleted(self.key) || (self.world.finishing.get() && self.pending.is_empty()) {
            return Then::End;
        }
        let id = match self.id {
            Some(id) => id,
            None => match self.new_id(connection).await {
                Ok(Some(id)) => {
                    self.world.model.producer_id(id.0);
                    *self.id.insert(id)
                }
                Ok(None) => {
                    self.world.pause(5000).await;
                    return Then::GoOn;
                }
                Err(Gone) => return Then::Reconnect,
            },
        };
        self.top_up();
        let answers: Vec<_> = self.pending.iter().map(|batch| self.send(connection, id, batch)).collect();
        let mut refused = None;
        let mut stored = 0;
        for answer in answers {
            let answer = match answer.await {
                Ok(answer) => answer,
                Err(Gone) => {
                    self.pending.drain(..stored);
                    return Then::Reconnect;
                }
            };
            match base_offset(&answer) {
                Ok(base_offset) => {
                    let hint = self.world.model.hint(self.key);
                    // What timed out may have been stored. So may what finds the disk full, in an earlier round: room is asked
                    // for before it is seen that a batch is there already, and the next one may be there as well and find room.
                    let may_be_stored =
                        matches!(refused, None | Some(ErrorCode::RequestTimedOut | ErrorCode::KafkaStorageError));
                    assert!(may_be_stored, "{hint}: a batch overtook one that was refused with {refused:?}");
                    if refused.is_none() {
                        self.stored(stored, base_offset);
                        stored += 1;
                    }
                }
                Err(error) => {
                    self.check_refusal(&connection.life, error, refused);
                    refused = refused.or(Some(error));
                }
            }
        }
        self.pending.drain(..stored);
        self.begun |= stored > 0;
        if refused.is_some() {
            self.world.pause(20_000).await;
        } else if self.world.one_in(3) {
            self.world.pause(4000).await;
        }
        // Now and then a client hangs up.
        if self.world.one_in(25) { Then::Reconnect } else { Then::GoOn }
    }

    async fn new_id(&self, connection: &Wire) -> Result<Option<ProducerId>, Gone> {
        let request = InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(60_000);
        let answer = connection.ask(self.world.version(0, 4), &request).await?;
        Ok((answer.error_code == 0).then_some(ProducerId(answer.producer_id.0)))
    }

    /// By id, so that a topic of the same name that came since gets nothing; by name where there is no such topic.
    fn send(
        &self,
        connection: &Wire,
        id: ProducerId,
        batch: &Batch,
    ) -> impl Future<Output = Result<ProduceResponse, Gone>> + use<> {
        let writer = self.writer;
        let values = (batch.first..batch.first + batch.count).map(|number| Value { writer, number });
        let bytes = records::batch(values, (id, batch.sequence), batch.codec);
        let named = self.world.model.name_of(self.key.topic_id).is_some_and(|name| name == TOPIC);
        let version = if named { self.world.version(3, 13) } else { 13 };
        let acks = if self.world.one_in(4) { 1 } else { -1 };
        connection.begin(version, &request(version, self.key, TOPIC, bytes, acks))
    }

    fn stored(&self, index: usize, base_offset: i64) {
        let batch = &self.pending[index];
        let model = &self.world.model;
        for (delta, number) in (batch.first..batch.first + batch.count).enumerate() {
            model.lies(self.key, base_offset + delta as i64, Value { writer: self.writer, number });
        }
        model.acks.set(model.acks.get() + 1);
    }

    fn check_refusal(&self, life: &Life, error: ErrorCode, before: Option<ErrorCode>) {
        let hint = self.world.model.hint(self.key);
        match error {
            ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId => {
                assert!(self.world.model.is_deleted(self.key), "{hint}: the topic is there, but not for a producer");
            }
            // The one before it was refused, or will not have been stored in time.
            ErrorCode::OutOfOrderSequenceNumber => {
                assert!(before.is_some(), "{hint}: records of an idempotent producer were forgotten");
            }
            ErrorCode::RequestTimedOut => {}
            _ if self.world.partition_may_refuse(life, self.key, error) => {}
            other => panic!("{hint}: produce was refused with {other:?}"),
        }
    }
}

/// One batch for one partition: by id from v13 on, by name before.
pub fn request(version: i16, key: PartitionKey, name: &str, records: bytes::Bytes, acks: i16) -> ProduceRequest {
    let partition = PartitionProduceData::default().with_index(key.partition).with_records(Some(records));
    let topic = TopicProduceData::default().with_partition_data(vec![partition]);
    let topic =
        if version >= 13 { topic.with_topic_id(key.topic_id.0) } else { topic.with_name(TopicName(text(name))) };
    ProduceRequest::default().with_acks(acks).with_timeout_ms(30_000).with_topic_data(vec![topic])
}

fn base_offset(answer: &ProduceResponse) -> Result<i64, ErrorCode> {
    let partition = &answer.responses[0].partition_responses[0];
    match ErrorCode::try_from_code(partition.error_code) {
        None => Ok(partition.base_offset),
        Some(error) => Err(error),
    }
}
