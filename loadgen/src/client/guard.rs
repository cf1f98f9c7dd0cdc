//! Decodes replies without trusting their lengths.
//!
//! The codec reserves memory for as many entries as an array's length on the wire claims, before it has seen one: a few garbled
//! bytes ask it for 400 GB and abort the process. So it reads through a buffer that refuses such lengths. An entry takes at least
//! a byte, so no honest length is larger than what is left of the reply.
//!
//! In flexible versions every unsigned varint is a length or a tag, and is checked where it is read. Before them array lengths
//! are plain 32-bit numbers among others: a reply with one too large is then read twice without reserving for it, once as 0 and
//! once as 1. A number leaves the rest where it was; a length moves it, and is refused. Bytes forged for the purpose could still
//! pass that; a broker that wants to harm its load generator is not what this is for.

use bytes::{Buf, Bytes, TryGetError};
use kafka_protocol::protocol::{Decodable, buf::ByteBuf};

/// What is made of a 32-bit number that is larger than what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Large {
    Take,
    Refuse,
    ReadAs(i32),
}

/// A reply's body on its way into the codec.
struct Wary {
    bytes: Bytes,
    large: Large,
    has_met_large: bool,
    /// The varint that is being read, byte by byte.
    varint: u64,
    shift: u32,
}

impl Wary {
    fn new(bytes: Bytes, large: Large) -> Self {
        Self { bytes, large, has_met_large: false, varint: 0, shift: 0 }
    }

    fn is_beyond(&self, length: u64) -> bool {
        length > self.bytes.len() as u64
    }

    fn refusal(&self, requested: u64) -> TryGetError {
        TryGetError { requested: requested as usize, available: self.bytes.len() }
    }
}

impl Buf for Wary {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    /// The codec reads varints and booleans this way, and nothing else.
    fn try_get_u8(&mut self) -> Result<u8, TryGetError> {
        let byte = self.bytes.try_get_u8()?;
        self.varint |= u64::from(byte & 0x7f) << self.shift;
        self.shift += 7;
        // The codec ends a number at its fifth byte, whatever that says.
        if byte & 0x80 == 0 || self.shift == 35 {
            let value = std::mem::take(&mut self.varint);
            self.shift = 0;
            // Compact lengths are one more than what they count.
            if self.is_beyond(value.saturating_sub(1)) {
                return Err(self.refusal(value));
            }
        }
        Ok(byte)
    }

    fn try_get_i32(&mut self) -> Result<i32, TryGetError> {
        let value = self.bytes.try_get_i32()?;
        let is_large = value > 0 && self.is_beyond(value as u64);
        match self.large {
            Large::Refuse if is_large => {
                self.has_met_large = true;
                Err(self.refusal(value as u64))
            }
            Large::ReadAs(other) if is_large => Ok(other),
            Large::Take | Large::Refuse | Large::ReadAs(_) => Ok(value),
        }
    }
}

impl ByteBuf for Wary {
    fn peek_bytes(&mut self, range: std::ops::Range<usize>) -> Bytes {
        self.bytes.slice(range)
    }

    fn get_bytes(&mut self, size: usize) -> Bytes {
        self.bytes.split_to(size)
    }
}

/// The message at the start of `body`, and how many bytes are left behind it.
/// # Errors  a text, for what is not such a message.
pub fn decode<M: Decodable>(body: &Bytes, version: i16, is_flexible: bool) -> Result<(M, usize), String> {
    let read = |large| {
        let mut wary = Wary::new(body.clone(), large);
        let result = M::decode(&mut wary, version).map_err(|error| error.to_string());
        (result.map(|message| (message, wary.remaining())), wary.has_met_large)
    };
    if is_flexible {
        return read(Large::Take).0;
    }
    let (result, has_met_large) = read(Large::Refuse);
    if !has_met_large {
        return result;
    }
    let left = |other| read(Large::ReadAs(other)).0.map(|(_, left)| left);
    if left(0)? != left(1)? {
        return Err("an array that is longer than the reply".to_owned());
    }
    read(Large::Take).0
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};
    use kafka_protocol::{
        messages::{
            ApiVersionsResponse, BrokerId, FetchResponse, ListOffsetsResponse, MetadataResponse, ProduceResponse,
            metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
        },
        protocol::{Encodable, StrBytes},
    };

    use super::*;
    use crate::rng::Rng;

    fn metadata(version: i16) -> BytesMut {
        let broker = MetadataResponseBroker::default()
            .with_node_id(BrokerId(i32::MAX))
            .with_host(StrBytes::from_static_str("a"))
            .with_port(i32::MAX - 1);
        let partition = MetadataResponsePartition::default()
            .with_partition_index(77_777)
            .with_replica_nodes(vec![BrokerId(99_999)])
            .with_leader_id(BrokerId(99_999));
        let topic = MetadataResponseTopic::default()
            .with_name(Some(kafka_protocol::messages::TopicName(StrBytes::from_static_str("t"))))
            .with_partitions(vec![partition]);
        let mut bytes = BytesMut::new();
        MetadataResponse::default()
            .with_brokers(vec![broker])
            .with_topics(vec![topic])
            .encode(&mut bytes, version)
            .expect("encodes");
        bytes
    }

    #[test]
    fn numbers_larger_than_the_reply_are_no_lengths() {
        for version in 1..=12 {
            let bytes = metadata(version).freeze();
            let (response, left) = decode::<MetadataResponse>(&bytes, version, version >= 9).expect("honest");
            assert_eq!((response.brokers[0].port, left), (i32::MAX - 1, 0), "version {version}");
            assert_eq!(response.topics[0].partitions[0].partition_index, 77_777, "version {version}");
        }
    }

    #[test]
    fn a_length_larger_than_the_reply_is_refused() {
        // Version 1 begins with the number of brokers, version 9 with throttle_time_ms and then the compact number.
        let mut old = metadata(1);
        old[..4].copy_from_slice(&i32::MAX.to_be_bytes());
        decode::<MetadataResponse>(&old.freeze(), 1, false).expect_err("2^31 brokers");
        let mut flexible = BytesMut::new();
        flexible.put_i32(0);
        flexible.put_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
        flexible.put_slice(&metadata(9)[5..]);
        decode::<MetadataResponse>(&flexible.freeze(), 9, true).expect_err("2^32 brokers");
        decode::<ApiVersionsResponse>(&Bytes::from_static(&[0, 0, 0x7f, 0xff, 0xff, 0xff]), 0, false)
            .expect_err("2^31 keys");
    }

    /// It is enough that the process lives: the codec would ask for hundreds of gigabytes.
    #[test]
    fn garbled_replies_ask_for_no_memory() {
        for seed in 0..20_000 {
            let mut rng = Rng::new(seed, 1);
            let version = (rng.next_u64() % 13) as i16;
            let mut bytes = metadata(version.max(1));
            for _ in 0..1 + rng.next_u64() % 4 {
                let at = rng.next_u64() as usize % bytes.len();
                bytes[at] = if rng.next_u64() & 1 == 0 { 0xff } else { rng.next_u64() as u8 };
            }
            let bytes = bytes.freeze();
            // What comes out does not matter, only that something does.
            let _ = decode::<MetadataResponse>(&bytes, version, version >= 9);
            let _ = decode::<ProduceResponse>(&bytes, version, version >= 9);
            let _ = decode::<FetchResponse>(&bytes, version.max(4), version >= 12);
            let _ = decode::<ListOffsetsResponse>(&bytes, 1 + version / 2, 1 + version / 2 >= 6);
            let _ = decode::<ApiVersionsResponse>(&bytes, version / 3, version / 3 >= 3);
        }
    }
}
