//! Reports of relay pods → how a Destination stands with all of them, which listeners of a Relay get no messages, and what is on
//! disk for Destinations that are gone. Pure.
//!
//! Nothing in here grows with the fleet but counts: one pod speaks for all that have the same trouble.

use std::collections::{BTreeMap, BTreeSet};

use crds::{Duration, Health, LastError, OrphanedSpools, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use relay_proto::{DestinationReport, DestinationState, OrphanedSpool, Report};

use crate::compile::Finding;
use crate::inputs::Key;

/// Destinations, listeners and orphaned spools of a report that are looked at; a relay sends no more.
const DESTINATIONS_MAX: usize = 2048;
const LISTENERS_MAX: usize = 64;
const ORPHANS_MAX: usize = 32;
/// Orphaned spools that a status names.
const NAMED_MAX: usize = 8;
/// Reasons that a status names.
const REASONS_MAX: usize = 16;
const REASON_CHARS_MAX: usize = 64;
/// The text of an error, in characters.
const ERROR_CHARS_MAX: usize = 256;
/// A name, in characters.
const NAME_CHARS_MAX: usize = 512;

/// What one relay pod reported last.
#[derive(Debug, Default)]
pub struct Reported {
    destinations: BTreeMap<Key, DestinationReport>,
    // Why, by name.
    listeners_down: BTreeMap<String, String>,
    orphans: Vec<OrphanedSpool>,
    orphans_count: u64,
    orphans_bytes: u64,
    /// The pod was told to go for good, takes nobody in any more, and has nothing that waits.
    pub is_drained: bool,
}

/// How a Destination stands.
#[derive(Debug, Default, PartialEq)]
pub struct Standing {
    /// How it stands, in figures.
    pub health: Health,
    /// What is wrong, if something is.
    pub degraded: Option<Finding>,
}

impl From<Report> for Reported {
    fn from(report: Report) -> Self {
        let destinations = report.destinations.into_iter().take(DESTINATIONS_MAX);
        let by_key = destinations.filter_map(|mut destination| {
            let key = Key::from_ref(&destination.source.take()?)?;
            Some((key, destination))
        });
        let listeners_down = report.listeners_down.into_iter().take(LISTENERS_MAX);
        let mut orphans = report.orphaned_spools;
        orphans.truncate(ORPHANS_MAX);
        Self {
            destinations: by_key.collect(),
            listeners_down: listeners_down
                .map(|listener| (listener.name, listener.error))
                .collect(),
            orphans,
            orphans_count: report.orphaned_spools_count,
            orphans_bytes: report.orphaned_spools_bytes,
            is_drained: report.left && report.drained,
        }
    }
}

/// How the Destination `key` stands with those of `pods` that said so; `None` if none did.
pub fn standing<'a>(
    key: &Key,
    pods: impl Iterator<Item = (&'a str, &'a Reported)>,
) -> Option<Standing> {
    let said: Vec<_> = pods
        .filter_map(|(pod, reported)| Some((pod, reported.destinations.get(key)?)))
        .collect();
    if said.is_empty() {
        return None;
    }
    let count = |is: fn(&DestinationReport) -> bool| said.iter().filter(|(_, of)| is(of)).count();
    let sum = |of: fn(&DestinationReport) -> u64| {
        let figures = said.iter().map(|(_, destination)| of(destination));
        figures.fold(0, u64::saturating_add)
    };
    let oldest = said.iter().map(|(_, of)| of.oldest_seconds).max();
    let dropping: BTreeSet<String> = said
        .iter()
        .flat_map(|(_, of)| &of.dropping)
        .map(|reason| short(reason, REASON_CHARS_MAX))
        .collect();
    let health = Health {
        connected_pods: format!("{}/{}", count(is_connected), said.len()),
        slow_pods: count(is_slow) as i64,
        spooled_lines: i64::try_from(rounded(sum(|of| of.spooled_lines))).unwrap_or(i64::MAX),
        spooled_bytes: quantity(sum(|of| of.spooled_bytes)),
        oldest: match oldest {
            None | Some(0) => String::new(),
            Some(seconds) => Duration::from_secs(rounded(seconds)).to_string(),
        },
        dropping: dropping.into_iter().take(REASONS_MAX).collect(),
        last_error: said
            .iter()
            .filter(|(_, of)| is_down(of))
            .find_map(|(pod, of)| last_error(pod, of)),
    };
    let degraded = degraded(
        &health,
        [is_down, is_slow, is_dropping].map(count),
        said.len(),
    );
    Some(Standing { health, degraded })
}

