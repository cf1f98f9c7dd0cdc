//! Groups: committed offsets, and members that share topics; one machine per partition of `__consumer_offsets`.
//!
//! A request is decided against the current state and gives [`Effects`]: records to append, and answers to send once those
//! records are durable. JoinGroup and SyncGroup are parked inside and answered by a later request or by time. Time and
//! randomness are arguments. A group is its offsets and a membership. What is durable of them (the offsets, and the members as of
//! the last generation) changes by replaying records alone, those of the log and those of a decision; who waits for what dies with
//! the machine. If an append fails, the driver drops the machine, fails every request that it has not answered, and loads a new one.
//!
//! KIP-134 initial delay · KIP-211 offset expiry · KIP-345 static members · KIP-394 member ids first · KIP-814 skipped assignment

mod admin;
pub mod asks;
mod classic;
mod expiry;
mod machine;
mod offsets;
#[cfg(test)]
mod script;
mod state;
#[cfg(test)]
mod walk;

use std::convert::Infallible;

use kafka_protocol::protocol::StrBytes;

use self::classic::{join, sync};
pub use self::{
    asks::{GroupAnswer, GroupRequest},
    machine::Groups,
};
use crate::base::{self, ErrorCode};

/// The settings of a machine. `Default` has Kafka's defaults.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`.
    pub(crate) min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub(crate) max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`.
    pub(crate) initial_rebalance_delay_ms: i32,
    /// `group.max.size`: members in a group.
    pub(crate) size_max: usize,
    /// `offset.metadata.max.bytes`; Kafka counts UTF-16 units, and so do we.
    pub(crate) offset_metadata_max: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub(crate) offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub(crate) offsets_retention_check_interval_ms: i64,
    /// `message.max.bytes` of `__consumer_offsets`: what a record may weigh.
    pub(crate) record_bytes_max: usize,
    /// What this machine may hold in memory, see [`Groups::bound`]. Ours: Kafka has no bound. Beyond it, what would add to it
    /// gets COORDINATOR_NOT_AVAILABLE.
    pub(crate) bytes_max: usize,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            size_max: i32::MAX as usize,
            offset_metadata_max: 4_096,
            offsets_retention_ms: 10_080 * 60_000,
            offsets_retention_check_interval_ms: 600_000,
            record_bytes_max: 1_048_588,
            bytes_max: 64 << 20,
        }
    }
}

/// Who sent a JoinGroup.
#[derive(Clone, Debug)]
pub struct Joiner {
    /// `client.id` of the request's header; empty if there was none.
    pub client_id: StrBytes,
    /// The client's address, written as Kafka does: `/127.0.0.1`.
    pub client_host: StrBytes,
    /// The request's version.
    pub version: i16,
}

/// What a coordinator that does not exist yet says to a request: what Kafka finds before it looks for one, or that there
/// is none.
#[must_use]
pub fn without_coordinator(request: &GroupRequest, config: &GroupConfig) -> ErrorCode {
    let found = match request {
        GroupRequest::Join(request, _) => join::check(request, config).err(),
        GroupRequest::Sync(request, version) => sync::check(request, *version).err(),
        GroupRequest::Heartbeat(request) if request.group_id.is_empty() => Some(ErrorCode::InvalidGroupId),
        GroupRequest::Leave(request, _) if request.group_id.is_empty() => Some(ErrorCode::InvalidGroupId),
        GroupRequest::Heartbeat(_)
        | GroupRequest::Leave(..)
        | GroupRequest::Commit(..)
        | GroupRequest::Fetch(_)
        | GroupRequest::Describe(..)
        | GroupRequest::List(..)
        | GroupRequest::DeleteGroup(_)
        | GroupRequest::OffsetDelete(_) => None,
    };
    found.unwrap_or(ErrorCode::NotCoordinator)
}

/// What follows from a request or from time. Groups have nothing done elsewhere.
pub type Effects = base::Effects<GroupAnswer, Infallible>;

/// The partition of `__consumer_offsets` that keeps a group: Java's `hashCode` of the id, as in Kafka.
///
/// # Panics
/// If there are no partitions.
#[must_use]
pub fn partition_of(group_id: &str, partitions: i32) -> i32 {
    let hash = group_id.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(unit.into()));
    // Kafka's `abs` makes the one number without an opposite 0.
    hash.checked_abs().unwrap_or(0) % partitions
}

// A slice of a request would keep its whole frame in memory, so what stays is copied.
fn owned(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest};

    use super::*;

    /// The codes are Apache Kafka 4.3.1's, from before its offsets topic existed.
    #[test]
    fn what_can_be_said_without_a_coordinator() {
        let id = |id: &'static str| GroupId(StrBytes::from_static_str(id));
        let joiner = Joiner { client_id: StrBytes::new(), client_host: StrBytes::new(), version: 9 };
        let join = |group, session| {
            let request = JoinGroupRequest::default().with_group_id(id(group)).with_session_timeout_ms(session);
            GroupRequest::Join(request, joiner.clone())
        };
        let sync = |group, version| GroupRequest::Sync(SyncGroupRequest::default().with_group_id(id(group)), version);
        let beat = |group| GroupRequest::Heartbeat(HeartbeatRequest::default().with_group_id(id(group)));
        let leave = |group| GroupRequest::Leave(LeaveGroupRequest::default().with_group_id(id(group)), 5);
        for (request, code) in [
            (join("", 10_000), 24),
            (join("g", 1), 26),
            (join("g", i32::MAX), 26),
            (join("g", 10_000), 16),
            (sync("", 4), 24),
            (sync("", 5), 23),
            (sync("g", 5), 23),
            (sync("g", 4), 16),
            (beat(""), 24),
            (beat("g"), 16),
            (leave(""), 24),
            (leave("g"), 16),
            (GroupRequest::DeleteGroup(id("")), 16),
            (GroupRequest::Describe(id(""), 5), 16),
        ] {
            assert_eq!(without_coordinator(&request, &GroupConfig::default()).code(), code, "{request:?}");
        }
    }

    #[test]
    fn groups_lie_where_java_puts_them() {
        assert_eq!(partition_of("", 50), 0);
        assert_eq!(partition_of("hello", i32::MAX), 99_162_322);
        assert_eq!(partition_of("hello", 50), 22);
        // The smallest integer of all.
        assert_eq!(partition_of("polygenelubricants", 50), 0);
    }
}
