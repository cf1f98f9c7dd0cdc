//! DescribeDelegationToken (key 41), versions 1–3, as a toy: what one more request takes. It names a token for each topic.

use std::rc::Rc;

use kafka_protocol::messages::{
    DescribeDelegationTokenRequest, DescribeDelegationTokenResponse,
    describe_delegation_token_response::DescribedDelegationToken,
};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, text, throttled},
        row::{Memory, Row, alone},
    },
    protocol::guard::shapes,
};

throttled!(DescribeDelegationTokenResponse);

pub(crate) static ROW: Row = alone!(
    DescribeDelegationToken,
    DescribeDelegationTokenRequest,
    &shapes::DESCRIBE_DELEGATION_TOKEN,
    Describe,
    Request,
    Memory { fixed: 4096, frame_times: 3 },
    handle
);

async fn handle(context: &Rc<Context>, call: Call<DescribeDelegationTokenRequest>) -> Outcome {
    let image = context.router.image();
    let view = call.view(&image);
    let token = |topic: &str| DescribedDelegationToken::default().with_token_id(text(&format!("toy {topic}")));
    let tokens = view.topics().map(|topic| token(&topic.name));
    call.reply(DescribeDelegationTokenResponse::default().with_tokens(tokens.collect()))
}
