//! Which destinations get a line, and on which of their lanes.

use std::sync::Arc;

use crate::lane::{LaneIndex, Lanes};
use crate::pattern::Pattern;
use crate::pattern_set::PatternSet;
use crate::ring::{HashKey, Ring};

/// Where one line goes: a lane of each destination, in the order in which routes named these.
#[derive(Debug, Default, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Fanout {
    fixed: Vec<LaneIndex>,
    // Decided line by line.
    choices: Vec<Choice>,
}

/// One of several destinations, in the order of the route.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Choice {
    /// The next one for each line.
    RoundRobin(Vec<LaneIndex>),
    /// The first that is live, or the first if none is.
    Failover(Vec<LaneIndex>),
}

impl Fanout {
    pub(crate) fn clear(&mut self) {
        self.fixed.clear();
        self.choices.clear();
    }

    /// The lanes, if they are the same for every line.
    pub(crate) fn fixed(&self) -> Option<&[LaneIndex]> {
        self.choices.is_empty().then_some(self.fixed.as_slice())
    }

    /// Sets `chosen` to the lanes of the line whose turn it is.
    pub(crate) fn choose(
        &self,
        turn: usize,
        is_live: &dyn Fn(LaneIndex) -> bool,
        chosen: &mut Vec<LaneIndex>,
    ) {
        chosen.clone_from(&self.fixed);
        for choice in &self.choices {
            let one = match choice {
                Choice::RoundRobin(candidates) => candidates.get(turn % candidates.len()),
                Choice::Failover(candidates) => {
                    let live = candidates.iter().find(|candidate| is_live(**candidate));
                    live.or(candidates.first())
                }
            };
            chosen.extend(one.filter(|one| !chosen.contains(one)).copied());
        }
    }

    /// What it takes in memory beside itself, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let candidates = |choice: &Choice| match choice {
            Choice::RoundRobin(candidates) | Choice::Failover(candidates) => candidates.len(),
        };
        let destinations = self.fixed.len() + self.choices.iter().map(candidates).sum::<usize>();
        destinations * size_of::<LaneIndex>() + self.choices.len() * size_of::<Choice>()
    }

    // A set of a handful: a scan is faster than hashing.
    fn add(&mut self, lane: LaneIndex) {
        if !self.fixed.contains(&lane) {
            self.fixed.push(lane);
        }
    }
}

/// All routes of a table.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    /// In the order of evaluation.
    pub(crate) first: RouteList,
    /// Those that see only lines that no other route took, in the order of evaluation.
    pub(crate) unmatched_only: RouteList,
}

// Routes, and what finds those whose match holds.
#[derive(Debug, Default)]
pub(crate) struct RouteList {
    routes: Vec<Route>,
    patterns: PatternSet,
}

impl Routes {
    /// Takes routes with their matches, in the order of evaluation.
    pub(crate) fn new(first: Vec<(Pattern, Route)>, unmatched_only: Vec<(Pattern, Route)>) -> Self {
        Self {
            first: RouteList::new(first),
            unmatched_only: RouteList::new(unmatched_only),
        }
    }

    /// Collects the destinations of a line with this name. Returns whether any route took it.
    pub(crate) fn route(&self, name: &[u8], fanout: &mut Fanout, scratch: &mut Vec<u32>) -> bool {
        let mut taken = false;
        for route in self.first.matching(name, scratch) {
            if route.take(name, fanout) {
                taken = true;
                if route.stop {
                    break;
                }
            }
        }
        taken
            || self
                .unmatched_only
                .matching(name, scratch)
                .any(|route| route.take(name, fanout))
    }
}

impl RouteList {
    fn new(list: Vec<(Pattern, Route)>) -> Self {
        let (patterns, routes) = list.into_iter().unzip();
        Self {
            routes,
            patterns: PatternSet::new(patterns),
        }
    }

    /// Every route with its match, in the order of evaluation.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Route, &Pattern)> {
        self.routes.iter().zip(self.patterns.patterns())
    }

    fn matching<'a>(
        &'a self,
        name: &'a [u8],
        scratch: &'a mut Vec<u32>,
    ) -> impl Iterator<Item = &'a Route> {
        self.patterns
            .matching(name, scratch)
            .map(|number| &self.routes[number])
    }
}

/// One route; its match stands elsewhere.
#[derive(Debug)]
pub(crate) struct Route {
    /// As `namespace/name`.
    pub(crate) object: Arc<str>,
    pub(crate) stop: bool,
    pub(crate) distribution: Distribution,
    pub(crate) targets: Vec<Target>,
}

/// Which of the targets that match get a line.
#[derive(Debug)]
pub(crate) enum Distribution {
    All,
    FirstMatch,
    RoundRobin,
    Failover,
    ConsistentHash(Ring, HashKey),
}

/// A destination as one route uses it.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) lanes: Arc<Lanes>,
    pub(crate) pattern: Pattern,
}

impl Route {
    /// For a line that the route's match holds for: whether the route took it, as it does if the match of a target holds.
    pub(crate) fn take(&self, name: &[u8], fanout: &mut Fanout) -> bool {
        let mut matching = self
            .targets
            .iter()
            .filter(|target| target.pattern.matches(name))
            .map(|target| target.lanes.of(name))
            .peekable();
        if matching.peek().is_none() {
            return false;
        }
        match &self.distribution {
            Distribution::All => matching.for_each(|lane| fanout.add(lane)),
            Distribution::FirstMatch => matching.take(1).for_each(|lane| fanout.add(lane)),
            Distribution::RoundRobin => fanout.choices.push(Choice::RoundRobin(matching.collect())),
            Distribution::Failover => fanout.choices.push(Choice::Failover(matching.collect())),
            Distribution::ConsistentHash(ring, hash_key) => {
                let mut owners = Vec::new();
                ring.owners(&hash_key.of(name), &mut owners);
                owners
                    .iter()
                    .for_each(|owner| fanout.add(self.targets[*owner as usize].lanes.of(name)));
            }
        }
        true
    }
}
