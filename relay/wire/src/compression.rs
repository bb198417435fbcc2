//! Streams that are compressed, as pieces of them come in.
//!
//! ```text
//! pieces ─▶ feed ─▶ Feed: as much as a decoder may see ─▶ decoder ─▶ read ─▶ bytes
//! ```
//!
//! The decoders of gzip and Zstandard can stop anywhere in what they read; those of LZ4 and Snappy only between whole blocks, so they
//! see nothing else ([`blocks`]).

mod blocks;
mod compressor;
mod gzip;

use std::io::{self, BufRead, Read};

use blocks::Blocks;
pub use compressor::Compressor;
use gzip::Gzip;

/// The window of a Zstandard frame, as a power of two: 8 MiB, which is what every decoder must have at least.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// A gzip stream.
    Gzip,
    /// LZ4 frames.
    Lz4,
    /// Snappy's framing format.
    Snappy,
    /// Zstandard frames.
    Zstd,
}

/// A stream that is being decompressed. It takes up to some MiB of memory, whatever comes.
pub struct Decompressor {
    decoder: Decoder,
    has_failed: bool,
}

enum Decoder {
    Gzip(Gzip),
    Lz4(Box<lz4_flex::frame::FrameDecoder<Feed>>),
    Snappy(Box<snap::read::FrameDecoder<Feed>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Feed>>),
}

impl Decompressor {
    /// The beginning of a stream.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn new(compression: Compression) -> io::Result<Self> {
        let decoder = match compression {
            Compression::Gzip => Decoder::Gzip(Gzip::new()),
            Compression::Lz4 => {
                let feed = Feed::of_blocks(Blocks::Lz4(blocks::Lz4::default()));
                Decoder::Lz4(Box::new(lz4_flex::frame::FrameDecoder::new(feed)))
            }
            Compression::Snappy => {
                let feed = Feed::of_blocks(Blocks::Snappy);
                Decoder::Snappy(Box::new(snap::read::FrameDecoder::new(feed)))
            }
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(Feed::default())?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Decoder::Zstd(Box::new(decoder))
            }
        };
        Ok(Self {
            decoder,
            has_failed: false,
        })
    }

    /// Whether there is something that nothing has come of: a block that is not whole, or all that follows a fault.
    pub fn has_rest(&mut self) -> bool {
        let feed = self.feed_mut();
        let is_fed = !feed.is_empty() || feed.is_cut();
        is_fed || self.has_failed
    }

    fn feed_mut(&mut self) -> &mut Feed {
        match &mut self.decoder {
            Decoder::Gzip(decoder) => &mut decoder.feed,
            Decoder::Lz4(decoder) => decoder.get_mut(),
            Decoder::Snappy(decoder) => decoder.get_mut(),
            Decoder::Zstd(decoder) => decoder.get_mut(),
        }
    }

    /// Takes in the next piece of the stream; an empty one is its end.
    ///
    /// # Errors
    /// It announces a block that is larger than blocks are.
    pub fn feed(&mut self, piece: &[u8]) -> io::Result<()> {
        let fed = self.feed_mut().push(piece);
        self.has_failed |= fed.is_err();
        fed
    }

    /// Decompresses what has been fed, as far as there is room in `bytes`, and returns how many bytes that were. 0: there is no
    /// more to come, as the stream ended in good order.
    ///
    /// # Errors
    /// `WouldBlock`: feed it first. `UnexpectedEof`: the stream was cut. Any other: it is not compressed so, or damaged.
    pub fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.try_read(bytes);
        let wants_more = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        self.has_failed |= read.as_ref().is_err_and(|error| !wants_more(error));
        read
    }

    fn try_read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match &mut self.decoder {
                Decoder::Gzip(decoder) => decoder.read(bytes),
                Decoder::Lz4(decoder) => decoder.read(bytes),
                Decoder::Snappy(decoder) => decoder.read(bytes),
                Decoder::Zstd(decoder) => decoder.read(bytes),
            };
            let feed = self.feed_mut();
            match read {
                // The end of a frame. There may be another one.
                Ok(0) if !bytes.is_empty() && !feed.is_empty() => {}
                Ok(0) if !bytes.is_empty() && !feed.has_ended => {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(0) if feed.is_cut() => return Err(io::ErrorKind::UnexpectedEof.into()),
                other => return other,
            }
        }
    }
}

/// What was fed and not yet read.
#[derive(Debug, Default)]
struct Feed {
    bytes: Vec<u8>,
    // How much of it was read.
    at: usize,
    // How much of it may be read.
    visible: usize,
    has_ended: bool,
    // Where blocks end, if only whole ones may be read.
    blocks: Option<Blocks>,
}

impl Feed {
    fn of_blocks(blocks: Blocks) -> Self {
        Self {
            blocks: Some(blocks),
            ..Self::default()
        }
    }

    fn push(&mut self, piece: &[u8]) -> io::Result<()> {
        self.has_ended |= piece.is_empty();
        self.bytes.drain(..self.at);
        self.visible -= self.at;
        self.at = 0;
        self.bytes.extend_from_slice(piece);
        self.visible = match &mut self.blocks {
            None => self.bytes.len(),
            Some(blocks) => {
                let rest = &self.bytes[self.visible..];
                self.visible + blocks.whole(rest)?
            }
        };
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.at == self.visible
    }

    fn unread(&self) -> &[u8] {
        &self.bytes[self.at..self.visible]
    }

    // Whether the stream ended within a block or a frame of blocks.
    fn is_cut(&self) -> bool {
        let is_within = self.blocks.as_ref().is_some_and(Blocks::is_within_frame);
        is_within || self.visible < self.bytes.len()
    }
}

impl BufRead for Feed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self.is_empty() && !self.has_ended {
            true => Err(io::ErrorKind::WouldBlock.into()),
            false => Ok(self.unread()),
        }
    }

    fn consume(&mut self, bytes: usize) {
        self.at = (self.at + bytes).min(self.visible);
    }
}

impl Read for Feed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
