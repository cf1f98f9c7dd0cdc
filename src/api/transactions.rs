//! DescribeTransactions (key 65), version 0, and ListTransactions (key 66), versions 0–2 (KIP-664), of a broker that has coordinated
//! none: there is no transactional id yet.
//! ListTransactions v1 durations (KIP-994) · v2 patterns of ids (KIP-1152)
//! Differs from Kafka: a pattern is not read, since there is nothing that it could match.

use std::rc::Rc;

use kafka_protocol::{
    messages::{
        DescribeTransactionsRequest, DescribeTransactionsResponse, ListTransactionsRequest, ListTransactionsResponse,
        TransactionalId, describe_transactions_response::TransactionState,
    },
    protocol::StrBytes,
};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, throttled},
    },
    base::ErrorCode,
};

/// Kafka's names of what a transaction may be in.
const STATES: [&str; 8] = [
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "Dead",
    "PrepareEpochFence",
];

throttled!(DescribeTransactionsResponse);
throttled!(ListTransactionsResponse);

pub(super) async fn describe(_: &Rc<Context>, call: Call<DescribeTransactionsRequest>) -> Outcome {
    let may = call.asker.cluster();
    let told = |id: &TransactionalId| {
        let error = match may {
            Err(_) => ErrorCode::TransactionalIdAuthorizationFailed,
            Ok(()) if id.is_empty() => ErrorCode::InvalidRequest,
            Ok(()) => ErrorCode::NotCoordinator,
        };
        TransactionState::default().with_transactional_id(id.clone()).with_error_code(error.code())
    };
    let states = call.request.transactional_ids.iter().map(told).collect();
    call.reply(DescribeTransactionsResponse::default().with_transaction_states(states))
}

pub(super) async fn list(_: &Rc<Context>, call: Call<ListTransactionsRequest>) -> Outcome {
    let filters = call.request.state_filters.iter();
    let unknown = filters.filter(|state| !STATES.contains(&state.as_str()));
    let unknown: Vec<StrBytes> = unknown.cloned().collect();
    call.reply(ListTransactionsResponse::default().with_unknown_state_filters(unknown))
}
