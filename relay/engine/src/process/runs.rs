//! Neighbouring lines that go the same way, forwarded in one go.
//!
//! Lines that go on as they came are a range of the block; lines that do not are put together in a buffer. Only one of the
//! two is under way at a time, so that lines stay in their order.

use super::Moment;
use super::memory::Ways;
use crate::cache::Decision;
use crate::route::Fanout;
use crate::{LaneIndex, Outbox};

/// What is to be forwarded next.
#[derive(Debug, Default)]
pub(super) struct Runs {
    way: usize,
    lines: u64,
    // The range of the block; empty for lines that are put together.
    start: usize,
    end: usize,
    built: Vec<u8>,
    // What was decided of the names in the range, if copying is all that is done with them.
    decision: Option<Decision>,
    // Lines that were forwarded to destinations that are chosen line by line.
    turn: usize,
    chosen: Vec<LaneIndex>,
}

/// Where forwarded lines come from and go to.
pub(super) struct Transfer<'a> {
    pub(super) ways: &'a Ways,
    pub(super) block: &'a [u8],
    pub(super) moment: Moment<'a>,
    pub(super) out: &'a mut Outbox,
}

impl<'a> Transfer<'a> {
    fn fanout(&self, way: usize) -> &'a Fanout {
        &self.ways.get(way).way.fanout
    }
}

impl Runs {
    /// Whether a line, `start..end` of the block with its newline, could be forwarded together with the one before it, whose
    /// name had the same decision: nearly every line, in most tables.
    pub(super) fn extend(&mut self, decision: Decision, start: usize, end: usize) -> bool {
        let is_next = self.decision == Some(decision) && self.end == start;
        if is_next {
            self.end = end;
            self.lines += 1;
        }
        is_next
    }

    /// Forwards a line as it came: `start..end` of the block, with its newline. `decision` is given if copying is all that is
    /// done with such a line.
    pub(super) fn copy(
        &mut self,
        way: usize,
        decision: Option<Decision>,
        start: usize,
        end: usize,
        transfer: &mut Transfer<'_>,
    ) {
        self.finish(transfer);
        if transfer.fanout(way).fixed().is_none() {
            let line = &transfer.block[start..end];
            return self.choose(transfer.fanout(way), line, transfer.moment, transfer.out);
        }
        (self.way, self.lines, self.start, self.end) = (way, 1, start, end);
        self.decision = decision;
    }

    /// Forwards a line that is put together of `parts`, the newline among them.
    pub(super) fn build(&mut self, way: usize, parts: [&[u8]; 2], transfer: &mut Transfer<'_>) {
        if self.lines == 0 || self.way != way || self.built.is_empty() {
            self.finish(transfer);
            self.way = way;
        }
        for part in parts {
            self.built.extend_from_slice(part);
        }
        self.lines += 1;
        if transfer.fanout(way).fixed().is_none() {
            let line = std::mem::take(&mut self.built);
            self.choose(transfer.fanout(way), &line, transfer.moment, transfer.out);
            self.built = line;
            self.built.clear();
            self.lines = 0;
        }
    }

    /// Forwards what is under way.
    pub(super) fn finish(&mut self, transfer: &mut Transfer<'_>) {
        if self.lines == 0 {
            return;
        }
        let bytes = match self.built.is_empty() {
            true => &transfer.block[self.start..self.end],
            false => &self.built,
        };
        let lanes = transfer.fanout(self.way).fixed().unwrap_or_default();
        transfer.out.append(lanes, bytes, self.lines);
        self.built.clear();
        self.lines = 0;
        self.decision = None;
    }

    /// Forwards a line by itself, to destinations that are chosen for it if there is a choice.
    pub(super) fn choose(
        &mut self,
        fanout: &Fanout,
        line: &[u8],
        moment: Moment<'_>,
        out: &mut Outbox,
    ) {
        fanout.choose(self.turn, moment.is_live, &mut self.chosen);
        self.turn = self.turn.wrapping_add(1);
        out.append(&self.chosen, line, 1);
    }
}
