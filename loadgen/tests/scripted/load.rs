//! Whole runs against the scripted broker: what the load does about faults, and what the verification finds.

use std::time::Duration;

use kafka_protocol::messages::ApiKey;
use ringtail_loadgen::{
    engine::{self, Outcome},
    workload::{Workload, shape::Shape},
};

use crate::peer::{APIS, Fault, Peer, Rule};

const RECORDS: u64 = 100;

/// 100 records in half a second and a consumer; lateness is not judged, since tests share the machine.
fn shape() -> Shape {
    let text = |text: &str| Some(text.to_owned());
    Shape {
        rate: text("200"),
        record_bytes: text("64"),
        batch_records: Some(1),
        duration: text("500ms"),
        warm_up: text("0s"),
        timeout: text("10s"),
        request_timeout: text("400ms"),
        lateness_bound: text("10m"),
        ..Shape::default()
    }
}

fn run(peer: &Peer, shape: &Shape) -> Outcome {
    let workload = Workload::resolve(shape).expect("a good shape");
    engine::run(&workload, std::slice::from_ref(&peer.address), &mut |_| {}).expect("a run with a report")
}

fn run_with(rules: &[Rule]) -> (Peer, Outcome) {
    let peer = Peer::start(rules);
    let outcome = run(&peer, &shape());
    (peer, outcome)
}

/// Runs spend their time waiting, so they do it together.
fn each<T: Sync>(cases: &[T], check: impl Fn(&T) + Sync) {
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(|| check(case));
        }
    });
}

fn retries(outcome: &Outcome) -> Vec<(i16, u64)> {
    outcome.books.totals.counters.retries.iter().map(|(code, count)| (*code, *count)).collect()
}

/// Everything was acknowledged, read, and found in order.
fn assert_whole(outcome: &Outcome, what: &str) {
    let counters = &outcome.books.totals.counters;
    assert_eq!(counters.acked_records, RECORDS, "{what}: {counters:?}");
    assert_eq!(counters.failed_records + counters.timed_out_records, 0, "{what}: {counters:?}");
    let verdict = outcome.verdict.as_ref().expect("verified");
    assert_eq!(verdict.checked_records, RECORDS, "{what}: {verdict:?}");
    assert!(!verdict.is_broken(true), "{what}: {verdict:?}");
}

#[test]
fn an_honest_broker_is_found_honest() {
    let (peer, outcome) = run_with(&[]);
    assert_whole(&outcome, "honest");
    assert_eq!(outcome.books.totals.counters.reconnects, 0);
    assert_eq!(peer.seen(ApiKey::DeleteTopics).len(), 1, "its topic is removed");
}

#[test]
fn frames_in_pieces_lose_nothing() {
    let pieces = [ApiKey::ApiVersions, ApiKey::Produce, ApiKey::Fetch].map(|api| (api, 0..9, Fault::Pieces));
    let (_, outcome) = run_with(&pieces);
    assert_whole(&outcome, "pieces");
    assert_eq!(retries(&outcome), []);
}

#[test]
fn lost_connections_are_made_anew_and_lose_nothing() {
    for api in [ApiKey::Produce, ApiKey::Fetch] {
        each(&[Fault::Cut(0), Fault::Cut(11), Fault::Hang, Fault::Garble, Fault::Stranger, Fault::Mute], |fault| {
            let fault = *fault;
            let is_produce = api == ApiKey::Produce;
            let rules = [(api, 3..4, fault)];
            let peer = Peer::start(&rules);
            let outcome = run(&peer, &Shape { idempotence: Some(!is_produce), in_flight: Some(1), ..shape() });
            let counters = &outcome.books.totals.counters;
            let what = format!("{api:?} {fault:?}: {counters:?}");
            assert_eq!(counters.acked_records, RECORDS, "{what}");
            assert!(counters.reconnects >= 1, "{what}");
            let verdict = outcome.verdict.as_ref().expect("verified");
            assert_eq!(verdict.lost_records, 0, "{what}: {verdict:?}");
            if is_produce {
                let code = if matches!(fault, Fault::Mute) { 7 } else { 13 };
                assert_eq!(retries(&outcome), [(code, 1)], "{what}");
                // Stored, not acknowledged, sent again: what a broker without idempotence does.
                assert_eq!(verdict.duplicate_records, 1, "{what}: {verdict:?}");
            } else {
                assert_whole(&outcome, &what);
            }
        });
    }
}

