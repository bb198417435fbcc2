//! The stages of a line, in their one order.
//!
//! What the rules say of a line depends on its name alone, so it is decided once per name and kept ([`NameCache`]). Lines
//! are taken in groups: all are cut and hashed and their places in the cache asked for before any is looked up, so that
//! memory is waited for once a group instead of once a line.

mod feeder;
mod memory;
mod runs;

use std::io::Write as _;
use std::ops::Range;
use std::sync::Arc;

use crate::aggregate::{self, Flush, Observed, Partial};
use crate::cache::{Decision, NameHash};
use crate::line::{Line, Point, Timestamp};
use crate::order::NewestPoints;
use crate::route::Fanout;
use crate::{LaneIndex, Outbox, Reason, Table, Tally};

use feeder::Feeder;
pub use feeder::{PointCounts, PointFate};
use memory::{Memory, UNTIDY, Ways};
use runs::{Runs, Transfer};

/// Lines in a group: enough to hide a trip to memory, few enough for the first-level cache to hold what is asked for.
const GROUP_LINES: usize = 32;

/// Seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixSeconds(pub u64);

/// What a line's way depends on besides the table and the line.
#[derive(Clone, Copy)]
pub struct Moment<'a> {
    /// What a line's timestamp becomes where it asks for that, and what others are compared with.
    pub now: UnixSeconds,
    /// Greater for what was received later, by any worker: what a block's points are ordered by.
    pub stamp: u64,
    /// Whether a lane takes lines.
    pub is_live: &'a dyn Fn(LaneIndex) -> bool,
}

/// What one engine may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For remembering names, in bytes; as much again for names that rewriters made.
    pub names_bytes: usize,
    /// For aggregates.
    pub aggregates: aggregate::Limits,
}

/// What came of lines that aggregators gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Routed {
    /// Lines that at least one destination was given.
    pub forwarded: u64,
    /// Lines that no route took.
    pub unrouted: u64,
}

/// Runs lines through a table. One per worker: it remembers names, holds open buckets and scratch memory.
#[derive(Debug)]
pub struct Engine {
    // The table that decisions and buckets are of.
    table: u64,
    memory: Memory,
    feeder: Feeder,
    newest: Arc<NewestPoints>,
    runs: Runs,
    // What follows the name in a line that is put together.
    tail: Vec<u8>,
    // The last line of the block that was dropped for each reason.
    refused: [Option<Range<usize>>; Reason::ALL.len()],
}

// How a line passed that is not dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passed {
    Forwarded,
    // Into an aggregate, and no further.
    Absorbed,
}

// A line of the group at work.
#[derive(Clone, Copy, Default)]
struct Cut {
    start: usize,
    // Of the newline.
    end: usize,
    // Of the name, which begins the line; `None` if the line is not in the canonical form.
    name_end: Option<usize>,
    hash: NameHash,
}

// What one block is run with.
#[derive(Clone, Copy)]
struct Input<'a> {
    table: &'a Table,
    block: &'a [u8],
    line_bytes_max: usize,
    moment: Moment<'a>,
}

impl Engine {
    /// An engine by itself, that remembers names in `names_bytes` bytes.
    pub fn new(names_bytes: usize) -> Self {
        let limits = Limits {
            names_bytes,
            aggregates: aggregate::Limits::default(),
        };
        Self::with(limits, Arc::new(NewestPoints::new(0)))
    }

    /// One of several engines, which share `newest`.
    pub fn with(limits: Limits, newest: Arc<NewestPoints>) -> Self {
        Self {
            table: 0,
            memory: Memory::new(limits.names_bytes),
            feeder: Feeder::new(limits.aggregates),
            newest,
            runs: Runs::default(),
            tail: Vec::new(),
            refused: [const { None }; Reason::ALL.len()],
        }
    }

    /// Runs the lines of `block` through `table`: those to be forwarded are appended to `out`, and all are counted in the
    /// result. `block` is empty or ends with a newline. Lines longer than `line_bytes_max` are dropped.
    pub fn process(
        &mut self,
        table: &Table,
        block: &[u8],
        line_bytes_max: usize,
        moment: Moment<'_>,
        out: &mut Outbox,
    ) -> Tally {
        self.adopt(table);
        self.memory.make_room();
        let input = Input {
            table,
            block,
            line_bytes_max,
            moment,
        };
        let mut tally = Tally::default();
        let mut group = [Cut::default(); GROUP_LINES];
        let mut newlines = memchr::memchr_iter(b'\n', block);
        let mut start = 0;
        loop {
            let mut lines = 0;
            for (cut, newline) in group.iter_mut().zip(&mut newlines) {
                *cut = self.cut(block, start, newline);
                start = newline + 1;
                lines += 1;
            }
            for cut in group[..lines].iter().filter(|cut| cut.name_end.is_some()) {
                self.memory.cache().prefetch_name(cut.hash);
            }
            for cut in &group[..lines] {
                tally.received += 1;
                match self.line(input, cut, out) {
                    Ok(Passed::Forwarded) => tally.forwarded += 1,
                    Ok(Passed::Absorbed) => tally.absorbed += 1,
                    Err(reason) => {
                        tally.count_drop(reason);
                        self.refused[reason as usize] = Some(cut.start..cut.end);
                    }
                }
            }
            if lines < GROUP_LINES {
                break;
            }
        }
        self.runs
            .finish(&mut input.transfer(self.memory.ways(), out));
        tally
    }

