//! The table of requests: one row each. What has no row is neither advertised nor decoded; everything else about a request is
//! in its own file.

use std::rc::Rc;

use bytes::Bytes;
use kafka_protocol::messages::{
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
};

use crate::{
    api::{
        Context, ListenerKind, Outcome, Pending, Session, acls, alter_client_quotas, alter_configs,
        alter_partition_reassignments, api_versions,
        asker::Asker,
        call::Call,
        controllers::CONTROLLER_ROWS,
        create_partitions, create_topics, delete_groups, delete_records, delete_topics, describe_client_quotas,
        describe_cluster, describe_configs, describe_groups, describe_log_dirs, describe_producers, describe_quorum,
        describe_topic_partitions, elect_leaders, fetch, find_coordinator, forwarding, heartbeat,
        incremental_alter_configs, init_producer_id, join_group, leave_group, list_config_resources, list_groups,
        list_offsets, list_partition_reassignments, metadata,
        metering::Metering,
        offset_commit, offset_delete, offset_fetch, offset_for_leader_epoch,
        policy::{Operation, Quota},
        produce, raft_voters,
        row::{Handler, Memory, Row, alone, listing, small},
        scram_credentials, sync_group, transactions, unregister_broker, update_features,
    },
    protocol::{frame, guard::shapes, quorum_packets, versions::Api},
};

/// Rows by key.
pub(crate) struct Table {
    rows: &'static [Row],
}

