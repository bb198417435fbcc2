//! From the workers' shares of buckets to lines.

use std::cmp::Ordering;
use std::io::Write as _;
use std::sync::Arc;

use super::accumulator::Accumulator;
use super::{Rule, Statistic};

/// What stands in an output name where the function's name belongs: a byte that no name may have, so that nothing a sender
/// writes is taken for it.
pub const FUNCTION_MARK: u8 = 0;

/// One worker's share of a bucket.
#[derive(Clone, Debug, PartialEq)]
pub struct Partial {
    pub(super) rule: Arc<Rule>,
    pub(super) name: Arc<[u8]>,
    pub(super) start: u32,
    pub(super) accumulator: Accumulator,
}

/// One value of a bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Aggregate<'a> {
    /// The rule of the bucket.
    pub rule: &'a Rule,
    /// As it was interned.
    pub name: &'a [u8],
    /// What the value is.
    pub statistic: Statistic,
    /// The timestamp that it gets: the start of the bucket.
    pub start: u32,
    /// Finite.
    pub value: f64,
}

/// Makes one of the shares of each bucket. `partials` are those of all workers, one worker's after the other's; what
/// comes back is in ascending order of start and name.
pub fn merge(mut partials: Vec<Partial>) -> Vec<Partial> {
    // Stable, so that sums come out the same when workers are asked in the same order.
    partials.sort_by(Partial::cmp_bucket);
    partials.dedup_by(|share, bucket| {
        let is_same = share.cmp_bucket(bucket) == Ordering::Equal;
        if is_same {
            bucket.accumulator.merge(&mut share.accumulator);
        }
        is_same
    });
    partials
}

/// Gives every value of buckets to `each`, in their order and that of the rule's functions. Returns how many values there
/// are not, because they are beyond what a double holds; a `Derive` of points with one timestamp is not among them.
pub fn finish(buckets: Vec<Partial>, mut each: impl FnMut(Aggregate<'_>)) -> u64 {
    let mut not_finite = 0;
    for mut bucket in buckets {
        bucket.accumulator.sort_values();
        let rule = &*bucket.rule;
        for statistic in rule.statistics() {
            let value = bucket
                .accumulator
                .value(*statistic, rule.percentile_definition());
            match value {
                Some(value) if value.is_finite() => each(Aggregate {
                    rule,
                    name: &bucket.name,
                    statistic: *statistic,
                    start: bucket.start,
                    value,
                }),
                Some(_) => not_finite += 1,
                None => {}
            }
        }
    }
    not_finite
}

impl Partial {
    /// The rule of the bucket.
    pub fn rule(&self) -> &Arc<Rule> {
        &self.rule
    }

    /// The output name, as it was interned.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The first second of the bucket.
    pub fn start(&self) -> u32 {
        self.start
    }

    /// How many points are in it.
    pub fn points(&self) -> u64 {
        self.accumulator.count
    }

    /// Orders by start, then name. Equal are only shares that can be merged: while a table changes, workers may hold
    /// buckets by two versions of a rule.
    pub(super) fn cmp_bucket(&self, other: &Self) -> Ordering {
        let key = |partial: &Self| (partial.rule.interval_seconds(), partial.rule.needs());
        self.start
            .cmp(&other.start)
            .then_with(|| self.name.cmp(&other.name))
            .then_with(|| self.rule.id().cmp(other.rule.id()))
            .then_with(|| key(self).cmp(&key(other)))
    }
}

impl Aggregate<'_> {
    /// Appends the output name: the function's name stands where the mark is, or after a dot at the end if there is no mark
    /// and the rule gives several values.
    pub fn write_name(&self, out: &mut Vec<u8>) {
        let mut pieces = self.name.split(|byte| *byte == FUNCTION_MARK);
        out.extend_from_slice(pieces.next().unwrap_or_default());
        let mut is_named = false;
        for piece in pieces {
            write!(out, "{}", self.statistic).expect("a vector takes everything");
            out.extend_from_slice(piece);
            is_named = true;
        }
        if !is_named && self.rule.statistics().len() > 1 {
            write!(out, ".{}", self.statistic).expect("a vector takes everything");
        }
    }

    /// Appends `name value timestamp` and a newline. The value is the shortest decimal that reads back as the same double,
    /// and never has an exponent.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        self.write_name(out);
        writeln!(out, " {} {}", self.value, self.start).expect("a vector takes everything");
    }
}
