//! Where blocks end in LZ4's and Snappy's formats. What is in them is up to the decoders.

use std::io;

/// A format in blocks.
#[derive(Debug)]
pub(super) enum Blocks {
    Lz4(Lz4),
    Snappy,
}

/// How far an LZ4 frame has come.
#[derive(Debug, Default)]
pub(super) struct Lz4 {
    // Within a frame, what its header says.
    frame: Option<Lz4Frame>,
}

#[derive(Clone, Copy, Debug)]
struct Lz4Frame {
    has_block_checksums: bool,
    has_content_checksum: bool,
}

/// The longest block of each, in bytes; LZ4's is what the format knows, Snappy's what it takes for 64 KiB that do not compress.
const LZ4_BLOCK_BYTES_MAX: usize = 4 << 20;
const SNAPPY_CHUNK_BYTES_MAX: usize = 80 << 10;

impl Blocks {
    /// How many of `bytes` are whole blocks, headers and trailers. They follow what was whole before.
    pub(super) fn whole(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut whole = 0;
        loop {
            let rest = &bytes[whole..];
            let length = match self {
                Self::Lz4(lz4) => lz4.next(rest)?,
                Self::Snappy => snappy_chunk(rest)?,
            };
            match length {
                Some(length) => whole += length,
                None => return Ok(whole),
            }
        }
    }

    pub(super) fn is_within_frame(&self) -> bool {
        match self {
            Self::Lz4(lz4) => lz4.frame.is_some(),
            Self::Snappy => false,
        }
    }
}

impl Lz4 {
    // The length of the header, block or trailer that comes next; `None`: it is not whole.
    fn next(&mut self, rest: &[u8]) -> io::Result<Option<usize>> {
        let Some(frame) = self.frame else {
            return Ok(self.begin(rest));
        };
        let Some(size) = rest.first_chunk().copied().map(u32::from_le_bytes) else {
            return Ok(None);
        };
        if size == 0 {
            let length = 4 + if frame.has_content_checksum { 4 } else { 0 };
            if rest.len() < length {
                return Ok(None);
            }
            self.frame = None;
            return Ok(Some(length));
        }
        // The highest bit says that the block is not compressed.
        let bytes = (size & 0x7fff_ffff) as usize;
        let checksum = if frame.has_block_checksums { 4 } else { 0 };
        let length = 4 + bounded(bytes, LZ4_BLOCK_BYTES_MAX)? + checksum;
        Ok((rest.len() >= length).then_some(length))
    }

    // Magic number, flags, the greatest size of blocks, perhaps the content's size and a dictionary's id, a checksum.
    fn begin(&mut self, rest: &[u8]) -> Option<usize> {
        let flags = *rest.get(4)?;
        let has = |bit: u8| flags & bit != 0;
        let content_size = if has(0x08) { 8 } else { 0 };
        let dictionary = if has(0x01) { 4 } else { 0 };
        let length = 4 + 2 + content_size + dictionary + 1;
        if rest.len() < length {
            return None;
        }
        self.frame = Some(Lz4Frame {
            has_block_checksums: has(0x10),
            has_content_checksum: has(0x04),
        });
        Some(length)
    }
}

// A type in one byte and a length in three.
fn snappy_chunk(rest: &[u8]) -> io::Result<Option<usize>> {
    let Some([_, low, middle, high]) = rest.first_chunk().copied() else {
        return Ok(None);
    };
    let bytes = u32::from_le_bytes([low, middle, high, 0]) as usize;
    let length = 4 + bounded(bytes, SNAPPY_CHUNK_BYTES_MAX)?;
    Ok((rest.len() >= length).then_some(length))
}

fn bounded(bytes: usize, bytes_max: usize) -> io::Result<usize> {
    if bytes > bytes_max {
        let error = format!("a block of {bytes} bytes is none");
        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
    }
    Ok(bytes)
}
