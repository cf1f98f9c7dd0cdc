//! A decoded request with what is needed to answer it.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

use crate::{
    api::{Outcome, asker::Asker, view::View},
    base::ErrorCode,
    metadata::Image,
    protocol::{
        frame::{self, RequestHead},
        guard,
        versions::Api,
    },
};

/// A request of type `R`.
pub(super) struct Call<R> {
    /// What is asked.
    pub request: R,
    /// In which version; the answer has the same.
    pub version: i16,
    /// What the client calls itself.
    pub client_id: StrBytes,
    /// Who asks.
    pub asker: Asker,
    api: &'static Api,
    correlation_id: i32,
}

impl<R: Decodable> Call<R> {
    /// Checks and decodes a request's body. Texts and records stay where they lie in the frame.
    /// # Errors  Why the connection must be closed.
    pub fn decode(asker: Asker, head: RequestHead) -> Result<Self, String> {
        let RequestHead { api, version, correlation_id, client_id, mut body } = head;
        let refused = |why: &str| format!("malformed {} v{version} request: {why}", api.name);
        guard::check(api, version, &body).map_err(|why| refused(&why.to_string()))?;
        let request = decode_body(&mut body, version).map_err(|why| refused(&why))?;
        Ok(Self { request, version, client_id: client_id.unwrap_or_default(), asker, api, correlation_id })
    }
}

fn decode_body<R: Decodable>(body: &mut Bytes, version: i16) -> Result<R, String> {
    R::decode(body, version).map_err(|error| error.to_string())
}

impl<R> Call<R> {
    /// The answer, encoded.
    pub fn reply<M: Encodable + HeaderVersion + Throttled>(&self, mut message: M) -> Outcome {
        let mute = self.asker.throttle();
        message.set_throttle_time_ms(throttle_time_ms(mute));
        match frame::reply(self.correlation_id, self.version, &message) {
            Ok(bytes) => Outcome::Reply(vec![bytes.into()], mute),
            Err(why) => Outcome::Close(format!("no {} v{} answer: {why}", self.api.name, self.version)),
        }
    }

    /// No answer, to who wants none. The client is throttled all the same.
    pub fn silence(&self) -> Outcome {
        let mute = self.asker.throttle();
        if mute.is_zero() { Outcome::Nothing } else { Outcome::Reply(Vec::new(), mute) }
    }

    /// The metadata as far as whoever asks may use it.
    pub fn view<'a>(&'a self, image: &'a Image) -> View<'a> {
        View::new(image, &self.asker)
    }

    /// Goes back in the answer; for handlers that write their answer themselves.
    pub fn correlation_id(&self) -> i32 {
        self.correlation_id
    }

    /// Takes the request out and leaves what the answer needs.
    pub fn take(self) -> (R, Call<()>) {
        let Self { request, version, client_id, asker, api, correlation_id } = self;
        (request, Call { request: (), version, client_id, asker, api, correlation_id })
    }
}

/// An answer that tells for how long its client is throttled, in the versions that can.
pub(super) trait Throttled {
    /// In milliseconds.
    fn set_throttle_time_ms(&mut self, throttle_time_ms: i32);
}

/// An answer with Kafka's field for it.
macro_rules! throttled {
    ($answer:ty) => {
        impl $crate::api::call::Throttled for $answer {
            fn set_throttle_time_ms(&mut self, throttle_time_ms: i32) {
                self.throttle_time_ms = throttle_time_ms;
            }
        }
    };
}

pub(super) use throttled;

/// A time as answers tell it.
pub(super) fn throttle_time_ms(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}

/// The code of an outcome on the wire: 0 is success.
pub(super) fn code(error: Option<ErrorCode>) -> i16 {
    error.map_or(0, |error| error.code())
}

/// Clients from before KIP-112 take KAFKA_STORAGE_ERROR for final: up to `last_without_it` they are told to look for the
/// leader again.
pub(super) fn storage_error_for(version: i16, last_without_it: i16, error: ErrorCode) -> ErrorCode {
    if error == ErrorCode::KafkaStorageError && version <= last_without_it {
        ErrorCode::NotLeaderOrFollower
    } else {
        error
    }
}

/// An owned text for an answer.
pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
