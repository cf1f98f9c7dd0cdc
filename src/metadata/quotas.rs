//! Quotas of clients: what was set for whom, and which of them holds for a client (KIP-13, 55, 124, 257).

use std::sync::Arc;

use imbl::OrdMap;

use crate::protocol::metadata_records::{ClientQuotaRecord, QuotaValue};

/// The entity type of users.
pub const USER: &str = "user";
/// The entity type of what clients call themselves.
pub const CLIENT_ID: &str = "client-id";
/// The entity type of addresses.
pub const IP: &str = "ip";

/// Types and names of what a quota holds for together, in the order of types; no name is the default.
pub type QuotaEntity = Vec<(String, Option<String>)>;

/// All quotas. A clone shares everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quotas {
    entities: OrdMap<QuotaEntity, Arc<OrdMap<String, QuotaValue>>>,
}

/// Whose use a quota counts: those of one user, of one client id, or of one user under one client id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Only those of the client's user.
    pub by_user: bool,
    /// Only those under the client's id.
    pub by_client_id: bool,
}

impl Quotas {
    /// Whether nothing was ever set, or all of it was removed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entities.is_empty()
    }

    /// All entities with what was set for them.
    pub fn entities(&self) -> impl Iterator<Item = (&QuotaEntity, impl Iterator<Item = (&str, QuotaValue)>)> {
        self.entities.iter().map(|(entity, quotas)| (entity, quotas.iter().map(|(key, value)| (key.as_str(), *value))))
    }

    /// What was set for one entity under one key.
    #[must_use]
    pub fn value(&self, entity: &QuotaEntity, key: &str) -> Option<QuotaValue> {
        self.entities.get(entity)?.get(key).copied()
    }

    /// The quota of that key that holds for a client: the most specific one that is set, in Kafka's order.
    #[must_use]
    pub fn of_client(&self, user: &str, client_id: &str, key: &str) -> Option<(f64, Counted)> {
        // Who it is set for, by name, by default (no name), or whoever it is (nothing).
        let (user, client_id) = (Some(user), Some(client_id));
        let levels = [
            (Some(user), Some(client_id)),
            (Some(user), Some(None)),
            (Some(user), None),
            (Some(None), Some(client_id)),
            (Some(None), Some(None)),
            (Some(None), None),
            (None, Some(client_id)),
            (None, Some(None)),
        ];
        levels.into_iter().find_map(|(user, client_id)| {
            let part =
                |kind: &str, name: Option<Option<&str>>| name.map(|name| (kind.to_owned(), name.map(str::to_owned)));
            let entity: QuotaEntity = [part(CLIENT_ID, client_id), part(USER, user)].into_iter().flatten().collect();
            let counted = Counted { by_user: user.is_some(), by_client_id: client_id.is_some() };
            Some((self.value(&entity, key)?.get(), counted))
        })
    }

    pub(super) fn set(&mut self, record: &ClientQuotaRecord) {
        if let Some(value) = record.value {
            let quotas = self.entities.entry(record.entity.clone()).or_default();
            Arc::make_mut(quotas).insert(record.key.clone(), value);
        } else if let Some(quotas) = self.entities.get_mut(&record.entity) {
            Arc::make_mut(quotas).remove(&record.key);
            if quotas.is_empty() {
                self.entities.remove(&record.entity);
            }
        }
    }

    /// The records that make them.
    pub(super) fn records(&self) -> impl Iterator<Item = ClientQuotaRecord> {
        self.entities().flat_map(|(entity, quotas)| {
            quotas.map(|(key, value)| ClientQuotaRecord {
                entity: entity.clone(),
                key: key.to_owned(),
                value: Some(value),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(quotas: &mut Quotas, user: Option<Option<&str>>, client_id: Option<Option<&str>>, value: Option<f64>) {
        let part = |kind: &str, name: Option<Option<&str>>| name.map(|name| (kind.to_owned(), name.map(str::to_owned)));
        let entity = [part(CLIENT_ID, client_id), part(USER, user)].into_iter().flatten().collect();
        quotas.set(&ClientQuotaRecord { entity, key: "k".to_owned(), value: value.map(QuotaValue::of) });
    }

    /// Kafka's order, from the least to the most specific: each that is added counts from then on.
    #[test]
    fn the_most_specific_quota_holds() {
        let mut quotas = Quotas::default();
        assert_eq!(quotas.of_client("u", "c", "k"), None);
        let levels = [
            (None, Some(None)),
            (None, Some(Some("c"))),
            (Some(None), None),
            (Some(None), Some(None)),
            (Some(None), Some(Some("c"))),
            (Some(Some("u")), None),
            (Some(Some("u")), Some(None)),
            (Some(Some("u")), Some(Some("c"))),
        ];
        for (value, (user, client_id)) in (1..).zip(levels) {
            set(&mut quotas, user, client_id, Some(f64::from(value)));
            let counted = Counted { by_user: user.is_some(), by_client_id: client_id.is_some() };
            assert_eq!(quotas.of_client("u", "c", "k"), Some((f64::from(value), counted)));
            assert_eq!(quotas.of_client("u", "c", "other"), None);
        }
        assert_eq!(quotas.of_client("v", "d", "k"), Some((4.0, Counted { by_user: true, by_client_id: true })));
        for (user, client_id) in levels {
            assert!(!quotas.is_empty());
            set(&mut quotas, user, client_id, None);
        }
        assert_eq!(quotas, Quotas::default());
    }

    #[test]
    fn an_ip_is_no_client() {
        let mut quotas = Quotas::default();
        let entity = vec![(IP.to_owned(), None)];
        quotas.set(&ClientQuotaRecord { entity, key: "k".to_owned(), value: Some(QuotaValue::of(1.0)) });
        assert_eq!(quotas.of_client("u", "c", "k"), None);
        assert_eq!(quotas.records().count(), 1);
    }
}
