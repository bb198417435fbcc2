//! Writing: one record per batch, at the end of the last segment, and making it durable.
//!
//! The batch is written before its header, so that a record is there only if its header is. A write that fails leaves nothing
//! behind that is read: the file is cut again, or written no more.

use std::io;

use super::{Segment, Spool};
use crate::error::Error;
use crate::figures::Loss;
use crate::format::{
    BLOCK_BYTES, Block, BlockKind, RECORD_HEADER_BYTES, RecordHeader, RecordSeed, segment_name,
};
use crate::limits::WhenFull;
use crate::storage::{Directory, OpenFile};

impl<D: Directory> Spool<D> {
    pub(super) fn write(&mut self, batch: &[u8], lines: u32) -> Result<(), Error> {
        let header = &RecordHeader::of(batch, lines, self.next_line, self.now);
        self.make_room(header.record_bytes() + BLOCK_BYTES as u64)?;
        self.seal_if_due(header.record_bytes());
        self.begin_segment()?;
        let segment = self.segments.back_mut().expect("there is one by now");
        let name = segment_name(segment.sequence);
        let end_before = segment.end;
        let mut written = segment.write_batch(&self.identity, batch);
        if written.is_ok() {
            written = segment.write_header(&self.identity, header);
            // Also if it failed: the record may be whole on disk, and no other lines may ever have these ordinals.
            self.next_line = header.next_line();
            if written.is_err() {
                self.gaps.add(header.first_line, header.next_line());
            }
        }
        self.bytes += segment.end - end_before;
        match written {
            Ok(()) => {
                self.last_written = header.written;
                Ok(())
            }
            Err(error) => {
                // What a part of a record leaves behind its end would be taken for damage after a crash.
                if segment.trim().is_err() {
                    self.seal();
                }
                Err(Error::io(&self.directory, "write", &name)(error))
            }
        }
    }

    fn make_room(&mut self, bytes: u64) -> Result<(), Error> {
        if self.has_room(bytes) {
            return Ok(());
        }
        self.settle();
        if self.limits.when_full == WhenFull::DropOldest && bytes <= self.limits.bytes_max {
            while self.waiting_bytes() + bytes > self.limits.bytes_max {
                self.drop_first(Loss::Full);
            }
        }
        self.free_done();
        match self.has_room(bytes) {
            true => Ok(()),
            false => Err(Error::Full {
                path: self.directory.path().to_owned(),
                bytes: self.bytes,
            }),
        }
    }

    /// Removes what is done, also in the last segment if all of it is. Returns whether there is more space now.
    pub(super) fn free_space(&mut self) -> bool {
        let before = self.bytes;
        self.settle();
        self.free_done();
        self.bytes < before
    }

    fn free_done(&mut self) {
        let is_any_done = self.segments.front().is_some_and(|s| self.is_done(s));
        if is_any_done {
            let stored = self.store_cursor();
            let removed = self.remove_done();
            self.report_later(stored.and(removed));
        }
    }

    fn has_room(&self, bytes: u64) -> bool {
        self.bytes + bytes <= self.limits.bytes_max
    }

    // Bytes of the segments that are not done.
    fn waiting_bytes(&self) -> u64 {
        let done = self.segments.iter().take_while(|s| self.is_done(s));
        self.bytes - done.map(|segment| segment.end).sum::<u64>()
    }

    // Afterwards the last segment has a writer.
    fn begin_segment(&mut self) -> Result<(), Error> {
        if self.segments.back().is_some_and(|s| s.writer.is_some()) {
            return Ok(());
        }
        let sequence = self.next_sequence;
        // A number is not tried twice: who knows what is in the way.
        self.next_sequence += 1;
        let name = segment_name(sequence);
        let file = self.directory.create(&name);
        let file = file.map_err(Error::io(&self.directory, "create", &name))?;
        self.has_unsynced_names = true;
        self.segments.push_back(Segment {
            sequence,
            first_line: self.next_line,
            began: self.now,
            end: 0,
            writer: Some(file),
            is_dirty: false,
        });
        Ok(())
    }

    fn seal_if_due(&mut self, record_bytes: u64) {
        if let Some(segment) = self.segments.back()
            && segment.end > BLOCK_BYTES as u64
            && (segment.end + record_bytes > self.limits.segment_end()
                || self
                    .limits
                    .is_segment_too_old(self.now.seconds_since(segment.began)))
        {
            self.seal();
        }
    }

    // The last segment gets no more.
    fn seal(&mut self) {
        let Some(segment) = self.segments.back_mut() else {
            return;
        };
        let synced = segment.sync();
        segment.writer = None;
        let name = segment_name(segment.sequence);
        self.report_later(synced.map_err(Error::io(&self.directory, "sync", &name)));
    }

    pub(super) fn sync_segment(&mut self) -> Result<(), Error> {
        if let Some(segment) = self.segments.back_mut()
            && segment.writer.is_some()
        {
            let name = segment_name(segment.sequence);
            let is_there = self.directory.exists(&name);
            if !is_there.map_err(Error::io(&self.directory, "find", &name))? {
                // What more it took would be lost with it.
                segment.writer = None;
            } else if let Err(error) = segment.sync() {
                segment.writer = None;
                return Err(Error::io(&self.directory, "sync", &name)(error));
            }
        }
        self.sync_names()?;
        self.synced_line = self.next_line;
        Ok(())
    }

    pub(super) fn sync_names(&mut self) -> Result<(), Error> {
        if self.has_unsynced_names {
            let synced = self.directory.sync();
            synced.map_err(|error| Error::directory(&self.directory, "sync", error))?;
            self.has_unsynced_names = false;
        }
        Ok(())
    }
}

impl<F: OpenFile> Segment<F> {
    // Writes where the next record's batch goes, over what a failed attempt may have left there.
    fn write_batch(&mut self, identity: &str, batch: &[u8]) -> io::Result<()> {
        let writer = self.writer.as_ref().expect("only called on what is open");
        self.is_dirty = true;
        if self.end == 0 {
            let numbers = [self.sequence, self.first_line, self.began.0, 0, 0];
            let block = Block::encode(BlockKind::Segment, numbers, identity);
            writer.write_all_at(&block, 0)?;
            self.end = block.len() as u64;
        }
        writer.write_all_at(batch, self.end + RECORD_HEADER_BYTES as u64)
    }

    // Makes a record of the batch that was written.
    fn write_header(&mut self, identity: &str, header: &RecordHeader) -> io::Result<()> {
        let writer = self.writer.as_ref().expect("only called on what is open");
        let seed = RecordSeed::new(identity, self.sequence, self.end);
        writer.write_all_at(&header.encode(seed), self.end)?;
        self.end += header.record_bytes();
        Ok(())
    }

    // Removes what a failed attempt left behind the end.
    fn trim(&self) -> io::Result<()> {
        match &self.writer {
            Some(writer) => writer.set_len(self.end),
            None => Ok(()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        if let Some(writer) = &self.writer
            && self.is_dirty
        {
            writer.sync()?;
            self.is_dirty = false;
        }
        Ok(())
    }
}
