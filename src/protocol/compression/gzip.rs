//! Gzip as Java reads it: members one after the other, and whatever follows the last one is passed over.

use std::io::{self, Read};

use flate2::bufread::GzDecoder;

/// Decompresses member by member.
pub struct GzipReader<'a> {
    member: GzDecoder<&'a [u8]>,
    ended: bool,
}

impl<'a> GzipReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { member: GzDecoder::new(bytes), ended: false }
    }
}

impl Read for GzipReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while !self.ended && !out.is_empty() {
            let count = self.member.read(out)?;
            if count > 0 {
                return Ok(count);
            }
            let next = GzDecoder::new(*self.member.get_ref());
            // Its header is read when it is made. No header: no member.
            self.ended = next.header().is_none();
            self.member = next;
        }
        Ok(0)
    }
}
