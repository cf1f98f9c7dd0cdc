//! ListGroups (key 16), versions 0–5. Asks the coordinator of every partition of `__consumer_offsets`.
//! v4 states (KIP-518) · v5 group types (KIP-848)

use std::rc::Rc;

use kafka_protocol::messages::{ListGroupsRequest, ListGroupsResponse};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, code, throttled},
    },
    group::asks::List,
};

throttled!(ListGroupsResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<ListGroupsRequest>) -> Outcome {
    let mut groups = Vec::new();
    let mut error = None;
    for partition in 0..context.router.coordinators() {
        let asked = List(call.request.states_filter.clone(), call.request.types_filter.clone());
        match context.router.group(partition, asked).await {
            Ok(listed) => groups.extend(listed),
            Err(refused) => error = Some(refused),
        }
    }
    if call.asker.cluster().is_err() {
        groups.retain(|group| call.asker.group(&group.group_id).is_ok());
    }
    call.reply(ListGroupsResponse::default().with_error_code(code(error)).with_groups(groups))
}
