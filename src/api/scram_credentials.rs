//! DescribeUserScramCredentials (key 50) and AlterUserScramCredentials (key 51), version 0 of each (KIP-554). They are kept, and told
//! without their secrets; nobody can log in with one yet.

use std::{collections::BTreeMap, rc::Rc};

use kafka_protocol::{
    messages::{
        AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse, DescribeUserScramCredentialsRequest,
        DescribeUserScramCredentialsResponse,
        alter_user_scram_credentials_response::AlterUserScramCredentialsResult,
        describe_user_scram_credentials_response::{CredentialInfo, DescribeUserScramCredentialsResult},
    },
    protocol::StrBytes,
};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, text, throttled},
    },
    base::ErrorCode,
    controller::asks::AlterUserScramCredentials,
    metadata::Image,
};

throttled!(DescribeUserScramCredentialsResponse);
throttled!(AlterUserScramCredentialsResponse);

pub(super) async fn describe(context: &Rc<Context>, call: Call<DescribeUserScramCredentialsRequest>) -> Outcome {
    let answer = DescribeUserScramCredentialsResponse::default();
    if let Err(error) = call.asker.cluster() {
        let why = text("Cluster authorization failed.");
        return call.reply(answer.with_error_code(error.code()).with_error_message(Some(why)));
    }
    let results = described(&context.router.image(), &call.request);
    // Kafka's word for "no message" here is the empty one.
    call.reply(answer.with_error_message(Some(StrBytes::new())).with_results(results))
}

/// The users that are named, once each; naming none is asking for all.
fn described(image: &Image, request: &DescribeUserScramCredentialsRequest) -> Vec<DescribeUserScramCredentialsResult> {
    let mut users: BTreeMap<&str, Vec<CredentialInfo>> = BTreeMap::new();
    for ((user, mechanism), credential) in image.scram_credentials() {
        let info = CredentialInfo::default().with_mechanism(*mechanism).with_iterations(credential.iterations);
        users.entry(user).or_default().push(info);
    }
    let result = |user: &str| DescribeUserScramCredentialsResult::default().with_user(text(user));
    let Some(asked) = request.users.as_ref().filter(|users| !users.is_empty()) else {
        let told = |(user, infos)| result(user).with_error_message(Some(StrBytes::new())).with_credential_infos(infos);
        return users.into_iter().map(told).collect();
    };
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    asked.iter().for_each(|user| *times.entry(user.name.as_str()).or_default() += 1);
    let refused = |user: &str, error: ErrorCode, why: &str| {
        result(user).with_error_code(error.code()).with_error_message(Some(text(&format!("{why}: {user}"))))
    };
    let told = times.into_iter().map(|(user, times)| match users.remove(user) {
        _ if times > 1 => {
            let why = "Cannot describe SCRAM credentials for the same user twice in a single request";
            refused(user, ErrorCode::DuplicateResource, why)
        }
        None => {
            let why = "Attempt to describe a user credential that does not exist";
            refused(user, ErrorCode::ResourceNotFound, why)
        }
        Some(infos) => result(user).with_error_message(Some(StrBytes::new())).with_credential_infos(infos),
    });
    told.collect()
}

pub(super) async fn alter(context: &Rc<Context>, call: Call<AlterUserScramCredentialsRequest>) -> Outcome {
    let (request, call) = call.take();
    let deleted = request.deletions.iter().map(|deletion| deletion.name.clone());
    let users: Vec<_> = deleted.chain(request.upsertions.iter().map(|upsertion| upsertion.name.clone())).collect();
    let answer = match call.asker.cluster() {
        Ok(()) => context.router.control(AlterUserScramCredentials(request)).await,
        Err(error) => Err(error),
    };
    call.reply(answer.unwrap_or_else(|error| {
        let refused = |user| AlterUserScramCredentialsResult::default().with_user(user).with_error_code(error.code());
        AlterUserScramCredentialsResponse::default().with_results(users.into_iter().map(refused).collect())
    }))
}
