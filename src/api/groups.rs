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
/// `NotCoordinator` while there is none; what the coordinator's log says.
pub(super) async fn ask(context: &Context, group: &GroupId, request: GroupRequest) -> Result<GroupAnswer, ErrorCode> {
    let partition = context.router.coordinator_of(group).ok_or(ErrorCode::NotCoordinator)?;
    context.router.group(partition, request).await
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
