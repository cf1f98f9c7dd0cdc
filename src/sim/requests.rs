//! The table of requests as clients meet it.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        AddRaftVoterRequest, AlterClientQuotasRequest, AlterConfigsRequest, AlterPartitionReassignmentsRequest,
        AlterUserScramCredentialsRequest, ApiKey, ApiVersionsRequest, CreateAclsRequest, CreatePartitionsRequest,
        CreateTopicsRequest, DeleteAclsRequest, DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
        DescribeAclsRequest, DescribeClientQuotasRequest, DescribeClusterRequest, DescribeConfigsRequest,
        DescribeDelegationTokenRequest, DescribeGroupsRequest, DescribeLogDirsRequest, DescribeProducersRequest,
        DescribeQuorumRequest, DescribeTopicPartitionsRequest, DescribeTransactionsRequest,
        DescribeUserScramCredentialsRequest, ElectLeadersRequest, FetchRequest, FindCoordinatorRequest, GroupId,
        HeartbeatRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest,
        ListConfigResourcesRequest, ListOffsetsRequest, ListPartitionReassignmentsRequest, MetadataRequest,
        OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, OffsetForLeaderEpochRequest, ProduceRequest,
        RemoveRaftVoterRequest, SyncGroupRequest, TopicName, UnregisterBrokerRequest, UpdateFeaturesRequest,
        alter_configs_request,
        create_partitions_request::CreatePartitionsTopic,
        create_topics_request::CreatableTopic,
        delete_records_request::DeleteRecordsTopic,
        describe_configs_request::DescribeConfigsResource,
        describe_producers_request,
        describe_topic_partitions_request::TopicRequest,
        elect_leaders_request,
        fetch_request::{FetchPartition, FetchTopic},
        incremental_alter_configs_request::AlterConfigsResource,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        metadata_request::MetadataRequestTopic,
        offset_commit_request::OffsetCommitRequestTopic,
        offset_fetch_request::OffsetFetchRequestGroup,
        offset_for_leader_epoch_request::OffsetForLeaderTopic,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::Request,
};

use crate::{
    api::{
        self, Identity, Outcome, Session,
        policy::{Policy, Quota},
        table::TABLE,
        toy,
    },
    sim::{
        bench::Bench,
        connection::Gone,
        member::text,
        wire::{self, Wire},
    },
};

/// What is advertised for the toy's key, and the tokens that it names in each of its versions.
async fn ask_toy(wire: Rc<Wire>) -> Result<(Option<(i16, i16)>, Vec<String>), Gone> {
    let versions = wire.ask(0, &ApiVersionsRequest::default()).await?;
    let range = versions.api_keys.iter().find(|range| range.api_key == ApiKey::DescribeDelegationToken as i16);
    let range = range.map(|range| (range.min_version, range.max_version));
    let mut tokens = Vec::new();
    for version in 1..=3 {
        let answer = wire.ask(version, &DescribeDelegationTokenRequest::default().with_owners(None)).await?;
        tokens.extend(answer.tokens.iter().map(|token| format!("{version} {}", token.token_id.as_str())));
    }
    Ok((range, tokens))
}

#[test]
fn one_more_request_is_a_file_and_a_row() {
    let bench = Bench::start(5, 2);
    bench.topic("t", 1);
    let open = || Rc::new(Wire::open(&bench.life).expect("it serves"));
    assert!(bench.wait(ask_toy(open())).is_err(), "without a row the connection ends");

    let table = TABLE.with(toy::ROW);
    bench.life.change_contexts(|context| context.with(table, Policy::OPEN));
    let (range, tokens) = bench.wait(ask_toy(open())).expect("answered");
    assert_eq!(range, Some((1, 3)));
    assert_eq!(tokens, ["1 toy t", "2 toy t", "3 toy t"]);

    // The guard knows its shape: a list longer than the frame never gets to the codec.
    let mut forged = wire::frame(1, 9, &DescribeDelegationTokenRequest::default().with_owners(None)).to_vec();
    let length = forged.len();
    forged[length - 4..].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff]);
    assert!(bench.wait(open().send(forged.into())).is_none(), "the connection ends");

    let start = [0, ApiKey::DescribeDelegationToken as u8, 0, 1];
    assert_eq!((table.memory_estimate(&start, 100), TABLE.memory_estimate(&start, 100)), (4096 + 300, 100));
}

