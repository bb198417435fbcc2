//! Finds routes that no line can ever reach, because others take all that they could take. People are told so, so what is said
//! here is always true; what is not said may still be so.
//!
//! A route takes a line in one of several ways: its match holds, and the match of one of its targets. A route takes all that
//! another could take if for each way of the other there is one of its own whose conditions all follow from the other's
//! ([`Condition::follows_from`]). Then the other is shadowed
//!
//! - if both see every line, the one comes first, and it stops;
//! - if only the other has `unmatched_only`;
//! - if both have it and the one comes first, for of these the first that takes a line is the only one.
//!
//! It does not matter whether a line gets as far as the one: if not, a route before it has stopped the line or taken it.
//!
//! The cost grows with the number of routes, not with its square: each is compared with few others ([`Takers::find`]), in a
//! limited number of steps ([`Effort`]). What is not found within these limits is not reported.

mod condition;

use std::collections::{BTreeSet, HashMap};

use relay_proto::{Match, ObjectRef, Route, Snapshot};

use self::condition::{Condition, Effort, Kind};

/// Routes that one route is compared with, from each place where they are looked for.
const CANDIDATES_MAX: usize = 32;

/// Bytes of a prefix that routes are looked for by.
const PREFIX_BYTES_MAX: usize = 64;

/// A route that no line can reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadowed {
    /// The route.
    pub route: ObjectRef,
    /// The route that takes all that it could take.
    pub by: ObjectRef,
    /// How it comes to that and what to do about it, for people.
    pub why: String,
}

/// The routes of a snapshot that no line can reach, in the order of the snapshot; not all of them, but none that a line can
/// reach. The snapshot is one that [`Table::load`](crate::Table::load) takes.
pub fn shadowed(snapshot: &Snapshot) -> Vec<Shadowed> {
    let takers: Vec<Taker<'_>> = snapshot.routes.iter().map(Taker::new).collect();
    let (last, first): (Vec<_>, Vec<_>) = takers
        .iter()
        .zip(0_usize..)
        .partition(|(taker, _)| taker.route.unmatched_only);
    let mut found = Vec::new();
    let mut before = Takers::new(first.iter().map(|(taker, _)| *taker));
    for (taker, place) in &first {
        match before.find(taker) {
            Some(by) => found.push((*place, taker.shadowed(by))),
            None if taker.route.stop => before.add(taker),
            None => {}
        }
    }
    if !last.is_empty() {
        let mut others = Takers::new(takers.iter());
        first.iter().for_each(|(taker, _)| others.add(taker));
        for (taker, place) in &last {
            match others.find(taker) {
                Some(by) => found.push((*place, taker.shadowed(by))),
                None => others.add(taker),
            }
        }
    }
    found.sort_unstable_by_key(|(place, _)| *place);
    found.into_iter().map(|(_, shadowed)| shadowed).collect()
}

/// A route, and when it takes a line.
struct Taker<'a> {
    route: &'a Route,
    /// The route's match.
    common: Vec<Condition<'a>>,
    /// The matches of its targets; a single empty one if a target takes whatever the route does.
    own: Vec<Vec<Condition<'a>>>,
}