    /// The last line of the block that was last processed, for each reason that one was dropped for, without its newline.
    /// They are given once.
    pub fn take_refused(&mut self) -> impl Iterator<Item = (Reason, Range<usize>)> {
        let refused = Reason::ALL.into_iter().zip(&mut self.refused);
        refused.filter_map(|(reason, line)| Some((reason, line.take()?)))
    }

    /// Goes over to a table. What is processed does so by itself; this is for engines that have nothing to process.
    pub fn adopt(&mut self, table: &Table) {
        if self.table != table.id() {
            self.table = table.id();
            self.memory.forget();
            self.feeder.adopt(table);
        }
    }

    /// Routes lines that aggregators gave: no other rule sees them, so none can go round in circles. `block` is empty or ends
    /// with a newline.
    pub fn route_aggregates(
        &mut self,
        table: &Table,
        block: &[u8],
        moment: Moment<'_>,
        out: &mut Outbox,
    ) -> Routed {
        let mut routed = Routed::default();
        let (mut fanout, mut candidates) = (Fanout::default(), Vec::new());
        for line in block.split_inclusive(|byte| *byte == b'\n') {
            let end = memchr::memchr(b' ', line).unwrap_or(line.len());
            fanout.clear();
            if table
                .routes
                .route(&line[..end], &mut fanout, &mut candidates)
            {
                routed.forwarded += 1;
                self.runs.choose(&fanout, line, moment, out);
            } else {
                routed.unrouted += 1;
            }
        }
        routed
    }

    fn cut(&self, block: &[u8], start: usize, end: usize) -> Cut {
        let Some(line) = Line::canonical(&block[start..end]) else {
            return Cut {
                start,
                end,
                ..Cut::default()
            };
        };
        let cache = self.memory.cache();
        let hash = cache.hash(line.name);
        cache.prefetch_set(hash);
        Cut {
            start,
            end,
            name_end: Some(start + line.name.len()),
            hash,
        }
    }

    // The order of the stages.
    fn line(&mut self, input: Input<'_>, cut: &Cut, out: &mut Outbox) -> Result<Passed, Reason> {
        let Cut {
            start,
            end,
            name_end,
            hash,
        } = *cut;
        let Input { table, block, .. } = input;
        if end - start > input.line_bytes_max {
            return Err(Reason::LineTooLong);
        }
        if let Some(name_end) = name_end {
            let name = &block[start..name_end];
            let decision = self.memory.decide(table, hash, name);
            if decision != UNTIDY {
                let is_plain = !table.validation.judges_points();
                if is_plain && self.runs.extend(decision, start, end + 1) {
                    return Ok(Passed::Forwarded);
                }
                if decision < UNTIDY || !is_plain {
                    let timestamp = || Point::of(&block[name_end..end]).timestamp;
                    self.check(input, decision, name, timestamp)?;
                }
                return self.deliver_canonical(input, cut, name_end, decision, out);
            }
        }
        let line = Line::any(&block[start..end], table.validation.forwards_not_finite)?;
        let decision = self.memory.decide_tidied(table, line.name);
        let point = line.point(input.moment.now);
        self.check(input, decision, line.name, || point.timestamp)?;
        self.deliver_tidied(input, &line, point, decision, out)
    }

    // What the name says comes first, then the point, then the rules.
    fn check(
        &self,
        input: Input<'_>,
        decision: Decision,
        name: &[u8],
        timestamp: impl FnOnce() -> u32,
    ) -> Result<(), Reason> {
        let refused = Reason::ALL.get(decision as usize).copied();
        if let Some(reason) = refused.filter(|reason| *reason < Reason::ValueInvalid) {
            return Err(reason);
        }
        let validation = &input.table.validation;
        if validation.judges_points() {
            let timestamp = timestamp();
            validation.check_age(timestamp, input.moment.now)?;
            let is_newest = || {
                let series = input.table.normalised(name);
                self.newest.take(&series, timestamp)
            };
            if validation.rejects_out_of_order && !is_newest() {
                return Err(Reason::OutOfOrder);
            }
        }
        refused.map_or(Ok(()), Err)
    }

