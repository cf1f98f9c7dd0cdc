//! Frames: the head of a request, and answers cut to length.
//!
//! A frame is a 4-byte big-endian length and as many bytes. Here it comes without the length and leaves with it.
//! The codec's own head decoder panics on frames below four bytes, so heads are read by hand.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{ApiKey, ResponseHeader},
    protocol::{Encodable, HeaderVersion, StrBytes},
};

use crate::protocol::{
    guard::{self, Malformed},
    versions::Api,
};

/// Bytes of the length before each frame.
pub const LENGTH_BYTES: usize = 4;

/// Bytes that every request has: key, version, correlation id.
pub const FIXED_HEAD_BYTES: usize = 8;

/// What stands before a request's body, and the body as it came.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// The request type, with its versions.
    pub api: &'static Api,
    /// As sent. Supported by `api`, except in ApiVersions, which answers any version (KIP-511).
    pub version: i16,
    /// Goes back in the answer.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<StrBytes>,
    /// The rest of the frame.
    pub body: Bytes,
}

/// Why a frame cannot be a request. The connection is closed: Kafka has no answer for it either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// No implemented request has this key.
    #[error("unknown api key {0}")]
    UnknownKey(i16),
    /// The key is known, the version is not.
    #[error("unsupported version {1} of {name}", name = .0.name)]
    UnsupportedVersion(&'static Api, i16),
    /// The head ends early or lies about its lengths.
    #[error("malformed request head: {0}")]
    Malformed(Malformed),
}

/// Key and version of a frame of which at least the first four bytes are there.
#[must_use]
pub fn peek(frame: &[u8]) -> Option<(i16, i16)> {
    let head = frame.first_chunk::<4>()?;
    Some((i16::from_be_bytes([head[0], head[1]]), i16::from_be_bytes([head[2], head[3]])))
}

/// Reads the head of a frame whose key stands for this request, if it stands for any; the body stays where it lies.
/// # Errors  The reason for closing the connection.
pub fn parse(mut frame: Bytes, api: Option<&'static Api>) -> Result<RequestHead, HeadError> {
    if frame.len() < FIXED_HEAD_BYTES {
        return Err(HeadError::Malformed(Malformed::Truncated));
    }
    let (key, version) = peek(&frame).ok_or(HeadError::Malformed(Malformed::Truncated))?;
    let correlation_id = i32::from_be_bytes([frame[4], frame[5], frame[6], frame[7]]);
    let api = api.ok_or(HeadError::UnknownKey(key))?;
    if !api.supports(version) && api.key != ApiKey::ApiVersions {
        return Err(HeadError::UnsupportedVersion(api, version));
    }
    let rest = frame.split_off(FIXED_HEAD_BYTES);
    let (client, body) = guard::head(&rest, api.is_flexible(version)).map_err(HeadError::Malformed)?;
    let client_id = match client {
        None => None,
        Some(range) => Some(StrBytes::from_utf8(rest.slice(range)).map_err(|_| HeadError::Malformed(Malformed::Utf8))?),
    };
    Ok(RequestHead { api, version, correlation_id, client_id, body: rest.slice(body..) })
}

/// An answer as it goes out: length, head and message in one piece.
/// # Errors  The codec's words, if a field does not fit this version: a client's name too long to be sent back, or our bug.
pub fn reply<M: Encodable + HeaderVersion>(correlation_id: i32, version: i16, message: &M) -> Result<Bytes, String> {
    let body_bytes = message.compute_size(version).map_err(|error| error.to_string())?;
    let mut out = start_reply(correlation_id, M::header_version(version), body_bytes);
    message.encode(&mut out, version).map_err(|error| error.to_string())?;
    Ok(finish_reply(out, 0))
}

/// The first bytes of an answer; the length is left open until [`finish_reply`]. `body_bytes` is a hint for the allocation.
#[must_use]
pub fn start_reply(correlation_id: i32, header_version: i16, body_bytes: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(LENGTH_BYTES + 5 + body_bytes);
    out.put_i32(0);
    ResponseHeader::default()
        .with_correlation_id(correlation_id)
        .encode(&mut out, header_version)
        .expect("an answer's head has no field that a version lacks");
    out
}

/// Writes the length in, counting `elsewhere` bytes of the answer that lie in other pieces.
///
/// # Panics  If an answer passes 2 GiB: the limits of Fetch keep it far below.
#[must_use]
pub fn finish_reply(mut out: BytesMut, elsewhere: usize) -> Bytes {
    let length = i32::try_from(out.len() - LENGTH_BYTES + elsewhere).expect("answers are bounded far below 2 GiB");
    out[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    out.freeze()
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{ApiVersionsResponse, HeartbeatResponse};

    use super::*;

    #[test]
    fn answers_carry_length_and_head() {
        let heartbeat = HeartbeatResponse::default().with_error_code(27);
        assert_eq!(&reply(5, 0, &heartbeat).expect("fits")[..], b"\0\0\0\x06\0\0\0\x05\0\x1b");
        // Flexible: an empty tag section after the head and another after the body.
        assert_eq!(&reply(5, 4, &heartbeat).expect("fits")[..], b"\0\0\0\x0c\0\0\0\x05\0\0\0\0\0\0\x1b\0");
        // KIP-511: the head of ApiVersions' answer never has tags.
        let versions = reply(5, 3, &ApiVersionsResponse::default()).expect("fits");
        assert_eq!(&versions[..10], b"\0\0\0\x0c\0\0\0\x05\0\0");
    }
}
