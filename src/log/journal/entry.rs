//! What a journal block says: the entries, byte by byte.
//!
//! ```text
//! append     1  key(20)  base_offset i64  leader_epoch i32  segment_base i64  position u32  length u32  batch
//! log start  2  key(20)  log_start_offset i64
//! truncate   3  key(20)  segment_base i64  position u32  log_end_offset i64
//! seal       4  key(20)  segment_base i64  length u32  next_base i64
//! ```
//! A key is the topic's id and the partition's index. All integers are big-endian.

use crate::{
    base::{LeaderEpoch, Offset, PartitionKey},
    log::{
        locate::Head,
        wire::{Damaged, Put, Reader},
    },
};

const APPEND: u8 = 1;
const LOG_START: u8 = 2;
const TRUNCATE: u8 = 3;
const SEAL: u8 = 4;

/// Bytes of an append entry before its batch.
pub const APPEND_HEAD_BYTES: usize = 1 + 20 + 8 + 4 + 8 + 4 + 4;

/// Bytes of the largest entry without a batch.
pub const CONTROL_BYTES: usize = 1 + 20 + 8 + 4 + 8;

/// Where a log was cut: at this position of this segment, so that it ends there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutAt {
    pub segment_base: Offset,
    pub position: u32,
    pub end: Offset,
}

/// Where an append goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendHead {
    pub key: PartitionKey,
    pub base_offset: Offset,
    pub leader_epoch: LeaderEpoch,
    pub segment_base: Offset,
    pub position: u32,
    pub length: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    Append { head: AppendHead, batch: &'a [u8] },
    LogStart { key: PartitionKey, offset: Offset },
    Truncate { key: PartitionKey, at: CutAt },
    Seal { key: PartitionKey, segment_base: Offset, length: u32, next_base: Offset },
}

impl AppendHead {
    pub fn encode(&self) -> [u8; APPEND_HEAD_BYTES] {
        let mut out = Vec::with_capacity(APPEND_HEAD_BYTES);
        out.put_u8(APPEND);
        out.put_key(self.key);
        out.put_i64(self.base_offset.0);
        out.put_i32(self.leader_epoch.0);
        out.put_i64(self.segment_base.0);
        out.put_u32(self.position);
        out.put_u32(self.length);
        out.try_into().expect("the fields above are APPEND_HEAD_BYTES long")
    }
}

impl<'a> Entry<'a> {
    pub fn key(&self) -> PartitionKey {
        match self {
            Self::Append { head, .. } => head.key,
            Self::LogStart { key, .. } | Self::Truncate { key, .. } | Self::Seal { key, .. } => *key,
        }
    }

    /// The entry's bytes; for those without a batch.
    pub fn encoded(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(CONTROL_BYTES);
        self.encode(&mut bytes);
        bytes
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Append { head, batch } => {
                out.put(&head.encode());
                out.put(batch);
            }
            Self::LogStart { key, offset } => {
                out.put_u8(LOG_START);
                out.put_key(*key);
                out.put_i64(offset.0);
            }
            Self::Truncate { key, at: CutAt { segment_base, position, end } } => {
                out.put_u8(TRUNCATE);
                out.put_key(*key);
                out.put_i64(segment_base.0);
                out.put_u32(*position);
                out.put_i64(end.0);
            }
            Self::Seal { key, segment_base, length, next_base } => {
                out.put_u8(SEAL);
                out.put_key(*key);
                out.put_i64(segment_base.0);
                out.put_u32(*length);
                out.put_i64(next_base.0);
            }
        }
    }

    /// Takes the next entry off `input`.
    pub fn decode(input: &mut Reader<'a>) -> Result<Self, Damaged> {
        let kind = input.u8()?;
        let key = input.key()?;
        match kind {
            APPEND => {
                let head = AppendHead {
                    key,
                    base_offset: input.offset()?,
                    leader_epoch: LeaderEpoch(input.i32()?),
                    segment_base: input.offset()?,
                    position: input.u32()?,
                    length: input.u32()?,
                };
                Ok(Self::Append { head, batch: input.take(head.length as usize)? })
            }
            LOG_START => Ok(Self::LogStart { key, offset: input.offset()? }),
            TRUNCATE => {
                let at = CutAt { segment_base: input.offset()?, position: input.u32()?, end: input.offset()? };
                Ok(Self::Truncate { key, at })
            }
            SEAL => {
                Ok(Self::Seal { key, segment_base: input.offset()?, length: input.u32()?, next_base: input.offset()? })
            }
            _ => Err(Damaged),
        }
    }
}

/// The offset behind a batch of the journal.
pub fn end_of(head: &AppendHead, batch: &[u8]) -> Offset {
    Head::parse(batch).map_or(head.base_offset, |head| head.last_offset).plus(1)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::base::TopicId;

    #[test]
    fn entries_read_back_and_cut_ones_are_refused() {
        let key = PartitionKey { topic_id: TopicId(Uuid::from_u128(9)), partition: 3 };
        let head = AppendHead {
            key,
            base_offset: Offset(70),
            leader_epoch: LeaderEpoch(2),
            segment_base: Offset(50),
            position: 4000,
            length: 5,
        };
        let entries = [
            Entry::Append { head, batch: b"batch" },
            Entry::LogStart { key, offset: Offset(60) },
            Entry::Truncate { key, at: CutAt { segment_base: Offset(50), position: 4000, end: Offset(70) } },
            Entry::Seal { key, segment_base: Offset(50), length: 4005, next_base: Offset(71) },
        ];
        let mut bytes = Vec::new();
        for entry in &entries {
            entry.encode(&mut bytes);
        }
        let mut reader = Reader(&bytes);
        for entry in &entries {
            assert_eq!(Entry::decode(&mut reader).as_ref(), Ok(entry));
        }
        assert!(reader.0.is_empty());
        for cut in 0..APPEND_HEAD_BYTES + 5 {
            assert_eq!(Entry::decode(&mut Reader(&bytes[..cut])), Err(Damaged), "cut at {cut}");
        }
    }
}
