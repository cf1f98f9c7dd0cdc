//! Records of `__consumer_offsets`: committed offsets and classic groups, in Kafka's own formats.
//!
//! A key is an `i16` type and a struct, a value an `i16` version and a struct; a null value is a tombstone.
//! Written: OffsetCommit v4, or v1 when the client asked for a retention time, and GroupMetadata v3, as Kafka 4.3 does.
//! Read: every version that Kafka reads.

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::primitives::{DecodeError, Reader, Writer};
use crate::base::{LeaderEpoch, Offset, Timestamp};

const LEGACY_OFFSET_KEY: i16 = 0;
const OFFSET_KEY: i16 = 1;
const GROUP_KEY: i16 = 2;

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordKey {
    /// The offset that a group committed for a partition.
    Offset {
        /// The group's id.
        group: StrBytes,
        /// The topic's name.
        topic: StrBytes,
        /// The partition's index.
        partition: i32,
    },
    /// A classic group as a whole.
    Group {
        /// The group's id.
        group: StrBytes,
    },
    /// A record type that is not read here, such as those of KIP-848.
    Other(i16),
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetValue {
    /// The next offset that the group wants to read.
    pub offset: Offset,
    /// The epoch of the leader that the group read from, if the client knew it (KIP-320).
    pub leader_epoch: Option<LeaderEpoch>,
    /// Whatever the client attached.
    pub metadata: StrBytes,
    /// When it was committed.
    pub commit_timestamp: Timestamp,
    /// When it expires, if the client asked for a time of its own.
    pub expire_timestamp: Option<Timestamp>,
    /// The topic's id when it was committed; nil if it was not known.
    pub topic_id: Uuid,
}

/// A classic group at the start of a generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupValue {
    /// `consumer`, `connect`, …; empty for a group that never had members.
    pub protocol_type: StrBytes,
    /// The generation.
    pub generation: i32,
    /// The protocol that the members agreed on.
    pub protocol_name: Option<StrBytes>,
    /// The leader's member id.
    pub leader: Option<StrBytes>,
    /// When the group reached its state; `None` in records older than v2.
    pub state_timestamp: Option<Timestamp>,
    /// The members, each with its assignment.
    pub members: Vec<MemberValue>,
}

/// A member of a [`GroupValue`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberValue {
    /// The member's id.
    pub member_id: StrBytes,
    /// `group.instance.id` of a static member (KIP-345).
    pub group_instance_id: Option<StrBytes>,
    /// `client.id`.
    pub client_id: StrBytes,
    /// Where the client connected from.
    pub client_host: StrBytes,
    /// How long a rebalance waits for the member.
    pub rebalance_timeout_ms: i32,
    /// How long the member may be silent.
    pub session_timeout_ms: i32,
    /// The member's metadata for the group's protocol.
    pub subscription: Bytes,
    /// What the leader assigned to it.
    pub assignment: Bytes,
}

/// Reads a record's key.
/// # Errors  When the bytes end early, or go on behind the key.
pub fn read_key(bytes: &[u8]) -> Result<RecordKey, DecodeError> {
    let mut reader = Reader::new(bytes);
    let key = match reader.i16()? {
        LEGACY_OFFSET_KEY | OFFSET_KEY => RecordKey::Offset {
            group: owned(reader.string()?),
            topic: owned(reader.string()?),
            partition: reader.i32()?,
        },
        GROUP_KEY => RecordKey::Group { group: owned(reader.string()?) },
        other => return Ok(RecordKey::Other(other)),
    };
    reader.end()?;
    Ok(key)
}

/// The key of a committed offset. The names must fit Kafka's strings.
#[must_use]
pub fn offset_key(group: &str, topic: &str, partition: i32) -> Bytes {
    let mut writer = Writer::new();
    writer.i16(OFFSET_KEY);
    writer.string(group);
    writer.string(topic);
    writer.i32(partition);
    writer.into_bytes()
}

/// The key of a classic group. The name must fit Kafka's strings.
#[must_use]
pub fn group_key(group: &str) -> Bytes {
    let mut writer = Writer::new();
    writer.i16(GROUP_KEY);
    writer.string(group);
    writer.into_bytes()
}

