//! Big-endian numbers for what a checkpoint keeps. Checkpoints carry a CRC of their own.

use super::StateError;

/// Reads numbers off the front of a slice.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(StateError::Damaged)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, StateError> {
        Ok(u8::from_be_bytes(self.take()?))
    }

    pub(super) fn i16(&mut self) -> Result<i16, StateError> {
        Ok(i16::from_be_bytes(self.take()?))
    }

    pub(super) fn i32(&mut self) -> Result<i32, StateError> {
        Ok(i32::from_be_bytes(self.take()?))
    }

    pub(super) fn i64(&mut self) -> Result<i64, StateError> {
        Ok(i64::from_be_bytes(self.take()?))
    }

    /// A count of things that take `bytes_each` at least, so a forged one is refused before anything is allocated.
    pub(super) fn count(&mut self, bytes_each: usize) -> Result<usize, StateError> {
        let count = usize::try_from(self.i32()?).map_err(|_| StateError::Damaged)?;
        if count.saturating_mul(bytes_each) > self.0.len() { Err(StateError::Damaged) } else { Ok(count) }
    }
}