/// What is wrong with listeners that fetch messages; `None` if nothing is. The first by name speaks for the others.
pub fn listeners_down<'a>(pods: impl Iterator<Item = (&'a str, &'a Reported)>) -> Option<Finding> {
    let mut down: BTreeMap<&str, (usize, &str, &str)> = BTreeMap::new();
    let mut count = 0;
    for (pod, reported) in pods {
        count += 1;
        for (name, error) in &reported.listeners_down {
            down.entry(name).or_insert((0, pod, error)).0 += 1;
        }
    }
    let (name, (pods, pod, error)) = down.first_key_value()?;
    let name = short(name, REASON_CHARS_MAX);
    let error = short(error, ERROR_CHARS_MAX);
    let others = match down.len() - 1 {
        0 => String::new(),
        others => format!(" and {others} more"),
    };
    let text = format!(
        "listener {name}{others}: {pods} of {count} relay pods get no messages from its broker; {pod}: {error}"
    );
    Some(Finding::new(Reason::NotConnected, text))
}

/// What `pods` have on disk for Destinations that are gone; `None` if that is nothing.
pub fn orphaned_spools<'a>(pods: impl Iterator<Item = &'a Reported>) -> Option<OrphanedSpools> {
    let mut by_owner: BTreeMap<(&str, &str), (i64, u64)> = BTreeMap::new();
    let (mut bytes, mut unlisted) = (0_u64, 0);
    for reported in pods {
        bytes = bytes.saturating_add(reported.orphans_bytes);
        let listed = reported.orphans.len() as u64;
        unlisted = unlisted.max(reported.orphans_count.saturating_sub(listed));
        for orphan in &reported.orphans {
            let (pods, bytes) = by_owner
                .entry((&orphan.destination, &orphan.id))
                .or_default();
            *pods += 1;
            *bytes = bytes.saturating_add(orphan.bytes);
        }
    }
    if by_owner.is_empty() {
        return None;
    }
    let count = by_owner.len() as u64 + unlisted;
    let mut largest: Vec<_> = by_owner.into_iter().collect();
    largest.sort_by_key(|(_, (_, bytes))| std::cmp::Reverse(*bytes));
    let named = largest.into_iter().take(NAMED_MAX);
    let named = named.map(|((destination, uid), (pods, bytes))| crds::OrphanedSpool {
        destination: short(destination, NAME_CHARS_MAX),
        uid: short(uid, NAME_CHARS_MAX),
        pods,
        bytes: quantity(bytes),
    });
    Some(OrphanedSpools {
        count: i64::try_from(count).unwrap_or(i64::MAX),
        bytes: quantity(bytes),
        largest: named.collect(),
    })
}

// The worst that is so. The texts have no figures that change by themselves.
fn degraded(health: &Health, [down, slow, dropping]: [usize; 3], pods: usize) -> Option<Finding> {
    let finding = |reason, text: String| Some(Finding::new(reason, text));
    if dropping > 0 {
        let reasons = health.dropping.join(", ");
        let text =
            format!("lines for it are dropped on {dropping} of {pods} relay pods: {reasons}");
        return finding(Reason::Dropping, text);
    }
    if down > 0 {
        let why = match &health.last_error {
            Some(LastError { pod, message, .. }) => format!("; {pod}: {message}"),
            None => String::new(),
        };
        let text = format!("{down} of {pods} relay pods cannot connect{why}");
        return finding(Reason::NotConnected, text);
    }
    if slow > 0 {
        let text = format!("it takes less than comes for it from {slow} of {pods} relay pods");
        return finding(Reason::Slow, text);
    }
    if !health.oldest.is_empty() {
        let text = "it gets what comes in, and still has lines to get that wait on disk";
        return finding(Reason::Spooling, text.to_owned());
    }
    None
}

fn is_connected(of: &DestinationReport) -> bool {
    matches!(
        of.state(),
        DestinationState::Connected | DestinationState::Slow
    )
}

fn is_slow(of: &DestinationReport) -> bool {
    of.state() == DestinationState::Slow
}

fn is_down(of: &DestinationReport) -> bool {
    of.state() == DestinationState::Down
}

fn is_dropping(of: &DestinationReport) -> bool {
    !of.dropping.is_empty()
}

fn last_error(pod: &str, of: &DestinationReport) -> Option<LastError> {
    let seconds = i64::try_from(of.error_time).ok()?;
    Some(LastError {
        pod: pod.to_owned(),
        message: short(&of.error, ERROR_CHARS_MAX),
        time: Time(Timestamp::from_second(seconds).ok()?),
    })
}

fn short(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).collect()
}

// Down to two digits, so that it is not written anew for every line.
fn rounded(figure: u64) -> u64 {
    let unit = 10_u64.pow(figure.checked_ilog10().unwrap_or(0).saturating_sub(1));
    figure / unit * unit
}

// With the largest decimal suffix that leaves a whole number.
fn quantity(bytes: u64) -> String {
    let mut number = rounded(bytes);
    let mut suffixes = ["", "k", "M", "G", "T", "P"].into_iter();
    let mut suffix = suffixes.next();
    while number > 0
        && number.is_multiple_of(1000)
        && let Some(next) = suffixes.next()
    {
        number /= 1000;
        suffix = Some(next);
    }
    format!("{number}{}", suffix.unwrap_or_default())
}

#[cfg(test)]
mod tests;
