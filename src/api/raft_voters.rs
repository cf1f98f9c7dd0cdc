//! AddRaftVoter (key 80) and RemoveRaftVoter (key 81), version 0 of each (KIP-853): refused, as by any cluster whose voters are settings.

use std::rc::Rc;

use kafka_protocol::{
    messages::{AddRaftVoterRequest, AddRaftVoterResponse, RemoveRaftVoterRequest, RemoveRaftVoterResponse},
    protocol::StrBytes,
};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, text, throttled},
    },
    base::ErrorCode,
    config::value,
};

throttled!(AddRaftVoterResponse);
throttled!(RemoveRaftVoterResponse);

type Refusal = (ErrorCode, String);

pub(super) async fn add(context: &Rc<Context>, call: Call<AddRaftVoterRequest>) -> Outcome {
    let request = &call.request;
    let (error, why) = match call.asker.cluster() {
        Err(error) => (error, "Cluster authorization failed.".to_owned()),
        Ok(()) => {
            refuse_cluster(context, request.cluster_id.as_ref()).unwrap_or_else(|| refuse_addition(context, request))
        }
    };
    call.reply(AddRaftVoterResponse::default().with_error_code(error.code()).with_error_message(Some(text(&why))))
}

pub(super) async fn remove(context: &Rc<Context>, call: Call<RemoveRaftVoterRequest>) -> Outcome {
    let request = &call.request;
    let (error, why) = match call.asker.cluster() {
        Err(error) => (error, "Cluster authorization failed.".to_owned()),
        Ok(()) => refuse_cluster(context, request.cluster_id.as_ref()).unwrap_or_else(|| refuse_removal(request)),
    };
    call.reply(RemoveRaftVoterResponse::default().with_error_code(error.code()).with_error_message(Some(text(&why))))
}

fn refuse_cluster(context: &Context, asked: Option<&StrBytes>) -> Option<Refusal> {
    let ours = context.router.cluster_id();
    let other = asked.filter(|asked| asked.as_str() != ours)?;
    let why = format!("The given id \"{}\" doesn't match the cluster id \"{ours}\"", other.as_str());
    Some((ErrorCode::InconsistentClusterId, why))
}

fn refuse_addition(context: &Context, request: &AddRaftVoterRequest) -> Refusal {
    if request.voter_directory_id.is_nil() {
        return (ErrorCode::InvalidRequest, "Add voter request didn't include a valid voter".to_owned());
    }
    let (image, config) = (context.router.image(), context.router.config());
    let names = image.layers(config.statics(), config.node.id).broker_text("controller.listener.names");
    let default = names.and_then(|names| value::list(names).next()).unwrap_or_default();
    if request.listeners.iter().all(|listener| !listener.name.eq_ignore_ascii_case(default)) {
        let given =
            request.listeners.iter().map(|listener| format!("{}={}", listener.name.as_str(), listener.host.as_str()));
        let given = given.collect::<Vec<_>>().join(", ");
        return (
            ErrorCode::InvalidRequest,
            format!(
                "Add voter request didn't include the endpoint (Endpoints(endpoints={{{given}}})) for the default listener \
                 ListenerName({default})"
            ),
        );
    }
    let why = "Cluster doesn't support adding voter because the kraft.version feature is 0";
    (ErrorCode::UnsupportedVersion, why.to_owned())
}

fn refuse_removal(request: &RemoveRaftVoterRequest) -> Refusal {
    if request.voter_directory_id.is_nil() {
        return (ErrorCode::InvalidRequest, "Remove voter request didn't include a valid voter".to_owned());
    }
    let why = "Cluster doesn't support removing voter because the kraft.version feature is 0";
    (ErrorCode::UnsupportedVersion, why.to_owned())
}
