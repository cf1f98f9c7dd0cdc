//! Record bytes straight from a decompressor, a window at a time.

use std::io::Read;

use super::{Compression, Decompressor, failure};
use crate::protocol::batch::{BatchError, Feed};

/// What is held of the decompressed bytes at any time.
const WINDOW_BYTES: usize = 32 * 1024;

/// A [`Feed`] that holds one window of the decompressed bytes, however many there are.
pub struct StreamFeed<'a> {
    source: Decompressor<'a>,
    window: Vec<u8>,
    start: usize,
    /// Bytes before the window.
    before: usize,
    limit: usize,
}

impl<'a> StreamFeed<'a> {
    /// Reads at most `limit` decompressed bytes of `bytes`.
    /// # Errors  `BadRecord` if the bytes cannot be the codec's.
    pub fn new(codec: Compression, bytes: &'a [u8], limit: usize) -> Result<Self, BatchError> {
        let source = Decompressor::new(codec, bytes, limit)?;
        Ok(Self { source, window: Vec::with_capacity(WINDOW_BYTES), start: 0, before: 0, limit })
    }

    /// Replaces the used-up window; false at the end.
    fn refill(&mut self) -> Result<bool, BatchError> {
        self.before += self.window.len();
        self.start = 0;
        if self.before > self.limit {
            return Err(BatchError::TooLarge { limit: self.limit });
        }
        self.window.resize(WINDOW_BYTES, 0);
        let count = loop {
            match self.source.read(&mut self.window) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                result => break result.map_err(|error| failure(&error, self.limit)),
            }
        };
        self.window.truncate(count.unwrap_or(0));
        Ok(count? > 0)
    }

    #[cold]
    fn first_byte_of_next(&mut self) -> Result<u8, BatchError> {
        if !self.refill()? {
            return Err(ENDED);
        }
        self.start = 1;
        Ok(self.window[0])
    }

    #[cold]
    fn skip_windows(&mut self, mut count: usize) -> Result<(), BatchError> {
        loop {
            let left = self.window.len() - self.start;
            if count <= left {
                self.start += count;
                return Ok(());
            }
            count -= left;
            if !self.refill()? {
                return Err(ENDED);
            }
        }
    }
}

const ENDED: BatchError = BatchError::BadRecord("the records end in the middle of one");

impl Feed for StreamFeed<'_> {
    #[inline]
    fn byte(&mut self) -> Result<u8, BatchError> {
        let Some(byte) = self.window.get(self.start) else { return self.first_byte_of_next() };
        self.start += 1;
        Ok(*byte)
    }

    #[inline]
    fn skip(&mut self, count: usize) -> Result<(), BatchError> {
        if count <= self.window.len() - self.start {
            self.start += count;
            return Ok(());
        }
        self.skip_windows(count)
    }

    fn piece(&mut self, count: usize) -> Result<&[u8], BatchError> {
        if self.start == self.window.len() && !self.refill()? {
            return Err(ENDED);
        }
        let start = self.start;
        self.start += count.min(self.window.len() - start);
        Ok(&self.window[start..self.start])
    }

    #[inline]
    fn position(&self) -> usize {
        self.before + self.start
    }

    fn at_end(&mut self) -> Result<bool, BatchError> {
        Ok(self.start == self.window.len() && !self.refill()?)
    }
}
