//! Groups' members.

use crate::config::values::Values;

/// What members of groups are held to.
#[derive(Clone, Debug)]
pub(crate) struct GroupsConfig {
    /// `group.initial.rebalance.delay.ms`.
    pub(crate) initial_rebalance_delay_ms: i32,
    /// `group.min.session.timeout.ms`.
    pub(crate) session_timeout_min_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub(crate) session_timeout_max_ms: i32,
    /// `group.max.size`.
    pub(crate) members_max: usize,
}

impl GroupsConfig {
    pub(super) fn read(values: &Values<'_>) -> Self {
        Self {
            initial_rebalance_delay_ms: values.int("group.initial.rebalance.delay.ms"),
            session_timeout_min_ms: values.int("group.min.session.timeout.ms"),
            session_timeout_max_ms: values.int("group.max.session.timeout.ms"),
            members_max: values.count("group.max.size") as usize,
        }
    }
}