impl<'a> Taker<'a> {
    fn new(route: &'a Route) -> Self {
        let conditions = |of: &'a Option<Match>| of.as_ref().map_or_else(Vec::new, Condition::all);
        let mut own: Vec<_> = route
            .targets
            .iter()
            .map(|target| conditions(&target.r#match))
            .collect();
        if own.iter().any(Vec::is_empty) {
            own = vec![Vec::new()];
        }
        Self {
            route,
            common: conditions(&route.r#match),
            own,
        }
    }

    // The ways in which it takes a line: all conditions of one of them hold.
    fn ways(&self) -> impl Iterator<Item = impl Iterator<Item = &Condition<'a>> + Clone> {
        let way = |own| self.common.iter().chain(own);
        self.own.iter().map(way)
    }

    fn takes_all_of(&self, other: &Self, effort: &mut Effort) -> bool {
        other.ways().all(|known| {
            self.ways()
                .any(|mut way| way.all(|condition| condition.follows_from(known.clone(), effort)))
        })
    }

    fn shadowed(&self, by: &Self) -> Shadowed {
        let source = |route: &Route| route.source.clone().unwrap_or_default();
        let other = source(by.route);
        let taken = by.taken();
        let why = match (self.route.unmatched_only, by.route.unmatched_only) {
            (false, _) => format!(
                "{other} comes first, takes {taken} and stops: raise this route's priority or narrow that one's match"
            ),
            (true, false) => format!(
                "{other} takes {taken}, and this route sees only lines that no other took: narrow that one's match or remove this route"
            ),
            (true, true) => format!(
                "{other} comes first among the routes with unmatchedOnly and takes {taken}: raise this route's priority or narrow that one's match"
            ),
        };
        Shadowed {
            route: source(self.route),
            by: other,
            why,
        }
    }

    // For people.
    fn taken(&self) -> String {
        let [own] = self.own.as_slice() else {
            return "every line that this one could take".to_owned();
        };
        let conditions: Vec<_> = self
            .common
            .iter()
            .chain(own)
            .map(Condition::to_string)
            .collect();
        match conditions.as_slice() {
            [] => "every line".to_owned(),
            conditions => format!("every line with {}", conditions.join(" and ")),
        }
    }
}

/// Routes that others are compared with, and what finds those that are worth it.
struct Takers<'r, 'a> {
    /// In the order of evaluation; they are known by their places here, in ascending order everywhere.
    takers: Vec<&'r Taker<'a>>,
    /// How often a condition stands in routes that are or may be added.
    counts: HashMap<(Kind, &'a str), usize>,
    /// The first that takes every line.
    takes_all: Option<usize>,
    /// By the rarest condition of a way.
    by_condition: HashMap<(Kind, &'a str), Vec<usize>>,
    /// By what names must begin with in a way, the first [`PREFIX_BYTES_MAX`] bytes of it.
    by_prefix: HashMap<&'r [u8], Vec<usize>>,
    prefix_lengths: BTreeSet<usize>,
    /// The first [`CANDIDATES_MAX`] with a way that may follow from other conditions and has no prefix to be found by.
    loose: Vec<usize>,
}

impl<'r, 'a> Takers<'r, 'a> {
    /// Takes the routes that may be added.
    fn new(takers: impl Iterator<Item = &'r Taker<'a>>) -> Self {
        let mut counts = HashMap::new();
        for condition in takers.flat_map(Taker::ways).flatten() {
            *counts.entry(condition.key()).or_default() += 1;
        }
        Self {
            takers: Vec::new(),
            counts,
            takes_all: None,
            by_condition: HashMap::new(),
            by_prefix: HashMap::new(),
            prefix_lengths: BTreeSet::new(),
            loose: Vec::new(),
        }
    }

    /// Adds the next one in the order of evaluation.
    fn add(&mut self, taker: &'r Taker<'a>) {
        let number = self.takers.len();
        self.takers.push(taker);
        for way in taker.ways() {
            // If a condition follows from nothing but itself, whoever the way follows from has it.
            let is_rigid = way.clone().any(Condition::is_rigid);
            let keys = way
                .clone()
                .filter(|condition| condition.is_rigid() == is_rigid);
            let Some(rarest) = keys
                .map(Condition::key)
                .min_by_key(|key| self.counts.get(key))
            else {
                self.takes_all.get_or_insert(number);
                continue;
            };
            self.by_condition.entry(rarest).or_default().push(number);
            if is_rigid {
                continue;
            }
            match way.clone().find_map(Condition::known_prefixes) {
                Some(prefixes) => {
                    for prefix in prefixes {
                        let prefix = &prefix[..prefix.len().min(PREFIX_BYTES_MAX)];
                        self.prefix_lengths.insert(prefix.len());
                        self.by_prefix.entry(prefix).or_default().push(number);
                    }
                }
                None if self.loose.len() < CANDIDATES_MAX => self.loose.push(number),
                None => {}
            }
        }
    }

    /// The first found that takes all that `taker` could take. Compared are those that have a condition in common with its
    /// first way, those whose prefix one of its prefixes begins with, and the loose; of each, the first [`CANDIDATES_MAX`].
    fn find(&self, taker: &Taker<'_>) -> Option<&'r Taker<'a>> {
        let way = taker.ways().next()?;
        let mut candidates: Vec<usize> =
            self.takes_all.iter().chain(&self.loose).copied().collect();
        let mut ask = |found: Option<&Vec<usize>>| {
            candidates.extend(found.into_iter().flatten().take(CANDIDATES_MAX));
        };
        for condition in way {
            ask(self.by_condition.get(&condition.key()));
            if self.prefix_lengths.is_empty() {
                continue;
            }
            // Whatever follows must follow from each of the known prefixes.
            let prefix = condition
                .known_prefixes()
                .and_then(|mut prefixes| prefixes.next());
            if let Some(prefix) = prefix {
                for length in self.prefix_lengths.range(..=prefix.len()) {
                    ask(self.by_prefix.get(&prefix[..*length]));
                }
            }
        }
        candidates.sort_unstable();
        candidates.dedup();
        let mut effort = Effort::default();
        let mut candidates = candidates.into_iter().map(|number| self.takers[number]);
        candidates.find(|candidate| candidate.takes_all_of(taker, &mut effort))
    }
}

#[cfg(test)]
mod tests;
