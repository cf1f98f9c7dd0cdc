//! Made by tests/oracle/shapes.py from the message schemas of Apache Kafka's client jar. Not to be edited: what is wrong here is
//! wrong there.

use super::{BLOB, BOOL, I8, I16, I32, I64, Kind, Schema, Shape, TEXT, UUID, all, between, from, until};

/// AddRaftVoterRequest, versions 0-1.
pub static ADD_RAFT_VOTER: Schema = Schema {
    flexible_from: 0,
    shape: Shape {
        fields: &[
            all(TEXT).null_from(0), // ClusterId
            all(I32),               // TimeoutMs
            all(I32),               // VoterId
            all(UUID),              // VoterDirectoryId
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    all(TEXT), // Name
                    all(TEXT), // Host
                    all(I16),  // Port
                ],
                tags: &[],
            }))), // Listeners
            from(1, BOOL),          // AckWhenCommitted
        ],
        tags: &[],
    },
};

/// AllocateProducerIdsRequest, versions 0.
pub static ALLOCATE_PRODUCER_IDS: Schema = Schema {
    flexible_from: 0,
    shape: Shape {
        fields: &[
            all(I32), // BrokerId
            all(I64), // BrokerEpoch
        ],
        tags: &[],
    },
};

/// AlterClientQuotasRequest, versions 0-1.
pub static ALTER_CLIENT_QUOTAS: Schema = Schema {
    flexible_from: 1,
    shape: Shape {
        fields: &[
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    all(Kind::List(&Kind::Node(&Shape {
                        fields: &[
                            all(TEXT),              // EntityType
                            all(TEXT).null_from(0), // EntityName
                        ],
                        tags: &[],
                    }))), // Entity
                    all(Kind::List(&Kind::Node(&Shape {
                        fields: &[
                            all(TEXT), // Key
                            all(I64),  // Value
                            all(BOOL), // Remove
                        ],
                        tags: &[],
                    }))), // Ops
                ],
                tags: &[],
            }))), // Entries
            all(BOOL), // ValidateOnly
        ],
        tags: &[],
    },
};

/// AlterConfigsRequest, versions 0-2.
pub static ALTER_CONFIGS: Schema = Schema {
    flexible_from: 2,
    shape: Shape {
        fields: &[
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    all(I8),   // ResourceType
                    all(TEXT), // ResourceName
                    all(Kind::List(&Kind::Node(&Shape {
                        fields: &[
                            all(TEXT),              // Name
                            all(TEXT).null_from(0), // Value
                        ],
                        tags: &[],
                    }))), // Configs
                ],
                tags: &[],
            }))), // Resources
            all(BOOL), // ValidateOnly
        ],
        tags: &[],
    },
};

/// AlterPartitionRequest, versions 2-3.
pub static ALTER_PARTITION: Schema = Schema {
    flexible_from: 0,
    shape: Shape {
        fields: &[
            all(I32), // BrokerId
            all(I64), // BrokerEpoch
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    from(2, UUID), // TopicId
                    all(Kind::List(&Kind::Node(&Shape {
                        fields: &[
                            all(I32),                   // PartitionIndex
                            all(I32),                   // LeaderEpoch
                            until(2, Kind::List(&I32)), // NewIsr
                            from(
                                3,
                                Kind::List(&Kind::Node(&Shape {
                                    fields: &[
                                        from(3, I32), // BrokerId
                                        from(3, I64), // BrokerEpoch
                                    ],
                                    tags: &[],
                                })),
                            ), // NewIsrWithEpochs
                            from(1, I8),                // LeaderRecoveryState
                            all(I32),                   // PartitionEpoch
                        ],
                        tags: &[],
                    }))), // Partitions
                ],
                tags: &[],
            }))), // Topics
        ],
        tags: &[],
    },
};