#[test]
fn refusals_are_counted_by_code_and_retried() {
    // LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER, NOT_ENOUGH_REPLICAS, KAFKA_STORAGE_ERROR.
    each(&[5, 6, 19, 56], |code| {
        let code = *code;
        let (peer, outcome) = run_with(&[(ApiKey::Produce, 2..3, Fault::Code(code))]);
        let what = format!("produce {code}");
        assert_eq!(outcome.books.totals.counters.acked_records, RECORDS, "{what}");
        assert_eq!(retries(&outcome).iter().find(|(found, _)| *found == code), Some(&(code, 1)), "{what}");
        assert!(peer.seen(ApiKey::Metadata).len() >= 3, "{what}: the leaders are asked for again");
    });
    each(&[6, 70, 56, -1], |code| {
        let (_, outcome) = run_with(&[(ApiKey::Fetch, 2..3, Fault::Code(*code))]);
        assert_whole(&outcome, &format!("fetch {code}"));
    });
}

#[test]
fn a_fatal_code_is_counted_and_stays_in_the_percentiles() {
    let peer = Peer::start(&[(ApiKey::Produce, 2..3, Fault::Code(10))]);
    let outcome = run(&peer, &Shape { idempotence: Some(false), ..shape() });
    let counters = &outcome.books.totals.counters;
    assert_eq!((counters.acked_records, counters.failed_records), (RECORDS - 1, 1), "{counters:?}");
    assert_eq!(counters.errors.get(&10), Some(&1), "{counters:?}");
    assert_eq!(outcome.verdict.as_ref().expect("verified").lost_records, 0);
}

/// The time between the third request and the fourth on its connection, the third being answered with a fault.
fn silence_after_third(api: ApiKey, peer: &Peer) -> Duration {
    let seen = peer.seen(api);
    let next = seen[3..].iter().find(|next| next.connection == seen[2].connection).expect("it goes on");
    next.at - seen[2].at
}

#[test]
fn producers_and_consumers_keep_the_silence_that_is_asked_for() {
    for api in [ApiKey::Produce, ApiKey::Fetch] {
        let throttled = [(api, 2..3, Fault::Throttle(200))];
        let peer = Peer::start(&throttled);
        let one_at_a_time = Shape { in_flight: Some(1), ..shape() };
        let outcome = run(&peer, &one_at_a_time);
        assert_whole(&outcome, &format!("{api:?}"));
        assert!(silence_after_third(api, &peer) >= Duration::from_millis(200), "{api:?}");
        assert_eq!(outcome.books.totals.counters.throttled_ns, 200_000_000, "{api:?}");

        // Before KIP-219 the broker has kept the answer back already.
        let highest = if api == ApiKey::Produce { 5 } else { 7 };
        let old = APIS.map(|(key, low, high)| if key == api { (key, low, highest) } else { (key, low, high) });
        let peer = Peer::start_with(&throttled, &old);
        let outcome = run(&peer, &one_at_a_time);
        assert_whole(&outcome, &format!("{api:?}, old"));
        assert!(silence_after_third(api, &peer) < Duration::from_millis(150), "{api:?}, old");
        assert_eq!(outcome.books.totals.counters.throttled_ns, 0, "{api:?}, old");
    }
}

#[test]
fn silence_asked_for_in_the_handshake_is_kept() {
    // Every connection is greeted so, the control ones too.
    let (peer, outcome) = run_with(&[(ApiKey::ApiVersions, 0..100, Fault::Throttle(150))]);
    assert_whole(&outcome, "greeted with silence");
    for greeted in peer.seen(ApiKey::ApiVersions) {
        for api in [ApiKey::Produce, ApiKey::Fetch, ApiKey::Metadata, ApiKey::InitProducerId] {
            let first = peer.seen(api).into_iter().find(|seen| seen.connection == greeted.connection);
            if let Some(first) = first {
                let silence = first.at - greeted.at;
                assert!(silence >= Duration::from_millis(150), "{api:?} after {silence:?}");
            }
        }
    }
}

