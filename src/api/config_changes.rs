//! What the two requests that change settings do alike: ask about each resource by itself, before the controller is asked about the rest.

use kafka_protocol::protocol::StrBytes;

use crate::{api::asker::Asker, base::ErrorCode};

/// Type and name of what has settings.
pub(super) type Resource = (i8, StrBytes);

/// What of it may be changed, and why the rest may not.
pub(super) fn sort<R>(
    asker: &Asker,
    asked: Vec<R>,
    resource: impl Fn(&R) -> Resource,
) -> (Vec<R>, Vec<(Resource, ErrorCode)>) {
    let mut denied = Vec::new();
    let mut allowed = asked;
    allowed.retain(|asked| {
        let (resource_type, name) = resource(asked);
        let refusal = asker.configs_of(resource_type, &name).err();
        denied.extend(refusal.map(|error| ((resource_type, name), error)));
        refusal.is_none()
    });
    (allowed, denied)
}
