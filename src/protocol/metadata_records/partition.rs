//! Partitions and their changes.

use uuid::Uuid;

use super::{DecodeError, Reader, Writer, read_ids, read_uuids, tagged, unknown, write_ids, write_uuids};
use crate::base::TopicId;

/// `PartitionRecord`: written at version 2 (directories, eligible leader replicas), read from 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionRecord {
    /// Index of the partition in its topic.
    pub partition_id: i32,
    /// The topic.
    pub topic_id: TopicId,
    /// Brokers that hold the partition, the preferred leader first.
    pub replicas: Vec<i32>,
    /// The in-sync replicas.
    pub isr: Vec<i32>,
    /// Replicas on their way out.
    pub removing_replicas: Vec<i32>,
    /// Replicas on their way in.
    pub adding_replicas: Vec<i32>,
    /// The leader, or -1.
    pub leader: i32,
    /// 0 recovered, 1 recovering after an unclean election.
    pub leader_recovery_state: i8,
    /// Grows with each leader.
    pub leader_epoch: i32,
    /// Grows with each change.
    pub partition_epoch: i32,
    /// The data directory of each replica; nil is unassigned.
    pub directories: Vec<Uuid>,
    /// KIP-966.
    pub eligible_leader_replicas: Vec<i32>,
    /// KIP-966.
    pub last_known_elr: Vec<i32>,
}

impl PartitionRecord {
    pub(super) const VERSION: u32 = 2;

    pub(super) fn write(&self, out: &mut Writer) {
        out.i32(self.partition_id);
        out.uuid(self.topic_id.0);
        write_ids(out, &self.replicas);
        write_ids(out, &self.isr);
        write_ids(out, &self.removing_replicas);
        write_ids(out, &self.adding_replicas);
        out.i32(self.leader);
        out.i32(self.leader_epoch);
        out.i32(self.partition_epoch);
        write_uuids(out, &self.directories);
        let mut fields = Vec::new();
        if self.leader_recovery_state != 0 {
            fields.push((0, tagged(|out| out.i8(self.leader_recovery_state))));
        }
        if !self.eligible_leader_replicas.is_empty() {
            fields.push((1, tagged(|out| write_ids(out, &self.eligible_leader_replicas))));
        }
        if !self.last_known_elr.is_empty() {
            fields.push((2, tagged(|out| write_ids(out, &self.last_known_elr))));
        }
        out.tagged_fields(&fields);
    }

    pub(super) fn read(version: u32, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if version > Self::VERSION {
            return Err(unknown(version));
        }
        let mut record = Self {
            partition_id: reader.i32()?,
            topic_id: TopicId(reader.uuid()?),
            replicas: read_ids(reader)?,
            isr: read_ids(reader)?,
            removing_replicas: read_ids(reader)?,
            adding_replicas: read_ids(reader)?,
            leader: reader.i32()?,
            leader_epoch: reader.i32()?,
            partition_epoch: reader.i32()?,
            directories: if version >= 1 { read_uuids(reader)? } else { Vec::new() },
            ..Self::default()
        };
        reader.tagged_fields(|tag, field| {
            match tag {
                0 => record.leader_recovery_state = field.i8()?,
                1 => record.eligible_leader_replicas = read_nullable_ids(field)?,
                2 => record.last_known_elr = read_nullable_ids(field)?,
                _ => drop(field.take(field.left())?),
            }
            Ok(())
        })?;
        Ok(record)
    }
}

