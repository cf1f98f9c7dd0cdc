//! Produce (key 0), versions 3–13 (0–2 are advertised and refused, KAFKA-18659).
//! v3 record batches v2 (KIP-98) · v5 log start offset (KIP-207) · v7 zstd (KIP-110) · v8 errors of single records (KIP-467) ·
//! v10 leader hints (KIP-951; nothing to hint at with one broker) · v13 topic ids (KIP-516)
//! acks=1 and acks=all both wait for the record to be durable; acks=0 has no answer, and closes the connection on an error.
//! Differs from Kafka: transactional batches are refused with INVALID_TXN_STATE, there being no transactions yet (without a
//! transactional id with Kafka's TRANSACTIONAL_ID_AUTHORIZATION_FAILED); refusals never carry the log start offset; nobody may
//! write to internal topics, not even `__admin_client`; the time-out is at least a second.

use std::{mem, rc::Rc, time::Duration};

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiKey, ProduceRequest, ProduceResponse,
    produce_request::{PartitionProduceData, TopicProduceData},
    produce_response::{BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse},
};

use crate::{
    api::{
        Context, Outcome, Pending,
        call::{Call, storage_error_for, text, throttled},
        topics,
        view::View,
    },
    base::{ErrorCode, Timestamp},
    io::Instant,
    metadata::{Topic, names},
    metrics::Counter,
    partition::{Refusal, TopicRules, ValidBatch, rewriting_bytes, validate},
    replica::{Acks, Appended, Produced},
    shard::{ProducePart, Rewriting},
};

/// A disk's worst flush is longer than what some clients are ready to wait: they would send everything again.
const TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// The bytes that are validated before the core's other work gets its turn.
const VALIDATED_BEFORE_YIELD: usize = 256 << 10;

throttled!(ProduceResponse);

/// First stage: validates every batch and hands it over. Second: waits until all are durable.
pub(super) async fn begin(context: Rc<Context>, call: Call<ProduceRequest>, began: Instant) -> Pending {
    let (request, call) = call.take();
    let (acks, version) = (request.acks, call.version);
    let mut sorting = Sorting {
        now: context.io.clock.wall(),
        acks,
        version: call.version,
        transactional_id: request.transactional_id.is_some(),
        timeout: Duration::from_millis(request.timeout_ms.max(0) as u64).max(TIMEOUT_MIN),
        ..Sorting::default()
    };
    let image = context.router.image();
    for topic in request.topic_data {
        sorting.topic(&context, call.view(&image), topic).await;
    }
    let Sorting { mut topics, parts, places, timeout, decided, .. } = sorting;
    let bytes = parts.iter().map(|part| part.batch.bytes.len()).sum();
    let pending = context.router.produce(parts).await;
    call.asker.session.placement.appended(pending.elsewhere(), bytes);
    Box::pin(async move {
        let appended = pending.wait(timeout).await;
        for ((topic, partition), appended) in decided.into_iter().chain(places.into_iter().zip(appended)) {
            let answer = &mut topics[topic].partition_responses[partition];
            match appended {
                Ok(produced) => stored(answer, &produced),
                Err(error) => refuse(answer, &not_stored(version, error)),
            }
        }
        let failed = topics.iter().flat_map(|topic| &topic.partition_responses).filter(|it| it.error_code != 0).count();
        context.io.metrics.add(Counter::FailedProduces, failed as u64);
        let outcome = if acks == 0 {
            match without_answer(&topics) {
                Outcome::Nothing => call.silence(),
                outcome => outcome,
            }
        } else {
            call.reply(ProduceResponse::default().with_responses(topics))
        };
        context.counted(ApiKey::Produce, began, outcome)
    })
}

/// The only way to tell a client that wants no answers is to hang up.
fn without_answer(topics: &[TopicProduceResponse]) -> Outcome {
    let failed = topics.iter().flat_map(|topic| &topic.partition_responses).find(|partition| partition.error_code != 0);
    match failed {
        None => Outcome::Nothing,
        Some(partition) => {
            let error = ErrorCode::try_from_code(partition.error_code);
            Outcome::Close(format!("produce with acks=0 failed for partition {}: {error:?}", partition.index))
        }
    }
}

