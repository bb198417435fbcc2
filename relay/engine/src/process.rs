//! The stages of a line, in their one order.
//!
//! What the rules say of a line depends on its name alone, so it is decided once per name and kept ([`NameCache`]). Lines
//! are taken in groups: all are cut and hashed and their places in the cache asked for before any is looked up, so that
//! memory is waited for once a group instead of once a line.

use std::collections::HashMap;
use std::io::Write as _;

use crate::cache::{Decision, NameCache, NameHash};
use crate::line::{Line, Timestamp};
use crate::name::{self, Name};
use crate::route::Fanout;
use crate::{DestinationIndex, Outbox, Reason, Table, Tally};

/// Lines in a group: enough to hide a trip to memory, few enough for the first-level cache to hold what is asked for.
const GROUP_LINES: usize = 32;

/// Sets of destinations that are told apart; with more, what was decided is forgotten and decided anew.
const FANOUTS_MAX: usize = 1 << 16;

/// Decisions below this are reasons to drop; then comes "untidy"; then sets of destinations.
const UNTIDY: Decision = Reason::ALL.len() as Decision;
const FORWARD: Decision = UNTIDY + 1;

/// Seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixSeconds(pub u64);

/// What a line's way depends on besides the table and the line.
#[derive(Clone, Copy)]
pub struct Moment<'a> {
    /// What a line's timestamp becomes where it asks for that.
    pub now: UnixSeconds,
    /// Whether a destination takes lines.
    pub is_live: &'a dyn Fn(DestinationIndex) -> bool,
}

/// Runs lines through a table. One per worker: it remembers names and holds scratch memory, and counts nothing.
#[derive(Debug)]
pub struct Engine {
    // The table that decisions are from.
    table: u64,
    cache: NameCache,
    fanouts: Vec<Fanout>,
    // Lines that were forwarded to destinations that are chosen line by line.
    turn: usize,
    chosen: Vec<DestinationIndex>,
    fanout_ids: HashMap<Fanout, Decision>,
    judged: Fanout,
    candidates: Vec<u32>,
    tidied: Vec<u8>,
    run: Run,
}

// Neighbouring lines that are forwarded as they came, to the same destinations: they are copied in one go.
#[derive(Debug, Default)]
struct Run {
    start: usize,
    end: usize,
    lines: u64,
    decision: Decision,
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

impl Engine {
    /// An engine that remembers names in `cache_bytes` bytes.
    pub fn new(cache_bytes: usize) -> Self {
        Self {
            table: 0,
            cache: NameCache::new(cache_bytes),
            fanouts: Vec::new(),
            turn: 0,
            chosen: Vec::new(),
            fanout_ids: HashMap::new(),
            judged: Fanout::default(),
            candidates: Vec::new(),
            tidied: Vec::new(),
            run: Run::default(),
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
        if self.table != table.id() {
            self.table = table.id();
            self.forget();
        }
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
                self.cache.prefetch_name(cut.hash);
            }
            for cut in &group[..lines] {
                tally.received += 1;
                match self.line(table, block, cut, line_bytes_max, moment, out) {
                    Ok(()) => tally.forwarded += 1,
                    Err(reason) => tally.count_drop(reason),
                }
            }
            if lines < GROUP_LINES {
                break;
            }
        }
        self.end_run(block, out);
        tally
    }

    fn cut(&self, block: &[u8], start: usize, end: usize) -> Cut {
        let Some(line) = Line::canonical(&block[start..end]) else {
            return Cut {
                start,
                end,
                ..Cut::default()
            };
        };
        let hash = self.cache.hash(line.name);
        self.cache.prefetch_set(hash);
        Cut {
            start,
            end,
            name_end: Some(start + line.name.len()),
            hash,
        }
    }

    // The order of the stages.
    fn line(
        &mut self,
        table: &Table,
        block: &[u8],
        cut: &Cut,
        line_bytes_max: usize,
        moment: Moment<'_>,
        out: &mut Outbox,
    ) -> Result<(), Reason> {
        let Cut {
            start,
            end,
            name_end,
            hash,
        } = *cut;
        if end - start > line_bytes_max {
            return Err(Reason::LineTooLong);
        }
        if let Some(name_end) = name_end {
            let decision = self.decide(table, hash, &block[start..name_end], block, out);
            if decision != UNTIDY {
                check(decision)?;
                self.forward_verbatim(block, start, end + 1, decision, moment, out);
                return Ok(());
            }
        }
        let line = Line::any(&block[start..end])?;
        let decision = self.decide_tidied(table, line.name, block, out)?;
        self.end_run(block, out);
        self.tidy(&line, moment.now);
        let destinations = destinations(
            &self.fanouts[(decision - FORWARD) as usize],
            &mut self.turn,
            &mut self.chosen,
            moment,
        );
        out.append(destinations, &self.tidied, 1);
        Ok(())
    }

