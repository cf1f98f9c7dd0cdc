//! FindCoordinator (key 10), versions 0–6.
//! v1 key types (KIP-98) · v4 several keys (KIP-699) · v6 share groups (KIP-932)
//! `__consumer_offsets` is made when it is first needed.
//! Differs from Kafka: that first request waits for the topic and is answered with the coordinator. Transactions and share
//! groups do not exist yet: INVALID_REQUEST and why, which clients take as final instead of asking until they time out.

use std::rc::Rc;

use kafka_protocol::{
    messages::{
        BrokerId as WireBroker, FindCoordinatorRequest, FindCoordinatorResponse, find_coordinator_response::Coordinator,
    },
    protocol::StrBytes,
};

use crate::{
    api::{
        Context, Endpoint, Outcome,
        call::{Call, code, text},
    },
    base::{BrokerId, ErrorCode},
    controller::asks::EnsureTopic,
    metadata::names::CONSUMER_OFFSETS,
};

/// What a coordinator is sought for.
mod kind {
    pub const GROUP: i8 = 0;
    pub const TRANSACTION: i8 = 1;
    pub const SHARE: i8 = 2;
}

type Found = Result<(), (ErrorCode, &'static str)>;

pub(super) async fn handle(context: &Rc<Context>, call: Call<FindCoordinatorRequest>) -> Outcome {
    let found = match supported(call.request.key_type, call.version) {
        Ok(()) => ensure_offsets_topic(context).await,
        Err(refused) => Err(refused),
    };
    let endpoint = &context.endpoints[call.peer.listener];
    let broker = context.router.broker_id();
    if call.version < 4 {
        return call.reply(&single(found, broker, endpoint));
    }
    let coordinators =
        call.request.coordinator_keys.iter().map(|key| coordinator(key.clone(), found, broker, endpoint));
    call.reply(&FindCoordinatorResponse::default().with_coordinators(coordinators.collect()))
}

fn supported(key_type: i8, version: i16) -> Found {
    match key_type {
        kind::GROUP => Ok(()),
        kind::TRANSACTION => Err((ErrorCode::InvalidRequest, "Ringtail has no transactions yet.")),
        kind::SHARE if version >= 6 => Err((ErrorCode::InvalidRequest, "Ringtail has no share groups yet.")),
        _ => Err((ErrorCode::InvalidRequest, "Unknown coordinator key type.")),
    }
}

async fn ensure_offsets_topic(context: &Context) -> Found {
    if context.router.coordinators() > 0 {
        return Ok(());
    }
    match context.router.control(EnsureTopic(CONSUMER_OFFSETS.to_owned())).await {
        Ok(_) => Ok(()),
        Err(_) => Err((ErrorCode::CoordinatorNotAvailable, "The coordinator is not available.")),
    }
}

/// The form before v4, with its one key.
fn single(found: Found, broker: BrokerId, endpoint: &Endpoint) -> FindCoordinatorResponse {
    let coordinator = coordinator(StrBytes::default(), found, broker, endpoint);
    // Kafka says this for success here, and nothing in the newer form.
    let message = if found.is_ok() { Some(text("NONE")) } else { coordinator.error_message };
    FindCoordinatorResponse::default()
        .with_error_code(coordinator.error_code)
        .with_error_message(message)
        .with_node_id(coordinator.node_id)
        .with_host(coordinator.host)
        .with_port(coordinator.port)
}

fn coordinator(key: StrBytes, found: Found, broker: BrokerId, endpoint: &Endpoint) -> Coordinator {
    let coordinator = Coordinator::default().with_key(key).with_error_code(code(found.err().map(|(error, _)| error)));
    match found {
        Ok(()) => coordinator
            .with_node_id(WireBroker(broker.0))
            .with_host(endpoint.host.clone())
            .with_port(i32::from(endpoint.port)),
        Err((_, why)) => coordinator.with_error_message(Some(text(why))).with_node_id(WireBroker(-1)).with_port(-1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::frame;

    #[test]
    fn key_types() {
        assert!(supported(kind::GROUP, 0).is_ok());
        for (key_type, version) in [(1, 1), (1, 6), (2, 5), (2, 6), (3, 6), (-1, 4)] {
            assert_eq!(supported(key_type, version).map_err(|(error, _)| error), Err(ErrorCode::InvalidRequest));
        }
        assert_ne!(supported(2, 5), supported(2, 6), "share groups came with v6");
    }

    #[test]
    fn both_forms_in_every_version() {
        let endpoint = Endpoint { name: "PLAINTEXT".into(), host: text("localhost"), port: 9092 };
        for found in [Ok(()), supported(kind::TRANSACTION, 4)] {
            for version in 0..=6 {
                let answer = if version < 4 {
                    single(found, BrokerId(1), &endpoint)
                } else {
                    let one = coordinator(text("g"), found, BrokerId(1), &endpoint);
                    FindCoordinatorResponse::default().with_coordinators(vec![one])
                };
                frame::reply(1, version, &answer).unwrap_or_else(|why| panic!("v{version} {found:?}: {why}"));
            }
        }
    }
}