    fn deliver_canonical(
        &mut self,
        input: Input<'_>,
        cut: &Cut,
        name_end: usize,
        decision: Decision,
        out: &mut Outbox,
    ) -> Result<Passed, Reason> {
        let way = self.memory.going(decision).way;
        let is_fed = self.memory.ways().get(way).is_fed();
        if is_fed {
            let point = Point::of(&input.block[name_end..cut.end]);
            if self.feed(way, point, input.moment)? == Passed::Absorbed {
                return Ok(Passed::Absorbed);
            }
        }
        let new_name = self.memory.going(decision).new_name;
        let transfer = &mut input.transfer(self.memory.ways(), out);
        match new_name {
            None => {
                let decision = (!is_fed).then_some(decision);
                self.runs
                    .copy(way, decision, cut.start, cut.end + 1, transfer);
            }
            Some(name) => {
                let rest = &input.block[name_end..=cut.end];
                self.runs.build(way, [name, rest], transfer);
            }
        }
        Ok(Passed::Forwarded)
    }

    fn deliver_tidied(
        &mut self,
        input: Input<'_>,
        line: &Line<'_>,
        point: Point,
        decision: Decision,
        out: &mut Outbox,
    ) -> Result<Passed, Reason> {
        let way = self.memory.going(decision).way;
        let is_fed = self.memory.ways().get(way).is_fed();
        if is_fed && self.feed(way, point, input.moment)? == Passed::Absorbed {
            return Ok(Passed::Absorbed);
        }
        self.tail.clear();
        self.tail.push(b' ');
        self.tail.extend_from_slice(line.value);
        self.tail.push(b' ');
        match line.timestamp {
            Timestamp::At(seconds) => self.tail.extend_from_slice(seconds),
            Timestamp::Now => {
                write!(self.tail, "{}", input.moment.now.0).expect("a vector takes everything");
            }
        }
        self.tail.push(b'\n');
        let name = self.memory.going(decision).new_name.unwrap_or(line.name);
        let transfer = &mut input.transfer(self.memory.ways(), out);
        self.runs.build(way, [name, &self.tail], transfer);
        Ok(Passed::Forwarded)
    }
}

impl Engine {
    // Puts a point into the aggregates on its way, and says whether the line goes on.
    fn feed(&mut self, way: usize, point: Point, moment: Moment<'_>) -> Result<Passed, Reason> {
        let known = self.memory.way_mut(way);
        let fed = self.feeder.feed(known, point, moment);
        match known.way.is_routed {
            true => Ok(Passed::Forwarded),
            false => fed.map(|()| Passed::Absorbed),
        }
    }
}

impl<'a> Input<'a> {
    fn transfer<'b>(&self, ways: &'b Ways, out: &'b mut Outbox) -> Transfer<'b>
    where
        'a: 'b,
    {
        Transfer {
            ways,
            block: self.block,
            moment: self.moment,
            out,
        }
    }
}

/// What aggregates are held in, for the one who flushes them.
impl Engine {
    /// Moves shares of buckets that are due to the end of `taken`, as [`Buckets::take_due`] does, and first those whose
    /// aggregators are gone.
    pub fn take_due(&mut self, now: u32, most: usize, taken: &mut Vec<Partial>) -> Flush {
        taken.append(&mut self.feeder.leftovers);
        self.feeder.buckets.take_due(now, most, taken)
    }

    /// Takes all shares of buckets out, due or not.
    pub fn take_all(&mut self) -> Vec<Partial> {
        let mut taken = std::mem::take(&mut self.feeder.leftovers);
        taken.extend(self.feeder.buckets.take_all());
        taken
    }

    /// Takes in a bucket of the table that this engine last went over to, as [`Buckets::restore`] does.
    pub fn restore(&mut self, bucket: Partial) -> Observed {
        self.feeder.buckets.restore(bucket)
    }

    /// How many points each aggregator matched since this was last asked, by its id.
    pub fn take_point_counts(&mut self) -> Vec<(Arc<str>, PointCounts)> {
        self.feeder.take_counts()
    }

    /// How many buckets are open, and what they take in memory, in bytes, as reckoned.
    pub fn open_buckets(&self) -> (usize, usize) {
        (self.feeder.buckets.open(), self.feeder.buckets.bytes())
    }
}

#[cfg(test)]
mod tests;
