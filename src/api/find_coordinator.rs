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
        Context, Outcome,
        brokers::{self, Broker},
        call::{Call, text, throttled},
    },
    base::ErrorCode,
    metadata::names::CONSUMER_OFFSETS,
};

/// What a coordinator is sought for.
mod kind {
    pub const GROUP: i8 = 0;
    pub const TRANSACTION: i8 = 1;
    pub const SHARE: i8 = 2;
}

/// Why there is no coordinator, in words as well.
type Refused = (ErrorCode, &'static str);

const NOT_ALLOWED: &str = "Not authorized to access group";
const NOT_AVAILABLE: &str = "The coordinator is not available.";

throttled!(FindCoordinatorResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<FindCoordinatorRequest>) -> Outcome {
    let ready = match supported(call.request.key_type, call.version) {
        Ok(()) => ensure_offsets_topic(context).await,
        Err(refused) => Err(refused),
    };
    let image = context.router.image();
    let found = |key: &StrBytes| {
        ready?;
        call.asker.group(key).map_err(|error| (error, NOT_ALLOWED))?;
        brokers::coordinator(context, &image, call.asker.session.listener, key).map_err(|error| (error, NOT_AVAILABLE))
    };
    if call.version < 4 {
        return call.reply(single(found(&call.request.key)));
    }
    let coordinators = call.request.coordinator_keys.iter().map(|key| coordinator(key.clone(), found(key)));
    call.reply(FindCoordinatorResponse::default().with_coordinators(coordinators.collect()))
}

fn supported(key_type: i8, version: i16) -> Result<(), Refused> {
    match key_type {
        kind::GROUP => Ok(()),
        kind::TRANSACTION => Err((ErrorCode::InvalidRequest, "Ringtail has no transactions yet.")),
        kind::SHARE if version >= 6 => Err((ErrorCode::InvalidRequest, "Ringtail has no share groups yet.")),
        _ => Err((ErrorCode::InvalidRequest, "Unknown coordinator key type.")),
    }
}

async fn ensure_offsets_topic(context: &Context) -> Result<(), Refused> {
    if context.router.coordinators() > 0 {
        return Ok(());
    }
    match context.router.ensure_topic(CONSUMER_OFFSETS).await {
        Ok(_) => Ok(()),
        Err(_) => Err((ErrorCode::CoordinatorNotAvailable, NOT_AVAILABLE)),
    }
}

/// The form before v4, with its one key.
fn single(found: Result<Broker, Refused>) -> FindCoordinatorResponse {
    // Kafka says this for success here, and nothing in the newer form.
    let none = found.is_ok().then(|| text("NONE"));
    let coordinator = coordinator(StrBytes::default(), found);
    let message = none.or(coordinator.error_message);
    FindCoordinatorResponse::default()
        .with_error_code(coordinator.error_code)
        .with_error_message(message)
        .with_node_id(coordinator.node_id)
        .with_host(coordinator.host)
        .with_port(coordinator.port)
}

fn coordinator(key: StrBytes, found: Result<Broker, Refused>) -> Coordinator {
    let coordinator = Coordinator::default().with_key(key);
    match found {
        Ok(broker) => coordinator.with_node_id(broker.id).with_host(broker.host).with_port(broker.port),
        Err((error, why)) => coordinator
            .with_error_code(error.code())
            .with_error_message(Some(text(why)))
            .with_node_id(WireBroker(-1))
            .with_port(-1),
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
        let broker = Broker { id: WireBroker(1), host: text("localhost"), port: 9092, rack: None };
        for found in [Ok(broker), supported(kind::TRANSACTION, 4).map(|()| unreachable!("there are none"))] {
            for version in 0..=6 {
                let answer = if version < 4 {
                    single(found.clone())
                } else {
                    let one = coordinator(text("g"), found.clone());
                    FindCoordinatorResponse::default().with_coordinators(vec![one])
                };
                let message = if version < 4 { &answer.error_message } else { &answer.coordinators[0].error_message };
                let expected = match &found {
                    Ok(_) if version < 4 => "NONE",
                    Ok(_) => "",
                    Err((_, why)) => why,
                };
                assert_eq!(message.as_deref(), Some(expected), "v{version}");
                frame::reply(1, version, &answer).unwrap_or_else(|why| panic!("v{version} {found:?}: {why}"));
            }
        }
    }
}
