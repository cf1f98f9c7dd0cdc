//! DescribeCluster (key 60), versions 0–2 (KIP-700).
//! v1 endpoint type (KIP-919) · v2 fenced brokers (KIP-1073)

use std::rc::Rc;

use kafka_protocol::messages::{
    DescribeClusterRequest, DescribeClusterResponse, describe_cluster_response::DescribeClusterBroker,
};

use crate::{
    api::{
        Context, Outcome, brokers,
        call::{Call, text, throttled},
        operations,
    },
    base::ErrorCode,
};

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

throttled!(DescribeClusterResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<DescribeClusterRequest>) -> Outcome {
    if let Some((error, why)) = refused(call.request.endpoint_type) {
        return call.reply(
            DescribeClusterResponse::default().with_error_code(error.code()).with_error_message(Some(text(&why))),
        );
    }
    let brokers =
        brokers::all(context, &context.router.image(), call.asker.session.listener).into_iter().map(|broker| {
            DescribeClusterBroker::default()
                .with_broker_id(broker.id)
                .with_host(broker.host)
                .with_port(broker.port)
                .with_rack(broker.rack)
        });
    let told = call.request.include_cluster_authorized_operations;
    let operations = if told { operations::cluster(&call.asker) } else { operations::UNASKED };
    call.reply(
        DescribeClusterResponse::default()
            .with_cluster_id(text(context.router.cluster_id()))
            .with_controller_id(brokers::controller(context))
            .with_brokers(brokers.collect())
            .with_cluster_authorized_operations(operations),
    )
}

/// Controllers are described by controllers only.
fn refused(endpoint_type: i8) -> Option<(ErrorCode, String)> {
    match endpoint_type {
        BROKERS => None,
        CONTROLLERS => Some((
            ErrorCode::MismatchedEndpointType,
            "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER".into(),
        )),
        other => Some((ErrorCode::UnsupportedEndpointType, format!("Unsupported endpoint type {other}"))),
    }
}
