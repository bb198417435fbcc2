//! Finding the records in one segment's file.

use std::io;

use crate::format::{RECORD_HEADER_BYTES, RecordHeader, RecordSeed};
use crate::storage::OpenFile;

/// How much is searched at a time, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// The same where the disk gives no answer in places: what is given up at a time.
const SECTOR_BYTES: usize = 4096;

/// What to do about bytes that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// Give up: they may be readable later.
    Fail,
    /// Search on behind them.
    Skip,
}

/// A segment's file up to `end`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Records<'a, F> {
    pub(super) file: &'a F,
    pub(super) identity: &'a str,
    pub(super) sequence: u64,
    pub(super) end: u64,
}

impl<F: OpenFile> Records<'_, F> {
    /// The header at `offset`, if it is sound and its record ends in time.
    pub(super) fn header(&self, offset: u64) -> io::Result<Option<RecordHeader>> {
        let mut header = [0; RECORD_HEADER_BYTES];
        let bytes_left = self.end.saturating_sub(offset);
        if bytes_left < header.len() as u64
            || self.file.read_at(&mut header, offset)? < header.len()
        {
            return Ok(None);
        }
        let seed = RecordSeed::new(self.identity, self.sequence, offset);
        let header = RecordHeader::decode(&header, seed);
        Ok(header.filter(|header| header.record_bytes() <= bytes_left))
    }

    /// Appends the batch of the record at `offset` to `into`. If it is not the one that was written, returns `false` and
    /// appends nothing.
    pub(super) fn batch(
        &self,
        offset: u64,
        header: &RecordHeader,
        into: &mut Vec<u8>,
    ) -> io::Result<bool> {
        let start = into.len();
        into.resize(start + header.batch_bytes as usize, 0);
        let batch = &mut into[start..];
        let filled = self
            .file
            .read_at(batch, offset + RECORD_HEADER_BYTES as u64);
        let is_whole = filled.map(|bytes| header.fits(&batch[..bytes]));
        if !matches!(is_whole, Ok(true)) {
            into.truncate(start);
        }
        is_whole
    }

    /// Where the first sound header at or after `offset` is.
    pub(super) fn find(&self, mut offset: u64, policy: Unreadable) -> io::Result<Option<u64>> {
        let mut chunk = match policy {
            Unreadable::Fail => vec![0; CHUNK_BYTES],
            Unreadable::Skip => vec![0; SECTOR_BYTES],
        };
        while offset < self.end {
            let length = chunk.len().min((self.end - offset) as usize);
            let filled = match self.file.read_at(&mut chunk[..length], offset) {
                Ok(filled) => filled,
                Err(_) if policy == Unreadable::Skip => {
                    offset += length as u64;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut from = 0;
            while let Some(at) = RecordHeader::find_magic(&chunk[from..filled]) {
                let candidate = offset + (from + at) as u64;
                match self.header(candidate) {
                    Ok(Some(_)) => return Ok(Some(candidate)),
                    Ok(None) => {}
                    Err(_) if policy == Unreadable::Skip => {}
                    Err(error) => return Err(error),
                }
                from += at + 1;
            }
            if filled < length || offset + length as u64 == self.end {
                return Ok(None);
            }
            // The magic may begin in this chunk and end in the next.
            offset += (length - (RECORD_HEADER_BYTES - 1)) as u64;
        }
        Ok(None)
    }
}
