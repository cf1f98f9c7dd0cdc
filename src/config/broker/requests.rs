//! Bounds of single requests' answers.

use std::time::Duration;

use crate::{config::values::Values, metrics::Windows};

/// What answers are held to.
#[derive(Clone, Debug)]
pub(crate) struct RequestsConfig {
    /// `fetch.max.bytes`.
    pub(crate) fetch_max_bytes: i32,
    /// `max.incremental.fetch.session.cache.slots`.
    pub(crate) fetch_session_slots: usize,
    /// `max.request.partition.size.limit`.
    pub(crate) describe_partitions_max: i32,
    /// `quota.window.num` and `quota.window.size.seconds`.
    pub(crate) quota_windows: Windows,
}

impl RequestsConfig {
    pub(super) fn read(values: &Values<'_>) -> Self {
        Self {
            fetch_max_bytes: values.int("fetch.max.bytes"),
            fetch_session_slots: values.count("max.incremental.fetch.session.cache.slots") as usize,
            describe_partitions_max: values.int("max.request.partition.size.limit"),
            quota_windows: Windows {
                count: values.count("quota.window.num"),
                length: Duration::from_secs(u64::from(values.count("quota.window.size.seconds"))),
            },
        }
    }
}