/// Every request.
#[allow(clippy::async_yields_async)] // that is what two stages are
pub(crate) static TABLE: Table = Table {
    rows: &[
        Row {
            // librdkafka ties its use of compression to Produce v0 (KAFKA-18659), so 0 is advertised, and refused when it is sent.
            api: Api::new::<ProduceRequest>(ApiKey::Produce, "Produce", &shapes::PRODUCE).advertised_from(0),
            operation: Operation::Write,
            quota: Quota::Produce,
            memory: small(1),
            handler: Handler::Ordered(|context, asker, head| {
                Box::pin(async move {
                    let began = context.io.clock.now();
                    match Call::decode(asker, head) {
                        Ok(call) => produce::begin(context, call, began).await,
                        Err(why) => {
                            let outcome = context.counted(ApiKey::Produce, began, Outcome::Close(why));
                            Box::pin(std::future::ready(outcome))
                        }
                    }
                })
            }),
        },
        alone!(Fetch, FetchRequest, &shapes::FETCH, Read, Fetch, small(8), fetch::handle),
        alone!(
            ListOffsets,
            ListOffsetsRequest,
            &shapes::LIST_OFFSETS,
            Describe,
            Request,
            small(16),
            list_offsets::handle
        ),
        alone!(Metadata, MetadataRequest, &shapes::METADATA, Describe, Request, listing(16), metadata::handle),
        alone!(
            OffsetCommit,
            OffsetCommitRequest,
            &shapes::OFFSET_COMMIT,
            Read,
            Request,
            small(16),
            offset_commit::handle
        ),
        alone!(
            OffsetFetch,
            OffsetFetchRequest,
            &shapes::OFFSET_FETCH,
            Describe,
            Request,
            small(16),
            offset_fetch::handle
        ),
        alone!(
            FindCoordinator,
            FindCoordinatorRequest,
            &shapes::FIND_COORDINATOR,
            Describe,
            Request,
            small(16),
            find_coordinator::handle
        ),
        alone!(JoinGroup, JoinGroupRequest, &shapes::JOIN_GROUP, Read, Request, small(4), join_group::handle),
        alone!(Heartbeat, HeartbeatRequest, &shapes::HEARTBEAT, Read, Request, small(2), heartbeat::handle),
        alone!(LeaveGroup, LeaveGroupRequest, &shapes::LEAVE_GROUP, Read, Request, small(16), leave_group::handle),
        alone!(SyncGroup, SyncGroupRequest, &shapes::SYNC_GROUP, Read, Request, small(4), sync_group::handle),
        alone!(
            DescribeGroups,
            DescribeGroupsRequest,
            &shapes::DESCRIBE_GROUPS,
            Describe,
            Request,
            listing(16),
            describe_groups::handle
        ),
        alone!(
            ListGroups,
            ListGroupsRequest,
            &shapes::LIST_GROUPS,
            Describe,
            Request,
            listing(16),
            list_groups::handle
        ),
        Row {
            api: Api::new::<ApiVersionsRequest>(ApiKey::ApiVersions, "ApiVersions", &shapes::API_VERSIONS),
            // Whoever connects may know what can be asked.
            operation: Operation::Describe,
            quota: Quota::Request,
            memory: small(2),
            handler: Handler::Alone(|context, asker, head| {
                Box::pin(async move {
                    let began = context.io.clock.now();
                    let outcome = api_versions::handle(&context, asker, head);
                    context.counted(ApiKey::ApiVersions, began, outcome)
                })
            }),
        },
        alone!(
            CreateTopics,
            CreateTopicsRequest,
            &shapes::CREATE_TOPICS,
            Create,
            Mutation,
            listing(32),
            create_topics::handle
        ),
        alone!(
            DeleteTopics,
            DeleteTopicsRequest,
            &shapes::DELETE_TOPICS,
            Delete,
            Mutation,
            small(32),
            delete_topics::handle
        ),
        alone!(
            DeleteRecords,
            DeleteRecordsRequest,
            &shapes::DELETE_RECORDS,
            Delete,
            Request,
            small(16),
            delete_records::handle
        ),
        alone!(
            InitProducerId,
            InitProducerIdRequest,
            &shapes::INIT_PRODUCER_ID,
            IdempotentWrite,
            Request,
            small(2),
            init_producer_id::handle
        ),
        alone!(
            OffsetForLeaderEpoch,
            OffsetForLeaderEpochRequest,
            &shapes::OFFSET_FOR_LEADER_EPOCH,
            Describe,
            Request,
            small(16),
            offset_for_leader_epoch::handle
        ),
        alone!(DescribeAcls, DescribeAclsRequest, &shapes::DESCRIBE_ACLS, Describe, Request, small(4), acls::describe),
        alone!(CreateAcls, CreateAclsRequest, &shapes::CREATE_ACLS, Alter, Request, small(16), acls::create),
        alone!(DeleteAcls, DeleteAclsRequest, &shapes::DELETE_ACLS, Alter, Request, small(16), acls::delete),
        alone!(
            DescribeConfigs,
            DescribeConfigsRequest,
            &shapes::DESCRIBE_CONFIGS,
            DescribeConfigs,
            Request,
            listing(32),
            describe_configs::handle
        ),
        alone!(
            AlterConfigs,
            AlterConfigsRequest,
            &shapes::ALTER_CONFIGS,
            AlterConfigs,
            Request,
            small(32),
            alter_configs::handle
        ),
        alone!(
            DescribeLogDirs,
            DescribeLogDirsRequest,
            &shapes::DESCRIBE_LOG_DIRS,
            Describe,
            Request,
            listing(32),
            describe_log_dirs::handle
        ),
        alone!(
            CreatePartitions,
            CreatePartitionsRequest,
            &shapes::CREATE_PARTITIONS,
            Alter,
            Mutation,
            small(32),
            create_partitions::handle
        ),
        alone!(
            DeleteGroups,
            DeleteGroupsRequest,
            &shapes::DELETE_GROUPS,
            Delete,
            Request,
            small(32),
            delete_groups::handle
        ),
        alone!(
            ElectLeaders,
            ElectLeadersRequest,
            &shapes::ELECT_LEADERS,
            Alter,
            Request,
            listing(32),
            elect_leaders::handle
        ),
        alone!(
            IncrementalAlterConfigs,
            IncrementalAlterConfigsRequest,
            &shapes::INCREMENTAL_ALTER_CONFIGS,
            AlterConfigs,
            Request,
            small(32),
            incremental_alter_configs::handle
        ),
        alone!(
            AlterPartitionReassignments,
            AlterPartitionReassignmentsRequest,
            &shapes::ALTER_PARTITION_REASSIGNMENTS,
            Alter,
            Request,
            small(32),
            alter_partition_reassignments::handle
        ),
        alone!(
            ListPartitionReassignments,
            ListPartitionReassignmentsRequest,
            &shapes::LIST_PARTITION_REASSIGNMENTS,
            Describe,
            Request,
            small(32),
            list_partition_reassignments::handle
        ),
        alone!(
            OffsetDelete,
            OffsetDeleteRequest,
            &shapes::OFFSET_DELETE,
            Delete,
            Request,
            small(16),
            offset_delete::handle
        ),
        alone!(
            DescribeClientQuotas,
            DescribeClientQuotasRequest,
            &shapes::DESCRIBE_CLIENT_QUOTAS,
            DescribeConfigs,
            Request,
            listing(32),
            describe_client_quotas::handle
        ),
        alone!(
            AlterClientQuotas,
            AlterClientQuotasRequest,
            &shapes::ALTER_CLIENT_QUOTAS,
            AlterConfigs,
            Request,
            small(32),
            alter_client_quotas::handle
        ),
        alone!(
            DescribeUserScramCredentials,
            DescribeUserScramCredentialsRequest,
            &shapes::DESCRIBE_USER_SCRAM_CREDENTIALS,
            Describe,
            Request,
            listing(32),
            scram_credentials::describe
        ),
        alone!(
            AlterUserScramCredentials,
            AlterUserScramCredentialsRequest,
            &shapes::ALTER_USER_SCRAM_CREDENTIALS,
            Alter,
            Request,
            small(32),
            scram_credentials::alter
        ),
        alone!(
            DescribeQuorum,
            DescribeQuorumRequest,
            &shapes::DESCRIBE_QUORUM,
            Describe,
            Request,
            small(32),
            describe_quorum::handle
        ),
        alone!(
            UpdateFeatures,
            UpdateFeaturesRequest,
            &shapes::UPDATE_FEATURES,
            Alter,
            Request,
            small(32),
            update_features::handle
        ),
        alone!(
            DescribeCluster,
            DescribeClusterRequest,
            &shapes::DESCRIBE_CLUSTER,
            Describe,
            Request,
            small(2),
            describe_cluster::handle
        ),
        alone!(
            DescribeProducers,
            DescribeProducersRequest,
            &shapes::DESCRIBE_PRODUCERS,
            Read,
            Request,
            listing(32),
            describe_producers::handle
        ),
        alone!(
            UnregisterBroker,
            UnregisterBrokerRequest,
            &shapes::UNREGISTER_BROKER,
            Alter,
            Request,
            small(2),
            unregister_broker::handle
        ),
        alone!(
            DescribeTransactions,
            DescribeTransactionsRequest,
            &shapes::DESCRIBE_TRANSACTIONS,
            Describe,
            Request,
            small(32),
            transactions::describe
        ),
        alone!(
            ListTransactions,
            ListTransactionsRequest,
            &shapes::LIST_TRANSACTIONS,
            Describe,
            Request,
            small(16),
            transactions::list
        ),
        alone!(
            ListConfigResources,
            ListConfigResourcesRequest,
            &shapes::LIST_CONFIG_RESOURCES,
            DescribeConfigs,
            Request,
            listing(32),
            list_config_resources::handle
        ),
        alone!(
            DescribeTopicPartitions,
            DescribeTopicPartitionsRequest,
            &shapes::DESCRIBE_TOPIC_PARTITIONS,
            Describe,
            Request,
            listing(32),
            describe_topic_partitions::handle
        ),
        alone!(AddRaftVoter, AddRaftVoterRequest, &shapes::ADD_RAFT_VOTER, Alter, Request, small(4), raft_voters::add),
        alone!(
            RemoveRaftVoter,
            RemoveRaftVoterRequest,
            &shapes::REMOVE_RAFT_VOTER,
            Alter,
            Request,
            small(4),
            raft_voters::remove
        ),
    ],
};

