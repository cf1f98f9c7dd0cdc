//! Group coordinators on a broker: what is held back, what a failed append does, how the log stays short.

use std::time::Duration;

use kafka_protocol::{
    messages::{DeleteTopicsRequest, TopicName},
    protocol::StrBytes,
};

use super::{
    bench::Bench,
    member::{commit_code, commit_request, commit_with, fetch_request, fetched_offset, join_request, text},
};
use crate::{
    base::{ErrorCode, PartitionKey},
    controller::asks::{DeleteTopics, EnsureTopic},
    group::{GroupAnswer, GroupRequest},
    io::sim::{Failure, Faults, Operation, errno},
    metadata::names::CONSUMER_OFFSETS,
    partition::Isolation,
    shard::OffsetsCall,
    sim::{
        broker::{Life, NODE, Settings},
        connection::{Connection, Gone},
    },
};

/// Asks a group's coordinator past the wire. None: there is none yet, or it lost its state.
async fn ask(connection: &Connection, group: &'static str, request: GroupRequest) -> Result<Option<GroupAnswer>, Gone> {
    let answer = connection.ask(move |router| async move {
        if router.coordinator_of(group).is_none() {
            let _ = router.control(EnsureTopic(CONSUMER_OFFSETS.to_owned())).await;
        }
        match router.coordinator_of(group) {
            Some(partition) => router.group(partition, request).await.ok(),
            None => None,
        }
    });
    answer.await
}

const GROUP: &str = "g";
const NOBODY: StrBytes = StrBytes::from_static_str("");

impl Bench {
    fn group(&self, core: usize, request: GroupRequest) -> Option<GroupAnswer> {
        let connection = self.connect(core);
        self.wait(async move { ask(&connection, GROUP, request).await.expect("the broker lives") })
    }

    fn commit(&self, offset: i64) -> Option<i16> {
        self.group(0, commit_request(GROUP, (&NOBODY, -1), 0, offset)).map(|answer| commit_code(&answer))
    }

    fn committed(&self) -> Option<i64> {
        self.group(0, fetch_request(GROUP, 0)).map(|answer| fetched_offset(&answer))
    }
}

#[test]
fn what_is_told_is_durable() {
    let mut told = 0;
    for seed in 0..60 {
        let mut bench = Bench::start(seed, 2);
        bench.topic("kept", 1);
        assert_eq!(bench.commit(1), Some(0));
        bench.sim.set_faults(NODE, Faults { latency_ns: 1_000_000..20_000_000, ..Faults::default() });
        let (writer, reader) = (bench.connect(0), bench.connect(1));
        let commit = ask_later(&writer, commit_request(GROUP, (&NOBODY, -1), 0, 2));
        bench.sim.run_for(Duration::from_micros(bench.sim.below(30_000)));
        let mut look = ask_later(&reader, fetch_request(GROUP, 0));
        let answer = loop {
            bench.sim.run_steps(1);
            if let Some(answer) = look.try_recv() {
                break fetched_offset(&answer.expect("a coordinator"));
            }
        };
        bench.power_cut(1 + seed as usize % 3);
        drop(commit);
        let after = bench.committed().expect("a coordinator");
        assert!(after >= answer, "seed {seed}: {answer} was told, {after} is there");
        told += i64::from(answer == 2);
    }
    assert!(told > 5, "the commit was never seen before it was durable: {told}");
}

fn ask_later(
    connection: &super::connection::Connection,
    request: GroupRequest,
) -> crate::io::channel::OneshotReceiver<Option<GroupAnswer>> {
    connection.begin(move |router| {
        Box::pin(async move {
            let waits: crate::replica::Local<_> = Box::pin(async move {
                let partition = router.coordinator_of(GROUP).expect("there since the first commit");
                router.group(partition, request).await.ok()
            });
            waits
        })
    })
}

