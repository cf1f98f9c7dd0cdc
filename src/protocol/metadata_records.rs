//! Records of `__cluster_metadata`, in KRaft's own framing: frame version, record type and record version as unsigned
//! varints, then the struct (all of them flexible, KIP-482).
//!
//! Every type that Apache Kafka 4.3.1 writes is accepted; the ones without meaning here come out as
//! [`MetadataRecord::Other`] and keep their bytes.

mod broker;
mod partition;
mod quota;
mod scram;

use bytes::Bytes;
use uuid::Uuid;

pub use self::{
    broker::{BrokerEndpoint, BrokerFeature, BrokerRegistrationChange, RegisterBroker},
    partition::{PartitionChange, PartitionRecord},
    quota::{ClientQuotaRecord, QuotaValue},
    scram::{ScramCredential, ScramUser},
};
use super::primitives::{DecodeError, Reader, Writer};
use crate::base::TopicId;

/// The only frame version there is.
const FRAME_VERSION: u32 = 1;

const REGISTER_BROKER: u32 = 0;
const UNREGISTER_BROKER: u32 = 1;
const TOPIC: u32 = 2;
const PARTITION: u32 = 3;
const CONFIG: u32 = 4;
const PARTITION_CHANGE: u32 = 5;
const FENCE_BROKER: u32 = 7;
const UNFENCE_BROKER: u32 = 8;
const REMOVE_TOPIC: u32 = 9;
const SCRAM_CREDENTIAL: u32 = 11;
const FEATURE_LEVEL: u32 = 12;
const CLIENT_QUOTA: u32 = 14;
const PRODUCER_IDS: u32 = 15;
const BROKER_REGISTRATION_CHANGE: u32 = 17;
const NO_OP: u32 = 20;
const REMOVE_SCRAM_CREDENTIAL: u32 = 22;
const BEGIN_TRANSACTION: u32 = 23;
const END_TRANSACTION: u32 = 24;
const ABORT_TRANSACTION: u32 = 25;

/// `ConfigRecord.resourceType` of a topic.
pub const TOPIC_RESOURCE: i8 = 2;
/// `ConfigRecord.resourceType` of a broker; the empty name stands for all brokers.
pub const BROKER_RESOURCE: i8 = 4;

/// One change of the cluster's metadata. The state of a cluster is what its records leave behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataRecord {
    /// A broker came (back) to life.
    RegisterBroker(RegisterBroker),
    /// A broker was taken out of the cluster.
    UnregisterBroker {
        /// `node.id`.
        broker_id: i32,
        /// Epoch of the registration that ends.
        broker_epoch: i64,
    },
    /// A topic exists. Its partitions follow.
    Topic {
        /// Its name.
        name: String,
        /// Its id.
        topic_id: TopicId,
    },
    /// A partition exists.
    Partition(PartitionRecord),
    /// A config was set, or with no value: removed.
    Config(ConfigRecord),
    /// Some fields of a partition changed.
    PartitionChange(PartitionChange),
    /// A broker lost the right to lead.
    FenceBroker {
        /// `node.id`.
        broker_id: i32,
        /// Epoch of the registration.
        broker_epoch: i64,
    },
    /// A broker may lead again.
    UnfenceBroker {
        /// `node.id`.
        broker_id: i32,
        /// Epoch of the registration.
        broker_epoch: i64,
    },
    /// A topic and all that belongs to it is gone.
    RemoveTopic {
        /// Its id.
        topic_id: TopicId,
    },
    /// A feature (KIP-584) is finalized at a level; 0 removes it.
    FeatureLevel {
        /// Such as `metadata.version`.
        name: String,
        /// The level.
        level: i16,
    },
    /// A user has a SCRAM credential.
    ScramCredential(ScramUser, ScramCredential),
    /// A user has it no more.
    RemoveScramCredential(ScramUser),
    /// A quota of clients was set, or with no value: removed.
    ClientQuota(ClientQuotaRecord),
    /// A block of producer ids was given away.
    ProducerIds {
        /// Who took it.
        broker_id: i32,
        /// Epoch of its registration.
        broker_epoch: i64,
        /// The first id that is still free.
        next_producer_id: i64,
    },
    /// Some fields of a registration changed.
    BrokerRegistrationChange(BrokerRegistrationChange),
    /// Nothing changed; the log moves on.
    NoOp,
    /// The records up to the end count together or not at all (KIP-868).
    BeginTransaction,
    /// See [`Self::BeginTransaction`].
    EndTransaction,
    /// What began is void.
    AbortTransaction,
    /// A type of Kafka's without meaning here.
    Other {
        /// Kafka's number of the type.
        record_type: u32,
        /// Version of the struct.
        version: u32,
        /// The struct as it lies.
        body: Bytes,
    },
}

