//! What travels of a snapshot to one who has another: [`Delta`] on the operator's side, [`Assembly`] on the relay's.
//!
//! A snapshot's encoding is a row of records, one for each Route, Destination and so on: the fields of the outermost message.
//! Those that the other one has somewhere are copied from there, neighbours together; the rest is data. Nothing here knows what
//! is in a record, and what comes of it is judged by its digest, as a snapshot that came whole is.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use prost::encoding::{WireType, decode_key, decode_varint};

use crate::{Copied, Offer, Part, Parts, SNAPSHOT_BYTES_MAX, Version, part};

/// Data in one message, in bytes.
const DATA_BYTES_MAX: usize = 256 << 10;
/// Parts in one message.
const PARTS_MAX: usize = 4096;

/// A snapshot, in messages.
#[derive(Debug)]
pub struct Delta {
    version: Version,
    base: Option<Version>,
    size: usize,
    messages: Vec<Vec<Part>>,
}

impl Delta {
    /// What to send of `snapshot` to one who has `base`.
    pub fn new(snapshot: (Version, &Bytes), base: Option<(Version, &Bytes)>) -> Self {
        let (version, encoded) = snapshot;
        let spans = match base {
            Some((_, base)) => spans(base, encoded),
            None => vec![Span::Data(0..encoded.len())],
        };
        Self {
            version,
            base: base.map(|(version, _)| version),
            size: encoded.len(),
            messages: messages(encoded, spans),
        }
    }

    /// The message that begins it.
    pub fn offer(&self, nonce: u64) -> Offer {
        Offer {
            nonce,
            version: self.version.as_bytes().to_vec(),
            size: self.size as u64,
            base: self
                .base
                .map(|base| base.as_bytes().to_vec())
                .unwrap_or_default(),
            parts: self.messages.first().cloned().unwrap_or_default(),
        }
    }

    /// What follows, from 1 on; `None` at the end.
    pub fn more(&self, index: usize) -> Option<Parts> {
        let parts = self.messages.get(index)?.clone();
        Some(Parts { parts })
    }
}

// A piece of what is to be made.
#[derive(Debug)]
enum Span {
    /// Of the base.
    Copy(Range<usize>),
    /// Of the new one.
    Data(Range<usize>),
}

fn spans(base: &[u8], encoded: &[u8]) -> Vec<Span> {
    let known: HashMap<&[u8], usize> = records(base)
        .map(|range| (&base[range.clone()], range.start))
        .collect();
    let mut spans = Vec::new();
    for range in records(encoded) {
        let record = &encoded[range.clone()];
        // Best where the last copy ended, so that neighbours stay together.
        let next = match spans.last() {
            Some(Span::Copy(last)) if base[last.end..].starts_with(record) => Some(last.end),
            _ => known.get(record).copied(),
        };
        match (spans.last_mut(), next) {
            (Some(Span::Copy(last)), Some(at)) if last.end == at => last.end += record.len(),
            (_, Some(at)) => spans.push(Span::Copy(at..at + record.len())),
            (Some(Span::Data(last)), None) => last.end = range.end,
            (_, None) => spans.push(Span::Data(range)),
        }
    }
    spans
}

// Each field of the outermost message; what cannot be read as one is a record of its own.
fn records(encoded: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let rest = encoded.get(start..).filter(|rest| !rest.is_empty())?;
        let length = record_length(rest).unwrap_or(rest.len());
        let range = start..start + length;
        start = range.end;
        Some(range)
    })
}

fn record_length(encoded: &[u8]) -> Option<usize> {
    let mut rest = encoded;
    let (_, wire_type) = decode_key(&mut rest).ok()?;
    let body = match wire_type {
        WireType::Varint => {
            decode_varint(&mut rest).ok()?;
            0
        }
        WireType::SixtyFourBit => 8,
        WireType::ThirtyTwoBit => 4,
        WireType::LengthDelimited => usize::try_from(decode_varint(&mut rest).ok()?).ok()?,
        WireType::StartGroup | WireType::EndGroup => return None,
    };
    let head = encoded.len() - rest.len();
    head.checked_add(body)
        .filter(|length| *length <= encoded.len())
}

