//! What a sender has taken from its lane and not yet handed over, and what of it was.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Buf as _;
use relay_spool::Position;
use tokio::sync::watch;
use tokio::time::Instant;

use super::queue::{Chunk, Lane};
use super::window::Window;

/// Chunks that were taken from the queue and not yet handed over.
#[derive(Debug, Default)]
pub(crate) struct InHand {
    pub(crate) chunks: VecDeque<Chunk>,
    /// How many bytes of the first chunk were handed over.
    pub(crate) written: usize,
    /// What was handed over last.
    pub(super) window: Window,
    // Where the last chunk from the spool ends that was handed over and not yet told of.
    pub(super) handed_over: Option<Position>,
    // Lines of the first chunk that were handed over and refused for good.
    refused: u64,
}

impl InHand {
    /// Counts `bytes` more of the chunks as handed over.
    pub(crate) fn advance(&mut self, mut bytes: usize, lane: &Lane) {
        while let Some(chunk) = self.chunks.front() {
            let left = chunk.bytes.len() - self.written;
            if bytes < left {
                self.written += bytes;
                return;
            }
            bytes -= left;
            match chunk.spooled {
                Some(end) => {
                    self.handed_over = Some(end);
                    lane.replayed(chunk.bytes.len(), self.refused);
                }
                None => lane.sent(chunk.bytes.len(), chunk.lines, self.refused),
            }
            (self.written, self.refused) = (0, 0);
            self.window.extend(self.chunks.pop_front());
        }
    }

    /// Counts `bytes` more of the chunks, which are whole lines, as refused for good.
    pub(crate) fn reject(&mut self, mut bytes: usize, lane: &Lane) {
        while bytes > 0
            && let Some(chunk) = self.chunks.front()
        {
            let here = bytes.min(chunk.bytes.len() - self.written);
            let lines = &chunk.bytes[self.written..self.written + here];
            self.refused += memchr::memchr_iter(b'\n', lines).count() as u64;
            bytes -= here;
            self.advance(here, lane);
        }
    }

    /// Appends the first lines that are still to be handed over to `out`: at most `lines_max`, and no more when there are
    /// `bytes_max` bytes.
    pub(crate) fn copy_lines(&self, lines_max: usize, bytes_max: usize, out: &mut Vec<u8>) {
        let mut left = lines_max;
        let mut skip = self.written;
        for chunk in &self.chunks {
            let rest = &chunk.bytes[skip..];
            skip = 0;
            let mut end = 0;
            for newline in memchr::memchr_iter(b'\n', rest) {
                if left == 0 || out.len() + end >= bytes_max {
                    break;
                }
                end = newline + 1;
                left -= 1;
            }
            out.extend_from_slice(&rest[..end]);
            if end < rest.len() {
                break;
            }
        }
    }

    /// How many lines are in hand; those of a chunk that was handed over in part count.
    pub(crate) fn lines(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.lines).sum()
    }

    /// How much is still to be handed over.
    pub(crate) fn bytes(&self) -> usize {
        let bytes: usize = self.chunks.iter().map(|chunk| chunk.bytes.len()).sum();
        bytes - self.written
    }

    // Takes a batch from the spool, and puts off the next one as the destination wants it.
    pub(super) fn take_batch(
        &mut self,
        batch: Chunk,
        settings: &watch::Receiver<relay_engine::Destination>,
        replay_at: &mut Instant,
    ) {
        let spool = settings.borrow().spool;
        if let Some(per_second) = spool.and_then(|spool| spool.replay_lines_per_second) {
            let wait = Duration::from_secs_f64(batch.lines as f64 / per_second as f64);
            *replay_at = (*replay_at).max(Instant::now()) + wait;
        }
        self.chunks.push_back(batch);
    }

    /// What is missing of the line that was handed over in part; empty if none was.
    pub(crate) fn rest_of_line(&self) -> &[u8] {
        let Some(chunk) = self.chunks.front() else {
            return &[];
        };
        let (written, rest) = chunk.bytes.split_at(self.written);
        match written.last() {
            None | Some(b'\n') => &[],
            Some(_) => {
                &rest[..memchr::memchr(b'\n', rest).map_or(rest.len(), |newline| newline + 1)]
            }
        }
    }

    // Counts the whole lines of a chunk that was handed over in part, and keeps the rest to be sent again from a line's start.
    // What is from the spool comes again from there.
    pub(super) fn settle(&mut self, lane: &Lane) {
        let written = std::mem::take(&mut self.written);
        let refused = std::mem::take(&mut self.refused);
        let is_spooled = |chunk: &Chunk| chunk.spooled.is_some();
        let first_is_spooled = self.chunks.front().is_some_and(is_spooled);
        self.chunks.retain(|chunk| !is_spooled(chunk));
        if first_is_spooled {
            return;
        }
        let Some(chunk) = self.chunks.front_mut() else {
            return;
        };
        let whole =
            memchr::memrchr(b'\n', &chunk.bytes[..written]).map_or(0, |newline| newline + 1);
        let lines = memchr::memchr_iter(b'\n', &chunk.bytes[..whole]).count() as u64;
        self.window.extend(Some(Chunk {
            bytes: chunk.bytes.slice(..whole),
            lines,
            spooled: None,
        }));
        chunk.bytes.advance(whole);
        chunk.lines -= lines;
        lane.sent(whole, lines, refused);
    }
}
