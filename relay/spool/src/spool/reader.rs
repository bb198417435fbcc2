//! Reading: whole records in order, around whatever damage there is.

use std::io;

use super::records::{Records, Unreadable};
use super::{Position, Spool};
use crate::error::Error;
use crate::figures::Loss;
use crate::format::{BLOCK_BYTES, RecordHeader, segment_name};
use crate::storage::{Directory, OpenFile};

/// What was read: the caller has its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Whole lines, each with its newline.
    pub lines: u64,
    /// Where it ends. Acknowledging this says that all of it need not come again.
    pub end: Position,
}

/// Where reading is.
#[derive(Debug)]
pub(super) struct Reader<F> {
    at: Position,
    // The segment that was read last.
    file: Option<(u64, F)>,
    // Reading failed here. If it does again, there may be a way around.
    failed_at: Option<Position>,
    // Damage before it was counted, in an earlier pass.
    counted_to: Position,
}

impl<F> Reader<F> {
    pub(super) fn new(at: Position) -> Self {
        Self {
            at,
            file: None,
            failed_at: None,
            counted_to: at,
        }
    }

    pub(super) fn at(&self) -> Position {
        self.at
    }

    /// Lets go of a segment's file, if it was the one that was read last.
    pub(super) fn close(&mut self, segment: u64) {
        self.file.take_if(|(open, _)| *open == segment);
    }

    pub(super) fn advance(&mut self, to: Position) {
        // Where damage was skipped, reading may be ahead in the file and not have seen an ordinal since.
        let line = self.at.line.max(to.line);
        self.at = Position {
            line,
            ..self.at.max(to)
        };
    }
}

impl<D: Directory> Spool<D> {
    /// Puts the next lines into `into`, whose content is replaced: as many whole batches as fit into `bytes_max` bytes, and
    /// at least one. `None` means that nothing more waits for now. What was read stays on disk until it is acknowledged.
    ///
    /// Damaged records are skipped and counted.
    ///
    /// # Errors
    /// Nothing was read and nothing skipped; the next call tries again. If the same place fails then, but a later one does
    /// not, what lies between is skipped and counted as damaged.
    pub fn read(&mut self, into: &mut Vec<u8>, bytes_max: usize) -> Result<Option<Batch>, Error> {
        into.clear();
        let mut lines = 0;
        let mut end = self.reader.at;
        loop {
            match self.read_record(into, bytes_max) {
                Ok(Some(header)) => {
                    lines += u64::from(header.lines);
                    end = self.reader.at;
                }
                Ok(None) => break,
                // It comes again with the next call.
                Err(_) if lines > 0 => break,
                Err(error) => {
                    self.reader.failed_at = Some(self.reader.at);
                    return Err(error);
                }
            }
        }
        Ok((lines > 0).then_some(Batch { lines, end }))
    }

    /// Goes back to what was not acknowledged yet: it is read again.
    pub fn rewind(&mut self) {
        self.reader.at = self.front;
    }

