//! Opening a spool, after whatever happened to it.
//!
//! 1. Take the lock, so that nobody else writes.
//! 2. Read the cursor and the block of every segment. One that names another destination or another format stops it all,
//!    before anything was touched. Without a sound cursor everything comes again; without a sound block, a segment's records
//!    still tell their ordinals.
//! 3. Walk through the last segment, which is the only one that a crash can tear, and cut it behind its last whole record.
//!    Whole records behind a hole are kept: a disk may write the second of two pages first. Sync it: if only the process
//!    died, what it appended last is there and may not be durable.
//! 4. If lines were synced behind what is found now, they are lost; they are counted.
//!
//! The other segments are checked while they are read, so that opening costs no more than reading one segment.

use std::collections::VecDeque;
use std::fs::TryLockError;
use std::io;
use std::path::Path;

use super::records::{Records, Unreadable};
use super::{Position, Reader, Segment, Spool};
use crate::cursor::{Checkpoint, Cursor};
use crate::error::Error;
use crate::figures::{Figures, Loss};
use crate::format::{
    BLOCK_BYTES, Block, BlockKind, IDENTITY_BYTES_MAX, RecordHeader, segment_name, segment_sequence,
};
use crate::gaps::Gaps;
use crate::limits::{Limits, UnixSeconds};
use crate::storage::{Directory, Disk, OpenFile};

const LOCK_NAME: &str = "lock";

impl Spool {
    /// Opens the spool in the directory at `path`, which is made if need be. `identity` is the destination's UID: a directory
    /// belongs to the one that used it first.
    ///
    /// # Errors
    /// [`Error::Locked`] while another process has it, [`Error::OtherIdentity`] and [`Error::OtherVersion`] if it is not ours
    /// to touch, [`Error::Io`] if it cannot be read or written. Nothing is lost by any of these; try again later.
    pub fn open(
        path: &Path,
        identity: &str,
        limits: Limits,
        now: UnixSeconds,
    ) -> Result<Self, Error> {
        let directory = Disk::new(path).map_err(|source| Error::Io {
            operation: "make",
            path: path.to_owned(),
            source,
        })?;
        Self::open_in(directory, identity, limits, now)
    }
}

impl<D: Directory> Spool<D> {
    /// Like [`Spool::open`], in any directory.
    ///
    /// # Errors
    /// As there.
    pub fn open_in(
        directory: D,
        identity: &str,
        limits: Limits,
        now: UnixSeconds,
    ) -> Result<Self, Error> {
        if !(1..=IDENTITY_BYTES_MAX).contains(&identity.len()) {
            return Err(Error::Identity {
                identity: identity.to_owned(),
            });
        }
        let lock = directory.lock(LOCK_NAME).map_err(|error| match error {
            TryLockError::WouldBlock => Error::Locked {
                path: directory.path().to_owned(),
            },
            TryLockError::Error(error) => Error::io(&directory, "lock", LOCK_NAME)(error),
        })?;
        let cursor = Cursor::load(&directory, identity)?;
        let found = Found::read_all(&directory, identity)?;
        let tail = Tail::cut(&directory, identity, &found)?;
        let Checkpoint { front, synced_line } = cursor.stored().unwrap_or_else(|| Checkpoint {
            front: beginning(&found),
            synced_line: 0,
        });
        let line_after = tail.next_line.max(front.line);
        let next_line = line_after.max(synced_line);
        let last_sequence = found.last().map_or(0, |segment| segment.sequence);
        let segments = in_order(
            &found,
            &tail,
            Start {
                line: next_line,
                began: now,
            },
        );
        let mut spool = Self {
            directory,
            identity: identity.into(),
            limits,
            now,
            cursor,
            bytes: segments.iter().map(|segment| segment.end).sum(),
            segments,
            next_sequence: last_sequence.max(front.segment) + 1,
            next_line,
            synced_line: next_line,
            last_written: tail.written.unwrap_or(now),
            has_unsynced_names: true,
            front,
            reader: Reader::new(front),
            gaps: Gaps::default(),
            figures: Figures {
                recovered: next_line - front.line,
                damaged_bytes: tail.cut_bytes,
                ..Figures::default()
            },
            unreported: None,
            _lock: lock,
        };
        let lost = spool.gaps.add(line_after, next_line);
        spool.figures.drop_lines(Loss::Damaged, lost);
        Ok(spool)
    }
}

// The position before everything that is there.
fn beginning(found: &[Found]) -> Position {
    let sequence = found.first().map_or(0, |segment| segment.sequence);
    let start = found.iter().find_map(|segment| segment.start);
    let line = start.map_or(0, |start| start.line);
    Position::new(sequence, BLOCK_BYTES as u64, line)
}

// What is unknown of a segment whose block is damaged and that has no sound record is that of the next.
fn in_order<F>(found: &[Found], tail: &Tail, mut next: Start) -> VecDeque<Segment<F>> {
    let mut segments = VecDeque::with_capacity(found.len());
    for segment in found.iter().rev() {
        next = segment.start.unwrap_or(next);
        let is_last = segments.is_empty();
        segments.push_front(Segment {
            sequence: segment.sequence,
            first_line: next.line,
            began: next.began,
            end: if is_last { tail.end } else { segment.end },
            writer: None,
            is_dirty: false,
        });
    }
    segments
}

