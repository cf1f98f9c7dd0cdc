//! Connections and how large requests may be.

use crate::config::values::Values;

/// What connections are held to.
#[derive(Clone, Debug)]
pub(crate) struct NetworkConfig {
    /// `socket.request.max.bytes`.
    pub(crate) request_max_bytes: i32,
    /// `connections.max.idle.ms`; none: for ever.
    pub(crate) idle_max_ms: Option<u64>,
    /// `max.connections`.
    pub(crate) connections_max: u32,
    /// `max.connections.per.ip`.
    pub(crate) connections_per_ip_max: u32,
}

impl NetworkConfig {
    pub(super) fn read(values: &Values<'_>) -> Self {
        Self {
            request_max_bytes: values.int("socket.request.max.bytes"),
            idle_max_ms: values.limit("connections.max.idle.ms"),
            connections_max: values.count("max.connections"),
            connections_per_ip_max: values.count("max.connections.per.ip"),
        }
    }
}
