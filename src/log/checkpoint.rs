//! Checkpoints, two alternating files per core, and the manifest that says which of them count.
//!
//! ```text
//! ringtail-manifest                      "RTM2" crc32c  version u8  incarnation(16)  cores u32  clean u8
//!                                        generation u64 for each core
//! ringtail-<life>-<core>-<k>.checkpoint  "RTC2" crc32c  version u8  incarnation(16)  core u32  generation u64
//!                                        first_sequence u64  count u32  images
//! ringtail-<core>-<n>.journal            blocks
//! ```
//! Version 1 had no byte for it, and was told by `RTM1` and `RTC1`; its manifest ends with `clean`. It is read still.
//!
//! The sum covers everything behind it. `<life>` is the front of the incarnation in hex: a new life never writes over
//! the files of the last one, and begins at the moment when the manifest names it.

pub mod write;

use std::{io, path::PathBuf};

use crate::log::{
    image::LogImage,
    journal::block::Incarnation,
    wire::{Damaged, Put, Reader, Unreadable},
};

/// How a kind of file begins: without a version, which is version 1, and with one.
struct Magic {
    unversioned: u32,
    versioned: u32,
}

const MANIFEST_MAGIC: Magic =
    Magic { unversioned: u32::from_be_bytes(*b"RTM1"), versioned: u32::from_be_bytes(*b"RTM2") };
const CHECKPOINT_MAGIC: Magic =
    Magic { unversioned: u32::from_be_bytes(*b"RTC1"), versioned: u32::from_be_bytes(*b"RTC2") };

/// What is written. A new field takes the next number; what an older one lacks is read as absent.
pub const VERSION: u8 = 2;

/// Why a checkpoint was not made.
#[derive(Debug)]
pub enum RoundError {
    /// The disk is full: try again later.
    Full,
    /// A sync or a write failed: nothing is known about what is on the disk.
    Disk(io::Error),
}

/// More cores than any machine has; a larger number is damage.
const CORES_MAX: u32 = 4096;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub incarnation: Incarnation,
    pub cores: usize,
    /// The broker stopped in order: the journals hold nothing.
    pub clean: bool,
    /// The generation of each core's checkpoint: after a clean stop the one that counts, before it at least so much. Zero
    /// in version 1, which did not say.
    pub generations: Vec<u64>,
}

impl Manifest {
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.put(&self.incarnation);
        body.put_u32(self.cores as u32);
        body.put_u8(u8::from(self.clean));
        self.generations.iter().for_each(|generation| body.put_u64(*generation));
        framed(&MANIFEST_MAGIC, &body)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let (version, mut input) = unframed(&MANIFEST_MAGIC, bytes)?;
        let (incarnation, cores, clean) = (input.array()?, input.u32()?, input.u8()? != 0);
        if cores == 0 || cores > CORES_MAX {
            return Err(Unreadable::Damaged);
        }
        let generations = (0..cores).map(|_| if version == 1 { Ok(0) } else { input.u64() });
        let generations = generations.collect::<Result<_, Damaged>>()?;
        if !input.0.is_empty() {
            return Err(Unreadable::Damaged);
        }
        Ok(Self { incarnation, cores: cores as usize, clean, generations })
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
    /// A later one that is damaged, if this one stands in for it.
    pub in_place_of: Option<PathBuf>,
}

impl Checkpoint {
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let (version, mut input) = unframed(&CHECKPOINT_MAGIC, bytes)?;
        let (incarnation, core) = (input.array()?, input.u32()? as usize);
        let (generation, first_sequence) = (input.u64()?, input.u64()?);
        let decode = if version == 1 { LogImage::decode_unversioned } else { LogImage::decode };
        let images = (0..input.count(20)?).map(|_| decode(&mut input)).collect::<Result<_, _>>()?;
        if !input.0.is_empty() {
            return Err(Unreadable::Damaged);
        }
        Ok(Self { incarnation, core, generation, first_sequence, images, in_place_of: None })
    }
}

