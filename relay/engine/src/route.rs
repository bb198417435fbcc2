//! Which destinations get a line.

use crate::outbox::DestinationIndex;
use crate::pattern::Pattern;

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
    pub(crate) first: Vec<Route>,
    /// Those that see only lines that no other route took, in the order of evaluation.
    pub(crate) unmatched_only: Vec<Route>,
}

impl Routes {
    /// Collects the destinations of a line with this name. Returns whether any route took it.
    pub(crate) fn route(&self, name: &[u8], fanout: &mut Fanout) -> bool {
        let mut taken = false;
        for route in &self.first {
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
                .iter()
                .any(|route| route.take(name, fanout))
    }
}

/// One route.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) pattern: Pattern,
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
    // Returns whether the route took the line: its own match and that of a target hold.
    fn take(&self, name: &[u8], fanout: &mut Fanout) -> bool {
        if !self.pattern.matches(name) {
            return false;
        }
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
