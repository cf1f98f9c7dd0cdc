//! The way from a group's request to its coordinator.

use kafka_protocol::messages::GroupId;

use crate::{
    api::{Context, asker::Asker},
    base::ErrorCode,
    group::asks::GroupAsk,
};

/// Asks the coordinator of a group.
/// # Errors  `GroupAuthorizationFailed` if it may not. While there is none: what can be said without it, or
/// `NotCoordinator`; else what the coordinator's log says.
pub(super) async fn ask<Ask: GroupAsk>(
    context: &Context,
    asker: &Asker,
    group: &GroupId,
    ask: Ask,
) -> Result<Ask::Answer, ErrorCode> {
    asker.group(group)?;
    match context.router.coordinator_of(group) {
        Some(partition) => context.router.group(partition, ask).await,
        None => Err(context.router.without_coordinator(&ask.request())),
    }
}