#[test]
fn what_clients_ask_ends_a_connection_of_the_controllers_listener() {
    let bench = Bench::start(7, 1);
    bench.topic("t", 1);
    let context = bench.life.context(0).expect("it serves");
    let outcomes = bench.wait(async move {
        let session = Rc::new(Session::of_controllers(std::net::Ipv4Addr::LOCALHOST.into(), Identity::default()));
        let mut outcomes = Vec::new();
        for frame in [
            wire::frame(
                3,
                1,
                &ApiVersionsRequest::default()
                    .with_client_software_name(text("a"))
                    .with_client_software_version(text("1")),
            ),
            wire::frame(9, 2, &MetadataRequest::default()),
            wire::frame(9, 3, &ProduceRequest::default()),
        ] {
            outcomes.push(api::handle(&context, &session, frame).await.await);
        }
        outcomes
    });
    assert!(matches!(outcomes[0], Outcome::Reply(..)), "{outcomes:?}");
    for (outcome, name) in outcomes[1..].iter().zip(["Metadata", "Produce"]) {
        let Outcome::Close(why) = outcome else { panic!("{outcome:?}") };
        assert_eq!(why, &format!("the controllers' listener does not take {name}"));
    }
}

/// The first line of an authorizer: whoever has not said who it is may do nothing.
fn nobody_may() -> Policy {
    Policy { may: |_, _, _, _| false, ..Policy::OPEN }
}

/// The codes of what a request names, one after the other.
async fn codes<R: Request>(
    wire: &Wire,
    version: i16,
    request: R,
    codes: impl Fn(&R::Response) -> Vec<i16>,
) -> Vec<i16> {
    codes(&wire.ask(version, &request).await.expect("answered"))
}