/// What a checkpoint says before its images.
pub struct CheckpointHead<'a> {
    pub incarnation: &'a Incarnation,
    pub core: usize,
    pub generation: u64,
    pub first_sequence: u64,
}

impl CheckpointHead<'_> {
    /// From the version, with which the sum begins, to the number of images.
    fn encode(&self, images: usize) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.put(self.incarnation);
        out.put_u32(self.core as u32);
        out.put_u64(self.generation);
        out.put_u64(self.first_sequence);
        out.put_u32(images as u32);
        out
    }
}

/// The file's bytes, from images that are encoded already.
#[cfg(test)]
pub fn encode_checkpoint(head: &CheckpointHead, images: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut out = head.encode(images.len());
    images.iter().for_each(|image| out.put(image.as_ref()));
    framed(&CHECKPOINT_MAGIC, &out[1..])
}

fn framed(magic: &Magic, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 9);
    out.put_u32(magic.versioned);
    let sum = crc32c::crc32c_append(crc32c::crc32c(&[VERSION]), body);
    out.put_u32(sum);
    out.put_u8(VERSION);
    out.put(body);
    out
}

/// The version, and what follows it. The sum is looked at first, so that a damaged version is damage.
fn unframed<'a>(magic: &Magic, bytes: &'a [u8]) -> Result<(u8, Reader<'a>), Unreadable> {
    let mut input = Reader(bytes);
    let (found, sum) = (input.u32()?, input.u32()?);
    if sum != crc32c::crc32c(input.0) {
        return Err(Unreadable::Damaged);
    }
    let version = match found {
        found if found == magic.unversioned => 1,
        found if found == magic.versioned => input.u8()?,
        _ => return Err(Unreadable::Damaged),
    };
    if version > VERSION { Err(Unreadable::Newer(version)) } else { Ok((version, input)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: CheckpointHead<'_> =
        CheckpointHead { incarnation: &[1; 16], core: 3, generation: 8, first_sequence: 99 };
    const NO_IMAGES: &[&[u8]] = &[];

    #[test]
    fn a_manifest_reads_back_and_a_flipped_bit_is_found() {
        let manifest = Manifest { incarnation: [3; 16], cores: 2, clean: true, generations: vec![5, 1] };
        let bytes = manifest.encode();
        assert_eq!(Manifest::decode(&bytes), Ok(manifest));
        for byte in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[byte] ^= 1 << bit;
                assert_eq!(Manifest::decode(&damaged), Err(Unreadable::Damaged), "bit {bit} of byte {byte}");
            }
            assert_eq!(Manifest::decode(&bytes[..byte]), Err(Unreadable::Damaged), "cut at {byte}");
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let newer = |mut bytes: Vec<u8>| {
            bytes[8] = VERSION + 1;
            bytes.extend(b"a field that nobody here knows");
            let sum = crc32c::crc32c(&bytes[8..]);
            bytes[4..8].copy_from_slice(&sum.to_be_bytes());
            bytes
        };
        let manifest = Manifest { incarnation: [3; 16], cores: 1, clean: true, generations: vec![5] }.encode();
        assert_eq!(Manifest::decode(&newer(manifest)), Err(Unreadable::Newer(VERSION + 1)));
        let checkpoint = encode_checkpoint(&HEAD, NO_IMAGES);
        assert_eq!(Checkpoint::decode(&newer(checkpoint)), Err(Unreadable::Newer(VERSION + 1)));
    }

    #[test]
    fn an_empty_checkpoint_reads_back() {
        let bytes = encode_checkpoint(&HEAD, NO_IMAGES);
        let checkpoint = Checkpoint::decode(&bytes).unwrap();
        assert_eq!((checkpoint.core, checkpoint.generation, checkpoint.first_sequence), (3, 8, 99));
        assert!(Checkpoint::decode(&bytes[..bytes.len() - 1]).is_err());
    }
}
