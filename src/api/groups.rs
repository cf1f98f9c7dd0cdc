//! The way from a group's request to its coordinator.

use kafka_protocol::messages::GroupId;

use crate::{api::Context, base::ErrorCode, group::asks::GroupAsk};

/// Asks the coordinator of a group.
///
/// # Errors
/// While there is none: what can be said without it, or `NotCoordinator`; else what the coordinator's log says.
pub(super) async fn ask<Ask: GroupAsk>(context: &Context, group: &GroupId, ask: Ask) -> Result<Ask::Answer, ErrorCode> {
    match context.router.coordinator_of(group) {
        Some(partition) => context.router.group(partition, ask).await,
        None => Err(context.router.without_coordinator(&ask.request())),
    }
}
