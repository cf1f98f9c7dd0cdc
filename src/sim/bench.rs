//! A broker on a good disk and what its tests ask of it in one line.

use std::{rc::Rc, time::Duration};

use kafka_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, TopicName, create_topics_request::CreatableTopic,
};

use crate::{
    base::{ErrorCode, Offset, PartitionKey, ProducerId, TopicId},
    controller::asks::{CreateTopics, DeleteTopics},
    io::sim::{Faults, Simulation},
    partition::{FetchPartition, Fetcher, Isolation, validate},
    protocol::compression::Compression,
    replica::{Acks, Appended, Fetched, Local},
    shard::{FetchCall, OffsetsCall, ProducePart, Router},
    sim::{
        broker::{CLIENTS, Life, NODE, Settings},
        connection::Connection,
        member::text,
        records::{self, Value},
    },
};

/// Steps within which a broker starts.
const STEPS_MAX: u64 = 200_000;

pub struct Bench {
    pub sim: Simulation,
    pub settings: Settings,
    pub life: Rc<Life>,
}

impl Bench {
    pub fn start(seed: u64, cores: usize) -> Self {
        Self::start_with(seed, cores, Settings::small())
    }

    pub fn start_with(seed: u64, cores: usize, settings: Settings) -> Self {
        let sim = Simulation::new(seed);
        let life = Life::begin(&sim, &settings, cores);
        life.must_be_ready(STEPS_MAX);
        Self { sim, settings, life }
    }

    pub fn restart(&mut self, cores: usize) {
        self.sim.set_faults(NODE, Faults::default());
        self.life = Life::begin(&self.sim, &self.settings, cores);
        self.life.must_be_ready(STEPS_MAX);
    }

    pub fn power_cut(&mut self, cores: usize) {
        self.life.power_cut();
        self.restart(cores);
    }

    pub fn connect(&self, core: usize) -> Connection {
        Connection::open(&self.life, core).expect("the broker serves")
    }

    pub fn router(&self, core: usize) -> Router {
        self.life.router(core).expect("the broker serves")
    }

    /// Asks on a connection of its own, and waits for the answer.
    pub fn ask<T: 'static, F: Future<Output = T> + 'static>(
        &self,
        core: usize,
        ask: impl FnOnce(Router) -> F + 'static,
    ) -> T {
        let connection = self.connect(core);
        let life = self.life.clone();
        self.wait(async move {
            let answer = connection.ask(ask).await;
            answer.unwrap_or_else(|_| panic!("the broker has ended: {:?}", life.fatal.borrow()))
        })
    }

    /// Asks a broker that may end meanwhile.
    fn try_ask<T: 'static, F: Future<Output = T> + 'static>(
        &self,
        ask: impl FnOnce(Router) -> F + 'static,
    ) -> Result<T, ErrorCode> {
        let connection = Connection::open(&self.life, 0).ok_or(ErrorCode::NetworkException)?;
        let answer = self.wait(async move { connection.ask(ask).await });
        answer.map_err(|_| ErrorCode::NetworkException)
    }

    /// Runs until the future is done.
    pub fn wait<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> T {
        self.sim.block_on(CLIENTS, 0, |_| future)
    }