impl OffsetValue {
    /// Reads versions 0 to 4.
    /// # Errors  An unknown version, or bytes that do not fit it.
    pub fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.i16()?;
        if !(0..=4).contains(&version) {
            return Err(DecodeError::Version(version));
        }
        let offset = Offset(reader.i64()?);
        let leader_epoch = if version >= 3 { reader.i32()? } else { -1 };
        let metadata = if version >= 4 { reader.compact_string()? } else { reader.string()? };
        let commit_timestamp = reader.i64()?;
        let expire_timestamp = if version == 1 { reader.i64()? } else { -1 };
        let mut topic_id = Uuid::nil();
        if version >= 4 {
            reader.tagged_fields(|tag, field| {
                match tag {
                    0 => topic_id = field.uuid()?,
                    _ => drop(field.take(field.left())?),
                }
                Ok(())
            })?;
        }
        reader.end()?;
        Ok(Self {
            offset,
            leader_epoch: (leader_epoch >= 0).then_some(LeaderEpoch(leader_epoch)),
            metadata: owned(metadata),
            commit_timestamp,
            expire_timestamp: (expire_timestamp >= 0).then_some(expire_timestamp),
            topic_id,
        })
    }

    /// Writes version 4, or version 1 if there is an expiry of its own: later versions have no field for it.
    #[must_use]
    pub fn write(&self) -> Bytes {
        let mut writer = Writer::new();
        if let Some(expire_timestamp) = self.expire_timestamp {
            writer.i16(1);
            writer.i64(self.offset.0);
            writer.string(&self.metadata);
            writer.i64(self.commit_timestamp);
            writer.i64(expire_timestamp);
            return writer.into_bytes();
        }
        writer.i16(4);
        writer.i64(self.offset.0);
        writer.i32(self.leader_epoch.map_or(-1, |epoch| epoch.0));
        writer.compact_string(&self.metadata);
        writer.i64(self.commit_timestamp);
        if self.topic_id.is_nil() {
            writer.no_tagged_fields();
        } else {
            writer.tagged_fields(&[(0, self.topic_id.as_bytes().to_vec())]);
        }
        writer.into_bytes()
    }
}

impl GroupValue {
    /// Reads versions 0 to 4.
    /// # Errors  An unknown version, or bytes that do not fit it.
    pub fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.i16()?;
        if !(0..=4).contains(&version) {
            return Err(DecodeError::Version(version));
        }
        let flexible = version >= 4;
        let protocol_type = owned(string(&mut reader, flexible)?);
        let generation = reader.i32()?;
        let protocol_name = nullable_string(&mut reader, flexible)?.map(owned);
        let leader = nullable_string(&mut reader, flexible)?.map(owned);
        let state_timestamp = if version >= 2 { reader.i64()? } else { -1 };
        // The smallest member: three empty strings, two numbers or one, two empty byte strings.
        let count = if flexible { reader.compact_array_count(14)? } else { reader.array_count(18)? };
        let members = (0..count).map(|_| MemberValue::read(&mut reader, version)).collect::<Result<_, _>>()?;
        if flexible {
            reader.skip_tagged_fields()?;
        }
        reader.end()?;
        Ok(Self {
            protocol_type,
            generation,
            protocol_name,
            leader,
            state_timestamp: (state_timestamp >= 0).then_some(state_timestamp),
            members,
        })
    }

    /// Writes version 3.
    #[must_use]
    pub fn write(&self) -> Bytes {
        let mut writer = Writer::new();
        writer.i16(3);
        writer.string(&self.protocol_type);
        writer.i32(self.generation);
        writer.nullable_string(self.protocol_name.as_deref());
        writer.nullable_string(self.leader.as_deref());
        writer.i64(self.state_timestamp.unwrap_or(-1));
        writer.array_count(self.members.len());
        for member in &self.members {
            writer.string(&member.member_id);
            writer.nullable_string(member.group_instance_id.as_deref());
            writer.string(&member.client_id);
            writer.string(&member.client_host);
            writer.i32(member.rebalance_timeout_ms);
            writer.i32(member.session_timeout_ms);
            writer.bytes(&member.subscription);
            writer.bytes(&member.assignment);
        }
        writer.into_bytes()
    }
}

impl MemberValue {
    fn read(reader: &mut Reader<'_>, version: i16) -> Result<Self, DecodeError> {
        let flexible = version >= 4;
        let member_id = owned(string(reader, flexible)?);
        let group_instance_id = if version >= 3 { nullable_string(reader, flexible)?.map(owned) } else { None };
        let client_id = owned(string(reader, flexible)?);
        let client_host = owned(string(reader, flexible)?);
        let rebalance_timeout_ms = if version >= 1 { reader.i32()? } else { -1 };
        let session_timeout_ms = reader.i32()?;
        let subscription = Bytes::copy_from_slice(bytes(reader, flexible)?);
        let assignment = Bytes::copy_from_slice(bytes(reader, flexible)?);
        if flexible {
            reader.skip_tagged_fields()?;
        }
        Ok(Self {
            member_id,
            group_instance_id,
            client_id,
            client_host,
            rebalance_timeout_ms: if rebalance_timeout_ms < 0 { session_timeout_ms } else { rebalance_timeout_ms },
            session_timeout_ms,
            subscription,
            assignment,
        })
    }
}

fn string<'a>(reader: &mut Reader<'a>, flexible: bool) -> Result<&'a str, DecodeError> {
    if flexible { reader.compact_string() } else { reader.string() }
}

fn nullable_string<'a>(reader: &mut Reader<'a>, flexible: bool) -> Result<Option<&'a str>, DecodeError> {
    if flexible { reader.compact_nullable_string() } else { reader.nullable_string() }
}

