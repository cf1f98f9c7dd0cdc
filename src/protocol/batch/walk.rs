//! From batch to batch through a stretch of log.

use super::{BatchError, BatchHeader};

/// One whole batch where it lies.
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    /// Its header.
    pub header: BatchHeader,
    /// All of its bytes, header included.
    pub bytes: &'a [u8],
}

/// See [`batches`].
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    bytes: &'a [u8],
    position: usize,
    failed: bool,
}

/// Walks the batches that lie back to back in `bytes`. CRCs are not checked: see [`super::crc_ok`].
///
/// Ends after the first error; [`Batches::position`] is then where the bad batch begins.
#[must_use]
pub fn batches(bytes: &[u8]) -> Batches<'_> {
    Batches { bytes, position: 0, failed: false }
}

impl Batches<'_> {
    /// End of the last good batch.
    #[cfg(test)]
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<BatchView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.bytes[self.position..];
        if self.failed || rest.is_empty() {
            return None;
        }
        let view = BatchHeader::parse(rest).and_then(|header| match rest.get(..header.total_bytes) {
            Some(bytes) => Ok(BatchView { header, bytes }),
            None => Err(BatchError::Truncated { needed: header.total_bytes }),
        });
        match &view {
            Ok(view) => self.position += view.bytes.len(),
            Err(_) => self.failed = true,
        }
        Some(view)
    }
}