    // What becomes of a canonical line with this name.
    fn decide(
        &mut self,
        table: &Table,
        hash: NameHash,
        name: &[u8],
        block: &[u8],
        out: &mut Outbox,
    ) -> Decision {
        if let Some(decision) = self.cache.get(hash, name) {
            return decision;
        }
        let decision = match name::check(name) {
            Ok(Name::Clean) => self.judge(table, name, block, out),
            Ok(Name::Untidy) => UNTIDY,
            Err(reason) => reason as Decision,
        };
        self.cache.put(hash, name, decision);
        decision
    }

    // What becomes of a line that was taken apart. A dot that its name still begins with was the second one; as the first
    // one of a canonical line it would have to be stripped, so such a name's decisions are not kept.
    fn decide_tidied(
        &mut self,
        table: &Table,
        name: &[u8],
        block: &[u8],
        out: &mut Outbox,
    ) -> Result<Decision, Reason> {
        let decision = if name.first() == Some(&b'.') || name.is_empty() {
            name::check_tidied(name)?;
            self.judge(table, name, block, out)
        } else {
            self.decide(table, self.cache.hash(name), name, block, out)
        };
        check(decision)?;
        Ok(decision)
    }

    fn judge(&mut self, table: &Table, name: &[u8], block: &[u8], out: &mut Outbox) -> Decision {
        if let Err(reason) = table.judge(name, &mut self.judged, &mut self.candidates) {
            return reason as Decision;
        }
        if let Some(decision) = self.fanout_ids.get(&self.judged) {
            return *decision;
        }
        if self.fanouts.len() == FANOUTS_MAX {
            self.end_run(block, out);
            self.forget();
        }
        let decision = FORWARD + self.fanouts.len() as Decision;
        self.fanouts.push(self.judged.clone());
        self.fanout_ids.insert(self.judged.clone(), decision);
        decision
    }

    fn forget(&mut self) {
        self.cache.begin_epoch();
        self.fanouts.clear();
        self.fanout_ids.clear();
    }

    fn fanout(&self, decision: Decision) -> &Fanout {
        &self.fanouts[(decision - FORWARD) as usize]
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

    fn forward_verbatim(
        &mut self,
        block: &[u8],
        start: usize,
        end: usize,
        decision: Decision,
        moment: Moment<'_>,
        out: &mut Outbox,
    ) {
        let fanout = &self.fanouts[(decision - FORWARD) as usize];
        if fanout.fixed().is_none() {
            self.end_run(block, out);
            let fanout = &self.fanouts[(decision - FORWARD) as usize];
            let destinations = destinations(fanout, &mut self.turn, &mut self.chosen, moment);
            return out.append(destinations, &block[start..end], 1);
        }
        if self.run.end != start || self.run.lines == 0 || self.run.decision != decision {
            self.end_run(block, out);
            self.run.start = start;
            self.run.decision = decision;
        }
        self.run.end = end;
        self.run.lines += 1;
    }

    fn end_run(&mut self, block: &[u8], out: &mut Outbox) {
        let Run {
            start,
            end,
            lines,
            decision,
        } = std::mem::take(&mut self.run);
        if lines > 0 {
            // A run's destinations are the same for every line.
            out.append(
                self.fanout(decision).fixed().unwrap_or_default(),
                &block[start..end],
                lines,
            );
        }
    }
}

// The destinations of one line.
fn destinations<'a>(
    fanout: &'a Fanout,
    turn: &mut usize,
    chosen: &'a mut Vec<DestinationIndex>,
    moment: Moment<'_>,
) -> &'a [DestinationIndex] {
    match fanout.fixed() {
        Some(fixed) => fixed,
        None => {
            fanout.choose(*turn, moment.is_live, chosen);
            *turn = turn.wrapping_add(1);
            chosen
        }
    }
}

// The reason, if a decision is to drop.
fn check(decision: Decision) -> Result<(), Reason> {
    match Reason::ALL.get(decision as usize) {
        Some(reason) => Err(*reason),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
