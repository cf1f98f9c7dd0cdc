//! The way from any core of a broker to the controller that decides.

use std::{rc::Rc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        AllocateProducerIdsRequest, AlterPartitionRequest, BrokerHeartbeatRequest, BrokerRegistrationRequest,
        CreateTopicsRequest, EnvelopeRequest,
    },
    protocol::Request,
};
use tracing::debug;

use crate::{
    base::{BrokerId, ErrorCode},
    peer::Link,
    protocol::frame::LENGTH_BYTES,
    shard::core::Core,
};

/// Between two looks for a controller.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// What brokers call themselves in what they ask each other.
const CLIENT_ID: &str = "ringtail-broker";

/// What a client's request may take that another broker decides.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(20);

/// What a broker asks the controller, and the code of the whole answer.
pub(super) trait ControllerRequest: Request {
    const VERSION: i16;
    fn code(response: &Self::Response) -> i16;
}

macro_rules! controller_request {
    ($request:ty, $version:expr) => {
        impl ControllerRequest for $request {
            const VERSION: i16 = $version;

            fn code(response: &Self::Response) -> i16 {
                response.error_code
            }
        }
    };
}

controller_request!(BrokerRegistrationRequest, 4);
controller_request!(BrokerHeartbeatRequest, 1);
controller_request!(AlterPartitionRequest, 3);
controller_request!(AllocateProducerIdsRequest, 0);
controller_request!(EnvelopeRequest, 0);

impl ControllerRequest for CreateTopicsRequest {
    const VERSION: i16 = 7;

    /// Of the one topic that a broker asks for at a time.
    fn code(response: &Self::Response) -> i16 {
        response.topics.first().map_or(0, |topic| topic.error_code)
    }
}

impl Core {
    /// The way to a voter's controller.
    fn controller_link(&self, id: BrokerId) -> Option<Rc<Link>> {
        if let Some(link) = self.controllers.borrow().get(&id) {
            return Some(link.clone());
        }
        let voter = self.broker.cluster.as_ref()?.voters().iter().find(|voter| voter.id == id)?;
        let link = Rc::new(Link::new(&self.io, CLIENT_ID, &voter.host, voter.port));
        self.controllers.borrow_mut().insert(id, link.clone());
        Some(link)
    }

    /// Asks whoever is the controller, and looks for another one while there is none, for so long. What is asked may be decided
    /// twice if a connection is lost.
    /// # Errors  `NotController` if nobody has decided in time. What else the answer says is the caller's to look at.
    pub(super) async fn ask_controller<R: ControllerRequest>(
        &self,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Response, ErrorCode> {
        let deadline = self.io.clock.now() + timeout;
        loop {
            let left = deadline.since(self.io.clock.now());
            if left.is_zero() {
                return Err(ErrorCode::NotController);
            }
            let leader = self.broker.cluster.as_ref().and_then(|cluster| cluster.leader());
            if let Some(link) = leader.and_then(|leader| self.controller_link(leader)) {
                match link.request(request, R::VERSION, left).await {
                    Ok(answer) if R::code(&answer) != ErrorCode::NotController.code() => return Ok(answer),
                    Ok(_) => {}
                    Err(error) => debug!(?leader, %error, "the controller was not reached"),
                }
            }
            self.io.clock.sleep(RETRY_AFTER).await;
        }
    }

    /// Whether this broker may serve what it leads: not once the controller may have taken it for dead. One that stands alone may.
    /// # Errors  `NotLeaderOrFollower`.
    pub(super) fn check_alive(&self) -> Result<(), ErrorCode> {
        match &self.broker.cluster {
            Some(cluster) if cluster.may_be_replaced(self.io.clock.now()) => Err(ErrorCode::NotLeaderOrFollower),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether another broker decides what only the controller does. Not while nobody is known who does.
    pub(super) fn is_led_elsewhere(&self) -> bool {
        let leader = self.broker.cluster.as_ref().and_then(|cluster| cluster.leader());
        leader.is_some_and(|leader| leader != self.broker.id)
    }

    /// Has a client's whole request, without its length, decided by the controller (KIP-590). Gives the answer with its length.
    /// # Errors  In words. Whether it was decided is not known.
    pub(super) async fn forward(&self, frame: Bytes) -> Result<Bytes, String> {
        let request = EnvelopeRequest::default().with_request_data(frame).with_client_host_address(Bytes::new());
        let answer = self.ask_controller(&request, FORWARD_TIMEOUT).await;
        let answer = answer.map_err(|error| format!("the controller did not decide in time: {error:?}"))?;
        match (ErrorCode::try_from_code(answer.error_code), answer.response_data) {
            (None, Some(data)) => {
                let mut out = BytesMut::with_capacity(LENGTH_BYTES + data.len());
                out.put_i32(i32::try_from(data.len()).map_err(|error| error.to_string())?);
                out.put_slice(&data);
                Ok(out.freeze())
            }
            (error, _) => Err(format!("the controller refused what was forwarded: {error:?}")),
        }
    }
}
