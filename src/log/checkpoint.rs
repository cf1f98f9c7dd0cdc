//! Checkpoints, two alternating files per core, and the manifest that says which of them count.
//!
//! ```text
//! ringtail-manifest                      "RTM1" crc32c  incarnation(16)  cores u32  clean u8
//! ringtail-<life>-<core>-<k>.checkpoint  "RTC1" crc32c  incarnation(16)  core u32  generation u64  first_sequence u64
//!                                        count u32  images
//! ringtail-<core>-<n>.journal            blocks
//! ```
//! The sum covers everything behind it. `<life>` is the front of the incarnation in hex: a new life never writes over
//! the files of the last one, and begins at the moment when the manifest names it.

use crate::log::{
    image::LogImage,
    journal::block::Incarnation,
    wire::{Damaged, Put, Reader},
};

const MANIFEST_MAGIC: u32 = u32::from_be_bytes(*b"RTM1");
const CHECKPOINT_MAGIC: u32 = u32::from_be_bytes(*b"RTC1");

/// More cores than any machine has; a larger number is damage.
const CORES_MAX: u32 = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub incarnation: Incarnation,
    pub cores: usize,
    /// The broker stopped in order: the journals hold nothing.
    pub clean: bool,
}

impl Manifest {
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.put(&self.incarnation);
        body.put_u32(self.cores as u32);
        body.put_u8(u8::from(self.clean));
        framed(MANIFEST_MAGIC, &body)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut input = unframed(MANIFEST_MAGIC, bytes)?;
        let (incarnation, cores, clean) = (input.array()?, input.u32()?, input.u8()? != 0);
        if cores == 0 || cores > CORES_MAX {
            Err(Damaged)
        } else {
            Ok(Self { incarnation, cores: cores as usize, clean })
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub incarnation: Incarnation,
    pub core: usize,
    /// Counts up; the larger one of two valid files counts.
    pub generation: u64,
    /// Replay begins with this block: what came before is in the segments.
    pub first_sequence: u64,
    pub images: Vec<LogImage>,
}

impl Checkpoint {
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut input = unframed(CHECKPOINT_MAGIC, bytes)?;
        let (incarnation, core) = (input.array()?, input.u32()? as usize);
        let (generation, first_sequence) = (input.u64()?, input.u64()?);
        let images = (0..input.count(20)?).map(|_| LogImage::decode(&mut input)).collect::<Result<_, _>>()?;
        Ok(Self { incarnation, core, generation, first_sequence, images })
    }
}

/// The file's bytes, from images that are encoded already.
pub fn encode_checkpoint<'a>(
    incarnation: &Incarnation,
    core: usize,
    generation: u64,
    first_sequence: u64,
    images: impl ExactSizeIterator<Item = &'a [u8]>,
) -> Vec<u8> {
    let mut body = Vec::new();
    body.put(incarnation);
    body.put_u32(core as u32);
    body.put_u64(generation);
    body.put_u64(first_sequence);
    body.put_u32(images.len() as u32);
    images.for_each(|image| body.put(image));
    framed(CHECKPOINT_MAGIC, &body)
}

fn framed(magic: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 8);
    out.put_u32(magic);
    out.put_u32(crc32c::crc32c(body));
    out.put(body);
    out
}

fn unframed(magic: u32, bytes: &[u8]) -> Result<Reader<'_>, Damaged> {
    let mut input = Reader(bytes);
    if input.u32()? != magic || input.u32()? != crc32c::crc32c(&bytes[8..]) {
        return Err(Damaged);
    }
    Ok(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_reads_back_and_a_flipped_bit_is_found() {
        let manifest = Manifest { incarnation: [3; 16], cores: 2, clean: true };
        let bytes = manifest.encode();
        assert_eq!(Manifest::decode(&bytes), Ok(manifest));
        for byte in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[byte] ^= 4;
            assert_eq!(Manifest::decode(&damaged), Err(Damaged), "byte {byte}");
        }
    }

    #[test]
    fn an_empty_checkpoint_reads_back() {
        let bytes = encode_checkpoint(&[1; 16], 3, 8, 99, std::iter::empty());
        let checkpoint = Checkpoint::decode(&bytes).unwrap();
        assert_eq!((checkpoint.core, checkpoint.generation, checkpoint.first_sequence), (3, 8, 99));
        assert!(Checkpoint::decode(&bytes[..bytes.len() - 1]).is_err());
    }
}
