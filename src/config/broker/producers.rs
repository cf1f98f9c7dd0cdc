//! Idempotent producers.

use crate::config::values::Values;

/// What is remembered of producers.
#[derive(Clone, Debug)]
pub(crate) struct ProducersConfig {
    /// `producer.id.expiration.ms`.
    pub(crate) id_expiration_ms: i64,
}

impl ProducersConfig {
    pub(super) fn read(values: &Values<'_>) -> Self {
        Self { id_expiration_ms: values.long("producer.id.expiration.ms") }
    }
}