/// One config of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigRecord {
    /// [`TOPIC_RESOURCE`], [`BROKER_RESOURCE`], or another number of Kafka's.
    pub resource_type: i8,
    /// The topic's name, or the broker's id as text, or empty for all brokers.
    pub resource_name: String,
    /// The key.
    pub name: String,
    /// The value; none removes the key.
    pub value: Option<String>,
}

impl MetadataRecord {
    /// The bytes of the record's value. Its key is null.
    /// # Panics  Names and values longer than 32,767 bytes are never decided upon.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        out.uvarint(FRAME_VERSION);
        match self {
            Self::RegisterBroker(record) => {
                head(&mut out, REGISTER_BROKER, RegisterBroker::VERSION);
                record.write(&mut out);
            }
            Self::UnregisterBroker { broker_id, broker_epoch } => {
                broker_and_epoch(&mut out, UNREGISTER_BROKER, *broker_id, *broker_epoch);
            }
            Self::Topic { name, topic_id } => {
                head(&mut out, TOPIC, 0);
                out.compact_string(name);
                out.uuid(topic_id.0);
                out.no_tagged_fields();
            }
            Self::Partition(record) => {
                head(&mut out, PARTITION, PartitionRecord::VERSION);
                record.write(&mut out);
            }
            Self::Config(ConfigRecord { resource_type, resource_name, name, value }) => {
                head(&mut out, CONFIG, 0);
                out.i8(*resource_type);
                out.compact_string(resource_name);
                out.compact_string(name);
                out.compact_nullable_string(value.as_deref());
                out.no_tagged_fields();
            }
            Self::PartitionChange(record) => {
                head(&mut out, PARTITION_CHANGE, record.version());
                record.write(&mut out);
            }
            Self::FenceBroker { broker_id, broker_epoch } => {
                broker_and_epoch(&mut out, FENCE_BROKER, *broker_id, *broker_epoch);
            }
            Self::UnfenceBroker { broker_id, broker_epoch } => {
                broker_and_epoch(&mut out, UNFENCE_BROKER, *broker_id, *broker_epoch);
            }
            Self::RemoveTopic { topic_id } => {
                head(&mut out, REMOVE_TOPIC, 0);
                out.uuid(topic_id.0);
                out.no_tagged_fields();
            }
            Self::FeatureLevel { name, level } => {
                head(&mut out, FEATURE_LEVEL, 0);
                out.compact_string(name);
                out.i16(*level);
                out.no_tagged_fields();
            }
            Self::ScramCredential(user, credential) => {
                head(&mut out, SCRAM_CREDENTIAL, scram::VERSION);
                scram::write(&mut out, user, credential);
            }
            Self::RemoveScramCredential(user) => {
                head(&mut out, REMOVE_SCRAM_CREDENTIAL, scram::VERSION);
                scram::write_removal(&mut out, user);
            }
            Self::ClientQuota(record) => {
                head(&mut out, CLIENT_QUOTA, ClientQuotaRecord::VERSION);
                record.write(&mut out);
            }
            Self::ProducerIds { broker_id, broker_epoch, next_producer_id } => {
                head(&mut out, PRODUCER_IDS, 0);
                out.i32(*broker_id);
                out.i64(*broker_epoch);
                out.i64(*next_producer_id);
                out.no_tagged_fields();
            }
            Self::BrokerRegistrationChange(record) => {
                head(&mut out, BROKER_REGISTRATION_CHANGE, BrokerRegistrationChange::VERSION);
                record.write(&mut out);
            }
            Self::NoOp => empty(&mut out, NO_OP),
            Self::BeginTransaction => empty(&mut out, BEGIN_TRANSACTION),
            Self::EndTransaction => empty(&mut out, END_TRANSACTION),
            Self::AbortTransaction => empty(&mut out, ABORT_TRANSACTION),
            Self::Other { record_type, version, body } => {
                head(&mut out, *record_type, *version);
                out.raw(body);
            }
        }
        out.into_bytes()
    }

    /// Reads the value of a record of `__cluster_metadata`.
    /// # Errors  Bytes that are no such record, or a version of one we know that is newer than 4.3.1's.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let frame = reader.uvarint()?;
        if frame != FRAME_VERSION {
            return Err(unknown(frame));
        }
        let record_type = reader.uvarint()?;
        let version = reader.uvarint()?;
        let record = Self::read(record_type, version, &mut reader)?;
        reader.end()?;
        Ok(record)
    }

    fn read(record_type: u32, version: u32, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let record = match record_type {
            REGISTER_BROKER => return RegisterBroker::read(version, reader).map(Self::RegisterBroker),
            PARTITION => return PartitionRecord::read(version, reader).map(Self::Partition),
            PARTITION_CHANGE => return PartitionChange::read(version, reader).map(Self::PartitionChange),
            SCRAM_CREDENTIAL => {
                return scram::read(version, reader).map(|(user, it)| Self::ScramCredential(user, it));
            }
            REMOVE_SCRAM_CREDENTIAL => {
                return scram::read_removal(version, reader).map(Self::RemoveScramCredential);
            }
            CLIENT_QUOTA => return ClientQuotaRecord::read(version, reader).map(Self::ClientQuota),
            BROKER_REGISTRATION_CHANGE => {
                return BrokerRegistrationChange::read(version, reader).map(Self::BrokerRegistrationChange);
            }
            UNREGISTER_BROKER | TOPIC | CONFIG | FENCE_BROKER | UNFENCE_BROKER | REMOVE_TOPIC | FEATURE_LEVEL
            | PRODUCER_IDS | NO_OP | BEGIN_TRANSACTION | END_TRANSACTION | ABORT_TRANSACTION
                if version > 0 =>
            {
                return Err(unknown(version));
            }
            UNREGISTER_BROKER => Self::UnregisterBroker { broker_id: reader.i32()?, broker_epoch: reader.i64()? },
            TOPIC => Self::Topic { name: reader.compact_string()?.to_owned(), topic_id: TopicId(reader.uuid()?) },
            CONFIG => Self::Config(ConfigRecord {
                resource_type: reader.i8()?,
                resource_name: reader.compact_string()?.to_owned(),
                name: reader.compact_string()?.to_owned(),
                value: reader.compact_nullable_string()?.map(str::to_owned),
            }),
            FENCE_BROKER => Self::FenceBroker { broker_id: reader.i32()?, broker_epoch: reader.i64()? },
            UNFENCE_BROKER => Self::UnfenceBroker { broker_id: reader.i32()?, broker_epoch: reader.i64()? },
            REMOVE_TOPIC => Self::RemoveTopic { topic_id: TopicId(reader.uuid()?) },
            FEATURE_LEVEL => Self::FeatureLevel { name: reader.compact_string()?.to_owned(), level: reader.i16()? },
            PRODUCER_IDS => Self::ProducerIds {
                broker_id: reader.i32()?,
                broker_epoch: reader.i64()?,
                next_producer_id: reader.i64()?,
            },
            NO_OP => Self::NoOp,
            BEGIN_TRANSACTION => Self::BeginTransaction,
            END_TRANSACTION => Self::EndTransaction,
            ABORT_TRANSACTION => Self::AbortTransaction,
            record_type => {
                let body = Bytes::copy_from_slice(reader.take(reader.left())?);
                return Ok(Self::Other { record_type, version, body });
            }
        };
        reader.skip_tagged_fields()?;
        Ok(record)
    }
}

