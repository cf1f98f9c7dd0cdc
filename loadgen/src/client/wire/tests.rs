//! The connection against a scripted peer: every reply is cut, delayed, reordered and forged.

use kafka_protocol::messages::{MetadataRequest, MetadataResponse, ResponseHeader, api_versions_response::ApiVersion};

use super::*;

/// The scripted peer: it frames replies; the test decides how they arrive.
fn frame<M: Encodable>(correlation: i32, header_version: i16, version: i16, body: &M) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    ResponseHeader::default().with_correlation_id(correlation).encode(&mut bytes, header_version).unwrap();
    body.encode(&mut bytes, version).unwrap();
    let mut framed = (bytes.len() as u32).to_be_bytes().to_vec();
    framed.extend_from_slice(&bytes);
    framed
}

fn versions_reply(correlation: i32, version: i16) -> Vec<u8> {
    let keys = [(3, 0, 13), (18, 0, 4)]
        .map(|(key, min, max)| ApiVersion::default().with_api_key(key).with_min_version(min).with_max_version(max));
    let body = ApiVersionsResponse::default().with_api_keys(keys.to_vec());
    frame(correlation, 0, version, &body)
}

fn ready() -> Wire<u32> {
    let mut wire = Wire::new("test");
    feed(&mut wire, &versions_reply(0, 3));
    assert!(wire.next_reply().unwrap().is_none());
    assert!(wire.versions().is_some());
    wire.output.clear();
    wire
}

fn feed(wire: &mut Wire<u32>, bytes: &[u8]) {
    wire.input_room(bytes.len()).extend_from_slice(bytes);
}

fn ask(wire: &mut Wire<u32>, token: u32) {
    let request = MetadataRequest::default().with_topics(None);
    wire.send(token, 12, &request, true).unwrap();
}

#[test]
fn replies_arrive_byte_by_byte() {
    let mut wire = ready();
    ask(&mut wire, 41);
    ask(&mut wire, 42);
    let mut script = frame(1, 1, 12, &MetadataResponse::default());
    script.extend(frame(2, 1, 12, &MetadataResponse::default()));
    let mut tokens = Vec::new();
    for byte in script {
        feed(&mut wire, &[byte]);
        while let Some(reply) = wire.next_reply().unwrap() {
            decode_body::<MetadataRequest>(&reply.body, reply.version).unwrap();
            tokens.push(reply.token);
        }
    }
    assert_eq!(tokens, [41, 42]);
    assert_eq!(wire.in_flight(), 0);
}

#[test]
fn handshake_falls_back_to_version_0() {
    let mut wire: Wire<u32> = Wire::new("test");
    let refusal = [0, 0, 0, 16, 0, 0, 0, 0, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 2];
    wire.output.clear();
    feed(&mut wire, &refusal);
    assert!(wire.next_reply().unwrap().is_none());
    assert!(!wire.output.is_empty(), "a second handshake goes out");
    feed(&mut wire, &versions_reply(1, 0));
    assert!(wire.next_reply().unwrap().is_none());
    assert_eq!(wire.versions().unwrap().pick::<MetadataRequest>().unwrap(), 13);
}

#[test]
fn strangers_are_named() {
    let cases: [(&[u8], &str); 3] = [
        (b"HTTP/1.1 400 Bad Request\r\n", "HTTP"),
        (&[0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x46], "TLS"),
        (&[0xff, 0xff, 0xff, 0xff, 0], "first bytes"),
    ];
    for (bytes, expected) in cases {
        let mut wire: Wire<u32> = Wire::new("test");
        feed(&mut wire, bytes);
        match wire.next_reply() {
            Err(WireError::NotKafka(hint)) => assert!(hint.contains(expected), "{hint}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn forged_and_unasked_replies_are_errors() {
    let mut wire = ready();
    ask(&mut wire, 1);
    feed(&mut wire, &frame(77, 1, 12, &MetadataResponse::default()));
    let error = wire.next_reply().unwrap_err();
    assert_eq!(error, WireError::Correlation { expected: 1, found: 77 });

    let mut wire = ready();
    feed(&mut wire, &frame(1, 1, 12, &MetadataResponse::default()));
    assert_eq!(wire.next_reply().unwrap_err(), WireError::Unasked);

    let mut wire = ready();
    ask(&mut wire, 1);
    feed(&mut wire, &[0, 0, 0, 2, 0, 0]);
    assert!(matches!(wire.next_reply().unwrap_err(), WireError::Garbled(_)));

    // A handshake that announces 2^31 entries in a few bytes must not reserve room for them.
    let mut wire: Wire<u32> = Wire::new("test");
    feed(&mut wire, &[0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff]);
    assert!(matches!(wire.next_reply().unwrap_err(), WireError::NotKafka(_)));
}

#[test]
fn a_lost_connection_returns_its_tokens_in_order() {
    let mut wire = ready();
    for token in 5..9 {
        ask(&mut wire, token);
    }
    feed(&mut wire, &frame(1, 1, 12, &MetadataResponse::default()));
    assert_eq!(wire.next_reply().unwrap().unwrap().token, 5);
    feed(&mut wire, &frame(2, 1, 12, &MetadataResponse::default())[..9]);
    assert!(wire.next_reply().unwrap().is_none());
    assert_eq!(wire.abandon(), [6, 7, 8]);
}

#[test]
fn nothing_is_due_for_a_request_without_a_reply() {
    let mut wire = ready();
    let request = MetadataRequest::default().with_topics(None);
    wire.send(1, 12, &request, false).unwrap();
    assert_eq!(wire.in_flight(), 0);
    assert!(!wire.output.is_empty());
}
