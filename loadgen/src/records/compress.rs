//! The five codecs, whole batches at a time, with a bound on what comes out.

use std::io::{self, Read, Write};

/// Kafka's codec numbers, as in the batch attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

/// No batch of ours or of a sane broker unpacks to more.
pub const UNPACKED_BYTES_MAX: usize = 256 << 20;
const GZIP_LEVEL: u32 = 6;
const ZSTD_LEVEL: i32 = 3;
const SNAPPY_BLOCK_BYTES: usize = 32 << 10;
/// The header of snappy-java's stream: magic, version 1, compatible with 1.
const SNAPPY_HEADER: [u8; 16] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];

impl Codec {
    pub fn from_attributes(attributes: i16) -> Option<Self> {
        match attributes & 7 {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "none" => Some(Self::None),
            "gzip" => Some(Self::Gzip),
            "snappy" => Some(Self::Snappy),
            "lz4" => Some(Self::Lz4),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Appends the packed form of `plain` to `out`.
pub fn pack(codec: Codec, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    match codec {
        Codec::None => out.extend_from_slice(plain),
        Codec::Gzip => {
            let level = flate2::Compression::new(GZIP_LEVEL);
            let mut writer = flate2::write::GzEncoder::new(out, level);
            writer.write_all(plain)?;
            writer.finish()?;
        }
        Codec::Snappy => {
            out.extend_from_slice(&SNAPPY_HEADER);
            let mut encoder = snap::raw::Encoder::new();
            for block in plain.chunks(SNAPPY_BLOCK_BYTES) {
                let start = out.len();
                out.resize(start + 4 + snap::raw::max_compress_len(block.len()), 0);
                let length = encoder.compress(block, &mut out[start + 4..]).map_err(io::Error::other)?;
                out[start..start + 4].copy_from_slice(&(length as u32).to_be_bytes());
                out.truncate(start + 4 + length);
            }
        }
        Codec::Lz4 => {
            let mut writer = lz4_flex::frame::FrameEncoder::new(out);
            writer.write_all(plain)?;
            writer.finish().map_err(io::Error::other)?;
        }
        Codec::Zstd => {
            let mut writer = zstd::stream::write::Encoder::new(out, ZSTD_LEVEL)?;
            writer.write_all(plain)?;
            writer.finish()?;
        }
    }
    Ok(())
}

/// Replaces `out` by the plain form of `packed`.
/// # Errors  `InvalidData` for garbage and for more than `UNPACKED_BYTES_MAX`.
pub fn unpack(codec: Codec, packed: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    out.clear();
    match codec {
        Codec::None => out.extend_from_slice(packed),
        Codec::Gzip => read_bounded(flate2::read::GzDecoder::new(packed), out)?,
        Codec::Snappy => unpack_snappy(packed, out)?,
        Codec::Lz4 => read_bounded(lz4_flex::frame::FrameDecoder::new(packed), out)?,
        Codec::Zstd => read_bounded(zstd::stream::read::Decoder::new(packed)?, out)?,
    }
    Ok(())
}

fn read_bounded(reader: impl Read, out: &mut Vec<u8>) -> io::Result<()> {
    reader.take(UNPACKED_BYTES_MAX as u64 + 1).read_to_end(out)?;
    if out.len() > UNPACKED_BYTES_MAX {
        return Err(invalid("a batch unpacks to more than 256 MiB"));
    }
    Ok(())
}

fn unpack_snappy(packed: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let Some(mut blocks) = packed.strip_prefix(&SNAPPY_HEADER[..8]).and_then(|rest| rest.get(8..)) else {
        return unpack_snappy_block(packed, out);
    };
    while let Some((length, rest)) = blocks.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let block = rest.get(..length).ok_or_else(|| invalid("a snappy block is cut off"))?;
        unpack_snappy_block(block, out)?;
        blocks = &rest[length..];
    }
    Ok(())
}

fn unpack_snappy_block(block: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let length = snap::raw::decompress_len(block).map_err(io::Error::other)?;
    let start = out.len();
    if start + length > UNPACKED_BYTES_MAX {
        return Err(invalid("a batch unpacks to more than 256 MiB"));
    }
    out.resize(start + length, 0);
    snap::raw::Decoder::new().decompress(block, &mut out[start..]).map_err(io::Error::other)?;
    Ok(())
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_codec_gives_back_what_it_took() {
        let plain: Vec<u8> = (0..200_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let (mut packed, mut back) = (Vec::new(), Vec::new());
            pack(codec, &plain, &mut packed).unwrap();
            unpack(codec, &packed, &mut back).unwrap();
            assert!(back == plain, "{codec:?}");
            let cut = &packed[..packed.len() / 2];
            if codec != Codec::None {
                assert!(unpack(codec, cut, &mut back).is_err(), "{codec:?} cut off");
            }
        }
    }
}