/// Batches on their way to their partitions, and the answer as far as it is known.
#[derive(Default)]
struct Sorting {
    now: Timestamp,
    acks: i16,
    version: i16,
    /// Whether the request names one.
    transactional_id: bool,
    topics: Vec<TopicProduceResponse>,
    parts: Vec<ProducePart>,
    /// Where in `topics` the outcome of each of `parts` goes.
    places: Vec<(usize, usize)>,
    /// Some of `parts` were made anew and hold memory for that.
    holds: bool,
    /// What became of parts that made room for others, and where it goes.
    decided: Vec<((usize, usize), Appended)>,
    /// For how long what is handed over is waited for.
    timeout: Duration,
    validated_bytes: usize,
}

impl Sorting {
    async fn topic(&mut self, context: &Context, view: View<'_>, data: TopicProduceData) {
        let found = view.find(&data.name, data.topic_id, self.version >= 13);
        let mut answers = Vec::with_capacity(data.partition_data.len());
        for partition in data.partition_data {
            let index = partition.index;
            let mut answer = PartitionProduceResponse::default().with_index(index);
            match self.part(context, found, partition).await {
                Ok(part) => {
                    self.places.push((self.topics.len(), answers.len()));
                    self.parts.push(part);
                }
                Err(refusal) => refuse(&mut answer, &refusal),
            }
            answers.push(answer);
            if self.validated_bytes >= VALIDATED_BEFORE_YIELD {
                self.validated_bytes = 0;
                context.io.clock.yield_now().await;
            }
        }
        self.topics.push(
            TopicProduceResponse::default()
                .with_name(data.name)
                .with_topic_id(data.topic_id)
                .with_partition_responses(answers),
        );
    }

    async fn part(
        &mut self,
        context: &Context,
        found: Result<&Topic, ErrorCode>,
        data: PartitionProduceData,
    ) -> Result<ProducePart, Refusal> {
        let topic = found.map_err(refusal)?;
        let key = topics::partition(topic, data.index).map_err(refusal)?;
        if names::is_internal(&topic.name) {
            return Err(refusal(ErrorCode::InvalidTopicException));
        }
        if !(-1..=1).contains(&self.acks) {
            return Err(refusal(ErrorCode::InvalidRequiredAcks));
        }
        let view = context.router.topic(topic.id).ok_or_else(|| refusal(ErrorCode::UnknownTopicOrPartition))?;
        let records = data.records.unwrap_or_default();
        self.validated_bytes += records.len();
        let batch = self.batch(context, records, &view.rules).await?;
        let acks = if self.acks == -1 { Acks::All } else { Acks::Leader };
        Ok(ProducePart { key, batch, acks })
    }

    async fn batch(&mut self, context: &Context, records: Bytes, rules: &TopicRules) -> Result<ValidBatch, Refusal> {
        let room = match rewriting_bytes(&records, rules) {
            0 => None,
            bytes => Some(self.room(context, bytes).await),
        };
        // Taken last: whoever has it waits for nobody.
        let turn = match records.len() >= VALIDATED_BEFORE_YIELD {
            true => Some(context.large_turn.acquire(1).await),
            false => None,
        };
        let validated = validate(records, rules, self.version, self.now);
        if turn.is_some() {
            self.validated_bytes = 0;
            context.io.clock.yield_now().await;
        }
        drop(turn);
        let mut batch = validated?;
        if let Some(room) = room {
            batch.bytes = room.kept_by(batch.bytes);
            self.holds = true;
        }
        if batch.info.transactional {
            let named = self.transactional_id;
            return Err(refusal(if named {
                ErrorCode::InvalidTxnState
            } else {
                ErrorCode::TransactionalIdAuthorizationFailed
            }));
        }
        Ok(batch)
    }