/// AlterPartitionReassignmentsRequest, versions 0-1.
pub static ALTER_PARTITION_REASSIGNMENTS: Schema = Schema {
    flexible_from: 0,
    shape: Shape {
        fields: &[
            all(I32),      // TimeoutMs
            from(1, BOOL), // AllowReplicationFactorChange
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    all(TEXT), // Name
                    all(Kind::List(&Kind::Node(&Shape {
                        fields: &[
                            all(I32),                           // PartitionIndex
                            all(Kind::List(&I32)).null_from(0), // Replicas
                        ],
                        tags: &[],
                    }))), // Partitions
                ],
                tags: &[],
            }))), // Topics
        ],
        tags: &[],
    },
};

/// AlterUserScramCredentialsRequest, versions 0.
pub static ALTER_USER_SCRAM_CREDENTIALS: Schema = Schema {
    flexible_from: 0,
    shape: Shape {
        fields: &[
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    all(TEXT), // Name
                    all(I8),   // Mechanism
                ],
                tags: &[],
            }))), // Deletions
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    all(TEXT), // Name
                    all(I8),   // Mechanism
                    all(I32),  // Iterations
                    all(BLOB), // Salt
                    all(BLOB), // SaltedPassword
                ],
                tags: &[],
            }))), // Upsertions
        ],
        tags: &[],
    },
};

/// ApiVersionsRequest, versions 0-4.
pub static API_VERSIONS: Schema = Schema {
    flexible_from: 3,
    shape: Shape {
        fields: &[
            from(3, TEXT), // ClientSoftwareName
            from(3, TEXT), // ClientSoftwareVersion
        ],
        tags: &[],
    },
};

/// BrokerHeartbeatRequest, versions 0-2.
pub static BROKER_HEARTBEAT: Schema = Schema {
    flexible_from: 0,
    shape: Shape {
        fields: &[
            all(I32),  // BrokerId
            all(I64),  // BrokerEpoch
            all(I64),  // CurrentMetadataOffset
            all(BOOL), // WantFence
            all(BOOL), // WantShutDown
        ],
        tags: &[
            (0, from(1, Kind::List(&UUID))),              // OfflineLogDirs
            (1, from(2, Kind::List(&UUID)).null_from(2)), // CordonedLogDirs
        ],
    },
};

/// BrokerRegistrationRequest, versions 0-4.
pub static BROKER_REGISTRATION: Schema = Schema {
    flexible_from: 0,
    shape: Shape {
        fields: &[
            all(I32),  // BrokerId
            all(TEXT), // ClusterId
            all(UUID), // IncarnationId
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    all(TEXT), // Name
                    all(TEXT), // Host
                    all(I16),  // Port
                    all(I16),  // SecurityProtocol
                ],
                tags: &[],
            }))), // Listeners
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    all(TEXT), // Name
                    all(I16),  // MinSupportedVersion
                    all(I16),  // MaxSupportedVersion
                ],
                tags: &[],
            }))), // Features
            all(TEXT).null_from(0), // Rack
            from(1, BOOL), // IsMigratingZkBroker
            from(2, Kind::List(&UUID)), // LogDirs
            from(3, I64), // PreviousBrokerEpoch
        ],
        tags: &[],
    },
};

/// CreateAclsRequest, versions 1-3.
pub static CREATE_ACLS: Schema = Schema {
    flexible_from: 2,
    shape: Shape {
        fields: &[
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    all(I8),     // ResourceType
                    all(TEXT),   // ResourceName
                    from(1, I8), // ResourcePatternType
                    all(TEXT),   // Principal
                    all(TEXT),   // Host
                    all(I8),     // Operation
                    all(I8),     // PermissionType
                ],
                tags: &[],
            }))), // Creations
        ],
        tags: &[],
    },
};