// A segment's file.
struct Found {
    sequence: u64,
    end: u64,
    // `None` if nothing in it is sound.
    start: Option<Start>,
}

#[derive(Clone, Copy)]
struct Start {
    line: u64,
    began: UnixSeconds,
}

impl Found {
    // All of them, in order.
    fn read_all<D: Directory>(directory: &D, identity: &str) -> Result<Vec<Self>, Error> {
        let names = directory.names();
        let names = names.map_err(|error| Error::directory(directory, "read", error))?;
        let sequences = names.iter().filter_map(|name| segment_sequence(name));
        let found: Result<Vec<_>, Error> = sequences
            .map(|sequence| Self::read(directory, identity, sequence))
            .collect();
        let mut found = found?;
        found.sort_unstable_by_key(|segment| segment.sequence);
        Ok(found)
    }

    fn read<D: Directory>(directory: &D, identity: &str, sequence: u64) -> Result<Self, Error> {
        let name = segment_name(sequence);
        let file = directory.open(&name);
        let file = file.map_err(Error::io(directory, "open", &name))?;
        let end = file.length().map_err(Error::io(directory, "read", &name))?;
        let mut block = [0; BLOCK_BYTES];
        file.read_at(&mut block, 0)
            .map_err(Error::io(directory, "read", &name))?;
        let block = Block::decode(BlockKind::Segment, &block, identity);
        let start = match block.ours(directory, &name, identity)? {
            Some([named, line, began, ..]) if named == sequence => Some(Start {
                line,
                began: UnixSeconds(began),
            }),
            Some(_) | None => {
                let records = Records {
                    file: &file,
                    identity,
                    sequence,
                    end,
                };
                let header = first_header(&records);
                let header = header.map_err(Error::io(directory, "read", &name))?;
                header.map(|header| Start {
                    line: header.first_line,
                    began: header.written,
                })
            }
        };
        Ok(Self {
            sequence,
            end,
            start,
        })
    }

    // The last record whose batch is as it was written, and where it ends.
    fn last_record<D: Directory>(
        &self,
        directory: &D,
        identity: &str,
    ) -> Result<Option<(u64, RecordHeader)>, Error> {
        let name = segment_name(self.sequence);
        let file = directory.open(&name);
        let file = file.map_err(Error::io(directory, "open", &name))?;
        let records = Records {
            file: &file,
            identity,
            sequence: self.sequence,
            end: self.end,
        };
        last_record(&records).map_err(Error::io(directory, "read", &name))
    }
}

// How what is there ends.
#[derive(Default)]
struct Tail {
    // The last segment's end.
    end: u64,
    next_line: u64,
    written: Option<UnixSeconds>,
    cut_bytes: u64,
}

impl Tail {
    // Finds it, cuts the last file there and makes that durable.
    fn cut<D: Directory>(directory: &D, identity: &str, found: &[Found]) -> Result<Self, Error> {
        let mut tail = Self::default();
        for (i, segment) in found.iter().rev().enumerate() {
            let last = segment.last_record(directory, identity)?;
            if i == 0 {
                tail.end = last.map_or(BLOCK_BYTES as u64, |(end, _)| end);
                tail.end = tail.end.min(segment.end);
                tail.cut_bytes = segment.end - tail.end;
            }
            if let Some((_, header)) = last {
                tail.next_line = header.next_line();
                tail.written = Some(header.written);
                break;
            }
            if let Some(start) = segment.start {
                tail.next_line = start.line;
                break;
            }
            // Nothing was to be found in here: the one before knows more.
        }
        if let Some(last) = found.last() {
            let name = segment_name(last.sequence);
            let settled = directory.edit(&name).and_then(|file| {
                if tail.cut_bytes > 0 {
                    file.set_len(tail.end)?;
                }
                file.sync()
            });
            settled.map_err(Error::io(directory, "cut", &name))?;
        }
        Ok(tail)
    }
}

fn first_header<F: OpenFile>(records: &Records<'_, F>) -> io::Result<Option<RecordHeader>> {
    match records.find(BLOCK_BYTES as u64, Unreadable::Fail)? {
        Some(offset) => records.header(offset),
        None => Ok(None),
    }
}

fn last_record<F: OpenFile>(records: &Records<'_, F>) -> io::Result<Option<(u64, RecordHeader)>> {
    let mut last = None;
    let mut offset = BLOCK_BYTES as u64;
    let mut batch = Vec::new();
    while offset < records.end {
        match records.header(offset)? {
            Some(header) => {
                batch.clear();
                let is_whole = records.batch(offset, &header, &mut batch)?;
                offset += header.record_bytes();
                if is_whole {
                    last = Some((offset, header));
                }
            }
            None => match records.find(offset + 1, Unreadable::Fail)? {
                Some(next) => offset = next,
                None => break,
            },
        }
    }
    Ok(last)
}
