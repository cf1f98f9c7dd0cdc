//! ElectLeaders (key 43), versions 0–2 (KIP-183).
//! v1 unclean elections (KIP-460)

use std::rc::Rc;

use kafka_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, throttled},
    },
    controller::{asks::ElectLeaders, refuse_elections},
};

throttled!(ElectLeadersResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<ElectLeadersRequest>) -> Outcome {
    let (request, call) = call.take();
    if let Err(error) = call.asker.cluster() {
        return call.reply(refuse_elections(&request, error, "Cluster authorization failed."));
    }
    let asked = request.clone();
    let answer = context.router.control(ElectLeaders(request)).await;
    call.reply(answer.unwrap_or_else(|error| refuse_elections(&asked, error, "The controller does not answer.")))
}