#[test]
fn a_broker_that_breaks_its_word_is_found_out() {
    let (_, outcome) = run_with(&[(ApiKey::Produce, 5..6, Fault::Lose)]);
    let verdict = outcome.verdict.expect("verified");
    assert!(verdict.is_broken(false) && verdict.lost_records == 1, "{verdict:?}");
    assert!(verdict.findings.iter().any(|line| line.contains("-0") && line.contains("offset 5")), "{verdict:?}");

    let (_, outcome) = run_with(&[(ApiKey::Produce, 5..6, Fault::Double)]);
    let verdict = outcome.verdict.expect("verified");
    assert!(verdict.is_broken(true) && verdict.duplicate_records == 1, "{verdict:?}");

    // From the third fetch on every reply with records is corrupt in its last byte.
    let (_, outcome) = run_with(&[(ApiKey::Fetch, 3..60, Fault::Flip)]);
    let verdict = outcome.verdict.expect("verified");
    assert!(verdict.is_broken(false) && verdict.corrupt_batches > 0, "{verdict:?}");
}

#[test]
fn a_group_survives_what_its_coordinator_answers() {
    let rules: [(&str, Vec<Rule>); 8] = [
        ("nothing wrong", vec![]),
        // COORDINATOR_NOT_AVAILABLE
        ("find", vec![(ApiKey::FindCoordinator, 0..1, Fault::Code(15))]),
        // UNKNOWN_MEMBER_ID, REBALANCE_IN_PROGRESS, COORDINATOR_LOAD_IN_PROGRESS, MEMBER_ID_REQUIRED
        ("join", vec![(ApiKey::JoinGroup, 0..1, Fault::Code(25)), (ApiKey::JoinGroup, 1..2, Fault::Code(27))]),
        ("join, loading", vec![(ApiKey::JoinGroup, 0..1, Fault::Code(14))]),
        ("join, member id", vec![(ApiKey::JoinGroup, 0..1, Fault::Code(79))]),
        ("sync", vec![(ApiKey::SyncGroup, 0..1, Fault::Code(27))]),
        ("lost coordinator", vec![(ApiKey::JoinGroup, 0..1, Fault::Hang)]),
        (
            "silence",
            vec![
                (ApiKey::FindCoordinator, 0..1, Fault::Throttle(100)),
                (ApiKey::JoinGroup, 0..1, Fault::Throttle(150)),
            ],
        ),
    ];
    each(&rules, |(what, rules)| {
        let peer = Peer::start(rules);
        let outcome = run(&peer, &Shape { group: Some(true), ..shape() });
        assert_whole(&outcome, what);
        let group = outcome.group.expect("a group");
        assert_eq!((group.joins, group.lost_offsets, group.checked_offsets), (1, 0, 1), "{what}: {group:?}");
        assert!(group.commits >= 1, "{what}: {group:?}");
        assert_eq!(peer.seen(ApiKey::LeaveGroup).len(), 1, "{what}");
        if *what == "silence" {
            let (joined, synced) = (peer.seen(ApiKey::JoinGroup)[0].at, peer.seen(ApiKey::SyncGroup)[0].at);
            assert!(synced - joined >= Duration::from_millis(150), "{what}");
        }
    });
}

#[test]
fn a_heartbeat_that_is_refused_makes_the_member_join_again() {
    // REBALANCE_IN_PROGRESS, ILLEGAL_GENERATION, NOT_COORDINATOR; a beat comes once a second.
    each(&[27, 22, 16], |code| {
        let peer = Peer::start(&[(ApiKey::Heartbeat, 0..1, Fault::Code(*code))]);
        let long = Shape { group: Some(true), rate: Some("50".to_owned()), duration: Some("2s".to_owned()), ..shape() };
        let outcome = run(&peer, &long);
        assert_whole(&outcome, &format!("heartbeat {code}"));
        assert_eq!(outcome.group.expect("a group").joins, 2, "code {code}");
    });
}

#[test]
fn commits_that_are_refused_are_counted_and_ones_that_do_not_come_back_fail_the_run() {
    let grouped = Shape { group: Some(true), ..shape() };
    let peer = Peer::start(&[(ApiKey::OffsetCommit, 0..9, Fault::Code(12))]);
    let group = run(&peer, &grouped).group.expect("a group");
    assert_eq!((group.commits, group.commit_errors.get(&12), group.checked_offsets), (0, Some(&1), 0), "{group:?}");

    let peer = Peer::start(&[(ApiKey::OffsetFetch, 0..9, Fault::Code(3))]);
    let outcome = run(&peer, &grouped);
    assert_eq!(outcome.group.as_ref().map(|group| group.lost_offsets), Some(1));
    assert!(outcome.verdict.expect("verified").is_broken(false));
}