    // The next sound record, if there is one and `into`, unless it is empty, has room for it.
    fn read_record(
        &mut self,
        into: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<Option<RecordHeader>, Error> {
        loop {
            let Some((segment, end)) = self.segment_to_read() else {
                // Whatever is missing will not come any more.
                self.lose_lines_before(self.next_line);
                return Ok(None);
            };
            let name = segment_name(segment);
            if self.reader.file.as_ref().map(|(open, _)| *open) != Some(segment) {
                match self.directory.open(&name) {
                    Ok(file) => self.reader.file = Some((segment, file)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        self.give_up_on(segment);
                        self.skip_to(end);
                        continue;
                    }
                    Err(error) => return Err(Error::io(&self.directory, "open", &name)(error)),
                }
            }
            match self.read_here(end, into, bytes_max) {
                Ok(Here::Record(header)) => {
                    self.lose_lines_before(header.first_line);
                    self.reader.at.offset += header.record_bytes();
                    self.reader.at.line = self.reader.at.line.max(header.next_line());
                    self.reader.at.written = header.written;
                    // Only where somebody mixed files of different times: more than was expected.
                    let more = self.reader.at.line.saturating_sub(self.next_line);
                    self.next_line += more;
                    self.figures.recovered += more;
                    return Ok(Some(header));
                }
                Ok(Here::NoRoom) => return Ok(None),
                Ok(Here::Damage { end }) => self.skip_to(end),
                Err(error) => return Err(Error::io(&self.directory, "read", &name)(error)),
            }
        }
    }

    // The segment that the next record is in, and its end; moves on to its start if need be.
    fn segment_to_read(&mut self) -> Option<(u64, u64)> {
        let at = &mut self.reader.at;
        let first = self
            .segments
            .partition_point(|segment| segment.sequence < at.segment);
        for segment in self.segments.range(first..) {
            if segment.sequence > at.segment {
                at.segment = segment.sequence;
                at.offset = 0;
            }
            at.offset = at.offset.max(BLOCK_BYTES as u64);
            if at.offset < segment.end {
                return Some((segment.sequence, segment.end));
            }
        }
        None
    }

    fn read_here(&self, end: u64, into: &mut Vec<u8>, bytes_max: usize) -> io::Result<Here> {
        let (sequence, file) = self.reader.file.as_ref().expect("it was opened just now");
        let offset = self.reader.at.offset;
        let records = Records {
            file,
            identity: &self.identity,
            sequence: *sequence,
            end,
        };
        match look(&records, offset, into, bytes_max) {
            Err(error) if self.reader.failed_at == Some(self.reader.at) => {
                if let Ok(here) = look(&records, offset, into, bytes_max) {
                    return Ok(here);
                }
                // If nothing can be read anywhere, it is not this place that is bad.
                match records.find(offset + 1, Unreadable::Skip)? {
                    Some(next) => Ok(Here::Damage { end: next }),
                    None if self.is_next_readable(*sequence) => Ok(Here::Damage { end }),
                    None => Err(error),
                }
            }
            result => result,
        }
    }

    fn is_next_readable(&self, sequence: u64) -> bool {
        let next = self.segments.iter().find(|s| s.sequence > sequence);
        next.is_some_and(|segment| {
            let file = self.directory.open(&segment_name(segment.sequence));
            let read = file.and_then(|file| {
                let mut block = [0; BLOCK_BYTES];
                file.read_at(&mut block, 0)
            });
            read.is_ok()
        })
    }

    // The file of this segment is gone. What more it took would be gone, too.
    fn give_up_on(&mut self, sequence: u64) {
        if let Some(segment) = self.segments.back_mut()
            && segment.sequence == sequence
        {
            segment.writer = None;
        }
    }

    // Moves on within the segment, and counts the bytes unless an earlier pass did.
    fn skip_to(&mut self, offset: u64) {
        let from = self.reader.at;
        self.reader.at.offset = offset;
        if (from.segment, from.offset)
            >= (
                self.reader.counted_to.segment,
                self.reader.counted_to.offset,
            )
        {
            self.figures.damaged_bytes += offset - from.offset;
            self.reader.counted_to = self.reader.at;
        }
    }

    // Lines from where reading is up to this ordinal are not there.
    fn lose_lines_before(&mut self, line: u64) {
        let lines = self.gaps.add(self.reader.at.line, line);
        self.figures.drop_lines(Loss::Damaged, lines);
        self.reader.at.line = self.reader.at.line.max(line);
    }
}

// What is where reading is.
enum Here {
    Record(RecordHeader),
    // A record that the caller has no room for.
    NoRoom,
    // Nothing sound before `end`.
    Damage { end: u64 },
}

fn look<F: OpenFile>(
    records: &Records<'_, F>,
    offset: u64,
    into: &mut Vec<u8>,
    bytes_max: usize,
) -> io::Result<Here> {
    let Some(header) = records.header(offset)? else {
        let next = records.find(offset + 1, Unreadable::Fail)?;
        let end = next.unwrap_or(records.end);
        return Ok(Here::Damage { end });
    };
    if !into.is_empty() && into.len() + header.batch_bytes as usize > bytes_max {
        return Ok(Here::NoRoom);
    }
    if !records.batch(offset, &header, into)? {
        let end = offset + header.record_bytes();
        return Ok(Here::Damage { end });
    }
    Ok(Here::Record(header))
}