#[test]
fn offsets_of_an_offline_partition_are_not_told() {
    let mut bench = Bench::start(9, 2);
    bench.topic("kept", 1);
    assert_eq!(bench.commit(7), Some(0));
    // None of it is in a segment yet, and no segment can be written.
    let fails =
        Failure { operation: Operation::Open, files_named: "/__consumer_offsets-", error: errno::EIO, one_in: 1 };
    for cores in [1, 2] {
        bench.life.kill();
        bench.sim.set_faults(NODE, Faults { failures: vec![fails.clone()], ..Faults::default() });
        bench.life = Life::begin(&bench.sim, &bench.settings, cores);
        bench.life.must_be_ready(200_000);
        assert_eq!(bench.committed(), None, "nothing is told rather than that there is nothing");
        assert_eq!(bench.commit(8), None);
    }
    bench.life.kill();
    bench.restart(3);
    assert_eq!(bench.committed(), Some(7));
}

#[test]
fn on_a_full_disk_commits_are_refused_or_wait_and_what_was_refused_is_not_told() {
    for seed in 0..6 {
        let mut settings = Settings::small();
        // Not more than what is never promised to appends, as in production: else giving it up would only let more in.
        settings.log.ballast_bytes = settings.log.space_margin_bytes;
        let bench = Bench::start_with(seed, 2, settings);
        bench.topic("kept", 1);
        assert_eq!(bench.commit(1), Some(0));
        bench.sim.set_faults(NODE, Faults { capacity: bench.sim.used_bytes(NODE), ..Faults::default() });
        // What was promised before the disk filled up is used up first.
        let (mut offset, mut waits) = (1, None);
        let connection = bench.connect(0);
        while offset < 500 && waits.is_none() {
            let much = "m".repeat(4000);
            let request = commit_with(GROUP, (&NOBODY, -1), 0, offset + 1, &much);
            let mut answer = ask_later(&connection, request);
            bench.sim.run_for(Duration::from_secs(3));
            match answer.try_recv() {
                Some(Some(answer)) if commit_code(&answer) == 0 => offset += 1,
                Some(Some(answer)) => panic!("seed {seed}: {answer:?}"),
                Some(None) => break,
                None => waits = Some(answer),
            }
        }
        assert!(offset < 500, "seed {seed}: a full disk takes everything");
        bench.sim.set_faults(NODE, Faults::default());
        bench.sim.run_for(Duration::from_secs(5));
        if let Some(mut waits) = waits {
            let answer = waits.try_recv().unwrap_or_else(|| panic!("seed {seed}: there is room, and no answer"));
            offset += i64::from(answer.is_some());
        }
        assert_eq!(bench.committed(), Some(offset), "seed {seed}: what was refused is not told");
        assert_eq!((bench.commit(offset + 2), bench.committed()), (Some(0), Some(offset + 2)), "seed {seed}");
    }
}

#[test]
fn the_log_stays_short_and_nothing_is_forgotten() {
    let mut bench = Bench::start(7, 2);
    bench.topic("kept", 1);
    for offset in 0..1200 {
        assert_eq!(bench.commit(offset), Some(0), "{offset}");
    }
    let start_of = |bench: &Bench| {
        bench.ask(0, |router| async move {
            let topic = router.image().topic(CONSUMER_OFFSETS).expect("it was needed").id;
            let partition = router.coordinator_of(GROUP).expect("it was needed");
            let parts = vec![(PartitionKey { topic_id: topic, partition }, -1, -2)];
            router.offsets(OffsetsCall::List(parts, Isolation::ReadUncommitted)).await[0].expect("there").offset.0
        })
    };
    let start = start_of(&bench);
    assert!(start > 0, "nothing was given up");
    for cores in [1, 3] {
        bench.power_cut(cores);
        assert_eq!(bench.committed(), Some(1199), "{cores} cores");
        assert!(start_of(&bench) >= start, "{cores} cores");
    }
}