impl Table {
    /// The row of a key as it came off the wire.
    pub(super) fn row(&self, key: i16) -> Option<&'static Row> {
        self.rows.binary_search_by_key(&key, |row| row.api.key as i16).ok().map(|index| &self.rows[index])
    }

    /// Every request, by key.
    pub(crate) fn apis(&self) -> impl Iterator<Item = &'static Api> {
        self.rows.iter().map(|row| &row.api)
    }

    /// Every request that a listener of this kind takes, by key.
    pub(super) fn apis_of(&self, kind: ListenerKind) -> impl Iterator<Item = &'static Api> {
        let among_brokers = if kind == ListenerKind::Controllers { CONTROLLER_ROWS } else { &[] };
        let apis = self.apis().filter(move |api| is_taken(kind, api.key));
        apis.chain(among_brokers.iter().map(|row| &row.api))
    }

    /// The row of a key on a listener of that kind. What brokers ask the controller has one on the controllers' alone.
    fn row_on(&self, kind: ListenerKind, key: i16) -> Option<&'static Row> {
        let among_brokers = || CONTROLLER_ROWS.iter().find(|row| row.api.key as i16 == key);
        match (kind, self.row(key)) {
            (ListenerKind::Controllers, None) => among_brokers(),
            (_, row) => row,
        }
    }

    /// Begins a request in its frame.
    pub(super) async fn begin(&self, context: &Rc<Context>, session: &Rc<Session>, frame: Bytes) -> Pending {
        let request_bytes = frame.len();
        let key = frame::peek(&frame).map(|(key, _)| key);
        if session.kind == ListenerKind::Controllers && key == Some(quorum_packets::KEY) {
            return forwarding::take_packets(context, &frame);
        }
        let row = key.and_then(|key| self.row_on(session.kind, key));
        if session.kind == ListenerKind::Clients
            && row.is_some_and(|row| is_the_controller_s(row.api.key))
            && context.router.is_led_elsewhere()
        {
            return forwarding::forward(context, frame);
        }
        let (head, row) = match (frame::parse(frame, row.map(|row| &row.api)), row) {
            (Ok(_), Some(row)) if self.row(row.api.key as i16).is_some() && !is_taken(session.kind, row.api.key) => {
                return closing(format!("the controllers' listener does not take {}", row.api.name));
            }
            (Ok(head), Some(row)) => (head, row),
            (Err(why), _) => return closing(why.to_string()),
            (Ok(_), None) => unreachable!("a head is read with its row's api"),
        };
        let metering = Metering::of(context, session, head.client_id.as_ref(), request_bytes);
        let asker = Asker {
            session: session.clone(),
            operation: row.operation,
            quota: row.quota,
            policy: context.policy,
            metering: metering.clone(),
        };
        let Some(metering) = metering else {
            return match row.handler {
                Handler::Ordered(begin) => begin(context.clone(), asker, head).await,
                Handler::Alone(run) => run(context.clone(), asker, head),
            };
        };
        let pending = match row.handler {
            Handler::Ordered(begin) => metering.clone().timed(begin(context.clone(), asker, head)).await,
            Handler::Alone(run) => run(context.clone(), asker, head),
        };
        Box::pin(metering.timed(pending))
    }

    /// What becomes of a client's request that another broker has passed on.
    pub(super) async fn decide(&self, context: &Rc<Context>, session: &Rc<Session>, frame: Bytes) -> Outcome {
        let row = frame::peek(&frame).and_then(|(key, _)| self.row(key)).filter(|row| is_the_controller_s(row.api.key));
        let (head, row) = match (frame::parse(frame, row.map(|row| &row.api)), row) {
            (Ok(head), Some(row)) => (head, row),
            (Ok(_), None) => return Outcome::Close("a request that nobody passes on".to_owned()),
            (Err(why), _) => return Outcome::Close(why.to_string()),
        };
        let (session, policy) = (session.clone(), context.policy);
        let asker = Asker { session, operation: row.operation, quota: row.quota, policy, metering: None };
        match row.handler {
            Handler::Ordered(begin) => begin(context.clone(), asker, head).await.await,
            Handler::Alone(run) => run(context.clone(), asker, head).await,
        }
    }

    /// See [`pipelines`](super::pipelines).
    pub(super) fn pipelines(&self, frame_start: &[u8]) -> bool {
        let row = frame::peek(frame_start).and_then(|(key, _)| self.row(key));
        row.is_some_and(|row| matches!(row.handler, Handler::Ordered(_)))
    }

    /// See [`memory_estimate`](super::memory_estimate).
    pub(crate) fn memory_estimate(&self, frame_start: &[u8], frame_bytes: usize) -> usize {
        let row = frame::peek(frame_start).and_then(|(key, _)| self.row_on(ListenerKind::Controllers, key));
        // Unknown requests are closed, not served: they cost their frame.
        let Memory { fixed, frame_times } = row.map_or(Memory { fixed: 0, frame_times: 1 }, |row| row.memory);
        fixed.saturating_add(frame_bytes.saturating_mul(frame_times))
    }

    /// The table with one more row.
    #[cfg(test)]
    pub(crate) fn with(&self, row: Row) -> &'static Self {
        let mut rows: Vec<Row> = self.rows.iter().copied().chain([row]).collect();
        rows.sort_by_key(|row| row.api.key as i16);
        Box::leak(Box::new(Self { rows: rows.leak() }))
    }
}

