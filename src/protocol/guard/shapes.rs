//! The shapes of all requests, as tables: what follows what, from which version to which.

/// What a field is on the wire.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number, truth value or id of this many bytes.
    Fixed(usize),
    /// A string.
    Text,
    /// Bytes, or records.
    Blob,
    /// An array.
    List(&'static Kind),
    /// A structure within.
    Node(&'static Shape),
    /// A structure behind a presence byte.
    Maybe(&'static Shape),
}

/// One field and the versions that have it.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    /// What it is.
    pub kind: Kind,
    /// The first version with it.
    pub from: i16,
    /// The last version with it.
    pub until: i16,
    /// The first version in which null is allowed.
    pub null_from: Option<i16>,
}

/// A structure: its fields in order, then its tagged fields.
#[derive(Debug, PartialEq, Eq)]
pub struct Shape {
    /// In the order of the wire.
    pub fields: &'static [Field],
    /// By tag.
    pub tags: &'static [(u32, Field)],
}

impl Field {
    /// Whether this version has the field.
    #[must_use]
    pub const fn exists_in(&self, version: i16) -> bool {
        self.from <= version && version <= self.until
    }

    const fn null_from(self, version: i16) -> Self {
        Self { null_from: Some(version), ..self }
    }

    const fn or_null(self) -> Self {
        self.null_from(0)
    }
}

const I8: Kind = Kind::Fixed(1);
const I16: Kind = Kind::Fixed(2);
const I32: Kind = Kind::Fixed(4);
const I64: Kind = Kind::Fixed(8);
const BOOL: Kind = Kind::Fixed(1);
const UUID: Kind = Kind::Fixed(16);
const TEXT: Kind = Kind::Text;
const BLOB: Kind = Kind::Blob;
const TEXTS: Kind = Kind::List(&TEXT);
const I32S: Kind = Kind::List(&I32);

const fn between(from: i16, until: i16, kind: Kind) -> Field {
    Field { kind, from, until, null_from: None }
}

const fn all(kind: Kind) -> Field {
    between(0, i16::MAX, kind)
}

const fn from(version: i16, kind: Kind) -> Field {
    between(version, i16::MAX, kind)
}

const fn until(version: i16, kind: Kind) -> Field {
    between(0, version, kind)
}

const fn shape(fields: &'static [Field]) -> Shape {
    Shape { fields, tags: &[] }
}

macro_rules! list_of {
    ($($field:expr),* $(,)?) => {
        Kind::List(&Kind::Node(&shape(&[$($field),*])))
    };
}

/// Produce.
pub static PRODUCE: Shape = shape(&[
    all(TEXT).or_null(), // transactional id
    all(I16),            // acks
    all(I32),            // timeout
    all(list_of![
        until(12, TEXT),
        from(13, UUID),
        all(list_of![
            all(I32),            // partition
            all(BLOB).or_null(), // records
        ]),
    ]),
]);

/// Fetch.
pub static FETCH: Shape = Shape {
    fields: &[
        until(14, I32), // replica
        all(I32),       // max wait
        all(I32),       // min bytes
        all(I32),       // max bytes
        all(I8),        // isolation
        from(7, I32),   // session
        from(7, I32),   // session epoch
        all(list_of![until(12, TEXT), from(13, UUID), all(Kind::List(&Kind::Node(&FETCH_PARTITION)))]),
        from(7, list_of![until(12, TEXT), from(13, UUID), all(I32S)]), // forgotten
        from(11, TEXT),                                                // rack
    ],
    tags: &[(0, from(12, TEXT).or_null()), (1, from(15, Kind::Node(&shape(&[all(I32), all(I64)]))))],
};

static FETCH_PARTITION: Shape = Shape {
    fields: &[
        all(I32),      // partition
        from(9, I32),  // current leader epoch
        all(I64),      // fetch offset
        from(12, I32), // last fetched epoch
        from(5, I64),  // log start offset
        all(I32),      // max bytes
    ],
    tags: &[(0, from(17, UUID)), (1, from(18, I64))],
};

/// ListOffsets.
pub static LIST_OFFSETS: Shape = shape(&[
    all(I32),    // replica
    from(2, I8), // isolation
    all(list_of![
        all(TEXT),
        all(list_of![
            all(I32),     // partition
            from(4, I32), // current leader epoch
            all(I64),     // timestamp
        ]),
    ]),
    from(10, I32), // timeout
]);

/// Metadata.
pub static METADATA: Shape = shape(&[
    all(list_of![from(10, UUID), all(TEXT).null_from(10)]).null_from(1),
    from(4, BOOL),        // auto-creation
    between(8, 10, BOOL), // operations on the cluster
    from(8, BOOL),        // operations on topics
]);

/// OffsetCommit.
pub static OFFSET_COMMIT: Shape = shape(&[
    all(TEXT),               // group
    all(I32),                // generation
    all(TEXT),               // member
    from(7, TEXT).or_null(), // instance
    until(4, I64),           // retention
    all(list_of![
        all(TEXT),
        all(list_of![
            all(I32),            // partition
            all(I64),            // offset
            from(6, I32),        // leader epoch
            all(TEXT).or_null(), // metadata
        ]),
    ]),
]);

/// OffsetFetch.
pub static OFFSET_FETCH: Shape = shape(&[
    until(7, TEXT),                                        // group
    until(7, list_of![all(TEXT), all(I32S)]).null_from(2), // topics
    from(
        8,
        list_of![
            all(TEXT),               // group
            from(9, TEXT).or_null(), // member
            from(9, I32),            // member epoch
            all(list_of![all(TEXT), all(I32S)]).or_null(),
        ],
    ),
    from(7, BOOL), // require stable
]);

/// FindCoordinator.
pub static FIND_COORDINATOR: Shape = shape(&[until(3, TEXT), from(1, I8), from(4, TEXTS)]);

/// JoinGroup.
pub static JOIN_GROUP: Shape = shape(&[
    all(TEXT),               // group
    all(I32),                // session timeout
    from(1, I32),            // rebalance timeout
    all(TEXT),               // member
    from(5, TEXT).or_null(), // instance
    all(TEXT),               // protocol type
    all(list_of![all(TEXT), all(BLOB)]),
    from(8, TEXT).or_null(), // reason
]);

/// Heartbeat.
pub static HEARTBEAT: Shape = shape(&[all(TEXT), all(I32), all(TEXT), from(3, TEXT).or_null()]);

/// LeaveGroup.
pub static LEAVE_GROUP: Shape =
    shape(&[all(TEXT), until(2, TEXT), from(3, list_of![all(TEXT), all(TEXT).or_null(), from(5, TEXT).or_null()])]);

/// SyncGroup.
pub static SYNC_GROUP: Shape = shape(&[
    all(TEXT),               // group
    all(I32),                // generation
    all(TEXT),               // member
    from(3, TEXT).or_null(), // instance
    from(5, TEXT).or_null(), // protocol type
    from(5, TEXT).or_null(), // protocol
    all(list_of![all(TEXT), all(BLOB)]),
]);

/// DescribeGroups.
pub static DESCRIBE_GROUPS: Shape = shape(&[all(TEXTS), from(3, BOOL)]);

/// ListGroups.
pub static LIST_GROUPS: Shape = shape(&[from(4, TEXTS), from(5, TEXTS)]);

/// ApiVersions.
pub static API_VERSIONS: Shape = shape(&[from(3, TEXT), from(3, TEXT)]);

/// CreateTopics.
pub static CREATE_TOPICS: Shape = shape(&[
    all(list_of![
        all(TEXT),
        all(I32),                           // partitions
        all(I16),                           // replication factor
        all(list_of![all(I32), all(I32S)]), // assignments
        all(list_of![all(TEXT), all(TEXT).or_null()]),
    ]),
    all(I32),  // timeout
    all(BOOL), // validate only
]);

/// DeleteTopics.
pub static DELETE_TOPICS: Shape =
    shape(&[from(6, list_of![all(TEXT).or_null(), all(UUID)]), until(5, TEXTS), all(I32)]);

/// DeleteRecords.
pub static DELETE_RECORDS: Shape = shape(&[all(list_of![all(TEXT), all(list_of![all(I32), all(I64)])]), all(I32)]);

/// InitProducerId.
pub static INIT_PRODUCER_ID: Shape = shape(&[all(TEXT).or_null(), all(I32), from(3, I64), from(3, I16)]);

/// OffsetForLeaderEpoch.
pub static OFFSET_FOR_LEADER_EPOCH: Shape =
    shape(&[from(3, I32), all(list_of![all(TEXT), all(list_of![all(I32), all(I32), all(I32)])])]);

/// DescribeConfigs.
pub static DESCRIBE_CONFIGS: Shape =
    shape(&[all(list_of![all(I8), all(TEXT), all(TEXTS).or_null()]), all(BOOL), from(3, BOOL)]);

/// CreatePartitions.
pub static CREATE_PARTITIONS: Shape =
    shape(&[all(list_of![all(TEXT), all(I32), all(list_of![all(I32S)]).or_null()]), all(I32), all(BOOL)]);

/// DeleteGroups.
pub static DELETE_GROUPS: Shape = shape(&[all(TEXTS)]);

/// IncrementalAlterConfigs.
pub static INCREMENTAL_ALTER_CONFIGS: Shape = shape(&[
    all(list_of![
        all(I8), // resource type
        all(TEXT),
        all(list_of![all(TEXT), all(I8), all(TEXT).or_null()]),
    ]),
    all(BOOL),
]);

/// DescribeCluster.
pub static DESCRIBE_CLUSTER: Shape = shape(&[all(BOOL), from(1, I8), from(2, BOOL)]);

/// DescribeTopicPartitions.
pub static DESCRIBE_TOPIC_PARTITIONS: Shape =
    shape(&[all(list_of![all(TEXT)]), all(I32), all(Kind::Maybe(&shape(&[all(TEXT), all(I32)])))]);
