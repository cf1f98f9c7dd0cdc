//! What brokers ask the controller, as frames.

use std::rc::Rc;

use kafka_protocol::messages::{
    AllocateProducerIdsRequest, AlterPartitionRequest, BrokerHeartbeatRequest, BrokerRegistrationRequest,
    alter_partition_request::{BrokerState, PartitionData, TopicData},
    broker_registration_request::{Feature, Listener},
};
use uuid::Uuid;

use crate::{
    api::{
        controllers::CONTROLLER_ROWS,
        policy::Policy,
        table::{TABLE, Table},
    },
    base::{BrokerId, ErrorCode},
    sim::{bench::Bench, wire::Wire},
};

/// The requests of clients and those of brokers.
fn table() -> &'static Table {
    CONTROLLER_ROWS.iter().fold(&TABLE, |table, row| table.with(*row))
}

fn registration() -> BrokerRegistrationRequest {
    let listener = Listener::default().with_name("PLAINTEXT".into()).with_host("h".into()).with_port(9092);
    let feature = Feature::default()
        .with_name("metadata.version".into())
        .with_min_supported_version(7)
        .with_max_supported_version(30);
    BrokerRegistrationRequest::default()
        .with_broker_id(2.into())
        .with_cluster_id("simulated".into())
        .with_incarnation_id(Uuid::from_u128(1))
        .with_listeners(vec![listener])
        .with_features(vec![feature])
        .with_log_dirs(vec![Uuid::from_u128(1002)])
}

#[test]
fn a_broker_registers_lives_and_alters_what_it_leads() {
    let bench = Bench::start(8, 2);
    let topic_id = bench.topic("t", 1);
    let table = table();
    bench.life.change_contexts(|context| context.with(table, Policy::OPEN));
    let wire = Rc::new(Wire::open(&bench.life).expect("it serves"));
    let router = bench.router(0);
    bench.wait(async move {
        let elsewhere = registration().with_cluster_id("another".into());
        let refused = wire.ask(4, &elsewhere).await.expect("answered");
        let error = ErrorCode::InconsistentClusterId.code();
        assert_eq!((refused.error_code, refused.broker_epoch), (error, -1));
        let next = router.image_offset().plus(1).0;
        for version in 2..=4 {
            let told = wire.ask(version, &registration()).await.expect("answered");
            assert_eq!((told.error_code, told.broker_epoch), (0, next), "version {version}");
        }
        assert!(router.image().broker(BrokerId(2)).expect("registered").fenced);
        for version in 0..=1 {
            // These versions have no directories, without which nobody is registered.
            let told = wire.ask(version, &registration().with_log_dirs(Vec::new())).await.expect("answered");
            assert_eq!(told.error_code, ErrorCode::InvalidRegistration.code());
            let beat = BrokerHeartbeatRequest::default().with_broker_id(2.into()).with_broker_epoch(next);
            let beat = beat.with_current_metadata_offset(next);
            let told = wire.ask(version, &beat).await.expect("answered");
            assert_eq!((told.error_code, told.is_caught_up, told.is_fenced), (0, true, false));
        }
        assert!(!router.image().broker(BrokerId(2)).expect("registered").fenced);

        let block = AllocateProducerIdsRequest::default().with_broker_id(2.into()).with_broker_epoch(next);
        let told = wire.ask(0, &block).await.expect("answered");
        assert_eq!((told.error_code, told.producer_id_len), (0, 1000));
        let told = wire.ask(0, &block.with_broker_epoch(next + 1)).await.expect("answered");
        assert_eq!((told.error_code, told.producer_id_len), (ErrorCode::StaleBrokerEpoch.code(), 0));

        let image = router.image();
        let leader = image.topic_by_id(topic_id).expect("it was made").partitions[0].leader.expect("it is led");
        let broker_epoch = image.broker(leader).expect("registered").broker_epoch;
        for (version, epoch, error) in [(2, broker_epoch, 0), (3, broker_epoch, 0), (3, broker_epoch + 1, 77)] {
            let state = BrokerState::default().with_broker_id(leader.0.into()).with_broker_epoch(broker_epoch);
            let partition = PartitionData::default();
            let partition = match version {
                2 => partition.with_new_isr(vec![leader.0.into()]),
                _ => partition.with_new_isr_with_epochs(vec![state]),
            };
            let topic = TopicData::default().with_topic_id(topic_id.0).with_partitions(vec![partition]);
            let request = AlterPartitionRequest::default().with_broker_id(leader.0.into()).with_broker_epoch(epoch);
            let told = wire.ask(version, &request.with_topics(vec![topic])).await.expect("answered");
            assert_eq!(told.error_code, error);
            let told: Vec<_> = told.topics.iter().flat_map(|topic| &topic.partitions).collect();
            assert!(told.iter().all(|it| it.error_code == 0 && it.leader_id.0 == leader.0), "{told:?}");
            assert_eq!(told.len(), usize::from(error == 0));
        }
    });
}

#[test]
fn whoever_may_not_act_for_the_cluster_is_refused() {
    let bench = Bench::start(9, 2);
    let (table, nobody) = (table(), Policy { may: |_, _, _, _| false, ..Policy::OPEN });
    bench.life.change_contexts(|context| context.with(table, nobody));
    let wire = Rc::new(Wire::open(&bench.life).expect("it serves"));
    bench.wait(async move {
        let mut codes = vec![wire.ask(4, &registration()).await.expect("answered").error_code];
        codes.push(wire.ask(1, &BrokerHeartbeatRequest::default()).await.expect("answered").error_code);
        codes.push(wire.ask(3, &AlterPartitionRequest::default()).await.expect("answered").error_code);
        codes.push(wire.ask(0, &AllocateProducerIdsRequest::default()).await.expect("answered").error_code);
        assert_eq!(codes, [ErrorCode::ClusterAuthorizationFailed.code(); 4]);
    });
}
