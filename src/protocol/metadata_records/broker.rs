//! Registrations of brokers.

use uuid::Uuid;

use super::{DecodeError, Reader, Writer, read_uuids, tagged, unknown, write_uuids};

/// `RegisterBrokerRecord`: written at version 3 (log directories), read from 0 to 4.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegisterBroker {
    /// `node.id`.
    pub broker_id: i32,
    /// Drawn at each start of the process.
    pub incarnation_id: Uuid,
    /// Offset of the record in the metadata log, by Kafka's rule.
    pub broker_epoch: i64,
    /// Where the broker can be reached.
    pub end_points: Vec<BrokerEndpoint>,
    /// Feature levels that the broker's software knows.
    pub features: Vec<BrokerFeature>,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// Whether the broker must not lead yet.
    pub fenced: bool,
    /// Whether the broker is on its way out.
    pub in_controlled_shutdown: bool,
    /// Ids of its data directories.
    pub log_dirs: Vec<Uuid>,
}

/// One listener of a broker as clients see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerEndpoint {
    /// The listener's name.
    pub name: String,
    /// The advertised host.
    pub host: String,
    /// The advertised port.
    pub port: u16,
    /// Kafka's number of the security protocol: 0 is PLAINTEXT.
    pub security_protocol: i16,
}

/// Levels of one feature.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerFeature {
    /// Such as `metadata.version`.
    pub name: String,
    /// The lowest level.
    pub min: i16,
    /// The highest level.
    pub max: i16,
}

impl RegisterBroker {
    pub(super) const VERSION: u32 = 3;

    pub(super) fn write(&self, out: &mut Writer) {
        out.i32(self.broker_id);
        // isMigratingZkBroker, of the days of ZooKeeper.
        out.bool(false);
        out.uuid(self.incarnation_id);
        out.i64(self.broker_epoch);
        out.compact_array_count(self.end_points.len());
        for end_point in &self.end_points {
            out.compact_string(&end_point.name);
            out.compact_string(&end_point.host);
            out.u16(end_point.port);
            out.i16(end_point.security_protocol);
            out.no_tagged_fields();
        }
        out.compact_array_count(self.features.len());
        for feature in &self.features {
            out.compact_string(&feature.name);
            out.i16(feature.min);
            out.i16(feature.max);
            out.no_tagged_fields();
        }
        out.compact_nullable_string(self.rack.as_deref());
        out.bool(self.fenced);
        out.bool(self.in_controlled_shutdown);
        if self.log_dirs.is_empty() {
            out.no_tagged_fields();
        } else {
            out.tagged_fields(&[(0, tagged(|out| write_uuids(out, &self.log_dirs)))]);
        }
    }

    pub(super) fn read(version: u32, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if version > 4 {
            return Err(unknown(version));
        }
        let broker_id = reader.i32()?;
        if version >= 2 {
            reader.bool()?;
        }
        let mut record = Self {
            broker_id,
            incarnation_id: reader.uuid()?,
            broker_epoch: reader.i64()?,
            end_points: BrokerEndpoint::read_all(reader)?,
            features: BrokerFeature::read_all(reader)?,
            rack: reader.compact_nullable_string()?.map(str::to_owned),
            fenced: reader.bool()?,
            in_controlled_shutdown: version >= 1 && reader.bool()?,
            log_dirs: Vec::new(),
        };
        reader.tagged_fields(|tag, field| {
            match tag {
                0 => record.log_dirs = read_uuids(field)?,
                _ => drop(field.take(field.left())?),
            }
            Ok(())
        })?;
        Ok(record)
    }
}

impl BrokerEndpoint {
    fn read_all(reader: &mut Reader<'_>) -> Result<Vec<Self>, DecodeError> {
        (0..reader.compact_array_count(7)?)
            .map(|_| {
                let end_point = Self {
                    name: reader.compact_string()?.to_owned(),
                    host: reader.compact_string()?.to_owned(),
                    port: reader.u16()?,
                    security_protocol: reader.i16()?,
                };
                reader.skip_tagged_fields()?;
                Ok(end_point)
            })
            .collect()
    }
}

impl BrokerFeature {
    fn read_all(reader: &mut Reader<'_>) -> Result<Vec<Self>, DecodeError> {
        (0..reader.compact_array_count(6)?)
            .map(|_| {
                let feature =
                    Self { name: reader.compact_string()?.to_owned(), min: reader.i16()?, max: reader.i16()? };
                reader.skip_tagged_fields()?;
                Ok(feature)
            })
            .collect()
    }
}

/// `BrokerRegistrationChangeRecord`: written at version 2, read from 0 to 3. A field that is absent did not change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerRegistrationChange {
    /// `node.id`.
    pub broker_id: i32,
    /// Epoch of the registration.
    pub broker_epoch: i64,
    /// Whether the broker must not lead.
    pub fenced: Option<bool>,
    /// Whether the broker is on its way out. Never goes back to false.
    pub in_controlled_shutdown: Option<bool>,
    /// Its data directories; empty: as before.
    pub log_dirs: Vec<Uuid>,
}

impl BrokerRegistrationChange {
    pub(super) const VERSION: u32 = 2;

    pub(super) fn write(&self, out: &mut Writer) {
        out.i32(self.broker_id);
        out.i64(self.broker_epoch);
        let mut fields = Vec::new();
        if let Some(fenced) = self.fenced {
            // Kafka's three states: -1 unfence, 0 as before, 1 fence.
            fields.push((0, tagged(|out| out.i8(if fenced { 1 } else { -1 }))));
        }
        if self.in_controlled_shutdown == Some(true) {
            fields.push((1, tagged(|out| out.i8(1))));
        }
        if !self.log_dirs.is_empty() {
            fields.push((2, tagged(|out| write_uuids(out, &self.log_dirs))));
        }
        out.tagged_fields(&fields);
    }

    pub(super) fn read(version: u32, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if version > 3 {
            return Err(unknown(version));
        }
        let mut record = Self { broker_id: reader.i32()?, broker_epoch: reader.i64()?, ..Self::default() };
        reader.tagged_fields(|tag, field| {
            match tag {
                0 => record.fenced = three_states(field.i8()?),
                1 => record.in_controlled_shutdown = three_states(field.i8()?),
                2 => record.log_dirs = read_uuids(field)?,
                _ => drop(field.take(field.left())?),
            }
            Ok(())
        })?;
        Ok(record)
    }
}

fn three_states(value: i8) -> Option<bool> {
    (value != 0).then_some(value > 0)
}
