//! One connection without its socket: requests go in and leave as bytes, bytes come in and leave as replies.
//! The handshake (ApiVersions, with the fall-back to version 0) is part of it.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse, RequestHeader},
    protocol::{Encodable, HeaderVersion, Request, StrBytes},
};

use crate::client::{error::codes, guard, versions::Versions};

/// No broker's reply is larger; what announces more is not Kafka.
pub const FRAME_BYTES_MAX: usize = 256 << 20;
const APIVERSIONS_VERSION: i16 = 3;

/// What the peer did that the protocol does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WireError {
    /// The first bytes are not a Kafka frame.
    NotKafka(String),
    /// A reply to another request than the oldest one.
    Correlation {
        expected: i32,
        found: i32,
    },
    /// A reply, though none was due.
    Unasked,
    Garbled(String),
    Refused(i16),
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotKafka(hint) => f.write_str(hint),
            Self::Correlation { expected, found } => {
                write!(f, "reply to request {found} where {expected} was due")
            }
            Self::Unasked => f.write_str("a reply that nobody asked for"),
            Self::Garbled(detail) => f.write_str(detail),
            Self::Refused(code) => write!(f, "the handshake was answered with error {code}"),
        }
    }
}

/// A whole reply without its length and correlation id, for the request that was sent with `token`.
#[derive(Debug)]
pub struct Reply<T> {
    pub token: T,
    pub version: i16,
    pub body: Bytes,
}

#[derive(Debug)]
enum Due<T> {
    Handshake,
    Request { token: T, version: i16, has_tags: bool },
}

/// The sans-socket part of a connection. `T` is what the owner wants back with the reply.
pub struct Wire<T> {
    client_id: StrBytes,
    versions: Option<Versions>,
    next_correlation: i32,
    due: VecDeque<(i32, Due<T>)>,
    /// Bytes to send.
    pub output: BytesMut,
    input: BytesMut,
}

impl<T> Wire<T> {
    /// A fresh connection; its handshake is already in `output`.
    pub fn new(client_id: &str) -> Self {
        let mut wire = Self {
            client_id: StrBytes::from_string(client_id.to_owned()),
            versions: None,
            next_correlation: 0,
            due: VecDeque::new(),
            output: BytesMut::new(),
            input: BytesMut::new(),
        };
        wire.handshake(APIVERSIONS_VERSION);
        wire
    }

    /// What the broker announced, once the handshake is done.
    pub fn versions(&self) -> Option<&Versions> {
        self.versions.as_ref()
    }

    pub fn in_flight(&self) -> usize {
        self.due.len()
    }

    fn handshake(&mut self, version: i16) {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("ringtail-loadgen"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let correlation = self.correlation();
        encode_request(&mut self.output, correlation, version, &self.client_id, &request)
            .expect("our own ApiVersions request encodes at versions 0 and 3");
        self.due.push_back((correlation, Due::Handshake));
    }

    fn correlation(&mut self) -> i32 {
        let correlation = self.next_correlation;
        self.next_correlation = correlation.wrapping_add(1);
        correlation
    }

    /// Appends a request to `output`. With `expects_reply` false (acks=0) nothing is remembered for it.
    /// # Errors  a text, when the request does not encode at `version`; then `output` is as before.
    pub fn send<R: Request>(&mut self, token: T, version: i16, request: &R, expects_reply: bool) -> Result<(), String> {
        let correlation = self.correlation();
        encode_request(&mut self.output, correlation, version, &self.client_id, request)?;
        if expects_reply {
            let has_tags = R::Response::header_version(version) >= 1;
            let due = Due::Request { token, version, has_tags };
            self.due.push_back((correlation, due));
        }
        Ok(())
    }

    /// Room for at least `bytes` more of input, or for the rest of the frame that is arriving.
    pub fn input_room(&mut self, bytes: usize) -> &mut BytesMut {
        let missing = match self.input.first_chunk::<4>() {
            Some(length) => {
                let length = u32::from_be_bytes(*length) as usize;
                (length.min(FRAME_BYTES_MAX) + 4).saturating_sub(self.input.len())
            }
            None => 0,
        };
        self.input.reserve(bytes.max(missing));
        &mut self.input
    }

    /// The next whole reply, if one has arrived. Replies come in the order of the requests.
    pub fn next_reply(&mut self) -> Result<Option<Reply<T>>, WireError> {
        while let Some(mut frame) = self.next_frame()? {
            if frame.len() < 4 {
                return Err(WireError::Garbled("a reply of fewer than 4 bytes".to_owned()));
            }
            let found = frame.get_i32();
            let (expected, due) = self.due.pop_front().ok_or(WireError::Unasked)?;
            if found != expected {
                return Err(WireError::Correlation { expected, found });
            }
            match due {
                Due::Handshake => self.finish_handshake(frame)?,
                Due::Request { token, version, has_tags } => {
                    if has_tags {
                        skip_tags(&mut frame)?;
                    }
                    return Ok(Some(Reply { token, version, body: frame }));
                }
            }
        }
        Ok(None)
    }

    /// The tokens of all requests that are still unanswered, oldest first; the connection is over.
    pub fn abandon(&mut self) -> Vec<T> {
        self.due
            .drain(..)
            .filter_map(|(_, due)| match due {
                Due::Handshake => None,
                Due::Request { token, .. } => Some(token),
            })
            .collect()
    }

    fn next_frame(&mut self) -> Result<Option<Bytes>, WireError> {
        let Some(head) = self.input.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*head) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(WireError::NotKafka(foreign_hint(*head)));
        }
        if self.input.len() < 4 + length {
            return Ok(None);
        }
        self.input.advance(4);
        Ok(Some(self.input.split_to(length).freeze()))
    }

    fn finish_handshake(&mut self, frame: Bytes) -> Result<(), WireError> {
        // An unknown version is answered in the body format of version 0, with code 35 (KIP-511).
        let code = frame.first_chunk::<2>().map_or(0, |code| i16::from_be_bytes(*code));
        if code == codes::UNSUPPORTED_VERSION {
            self.handshake(0);
            return Ok(());
        }
        if code != codes::NONE {
            return Err(WireError::Refused(code));
        }
        self.versions = Some(decode_versions(&frame)?);
        Ok(())
    }
}

