//! Setting quotas of clients (KIP-546).

use std::{collections::BTreeMap, net::IpAddr};

use kafka_protocol::{
    messages::{
        AlterClientQuotasRequest, AlterClientQuotasResponse,
        alter_client_quotas_request::{self, OpData},
        alter_client_quotas_response::{EntityData, EntryData},
    },
    protocol::StrBytes,
};

use super::{ApiError, Controller, repeated};
use crate::{
    base::ErrorCode,
    metadata::quotas::{CLIENT_ID, IP, QuotaEntity, USER},
    protocol::{
        metadata_records::{ClientQuotaRecord, MetadataRecord, QuotaValue},
        primitives::STRING_BYTES_MAX,
    },
};

/// A double is taken for the whole number that is so near.
const WHOLE: f64 = 1e-6;

/// What a quota's value must be.
#[derive(Clone, Copy)]
enum Kind {
    Any,
    Int,
    Long,
}

const OF_CLIENTS: [(&str, Kind); 4] = [
    ("producer_byte_rate", Kind::Long),
    ("consumer_byte_rate", Kind::Long),
    ("request_percentage", Kind::Any),
    ("controller_mutation_rate", Kind::Any),
];
const OF_ADDRESSES: [(&str, Kind); 1] = [("connection_creation_rate", Kind::Int)];

impl Controller {
    /// AlterClientQuotas, versions 0–1: all changes of an entity or none, and one answer for each entity.
    pub fn alter_client_quotas(
        &mut self,
        request: &AlterClientQuotasRequest,
    ) -> (Vec<MetadataRecord>, AlterClientQuotasResponse) {
        let mut records = Vec::new();
        let mut results: BTreeMap<QuotaEntity, Result<(), ApiError>> = BTreeMap::new();
        for entry in &request.entries {
            let entity = entity_of(entry);
            let result =
                if results.contains_key(&entity) || !repeated(entry.ops.iter().map(|op| op.key.as_str())).is_empty() {
                    Err(invalid(format!("Ignoring duplicate entity {}", shown(&entity))))
                } else {
                    self.quota_changes(&entity, &entry.ops).map(|new| records.extend(new))
                };
            results.insert(entity, result);
        }
        if request.validate_only {
            records.clear();
        }
        self.apply(&records);
        let entries = results.into_iter().map(|(entity, result)| {
            let entry =
                EntryData::default().with_entity(entity.into_iter().map(told).collect()).with_error_message(None);
            match result {
                Ok(()) => entry,
                Err(refusal) => entry.with_error_code(refusal.code.code()).with_error_message(refusal.message()),
            }
        });
        let entries = entries.collect();
        (records, AlterClientQuotasResponse::default().with_entries(entries))
    }

    fn quota_changes(&self, entity: &QuotaEntity, ops: &[OpData]) -> Result<Vec<MetadataRecord>, ApiError> {
        check_entity(entity)?;
        let keys = keys_of(entity)?;
        let mut records = Vec::new();
        for op in ops {
            let key = op.key.as_str();
            let before = self.image.quotas().value(entity, key);
            let after = if op.remove { None } else { Some(QuotaValue::of(op.value)) };
            if after.is_some() {
                check_value(keys, key, op.value)?;
            }
            if before != after {
                let record = ClientQuotaRecord { entity: entity.clone(), key: key.to_owned(), value: after };
                records.push(MetadataRecord::ClientQuota(record));
            }
        }
        Ok(records)
    }
}

/// Of a type that is named twice the last name counts.
fn entity_of(entry: &alter_client_quotas_request::EntryData) -> QuotaEntity {
    let name = |name: &StrBytes| name.to_string();
    let parts = entry.entity.iter().map(|part| (name(&part.entity_type), part.entity_name.as_ref().map(name)));
    parts.collect::<BTreeMap<_, _>>().into_iter().collect()
}

fn told((kind, name): (String, Option<String>)) -> EntityData {
    EntityData::default()
        .with_entity_type(StrBytes::from_string(kind))
        .with_entity_name(name.map(StrBytes::from_string))
}

/// Java's words for an entity.
fn shown(entity: &QuotaEntity) -> String {
    let parts = entity.iter().map(|(kind, name)| format!("{kind}={}", name.as_deref().unwrap_or("null")));
    format!("ClientQuotaEntity(entries={{{}}})", parts.collect::<Vec<_>>().join(", "))
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, message)
}

fn check_entity(entity: &QuotaEntity) -> Result<(), ApiError> {
    if entity.is_empty() {
        return Err(invalid("Invalid empty client quota entity"));
    }
    for (kind, name) in entity {
        if ![USER, CLIENT_ID, IP].contains(&kind.as_str()) {
            return Err(invalid(format!("Unhandled client quota entity type: {kind}")));
        }
        match name.as_deref() {
            Some("") => return Err(invalid(format!("Empty {kind} not supported"))),
            Some(name) if name.len() > STRING_BYTES_MAX => {
                return Err(invalid(format!("A {kind} of {} bytes is not supported", name.len())));
            }
            Some(_) | None => {}
        }
    }
    Ok(())
}

