//! Compressing piece by piece: nothing is held but what the codec needs, and what comes out goes on at once.

use std::io::{self, Write};

use zstd::zstd_safe::CParameter;

use super::{Compression, snappy};

/// How far zstd looks back, and how many entries its tables have at most, in bits. Its highest level would take 700 MiB by itself.
const ZSTD_WINDOW_BITS: u32 = 20;
/// The last level, Kafka's default, that keeps small tables.
const ZSTD_SMALL_LEVEL_MAX: i32 = 3;

impl Compression {
    /// The most memory that compressing with this codec takes, beside what comes out, in bytes.
    #[must_use]
    pub const fn compressor_bytes(self, level: i32) -> usize {
        match self {
            Self::None => 0,
            Self::Gzip => 384 << 10,
            Self::Snappy => 128 << 10,
            Self::Lz4 => 256 << 10,
            Self::Zstd if level <= ZSTD_SMALL_LEVEL_MAX => 4 << 20,
            Self::Zstd => 16 << 20,
        }
    }
}

/// A compressor that writes to `W`.
pub enum Compressor<W: Write> {
    /// The bytes themselves.
    None(W),
    /// See [`Compression::Gzip`].
    Gzip(Box<flate2::write::GzEncoder<W>>),
    /// See [`Compression::Snappy`]: Xerial's framing.
    Snappy(snappy::SnappyWriter<W>),
    /// See [`Compression::Lz4`].
    Lz4(Box<lz4_flex::frame::FrameEncoder<W>>),
    /// See [`Compression::Zstd`].
    Zstd(Box<zstd::stream::write::Encoder<'static, W>>),
}

impl<W: Write> Compressor<W> {
    /// Begins. The level means what Kafka's `compression.<codec>.level` means, but LZ4 has only its fast level here, and blocks
    /// of 64 KiB as in Kafka.
    /// # Errors  What the writer says, and what zstd says of a level that it does not have.
    pub fn new(codec: Compression, level: i32, out: W) -> io::Result<Self> {
        Ok(match codec {
            Compression::None => Self::None(out),
            Compression::Gzip => Self::Gzip(Box::new(flate2::write::GzEncoder::new(out, gzip_level(level)))),
            Compression::Snappy => Self::Snappy(snappy::SnappyWriter::new(out)?),
            Compression::Lz4 => {
                let frame = lz4_flex::frame::FrameInfo::new().block_size(lz4_flex::frame::BlockSize::Max64KB);
                Self::Lz4(Box::new(lz4_flex::frame::FrameEncoder::with_frame_info(frame, out)))
            }
            Compression::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(out, level)?;
                zstd_parameters(level).try_for_each(|parameter| encoder.set_parameter(parameter))?;
                Self::Zstd(Box::new(encoder))
            }
        })
    }

    /// Ends, and gives the writer back.
    /// # Errors  What the writer says.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Self::None(out) => Ok(out),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Snappy(encoder) => encoder.finish(),
            Self::Lz4(encoder) => Ok(encoder.finish()?),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

fn zstd_parameters(level: i32) -> impl Iterator<Item = CParameter> {
    let tables = (level > ZSTD_SMALL_LEVEL_MAX)
        .then_some([CParameter::HashLog(ZSTD_WINDOW_BITS), CParameter::ChainLog(ZSTD_WINDOW_BITS)]);
    std::iter::once(CParameter::WindowLog(ZSTD_WINDOW_BITS)).chain(tables.into_iter().flatten())
}

fn gzip_level(level: i32) -> flate2::Compression {
    u32::try_from(level).map_or_else(|_| flate2::Compression::default(), |level| flate2::Compression::new(level.min(9)))
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::None(out) => out.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Snappy(encoder) => encoder.write(bytes),
            Self::Lz4(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    /// Does nothing: what is flushed early is compressed worse.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zstd_takes_no_more_memory_than_is_said_at_any_level() {
        let text: Vec<u8> = (0..4 << 20).map(|index: u32| (index.wrapping_mul(2_654_435_761) >> 20) as u8).collect();
        for level in [-5, 1, 3, 4, 9, 12, 16, 19, 22] {
            let mut context = zstd::zstd_safe::CCtx::create();
            for parameter in std::iter::once(CParameter::CompressionLevel(level)).chain(zstd_parameters(level)) {
                context.set_parameter(parameter).unwrap();
            }
            let mut out = vec![0; 5 << 20];
            let mut output = zstd::zstd_safe::OutBuffer::around(&mut out[..]);
            let mut input = zstd::zstd_safe::InBuffer::around(&text);
            context.compress_stream(&mut output, &mut input).unwrap();
            let (held, said) = (context.sizeof(), Compression::Zstd.compressor_bytes(level));
            assert!(held <= said, "level {level}: {held} > {said}");
        }
    }
}