#[test]
fn whoever_waits_in_a_group_hears_that_its_coordinator_is_gone() {
    let bench = Bench::start(8, 2);
    bench.topic("kept", 1);
    let join = |id: &StrBytes| bench.group(0, join_request(GROUP, id));
    let Some(GroupAnswer::Join(first)) = join(&NOBODY) else { panic!("no coordinator") };
    assert_eq!(first.error_code, ErrorCode::MemberIdRequired.code());
    let Some(GroupAnswer::Join(joined)) = join(&first.member_id) else { panic!("no coordinator") };
    assert_eq!(joined.error_code, 0);
    // The first member does not come back: the second waits for it.
    let connection = bench.connect(1);
    let Some(GroupAnswer::Join(second)) = join(&NOBODY) else { panic!("no coordinator") };
    let waits = ask_later(&connection, join_request(GROUP, &second.member_id));
    bench.sim.run_for(Duration::from_millis(5));
    bench.delete(CONSUMER_OFFSETS);
    let begun = bench.sim.now();
    let answer = bench.wait(waits).expect("the broker lives");
    assert!(answer.is_none(), "{answer:?}");
    assert!(bench.sim.now().since(begun) < Duration::from_millis(10));
    assert_eq!(bench.committed(), Some(-1), "a new one knows nothing");
}

/// The topic's deletion is durable before its offsets' is: whatever lies between, and whoever reads its log just then, forgets
/// them, so that a topic made anew does not begin where another one had got to.
#[test]
fn offsets_go_with_their_topic_also_if_the_coordinator_does_not_hear_of_it() {
    let mut unheard = 0;
    for steps in 0..200 {
        let mut bench = Bench::start(steps, 2);
        bench.topic("kept", 1);
        assert_eq!(bench.commit(7), Some(0));
        let connection = bench.connect(0);
        let request = DeleteTopicsRequest::default().with_topic_names(vec![TopicName(text("kept"))]);
        drop(connection.begin(move |router| {
            Box::pin(async move {
                let waits: crate::replica::Local<()> =
                    Box::pin(async move { drop(router.control(DeleteTopics(request, 5)).await) });
                waits
            })
        }));
        bench.sim.run_steps(steps);
        bench.life.kill();
        bench.restart(1 + steps as usize % 3);
        if bench.router(0).image().topic("kept").is_some() {
            assert_eq!(bench.committed(), Some(7), "{steps} steps: the topic is still there");
            continue;
        }
        unheard += 1;
        assert_eq!(bench.committed(), Some(-1), "{steps} steps");
        bench.topic("kept", 1);
        bench.power_cut(2);
        assert_eq!(bench.committed(), Some(-1), "{steps} steps: of a topic made anew");
    }
    assert!(unheard > 20, "the deletion was durable {unheard} times");
}

/// The bound is the broker's: one partition of the offsets topic may take all of it, and what is over it is to be asked again.
#[test]
fn groups_share_one_bound_of_memory_and_who_meets_it_is_told_to_come_back() {
    let settings = Settings { group_bytes_max: 90_000, ..Settings::small() };
    let bench = Bench::start_with(3, 2, settings);
    bench.topic("kept", 1);
    let much = "m".repeat(4000);
    let commit = |group: &'static str, index: i32| {
        let request = commit_with(group, (&NOBODY, -1), index, 1, &much);
        let connection = bench.connect(0);
        let answer = bench.wait(async move { ask(&connection, group, request).await.expect("the broker lives") });
        commit_code(&answer.expect("a coordinator"))
    };
    let taken = (0..50).take_while(|index| commit("g", *index) == 0).count();
    assert!((15..22).contains(&taken), "{taken} of 4 KB in 90 KB, though there are three partitions of offsets");
    let full = ErrorCode::CoordinatorNotAvailable.code();
    assert_eq!(commit("g", 49), full);
    for group in ["h", "i", "k"] {
        assert_eq!(commit(group, 0), full, "{group}: whichever partition keeps it");
    }
    assert_eq!(commit("g", 0), 0, "what is there may be committed anew");
    // What is given back may be taken by others.
    bench.delete("kept");
    bench.topic("kept", 1);
    assert_eq!(commit("h", 0), 0);
}