/// CreatePartitionsRequest, versions 0-3.
pub static CREATE_PARTITIONS: Schema = Schema {
    flexible_from: 2,
    shape: Shape {
        fields: &[
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    all(TEXT), // Name
                    all(I32),  // Count
                    all(Kind::List(&Kind::Node(&Shape {
                        fields: &[
                            all(Kind::List(&I32)), // BrokerIds
                        ],
                        tags: &[],
                    })))
                    .null_from(0), // Assignments
                ],
                tags: &[],
            }))), // Topics
            all(I32),  // TimeoutMs
            all(BOOL), // ValidateOnly
        ],
        tags: &[],
    },
};

/// CreateTopicsRequest, versions 2-7.
pub static CREATE_TOPICS: Schema = Schema {
    flexible_from: 5,
    shape: Shape {
        fields: &[
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    all(TEXT), // Name
                    all(I32),  // NumPartitions
                    all(I16),  // ReplicationFactor
                    all(Kind::List(&Kind::Node(&Shape {
                        fields: &[
                            all(I32),              // PartitionIndex
                            all(Kind::List(&I32)), // BrokerIds
                        ],
                        tags: &[],
                    }))), // Assignments
                    all(Kind::List(&Kind::Node(&Shape {
                        fields: &[
                            all(TEXT),              // Name
                            all(TEXT).null_from(0), // Value
                        ],
                        tags: &[],
                    }))), // Configs
                ],
                tags: &[],
            }))), // Topics
            all(I32),      // timeoutMs
            from(1, BOOL), // validateOnly
        ],
        tags: &[],
    },
};

/// DeleteAclsRequest, versions 1-3.
pub static DELETE_ACLS: Schema = Schema {
    flexible_from: 2,
    shape: Shape {
        fields: &[
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    all(I8),                // ResourceTypeFilter
                    all(TEXT).null_from(0), // ResourceNameFilter
                    from(1, I8),            // PatternTypeFilter
                    all(TEXT).null_from(0), // PrincipalFilter
                    all(TEXT).null_from(0), // HostFilter
                    all(I8),                // Operation
                    all(I8),                // PermissionType
                ],
                tags: &[],
            }))), // Filters
        ],
        tags: &[],
    },
};

/// DeleteGroupsRequest, versions 0-2.
pub static DELETE_GROUPS: Schema = Schema {
    flexible_from: 2,
    shape: Shape {
        fields: &[
            all(Kind::List(&TEXT)), // GroupsNames
        ],
        tags: &[],
    },
};

/// DeleteRecordsRequest, versions 0-2.
pub static DELETE_RECORDS: Schema = Schema {
    flexible_from: 2,
    shape: Shape {
        fields: &[
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    all(TEXT), // Name
                    all(Kind::List(&Kind::Node(&Shape {
                        fields: &[
                            all(I32), // PartitionIndex
                            all(I64), // Offset
                        ],
                        tags: &[],
                    }))), // Partitions
                ],
                tags: &[],
            }))), // Topics
            all(I32), // TimeoutMs
        ],
        tags: &[],
    },
};

/// DeleteTopicsRequest, versions 1-6.
pub static DELETE_TOPICS: Schema = Schema {
    flexible_from: 4,
    shape: Shape {
        fields: &[
            from(
                6,
                Kind::List(&Kind::Node(&Shape {
                    fields: &[
                        from(6, TEXT).null_from(6), // Name
                        from(6, UUID),              // TopicId
                    ],
                    tags: &[],
                })),
            ), // Topics
            until(5, Kind::List(&TEXT)), // TopicNames
            all(I32),                    // TimeoutMs
        ],
        tags: &[],
    },
};

/// DescribeAclsRequest, versions 1-3.
pub static DESCRIBE_ACLS: Schema = Schema {
    flexible_from: 2,
    shape: Shape {
        fields: &[
            all(I8),                // ResourceTypeFilter
            all(TEXT).null_from(0), // ResourceNameFilter
            from(1, I8),            // PatternTypeFilter
            all(TEXT).null_from(0), // PrincipalFilter
            all(TEXT).null_from(0), // HostFilter
            all(I8),                // Operation
            all(I8),                // PermissionType
        ],
        tags: &[],
    },
};