    /// Memory to make a batch anew in. Who has to wait for it first has stored what he holds of it.
    async fn room(&mut self, context: &Context, bytes: usize) -> Rewriting {
        let memory = context.router.rewrite_memory();
        if let Some(room) = memory.try_take(bytes) {
            return room;
        }
        if mem::take(&mut self.holds) {
            let (parts, places) = (mem::take(&mut self.parts), mem::take(&mut self.places));
            let appended = context.router.produce(parts).await.wait(self.timeout).await;
            self.decided.extend(places.into_iter().zip(appended));
        }
        memory.take(bytes).await
    }
}

/// The last version whose clients do not know KAFKA_STORAGE_ERROR (KIP-112).
const LAST_WITHOUT_STORAGE_ERROR: i16 = 3;

/// What the partition's log refused, or could not keep.
fn not_stored(version: i16, error: ErrorCode) -> Refusal {
    let message = (error == ErrorCode::KafkaStorageError).then(|| {
        "The broker cannot write the partition's log: its disk is full or fails. The broker's own log says more."
            .to_owned()
    });
    Refusal { code: storage_error_for(version, LAST_WITHOUT_STORAGE_ERROR, error), message, record_errors: Vec::new() }
}

fn refusal(code: ErrorCode) -> Refusal {
    Refusal { code, message: None, record_errors: Vec::new() }
}

fn refuse(answer: &mut PartitionProduceResponse, refusal: &Refusal) {
    answer.error_code = refusal.code.code();
    answer.base_offset = -1;
    answer.log_append_time_ms = -1;
    answer.log_start_offset = -1;
    answer.error_message = refusal.message.as_deref().map(text);
    answer.record_errors = refusal
        .record_errors
        .iter()
        .map(|(index, why)| {
            BatchIndexAndErrorMessage::default()
                .with_batch_index(*index)
                .with_batch_index_error_message(why.as_deref().map(text))
        })
        .collect();
}

fn stored(answer: &mut PartitionProduceResponse, produced: &Produced) {
    answer.base_offset = produced.base_offset.0;
    answer.log_append_time_ms = produced.log_append_time.unwrap_or(-1);
    answer.log_start_offset = produced.log_start_offset.0;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Offset;

    #[test]
    fn a_disk_that_fails_is_said_in_words_and_in_a_code_that_the_client_knows() {
        for (version, code) in [(3, 6), (4, 56), (13, 56)] {
            let mut answer = PartitionProduceResponse::default();
            refuse(&mut answer, &not_stored(version, ErrorCode::KafkaStorageError));
            assert_eq!(answer.error_code, code, "v{version}");
            assert!(answer.error_message.is_some_and(|message| message.contains("disk")), "v{version}");
        }
        assert_eq!(not_stored(3, ErrorCode::NotEnoughReplicas).message, None);
    }

    #[test]
    fn outcomes_of_a_partition() {
        let mut answer = PartitionProduceResponse::default().with_index(3);
        stored(&mut answer, &Produced { base_offset: Offset(7), log_append_time: None, log_start_offset: Offset(2) });
        assert_eq!((answer.base_offset, answer.log_append_time_ms, answer.log_start_offset), (7, -1, 2));
        let topics = |answer: &PartitionProduceResponse| {
            [TopicProduceResponse::default().with_partition_responses(vec![answer.clone()])]
        };
        assert!(matches!(without_answer(&topics(&answer)), Outcome::Nothing));
        let why = Refusal {
            code: ErrorCode::InvalidRecord,
            message: Some("One or more records have been rejected".into()),
            record_errors: vec![(0, Some("no key".into())), (4, None)],
        };
        refuse(&mut answer, &why);
        assert_eq!((answer.error_code, answer.base_offset, answer.log_start_offset), (87, -1, -1));
        assert_eq!(answer.record_errors[1].batch_index, 4);
        match without_answer(&topics(&answer)) {
            Outcome::Close(why) => assert!(why.contains("partition 3"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}
