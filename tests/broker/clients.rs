//! librdkafka, in the few moves that the tests need.

use std::time::Duration;

use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::KafkaError,
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer},
};

/// How long one call may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A record as it was read.
#[derive(Debug)]
pub struct Message {
    pub offset: i64,
    pub value: Option<Vec<u8>>,
}

type Delivery = std::sync::mpsc::Receiver<Result<(i32, i64), KafkaError>>;

/// Sends each delivery report to whoever waits for it.
pub struct Reports;

impl rdkafka::ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<std::sync::mpsc::Sender<Result<(i32, i64), KafkaError>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: Self::DeliveryOpaque) {
        let report = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.clone()),
        };
        let _ = opaque.send(report);
    }
}

pub type Producer = ThreadedProducer<Reports>;

pub fn config(address: &str, settings: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("broker.address.family", "v4");
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config
}

pub fn producer(address: &str, settings: &[(&str, &str)]) -> Producer {
    config(address, settings).create_with_context(Reports).expect("a producer")
}

/// Hands a record over; [`delivered`] waits for its offset.
pub fn send_later(producer: &Producer, topic: &str, partition: i32, value: &[u8]) -> Delivery {
    send_record(producer, topic, partition, None, value)
}

fn send_record(producer: &Producer, topic: &str, partition: i32, key: Option<&[u8]>, value: &[u8]) -> Delivery {
    let (sender, receiver) = std::sync::mpsc::channel();
    let mut record = BaseRecord::with_opaque_to(topic, Box::new(sender)).partition(partition).payload(value);
    if let Some(key) = key {
        record = record.key(key);
    }
    producer.send(record).map_err(|(error, _)| error).expect("room in the producer's queue");
    receiver
}

/// The offset of a record, once it is acknowledged.
pub fn delivered(delivery: Delivery) -> Result<i64, KafkaError> {
    delivery.recv().expect("a delivery report").map(|(_, offset)| offset)
}

/// Sends one record and waits for its offset.
pub fn send(
    producer: &Producer,
    topic: &str,
    partition: i32,
    key: Option<&[u8]>,
    value: &[u8],
) -> Result<i64, KafkaError> {
    delivered(send_record(producer, topic, partition, key, value))
}

/// Fails at once whatever has no acknowledgement yet.
pub fn give_up(producer: &Producer) {
    producer.purge(PurgeConfig::default().queue().inflight());
}

pub fn admin(address: &str) -> AdminClient<DefaultClientContext> {
    config(address, &[]).create().expect("an admin client")
}

/// Runs a future of the admin client; its own thread completes it.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    futures_lite::future::block_on(future)
}

pub fn create_topic(address: &str, name: &str, partitions: i32) {
    create_topic_with(address, name, partitions, &[]);
}

pub fn create_topic_with(address: &str, name: &str, partitions: i32, settings: &[(&str, &str)]) {
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    for (key, value) in settings {
        topic = topic.set(key, value);
    }
    let results = wait(admin(address).create_topics([&topic], &options())).expect("an answer");
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

pub fn delete_topic(address: &str, name: &str) {
    let deleted = wait(admin(address).delete_topics(&[name], &AdminOptions::new())).expect("an answer");
    deleted[0].as_ref().expect("the topic is deleted");
}

pub fn delete_records(address: &str, topic: &str, partition: i32, before: i64) {
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(topic, partition, Offset::Offset(before)).expect("a valid offset");
    wait(admin(address).delete_records(&offsets, &options())).expect("records deleted");
}

/// What the broker says of its settings, in the order asked.
pub fn broker_config(address: &str, keys: &[&str]) -> Vec<Option<String>> {
    let broker = ResourceSpecifier::Broker(1);
    let described = wait(admin(address).describe_configs([&broker], &options())).expect("an answer");
    let described = described.into_iter().next().expect("one resource").expect("described");
    keys.iter().map(|key| described.get(key).and_then(|entry| entry.value.clone())).collect()
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}

pub fn consumer(address: &str, group: &str, settings: &[(&str, &str)]) -> BaseConsumer {
    let mut config = config(address, settings);
    config.set("group.id", group).set("enable.auto.commit", "false").set("enable.partition.eof", "true");
    config.create().expect("a consumer")
}

pub fn watermarks(address: &str, topic: &str, partition: i32) -> (i64, i64) {
    consumer(address, "watermarks", &[]).fetch_watermarks(topic, partition, PATIENCE).expect("watermarks")
}

/// Everything of a partition, from its start to its end.
pub fn read_all(address: &str, topic: &str, partition: i32) -> Vec<Message> {
    let (_, end) = watermarks(address, topic, partition);
    let consumer = consumer(address, "read-all", &[]);
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("a valid offset");
    consumer.assign(&assignment).expect("assigned");
    let mut messages = Vec::new();
    loop {
        match consumer.poll(PATIENCE) {
            Some(Ok(message)) => {
                messages.push(Message { offset: message.offset(), value: message.payload().map(<[u8]>::to_vec) })
            }
            Some(Err(KafkaError::PartitionEOF(_))) => break,
            Some(Err(error)) => panic!("{topic}-{partition}: {error}"),
            None => panic!("{topic}-{partition}: nothing within {PATIENCE:?}, have {}", messages.len()),
        }
    }
    if let Some(last) = messages.last() {
        assert!(last.offset < end, "read past the end");
    }
    messages
}

pub fn commit(address: &str, group: &str, topic: &str, partition: i32, offset: i64) {
    let consumer = consumer(address, group, &[]);
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("a valid offset");
    consumer.assign(&offsets).expect("assigned");
    consumer.commit(&offsets, CommitMode::Sync).expect("committed");
}

pub fn committed(address: &str, group: &str, topic: &str, partition: i32) -> Option<i64> {
    let consumer = consumer(address, group, &[]);
    let mut asked = TopicPartitionList::new();
    asked.add_partition(topic, partition);
    let offsets = consumer.committed_offsets(asked, PATIENCE).expect("committed offsets");
    offsets.find_partition(topic, partition).and_then(|found| found.offset().to_raw()).filter(|offset| *offset >= 0)
}
