//! ApiVersions (key 18), versions 0–4; any other version is answered too.
//! v3 client software name and version, features (KIP-511, KIP-584) · v4 features with minimum level 0 (KAFKA-17492)
//! The head of the answer never has tags (KIP-511). An unsupported version is answered in version 0 with error 35 and the one
//! range that helps. Produce is advertised from version 0 (KAFKA-18659).
//! Differs from Kafka: advertises what is implemented; features only at the level that is in force.

use std::time::Duration;

use kafka_protocol::{
    messages::{
        ApiVersionsRequest, ApiVersionsResponse,
        api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey},
    },
    protocol::StrBytes,
};
use tracing::debug;

use crate::{
    api::{
        Context, ListenerKind, Outcome,
        asker::Asker,
        call::{Call, text, throttled},
        table::Table,
    },
    base::{ErrorCode, Offset},
    metadata::Image,
    protocol::{
        frame::{self, RequestHead},
        versions::Api,
    },
};

throttled!(ApiVersionsResponse);

pub(super) fn handle(context: &Context, asker: Asker, head: RequestHead) -> Outcome {
    if !head.api.supports(head.version) {
        return unsupported(head.correlation_id, head.api);
    }
    let call: Call<ApiVersionsRequest> = match Call::decode(asker, head) {
        Ok(call) => call,
        Err(why) => return Outcome::Close(why),
    };
    if call.version >= 3 && !is_named_well(&call.request) {
        return call.reply(ApiVersionsResponse::default().with_error_code(ErrorCode::InvalidRequest.code()));
    }
    if call.version >= 3 {
        let ApiVersionsRequest { client_software_name: name, client_software_version: version, .. } = &call.request;
        call.asker.session.runs(name, version);
        debug!(client = %call.asker.session.client_host.as_str(), identity = ?call.asker.session.identity(), "a client named its software");
    }
    let (table, kind, image) = (context.table, call.asker.session.kind, context.router.image());
    call.reply(answer(table, kind, &image, context.router.image_offset(), call.version))
}

/// The client does not know yet which versions there are: it gets an answer that it can read whatever it sent.
fn unsupported(correlation_id: i32, api: &Api) -> Outcome {
    let answer = ApiVersionsResponse::default()
        .with_error_code(ErrorCode::UnsupportedVersion.code())
        .with_api_keys(vec![range(api)]);
    match frame::reply(correlation_id, 0, &answer) {
        Ok(bytes) => Outcome::Reply(vec![bytes.into()], Duration::ZERO),
        Err(why) => Outcome::Close(why),
    }
}

/// `epoch` is the offset of the last metadata record: clients take features only from a larger one than they have seen.
fn answer(table: &Table, kind: ListenerKind, image: &Image, epoch: Offset, version: i16) -> ApiVersionsResponse {
    let answer = ApiVersionsResponse::default().with_api_keys(table.apis_of(kind).map(range).collect());
    if version < 3 {
        return answer;
    }
    let finalized: Vec<_> = image.features().filter(|(_, level)| *level > 0).collect();
    let supported = finalized.iter().map(|(name, level)| {
        SupportedFeatureKey::default().with_name(text(name)).with_min_version(*level).with_max_version(*level)
    });
    let in_force = finalized.iter().map(|(name, level)| {
        FinalizedFeatureKey::default()
            .with_name(text(name))
            .with_min_version_level(*level)
            .with_max_version_level(*level)
    });
    answer
        .with_supported_features(supported.collect())
        .with_finalized_features_epoch(epoch.0)
        .with_finalized_features(in_force.collect())
}

fn range(api: &Api) -> ApiVersion {
    ApiVersion::default().with_api_key(api.key as i16).with_min_version(api.advertised_min).with_max_version(api.max)
}

/// Name and version: letters and digits, with `-` and `.` between them.
fn is_named_well(request: &ApiVersionsRequest) -> bool {
    let well = |name: &StrBytes| {
        let outer = |letter: Option<&u8>| letter.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = name.as_bytes();
        let inner = |letter: &u8| letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'.');
        outer(bytes.first()) && outer(bytes.last()) && bytes.iter().all(inner)
    };
    well(&request.client_software_name) && well(&request.client_software_version)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::ApiKey;

    use super::*;
    use crate::api::table::TABLE;

    fn bytes(outcome: Outcome) -> Vec<u8> {
        match outcome {
            Outcome::Reply(pieces, _) => pieces.iter().flat_map(|piece| piece.to_vec()).collect(),
            Outcome::Nothing | Outcome::Close(_) => panic!("{outcome:?}"),
        }
    }

    #[test]
    fn an_unsupported_version_gets_the_range_in_version_0() {
        let api = crate::api::request(ApiKey::ApiVersions as i16).expect("listed");
        assert_eq!(
            bytes(unsupported(7, api)),
            b"\x00\x00\x00\x10\x00\x00\x00\x07\x00\x23\x00\x00\x00\x01\x00\x12\x00\x00\x00\x04"
        );
    }

    #[test]
    fn every_range_is_listed_and_produce_from_0() {
        let keys: Vec<_> = answer(&TABLE, ListenerKind::Clients, &Image::default(), Offset(7), 4)
            .api_keys
            .iter()
            .map(|range| (range.api_key, range.min_version, range.max_version))
            .collect();
        assert_eq!(keys.len(), TABLE.apis().count());
        assert_eq!(keys[0], (0, 0, 13));
        assert_eq!(keys[1], (1, 4, 18));
        assert_eq!(answer(&TABLE, ListenerKind::Clients, &Image::default(), Offset(7), 3).finalized_features_epoch, 7);
        assert!(keys.iter().all(|(key, _, _)| ![71, 72, 68, 24].contains(key)));
    }

    #[test]
    fn the_answer_in_version_0_byte_for_byte() {
        let call = frame::reply(1, 0, &answer(&TABLE, ListenerKind::Clients, &Image::default(), Offset(7), 0))
            .expect("encodes");
        let ranges = TABLE.apis().count();
        let body = 4 + 2 + 4 + 6 * ranges;
        let front = [&(body as u32).to_be_bytes()[..], b"\0\0\0\x01\0\0", &(ranges as u32).to_be_bytes()].concat();
        assert_eq!((&call[..14], call.len()), (&front[..], 4 + body), "ranges of 6 bytes, and nothing else");
    }

    #[test]
    fn software_names() {
        let well = |name: &str, version: &str| {
            is_named_well(
                &ApiVersionsRequest::default()
                    .with_client_software_name(text(name))
                    .with_client_software_version(text(version)),
            )
        };
        assert!(well("apache-kafka-java", "4.3.1"));
        assert!(well("x", "0"));
        for (name, version) in [("", "1"), ("librdkafka", ""), ("-a", "1"), ("a", "1."), ("a b", "1"), ("a_b", "1")] {
            assert!(!well(name, version), "{name:?} {version:?}");
        }
    }
}
