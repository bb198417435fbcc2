//! One destination's spool, and the order in which it does things.
//!
//! Appending goes to the last segment, reading follows behind, and the front follows that: everything before the front is
//! acknowledged or dropped. A segment that the front has passed is done. Done segments are removed only after the cursor
//! says so on disk; thus a segment that is missing when a spool is opened was lost, and its lines can be counted.
//!
//! A segment is synced before the next one begins, so that a crash tears the last one only.

mod reader;
mod records;
mod recovery;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::VecDeque;
use std::io;

use crate::cursor::{Checkpoint, Cursor};
use crate::error::Error;
use crate::figures::{Figures, Loss};
use crate::format::{BLOCK_BYTES, RecordHeader, segment_name};
use crate::gaps::Gaps;
use crate::limits::{Limits, UnixSeconds};
use crate::storage::{Directory, Disk};
use reader::Reader;

pub use reader::Batch;

/// How far the time goes forward in one call of sync, in seconds. A clock that jumps ahead by a day and is set right within
/// minutes ages nothing out; after a real pause it takes minutes until lines are as old as they are.
const STEP_SECONDS_MAX: u64 = 60;

/// Where a record begins or ends. Positions mean something to the spool that gave them, until it is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    // The ordinal of the next line.
    pub(crate) line: u64,
    // When the line before it was written; 0 if that is not known.
    written: UnixSeconds,
}

impl Position {
    pub(crate) fn new(segment: u64, offset: u64, line: u64) -> Self {
        let written = UnixSeconds::default();
        Self {
            segment,
            offset,
            line,
            written,
        }
    }
}

/// What waits on disk for one destination. Dropping it syncs nothing.
#[derive(Debug)]
pub struct Spool<D: Directory = Disk> {
    directory: D,
    identity: Box<str>,
    limits: Limits,
    now: UnixSeconds,
    cursor: Cursor<D::File>,
    // In order. Those that are done come first and wait for their removal.
    segments: VecDeque<Segment<D::File>>,
    // The sum of their lengths.
    bytes: u64,
    next_sequence: u64,
    next_line: u64,
    synced_line: u64,
    last_written: UnixSeconds,
    // Segments were made or removed, and may not have been after a crash.
    has_unsynced_names: bool,
    front: Position,
    reader: Reader<D::File>,
    // Ordinals ahead of the front that no line will come for: the reader found none, or writing failed halfway.
    gaps: Gaps,
    // Only what counts is kept up to date in there.
    figures: Figures,
    // What went wrong in a call that had nothing to do with it.
    unreported: Option<Error>,
    _lock: D::Lock,
}

#[derive(Debug)]
struct Segment<F> {
    sequence: u64,
    first_line: u64,
    began: UnixSeconds,
    // Where the next record begins, or nothing more is; 0 as long as there is no block.
    end: u64,
    // Only the last segment has one, and only if this process began it.
    writer: Option<F>,
    // Something was written and not synced.
    is_dirty: bool,
}

impl<D: Directory> Spool<D> {
    /// Adds a batch: `lines` whole lines, each with its newline. It can be read at once; it outlives a crash after the next
    /// [`Spool::sync`].
    ///
    /// # Errors
    /// The batch was not taken and its lines are counted as dropped, as [`Loss::Full`], [`Loss::DiskFull`] or [`Loss::Io`];
    /// what was there before is not affected, and the next batch is tried anew. [`Error::Batch`] alone counts nothing.
    pub fn append(&mut self, batch: &[u8], lines: u64) -> Result<(), Error> {
        let bytes = batch.len();
        if !RecordHeader::is_batch(bytes as u64, lines) || batch.last() != Some(&b'\n') {
            return Err(Error::Batch { bytes, lines });
        }
        self.figures.offered += lines;
        let mut kept = self.write(batch, lines as u32);
        // What is done takes space until the next sync.
        if kept
            .as_ref()
            .is_err_and(|error| error.loss() == Loss::DiskFull)
            && self.free_space()
        {
            kept = self.write(batch, lines as u32);
        }
        if let Err(error) = &kept {
            self.figures.drop_lines(error.loss(), lines);
        }
        kept
    }

    /// Makes durable what was appended before, drops what is too old, and removes what is done. To be called once in every
    /// `sync.interval`, also while nothing is appended: time passes by these calls, and by at most a minute each.
    ///
    /// # Errors
    /// Everything was tried; this is the first thing that failed. Lines appended since the last success may be lost in a
    /// crash; if they are, they are counted as [`Loss::Damaged`] later. They can still be read. A later success speaks for
    /// what was appended after the failure.
    pub fn sync(&mut self, now: UnixSeconds) -> Result<(), Error> {
        self.now = now.min(UnixSeconds(self.now.0.saturating_add(STEP_SECONDS_MAX)));
        self.drop_old();
        self.settle();
        let results = [self.sync_segment(), self.store_cursor(), self.remove_done()];
        let first = self.unreported.take().map_or(Ok(()), Err);
        results.into_iter().fold(first, Result::and)
    }