#[test]
fn whoever_may_do_nothing_is_refused_by_every_request() {
    let bench = Bench::start(6, 2);
    bench.topic("t", 1);
    bench.life.change_contexts(|context| context.with(&TABLE, nobody_may()));
    let wire = Rc::new(Wire::open(&bench.life).expect("it serves"));
    bench.wait(async move {
        let (name, group) = (|| TopicName(text("t")), || GroupId(text("g")));
        let topic = 29;
        let groups = 30;
        let cluster = 31;

        let partition = PartitionProduceData::default().with_records(Some(Bytes::new()));
        let data = TopicProduceData::default().with_name(name()).with_partition_data(vec![partition]);
        let request = ProduceRequest::default().with_acks(-1).with_topic_data(vec![data]);
        let found = codes(&wire, 9, request, |it| vec![it.responses[0].partition_responses[0].error_code]);
        assert_eq!(found.await, [topic]);
        let asked = FetchTopic::default().with_topic(name()).with_partitions(vec![FetchPartition::default()]);
        let request =
            FetchRequest::default().with_topics(vec![asked]).with_replica_id((-1).into()).with_session_epoch(-1);
        let found = codes(&wire, 12, request, |it| vec![it.responses[0].partitions[0].error_code]);
        assert_eq!(found.await, [topic]);
        let asked =
            ListOffsetsTopic::default().with_name(name()).with_partitions(vec![ListOffsetsPartition::default()]);
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![asked]);
        assert_eq!(codes(&wire, 7, request, |it| vec![it.topics[0].partitions[0].error_code]).await, [topic]);
        let asked = OffsetForLeaderTopic::default().with_topic(name()).with_partitions(vec![Default::default()]);
        let request = OffsetForLeaderEpochRequest::default().with_topics(vec![asked]);
        assert_eq!(codes(&wire, 4, request, |it| vec![it.topics[0].partitions[0].error_code]).await, [topic]);
        let asked = DeleteRecordsTopic::default().with_name(name()).with_partitions(vec![Default::default()]);
        let request = DeleteRecordsRequest::default().with_topics(vec![asked]);
        assert_eq!(codes(&wire, 2, request, |it| vec![it.topics[0].partitions[0].error_code]).await, [topic]);

        let asked = ["t", "new"].map(|name| MetadataRequestTopic::default().with_name(Some(TopicName(text(name)))));
        let request = MetadataRequest::default().with_topics(Some(asked.to_vec()));
        let found = codes(&wire, 9, request, |it| it.topics.iter().map(|topic| topic.error_code).collect());
        assert_eq!(found.await, [topic, topic]);
        let request = MetadataRequest::default().with_topics(None);
        assert!(codes(&wire, 9, request, |it| vec![it.topics.len() as i16]).await == [0], "it sees none");
        let request =
            DescribeTopicPartitionsRequest::default().with_topics(vec![TopicRequest::default().with_name(name())]);
        assert_eq!(codes(&wire, 0, request, |it| vec![it.topics[0].error_code]).await, [topic]);

        let asked = CreatableTopic::default().with_name(TopicName(text("new"))).with_num_partitions(1);
        let request = CreateTopicsRequest::default().with_topics(vec![asked.with_replication_factor(1)]);
        assert_eq!(codes(&wire, 5, request, |it| vec![it.topics[0].error_code]).await, [topic]);
        let request = DeleteTopicsRequest::default().with_topic_names(vec![name()]);
        assert_eq!(codes(&wire, 5, request, |it| vec![it.responses[0].error_code]).await, [topic]);
        let request = CreatePartitionsRequest::default()
            .with_topics(vec![CreatePartitionsTopic::default().with_name(name()).with_count(3)]);
        assert_eq!(codes(&wire, 3, request, |it| vec![it.results[0].error_code]).await, [topic]);
        let resources = [(2, "t"), (4, "1")].map(|(kind, name)| {
            DescribeConfigsResource::default().with_resource_type(kind).with_resource_name(text(name))
        });
        let request = DescribeConfigsRequest::default().with_resources(resources.to_vec());
        let found = codes(&wire, 4, request, |it| it.results.iter().map(|result| result.error_code).collect());
        assert_eq!(found.await, [topic, cluster]);
        let resources = [(2, "t"), (4, "1")].map(|(kind, name)| {
            AlterConfigsResource::default().with_resource_type(kind).with_resource_name(text(name))
        });
        let request = IncrementalAlterConfigsRequest::default().with_resources(resources.to_vec());
        let found = codes(&wire, 1, request, |it| it.responses.iter().map(|result| result.error_code).collect());
        assert_eq!(found.await, [topic, cluster]);
        let resources = [(2, "t"), (4, "1")].map(|(kind, name)| {
            alter_configs_request::AlterConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(text(name))
        });
        let request = AlterConfigsRequest::default().with_resources(resources.to_vec());
        let found = codes(&wire, 2, request, |it| it.responses.iter().map(|result| result.error_code).collect());
        assert_eq!(found.await, [topic, cluster]);
        let request = ListConfigResourcesRequest::default();
        assert_eq!(codes(&wire, 1, request, |it| vec![it.error_code]).await, [cluster]);
        let request = DescribeLogDirsRequest::default().with_topics(None);
        assert_eq!(codes(&wire, 4, request, |it| vec![it.error_code]).await, [cluster]);
        let asked = elect_leaders_request::TopicPartitions::default().with_topic(name()).with_partitions(vec![0]);
        let request = ElectLeadersRequest::default().with_topic_partitions(Some(vec![asked]));
        let found = codes(&wire, 2, request, |it| {
            vec![it.error_code, it.replica_election_results[0].partition_result[0].error_code]
        });
        assert_eq!(found.await, [cluster, cluster]);
        let request = AlterPartitionReassignmentsRequest::default();
        assert_eq!(codes(&wire, 1, request, |it| vec![it.error_code]).await, [cluster]);
        let request = ListPartitionReassignmentsRequest::default().with_topics(None);
        assert_eq!(codes(&wire, 0, request, |it| vec![it.error_code]).await, [cluster]);
        let request = DescribeQuorumRequest::default();
        assert_eq!(codes(&wire, 2, request, |it| vec![it.error_code]).await, [cluster]);
        let request = UpdateFeaturesRequest::default();
        assert_eq!(codes(&wire, 2, request, |it| vec![it.error_code]).await, [cluster]);
        let request = UnregisterBrokerRequest::default();
        assert_eq!(codes(&wire, 0, request, |it| vec![it.error_code]).await, [cluster]);
        let request = AddRaftVoterRequest::default();
        assert_eq!(codes(&wire, 0, request, |it| vec![it.error_code]).await, [cluster]);
        let request = RemoveRaftVoterRequest::default();
        assert_eq!(codes(&wire, 0, request, |it| vec![it.error_code]).await, [cluster]);
        let request = DescribeClientQuotasRequest::default();
        assert_eq!(codes(&wire, 1, request, |it| vec![it.error_code]).await, [cluster]);
        let request = AlterClientQuotasRequest::default().with_entries(vec![Default::default()]);
        assert_eq!(codes(&wire, 1, request, |it| vec![it.entries[0].error_code]).await, [cluster]);
        let request = DescribeAclsRequest::default();
        assert_eq!(codes(&wire, 3, request, |it| vec![it.error_code]).await, [cluster]);
        let request = CreateAclsRequest::default().with_creations(vec![Default::default()]);
        assert_eq!(codes(&wire, 3, request, |it| vec![it.results[0].error_code]).await, [cluster]);
        let request = DeleteAclsRequest::default().with_filters(vec![Default::default()]);
        assert_eq!(codes(&wire, 3, request, |it| vec![it.filter_results[0].error_code]).await, [cluster]);
        let asked =
            describe_producers_request::TopicRequest::default().with_name(name()).with_partition_indexes(vec![0]);
        let request = DescribeProducersRequest::default().with_topics(vec![asked]);
        assert_eq!(codes(&wire, 0, request, |it| vec![it.topics[0].partitions[0].error_code]).await, [topic]);
        let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![Default::default()]);
        assert_eq!(codes(&wire, 0, request, |it| vec![it.transaction_states[0].error_code]).await, [53]);
        let request = DescribeUserScramCredentialsRequest::default();
        assert_eq!(codes(&wire, 0, request, |it| vec![it.error_code]).await, [cluster]);
        let request = AlterUserScramCredentialsRequest::default().with_deletions(vec![Default::default()]);
        assert_eq!(codes(&wire, 0, request, |it| vec![it.results[0].error_code]).await, [cluster]);
        let request = InitProducerIdRequest::default().with_transactional_id(None).with_producer_id((-1).into());
        assert_eq!(codes(&wire, 4, request, |it| vec![it.error_code]).await, [cluster]);

        let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]);
        assert_eq!(codes(&wire, 4, request, |it| vec![it.coordinators[0].error_code]).await, [groups]);
        let request = JoinGroupRequest::default().with_group_id(group()).with_session_timeout_ms(10_000);
        assert_eq!(codes(&wire, 5, request, |it| vec![it.error_code]).await, [groups]);
        let request = SyncGroupRequest::default().with_group_id(group());
        assert_eq!(codes(&wire, 3, request, |it| vec![it.error_code]).await, [groups]);
        let request = HeartbeatRequest::default().with_group_id(group());
        assert_eq!(codes(&wire, 4, request, |it| vec![it.error_code]).await, [groups]);
        let request = LeaveGroupRequest::default().with_group_id(group());
        assert_eq!(codes(&wire, 2, request, |it| vec![it.error_code]).await, [groups]);
        let asked = OffsetCommitRequestTopic::default().with_name(name()).with_partitions(vec![Default::default()]);
        let request = OffsetCommitRequest::default().with_group_id(group()).with_topics(vec![asked]);
        assert_eq!(codes(&wire, 8, request, |it| vec![it.topics[0].partitions[0].error_code]).await, [groups]);
        let asked = OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(None);
        let request = OffsetFetchRequest::default().with_groups(vec![asked]);
        assert_eq!(codes(&wire, 8, request, |it| vec![it.groups[0].error_code]).await, [groups]);
        let request = OffsetDeleteRequest::default().with_group_id(group());
        assert_eq!(codes(&wire, 0, request, |it| vec![it.error_code]).await, [groups]);
        let request = DescribeGroupsRequest::default().with_groups(vec![group()]);
        assert_eq!(codes(&wire, 5, request, |it| vec![it.groups[0].error_code]).await, [groups]);
        let request = DeleteGroupsRequest::default().with_groups_names(vec![group()]);
        assert_eq!(codes(&wire, 2, request, |it| vec![it.results[0].error_code]).await, [groups]);
        let request = DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
        let found = codes(&wire, 0, request, |it| vec![it.error_code, it.cluster_authorized_operations as i16]);
        assert_eq!(found.await, [0, 0], "nothing is allowed");
    });
    assert!(bench.router(1).image().topic("new").is_none());
    assert_eq!(bench.router(1).image().topic("t").map(|topic| topic.partitions.len()), Some(1));
}

