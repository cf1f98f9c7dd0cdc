//! An idempotent producer of one partition: batches in flight together, retried in order until they are stored.

use std::{collections::VecDeque, time::Duration};

use crate::{
    base::{ErrorCode, PartitionKey, ProducerId},
    partition::validate,
    protocol::compression::Compression,
    replica::{Appended, Local, Produced},
    shard::ProducePart,
    sim::{
        connection::Connection,
        records::{self, Value},
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

    async fn round(&mut self, connection: &Connection) -> Then {
        if self.world.model.is_deleted(self.key) || (self.world.finishing.get() && self.pending.is_empty()) {
            return Then::End;
        }
        let id = match self.id {
            Some(id) => id,
            None => match connection.ask(|router| async move { router.next_producer_id().await }).await {
                Ok(Ok(id)) => {
                    self.world.model.producer_id(id.0);
                    *self.id.insert(id)
                }
                Ok(Err(_)) => {
                    self.world.pause(5000).await;
                    return Then::GoOn;
                }
                Err(_) => return Then::Reconnect,
            },
        };
        self.top_up();
        let timeout = if self.world.one_in(12) { Duration::from_micros(300) } else { Duration::from_secs(30) };
        let answers: Vec<_> = self.pending.iter().map(|batch| self.send(connection, id, batch, timeout)).collect();
        let mut refused = None;
        let mut stored = 0;
        for answer in answers {
            match answer.await {
                None => {
                    self.pending.drain(..stored);
                    return Then::Reconnect;
                }
                Some(Ok(produced)) => {
                    let hint = self.world.model.hint(self.key);
                    // What timed out may have been stored. So may what finds the disk full, in an earlier round: room is asked
                    // for before it is seen that a batch is there already, and the next one may be there as well and find room.
                    let may_be_stored =
                        matches!(refused, None | Some(ErrorCode::RequestTimedOut | ErrorCode::KafkaStorageError));
                    assert!(may_be_stored, "{hint}: a batch overtook one that was refused with {refused:?}");
                    if refused.is_none() {
                        self.stored(stored, &produced);
                        stored += 1;
                    }
                }
                Some(Err(error)) => {
                    self.check_refusal(error, refused);
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

    fn send(
        &self,
        connection: &Connection,
        id: ProducerId,
        batch: &Batch,
        timeout: Duration,
    ) -> crate::io::channel::OneshotReceiver<Appended> {
        let now = self.world.wall();
        let writer = self.writer;
        let values = (batch.first..batch.first + batch.count).map(|number| Value { writer, number });
        let bytes = records::batch(values, (id, batch.sequence), batch.codec, now);
        let key = self.key;
        connection.begin(move |router| {
            Box::pin(async move {
                let Some(topic) = router.topic(key.topic_id) else {
                    let gone: Local<Appended> = Box::pin(async { Err(ErrorCode::UnknownTopicOrPartition) });
                    return gone;
                };
                let batch = validate(bytes, &topic.rules, 9, now).expect("a good batch");
                let pending = router.produce(vec![ProducePart { key, batch }]).await;
                let waits: Local<Appended> =
                    Box::pin(async move { pending.wait(timeout).await.pop().expect("an answer for each batch") });
                waits
            })
        })
    }

    fn stored(&self, index: usize, produced: &Produced) {
        let batch = &self.pending[index];
        let model = &self.world.model;
        for (delta, number) in (batch.first..batch.first + batch.count).enumerate() {
            model.lies(self.key, produced.base_offset.0 + delta as i64, Value { writer: self.writer, number });
        }
        model.acks.set(model.acks.get() + 1);
    }

    fn check_refusal(&self, error: ErrorCode, before: Option<ErrorCode>) {
        let hint = self.world.model.hint(self.key);
        match error {
            ErrorCode::UnknownTopicOrPartition => {
                assert!(self.world.model.is_deleted(self.key), "{hint}: the topic is there, but not for a producer");
            }
            // The one before it was refused, or will not have been stored in time.
            ErrorCode::OutOfOrderSequenceNumber => {
                assert!(before.is_some(), "{hint}: records of an idempotent producer were forgotten");
            }
            ErrorCode::RequestTimedOut | ErrorCode::KafkaStorageError | ErrorCode::NotLeaderOrFollower => {}
            other => panic!("{hint}: produce was refused with {other:?}"),
        }
    }
}
