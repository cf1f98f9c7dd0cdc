//! Big-endian numbers in our own files, read with a check at every step.

use uuid::Uuid;

use crate::base::{Offset, PartitionKey, TopicId};

/// The bytes end too early, or say something impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

/// Why something of ours cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It is not what was written.
    Damaged,
    /// It is whole, and in this version of its format, which is newer than ours.
    Newer(u8),
}

impl From<Damaged> for Unreadable {
    fn from(Damaged: Damaged) -> Self {
        Self::Damaged
    }
}

pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Damaged> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(Damaged)?;
        self.0 = tail;
        Ok(head)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        Ok(self.take(N)?.try_into().expect("take returns N bytes"))
    }

    pub fn u8(&mut self) -> Result<u8, Damaged> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u32(&mut self) -> Result<u32, Damaged> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub fn i32(&mut self) -> Result<i32, Damaged> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, Damaged> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub fn i64(&mut self) -> Result<i64, Damaged> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    pub fn offset(&mut self) -> Result<Offset, Damaged> {
        Ok(Offset(self.i64()?))
    }

    pub fn key(&mut self) -> Result<PartitionKey, Damaged> {
        let topic_id = TopicId(Uuid::from_bytes(self.array()?));
        Ok(PartitionKey { topic_id, partition: self.i32()? })
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Damaged> {
        let len = self.u32()? as usize;
        self.take(len)
    }

    pub fn text(&mut self) -> Result<&'a str, Damaged> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Damaged)
    }

    /// A count of things that take at least `each` bytes, so that a forged one allocates nothing.
    pub fn count(&mut self, each: usize) -> Result<usize, Damaged> {
        let count = self.u32()? as usize;
        if count.saturating_mul(each) > self.0.len() { Err(Damaged) } else { Ok(count) }
    }
}

pub trait Put {
    fn put(&mut self, bytes: &[u8]);

    fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }
    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }
    fn put_i32(&mut self, value: i32) {
        self.put(&value.to_be_bytes());
    }
    fn put_u64(&mut self, value: u64) {
        self.put(&value.to_be_bytes());
    }
    fn put_i64(&mut self, value: i64) {
        self.put(&value.to_be_bytes());
    }
    fn put_key(&mut self, key: PartitionKey) {
        self.put(key.topic_id.0.as_bytes());
        self.put_i32(key.partition);
    }
    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put_u32(u32::try_from(bytes.len()).expect("our own records are far below 4 GiB"));
        self.put(bytes);
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}
