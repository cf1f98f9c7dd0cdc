//! What can go wrong between us and a broker, in words that say what to do.

use std::{fmt, io, time::Duration};

use kafka_protocol::ResponseError;

/// An error of the client. Its `Display` is one line that a user can act on.
#[derive(Debug)]
pub enum ClientError {
    /// No TCP connection.
    Unreachable {
        address: String,
        error: io::Error,
    },
    /// Something answered, but not in Kafka's protocol.
    NotKafka {
        address: String,
        hint: String,
    },
    /// The peer closed the connection while a reply was due.
    Closed {
        address: String,
        during: &'static str,
    },
    TimedOut {
        address: String,
        during: &'static str,
    },
    /// The broker's quotas ask for a longer silence than a call may take.
    Throttled {
        address: String,
        during: &'static str,
        silence: Duration,
    },
    /// A reply that does not decode.
    Garbled {
        address: String,
        detail: String,
    },
    /// No version in common, or the broker does not know the API at all.
    Unsupported {
        api: i16,
        detail: String,
    },
    /// The broker answered with an error code.
    Code {
        doing: String,
        code: i16,
        message: String,
    },
    /// Our request does not encode at the negotiated version.
    Unencodable(String),
}

impl ClientError {
    /// Whether trying again, perhaps elsewhere, can help.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Closed { .. } | Self::TimedOut { .. } | Self::Throttled { .. } => true,
            Self::Code { code, .. } => is_retriable(*code),
            Self::NotKafka { .. } | Self::Garbled { .. } | Self::Unsupported { .. } | Self::Unencodable(_) => false,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { address, error } => write!(
                f,
                "cannot reach a broker at {address}: {error}; is it running, and is the address right (--bootstrap host:port)?"
            ),
            Self::NotKafka { address, hint } => {
                write!(f, "{address} does not speak the Kafka protocol in plain text: {hint}")
            }
            Self::Closed { address, during } => write!(
                f,
                "{address} closed the connection during {during}; if this is a TLS or SASL listener, use a plain-text one"
            ),
            Self::TimedOut { address, during } => write!(
                f,
                "no answer from {address} to {during} in time; if this is a TLS or HTTP port, give the broker's plain-text one"
            ),
            Self::Throttled { address, during, silence } => write!(
                f,
                "{address} asks for {:.0} s of silence before {during}; raise this client's quota, or wait",
                silence.as_secs_f64()
            ),
            Self::Garbled { address, detail } => {
                write!(f, "{address} sent a reply that does not decode: {detail}")
            }
            Self::Unsupported { api, detail } => {
                write!(f, "the broker cannot do API {api}: {detail}")
            }
            Self::Code { doing, code, message } => {
                write!(f, "{doing}: {}", code_name(*code))?;
                if !message.is_empty() {
                    write!(f, ": {message}")?;
                }
                Ok(())
            }
            Self::Unencodable(detail) => write!(f, "a request could not be encoded: {detail}"),
        }
    }
}

impl std::error::Error for ClientError {}

/// Kafka's codes that we act upon by number.
pub mod codes {
    pub const NONE: i16 = 0;
    pub const OFFSET_OUT_OF_RANGE: i16 = 1;
    pub const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
    pub const REQUEST_TIMED_OUT: i16 = 7;
    pub const NETWORK_EXCEPTION: i16 = 13;
    pub const NOT_COORDINATOR: i16 = 16;
    pub const ILLEGAL_GENERATION: i16 = 22;
    pub const UNKNOWN_MEMBER_ID: i16 = 25;
    pub const REBALANCE_IN_PROGRESS: i16 = 27;
    pub const UNSUPPORTED_VERSION: i16 = 35;
    pub const TOPIC_ALREADY_EXISTS: i16 = 36;
    pub const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
    pub const DUPLICATE_SEQUENCE_NUMBER: i16 = 46;
    pub const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;
    pub const INVALID_FETCH_SESSION_EPOCH: i16 = 71;
    pub const MEMBER_ID_REQUIRED: i16 = 79;
}

/// Whether Kafka marks the code as retriable. Codes that the codec does not know are not.
pub fn is_retriable(code: i16) -> bool {
    ResponseError::try_from_code(code).is_some_and(|error| error.is_retriable())
}

/// Kafka's own name of a code: `NOT_LEADER_OR_FOLLOWER`.
pub fn code_name(code: i16) -> String {
    let name = match ResponseError::try_from_code(code) {
        None => return "NONE".to_owned(),
        Some(ResponseError::Unknown(code)) => return format!("CODE_{code}"),
        Some(error) => format!("{error:?}"),
    };
    let mut snake = String::with_capacity(name.len() + 8);
    for (at, letter) in name.chars().enumerate() {
        if letter.is_ascii_uppercase() && at > 0 {
            snake.push('_');
        }
        snake.push(letter.to_ascii_uppercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_retriability_are_kafkas() {
        let cases = [
            (6, "NOT_LEADER_OR_FOLLOWER", true),
            (7, "REQUEST_TIMED_OUT", true),
            (-1, "UNKNOWN_SERVER_ERROR", false),
            (10, "MESSAGE_TOO_LARGE", false),
            (9999, "CODE_9999", false),
        ];
        for (code, name, retriable) in cases {
            assert_eq!(code_name(code), name);
            assert_eq!(is_retriable(code), retriable, "{name}");
        }
    }
}
