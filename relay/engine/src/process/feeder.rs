//! Points on their way into the buckets of one worker.

use std::sync::Arc;

use super::Moment;
use super::memory::KnownWay;
use crate::aggregate::{Buckets, Limits, Observed, Partial, Rules};
use crate::line::Point;
use crate::{Reason, Table};

/// What became of a point that an aggregator matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PointFate {
    /// It is in its bucket.
    Taken,
    /// Its bucket was due already.
    Past,
    /// Its bucket lies too far in the future.
    Future,
    /// There was no room for it.
    Full,
    /// Its value is NaN or infinite.
    NotFinite,
    /// What the output came to is no name.
    Invalid,
}

impl PointFate {
    /// Every fate, [`PointFate::Taken`] first.
    pub const ALL: [Self; 6] = [
        Self::Taken,
        Self::Past,
        Self::Future,
        Self::Full,
        Self::NotFinite,
        Self::Invalid,
    ];

    /// The fate as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Past => "past",
            Self::Future => "future",
            Self::Full => "full",
            Self::NotFinite => "not_finite",
            Self::Invalid => "invalid",
        }
    }

    // Why a line is dropped that was to go into an aggregate only.
    fn reason(self) -> Option<Reason> {
        match self {
            Self::Taken => None,
            Self::Past => Some(Reason::AggregatePast),
            Self::Future => Some(Reason::AggregateFuture),
            Self::Full => Some(Reason::AggregateFull),
            Self::NotFinite => Some(Reason::ValueNotFinite),
            Self::Invalid => Some(Reason::AggregateInvalid),
        }
    }
}

/// How many points an aggregator matched, by what became of them: in the order of [`PointFate::ALL`].
pub type PointCounts = [u64; PointFate::ALL.len()];

#[derive(Debug)]
pub(super) struct Feeder {
    pub(super) buckets: Buckets,
    rules: Rules,
    // By the place of the rule.
    counts: Vec<PointCounts>,
    // Of rules that are gone.
    former_counts: Vec<(Arc<str>, PointCounts)>,
    /// Shares of buckets whose rules are gone: to be sent as soon as may be.
    pub(super) leftovers: Vec<Partial>,
}

impl Feeder {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            buckets: Buckets::new(Rules::default(), limits),
            rules: Rules::default(),
            counts: Vec::new(),
            former_counts: Vec::new(),
            leftovers: Vec::new(),
        }
    }

    /// Goes over to the rules of another table.
    pub(super) fn adopt(&mut self, table: &Table) {
        let rules = table.aggregation();
        if self.rules == *rules {
            return;
        }
        let counts = self.take_counts();
        self.former_counts = counts;
        self.counts = vec![PointCounts::default(); rules.len()];
        self.rules = rules.clone();
        let leftovers = self.buckets.change_rules(rules.clone());
        self.leftovers.extend(leftovers);
    }

    /// Puts a point into every aggregate on its way. An error is why none took it.
    pub(super) fn feed(
        &mut self,
        known: &mut KnownWay,
        point: Point,
        moment: Moment<'_>,
    ) -> Result<(), Reason> {
        let Point { timestamp, value } = point;
        let now = u32::try_from(moment.now.0).unwrap_or(u32::MAX);
        let mut refused = Err(Reason::Unrouted);
        let mut is_taken = false;
        for (feed, output) in known.way.feeds.iter().zip(&mut known.outputs) {
            let fate = loop {
                let Some(name) = &feed.output else {
                    break PointFate::Invalid;
                };
                let Some(id) = output.or_else(|| self.buckets.intern(feed.rule, name)) else {
                    break PointFate::Full;
                };
                *output = Some(id);
                match self
                    .buckets
                    .observe(id, timestamp, value, now, moment.stamp)
                {
                    Observed::Taken => break PointFate::Taken,
                    Observed::Late => break PointFate::Past,
                    Observed::Future => break PointFate::Future,
                    Observed::Full => break PointFate::Full,
                    Observed::NotFinite => break PointFate::NotFinite,
                    // It had no bucket for long. A new one is interned, which cannot be gone.
                    Observed::Gone => *output = None,
                }
            };
            self.counts[feed.rule.get()][fate as usize] += 1;
            match fate.reason() {
                None => is_taken = true,
                Some(reason) => refused = Err(reason),
            }
        }
        // What the last one says counts only if it keeps the line from routes.
        match (is_taken, known.way.drops_raw) {
            (true, _) => Ok(()),
            (false, true) => refused,
            (false, false) => Err(Reason::Unrouted),
        }
    }

    /// What was counted since this was last asked, by the id of the rule.
    pub(super) fn take_counts(&mut self) -> Vec<(Arc<str>, PointCounts)> {
        let mut taken = std::mem::take(&mut self.former_counts);
        for (index, rule) in self.rules.iter() {
            let counts = std::mem::take(&mut self.counts[index.get()]);
            if counts != PointCounts::default() {
                taken.push((Arc::clone(rule.id()), counts));
            }
        }
        taken
    }
}
