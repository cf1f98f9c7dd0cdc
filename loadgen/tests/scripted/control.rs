//! The connections outside the measurement.

use std::time::Duration;

use kafka_protocol::messages::{ApiKey, BrokerId, MetadataRequest};
use ringtail_loadgen::client::{admin::Admin, cluster::Layout, error::ClientError, link::Link};

use crate::peer::{APIS, Fault, Peer, Rule};

const SHORT: Duration = Duration::from_millis(300);

fn link(peer: &Peer) -> Link {
    Link::connect(&peer.address, "test", SHORT).expect("an honest handshake")
}

/// The error of one metadata request, the second request on the connection.
fn metadata_error(fault: Fault) -> ClientError {
    let peer = Peer::start(&[(ApiKey::Metadata, 0..1, fault)]);
    let error = link(&peer).call("Metadata", &MetadataRequest::default()).expect_err("the script says so");
    assert_eq!(peer.seen(ApiKey::Metadata).len(), 1, "{fault:?}");
    error
}

/// The time between the first two metadata requests, with this fault in the first answer.
fn gap(rules: &[Rule], apis: &[(ApiKey, i16, i16)]) -> Duration {
    let peer = Peer::start_with(rules, apis);
    let mut link = link(&peer);
    for _ in 0..2 {
        link.call("Metadata", &MetadataRequest::default()).expect("answered");
    }
    let seen = peer.seen(ApiKey::Metadata);
    seen[1].at - seen[0].at
}

#[test]
fn silence_that_is_asked_for_is_kept() {
    let throttled = [(ApiKey::Metadata, 0..1, Fault::Throttle(200))];
    assert!(gap(&throttled, &APIS) >= Duration::from_millis(200));
    // Before version 6 the broker has kept the answer back already.
    let old = APIS.map(|(api, low, high)| if api == ApiKey::Metadata { (api, low, 5) } else { (api, low, high) });
    assert!(gap(&throttled, &old) < Duration::from_millis(150));

    let peer = Peer::start(&[(ApiKey::ApiVersions, 0..1, Fault::Throttle(200))]);
    link(&peer).call("Metadata", &MetadataRequest::default()).expect("answered");
    let (greeted, asked) = (peer.seen(ApiKey::ApiVersions)[0].at, peer.seen(ApiKey::Metadata)[0].at);
    assert!(asked - greeted >= Duration::from_millis(200), "after the handshake too");
}

#[test]
fn a_silence_longer_than_a_call_may_take_is_an_error_and_nothing_is_sent() {
    let peer = Peer::start(&[(ApiKey::Metadata, 0..1, Fault::Throttle(60_000))]);
    let mut link = link(&peer);
    link.call("Metadata", &MetadataRequest::default()).expect("answered");
    let error = link.call("Metadata", &MetadataRequest::default()).expect_err("60 s are too long");
    assert!(matches!(error, ClientError::Throttled { .. }) && error.is_retriable(), "{error:?}");
    assert!(error.to_string().contains("60 s of silence"), "{error}");
    assert_eq!(peer.seen(ApiKey::Metadata).len(), 1);
}

#[test]
fn frames_in_pieces_are_put_together() {
    let rules = [(ApiKey::ApiVersions, 0..1, Fault::Pieces), (ApiKey::Metadata, 0..1, Fault::Pieces)];
    let peer = Peer::start(&rules);
    let response = link(&peer).call("Metadata", &MetadataRequest::default()).expect("answered");
    assert_eq!(response.brokers[0].node_id, BrokerId(1));
}

