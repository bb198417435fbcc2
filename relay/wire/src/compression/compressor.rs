//! Streams on their way out.

use std::io::{self, Write};

use lz4_flex::frame::FrameEncoder;

use super::Compression;

/// A stream that is being compressed.
pub struct Compressor(Encoder);

enum Encoder {
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Lz4(Box<FrameEncoder<Vec<u8>>>),
    Snappy(Box<snap::write::FrameEncoder<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

/// What Zstandard takes for fast and good enough.
const ZSTD_LEVEL: i32 = 1;

impl Compressor {
    /// A new stream.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn new(compression: Compression) -> io::Result<Self> {
        Ok(Self(match compression {
            Compression::Gzip => {
                let level = flate2::Compression::fast();
                Encoder::Gzip(flate2::write::GzEncoder::new(Vec::new(), level))
            }
            Compression::Lz4 => Encoder::Lz4(Box::new(FrameEncoder::new(Vec::new()))),
            Compression::Snappy => {
                Encoder::Snappy(Box::new(snap::write::FrameEncoder::new(Vec::new())))
            }
            Compression::Zstd => {
                Encoder::Zstd(zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?)
            }
        }))
    }

    /// Appends what `bytes` become to `out`. Who reads that far gets all of them.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn write(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.0 {
            Encoder::Gzip(encoder) => write(encoder, bytes)?,
            // In a frame of its own, as carbon-c-relay does it: what it has no room for it reads only while it has something
            // else to read, such as a frame's end.
            Encoder::Lz4(encoder) => {
                encoder.write_all(bytes)?;
                encoder.try_finish().map_err(io::Error::other)?;
            }
            Encoder::Snappy(encoder) => write(encoder, bytes)?,
            Encoder::Zstd(encoder) => write(encoder, bytes)?,
        }
        out.append(self.written());
        Ok(())
    }

    /// Appends what the stream ends in to `out`. Nothing is to be written after that.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.0 {
            Encoder::Gzip(encoder) => encoder.try_finish()?,
            // They have no end.
            Encoder::Lz4(_) | Encoder::Snappy(_) => {}
            Encoder::Zstd(encoder) => encoder.do_finish()?,
        }
        out.append(self.written());
        Ok(())
    }

    fn written(&mut self) -> &mut Vec<u8> {
        match &mut self.0 {
            Encoder::Gzip(encoder) => encoder.get_mut(),
            Encoder::Lz4(encoder) => encoder.get_mut(),
            Encoder::Snappy(encoder) => encoder.get_mut(),
            Encoder::Zstd(encoder) => encoder.get_mut(),
        }
    }
}

fn write(encoder: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    encoder.write_all(bytes)?;
    encoder.flush()
}
