//! The guard before the codec, proved against the codec itself: for every request, in every version, what the tables call
//! valid is what the codec reads, byte for byte; and nothing that passes the guard, however mangled, makes the codec ask
//! for more memory than a small multiple of the frame.
#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    backtrace::{Backtrace, BacktraceStatus},
    cell::Cell,
};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        AddRaftVoterRequest, AlterClientQuotasRequest, AlterConfigsRequest, AlterPartitionReassignmentsRequest,
        AlterUserScramCredentialsRequest, ApiKey, ApiVersionsRequest, CreateAclsRequest, CreatePartitionsRequest,
        CreateTopicsRequest, DeleteAclsRequest, DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
        DescribeAclsRequest, DescribeClientQuotasRequest, DescribeClusterRequest, DescribeConfigsRequest,
        DescribeGroupsRequest, DescribeLogDirsRequest, DescribeProducersRequest, DescribeQuorumRequest,
        DescribeTopicPartitionsRequest, DescribeTransactionsRequest, DescribeUserScramCredentialsRequest,
        ElectLeadersRequest, FetchRequest, FindCoordinatorRequest, HeartbeatRequest, IncrementalAlterConfigsRequest,
        InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest, ListConfigResourcesRequest, ListGroupsRequest,
        ListOffsetsRequest, ListPartitionReassignmentsRequest, ListTransactionsRequest, MetadataRequest,
        OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, OffsetForLeaderEpochRequest, ProduceRequest,
        RemoveRaftVoterRequest, SyncGroupRequest, UnregisterBrokerRequest, UpdateFeaturesRequest,
    },
    protocol::{Decodable, Encodable},
};
use ringtail::internals::{
    api,
    protocol::{
        guard::{self, ELEMENT_BYTES_MAX, ELEMENTS_MAX, Field, Kind, Malformed, Shape},
        versions::Api,
    },
};

/// Counts what this thread asks for; the tests of this binary run on threads of their own.
struct Counting;

thread_local! {
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches a const-initialised cell without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.with(|asked| asked.set(asked.get().saturating_add(layout.size())));
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn asked_by<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = ASKED.with(Cell::get);
    let result = work();
    (ASKED.with(Cell::get) - before, result)
}

/// xorshift64*, so that a seed in a message is enough to run a case again.
struct Seeded(u64);

impl Seeded {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit
    }
}

/// Writes a random valid message of a shape.
struct Writer<'a> {
    out: BytesMut,
    random: &'a mut Seeded,
    version: i16,
    flexible: bool,
}

impl Writer<'_> {
    fn shape(&mut self, shape: &Shape) {
        let version = self.version;
        for field in shape.fields.iter().filter(|field| field.exists_in(version)) {
            self.field(field);
        }
        if self.flexible {
            self.tags(shape);
        }
    }

    fn field(&mut self, field: &Field) {
        let null = field.null_from.is_some_and(|from| self.version >= from) && self.random.below(4) == 0;
        match &field.kind {
            Kind::Text if null => self.length(2, None),
            Kind::Blob | Kind::List(_) if null => self.length(4, None),
            kind => self.kind(kind),
        }
    }

    fn kind(&mut self, kind: &Kind) {
        match kind {
            // Never zero: the codec leaves tagged fields out that have their default value.
            Kind::Fixed(1) => self.out.put_u8(1),
            Kind::Fixed(bytes) => (0..*bytes).for_each(|_| self.out.put_u8(1 + self.random.below(250) as u8)),
            Kind::Text => {
                let length = 1 + self.random.below(20);
                self.length(2, Some(length));
                (0..length).for_each(|_| self.out.put_u8(b'a' + self.random.below(26) as u8));
            }
            Kind::Blob => {
                let length = self.random.below(40);
                self.length(4, Some(length));
                (0..length).for_each(|_| self.out.put_u8(self.random.next() as u8));
            }
            Kind::List(element) => {
                let count = self.random.below(4);
                self.length(4, Some(count));
                (0..count).for_each(|_| self.kind(element));
            }
            Kind::Node(shape) => self.shape(shape),
            Kind::Maybe(shape) => match self.random.below(2) {
                0 => self.out.put_i8(-1),
                _ => {
                    self.out.put_i8(1);
                    self.shape(shape);
                }
            },
        }
    }

    fn tags(&mut self, shape: &Shape) {
        let known: Vec<_> = shape.tags.iter().filter(|(_, field)| field.exists_in(self.version)).collect();
        let unknown = self.random.below(2);
        self.uvarint((known.len() + unknown) as u32);
        for (tag, field) in known {
            let mut inner = Writer { out: BytesMut::new(), random: self.random, version: self.version, flexible: true };
            inner.kind(&field.kind);
            let bytes = inner.out;
            self.uvarint(*tag);
            self.uvarint(bytes.len() as u32);
            self.out.put(bytes);
        }
        if unknown == 1 {
            self.uvarint(1000);
            self.uvarint(3);
            self.out.put_slice(b"new");
        }
    }

    fn length(&mut self, width: usize, length: Option<usize>) {
        if self.flexible {
            return self.uvarint(length.map_or(0, |length| length as u32 + 1));
        }
        let value = length.map_or(-1, |length| length as i32);
        match width {
            2 => self.out.put_i16(value as i16),
            _ => self.out.put_i32(value),
        }
    }

    fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.out.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.put_u8(value as u8);
    }
}

