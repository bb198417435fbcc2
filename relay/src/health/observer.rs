//! Samples of destinations → reports, when there is something to report. Pure: it is given the time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use relay_proto::{
    DestinationReport, DestinationState, ListenerReport, ObjectRef, OrphanedSpool, Report,
};
use tokio::time::Instant;

use crate::destinations::queue::Figures;
use crate::destinations::{Orphan, Standing, State};

/// Destinations in a report. With 500 bytes for each, it is a megabyte, which the operator takes.
const DESTINATIONS_MAX: usize = 2048;

/// Orphaned spools in a report.
const ORPHANS_MAX: usize = 32;

/// Listeners in a report, and the characters of why one is down.
const LISTENERS_MAX: usize = 64;
const ERROR_CHARS_MAX: usize = 256;

/// A destination that is slow for less is taken for one that is not: bursts are what queues are for.
const SLOW_FOR: Duration = Duration::from_secs(5);

/// For how long what happened a moment ago still holds.
const RECENT: Duration = Duration::from_secs(10);

/// How often figures alone are worth a report.
const FIGURES_INTERVAL: Duration = Duration::from_secs(10);

/// A relay at one moment.
pub(super) struct Sample {
    pub(super) standings: Vec<Standing>,
    /// Of destinations that were removed and have yet to let go.
    pub(super) leaving: Vec<Figures>,
    pub(super) orphans: Vec<Orphan>,
    /// Listeners that fetch and cannot, and why.
    pub(super) listeners_down: Vec<(Arc<str>, Arc<str>)>,
    pub(super) open_buckets: usize,
    pub(super) has_left: bool,
}

/// What has to be remembered from sample to sample.
#[derive(Default)]
pub(super) struct Observer {
    destinations: BTreeMap<Arc<str>, Seen>,
    // When something was last going on, and what had been offered to all destinations by then.
    busy_at: Option<Instant>,
    offered: u64,
    sent: Option<(Instant, Report)>,
}

#[derive(Default)]
struct Seen {
    slow_since: Option<Instant>,
    // By reason: lines, and when they last became more.
    dropped: BTreeMap<&'static str, (u64, Option<Instant>)>,
}

impl Observer {
    /// The report to send, if there is one.
    pub(super) fn observe(&mut self, now: Instant, sample: &Sample) -> Option<Report> {
        let report = self.report(now, sample);
        let is_due = self.sent.as_ref().is_none_or(|(at, sent)| {
            gist(sent) != gist(&report)
                || now - *at >= FIGURES_INTERVAL && timeless(sent) != timeless(&report)
        });
        if !is_due {
            return None;
        }
        self.sent = Some((now, report.clone()));
        Some(report)
    }

    fn report(&mut self, now: Instant, sample: &Sample) -> Report {
        let Sample {
            standings, orphans, ..
        } = sample;
        let mut before = std::mem::take(&mut self.destinations);
        let mut destinations = Vec::with_capacity(standings.len());
        for standing in standings {
            let mut seen = before.remove(&standing.name).unwrap_or_default();
            destinations.push(seen.report(now, standing));
            self.destinations.insert(Arc::clone(&standing.name), seen);
        }
        destinations.sort_by_cached_key(|destination| (rank(destination), name(destination)));
        destinations.truncate(DESTINATIONS_MAX);
        let (mut lines, mut bytes) = (0, 0);
        for figures in sample.figures() {
            lines += figures.spool.waiting;
            bytes += figures.spool.bytes;
        }
        let listed = orphans.iter().take(ORPHANS_MAX).map(orphan);
        let listeners_down = sample.listeners_down.iter().take(LISTENERS_MAX);
        let listeners_down = listeners_down.map(|(name, error)| ListenerReport {
            name: name.to_string(),
            error: error.chars().take(ERROR_CHARS_MAX).collect(),
        });
        Report {
            destinations,
            spooled_lines: rounded(lines),
            spooled_bytes: rounded(if lines > 0 { bytes } else { 0 }),
            drained: self.is_drained(now, sample),
            left: sample.has_left,
            listeners_down: listeners_down.collect(),
            orphaned_spools: listed.collect(),
            orphaned_spools_count: orphans.len() as u64,
            orphaned_spools_bytes: rounded(orphans.iter().map(|o| o.survey.bytes).sum()),
        }
    }

    fn is_drained(&mut self, now: Instant, sample: &Sample) -> bool {
        let offered = sample.figures().map(|figures| figures.offered).sum();
        let waits = |figures: &Figures| {
            figures.spool_is_unknown || figures.queue_lines + figures.spool.waiting > 0
        };
        let is_busy =
            offered != self.offered || sample.open_buckets > 0 || sample.figures().any(waits);
        self.offered = offered;
        if is_busy || self.busy_at.is_none() {
            self.busy_at = Some(now);
        }
        self.busy_at.is_some_and(|at| now - at >= RECENT)
    }
}