/// `PartitionChangeRecord`: a field that is absent did not change. A change of leader raises the leader epoch by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionChange {
    /// Index of the partition in its topic.
    pub partition_id: i32,
    /// The topic.
    pub topic_id: TopicId,
    /// The in-sync replicas.
    pub isr: Option<Vec<i32>>,
    /// The leader, or -1 for none.
    pub leader: Option<i32>,
    /// All replicas.
    pub replicas: Option<Vec<i32>>,
    /// Replicas on their way out.
    pub removing_replicas: Option<Vec<i32>>,
    /// Replicas on their way in.
    pub adding_replicas: Option<Vec<i32>>,
    /// 0 recovered, 1 recovering.
    pub leader_recovery_state: Option<i8>,
    /// KIP-966.
    pub eligible_leader_replicas: Option<Vec<i32>>,
    /// KIP-966.
    pub last_known_elr: Option<Vec<i32>>,
    /// The data directory of each replica.
    pub directories: Option<Vec<Uuid>>,
}

/// Kafka's mark in `leader` for "as before".
const NO_LEADER_CHANGE: i32 = -2;

impl PartitionChange {
    /// A change of nothing, to be filled in.
    #[must_use]
    pub fn of(topic_id: TopicId, partition_id: i32) -> Self {
        Self {
            partition_id,
            topic_id,
            isr: None,
            leader: None,
            replicas: None,
            removing_replicas: None,
            adding_replicas: None,
            leader_recovery_state: None,
            eligible_leader_replicas: None,
            last_known_elr: None,
            directories: None,
        }
    }

    /// The lowest version that has all fields in use, as Kafka chooses it.
    pub(super) fn version(&self) -> u32 {
        if self.eligible_leader_replicas.is_some() || self.last_known_elr.is_some() {
            2
        } else {
            u32::from(self.directories.is_some())
        }
    }

    pub(super) fn write(&self, out: &mut Writer) {
        out.i32(self.partition_id);
        out.uuid(self.topic_id.0);
        let mut fields = Vec::new();
        let mut ids = |tag: u32, ids: &Option<Vec<i32>>| {
            if let Some(ids) = ids {
                fields.push((tag, tagged(|out| write_ids(out, ids))));
            }
        };
        ids(0, &self.isr);
        ids(2, &self.replicas);
        ids(3, &self.removing_replicas);
        ids(4, &self.adding_replicas);
        ids(6, &self.eligible_leader_replicas);
        ids(7, &self.last_known_elr);
        if let Some(leader) = self.leader {
            fields.push((1, tagged(|out| out.i32(leader))));
        }
        if let Some(state) = self.leader_recovery_state {
            fields.push((5, tagged(|out| out.i8(state))));
        }
        if let Some(directories) = &self.directories {
            fields.push((8, tagged(|out| write_uuids(out, directories))));
        }
        fields.sort_by_key(|(tag, _)| *tag);
        out.tagged_fields(&fields);
    }

    pub(super) fn read(version: u32, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if version > 2 {
            return Err(unknown(version));
        }
        let partition_id = reader.i32()?;
        let mut record = Self::of(TopicId(reader.uuid()?), partition_id);
        reader.tagged_fields(|tag, field| {
            match tag {
                0 => record.isr = Some(read_nullable_ids(field)?),
                1 => record.leader = Some(field.i32()?).filter(|leader| *leader != NO_LEADER_CHANGE),
                2 => record.replicas = Some(read_nullable_ids(field)?),
                3 => record.removing_replicas = Some(read_nullable_ids(field)?),
                4 => record.adding_replicas = Some(read_nullable_ids(field)?),
                5 => record.leader_recovery_state = Some(field.i8()?).filter(|state| *state >= 0),
                6 => record.eligible_leader_replicas = Some(read_nullable_ids(field)?),
                7 => record.last_known_elr = Some(read_nullable_ids(field)?),
                8 => record.directories = Some(read_uuids(field)?),
                _ => drop(field.take(field.left())?),
            }
            Ok(())
        })?;
        Ok(record)
    }
}

fn read_nullable_ids(reader: &mut Reader<'_>) -> Result<Vec<i32>, DecodeError> {
    let count = reader.compact_nullable_array_count(4)?.unwrap_or(0);
    (0..count).map(|_| reader.i32()).collect()
}
