//! How often record bytes are copied in user space: twice on produce (tail chunk, journal block), never on fetch, whatever
//! core the connection and the partition live on. Real requests, answered by a whole broker of two cores on the simulated
//! disk.
//!
//! Three witnesses, since a counter alone sees only what it is told: `base::copied_bytes`; the allocator, which sees every
//! piece of memory large enough for the records; and the addresses of what is answered.
//!
//! And what a connection that asks from the wrong core is found to be better off on.
#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::{Cell, RefCell},
    net::{IpAddr, Ipv4Addr},
    path::Path,
    rc::Rc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        CreateTopicsRequest, FetchRequest, ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader, TopicName,
        create_topics_request::CreatableTopic,
        fetch_request::{FetchPartition, FetchTopic},
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::{Decodable, Encodable, HeaderVersion, StrBytes},
};
use ringtail::internals::{
    api::{self, Context, Identity, Outcome, Session},
    base::{BrokerId, PartitionKey, TopicId, copied_bytes},
    config,
    controller::CreateTopics,
    io::{Simulation, Slice},
    log::LogSettings,
    protocol::{batch::BatchBuilder, compression::Compression},
    shard::{self, Broker, Registration, Started},
};
use uuid::Uuid;

const CORES: usize = 2;
const PRODUCE_VERSION: i16 = 9;
const FETCH_VERSION: i16 = 12;
const TOPIC: &str = "copies";
/// About where the simulator's wall clock begins: older records would be gone with the first housekeeping.
const SIMULATED_NOW: i64 = 1_700_000_000_000;

/// Records of one batch. Nothing that the broker allocates for other reasons on the way of one request is as large.
const VALUE_BYTES: usize = 100_000;
/// What could hold a quarter of it counts as large.
const LARGE_BYTES: usize = VALUE_BYTES / 4;

thread_local! {
    static LARGE: Cell<usize> = const { Cell::new(0) };
}

/// Counts large requests of the current thread; the simulator runs all cores in one.
struct Counting;

fn note(bytes: usize) {
    if bytes >= LARGE_BYTES {
        LARGE.set(LARGE.get() + 1);
    }
}

// SAFETY: every call goes to the system's allocator as it came; counting touches only a constant-initialised thread-local
// without destructor, which allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        note(bytes);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(old, layout, bytes) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a stretch of work has cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    copied: usize,
    large: usize,
}

/// From here on, until [`Meter::read`].
struct Meter {
    copied: u64,
    large: usize,
}

impl Meter {
    fn start() -> Self {
        Self { copied: copied_bytes(), large: LARGE.get() }
    }

    fn read(&self) -> Cost {
        Cost { copied: (copied_bytes() - self.copied) as usize, large: LARGE.get() - self.large }
    }
}

struct World {
    sim: Simulation,
    cores: Vec<(Rc<Started>, Rc<Context>)>,
    session: Rc<Session>,
    topic_id: TopicId,
}