fn head(out: &mut Writer, record_type: u32, version: u32) {
    out.uvarint(record_type);
    out.uvarint(version);
}

fn empty(out: &mut Writer, record_type: u32) {
    head(out, record_type, 0);
    out.no_tagged_fields();
}

fn broker_and_epoch(out: &mut Writer, record_type: u32, broker_id: i32, broker_epoch: i64) {
    head(out, record_type, 0);
    out.i32(broker_id);
    out.i64(broker_epoch);
    out.no_tagged_fields();
}

fn unknown(version: u32) -> DecodeError {
    DecodeError::Version(i16::try_from(version).unwrap_or(i16::MAX))
}

fn write_ids(out: &mut Writer, ids: &[i32]) {
    out.compact_array_count(ids.len());
    for id in ids {
        out.i32(*id);
    }
}

fn read_ids(reader: &mut Reader<'_>) -> Result<Vec<i32>, DecodeError> {
    (0..reader.compact_array_count(4)?).map(|_| reader.i32()).collect()
}

fn write_uuids(out: &mut Writer, uuids: &[Uuid]) {
    out.compact_array_count(uuids.len());
    for uuid in uuids {
        out.uuid(*uuid);
    }
}

fn read_uuids(reader: &mut Reader<'_>) -> Result<Vec<Uuid>, DecodeError> {
    (0..reader.compact_array_count(16)?).map(|_| reader.uuid()).collect()
}

