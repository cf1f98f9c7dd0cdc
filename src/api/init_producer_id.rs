//! InitProducerId (key 22), versions 0–5, for idempotent producers.
//! v3 current id and epoch (KIP-360)
//! Differs from Kafka: a transactional id is refused with INVALID_REQUEST, there being no transactions yet; clients take that as
//! final.

use std::rc::Rc;

use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId as WireProducer};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, throttled},
    },
    base::{ErrorCode, ProducerId},
};

throttled!(InitProducerIdResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<InitProducerIdRequest>) -> Outcome {
    let allocated = match refused(&call.request).map_or_else(|| call.asker.cluster(), Err) {
        Ok(()) => context.router.next_producer_id().await,
        Err(error) => Err(error),
    };
    call.reply(answer(allocated))
}

/// Whoever knows its id and epoch gets a new id all the same: without a transactional id there is nothing to resume.
fn refused(request: &InitProducerIdRequest) -> Option<ErrorCode> {
    let has_id = request.producer_id.0 != -1;
    let has_epoch = request.producer_epoch != -1;
    (request.transactional_id.is_some() || has_id != has_epoch).then_some(ErrorCode::InvalidRequest)
}

fn answer(allocated: Result<ProducerId, ErrorCode>) -> InitProducerIdResponse {
    match allocated {
        Ok(id) => InitProducerIdResponse::default().with_producer_id(WireProducer(id.0)).with_producer_epoch(0),
        Err(error) => InitProducerIdResponse::default()
            .with_error_code(error.code())
            .with_producer_id(WireProducer(-1))
            .with_producer_epoch(-1),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::TransactionalId;

    use super::*;
    use crate::api::call::text;

    #[test]
    fn who_gets_an_id() {
        let plain = InitProducerIdRequest::default().with_transactional_id(None);
        let known = |id: i64, epoch| plain.clone().with_producer_id(WireProducer(id)).with_producer_epoch(epoch);
        assert_eq!(refused(&plain), None);
        assert_eq!(refused(&known(4, 0)), None);
        assert_eq!(refused(&known(4, -1)), Some(ErrorCode::InvalidRequest));
        assert_eq!(refused(&known(-1, 3)), Some(ErrorCode::InvalidRequest));
        let transactional = plain.clone().with_transactional_id(Some(TransactionalId(text("t"))));
        assert_eq!(refused(&transactional), Some(ErrorCode::InvalidRequest));
        let refusal = answer(Err(ErrorCode::InvalidRequest));
        assert_eq!((refusal.error_code, refusal.producer_id.0, refusal.producer_epoch), (42, -1, -1));
        assert_eq!(answer(Ok(ProducerId(1000))).producer_id.0, 1000);
    }
}