/// Whether a listener of this kind takes a request. What clients ask does not get to the controllers' one, but for what the
/// controller decides: it is open before the broker can serve, and has connections of its own.
fn is_taken(kind: ListenerKind, key: ApiKey) -> bool {
    kind == ListenerKind::Clients || key == ApiKey::ApiVersions || is_the_controller_s(key)
}

/// Whether clients may ask this of any broker, and the controller alone can decide.
pub(super) fn is_the_controller_s(key: ApiKey) -> bool {
    matches!(
        key,
        ApiKey::CreateTopics
            | ApiKey::DeleteTopics
            | ApiKey::CreatePartitions
            | ApiKey::AlterConfigs
            | ApiKey::IncrementalAlterConfigs
            | ApiKey::ElectLeaders
            | ApiKey::AlterPartitionReassignments
            | ApiKey::AlterClientQuotas
            | ApiKey::AlterUserScramCredentials
            | ApiKey::UpdateFeatures
            | ApiKey::UnregisterBroker
            | ApiKey::DescribeQuorum
    )
}

fn closing(why: String) -> Pending {
    Box::pin(std::future::ready(Outcome::Close(why)))
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::RequestHeader,
        protocol::{Encodable, StrBytes},
    };

    use super::*;

    #[test]
    fn keys_are_sorted_and_found() {
        assert!(TABLE.apis().is_sorted_by_key(|api| api.key as i16));
        for api in TABLE.apis() {
            assert_eq!(TABLE.row(api.key as i16).map(|row| &row.api), Some(api));
            assert_eq!(format!("{:?}", api.key), api.name);
            assert_eq!(api.key.request_header_version(api.max) == 2, api.is_flexible(api.max), "{}", api.name);
            assert_eq!(api.key.request_header_version(api.min) == 2, api.is_flexible(api.min), "{}", api.name);
        }
        for key in [-1, 4, 17, 24, 68, 71, 88, 1000] {
            assert!(TABLE.row(key).is_none(), "key {key}");
        }
    }

    #[test]
    fn only_produce_overlaps() {
        for api in TABLE.apis() {
            let start = [&(api.key as i16).to_be_bytes()[..], &api.max.to_be_bytes()].concat();
            assert_eq!(TABLE.pipelines(&start), api.key == ApiKey::Produce, "{}", api.name);
            assert!(TABLE.memory_estimate(&start, 100) >= 100 + crate::api::row::SMALL);
        }
        assert!(!TABLE.pipelines(&[0, 0, 0]));
        assert_eq!(TABLE.memory_estimate(&[0x7f, 0xff, 0, 0], 64), 64);
    }

    #[test]
    fn the_controllers_listener_takes_what_is_for_controllers() {
        let keys = |kind| TABLE.apis_of(kind).map(|api| api.key).collect::<Vec<_>>();
        let taken = keys(ListenerKind::Controllers);
        for key in [ApiKey::ApiVersions, ApiKey::CreateTopics, ApiKey::AlterPartition, ApiKey::Envelope] {
            assert!(taken.contains(&key), "{key:?}");
        }
        for key in [ApiKey::Produce, ApiKey::Fetch, ApiKey::Metadata, ApiKey::JoinGroup] {
            assert!(!taken.contains(&key), "{key:?}");
        }
        let of_clients = keys(ListenerKind::Clients);
        assert_eq!(of_clients.len(), TABLE.apis().count());
        assert!(!of_clients.contains(&ApiKey::Envelope) && !of_clients.contains(&ApiKey::AlterPartition));
    }

    #[test]
    fn the_line_of_versions_that_old_clients_need_is_there() {
        // (key, minimum of Kafka 4.3.1, maximum the codec decodes)
        let lines = [
            (0, 3, 13),
            (1, 4, 18),
            (2, 1, 10),
            (3, 0, 13),
            (8, 2, 9),
            (9, 1, 9),
            (10, 0, 6),
            (11, 0, 9),
            (12, 0, 4),
            (13, 0, 5),
            (14, 0, 5),
            (15, 0, 6),
            (16, 0, 5),
            (18, 0, 4),
            (19, 2, 7),
            (20, 1, 6),
            (21, 0, 2),
            (22, 0, 5),
            (23, 2, 4),
            (29, 1, 3),
            (30, 1, 3),
            (31, 1, 3),
            (32, 1, 4),
            (33, 0, 2),
            (35, 1, 4),
            (37, 0, 3),
            (42, 0, 2),
            (43, 0, 2),
            (44, 0, 1),
            (45, 0, 1),
            (46, 0, 0),
            (47, 0, 0),
            (48, 0, 1),
            (49, 0, 1),
            (50, 0, 0),
            (51, 0, 0),
            (55, 0, 2),
            (57, 0, 2),
            (60, 0, 2),
            (61, 0, 0),
            (64, 0, 0),
            (65, 0, 0),
            (66, 0, 2),
            (74, 0, 1),
            (75, 0, 0),
            (80, 0, 0),
            (81, 0, 0),
        ];
        assert_eq!(lines.len(), TABLE.apis().count());
        for (key, min, max) in lines {
            let api = &TABLE.row(key).expect("listed").api;
            assert_eq!((key, api.min, api.max), (key, min, max), "{}", api.name);
            assert_eq!(api.advertised_min, if key == 0 { 0 } else { min });
        }
    }

    /// Every request that a client could miss stands in README, and none that is there.
    #[test]
    fn readme_names_what_is_not_there() {
        // What brokers and controllers say to controllers.
        const CONTROLLERS: [i16; 13] = [52, 53, 54, 56, 58, 59, 62, 63, 67, 70, 73, 82, 93];
        let readme = include_str!("../../README.md");
        let (_, section) = readme.split_once("## Not there yet").expect("a section");
        let (section, _) = section.split_once("\n## ").expect("another one");
        let words: Vec<&str> = section.split_whitespace().collect();
        let text = words.join(" ");
        for key in 8..=92 {
            // 4 to 7 are gone from Kafka, and so is their codec.
            let Ok(api) = ApiKey::try_from(key) else { continue };
            let named = text.contains(&format!("{api:?} ({key}"));
            let missing = TABLE.row(key).is_none() && !CONTROLLERS.contains(&key);
            assert_eq!(named, missing, "{api:?} ({key})");
        }
        assert!(text.contains("AlterReplicaLogDirs (34)") && text.contains("DeleteShareGroupOffsets (92)"));
    }

    fn head(key: i16, version: i16, header_version: i16) -> Vec<u8> {
        let mut out = Vec::new();
        RequestHeader::default()
            .with_request_api_key(key)
            .with_request_api_version(version)
            .with_correlation_id(-7)
            .with_client_id(Some(StrBytes::from_static_str("rdkafka")))
            .encode(&mut out, header_version)
            .expect("encodes");
        out
    }

    fn parse(frame: Bytes) -> Result<frame::RequestHead, frame::HeadError> {
        let row = frame::peek(&frame).and_then(|(key, _)| TABLE.row(key));
        frame::parse(frame, row.map(|row| &row.api))
    }

    #[test]
    fn heads_of_every_api_and_version_are_read_and_cut_ones_refused() {
        for api in TABLE.apis() {
            for version in api.min..=api.max {
                let key = api.key as i16;
                let mut frame = head(key, version, api.key.request_header_version(version));
                for cut in 0..frame.len() {
                    let cut_frame = Bytes::copy_from_slice(&frame[..cut]);
                    assert!(parse(cut_frame).is_err(), "{} v{version} cut at {cut}", api.name);
                }
                frame.extend(b"body");
                let read = parse(frame.into()).expect("a whole head");
                assert_eq!((read.api, read.version, read.correlation_id), (api, version, -7));
                assert_eq!(read.client_id.as_deref(), Some("rdkafka"));
                assert_eq!(&read.body[..], b"body");
            }
        }
    }

    #[test]
    fn refusals_name_their_reason() {
        let reason = |bytes: Vec<u8>| parse(bytes.into()).expect_err("refused").to_string();
        assert_eq!(reason(vec![]), "malformed request head: it ends early");
        assert_eq!(reason(head(4, 0, 1)), "unknown api key 4");
        assert_eq!(reason(head(-1, 0, 1)), "unknown api key -1");
        assert_eq!(reason(head(0, 0, 1)), "unsupported version 0 of Produce");
        assert_eq!(reason(head(1, 99, 2)), "unsupported version 99 of Fetch");
        assert_eq!(reason(head(8, 10, 2)), "unsupported version 10 of OffsetCommit");
        let mut bad_text = head(3, 1, 1);
        bad_text[10] = 0xff;
        assert_eq!(reason(bad_text), "malformed request head: text is not utf-8");
    }

    #[test]
    fn api_versions_of_any_version_reaches_its_handler() {
        for version in [-1, 5, 99, i16::MAX] {
            let header_version = if version >= 3 { 2 } else { 1 };
            let read = parse(head(18, version, header_version).into()).expect("answered, not closed");
            assert_eq!(read.version, version);
        }
    }
}
