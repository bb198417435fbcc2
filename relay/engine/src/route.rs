//! Which destinations get a line.

use crate::outbox::DestinationIndex;
use crate::pattern::Pattern;
use crate::pattern_set::PatternSet;

/// The destinations of one line, each once, in the order in which routes named them.
#[derive(Debug, Default, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Fanout(Vec<DestinationIndex>);

impl Fanout {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn as_slice(&self) -> &[DestinationIndex] {
        &self.0
    }

    // A set of a handful: a scan is faster than hashing.
    fn add(&mut self, destination: DestinationIndex) {
        if !self.0.contains(&destination) {
            self.0.push(destination);
        }
    }
}

/// All routes of a table.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    /// In the order of evaluation.
    first: RouteList,
    /// Those that see only lines that no other route took, in the order of evaluation.
    unmatched_only: RouteList,
}

// Routes, and what finds those whose match holds.
#[derive(Debug, Default)]
struct RouteList {
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
    pub(crate) stop: bool,
    pub(crate) distribution: Distribution,
    pub(crate) targets: Vec<Target>,
}

/// Which of the targets that match get a line.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Distribution {
    All,
    FirstMatch,
}

/// A destination as one route uses it.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) destination: DestinationIndex,
    pub(crate) pattern: Pattern,
}

impl Route {
    // For a line that the route's match holds for: whether the route took it, as it does if the match of a target holds.
    fn take(&self, name: &[u8], fanout: &mut Fanout) -> bool {
        let mut matching = self
            .targets
            .iter()
            .filter(|target| target.pattern.matches(name));
        let Some(first) = matching.next() else {
            return false;
        };
        fanout.add(first.destination);
        match self.distribution {
            Distribution::FirstMatch => {}
            Distribution::All => matching.for_each(|target| fanout.add(target.destination)),
        }
        true
    }
}