impl World {
    /// A broker of two cores with one topic that has partitions on both.
    fn start(settings: LogSettings) -> Self {
        let sim = Simulation::new(11);
        let config = config::load(None, &[]).expect("the defaults").config;
        let group_memory = ringtail::internals::coordinator::MachineMemory::new(1 << 20);
        let rewrite_memory = ringtail::internals::shard::RewriteMemory::new(1 << 20);
        let broker = Broker {
            id: BrokerId(1),
            cluster_id: "simulated".into(),
            group_memory,
            rewrite_memory,
            quota_use: Default::default(),
            cluster: None,
        };
        let seeds = sim.block_on(0, 0, move |io| async move {
            let data = Path::new("data");
            shard::recover(&io, &broker, &config, data, &settings, CORES).await.expect("an empty disk").0
        });
        let mut cores = Vec::new();
        for (core, seed) in seeds.into_iter().enumerate() {
            let started = sim.block_on(0, core, |io| async move {
                let fatal = Rc::new(|why: String| panic!("{why}"));
                let started = shard::start(io.clone(), seed, fatal).await.expect("a good disk");
                let context = Context::new(started.router.clone(), io, Vec::new(), CORES);
                (Rc::new(started), context)
            });
            cores.push(started);
        }
        let (first, _) = cores[0].clone();
        let registration = Registration { end_points: Vec::new(), directory: Uuid::from_u128(7) };
        let topic_id = sim.block_on(0, 0, move |_| async move {
            first.register(registration).await.expect("registered");
            let topic = CreatableTopic::default().with_name(topic_name()).with_num_partitions(16);
            let request = CreateTopicsRequest::default().with_topics(vec![topic.with_replication_factor(1)]);
            match first.router.control(CreateTopics(request)).await {
                Ok(answer) => TopicId(answer.topics[0].topic_id),
                Err(error) => panic!("{error:?}"),
            }
        });
        let session = Rc::new(Session::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0, Identity::default()));
        Self { sim, cores, session, topic_id }
    }

    /// Fresh partitions that live on a core.
    fn partitions_on(&self, core: usize) -> Vec<i32> {
        let here =
            |partition: &i32| PartitionKey { topic_id: self.topic_id, partition: *partition }.core(CORES) == core;
        let found: Vec<i32> = (0..16).filter(here).collect();
        assert!(found.len() >= 3, "sixteen partitions spread over two cores");
        found
    }

    /// Hands a frame to a core as `net` does. What it cost until it was handed over, and until it was answered.
    fn ask(&self, core: usize, frame: Bytes) -> (Cost, Cost, Vec<Slice>) {
        let (context, session) = (self.cores[core].1.clone(), self.session.clone());
        self.sim.block_on(0, core, move |_| async move {
            let meter = Meter::start();
            let pending = api::handle(&context, &session, frame).await;
            let handed_over = meter.read();
            let outcome = pending.await;
            let answered = meter.read();
            match outcome {
                Outcome::Reply(pieces, _) => (handed_over, answered, pieces),
                Outcome::Nothing | Outcome::Close(_) => panic!("{outcome:?}"),
            }
        })
    }

    fn produce(&self, core: usize, partition: i32, batch: &Bytes) -> (Cost, Cost) {
        let (handed_over, answered, pieces) = self.ask(core, produce_frame(partition, batch));
        let mut reply = Bytes::from(pieces.iter().flat_map(|piece| piece.to_vec()).collect::<Vec<u8>>());
        let mut body = reply.split_off(4);
        ResponseHeader::decode(&mut body, ProduceResponse::header_version(PRODUCE_VERSION)).expect("a head");
        let answer = ProduceResponse::decode(&mut body, PRODUCE_VERSION).expect("an answer");
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0, "{answer:?}");
        (handed_over, answered)
    }

    /// What a fetch cost, and the pieces of the answer that are records: those that are large.
    fn fetch(&self, core: usize, partition: i32, offset: i64) -> (Cost, Vec<Slice>) {
        let (_, cost, pieces) = self.ask(core, fetch_frame(partition, offset));
        (cost, pieces.into_iter().filter(|piece| piece.len() > 1000).collect())
    }
}

fn topic_name() -> TopicName {
    TopicName(StrBytes::from_static_str(TOPIC))
}

fn small_batch() -> Bytes {
    let mut batch = BatchBuilder::new();
    batch.push(SIMULATED_NOW, None, Some(b"small"));
    batch.build()
}

fn batch(codec: Compression) -> Bytes {
    // Noise, so that it is large in every codec.
    let mut state = 1u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let value: Vec<u8> = (0..VALUE_BYTES).map(|_| noise()).collect();
    let mut batch = BatchBuilder::new().compressed(codec, codec.default_level());
    batch.push(SIMULATED_NOW, Some(b"key"), Some(&value));
    batch.build()
}

fn produce_frame(partition: i32, batch: &Bytes) -> Bytes {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch.clone()));
    let topic = TopicProduceData::default().with_name(topic_name()).with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic]);
    framed(0, PRODUCE_VERSION, &request)
}

fn fetch_frame(partition: i32, offset: i64) -> Bytes {
    framed(1, FETCH_VERSION, &fetch_request(partition, offset))
}

fn fetch_request(partition: i32, offset: i64) -> FetchRequest {
    let asked =
        FetchPartition::default().with_partition(partition).with_fetch_offset(offset).with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(topic_name()).with_partitions(vec![asked]);
    FetchRequest::default().with_max_bytes(50 << 20).with_min_bytes(1).with_topics(vec![topic])
}

fn framed<R: Encodable + HeaderVersion>(key: i16, version: i16, request: &R) -> Bytes {
    let mut out = BytesMut::new();
    RequestHeader::default()
        .with_request_api_key(key)
        .with_request_api_version(version)
        .with_client_id(Some(StrBytes::from_static_str("copies")))
        .encode(&mut out, R::header_version(version))
        .expect("a head that fits its version");
    request.encode(&mut out, version).expect("a request that fits its version");
    out.freeze()
}

fn addresses(records: &[Slice]) -> Vec<(usize, usize)> {
    records.iter().map(|slice| (slice.as_ptr() as usize, slice.len())).collect()
}

#[test]
fn a_produce_copies_its_records_twice_on_this_core_and_on_another() {
    let world = World::start(LogSettings::default());
    let plain = batch(Compression::None);
    // The tail chunk and the journal's block: nothing else is as large as the records.
    let twice = Cost { copied: 2 * plain.len(), large: 2 };
    let nothing = Cost { copied: 0, large: 0 };
    // The simulated disk keeps a copy of each write under way: one block.
    let and_the_device = Cost { large: twice.large + 1, ..twice };
    let (here, there) = (world.partitions_on(0), world.partitions_on(1));
    for (partition, first_stage) in [(here[0], twice), (there[0], nothing), (here[1], twice), (there[1], nothing)] {
        let (handed_over, answered) = world.produce(0, partition, &plain);
        assert_eq!(handed_over, first_stage, "partition {partition}: until it was handed over");
        assert_eq!(answered, and_the_device, "partition {partition}: until it was durable");
    }
}

