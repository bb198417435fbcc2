//! Lines in a stream, each ended by a newline.

use std::future::poll_fn;
use std::io;
use std::task::{Poll, ready};

use relay_engine::{Reason, Tally};
use tokio::io::ReadBuf;
use tokio::time::Instant;

use super::{End, Origin, Peer};
use crate::partial::{NoRoom, Partial, PartialRoom};
use crate::worker::Scratch;

pub(super) struct Lines<'a> {
    // The line that is not yet whole.
    partial: Partial<'a>,
    // Within a line that is too long, or had no room, which was counted already.
    skipping: bool,
}

impl<'a> Lines<'a> {
    pub(super) fn new(room: &'a PartialRoom) -> Self {
        Self {
            partial: Partial::new(room),
            skipping: false,
        }
    }

    /// Reads what there is, up to a buffer full, and processes the lines that are whole. Returns the bytes read; 0 at the end.
    pub(super) async fn read(&mut self, peer: &mut Peer<'_>) -> io::Result<usize> {
        let bench = peer.origin.bench;
        poll_fn(|context| {
            let scratch = &mut *bench.scratch.borrow_mut();
            let begun = self.partial.bytes().len();
            scratch.buffer[..begun].copy_from_slice(self.partial.bytes());
            let mut buffer = ReadBuf::new(&mut scratch.buffer[begun..]);
            ready!(peer.stream.poll_read(context, &mut buffer))?;
            let read = buffer.filled().len();
            if read > 0 {
                self.process(peer, scratch, begun + read);
            }
            Poll::Ready(Ok(read))
        })
        .await
    }

    fn process(&mut self, peer: &mut Peer<'_>, scratch: &mut Scratch, filled: usize) {
        let line_bytes_max = peer.origin.listening.settings().line_bytes_max();
        let Scratch { buffer, mill, .. } = scratch;
        let bytes = &buffer[..filled];
        let mut tally = Tally::default();
        let end = memchr::memrchr(b'\n', bytes).map_or(0, |newline| newline + 1);
        let (mut block, rest) = bytes.split_at(end);
        if end > 0 {
            peer.last_whole = Instant::now();
        }
        if self.skipping
            && let Some(newline) = memchr::memchr(b'\n', block)
        {
            block = &block[newline + 1..];
            self.skipping = false;
        }
        if !block.is_empty() {
            let Peer {
                origin, handover, ..
            } = peer;
            let plan = origin.bench.plan.load();
            let refused = |reason, line| origin.note_refused(reason, &block[line]);
            tally = mill.process(&plan, block, line_bytes_max, handover, refused);
        }
        self.keep(rest, line_bytes_max, &peer.origin, &mut tally);
        peer.origin.count(&tally);
    }

    // Keeps the beginning of a line for the next read.
    fn keep(&mut self, rest: &[u8], line_bytes_max: usize, origin: &Origin<'_>, tally: &mut Tally) {
        let beginning = if self.skipping { &[] } else { rest };
        let reason = match beginning.len() > line_bytes_max {
            true => Some(Reason::LineTooLong),
            false => self
                .partial
                .keep(beginning)
                .err()
                .map(|NoRoom| Reason::NoRoom),
        };
        if let Some(reason) = reason {
            tally.drop_line(reason);
            origin.note_refused(reason, rest);
            self.skipping = true;
            self.partial.clear();
        }
    }

    /// A line that ends with its connection counts as a line if the sender closed in good order; otherwise it was cut.
    pub(super) fn finish(&mut self, end: &End, peer: &mut Peer<'_>) {
        if self.partial.bytes().is_empty() {
            return;
        }
        if let End::Clean = end {
            let bench = peer.origin.bench;
            let scratch = &mut *bench.scratch.borrow_mut();
            let length = self.partial.bytes().len();
            scratch.buffer[..length].copy_from_slice(self.partial.bytes());
            scratch.buffer[length] = b'\n';
            self.process(peer, scratch, length + 1);
        } else {
            let mut tally = Tally::default();
            tally.drop_line(Reason::Truncated);
            peer.origin
                .note_refused(Reason::Truncated, self.partial.bytes());
            peer.origin.count(&tally);
        }
    }
}