#[test]
fn a_broken_answer_is_named_for_what_it_is() {
    for bytes in [0, 3, 4, 7, 20] {
        let error = metadata_error(Fault::Cut(bytes));
        assert!(matches!(error, ClientError::Closed { .. }), "after {bytes} bytes: {error:?}");
    }
    type Case = (Fault, fn(&ClientError) -> bool, &'static str);
    let cases: [Case; 4] = [
        (Fault::Hang, |error| matches!(error, ClientError::Closed { .. }), "closed the connection"),
        (Fault::Mute, |error| matches!(error, ClientError::TimedOut { .. }), "in time"),
        (Fault::Garble, |error| matches!(error, ClientError::Garbled { .. }), "does not decode"),
        (Fault::Stranger, |error| matches!(error, ClientError::Garbled { .. }), "where 1 was due"),
    ];
    for (fault, is_expected, text) in cases {
        let error = metadata_error(fault);
        assert!(is_expected(&error), "{fault:?}: {error:?}");
        assert!(error.to_string().contains(text), "{fault:?}: {error}");
    }
}

#[test]
fn a_broken_handshake_is_named_for_what_it_is() {
    let cases = [
        (Fault::Code(58), "error 58"),
        (Fault::Cut(9), "closed the connection during the handshake"),
        (Fault::Garble, "does not decode"),
        (Fault::Stranger, "where 0 was due"),
    ];
    for (fault, text) in cases {
        let peer = Peer::start(&[(ApiKey::ApiVersions, 0..9, fault)]);
        let Err(error) = Link::connect(&peer.address, "test", SHORT) else {
            panic!("{fault:?}: connected");
        };
        assert!(error.to_string().contains(text), "{fault:?}: {error}");
    }
}

#[test]
fn an_api_that_is_not_announced_is_not_asked_for() {
    let without: Vec<_> = APIS.into_iter().filter(|(api, _, _)| *api != ApiKey::InitProducerId).collect();
    let peer = Peer::start_with(&[], &without);
    let error = Admin::new(std::slice::from_ref(&peer.address), "test").producer_id().expect_err("not announced");
    assert!(matches!(error, ClientError::Unsupported { .. }), "{error:?}");
    assert!(peer.seen(ApiKey::InitProducerId).is_empty());
}

#[test]
fn the_next_address_is_taken_when_one_fails() {
    let hanging = Peer::start(&[(ApiKey::Metadata, 0..9, Fault::Hang)]);
    let honest = Peer::start(&[]);
    let addresses = ["127.0.0.1:1".to_owned(), hanging.address.clone(), honest.address.clone()];
    let mut admin = Admin::new(&addresses, "test");
    admin.metadata(&[]).expect_err("the first that answers hangs up");
    admin.metadata(&[]).expect("the one after it is honest");
    assert_eq!((hanging.seen(ApiKey::Metadata).len(), honest.seen(ApiKey::Metadata).len()), (1, 1));
}

#[test]
fn retriable_codes_are_tried_again_and_others_are_errors() {
    let topic = ["t".to_owned()];
    // 15 COORDINATOR_NOT_AVAILABLE and 14 COORDINATOR_LOAD_IN_PROGRESS pass; 31 CLUSTER_AUTHORIZATION_FAILED does not.
    let peer = Peer::start(&[(ApiKey::InitProducerId, 0..2, Fault::Code(14))]);
    let mut admin = Admin::new(std::slice::from_ref(&peer.address), "test");
    admin.producer_id().expect("the third answer is good");
    assert_eq!(peer.seen(ApiKey::InitProducerId).len(), 3);

    let refused = Peer::start(&[
        (ApiKey::InitProducerId, 0..9, Fault::Code(31)),
        (ApiKey::CreateTopics, 0..1, Fault::Code(38)),
        (ApiKey::CreateTopics, 1..2, Fault::Code(36)),
        (ApiKey::DeleteTopics, 0..1, Fault::Code(29)),
        (ApiKey::DeleteTopics, 1..2, Fault::Hang),
    ]);
    let mut admin = Admin::new(std::slice::from_ref(&refused.address), "test");
    let error = admin.producer_id().expect_err("31 stays");
    assert!(error.to_string().contains("CLUSTER_AUTHORIZATION_FAILED"), "{error}");
    assert_eq!(refused.seen(ApiKey::InitProducerId).len(), 1);
    let error = admin.create_topic("t", 1, 7, &[]).expect_err("38 stays");
    assert!(error.to_string().contains("creating topic t: INVALID_REPLICATION_FACTOR"), "{error}");
    assert!(!admin.create_topic("t", 1, 1, &[]).expect("36 is no error"), "it was there already");
    assert!(admin.create_topic("t", 1, 1, &[]).expect("made"));
    let error = admin.delete_topics(&topic).expect_err("29 stays");
    assert!(error.to_string().contains("deleting topic t: TOPIC_AUTHORIZATION_FAILED"), "{error}");
    admin.delete_topics(&topic).expect("a lost connection is made anew");
    assert_eq!(refused.seen(ApiKey::DeleteTopics).len(), 3);
}

#[test]
fn a_topic_without_a_leader_is_waited_for_and_refused_offsets_are_an_error() {
    let rules = [(ApiKey::Metadata, 0..3, Fault::Code(5)), (ApiKey::ListOffsets, 0..1, Fault::Code(6))];
    let peer = Peer::start(&rules);
    let mut admin = Admin::new(std::slice::from_ref(&peer.address), "test");
    admin.create_topic("t", 2, 1, &[]).expect("made");
    let topic = ["t".to_owned()];
    let metadata = admin.settled_metadata(&topic).expect("the fourth answer has a leader");
    assert_eq!(peer.seen(ApiKey::Metadata).len(), 4);
    let layout = Layout::from_metadata(&metadata, &topic, 2);
    let leaders = admin.leaders_of(&metadata, &layout);
    let error = admin.list_offsets(&layout, &leaders, -1).expect_err("the first answer refuses");
    assert!(error.to_string().contains("listing offsets of t-0: NOT_LEADER_OR_FOLLOWER"), "{error}");
    assert!(error.is_retriable());
    assert_eq!(admin.list_offsets(&layout, &leaders, -1).expect("the second does not"), [0, 0]);
}
