//! UpdateFeatures (key 57), versions 0–2 (KIP-584).
//! v1 kinds of upgrades, and looking without leaping (KIP-778) · v2 no line for each feature (KIP-1022)
//! Differs from Kafka: `metadata.version` is the one feature, and its highest level the one that there is.

use std::rc::Rc;

use kafka_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, throttled},
    },
    controller::asks::UpdateFeatures,
};

throttled!(UpdateFeaturesResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<UpdateFeaturesRequest>) -> Outcome {
    let (request, call) = call.take();
    let answer = match call.asker.cluster() {
        Ok(()) => context.router.control(UpdateFeatures(request, call.version)).await,
        Err(error) => Err(error),
    };
    let refused = |code: i16| UpdateFeaturesResponse::default().with_error_code(code);
    call.reply(answer.unwrap_or_else(|error| refused(error.code())))
}
