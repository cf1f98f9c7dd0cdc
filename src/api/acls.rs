//! DescribeAcls (key 29), CreateAcls (key 30) and DeleteAcls (key 31), versions 1–3 of each (KIP-140): there is no authorizer, so there
//! are no rules. As a Kafka without one answers.

use std::rc::Rc;

use kafka_protocol::{
    messages::{
        CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse, DescribeAclsRequest,
        DescribeAclsResponse, create_acls_response::AclCreationResult, delete_acls_response::DeleteAclsFilterResult,
    },
    protocol::StrBytes,
};

use crate::{
    api::{
        Context, Outcome,
        asker::Asker,
        call::{Call, throttled},
    },
    base::ErrorCode,
};

throttled!(DescribeAclsResponse);
throttled!(CreateAclsResponse);
throttled!(DeleteAclsResponse);

pub(super) async fn describe(_: &Rc<Context>, call: Call<DescribeAclsRequest>) -> Outcome {
    let (error, why) = refusal(&call.asker, "No Authorizer is configured on the broker");
    call.reply(DescribeAclsResponse::default().with_error_code(error.code()).with_error_message(Some(why)))
}

pub(super) async fn create(_: &Rc<Context>, call: Call<CreateAclsRequest>) -> Outcome {
    let (error, why) = refusal(&call.asker, "No Authorizer is configured.");
    let refused = AclCreationResult::default().with_error_code(error.code()).with_error_message(Some(why));
    call.reply(CreateAclsResponse::default().with_results(vec![refused; call.request.creations.len()]))
}

pub(super) async fn delete(_: &Rc<Context>, call: Call<DeleteAclsRequest>) -> Outcome {
    let (error, why) = refusal(&call.asker, "No Authorizer is configured.");
    let refused = DeleteAclsFilterResult::default().with_error_code(error.code()).with_error_message(Some(why));
    call.reply(DeleteAclsResponse::default().with_filter_results(vec![refused; call.request.filters.len()]))
}

fn refusal(asker: &Asker, disabled: &'static str) -> (ErrorCode, StrBytes) {
    match asker.cluster() {
        Ok(()) => (ErrorCode::SecurityDisabled, StrBytes::from_static_str(disabled)),
        Err(error) => (error, StrBytes::from_static_str("Cluster authorization failed.")),
    }
}