/// DescribeClientQuotasRequest, versions 0-1.
pub static DESCRIBE_CLIENT_QUOTAS: Schema = Schema {
    flexible_from: 1,
    shape: Shape {
        fields: &[
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    all(TEXT),              // EntityType
                    all(I8),                // MatchType
                    all(TEXT).null_from(0), // Match
                ],
                tags: &[],
            }))), // Components
            all(BOOL), // Strict
        ],
        tags: &[],
    },
};

/// DescribeClusterRequest, versions 0-2.
pub static DESCRIBE_CLUSTER: Schema = Schema {
    flexible_from: 0,
    shape: Shape {
        fields: &[
            all(BOOL),     // IncludeClusterAuthorizedOperations
            from(1, I8),   // EndpointType
            from(2, BOOL), // IncludeFencedBrokers
        ],
        tags: &[],
    },
};

/// DescribeConfigsRequest, versions 1-4.
pub static DESCRIBE_CONFIGS: Schema = Schema {
    flexible_from: 4,
    shape: Shape {
        fields: &[
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    all(I8),                             // ResourceType
                    all(TEXT),                           // ResourceName
                    all(Kind::List(&TEXT)).null_from(0), // ConfigurationKeys
                ],
                tags: &[],
            }))), // Resources
            from(1, BOOL), // IncludeSynonyms
            from(3, BOOL), // IncludeDocumentation
        ],
        tags: &[],
    },
};

/// DescribeDelegationTokenRequest, versions 1-3.
pub static DESCRIBE_DELEGATION_TOKEN: Schema = Schema {
    flexible_from: 2,
    shape: Shape {
        fields: &[
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    all(TEXT), // PrincipalType
                    all(TEXT), // PrincipalName
                ],
                tags: &[],
            })))
            .null_from(0), // Owners
        ],
        tags: &[],
    },
};

/// DescribeGroupsRequest, versions 0-6.
pub static DESCRIBE_GROUPS: Schema = Schema {
    flexible_from: 5,
    shape: Shape {
        fields: &[
            all(Kind::List(&TEXT)), // Groups
            from(3, BOOL),          // IncludeAuthorizedOperations
        ],
        tags: &[],
    },
};

/// DescribeLogDirsRequest, versions 1-5.
pub static DESCRIBE_LOG_DIRS: Schema = Schema {
    flexible_from: 2,
    shape: Shape {
        fields: &[
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    all(TEXT),             // Topic
                    all(Kind::List(&I32)), // Partitions
                ],
                tags: &[],
            })))
            .null_from(0), // Topics
        ],
        tags: &[],
    },
};

/// DescribeProducersRequest, versions 0.
pub static DESCRIBE_PRODUCERS: Schema = Schema {
    flexible_from: 0,
    shape: Shape {
        fields: &[
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    all(TEXT),             // Name
                    all(Kind::List(&I32)), // PartitionIndexes
                ],
                tags: &[],
            }))), // Topics
        ],
        tags: &[],
    },
};

/// DescribeQuorumRequest, versions 0-2.
pub static DESCRIBE_QUORUM: Schema = Schema {
    flexible_from: 0,
    shape: Shape {
        fields: &[
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    all(TEXT), // TopicName
                    all(Kind::List(&Kind::Node(&Shape {
                        fields: &[
                            all(I32), // PartitionIndex
                        ],
                        tags: &[],
                    }))), // Partitions
                ],
                tags: &[],
            }))), // Topics
        ],
        tags: &[],
    },
};

/// DescribeTopicPartitionsRequest, versions 0.
pub static DESCRIBE_TOPIC_PARTITIONS: Schema = Schema {
    flexible_from: 0,
    shape: Shape {
        fields: &[
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    all(TEXT), // Name
                ],
                tags: &[],
            }))), // Topics
            all(I32), // ResponsePartitionLimit
            all(Kind::Maybe(&Shape {
                fields: &[
                    all(TEXT), // TopicName
                    all(I32),  // PartitionIndex
                ],
                tags: &[],
            })), // Cursor
        ],
        tags: &[],
    },
};