    pub fn topic(&self, name: &str, partitions: i32) -> TopicId {
        match self.ask(0, create(name, partitions)) {
            Ok(answer) => {
                assert_eq!(answer.topics[0].error_code, 0, "{answer:?}");
                TopicId(answer.topics[0].topic_id)
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    pub fn delete(&self, name: &str) {
        let request = DeleteTopicsRequest::default().with_topic_names(vec![TopicName(text(name))]);
        let deleted = self.ask(0, |router| async move { router.control(DeleteTopics(request, 5)).await });
        assert!(deleted.is_ok(), "{deleted:?}");
    }

    /// A partition of the topic that lives on the given core.
    pub fn partition_on(&self, topic_id: TopicId, core: usize) -> PartitionKey {
        let keys = (0..self.life.cores as i32).map(|partition| PartitionKey { topic_id, partition });
        keys.into_iter().find(|key| key.core(self.life.cores) == core).expect("a partition for each core")
    }

    pub fn produce(&self, core: usize, key: PartitionKey, numbers: std::ops::Range<u32>) -> Appended {
        let connection = self.connect(core);
        self.wait(async move { begin_produce(&connection, key, numbers).await.expect("the broker lives") })
    }

    pub fn fetch(&self, core: usize, call: FetchCall) -> Vec<Fetched> {
        self.ask(core, |router| async move { router.fetch(call).await })
    }

    /// Where a partition begins, and all its records.
    /// # Errors  What it answers instead; `NetworkException` if the broker ends.
    pub fn records(&self, key: PartitionKey) -> Result<(Offset, Vec<(Offset, Value)>), ErrorCode> {
        let offset_of = |timestamp| {
            let asked = OffsetsCall::List(vec![(key, -1, timestamp)], Isolation::ReadUncommitted);
            Ok::<_, ErrorCode>(self.try_ask(|router| async move { router.offsets(asked).await })?[0]?.offset)
        };
        let (start, end) = (offset_of(-2)?, offset_of(-1)?);
        let (mut from, mut found) = (start, Vec::new());
        while from < end {
            let wanted = call(&[(key, from.0)], 1, Duration::ZERO);
            let fetched = self.try_ask(|router| async move { router.fetch(wanted).await })?.pop().expect("one answer");
            if let Some(error) = fetched.error {
                return Err(error);
            }
            let mut records = records::records(&fetched.records, "what was served");
            assert!(!records.is_empty(), "no error, and no bytes at {from} of {end}: a reader would ask for ever");
            records.retain(|(offset, _)| *offset >= from);
            from = records.last().map_or(end, |last| last.0.plus(1));
            found.extend(records);
        }
        Ok((start, found))
    }

    /// The numbers of all records of a partition.
    pub fn numbers(&self, key: PartitionKey) -> Vec<u32> {
        let fetched = self.fetch(0, call(&[(key, 0)], 1, Duration::ZERO)).pop().expect("one answer");
        numbers(&fetched)
    }
}

pub fn create(
    name: &str,
    partitions: i32,
) -> impl FnOnce(Router) -> Local<Result<CreateTopicsResponse, ErrorCode>> + 'static {
    let topic = CreatableTopic::default()
        .with_name(TopicName(text(name)))
        .with_num_partitions(partitions)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]);
    |router| Box::pin(async move { router.control(CreateTopics(request)).await })
}

/// A fetch of partitions from the given offsets, without limits.
pub fn call(partitions: &[(PartitionKey, i64)], min_bytes: usize, max_wait: Duration) -> FetchCall {
    let part = |offset| FetchPartition {
        fetch_offset: Offset(offset),
        partition_max_bytes: 1 << 20,
        current_leader_epoch: None,
        last_fetched_epoch: None,
        log_start_offset: Offset(-1),
    };
    FetchCall {
        partitions: partitions.iter().map(|(key, offset)| (*key, part(*offset))).collect(),
        reader: Fetcher::Consumer(Isolation::ReadUncommitted),
        max_bytes: 1 << 20,
        min_bytes,
        max_wait,
    }
}

pub fn numbers(fetched: &Fetched) -> Vec<u32> {
    assert_eq!(fetched.error, None);
    records::records(&fetched.records, "bench").into_iter().map(|(_, value)| value.number).collect()
}

/// Hands a batch without a producer over, behind what was begun before.
pub fn begin_produce(
    connection: &Connection,
    key: PartitionKey,
    numbers: std::ops::Range<u32>,
) -> crate::io::channel::OneshotReceiver<Appended> {
    let parts = vec![(key, numbers)];
    let all = begin_produce_all(connection, parts, Duration::from_secs(30));
    connection.begin(|_| {
        Box::pin(async {
            let waits: Local<Appended> = Box::pin(async move {
                all.await.map_or(Err(ErrorCode::NetworkException), |mut all| all.pop().expect("one batch"))
            });
            waits
        })
    })
}

/// Hands batches over as one request.
pub fn begin_produce_all(
    connection: &Connection,
    parts: Vec<(PartitionKey, std::ops::Range<u32>)>,
    timeout: Duration,
) -> crate::io::channel::OneshotReceiver<Vec<Appended>> {
    connection.begin(move |router| {
        Box::pin(async move {
            let parts = parts.into_iter().map(|(key, numbers)| {
                let values = numbers.map(|number| Value { writer: 0, number });
                let bytes = records::batch(values, (ProducerId::NONE, -1), Compression::None);
                let rules = router.topic(key.topic_id).map(|topic| topic.rules.clone()).unwrap_or_default();
                let batch = validate(bytes, &rules, 9, 1_700_000_000_000).expect("a good batch");
                ProducePart { key, batch, acks: Acks::All }
            });
            let pending = router.produce(parts.collect()).await;
            let waits: Local<Vec<Appended>> = Box::pin(async move { pending.wait(timeout).await });
            waits
        })
    })
}