    /// Says that everything before `position`, which a [`Batch`] had, need not come again; returns how many lines these were.
    /// Lines that were dropped in the meantime are not among them. After a crash before the next [`Spool::sync`] they come
    /// again all the same. A position that is already behind changes nothing.
    pub fn acknowledge(&mut self, position: Position) -> u64 {
        if position <= self.front || position > self.end() {
            return 0;
        }
        let lines = self.advance(position);
        self.figures.acknowledged += lines;
        lines
    }

    /// Sets other bounds. What is on disk stays: a spool that is too large takes no more, or drops its oldest lines with the
    /// next batch, as `when_full` says; segments of another size are read as they are.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The spool's figures at this moment.
    pub fn figures(&self) -> Figures {
        let waiting = self.waiting();
        let first = self.segments.iter().find(|segment| !self.is_done(segment));
        let oldest = first.map(|segment| segment.began.max(self.front.written));
        Figures {
            waiting,
            bytes: self.bytes,
            oldest_seconds: oldest
                .filter(|_| waiting > 0)
                .map(|oldest| self.now.seconds_since(oldest)),
            ..self.figures
        }
    }

    /// Where it is, and whose it is.
    pub(crate) fn place(&self) -> (&D, &str) {
        (&self.directory, &self.identity)
    }

    fn store_cursor(&mut self) -> Result<(), Error> {
        let checkpoint = Checkpoint {
            front: Position::new(self.front.segment, self.front.offset, self.front.line),
            synced_line: self.synced_line,
        };
        self.cursor
            .store(&self.directory, &self.identity, checkpoint)
    }

    // Removes the files of segments that are done. If the cursor could not be stored, their lines may come again after a
    // crash or be counted as lost; a disk that is so full that only this helps is worse.
    fn remove_done(&mut self) -> Result<(), Error> {
        let count_before = self.segments.len();
        while let Some(segment) = self.segments.front()
            && self.is_done(segment)
        {
            let name = segment_name(segment.sequence);
            match self.directory.remove(&name) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io(&self.directory, "remove", &name)(error)),
            }
            // A file that is open takes its space for as long.
            self.reader.close(segment.sequence);
            self.has_unsynced_names = true;
            self.bytes -= segment.end;
            self.segments.pop_front();
        }
        // A file that came back after the cursor was lost, too, would be out of order.
        match self.segments.len() < count_before {
            true => self.sync_names(),
            false => Ok(()),
        }
    }

    fn is_done(&self, segment: &Segment<D::File>) -> bool {
        segment.sequence < self.front.segment
            || segment.sequence == self.front.segment
                && segment.end <= self.front.offset
                && segment.writer.is_none()
    }

    fn drop_old(&mut self) {
        loop {
            // The newest line of the first segment is no younger than those after it, whatever the clock said.
            let waiting = self.segments.iter().skip_while(|s| self.is_done(s));
            let later = waiting.skip(1).map(|segment| segment.began);
            let newest = later.fold(self.last_written, UnixSeconds::min);
            if self.waiting() == 0 || !self.limits.is_too_old(self.now.seconds_since(newest)) {
                return;
            }
            self.drop_first(Loss::AgedOut);
        }
    }

    // Drops what waits in the first segment that is not done.
    fn drop_first(&mut self, loss: Loss) {
        let first = self.segments.partition_point(|s| self.is_done(s));
        let to = match self.segments.get(first + 1) {
            Some(next) => next.start(),
            None => self.abandon(),
        };
        let lines = self.advance(to);
        self.figures.drop_lines(loss, lines);
    }

    // With nothing left to send, all segments are done, whatever damage is in them. What was not read yet may be more than
    // the ordinals say, if they contradict each other.
    fn settle(&mut self) {
        let is_all_read = self.segments.back().is_some_and(|last| {
            let at = self.reader.at();
            (at.segment, at.offset) >= (last.sequence, last.end)
        });
        if is_all_read && self.waiting() == 0 {
            let end = self.abandon();
            self.advance(end);
        }
    }

    // Nobody will want what is in the last segment; returns the position behind all that there is.
    fn abandon(&mut self) -> Position {
        if let Some(segment) = self.segments.back_mut() {
            segment.writer = None;
        }
        self.end()
    }

    fn end(&self) -> Position {
        Position {
            segment: self.next_sequence,
            offset: BLOCK_BYTES as u64,
            line: self.next_line,
            written: self.last_written,
        }
    }

    // Moves the front; returns how many lines that were not known to be lost it passes.
    fn advance(&mut self, to: Position) -> u64 {
        let lost = self.gaps.forget_before(to.line);
        let passed = to.line.saturating_sub(self.front.line);
        self.front = Position {
            line: to.line.max(self.front.line),
            ..to
        };
        self.reader.advance(self.front);
        passed.saturating_sub(lost)
    }

    fn waiting(&self) -> u64 {
        let lines = self.next_line.saturating_sub(self.front.line);
        lines.saturating_sub(self.gaps.lines())
    }

    fn report_later(&mut self, result: Result<(), Error>) {
        if let Err(error) = result {
            self.unreported.get_or_insert(error);
        }
    }
}

impl<F> Segment<F> {
    fn start(&self) -> Position {
        Position {
            segment: self.sequence,
            offset: BLOCK_BYTES as u64,
            line: self.first_line,
            written: self.began,
        }
    }
}