impl Sample {
    fn figures(&self) -> impl Iterator<Item = &Figures> {
        let present = self.standings.iter().map(|standing| &standing.figures);
        present.chain(&self.leaving)
    }
}

impl Seen {
    fn report(&mut self, now: Instant, standing: &Standing) -> DestinationReport {
        let Standing { figures, link, .. } = standing;
        let state = self.state(now, standing.state);
        let error = link.last_failure.as_ref();
        let error = error.filter(|_| state == DestinationState::Down);
        let (queued_lines, queued_bytes) = match state == DestinationState::Connected {
            true => (0, 0),
            false => (figures.queue_lines, figures.queue_bytes),
        };
        let spool = &figures.spool;
        let oldest = spool.oldest_seconds.unwrap_or_default();
        let (namespace, name) = standing.name.split_once('/').unwrap_or_default();
        DestinationReport {
            source: Some(ObjectRef::new("Destination", namespace, name)),
            state: state.into(),
            queued_lines: rounded(queued_lines),
            queued_bytes: rounded(queued_bytes),
            spooled_lines: rounded(spool.waiting),
            spooled_bytes: rounded(if spool.waiting > 0 { spool.bytes } else { 0 }),
            oldest_seconds: rounded(if oldest < RECENT.as_secs() { 0 } else { oldest }),
            dropping: self.dropping(now, standing),
            error: error.map(|error| error.message.clone()).unwrap_or_default(),
            error_time: error.map_or(0, |error| error.at.0),
        }
    }

    fn state(&mut self, now: Instant, state: State) -> DestinationState {
        if state != State::Slow {
            self.slow_since = None;
        }
        match state {
            State::Connected => DestinationState::Connected,
            State::Connecting => DestinationState::Connecting,
            State::Down => DestinationState::Down,
            State::Slow => match now - *self.slow_since.get_or_insert(now) >= SLOW_FOR {
                true => DestinationState::Slow,
                false => DestinationState::Connected,
            },
        }
    }

    fn dropping(&mut self, now: Instant, standing: &Standing) -> Vec<String> {
        let mut dropping = Vec::new();
        for (reason, lines) in standing.dropped() {
            let (before, since) = self.dropped.entry(reason).or_default();
            if lines > *before {
                *since = Some(now);
            }
            *before = lines;
            if since.is_some_and(|since| now - since < RECENT) {
                dropping.push(reason.to_owned());
            }
        }
        dropping
    }
}

fn rank(destination: &DestinationReport) -> u8 {
    match destination.state() {
        DestinationState::Down => 0,
        _ if !destination.dropping.is_empty() => 1,
        DestinationState::Slow => 2,
        _ if destination.spooled_lines > 0 => 3,
        DestinationState::Connecting => 4,
        DestinationState::Connected | DestinationState::Unspecified => 5,
    }
}

fn name(destination: &DestinationReport) -> (String, String) {
    let source = destination.source.clone().unwrap_or_default();
    (source.namespace, source.name)
}

fn orphan(orphan: &Orphan) -> OrphanedSpool {
    let survey = &orphan.survey;
    OrphanedSpool {
        destination: survey.owner.clone().unwrap_or_default(),
        id: survey.identity.clone().unwrap_or_default(),
        directory: orphan.directory.clone(),
        bytes: rounded(survey.bytes),
        lines: rounded(survey.lines.unwrap_or_default()),
    }
}

// What a person would act on: everything but figures and texts.
fn gist(report: &Report) -> Report {
    let mut gist = Report {
        spooled_lines: 0,
        spooled_bytes: 0,
        orphaned_spools_bytes: 0,
        ..report.clone()
    };
    for destination in &mut gist.destinations {
        *destination = DestinationReport {
            source: destination.source.take(),
            state: destination.state,
            oldest_seconds: destination.oldest_seconds.min(1),
            dropping: std::mem::take(&mut destination.dropping),
            ..DestinationReport::default()
        };
    }
    for listener in &mut gist.listeners_down {
        listener.error.clear();
    }
    for orphan in &mut gist.orphaned_spools {
        (orphan.bytes, orphan.lines) = (0, 0);
    }
    // The order follows figures, too.
    gist.destinations.sort_by_cached_key(name);
    gist.orphaned_spools
        .sort_by(|a, b| a.directory.cmp(&b.directory));
    gist
}

// The same failure a moment later is no news.
fn timeless(report: &Report) -> Report {
    let mut timeless = report.clone();
    for destination in &mut timeless.destinations {
        destination.error_time = 0;
    }
    timeless
}

// Down to two digits.
fn rounded(figure: u64) -> u64 {
    let unit = 10_u64.pow(figure.checked_ilog10().unwrap_or(0).saturating_sub(1));
    figure / unit * unit
}

#[cfg(test)]
mod tests;