/// The bytes of one tagged field.
fn tagged(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut out = Writer::new();
    write(&mut out);
    out.into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<MetadataRecord> {
        let topic_id = TopicId(Uuid::from_u128(0x1_0203));
        let directory = Uuid::from_u128(99);
        vec![
            MetadataRecord::RegisterBroker(RegisterBroker {
                broker_id: 1,
                incarnation_id: Uuid::from_u128(5),
                broker_epoch: 7,
                end_points: vec![BrokerEndpoint {
                    name: "PLAINTEXT".into(),
                    host: "localhost".into(),
                    port: 65_535,
                    security_protocol: 0,
                }],
                features: vec![BrokerFeature { name: "metadata.version".into(), min: 7, max: 30 }],
                rack: Some("r1".into()),
                fenced: false,
                in_controlled_shutdown: false,
                log_dirs: vec![directory],
            }),
            MetadataRecord::UnregisterBroker { broker_id: 1, broker_epoch: 7 },
            MetadataRecord::Topic { name: "t".into(), topic_id },
            MetadataRecord::Partition(PartitionRecord {
                partition_id: 3,
                topic_id,
                replicas: vec![1, 2],
                isr: vec![1],
                leader: 1,
                leader_epoch: 4,
                partition_epoch: 5,
                directories: vec![directory, Uuid::nil()],
                ..PartitionRecord::default()
            }),
            MetadataRecord::Config(ConfigRecord {
                resource_type: TOPIC_RESOURCE,
                resource_name: "t".into(),
                name: "retention.ms".into(),
                value: None,
            }),
            MetadataRecord::PartitionChange(PartitionChange {
                isr: Some(vec![2]),
                leader: Some(2),
                ..PartitionChange::of(topic_id, 3)
            }),
            MetadataRecord::FenceBroker { broker_id: 1, broker_epoch: 7 },
            MetadataRecord::UnfenceBroker { broker_id: 1, broker_epoch: 7 },
            MetadataRecord::RemoveTopic { topic_id },
            MetadataRecord::FeatureLevel { name: "metadata.version".into(), level: 30 },
            MetadataRecord::ScramCredential(
                ("u".into(), 1),
                ScramCredential {
                    salt: Bytes::from_static(&[1, 2]),
                    stored_key: Bytes::from_static(&[3, 4]),
                    server_key: Bytes::from_static(&[5, 6]),
                    iterations: 4096,
                },
            ),
            MetadataRecord::RemoveScramCredential(("u".into(), 1)),
            MetadataRecord::ClientQuota(ClientQuotaRecord {
                entity: vec![("client-id".into(), None), ("user".into(), Some("u".into()))],
                key: "producer_byte_rate".into(),
                value: Some(QuotaValue::of(1000.5)),
            }),
            MetadataRecord::ProducerIds { broker_id: 1, broker_epoch: 7, next_producer_id: 1000 },
            MetadataRecord::BrokerRegistrationChange(BrokerRegistrationChange {
                broker_id: 1,
                broker_epoch: 7,
                fenced: Some(false),
                in_controlled_shutdown: None,
                log_dirs: vec![],
            }),
            MetadataRecord::NoOp,
            MetadataRecord::BeginTransaction,
            MetadataRecord::EndTransaction,
            MetadataRecord::AbortTransaction,
            MetadataRecord::Other { record_type: 26, version: 0, body: Bytes::from_static(b"\x02a\0") },
        ]
    }

    #[test]
    fn records_read_back_as_written() {
        for record in samples() {
            assert_eq!(MetadataRecord::decode(&record.encode()), Ok(record.clone()), "{record:?}");
        }
    }

    /// Apache Kafka 4.3.1's `MetadataRecordSerde` reads these and writes the same bytes again.
    #[test]
    fn the_bytes_are_kafkas() {
        let expected = [
            "0100030000000100000000000000000000000000000000050000000000000007020a504c41494e544558540a6c6f63616c686f7374ffff00000002116d657461646174612e76657273696f6e0007001e0003723100000100110200000000000000000000000000000063",
            "01010000000001000000000000000700",
            "01020002740000000000000000000000000001020300",
            "01030200000003000000000000000000000000000102030300000001000000020200000001010100000001000000040000000503000000000000000000000000000000630000000000000000000000000000000000",
            "0104000202740d726574656e74696f6e2e6d730000",
            "01050000000003000000000000000000000000000102030200050200000002010400000002",
            "01070000000001000000000000000700",
            "01080000000001000000000000000700",
            "0109000000000000000000000000000001020300",
            "010c00116d657461646174612e76657273696f6e001e00",
            "010b000275010301020303040305060000100000",
            "01160002750100",
            "010e00030a636c69656e742d6964000005757365720275001370726f64756365725f627974655f72617465408f4400000000000000",
            "010f0000000001000000000000000700000000000003e800",
            "011102000000010000000000000007010001ff",
            "01140000",
            "01170000",
            "01180000",
            "01190000",
            "011a00026100",
        ];
        let found = samples().iter().map(MetadataRecord::encode).collect::<Vec<_>>();
        let found = found.iter().map(|bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn cut_off_records_are_errors_at_every_byte() {
        for record in samples() {
            let bytes = record.encode();
            for end in 0..bytes.len() {
                match MetadataRecord::decode(&bytes[..end]) {
                    // A type that we do not know has no length of its own.
                    Ok(MetadataRecord::Other { .. }) if matches!(record, MetadataRecord::Other { .. }) => {}
                    Ok(read) => panic!("{record:?} cut at {end} reads as {read:?}"),
                    Err(_) => {}
                }
            }
        }
    }

    #[test]
    fn newer_versions_and_frames_are_refused() {
        assert_eq!(MetadataRecord::decode(b"\x02\x14\x00\x00"), Err(DecodeError::Version(2)));
        assert_eq!(MetadataRecord::decode(b"\x01\x14\x01\x00"), Err(DecodeError::Version(1)));
        assert_eq!(MetadataRecord::decode(b"\x01\x03\x09\x00"), Err(DecodeError::Version(9)));
        assert_eq!(MetadataRecord::decode(b"\x01\x14\x00\x00\x00"), Err(DecodeError::Trailing(1)));
    }
}
