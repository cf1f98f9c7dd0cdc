//! One member of a classic group.

use bytes::Bytes;
use kafka_protocol::{messages::join_group_request::JoinGroupRequestProtocol, protocol::StrBytes};

use crate::{base::Timestamp, group::owned, protocol::offsets_records::MemberValue};

/// A JoinGroup that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(in crate::group) struct ParkedJoin {
    pub token: u64,
    pub version: i16,
}

#[derive(Clone, Debug, Default)]
pub(in crate::group) struct Member {
    pub member_id: StrBytes,
    pub group_instance_id: Option<StrBytes>,
    pub client_id: StrBytes,
    pub client_host: StrBytes,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    /// In the order of the member's preference.
    pub protocols: Vec<(StrBytes, Bytes)>,
    pub assignment: Bytes,
    pub joining: Option<ParkedJoin>,
    /// The token of a SyncGroup that waits for the leader's.
    pub syncing: Option<u64>,
    /// Joined, and not yet part of a generation.
    pub is_new: bool,
    /// Part of this generation, and not yet heard of since.
    pub pending_sync: bool,
    /// When the member is taken for dead. None while the coordinator owes it an answer for longer than its session.
    pub session_deadline: Option<Timestamp>,
}

impl Member {
    /// The member that a record speaks of, and what else was known of it.
    pub fn replayed(known: Option<Self>, value: MemberValue, protocol_name: Option<&StrBytes>) -> Self {
        let mut member = known.unwrap_or_default();
        member.member_id = value.member_id;
        member.group_instance_id = value.group_instance_id;
        member.client_id = value.client_id;
        member.client_host = value.client_host;
        member.rebalance_timeout_ms = value.rebalance_timeout_ms;
        member.session_timeout_ms = value.session_timeout_ms;
        member.assignment = value.assignment;
        let offered =
            |name: &StrBytes| member.protocols.iter().any(|one| one.0 == *name && one.1 == value.subscription);
        if !protocol_name.is_some_and(offered) {
            member.protocols = protocol_name.map(|name| (name.clone(), value.subscription)).into_iter().collect();
        }
        member
    }

    /// The member as a record holds it, with its metadata for the chosen protocol.
    pub fn value(&self, protocol_name: Option<&StrBytes>) -> MemberValue {
        MemberValue {
            member_id: self.member_id.clone(),
            group_instance_id: self.group_instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            session_timeout_ms: self.session_timeout_ms,
            subscription: protocol_name.map(|name| self.metadata(name)).unwrap_or_default(),
            assignment: self.assignment.clone(),
        }
    }

    /// The member's metadata for a protocol; empty if it does not know the protocol.
    pub fn metadata(&self, protocol_name: &str) -> Bytes {
        self.protocols
            .iter()
            .find(|(name, _)| **name == *protocol_name)
            .map(|(_, data)| data.clone())
            .unwrap_or_default()
    }

    pub fn supports(&self, protocol_name: &str) -> bool {
        self.protocols.iter().any(|(name, _)| **name == *protocol_name)
    }

    /// Whether a JoinGroup offers what the member offered before, in the same order.
    pub fn offers(&self, protocols: &[JoinGroupRequestProtocol]) -> bool {
        self.protocols.len() == protocols.len()
            && self
                .protocols
                .iter()
                .zip(protocols)
                .all(|((name, data), new)| *name == new.name && *data == new.metadata)
    }

    /// Whether silence is no sign of death: the member waits for us. A new member may wait only so long.
    pub fn waits(&self) -> bool {
        !self.is_new && (self.joining.is_some() || self.syncing.is_some())
    }

    pub fn bytes(&self) -> usize {
        // Assignment and one protocol's metadata lie in the written record as well.
        let protocols: usize =
            self.protocols.iter().map(|(name, data)| name.len() + 2 * data.len() + PROTOCOL_BYTES).sum();
        let names = 2 * (self.member_id.len() + self.client_id.len() + self.client_host.len());
        MEMBER_BYTES + names + protocols + 2 * self.assignment.len()
    }
}

/// What a protocol weighs beside its name and metadata.
const PROTOCOL_BYTES: usize = 2 * size_of::<Bytes>();
/// What a member weighs beside its names and data: twice, as the tables it lies in are half empty.
pub(in crate::group) const MEMBER_BYTES: usize = 2 * size_of::<Member>();

pub(in crate::group) fn owned_protocols(protocols: &[JoinGroupRequestProtocol]) -> Vec<(StrBytes, Bytes)> {
    protocols.iter().map(|one| (owned(&one.name), Bytes::copy_from_slice(&one.metadata))).collect()
}