/// The first line of quotas: a time for each kind.
fn throttled() -> Policy {
    let throttle = |_: &Session, quota| match quota {
        Quota::Produce => Duration::from_millis(1),
        Quota::Fetch => Duration::from_millis(2),
        Quota::Mutation => Duration::from_millis(3),
        Quota::Request => Duration::from_millis(4),
    };
    Policy { throttle, ..Policy::OPEN }
}

#[test]
fn every_answer_tells_how_long_its_client_is_throttled_in_versions_that_can() {
    let bench = Bench::start(8, 2);
    bench.life.change_contexts(|context| context.with(&TABLE, throttled()));
    let wire = Rc::new(Wire::open(&bench.life).expect("it serves"));
    bench.wait(async move {
        let asked = wire.ask(9, &ProduceRequest::default().with_acks(-1)).await.expect("answered");
        assert_eq!(asked.throttle_time_ms, 1);
        for (version, told) in [(4, 2), (12, 2), (17, 2)] {
            let request = FetchRequest::default().with_replica_id((-1).into()).with_session_epoch(-1);
            assert_eq!(wire.ask(version, &request).await.expect("answered").throttle_time_ms, told, "v{version}");
        }
        let asked = wire.ask(5, &CreateTopicsRequest::default()).await.expect("answered");
        assert_eq!(asked.throttle_time_ms, 3);
        for (version, told) in [(0, 0), (1, 4), (4, 4)] {
            let request = HeartbeatRequest::default().with_group_id(GroupId(text("g")));
            assert_eq!(wire.ask(version, &request).await.expect("answered").throttle_time_ms, told, "v{version}");
        }
        let named =
            ApiVersionsRequest::default().with_client_software_name(text("x")).with_client_software_version(text("1"));
        assert_eq!(wire.ask(3, &named).await.expect("answered").throttle_time_ms, 4);
    });
}