fn messages(encoded: &Bytes, spans: Vec<Span>) -> Vec<Vec<Part>> {
    let (mut messages, mut parts, mut bytes) = (Vec::new(), Vec::new(), 0);
    let mut add = |part, data_bytes: usize| {
        if parts.len() == PARTS_MAX || bytes + data_bytes > DATA_BYTES_MAX {
            messages.push(std::mem::take(&mut parts));
            bytes = 0;
        }
        bytes += data_bytes;
        parts.push(Part { part: Some(part) });
    };
    for span in spans {
        match span {
            Span::Copy(range) => {
                let copied = Copied {
                    offset: range.start as u64,
                    length: range.len() as u64,
                };
                add(part::Part::Copied(copied), 0);
            }
            Span::Data(range) => {
                for start in range.clone().step_by(DATA_BYTES_MAX) {
                    let end = range.end.min(start + DATA_BYTES_MAX);
                    add(part::Part::Data(encoded.slice(start..end)), end - start);
                }
            }
        }
    }
    messages.push(parts);
    messages
}

/// A snapshot that arrives.
#[derive(Debug)]
pub struct Assembly {
    nonce: u64,
    version: Vec<u8>,
    size: usize,
    base: Option<Bytes>,
    bytes: Vec<u8>,
}

/// Why what arrived makes no snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It is larger than any snapshot may be.
    #[error(
        "it says that it has {0} bytes, and {SNAPSHOT_BYTES_MAX} are the most: split the Relay's resources over several Relays"
    )]
    TooLarge(u64),
    /// It is to be copied from what is not here.
    #[error("it builds on a version that this relay does not run")]
    UnknownBase,
    /// A part is empty, or copies from beyond the end of the base.
    #[error("one of its parts is not there")]
    NoSuchPart,
    /// Its parts are more than it should have.
    #[error("its parts have more bytes than it says")]
    TooMuch,
    /// What came of it is not what it should be.
    #[error("its bytes are not those of its version: it was damaged on the way")]
    OtherVersion,
}

impl Assembly {
    /// Begins with an offer; `active` is what the relay runs.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(offer: Offer, active: Option<(Version, &Bytes)>) -> Result<Self, Damage> {
        let size = usize::try_from(offer.size).ok();
        let size = size.filter(|size| *size <= SNAPSHOT_BYTES_MAX);
        let base = match offer.base.as_slice() {
            [] => None,
            base => {
                let known = active.filter(|(version, _)| version.as_bytes() == base);
                Some(known.ok_or(Damage::UnknownBase)?.1.clone())
            }
        };
        let mut assembly = Self {
            nonce: offer.nonce,
            version: offer.version,
            size: size.ok_or(Damage::TooLarge(offer.size))?,
            base,
            bytes: Vec::new(),
        };
        assembly.add(offer.parts)?;
        Ok(assembly)
    }

    /// Adds what follows.
    ///
    /// # Errors
    /// It is not of this snapshot.
    pub fn add(&mut self, parts: Vec<Part>) -> Result<(), Damage> {
        for Part { part } in parts {
            let piece = match &part {
                None => return Err(Damage::NoSuchPart),
                Some(part::Part::Data(data)) => data.as_ref(),
                Some(part::Part::Copied(copied)) => {
                    slice(self.base.as_ref(), copied).ok_or(Damage::NoSuchPart)?
                }
            };
            if piece.is_empty() {
                return Err(Damage::NoSuchPart);
            }
            if piece.len() > self.size - self.bytes.len() {
                return Err(Damage::TooMuch);
            }
            self.bytes.extend_from_slice(piece);
        }
        Ok(())
    }

    /// Whether everything is there.
    pub fn is_complete(&self) -> bool {
        self.bytes.len() == self.size
    }

    /// What the offer is called in the answer: its nonce and version.
    pub fn name(&self) -> (u64, &[u8]) {
        (self.nonce, &self.version)
    }

    /// The encoded snapshot, once it is complete.
    ///
    /// # Errors
    /// It is not what the offer said.
    pub fn finish(self) -> Result<(Version, Bytes), Damage> {
        let version = Version::of(&self.bytes);
        match version.as_bytes() == self.version {
            true => Ok((version, self.bytes.into())),
            false => Err(Damage::OtherVersion),
        }
    }
}

fn slice<'a>(base: Option<&'a Bytes>, copied: &Copied) -> Option<&'a [u8]> {
    let start = usize::try_from(copied.offset).ok()?;
    let end = start.checked_add(usize::try_from(copied.length).ok()?)?;
    base?.get(start..end)
}

#[cfg(test)]
mod tests;