fn valid(api: &Api, version: i16, random: &mut Seeded) -> Bytes {
    let flexible = api.is_flexible(version);
    let mut writer = Writer { out: BytesMut::new(), random, version, flexible };
    writer.shape(api.shape);
    writer.out.freeze()
}

/// What the codec makes of a body: the bytes it left, and what it writes for what it read.
fn codec(key: ApiKey, version: i16, body: Bytes) -> Result<(usize, Option<Vec<u8>>), String> {
    macro_rules! codecs {
        ($($key:ident: $request:ident),* $(,)?) => {
            match key {
                $(ApiKey::$key => {
                    let mut rest = body;
                    let request = $request::decode(&mut rest, version).map_err(|error| error.to_string())?;
                    let mut out = Vec::new();
                    let written = request.encode(&mut out, version).is_ok();
                    Ok((rest.len(), written.then_some(out)))
                })*
                _ => panic!("no codec listed for {key:?}"),
            }
        };
    }
    codecs!(
        DescribeUserScramCredentials: DescribeUserScramCredentialsRequest,
        AlterUserScramCredentials: AlterUserScramCredentialsRequest, DescribeAcls: DescribeAclsRequest,
        CreateAcls: CreateAclsRequest, DeleteAcls: DeleteAclsRequest, DescribeProducers: DescribeProducersRequest,
        DescribeTransactions: DescribeTransactionsRequest, ListTransactions: ListTransactionsRequest,
        DescribeClientQuotas: DescribeClientQuotasRequest, AlterClientQuotas: AlterClientQuotasRequest,
        DescribeQuorum: DescribeQuorumRequest, UpdateFeatures: UpdateFeaturesRequest,
        UnregisterBroker: UnregisterBrokerRequest, AddRaftVoter: AddRaftVoterRequest,
        RemoveRaftVoter: RemoveRaftVoterRequest, ElectLeaders: ElectLeadersRequest,
        AlterPartitionReassignments: AlterPartitionReassignmentsRequest,
        ListPartitionReassignments: ListPartitionReassignmentsRequest, DescribeLogDirs: DescribeLogDirsRequest,
        AlterConfigs: AlterConfigsRequest, ListConfigResources: ListConfigResourcesRequest,
        OffsetDelete: OffsetDeleteRequest,
        Produce: ProduceRequest, Fetch: FetchRequest, ListOffsets: ListOffsetsRequest, Metadata: MetadataRequest,
        OffsetCommit: OffsetCommitRequest, OffsetFetch: OffsetFetchRequest, FindCoordinator: FindCoordinatorRequest,
        JoinGroup: JoinGroupRequest, Heartbeat: HeartbeatRequest, LeaveGroup: LeaveGroupRequest,
        SyncGroup: SyncGroupRequest, DescribeGroups: DescribeGroupsRequest, ListGroups: ListGroupsRequest,
        ApiVersions: ApiVersionsRequest, CreateTopics: CreateTopicsRequest, DeleteTopics: DeleteTopicsRequest,
        DeleteRecords: DeleteRecordsRequest, InitProducerId: InitProducerIdRequest,
        OffsetForLeaderEpoch: OffsetForLeaderEpochRequest, DescribeConfigs: DescribeConfigsRequest,
        CreatePartitions: CreatePartitionsRequest, DeleteGroups: DeleteGroupsRequest,
        IncrementalAlterConfigs: IncrementalAlterConfigsRequest, DescribeCluster: DescribeClusterRequest,
        DescribeTopicPartitions: DescribeTopicPartitionsRequest,
    )
}

fn each_version(mut case: impl FnMut(&Api, i16)) {
    for api in api::requests() {
        (api.min..=api.max).for_each(|version| case(api, version));
    }
}

#[test]
fn the_tables_are_the_codec_s_shapes() {
    each_version(|api, version| {
        for seed in 0..60 {
            let mut random = Seeded::new(seed);
            let body = valid(api, version, &mut random);
            let name = format!("{} v{version} seed {seed}", api.name);
            assert_eq!(guard::check(api, version, &body), Ok(body.len()), "{name}");
            let (left, written) = codec(api.key, version, body.clone()).unwrap_or_else(|why| panic!("{name}: {why}"));
            assert_eq!(left, 0, "{name}: the codec read less than the guard");
            let written = written.unwrap_or_else(|| panic!("{name}: the codec does not write what it read"));
            assert_eq!(written, body, "{name}");
        }
    });
}

