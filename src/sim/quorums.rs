//! Changes of metadata: snapshots, refusals, clients that go away in the middle.

use std::{rc::Rc, time::Duration};

use kafka_protocol::messages::{
    IncrementalAlterConfigsRequest,
    incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
};

use super::{
    admin::topics_of,
    bench::{Bench, create},
};
use crate::{
    base::ErrorCode,
    controller::asks::IncrementalAlterConfigs,
    io::sim::Faults,
    protocol::metadata_records::{BROKER_RESOURCE, TOPIC_RESOURCE},
    shard::{Router, TopicView},
    sim::{
        broker::{CLIENTS, DIRECTORY, NODE},
        member::text,
    },
};

/// How many snapshots of the metadata there are.
fn snapshots(bench: &Bench) -> usize {
    bench.sim.block_on(NODE, 0, |io| async move {
        let path = std::path::Path::new(DIRECTORY).join("__cluster_metadata-0");
        let entries = io.disk.read_dir(&path).await.unwrap_or_default();
        entries.iter().filter(|entry| entry.name.ends_with(".checkpoint")).count()
    })
}

fn images_agree(bench: &Bench, hint: &str) {
    let first = bench.router(0).image();
    for core in 1..bench.life.cores {
        assert_eq!(*bench.router(core).image(), *first, "{hint}: core {core}");
        assert_eq!(bench.router(core).image_offset(), bench.router(0).image_offset(), "{hint}: core {core}");
    }
}

#[test]
fn snapshot_and_log_together_are_the_metadata_after_every_power_cut() {
    for seed in 0..12 {
        let mut bench = Bench::start(seed, 2);
        let mut known = 0;
        for life in 0..4 {
            for number in 0..20 {
                bench.topic(&format!("topic-{life}-{number}"), 4);
                known += 1;
            }
            bench.delete(&format!("topic-{life}-3"));
            known -= 1;
            let before = topics_of(&bench.router(0).image());
            assert_eq!(before.len(), known, "seed {seed}");
            bench.power_cut(1 + (seed as usize + life) % 3);
            assert_eq!(topics_of(&bench.router(0).image()), before, "seed {seed} life {life}");
            images_agree(&bench, &format!("seed {seed} life {life}"));
        }
        // A power cut may bring older ones back; the next snapshot removes them.
        assert!(snapshots(&bench) > 0, "seed {seed}");
    }
}

#[test]
fn a_change_whose_client_hangs_up_happens_everywhere_or_nowhere() {
    for steps in 0..120 {
        let mut bench = Bench::start(steps, 2);
        let connection = bench.connect(0);
        let asked = create("half", 2);
        drop(connection.begin(move |router| {
            Box::pin(async move {
                let waits: crate::replica::Local<()> = Box::pin(async move { drop(asked(router).await) });
                waits
            })
        }));
        bench.sim.run_steps(steps);
        drop(connection);
        bench.sim.run_for(Duration::from_millis(50));
        images_agree(&bench, &format!("{steps} steps"));
        let before = topics_of(&bench.router(0).image());
        bench.power_cut(1);
        assert_eq!(topics_of(&bench.router(0).image()), before, "{steps} steps");
        if before.is_empty() {
            bench.topic("half", 2);
        }
    }
}

#[test]
fn a_change_that_is_not_durable_is_refused_and_forgotten() {
    let mut bench = Bench::start(3, 2);
    bench.topic("before", 2);
    bench.sim.set_faults(NODE, Faults { capacity: bench.sim.used_bytes(NODE), ..Faults::default() });
    let mut number = 0;
    // What was promised before the disk filled up is used up first.
    let refused = loop {
        match bench.ask(1, create(&format!("late-{number}"), 600)) {
            Ok(_) => number += 1,
            Err(error) => break error,
        }
        assert!(number < 20, "a full disk takes everything");
    };
    assert_eq!(refused, ErrorCode::KafkaStorageError);
    images_agree(&bench, "refused");
    assert!(bench.router(0).image().topic(&format!("late-{number}")).is_none());
    bench.sim.set_faults(NODE, Faults::default());
    bench.sim.run_for(Duration::from_secs(2));
    bench.topic(&format!("late-{number}"), 3);
    let before = topics_of(&bench.router(1).image());
    bench.power_cut(3);
    assert_eq!(topics_of(&bench.router(2).image()), before);
    bench.sim.kill(CLIENTS);
}

fn set(bench: &Bench, kind: i8, name: &'static str, config: &'static str, value: &'static str) {
    let config = AlterableConfig::default().with_name(text(config)).with_value(Some(text(value)));
    let resource = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let ask =
        |router: Router| async move { router.control(IncrementalAlterConfigs(request, router.broker_id())).await };
    match bench.ask(0, ask) {
        Ok(answer) => assert_eq!(answer.responses[0].error_code, 0, "{answer:?}"),
        Err(error) => panic!("{error:?}"),
    }
}

#[test]
fn a_change_renews_what_cores_know_of_the_topics_that_it_touches_and_of_no_other() {
    let bench = Bench::start(1, 2);
    let (one, other) = (bench.topic("one", 2), bench.topic("other", 2));
    let view = |core, topic| bench.router(core).topic(topic).expect("it is there");
    let views = || [view(0, one), view(1, one), view(0, other), view(1, other)];
    let same = |before: &[Rc<TopicView>; 4]| {
        before.iter().zip(views()).map(|(before, now)| Rc::ptr_eq(before, &now)).collect::<Vec<_>>()
    };
    let before = views();
    bench.topic("third", 3);
    assert_eq!(same(&before), [true; 4]);
    set(&bench, TOPIC_RESOURCE, "one", "max.message.bytes", "1234");
    assert_eq!(same(&before), [false, false, true, true]);
    assert_eq!(view(1, one).rules.max_message_bytes, 1234);
    set(&bench, BROKER_RESOURCE, "", "message.max.bytes", "4321");
    assert_eq!(same(&before), [false; 4]);
    assert_eq!([view(1, one), view(1, other)].map(|view| view.rules.max_message_bytes), [1234, 4321]);
}