/// DescribeTransactionsRequest, versions 0.
pub static DESCRIBE_TRANSACTIONS: Schema = Schema {
    flexible_from: 0,
    shape: Shape {
        fields: &[
            all(Kind::List(&TEXT)), // TransactionalIds
        ],
        tags: &[],
    },
};

/// DescribeUserScramCredentialsRequest, versions 0.
pub static DESCRIBE_USER_SCRAM_CREDENTIALS: Schema = Schema {
    flexible_from: 0,
    shape: Shape {
        fields: &[
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    all(TEXT), // Name
                ],
                tags: &[],
            })))
            .null_from(0), // Users
        ],
        tags: &[],
    },
};

/// ElectLeadersRequest, versions 0-2.
pub static ELECT_LEADERS: Schema = Schema {
    flexible_from: 2,
    shape: Shape {
        fields: &[
            from(1, I8), // ElectionType
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    all(TEXT),             // Topic
                    all(Kind::List(&I32)), // Partitions
                ],
                tags: &[],
            })))
            .null_from(0), // TopicPartitions
            all(I32),    // TimeoutMs
        ],
        tags: &[],
    },
};

/// EnvelopeRequest, versions 0.
pub static ENVELOPE: Schema = Schema {
    flexible_from: 0,
    shape: Shape {
        fields: &[
            all(BLOB),              // RequestData
            all(BLOB).null_from(0), // RequestPrincipal
            all(BLOB),              // ClientHostAddress
        ],
        tags: &[],
    },
};

/// FetchRequest, versions 4-18.
pub static FETCH: Schema = Schema {
    flexible_from: 12,
    shape: Shape {
        fields: &[
            until(14, I32), // ReplicaId
            all(I32),       // MaxWaitMs
            all(I32),       // MinBytes
            from(3, I32),   // MaxBytes
            from(4, I8),    // IsolationLevel
            from(7, I32),   // SessionId
            from(7, I32),   // SessionEpoch
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    until(12, TEXT), // Topic
                    from(13, UUID),  // TopicId
                    all(Kind::List(&Kind::Node(&Shape {
                        fields: &[
                            all(I32),      // Partition
                            from(9, I32),  // CurrentLeaderEpoch
                            all(I64),      // FetchOffset
                            from(12, I32), // LastFetchedEpoch
                            from(5, I64),  // LogStartOffset
                            all(I32),      // PartitionMaxBytes
                        ],
                        tags: &[
                            (0, from(17, UUID)), // ReplicaDirectoryId
                            (1, from(18, I64)),  // HighWatermark
                        ],
                    }))), // Partitions
                ],
                tags: &[],
            }))), // Topics
            from(
                7,
                Kind::List(&Kind::Node(&Shape {
                    fields: &[
                        between(7, 12, TEXT),      // Topic
                        from(13, UUID),            // TopicId
                        from(7, Kind::List(&I32)), // Partitions
                    ],
                    tags: &[],
                })),
            ), // ForgottenTopicsData
            from(11, TEXT), // RackId
        ],
        tags: &[
            (0, from(12, TEXT).null_from(12)), // ClusterId
            (
                1,
                from(
                    15,
                    Kind::Node(&Shape {
                        fields: &[
                            from(15, I32), // ReplicaId
                            from(15, I64), // ReplicaEpoch
                        ],
                        tags: &[],
                    }),
                ),
            ), // ReplicaState
        ],
    },
};

/// FindCoordinatorRequest, versions 0-6.
pub static FIND_COORDINATOR: Schema = Schema {
    flexible_from: 3,
    shape: Shape {
        fields: &[
            until(3, TEXT),             // Key
            from(1, I8),                // KeyType
            from(4, Kind::List(&TEXT)), // CoordinatorKeys
        ],
        tags: &[],
    },
};