#[test]
fn every_cut_is_refused() {
    each_version(|api, version| {
        for seed in 0..8 {
            let body = valid(api, version, &mut Seeded::new(seed));
            for cut in 0..body.len() {
                let checked = guard::check(api, version, &body[..cut]);
                assert!(checked.is_err(), "{} v{version} seed {seed} cut at {cut}: {checked:?}", api.name);
            }
        }
    });
}

/// Memory that the codec may ask for: a few structures, and a multiple of the frame that covers the largest element
/// (192 bytes) for the smallest one on the wire, counted again as the collections of tagged fields grow.
fn memory_max(frame: usize) -> usize {
    // An error of the codec carries a backtrace where somebody asks for them.
    let backtrace = if Backtrace::capture().status() == BacktraceStatus::Captured { 16 << 10 } else { 0 };
    4096 + backtrace + 2 * frame * ELEMENT_BYTES_MAX
}

#[test]
fn mangled_requests_never_make_the_codec_ask_for_much() {
    const MUTATIONS: u64 = 10_000;
    let mut passed = 0u64;
    let mut most = 0.0f64;
    each_version(|api, version| {
        for seed in 0..MUTATIONS {
            let mut random = Seeded::new(seed);
            let mut body = BytesMut::from(&valid(api, version, &mut random)[..]);
            if body.is_empty() {
                continue;
            }
            for _ in 0..=random.below(4) {
                let at = random.below(body.len());
                body[at] = match random.below(4) {
                    0 => 0x7f,
                    1 => 0xff,
                    2 => body[at].wrapping_add(1),
                    _ => random.next() as u8,
                };
            }
            let body = body.freeze();
            if guard::check(api, version, &body).is_err() {
                continue;
            }
            passed += 1;
            let frame = body.len();
            let (asked, _) = asked_by(|| codec(api.key, version, body));
            most = most.max(asked as f64 / (frame + 64) as f64);
            assert!(asked <= memory_max(frame), "{} v{version} seed {seed}: {frame} bytes asked {asked}", api.name);
        }
    });
    assert!(passed > 100_000, "the mutations are so wild that only {passed} reached the codec");
    println!("{passed} mangled requests passed the guard; at most {most:.1} bytes asked per byte of frame");
}

#[test]
fn forged_lengths_are_refused() {
    let check =
        |key: ApiKey, version: i16, body: &[u8]| guard::check(api::request(key as i16).expect("listed"), version, body);
    let many = [0x7f, 0xff, 0xff, 0xff];
    // Twelve bytes that abort a process with a bare codec.
    let produce = [&[0xff, 0xff, 0, 1, 0, 0, 0x75, 0x30][..], &many].concat();
    assert_eq!(check(ApiKey::Produce, 8, &produce), Err(Malformed::Count));
    assert_eq!(check(ApiKey::Metadata, 4, &many), Err(Malformed::Count));
    assert_eq!(check(ApiKey::Metadata, 12, &[0xff, 0xff, 0xff, 0xff, 0x0f]), Err(Malformed::Count));
    assert_eq!(check(ApiKey::Metadata, 12, &[0xff, 0xff, 0xff, 0xff, 0x1f]), Err(Malformed::Varint));
    assert_eq!(check(ApiKey::Metadata, 0, &[0xff; 4]), Err(Malformed::Length), "null came with v1");
    assert_eq!(check(ApiKey::Metadata, 1, &[0xff; 4]), Ok(4));
    assert_eq!(check(ApiKey::Metadata, 1, &[0xff, 0xff, 0xff, 0xfe]), Err(Malformed::Length));
    // A known tag (cluster id) whose size is not its content's.
    let fetch = |tags: &[u8]| [&[0u8; 25][..], &[1, 1, 1], tags].concat();
    assert!(check(ApiKey::Fetch, 12, &fetch(&[1, 0, 3, 3, b'i', b'd'])).is_ok());
    assert_eq!(check(ApiKey::Fetch, 12, &fetch(&[1, 0, 2, 3, b'i', b'd'])), Err(Malformed::Tag));
    assert_eq!(check(ApiKey::Fetch, 12, &fetch(&[1, 1, 1, 0])), Err(Malformed::Tag), "the replica state came with v15");
    // More elements than anybody needs, in a frame that holds them.
    let names = [&(ELEMENTS_MAX as i32 + 1).to_be_bytes()[..], &vec![0; 2 * ELEMENTS_MAX + 2]].concat();
    assert_eq!(check(ApiKey::DeleteGroups, 0, &names), Err(Malformed::TooMany));
}