fn bytes<'a>(reader: &mut Reader<'a>, flexible: bool) -> Result<&'a [u8], DecodeError> {
    if flexible { reader.compact_bytes() } else { reader.bytes() }
}

// A slice of the input would keep a whole batch in memory.
fn owned(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &'static str) -> StrBytes {
        StrBytes::from_static_str(text)
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn offset() -> OffsetValue {
        OffsetValue {
            offset: Offset(42),
            leader_epoch: Some(LeaderEpoch(3)),
            metadata: text("m"),
            commit_timestamp: 1000,
            expire_timestamp: None,
            topic_id: Uuid::from_u128(7),
        }
    }

    #[test]
    fn offsets_have_kafkas_bytes_and_read_back() {
        let key = offset_key("g", "t", 5);
        assert_eq!(hex(&key), "0001".to_owned() + "000167" + "000174" + "00000005");
        assert_eq!(read_key(&key), Ok(RecordKey::Offset { group: text("g"), topic: text("t"), partition: 5 }));

        let value = offset();
        let id = "00000000000000000000000000000007";
        let expected =
            ["0004", "000000000000002a", "00000003", "026d", "00000000000003e8", "01", "00", "10", id].concat();
        assert_eq!(hex(&value.write()), expected);
        assert_eq!(OffsetValue::read(&value.write()), Ok(value.clone()));

        let plain = OffsetValue { topic_id: Uuid::nil(), leader_epoch: None, ..value.clone() };
        assert_eq!(OffsetValue::read(&plain.write()), Ok(plain.clone()));

        let expiring = OffsetValue { expire_timestamp: Some(2000), ..plain };
        let expected = ["0001", "000000000000002a", "00016d", "00000000000003e8", "00000000000007d0"].concat();
        assert_eq!(hex(&expiring.write()), expected);
        assert_eq!(OffsetValue::read(&expiring.write()), Ok(expiring));
    }

    #[test]
    fn groups_have_kafkas_bytes_and_read_back() {
        let key = group_key("g");
        assert_eq!(hex(&key), "0002000167");
        assert_eq!(read_key(&key), Ok(RecordKey::Group { group: text("g") }));
        assert_eq!(read_key(&[0, 3, 9, 9]), Ok(RecordKey::Other(3)));

        let value = GroupValue {
            protocol_type: text("consumer"),
            generation: 2,
            protocol_name: Some(text("range")),
            leader: Some(text("m1")),
            state_timestamp: Some(9),
            members: vec![
                MemberValue {
                    member_id: text("m1"),
                    group_instance_id: Some(text("i")),
                    client_id: text("c"),
                    client_host: text("/h"),
                    rebalance_timeout_ms: 7,
                    session_timeout_ms: 6,
                    subscription: Bytes::from_static(b"s"),
                    assignment: Bytes::from_static(b"a"),
                },
                MemberValue::default(),
            ],
        };
        let bytes = value.write();
        let start =
            ["0003", "0008636f6e73756d6572", "00000002", "000572616e6765", "00026d31", "0000000000000009"].concat();
        let first =
            ["00026d31", "000169", "000163", "00022f68", "00000007", "00000006", "0000000173", "0000000161"].concat();
        assert!(hex(&bytes).starts_with(&(start + "00000002" + &first)), "{}", hex(&bytes));
        assert_eq!(GroupValue::read(&bytes), Ok(value));
    }

    #[test]
    fn older_groups_are_read() {
        // Version 0: no rebalance time-out, no state timestamp, no static members.
        let mut writer = Writer::new();
        writer.i16(0);
        writer.string("consumer");
        writer.i32(1);
        writer.nullable_string(None);
        writer.nullable_string(None);
        writer.array_count(1);
        for name in ["m", "c", "h"] {
            writer.string(name);
        }
        writer.i32(6000);
        writer.bytes(b"s");
        writer.bytes(b"a");
        let read = GroupValue::read(&writer.into_vec()).expect("version 0");
        assert_eq!(read.state_timestamp, None);
        assert_eq!(read.members[0].rebalance_timeout_ms, 6000);
    }

    #[test]
    fn cut_and_forged_records_are_errors() {
        let value = offset().write();
        for cut in 0..value.len() {
            assert!(OffsetValue::read(&value[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(OffsetValue::read(&[0, 5]), Err(DecodeError::Version(5)));
        assert_eq!(GroupValue::read(&[0xff, 0xff]), Err(DecodeError::Version(-1)));
        let mut group = GroupValue::default().write().to_vec();
        let count = group.len() - 4;
        group[count..].copy_from_slice(&i32::MAX.to_be_bytes());
        assert_eq!(GroupValue::read(&group), Err(DecodeError::Count { count: i32::MAX as usize, left: 0 }));
        assert_eq!(read_key(&[0, 2, 0, 1, 103, 0]), Err(DecodeError::Trailing(1)));
    }
}
