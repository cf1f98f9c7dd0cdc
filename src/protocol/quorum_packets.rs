//! What the voters of a metadata quorum send each other: packets whose inside is the quorum's own, in a frame with a head as
//! every request of Kafka's has it. The key is none of Kafka's, so nobody takes one for a request.

use bytes::Bytes;

use crate::protocol::primitives::{DecodeError, Reader, Writer};

/// The frame's key.
pub const KEY: i16 = 0x5254;

/// Who sends to whom, in which cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// From `meta.properties`.
    pub cluster_id: &'a str,
    /// The sender's `node.id`.
    pub from: i32,
    /// The `node.id` that it takes the receiver for.
    pub to: i32,
}

/// A frame without its length. Version 0, no client id.
#[must_use]
pub fn encode(correlation_id: i32, envelope: &Envelope<'_>, packets: &[Vec<u8>]) -> Bytes {
    let mut out = Writer::new();
    out.i16(KEY);
    out.i16(0);
    out.i32(correlation_id);
    out.nullable_string(None);
    out.string(envelope.cluster_id);
    out.i32(envelope.from);
    out.i32(envelope.to);
    out.array_count(packets.len());
    packets.iter().for_each(|packet| out.bytes(packet));
    out.into_bytes()
}

/// What a frame with that key has in it: correlation id, head, packets.
/// # Errors  It is not one.
pub fn decode(frame: &[u8]) -> Result<(i32, Envelope<'_>, Vec<&[u8]>), DecodeError> {
    let mut reader = Reader::new(frame);
    let (_key, _version) = (reader.i16()?, reader.i16()?);
    let correlation_id = reader.i32()?;
    reader.nullable_string()?;
    let envelope = Envelope { cluster_id: reader.string()?, from: reader.i32()?, to: reader.i32()? };
    let mut packets = Vec::new();
    for _ in 0..reader.array_count(4)? {
        packets.push(reader.bytes()?);
    }
    reader.end()?;
    Ok((correlation_id, envelope, packets))
}

/// The answer, with its length: what kept the packets from being taken, as Kafka's code.
#[must_use]
pub fn answer(correlation_id: i32, code: i16) -> Bytes {
    let mut out = Writer::new();
    out.i32(6);
    out.i32(correlation_id);
    out.i16(code);
    out.into_bytes()
}

/// The code of an answer without its length, if it is one to that frame.
#[must_use]
pub fn code(answer: &[u8], correlation_id: i32) -> Option<i16> {
    let mut reader = Reader::new(answer);
    let (id, code) = (reader.i32().ok()?, reader.i16().ok()?);
    (id == correlation_id && reader.end().is_ok()).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_as_they_were_sent_and_nothing_else_does() {
        let envelope = Envelope { cluster_id: "a cluster", from: 1, to: 3 };
        let packets = [vec![1, 2, 3], Vec::new(), vec![9; 300]];
        let frame = encode(7, &envelope, &packets);
        let (id, head, inside) = decode(&frame).expect("ours");
        assert_eq!((id, head), (7, envelope));
        assert!(inside.iter().eq(packets.iter()));
        for length in 0..frame.len() {
            assert!(decode(&frame[..length]).is_err(), "cut at {length}");
        }
        assert!(decode(&[&frame[..], &[0]].concat()).is_err(), "something behind");
        let mut many = frame.to_vec();
        let count = many.len() - packets.iter().map(|packet| 4 + packet.len()).sum::<usize>() - 4;
        many[count] = 0x7f;
        assert!(decode(&many).is_err(), "more packets than there are bytes");
        let answered = answer(7, 104);
        assert_eq!(code(&answered[4..], 7), Some(104));
        assert_eq!((code(&answered[4..], 8), code(&answered[4..9], 7)), (None, None));
    }
}