#[test]
fn a_compressed_batch_is_copied_no_more_often_than_a_plain_one() {
    let world = World::start(LogSettings::default());
    // The decoders' own windows are large as well, so only the counter can tell here.
    for (codec, partition) in
        [(Compression::Lz4, world.partitions_on(0)[0]), (Compression::Zstd, world.partitions_on(1)[0])]
    {
        let batch = batch(codec);
        assert!(batch.len() > VALUE_BYTES / 2, "noise does not compress");
        let (_, answered) = world.produce(0, partition, &batch);
        assert_eq!(answered.copied, 2 * batch.len(), "{codec:?}");
    }
}

#[test]
fn a_fetch_from_memory_copies_nothing_on_any_core() {
    let world = World::start(LogSettings::default());
    let plain = batch(Compression::None);
    for partition in [world.partitions_on(0)[0], world.partitions_on(1)[0]] {
        for _ in 0..3 {
            world.produce(0, partition, &plain);
        }
        // Full chunks go into their segment in the background; the simulated disk's own copies are not ours to count.
        world.sim.run_for(Duration::from_secs(1));
        let (cost, records) = world.fetch(0, partition, 0);
        assert_eq!(cost, Cost { copied: 0, large: 0 }, "partition {partition}");
        assert_eq!(records.iter().map(|slice| slice.len()).sum::<usize>(), 3 * plain.len());
        // Offset and epoch are stamped in; what follows is as it was sent.
        assert_eq!(records[0][16..1000], plain[16..1000]);
        let (cost, from_the_other) = world.fetch(1, partition, 0);
        assert_eq!(cost, Cost { copied: 0, large: 0 }, "partition {partition} from the other core");
        assert_eq!(addresses(&from_the_other), addresses(&records), "both are given the chunks themselves");
    }
}

#[test]
fn a_cold_read_costs_its_read_buffer_and_no_copy() {
    // A quarter is for what is read from the disk, a mebibyte at a time; the first of so many batches is on the disk alone.
    let settings = LogSettings { cache_max_bytes: 5 << 20, dirty_max_bytes: 256 << 10, ..LogSettings::default() };
    let world = World::start(settings);
    let plain = batch(Compression::None);
    for partition in [world.partitions_on(0)[0], world.partitions_on(1)[0]] {
        for _ in 0..80 {
            world.produce(0, partition, &plain);
        }
        // A checkpoint brings all of it into the segment, and the cache lets go of what is old.
        world.sim.run_for(Duration::from_secs(120));
        let (cost, records) = world.fetch(0, partition, 0);
        assert!(!records.is_empty(), "partition {partition}: something is read");
        assert_eq!(cost.copied, 0, "partition {partition}");
        assert_eq!(cost.large, 1, "partition {partition}: one buffer, filled by the device");
        assert_eq!(records[0][16..1000], plain[16..1000]);
        let (cost, again) = world.fetch(1, partition, 0);
        assert_eq!(cost, Cost { copied: 0, large: 0 }, "partition {partition}: what was read is kept for a while");
        assert_eq!(addresses(&again), addresses(&records));
    }
}

#[test]
fn small_produces_to_the_other_core_make_it_the_better_one_until_a_fetch_session_is_open() {
    let world = World::start(LogSettings::default());
    let produce = |partition| (0..100).for_each(|_| _ = world.produce(0, partition, &small_batch()));
    let (here, there) = (world.partitions_on(0)[0], world.partitions_on(1)[0]);
    produce(here);
    assert_eq!(world.session.better_core(), None, "its partition is here");
    produce(there);
    assert_eq!(world.session.better_core(), Some(1));
    // A fetch without a session changes nothing.
    world.fetch(0, there, 0);
    produce(there);
    assert_eq!(world.session.better_core(), Some(1));
    world.ask(0, framed(1, FETCH_VERSION, &fetch_request(there, 0).with_session_epoch(0)));
    produce(there);
    assert_eq!(world.session.better_core(), None, "the session is known on this core alone");
}

#[test]
fn the_witnesses_see_a_copy() {
    let world = World::start(LogSettings::default());
    let plain = batch(Compression::None);
    world.produce(0, world.partitions_on(0)[0], &plain);
    let (_, records) = world.fetch(0, world.partitions_on(0)[0], 0);
    let seen = RefCell::new(Vec::new());
    let meter = Meter::start();
    seen.borrow_mut().extend(records[0].to_vec());
    assert!(meter.read().large >= 1, "the allocator sees a copy that nobody tells of");
    assert_ne!(seen.borrow().as_ptr(), records[0].as_ptr());
}
