//! The stages of a line, in their one order.

use std::io::Write as _;

use crate::line::{Line, Timestamp};
use crate::name::{self, Name};
use crate::route::Fanout;
use crate::{Outbox, Reason, Table, Tally};

/// Seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixSeconds(pub u64);

/// Runs lines through a table. One per worker: it holds nothing but scratch memory.
#[derive(Debug, Default)]
pub struct Engine {
    fanout: Fanout,
    tidied: Vec<u8>,
    run: Run,
}

// Neighbouring lines that are forwarded as they came, to the same destinations: they are copied in one go.
#[derive(Debug, Default)]
struct Run {
    start: usize,
    end: usize,
    lines: u64,
    fanout: Fanout,
}

// How a line that is to be forwarded goes out.
enum Forward {
    // As it came.
    Verbatim,
    // As `Engine::tidied` has it.
    Tidied,
}

impl Engine {
    /// Runs the lines of `block` through `table`: those to be forwarded are appended to `out`, and all are counted in the
    /// result. `block` is empty or ends with a newline. Lines longer than `line_bytes_max` are dropped. `now` is what a
    /// line's timestamp becomes where it asks for that.
    pub fn process(
        &mut self,
        table: &Table,
        block: &[u8],
        line_bytes_max: usize,
        now: UnixSeconds,
        out: &mut Outbox,
    ) -> Tally {
        let mut tally = Tally::default();
        let mut start = 0;
        for newline in memchr::memchr_iter(b'\n', block) {
            let line = &block[start..newline];
            let outcome = match line.len() <= line_bytes_max {
                true => self.stages(table, line, now),
                false => Err(Reason::LineTooLong),
            };
            match outcome {
                Ok(Forward::Verbatim) => {
                    self.forward_verbatim(block, start, newline + 1, out);
                    tally.received += 1;
                    tally.forwarded += 1;
                }
                Ok(Forward::Tidied) => {
                    self.end_run(block, out);
                    out.append(self.fanout.as_slice(), &self.tidied, 1);
                    tally.received += 1;
                    tally.forwarded += 1;
                }
                Err(reason) => tally.drop_line(reason),
            }
            start = newline + 1;
        }
        self.end_run(block, out);
        tally
    }

    // The order of the stages. Leaves the destinations in `self.fanout`.
    fn stages(&mut self, table: &Table, line: &[u8], now: UnixSeconds) -> Result<Forward, Reason> {
        if let Some(line) = Line::canonical(line)
            && name::check(line.name)? == Name::Clean
        {
            table.judge(line.name, &mut self.fanout)?;
            return Ok(Forward::Verbatim);
        }
        let line = Line::any(line)?;
        name::check_tidied(line.name)?;
        table.judge(line.name, &mut self.fanout)?;
        self.tidy(&line, now);
        Ok(Forward::Tidied)
    }

    fn tidy(&mut self, line: &Line<'_>, now: UnixSeconds) {
        self.tidied.clear();
        self.tidied.extend_from_slice(line.name);
        self.tidied.push(b' ');
        self.tidied.extend_from_slice(line.value);
        self.tidied.push(b' ');
        match line.timestamp {
            Timestamp::At(seconds) => self.tidied.extend_from_slice(seconds),
            Timestamp::Now => {
                write!(self.tidied, "{}", now.0).expect("a vector takes everything");
            }
        }
        self.tidied.push(b'\n');
    }

    fn forward_verbatim(&mut self, block: &[u8], start: usize, end: usize, out: &mut Outbox) {
        if self.run.end != start || self.run.lines == 0 || self.run.fanout != self.fanout {
            self.end_run(block, out);
            self.run.start = start;
            self.run.fanout.clone_from(&self.fanout);
        }
        self.run.end = end;
        self.run.lines += 1;
    }

    fn end_run(&mut self, block: &[u8], out: &mut Outbox) {
        let run = &mut self.run;
        if run.lines > 0 {
            out.append(run.fanout.as_slice(), &block[run.start..run.end], run.lines);
        }
        (run.start, run.end, run.lines) = (0, 0, 0);
    }
}

#[cfg(test)]
mod tests;