fn keys_of(entity: &QuotaEntity) -> Result<&'static [(&'static str, Kind)], ApiError> {
    let Some((_, address)) = entity.iter().find(|(kind, _)| kind == IP) else { return Ok(&OF_CLIENTS) };
    if entity.len() > 1 {
        let why = "Invalid quota entity combination, IP entity shouldnot be combined with User or ClientId";
        return Err(invalid(why));
    }
    match address {
        Some(address) if address.parse::<IpAddr>().is_err() => {
            Err(invalid(format!("{address} is not a valid IP or resolvable host.")))
        }
        Some(_) | None => Ok(&OF_ADDRESSES),
    }
}

fn check_value(keys: &[(&str, Kind)], key: &str, value: f64) -> Result<(), ApiError> {
    let Some((_, kind)) = keys.iter().find(|(name, _)| *name == key) else {
        return Err(invalid(format!("Invalid configuration key {key}")));
    };
    if value <= 0.0 {
        return Err(invalid(format!("Quota {key} must be greater than 0")));
    }
    let (most, name) = match kind {
        Kind::Any => return Ok(()),
        Kind::Int => (f64::from(i32::MAX), "an INT"),
        Kind::Long => (i64::MAX as f64, "a LONG"),
    };
    if value > most {
        return Err(invalid(format!("Proposed value for {key} is too large for {name}.")));
    }
    // What is no number is no fraction either, for Kafka.
    if (value - value.round()).abs() > WHOLE {
        return Err(invalid(format!("{key} cannot be a fractional value.")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::tests::{controller, replays};

    /// One change as `user=u,client-id=c key value`, `-` for a removal; what comes of it.
    fn check(controller: &mut Controller, text: &str, expected: &str) {
        let words: Vec<&str> = text.split(' ').collect();
        let [entity, key, value] = words[..] else { panic!("three words: {text}") };
        let parts = entity.split(',').filter(|part| !part.is_empty()).map(|part| {
            let (kind, name) = part.split_once('=').expect("a type and a name");
            alter_client_quotas_request::EntityData::default()
                .with_entity_type(kind.to_owned().into())
                .with_entity_name((name != "default").then(|| name.to_owned().into()))
        });
        let op = OpData::default()
            .with_key(key.to_owned().into())
            .with_value(value.parse().unwrap_or(0.0))
            .with_remove(value == "-");
        let entry = alter_client_quotas_request::EntryData::default().with_entity(parts.collect()).with_ops(vec![op]);
        let request = AlterClientQuotasRequest::default().with_entries(vec![entry]);
        let before = controller.image().clone();
        let (looked, only) = controller.alter_client_quotas(&request.clone().with_validate_only(true));
        assert!(looked.is_empty() && controller.image() == &before, "{text}");
        let (records, answer) = controller.alter_client_quotas(&request);
        assert_eq!(only, answer, "{text}");
        replays(&before, &records, controller);
        let result = &answer.entries[0];
        let found = if result.error_code == 0 {
            format!("{} records", records.len())
        } else {
            result.error_message.as_deref().unwrap_or_default().to_owned()
        };
        assert_eq!(found, expected, "{text}");
    }

    /// The words are Apache Kafka 4.3.1's.
    #[test]
    fn quotas_are_set_and_removed() {
        let mut c = controller("");
        check(&mut c, "user=u producer_byte_rate 1000", "1 records");
        check(&mut c, "user=u producer_byte_rate 1000", "0 records");
        check(&mut c, "user=u,client-id=default request_percentage 12.5", "1 records");
        check(&mut c, "user=u nope -", "0 records");
        check(&mut c, "user=u producer_byte_rate -", "1 records");
        check(&mut c, "user=u producer_byte_rate 0", "Quota producer_byte_rate must be greater than 0");
        check(&mut c, "user=u producer_byte_rate 1.5", "producer_byte_rate cannot be a fractional value.");
        check(&mut c, "user=u producer_byte_rate 1.0000001", "1 records");
        check(
            &mut c,
            "user=u producer_byte_rate 1e30",
            "Proposed value for producer_byte_rate is too large for a LONG.",
        );
        check(&mut c, "user=u nope 5", "Invalid configuration key nope");
        check(&mut c, "user= producer_byte_rate 5", "Empty user not supported");
        check(&mut c, "foo=x producer_byte_rate 5", "Unhandled client quota entity type: foo");
        check(&mut c, " producer_byte_rate 5", "Invalid empty client quota entity");
        check(&mut c, "ip=10.0.0.1 connection_creation_rate 5", "1 records");
        check(&mut c, "ip=10.0.0.1 producer_byte_rate 5", "Invalid configuration key producer_byte_rate");
        check(&mut c, "ip=nope connection_creation_rate 5", "nope is not a valid IP or resolvable host.");
        check(
            &mut c,
            "ip=10.0.0.1,user=u connection_creation_rate 5",
            "Invalid quota entity combination, IP entity shouldnot be combined with User or ClientId",
        );
    }
}
