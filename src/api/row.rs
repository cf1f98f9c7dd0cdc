//! A row of a table of requests.

use std::{future::Future, pin::Pin, rc::Rc};

use crate::{
    api::{
        Context, Pending,
        asker::Asker,
        policy::{Operation, Quota},
    },
    protocol::{frame::RequestHead, versions::Api},
};

/// A request's first stage, where it has one: a future whose value is the second one.
pub(super) type Begun = Pin<Box<dyn Future<Output = Pending>>>;

/// What serves a request.
#[derive(Clone, Copy)]
pub(super) enum Handler {
    /// Hands over in order first, then waits.
    Ordered(fn(Rc<Context>, Asker, RequestHead) -> Begun),
    /// All in the second stage, once every earlier request has its reply.
    Alone(fn(Rc<Context>, Asker, RequestHead) -> Pending),
}

/// One request.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    /// Its key, name, versions and shape.
    pub(super) api: Api,
    /// What it does with what it names: what a client must be allowed to do with each topic and group.
    pub(super) operation: Operation,
    /// What it is counted as.
    pub(super) quota: Quota,
    /// Memory that it takes while it is served, beyond record bytes of the log.
    pub(super) memory: Memory,
    pub(super) handler: Handler,
}

/// Memory of a request while it is served, in bytes.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    /// The bytes that any such request takes ...
    pub fixed: usize,
    /// ... and how many times its frame on top.
    pub frame_times: usize,
}

/// The memory of a request with a short answer.
pub(super) const fn small(frame_times: usize) -> Memory {
    Memory { fixed: SMALL, frame_times }
}

/// The memory of a request whose answer lists topics or settings.
pub(super) const fn listing(frame_times: usize) -> Memory {
    Memory { fixed: 128 << 10, frame_times }
}

pub(super) const SMALL: usize = 8 << 10;

/// A request whose handler takes the decoded call and gives what becomes of it.
macro_rules! alone {
    ($key:ident, $request:ty, $schema:expr, $operation:ident, $quota:ident, $memory:expr, $handle:path) => {
        $crate::api::row::Row {
            api: $crate::protocol::versions::Api::new::<$request>(
                kafka_protocol::messages::ApiKey::$key,
                stringify!($key),
                $schema,
            ),
            operation: $crate::api::policy::Operation::$operation,
            quota: $crate::api::policy::Quota::$quota,
            memory: $memory,
            handler: $crate::api::row::Handler::Alone(|context, asker, head| {
                Box::pin(async move {
                    let began = context.io.clock.now();
                    let outcome = match $crate::api::call::Call::decode(asker, head) {
                        Ok(call) => $handle(&context, call).await,
                        Err(why) => $crate::api::Outcome::Close(why),
                    };
                    context.counted(kafka_protocol::messages::ApiKey::$key, began, outcome)
                })
            }),
        }
    };
}

pub(super) use alone;
