//! The way from a group's request to its coordinator.

use kafka_protocol::messages::GroupId;

use crate::{
    api::Context,
    base::ErrorCode,
    group::{GroupAnswer, GroupRequest},
};

/// Asks the coordinator of a group.
///
/// # Errors
/// While there is none: what can be said without it, or `NotCoordinator`; else what the coordinator's log says.
pub(super) async fn ask(context: &Context, group: &GroupId, request: GroupRequest) -> Result<GroupAnswer, ErrorCode> {
    match context.router.coordinator_of(group) {
        Some(partition) => context.router.group(partition, request).await,
        None => Err(context.router.without_coordinator(&request)),
    }
}

/// Asks a coordinator and takes the answer that belongs to the question.
macro_rules! answer_of {
    ($context:expr, $group:expr, $request:expr, $answer:ident) => {
        match $crate::api::groups::ask($context, $group, $request).await {
            Ok($crate::group::GroupAnswer::$answer(answer)) => Ok(answer),
            Ok(other) => {
                tracing::error!(?other, "a coordinator answered another question");
                Err($crate::base::ErrorCode::UnknownServerError)
            }
            Err(error) => Err(error),
        }
    };
}

pub(super) use answer_of;