/// A version 3 reply is flexible, a version 0 reply is not: the length of what remains tells them apart.
fn decode_versions(frame: &Bytes) -> Result<Versions, WireError> {
    for version in [APIVERSIONS_VERSION, 0] {
        if let Ok((response, 0)) = guard::decode::<ApiVersionsResponse>(frame, version, version > 0) {
            return Ok(Versions::from_response(&response));
        }
    }
    Err(WireError::NotKafka("the answer to ApiVersions does not decode".to_owned()))
}

fn foreign_hint(head: [u8; 4]) -> String {
    match &head {
        b"HTTP" => "it answers in HTTP; give the broker's Kafka port".to_owned(),
        [0x15, 0x03, ..] => "it answers with a TLS alert; give a plain-text listener (TLS is not supported)".to_owned(),
        _ => format!("its first bytes are {head:02x?}"),
    }
}

fn skip_tags(frame: &mut Bytes) -> Result<(), WireError> {
    let short = || WireError::Garbled("the header's tags are cut off".to_owned());
    let count = read_uvarint(frame).ok_or_else(short)?;
    for _ in 0..count {
        read_uvarint(frame).ok_or_else(short)?;
        let size = read_uvarint(frame).ok_or_else(short)? as usize;
        if size > frame.remaining() {
            return Err(short());
        }
        frame.advance(size);
    }
    Ok(())
}

fn read_uvarint(buffer: &mut impl Buf) -> Option<u32> {
    let mut value = 0u32;
    for shift in (0..35).step_by(7) {
        if !buffer.has_remaining() {
            return None;
        }
        let byte = buffer.get_u8();
        value |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Appends one framed request to `buffer`.
/// # Errors  a text when it does not encode at this version; then the buffer is as before.
pub fn encode_request<R: Request>(
    buffer: &mut BytesMut,
    correlation: i32,
    version: i16,
    client_id: &StrBytes,
    request: &R,
) -> Result<(), String> {
    let start = buffer.len();
    buffer.put_u32(0);
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(client_id.clone()));
    let result = header.encode(buffer, R::header_version(version)).and_then(|()| request.encode(buffer, version));
    if let Err(error) = result {
        buffer.truncate(start);
        return Err(error.to_string());
    }
    let length = (buffer.len() - start - 4) as u32;
    buffer[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// Decodes the body of a reply.
pub fn decode_body<R: Request>(body: &Bytes, version: i16) -> Result<R::Response, WireError> {
    // Flexible replies have the header with tags; only ApiVersions keeps the plain one for older clients.
    let is_apiversions = R::KEY == ApiKey::ApiVersions as i16;
    let is_flexible = if is_apiversions { version >= 3 } else { R::Response::header_version(version) >= 1 };
    let decoded = guard::decode::<R::Response>(body, version, is_flexible);
    decoded.map(|(response, _)| response).map_err(WireError::Garbled)
}

#[cfg(test)]
mod tests;
