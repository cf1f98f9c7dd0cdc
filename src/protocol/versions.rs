//! One request type and the versions in which it is understood.
//!
//! The bounds come from the codec's request types, `<Req as Message>::VERSIONS`. `ApiKey::valid_versions()` is no source: for
//! OffsetCommit, OffsetFetch and InitProducerId it names versions whose requests the codec cannot decode. Which requests there are
//! is the table's to say that has their handlers.

use kafka_protocol::{messages::ApiKey, protocol::Message};

use crate::protocol::guard::shapes::{Schema, Shape};

/// A request type and its versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Api {
    /// The request type.
    pub key: ApiKey,
    /// Kafka's name of it.
    pub name: &'static str,
    /// The oldest version that is decoded.
    pub min: i16,
    /// The newest version that is decoded.
    pub max: i16,
    /// The oldest version that ApiVersions names; differs from `min` for Produce alone.
    pub advertised_min: i16,
    /// The first version with compact forms and tagged fields (KIP-482).
    pub flexible_from: i16,
    /// What its body must look like before the codec sees it.
    pub shape: &'static Shape,
}

impl Api {
    /// The request that the codec reads as `Request`.
    #[must_use]
    pub const fn new<Request: Message>(key: ApiKey, name: &'static str, schema: &'static Schema) -> Self {
        let (min, max) = (Request::VERSIONS.min, Request::VERSIONS.max);
        let Schema { flexible_from, shape } = schema;
        Self { key, name, min, max, advertised_min: min, flexible_from: *flexible_from, shape }
    }

    /// The request with another lowest version in ApiVersions than the one from which it is decoded.
    #[must_use]
    pub const fn advertised_from(self, version: i16) -> Self {
        Self { advertised_min: version, ..self }
    }

    /// Whether requests of this version are decoded.
    #[must_use]
    pub const fn supports(&self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }

    /// Whether this version uses compact forms and tagged fields.
    #[must_use]
    pub const fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible_from
    }
}
