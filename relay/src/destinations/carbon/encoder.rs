//! What lines become on the wire, where they do not go as they are: frames of points, or a compressed stream.

use std::collections::VecDeque;
use std::io;

use relay_engine::{CarbonForm, Format};
use relay_wire::{Compressor, pickle, protobuf};

use crate::destinations::queue::Chunk;
use crate::wire::compression;

/// How much is encoded before it is written, in bytes; one frame more, at most.
const PIECE_BYTES: usize = 256 << 10;

/// Lines that are compressed together, in bytes: the peer can read them when it has them all.
const COMPRESSED_LINES_BYTES: usize = 64 << 10;

/// One connection's encoder.
pub(super) struct Encoder {
    into: Into,
    // What was encoded last, and how much of it was written.
    piece: Vec<u8>,
    written: usize,
    // The parts that were not wholly written, and those that were and may be under way.
    parts: VecDeque<Part>,
    // How many of the parts were wholly written.
    whole: usize,
    // Where in the stream the piece begins, in bytes.
    begin: u64,
    has_ended: bool,
}

enum Into {
    Frames(fn(&[u8], &mut Vec<u8>) -> usize),
    Stream(Box<Compressor>),
}

// What the peer reads whole or not at all.
struct Part {
    // Where it ends in the stream.
    end: u64,
    // The lines in it, in bytes.
    lines: usize,
}

impl Encoder {
    /// `None`: lines go as they are.
    ///
    /// # Errors
    /// There is no memory for it.
    pub(super) fn new(form: CarbonForm) -> io::Result<Option<Self>> {
        let into = match form {
            CarbonForm::Plaintext | CarbonForm::Datagrams => return Ok(None),
            CarbonForm::Framed(Format::Pickle) => Into::Frames(pickle::encode),
            CarbonForm::Framed(Format::Protobuf) => Into::Frames(protobuf::encode),
            CarbonForm::Compressed(form) => {
                Into::Stream(Box::new(Compressor::new(compression(form))?))
            }
        };
        Ok(Some(Self {
            into,
            piece: Vec::new(),
            written: 0,
            parts: VecDeque::new(),
            whole: 0,
            begin: 0,
            has_ended: false,
        }))
    }

    /// What is to be written. When all of it was, more is encoded of what is in hand: whole lines, which begin `skip` bytes
    /// within the first chunk.
    ///
    /// # Errors
    /// There is no memory for it.
    pub(super) fn fill(&mut self, chunks: &VecDeque<Chunk>, skip: usize) -> io::Result<&[u8]> {
        if self.written == self.piece.len() {
            self.begin += self.piece.len() as u64;
            self.piece.clear();
            self.written = 0;
            let mut skip = skip;
            for chunk in chunks {
                self.encode(&chunk.bytes[skip..])?;
                skip = 0;
                if self.piece.len() >= PIECE_BYTES {
                    break;
                }
            }
        }
        Ok(self.rest())
    }

    // As much as there is room for.
    fn encode(&mut self, mut lines: &[u8]) -> io::Result<()> {
        while !lines.is_empty() && self.piece.len() < PIECE_BYTES {
            let taken = match &mut self.into {
                Into::Frames(encode) => encode(lines, &mut self.piece),
                Into::Stream(compressor) => {
                    let taken = whole_lines(lines, COMPRESSED_LINES_BYTES);
                    compressor.write(&lines[..taken], &mut self.piece)?;
                    taken
                }
            };
            self.parts.push_back(Part {
                end: self.begin + self.piece.len() as u64,
                lines: taken,
            });
            lines = &lines[taken..];
        }
        Ok(())
    }

    /// What was encoded and not yet written.
    pub(super) fn rest(&self) -> &[u8] {
        &self.piece[self.written..]
    }

    fn position(&self) -> u64 {
        self.begin + self.written as u64
    }

    /// Counts bytes that were written. Returns how many bytes of lines are wholly written by that.
    pub(super) fn advance(&mut self, bytes: usize) -> usize {
        self.written += bytes;
        let mut lines = 0;
        while let Some(part) = self.parts.get(self.whole)
            && part.end <= self.position()
        {
            lines += part.lines;
            self.whole += 1;
        }
        lines
    }

    /// How many bytes of lines the peer's kernel has not acknowledged, where it has not acknowledged so many of the stream.
    pub(super) fn unacknowledged(&mut self, bytes: usize) -> usize {
        let acknowledged = self.position().saturating_sub(bytes as u64);
        while self.whole > 0
            && self
                .parts
                .front()
                .is_some_and(|part| part.end <= acknowledged)
        {
            self.parts.pop_front();
            self.whole -= 1;
        }
        let under_way = self.parts.iter().take(self.whole);
        under_way.map(|part| part.lines).sum()
    }

    /// What the stream ends in, once. Nothing is to be encoded after that.
    ///
    /// # Errors
    /// There is no memory for it.
    pub(super) fn end(&mut self) -> io::Result<Vec<u8>> {
        let mut end = Vec::new();
        match &mut self.into {
            Into::Stream(compressor) if !self.has_ended => compressor.finish(&mut end)?,
            Into::Stream(_) | Into::Frames(_) => {}
        }
        self.has_ended = true;
        Ok(end)
    }
}

// How much of `lines` is whole lines that fit; the first one in any case.
fn whole_lines(lines: &[u8], bytes_max: usize) -> usize {
    let room = &lines[..lines.len().min(bytes_max)];
    let last = memchr::memrchr(b'\n', room).or_else(|| memchr::memchr(b'\n', lines));
    last.map_or(lines.len(), |newline| newline + 1)
}
