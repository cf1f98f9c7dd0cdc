//! DescribeClientQuotas (key 48), versions 0–1 (KIP-546).

use std::{collections::BTreeMap, rc::Rc};

use kafka_protocol::{
    messages::{
        DescribeClientQuotasRequest, DescribeClientQuotasResponse,
        describe_client_quotas_request::ComponentData,
        describe_client_quotas_response::{EntityData, EntryData, ValueData},
    },
    protocol::StrBytes,
};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, text, throttled},
    },
    base::ErrorCode,
    metadata::quotas::{CLIENT_ID, IP, QuotaEntity, USER},
};

throttled!(DescribeClientQuotasResponse);

/// What an entity must have of a type: this name, no name (the default), or any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Match<'a> {
    Exact(&'a str),
    Default,
    Specified,
}

type Filter<'a> = BTreeMap<&'a str, Match<'a>>;

pub(super) async fn handle(context: &Rc<Context>, call: Call<DescribeClientQuotasRequest>) -> Outcome {
    let answer = DescribeClientQuotasResponse::default();
    let refused = |error: ErrorCode, why: &str| {
        let answer = DescribeClientQuotasResponse::default().with_entries(None);
        answer.with_error_code(error.code()).with_error_message(Some(text(why)))
    };
    if let Err(error) = call.asker.cluster() {
        return call.reply(refused(error, "Cluster authorization failed."));
    }
    let filter = match filter(&call.request.components) {
        Ok(filter) => filter,
        Err((error, why)) => return call.reply(refused(error, &why)),
    };
    let image = context.router.image();
    let matching = image.quotas().entities().filter(|(entity, _)| matches(entity, &filter, call.request.strict));
    let entries = matching.map(|(entity, quotas)| {
        let value = |(key, value): (&str, crate::protocol::metadata_records::QuotaValue)| {
            ValueData::default().with_key(text(key)).with_value(value.get())
        };
        EntryData::default().with_entity(told(entity)).with_values(quotas.map(value).collect())
    });
    let entries = entries.collect();
    // Kafka's word for "no message" here is the empty one.
    call.reply(answer.with_error_message(Some(StrBytes::new())).with_entries(Some(entries)))
}

fn filter(components: &[ComponentData]) -> Result<Filter<'_>, (ErrorCode, String)> {
    let invalid = |why: String| Err((ErrorCode::InvalidRequest, why));
    let mut filter = Filter::new();
    for component in components {
        let kind = component.entity_type.as_str();
        if kind.is_empty() {
            return invalid("Invalid empty entity type.".to_owned());
        }
        if filter.contains_key(kind) {
            return invalid(format!("Entity type {kind} cannot appear more than once in the filter."));
        }
        if ![USER, CLIENT_ID, IP].contains(&kind) {
            return Err((ErrorCode::UnsupportedVersion, format!("Unsupported entity type {kind}")));
        }
        let (kind_of_match, name) = (component.match_type, component._match.as_deref());
        filter.insert(
            kind,
            match (kind_of_match, name) {
                (0, Some(name)) => Match::Exact(name),
                (1, None) => Match::Default,
                (2, None) => Match::Specified,
                (0, None) => {
                    return invalid("Request specified MATCH_TYPE_EXACT, but set match string to null.".to_owned());
                }
                (1 | 2, Some(_)) => {
                    let word = if kind_of_match == 1 { "DEFAULT" } else { "SPECIFIED" };
                    return invalid(format!("Request specified MATCH_TYPE_{word}, but also specified a match string."));
                }
                (other, _) => return invalid(format!("Unknown match type {other}")),
            },
        );
    }
    if filter.contains_key(IP) && filter.len() > 1 {
        return invalid(
            "Invalid entity filter component combination. IP filter component should not be used with user or clientId \
             filter component."
                .to_owned(),
        );
    }
    Ok(filter)
}

/// Whether an entity has everything that the filter names, and if it is strict, nothing else.
fn matches(entity: &QuotaEntity, filter: &Filter<'_>, strict: bool) -> bool {
    let has = |(kind, wanted): (&&str, &Match<'_>)| {
        let name = entity.iter().find(|(of, _)| of == kind).map(|(_, name)| name.as_deref());
        match wanted {
            Match::Exact(wanted) => name == Some(Some(*wanted)),
            Match::Default => name == Some(None),
            Match::Specified => name.is_some(),
        }
    };
    (!strict || entity.len() == filter.len()) && filter.iter().all(has)
}

fn told(entity: &QuotaEntity) -> Vec<EntityData> {
    let part = |(kind, name): &(String, Option<String>)| {
        EntityData::default().with_entity_type(text(kind)).with_entity_name(name.as_deref().map(text))
    };
    entity.iter().map(part).collect()
}
