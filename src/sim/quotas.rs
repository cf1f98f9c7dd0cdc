//! Clients are held to their quotas, over the wire.

use std::{rc::Rc, time::Duration};

use kafka_protocol::messages::{
    AlterClientQuotasRequest, FetchRequest, GroupId, HeartbeatRequest, TopicName,
    alter_client_quotas_request::{EntityData, EntryData, OpData},
    fetch_request::{FetchPartition, FetchTopic},
};

use crate::{
    base::{PartitionKey, ProducerId},
    protocol::compression::Compression,
    sim::{
        bench::Bench,
        broker::CLIENTS,
        member::text,
        producer,
        records::{self, Value},
        wire::{self, Wire},
    },
};

async fn set(wire: &Wire, entity: &[(&str, Option<&str>)], key: &str, value: Option<f64>) {
    let part = |(kind, name): &(&str, Option<&str>)| {
        EntityData::default().with_entity_type(text(kind)).with_entity_name(name.map(text))
    };
    let op = OpData::default().with_key(text(key)).with_value(value.unwrap_or(0.0)).with_remove(value.is_none());
    let entry = EntryData::default().with_entity(entity.iter().map(part).collect()).with_ops(vec![op]);
    let answer = wire.ask(1, &AlterClientQuotasRequest::default().with_entries(vec![entry])).await.expect("answered");
    assert_eq!(answer.entries[0].error_code, 0, "{answer:?}");
}

#[test]
fn who_uses_more_than_its_quota_waits_on_every_connection_until_it_has_not() {
    let mut bench = Bench::start(11, 2);
    let topic = bench.topic("t", 1);
    let key = PartitionKey { topic_id: topic, partition: 0 };
    let open = |bench: &Bench| Rc::new(Wire::open(&bench.life).expect("it serves"));
    let values = (0..300).map(|number| Value { writer: 1, number });
    let batch = records::batch(values, (ProducerId(-1), -1), Compression::None);
    let batch_bytes = batch.len();
    let request = producer::request(9, key, "t", batch, -1);
    let bytes = wire::frame(9, 1, &request).len();
    assert!(bytes > 20_000, "{bytes} bytes");
    let waited = move |times: f64| ((bytes as f64 * times / 10.0 - 1000.0) / 1000.0 * 10_000.0).round() as i32;

    let (admin, one, other, silent) = (open(&bench), open(&bench), open(&bench), open(&bench));
    bench.sim.block_on(CLIENTS, 0, |io| async move {
        let (clock, produced) = (io.clock, request);
        assert_eq!(one.ask(9, &produced).await.expect("answered").throttle_time_ms, 0, "nothing is set");
        set(&admin, &[("user", Some("ANONYMOUS"))], "producer_byte_rate", Some(1000.0)).await;
        // Ten seconds' worth is free, what is beyond is waited for: by the client, which has its answer, on all of its connections.
        let began = clock.now();
        let first = one.ask(9, &produced).await.expect("answered").throttle_time_ms;
        assert_eq!(first, waited(1.0));
        let second = other.ask(9, &produced).await.expect("answered").throttle_time_ms;
        assert!((second - waited(2.0)).abs() < 1000, "{second}, not {}", waited(2.0));
        assert!(clock.now().since(began) < Duration::from_secs(2), "answers come at once");
        // Who wants no answer waits as well.
        silent.tell(9, &produced.clone().with_acks(0));
        silent.ask(4, &HeartbeatRequest::default().with_group_id(GroupId(text("g")))).await.expect("answered");
        assert!(clock.now().since(began) >= Duration::from_millis(waited(2.0) as u64), "no request was begun before");
        // A quota that is gone holds nobody, and other kinds never did.
        set(&admin, &[("user", Some("ANONYMOUS"))], "producer_byte_rate", None).await;
        let fresh = Wire::open(&admin.life).expect("it serves");
        assert_eq!(fresh.ask(9, &produced).await.expect("answered").throttle_time_ms, 0);
        set(&admin, &[("client-id", None)], "consumer_byte_rate", Some(500.0)).await;
        assert_eq!(fresh.ask(9, &produced).await.expect("answered").throttle_time_ms, 0);
    });

    // What was set is there after a power cut, and a fetch is no longer than its windows allow.
    bench.power_cut(2);
    let reader = open(&bench);
    bench.wait(async move {
        let partition = FetchPartition::default().with_partition(key.partition).with_partition_max_bytes(1 << 20);
        let topic = FetchTopic::default().with_topic(TopicName(text("t")));
        let fetch = FetchRequest::default()
            .with_replica_id((-1).into())
            .with_session_epoch(-1)
            .with_max_bytes(1 << 20)
            .with_topics(vec![topic.with_partitions(vec![partition])]);
        let answer = reader.ask(11, &fetch).await.expect("answered");
        let read = answer.responses[0].partitions[0].records.as_ref().map_or(0, bytes::Bytes::len);
        assert_eq!(read, batch_bytes, "one batch, which is more than the quota's windows have, and no second one");
        assert!(answer.throttle_time_ms > 10_000, "{}", answer.throttle_time_ms);
    });
}