/// HeartbeatRequest, versions 0-4.
pub static HEARTBEAT: Schema = Schema {
    flexible_from: 4,
    shape: Shape {
        fields: &[
            all(TEXT),                  // GroupId
            all(I32),                   // GenerationId
            all(TEXT),                  // MemberId
            from(3, TEXT).null_from(3), // GroupInstanceId
        ],
        tags: &[],
    },
};

/// IncrementalAlterConfigsRequest, versions 0-1.
pub static INCREMENTAL_ALTER_CONFIGS: Schema = Schema {
    flexible_from: 1,
    shape: Shape {
        fields: &[
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    all(I8),   // ResourceType
                    all(TEXT), // ResourceName
                    all(Kind::List(&Kind::Node(&Shape {
                        fields: &[
                            all(TEXT),              // Name
                            all(I8),                // ConfigOperation
                            all(TEXT).null_from(0), // Value
                        ],
                        tags: &[],
                    }))), // Configs
                ],
                tags: &[],
            }))), // Resources
            all(BOOL), // ValidateOnly
        ],
        tags: &[],
    },
};

/// InitProducerIdRequest, versions 0-6.
pub static INIT_PRODUCER_ID: Schema = Schema {
    flexible_from: 2,
    shape: Shape {
        fields: &[
            all(TEXT).null_from(0), // TransactionalId
            all(I32),               // TransactionTimeoutMs
            from(3, I64),           // ProducerId
            from(3, I16),           // ProducerEpoch
            from(6, BOOL),          // Enable2Pc
            from(6, BOOL),          // KeepPreparedTxn
        ],
        tags: &[],
    },
};

/// JoinGroupRequest, versions 0-9.
pub static JOIN_GROUP: Schema = Schema {
    flexible_from: 6,
    shape: Shape {
        fields: &[
            all(TEXT),                  // GroupId
            all(I32),                   // SessionTimeoutMs
            from(1, I32),               // RebalanceTimeoutMs
            all(TEXT),                  // MemberId
            from(5, TEXT).null_from(5), // GroupInstanceId
            all(TEXT),                  // ProtocolType
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    all(TEXT), // Name
                    all(BLOB), // Metadata
                ],
                tags: &[],
            }))), // Protocols
            from(8, TEXT).null_from(8), // Reason
        ],
        tags: &[],
    },
};

/// LeaveGroupRequest, versions 0-5.
pub static LEAVE_GROUP: Schema = Schema {
    flexible_from: 4,
    shape: Shape {
        fields: &[
            all(TEXT),      // GroupId
            until(2, TEXT), // MemberId
            from(
                3,
                Kind::List(&Kind::Node(&Shape {
                    fields: &[
                        from(3, TEXT),              // MemberId
                        from(3, TEXT).null_from(3), // GroupInstanceId
                        from(5, TEXT).null_from(5), // Reason
                    ],
                    tags: &[],
                })),
            ), // Members
        ],
        tags: &[],
    },
};

/// ListConfigResourcesRequest, versions 0-1.
pub static LIST_CONFIG_RESOURCES: Schema = Schema {
    flexible_from: 0,
    shape: Shape {
        fields: &[
            from(1, Kind::List(&I8)), // ResourceTypes
        ],
        tags: &[],
    },
};

/// ListGroupsRequest, versions 0-5.
pub static LIST_GROUPS: Schema = Schema {
    flexible_from: 3,
    shape: Shape {
        fields: &[
            from(4, Kind::List(&TEXT)), // StatesFilter
            from(5, Kind::List(&TEXT)), // TypesFilter
        ],
        tags: &[],
    },
};

/// ListOffsetsRequest, versions 1-11.
pub static LIST_OFFSETS: Schema = Schema {
    flexible_from: 6,
    shape: Shape {
        fields: &[
            all(I32),    // ReplicaId
            from(2, I8), // IsolationLevel
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    all(TEXT), // Name
                    all(Kind::List(&Kind::Node(&Shape {
                        fields: &[
                            all(I32),     // PartitionIndex
                            from(4, I32), // CurrentLeaderEpoch
                            all(I64),     // Timestamp
                        ],
                        tags: &[],
                    }))), // Partitions
                ],
                tags: &[],
            }))), // Topics
            from(10, I32), // TimeoutMs
        ],
        tags: &[],
    },
};

