//! Bounds of single requests' answers.

use crate::config::values::Values;

/// What answers are held to.
#[derive(Clone, Debug)]
pub(crate) struct RequestsConfig {
    /// `fetch.max.bytes`.
    pub(crate) fetch_max_bytes: i32,
    /// `max.incremental.fetch.session.cache.slots`.
    pub(crate) fetch_session_slots: usize,
    /// `max.request.partition.size.limit`.
    pub(crate) describe_partitions_max: i32,
}

impl RequestsConfig {
    pub(super) fn read(values: &Values<'_>) -> Self {
        Self {
            fetch_max_bytes: values.int("fetch.max.bytes"),
            fetch_session_slots: values.count("max.incremental.fetch.session.cache.slots") as usize,
            describe_partitions_max: values.int("max.request.partition.size.limit"),
        }
    }
}