/// ListPartitionReassignmentsRequest, versions 0.
pub static LIST_PARTITION_REASSIGNMENTS: Schema = Schema {
    flexible_from: 0,
    shape: Shape {
        fields: &[
            all(I32), // TimeoutMs
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    all(TEXT),             // Name
                    all(Kind::List(&I32)), // PartitionIndexes
                ],
                tags: &[],
            })))
            .null_from(0), // Topics
        ],
        tags: &[],
    },
};

/// ListTransactionsRequest, versions 0-2.
pub static LIST_TRANSACTIONS: Schema = Schema {
    flexible_from: 0,
    shape: Shape {
        fields: &[
            all(Kind::List(&TEXT)),     // StateFilters
            all(Kind::List(&I64)),      // ProducerIdFilters
            from(1, I64),               // DurationFilter
            from(2, TEXT).null_from(2), // TransactionalIdPattern
        ],
        tags: &[],
    },
};

/// MetadataRequest, versions 0-13.
pub static METADATA: Schema = Schema {
    flexible_from: 9,
    shape: Shape {
        fields: &[
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    from(10, UUID),          // TopicId
                    all(TEXT).null_from(10), // Name
                ],
                tags: &[],
            })))
            .null_from(1), // Topics
            from(4, BOOL),        // AllowAutoTopicCreation
            between(8, 10, BOOL), // IncludeClusterAuthorizedOperations
            from(8, BOOL),        // IncludeTopicAuthorizedOperations
        ],
        tags: &[],
    },
};

/// OffsetCommitRequest, versions 2-10.
pub static OFFSET_COMMIT: Schema = Schema {
    flexible_from: 8,
    shape: Shape {
        fields: &[
            all(TEXT),                  // GroupId
            from(1, I32),               // GenerationIdOrMemberEpoch
            from(1, TEXT),              // MemberId
            from(7, TEXT).null_from(7), // GroupInstanceId
            between(2, 4, I64),         // RetentionTimeMs
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    until(9, TEXT), // Name
                    from(10, UUID), // TopicId
                    all(Kind::List(&Kind::Node(&Shape {
                        fields: &[
                            all(I32),               // PartitionIndex
                            all(I64),               // CommittedOffset
                            from(6, I32),           // CommittedLeaderEpoch
                            all(TEXT).null_from(0), // CommittedMetadata
                        ],
                        tags: &[],
                    }))), // Partitions
                ],
                tags: &[],
            }))), // Topics
        ],
        tags: &[],
    },
};

/// OffsetDeleteRequest, versions 0.
pub static OFFSET_DELETE: Schema = Schema {
    flexible_from: i16::MAX,
    shape: Shape {
        fields: &[
            all(TEXT), // GroupId
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    all(TEXT), // Name
                    all(Kind::List(&Kind::Node(&Shape {
                        fields: &[
                            all(I32), // PartitionIndex
                        ],
                        tags: &[],
                    }))), // Partitions
                ],
                tags: &[],
            }))), // Topics
        ],
        tags: &[],
    },
};

/// OffsetFetchRequest, versions 1-10.
pub static OFFSET_FETCH: Schema = Schema {
    flexible_from: 6,
    shape: Shape {
        fields: &[
            until(7, TEXT), // GroupId
            until(
                7,
                Kind::List(&Kind::Node(&Shape {
                    fields: &[
                        until(7, TEXT),             // Name
                        until(7, Kind::List(&I32)), // PartitionIndexes
                    ],
                    tags: &[],
                })),
            )
            .null_from(2), // Topics
            from(
                8,
                Kind::List(&Kind::Node(&Shape {
                    fields: &[
                        from(8, TEXT),              // GroupId
                        from(9, TEXT).null_from(9), // MemberId
                        from(9, I32),               // MemberEpoch
                        from(
                            8,
                            Kind::List(&Kind::Node(&Shape {
                                fields: &[
                                    between(8, 9, TEXT),       // Name
                                    from(10, UUID),            // TopicId
                                    from(8, Kind::List(&I32)), // PartitionIndexes
                                ],
                                tags: &[],
                            })),
                        )
                        .null_from(8), // Topics
                    ],
                    tags: &[],
                })),
            ), // Groups
            from(7, BOOL),  // RequireStable
        ],
        tags: &[],
    },
};

/// OffsetForLeaderEpochRequest, versions 2-4.
pub static OFFSET_FOR_LEADER_EPOCH: Schema = Schema {
    flexible_from: 4,
    shape: Shape {
        fields: &[
            from(3, I32), // ReplicaId
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    all(TEXT), // Topic
                    all(Kind::List(&Kind::Node(&Shape {
                        fields: &[
                            all(I32),     // Partition
                            from(2, I32), // CurrentLeaderEpoch
                            all(I32),     // LeaderEpoch
                        ],
                        tags: &[],
                    }))), // Partitions
                ],
                tags: &[],
            }))), // Topics
        ],
        tags: &[],
    },
};

/// ProduceRequest, versions 3-13.
pub static PRODUCE: Schema = Schema {
    flexible_from: 9,
    shape: Shape {
        fields: &[
            from(3, TEXT).null_from(3), // TransactionalId
            all(I16),                   // Acks
            all(I32),                   // TimeoutMs
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    until(12, TEXT), // Name
                    from(13, UUID),  // TopicId
                    all(Kind::List(&Kind::Node(&Shape {
                        fields: &[
                            all(I32),               // Index
                            all(BLOB).null_from(0), // Records
                        ],
                        tags: &[],
                    }))), // PartitionData
                ],
                tags: &[],
            }))), // TopicData
        ],
        tags: &[],
    },
};

/// RemoveRaftVoterRequest, versions 0.
pub static REMOVE_RAFT_VOTER: Schema = Schema {
    flexible_from: 0,
    shape: Shape {
        fields: &[
            all(TEXT).null_from(0), // ClusterId
            all(I32),               // VoterId
            all(UUID),              // VoterDirectoryId
        ],
        tags: &[],
    },
};

/// SyncGroupRequest, versions 0-5.
pub static SYNC_GROUP: Schema = Schema {
    flexible_from: 4,
    shape: Shape {
        fields: &[
            all(TEXT),                  // GroupId
            all(I32),                   // GenerationId
            all(TEXT),                  // MemberId
            from(3, TEXT).null_from(3), // GroupInstanceId
            from(5, TEXT).null_from(5), // ProtocolType
            from(5, TEXT).null_from(5), // ProtocolName
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    all(TEXT), // MemberId
                    all(BLOB), // Assignment
                ],
                tags: &[],
            }))), // Assignments
        ],
        tags: &[],
    },
};

/// UnregisterBrokerRequest, versions 0.
pub static UNREGISTER_BROKER: Schema = Schema {
    flexible_from: 0,
    shape: Shape {
        fields: &[
            all(I32), // BrokerId
        ],
        tags: &[],
    },
};

/// UpdateFeaturesRequest, versions 0-2.
pub static UPDATE_FEATURES: Schema = Schema {
    flexible_from: 0,
    shape: Shape {
        fields: &[
            all(I32), // timeoutMs
            all(Kind::List(&Kind::Node(&Shape {
                fields: &[
                    all(TEXT),      // Feature
                    all(I16),       // MaxVersionLevel
                    until(0, BOOL), // AllowDowngrade
                    from(1, I8),    // UpgradeType
                ],
                tags: &[],
            }))), // FeatureUpdates
            from(1, BOOL), // ValidateOnly
        ],
        tags: &[],
    },
};
