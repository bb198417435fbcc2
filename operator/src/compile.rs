//! [`compile`]: resources → one snapshot per fleet, and a verdict on every object.
//!
//! Pure and deterministic: no await, no client, no clock, and only ordered maps, so the same resources give the same
//! versions on every machine. One bad resource hurts only itself: it is left out of the snapshots and its verdict says why.
//!
//! 1. `drafts`: each object alone becomes its message, or a finding; and is attached to the Relays that run it.
//! 2. `fleets`: the messages of each Relay become a snapshot, and the relay's own loader checks it. What it refuses is
//!    left out, and with it the Routes that name it, until every snapshot loads.
//! 3. `verdicts`: what came of each object.

mod drafts;
mod fleets;
mod verdicts;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::iter;

use bytes::Bytes;
use crds::Reason;
use relay_proto::{Snapshot, Version};

use crate::inputs::{Inputs, Key};

/// What compiling gives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compiled {
    /// The snapshot of each fleet, by its Relay. A Relay that is not valid has none.
    pub fleets: BTreeMap<Key, Fleet>,
    /// What came of each object.
    pub verdicts: BTreeMap<Key, Verdict>,
}

/// Everything that one fleet runs on.
#[derive(Clone, Debug, PartialEq)]
pub struct Fleet {
    /// The snapshot, for looking at.
    pub snapshot: Snapshot,
    /// Its canonical encoding, for sending.
    pub encoded: Bytes,
    /// The digest of `encoded`.
    pub version: Version,
}

impl Fleet {
    /// The objects that the snapshot holds, its Relay among them.
    pub fn members(&self) -> impl Iterator<Item = Key> {
        members_of(&self.snapshot)
    }
}

fn members_of(snapshot: &Snapshot) -> impl Iterator<Item = Key> {
    let blocklists = snapshot.blocklists.iter().map(|list| &list.source);
    let rewriters = snapshot.rewriters.iter().map(|item| &item.source);
    let aggregators = snapshot.aggregators.iter().map(|item| &item.source);
    let routes = snapshot.routes.iter().map(|route| &route.source);
    let destinations = snapshot.destinations.iter().map(|item| &item.source);
    iter::once(&snapshot.relay)
        .chain(blocklists)
        .chain(rewriters)
        .chain(aggregators)
        .chain(routes)
        .chain(destinations)
        .flatten()
        .filter_map(Key::from_ref)
}

/// What came of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The generation that was read.
    pub generation: i64,
    /// Whether it is valid and attached.
    pub accepted: Finding,
    /// Whether what it refers to exists and is valid.
    pub resolved_refs: Finding,
    /// The Relays whose snapshot holds it. Empty: it is left out.
    pub fleets: BTreeSet<Key>,
    /// What is valid, and still hardly what was meant.
    pub warnings: Vec<Finding>,
}

impl Verdict {
    /// Whether it refers to what another namespace does not allow.
    pub fn is_forbidden(&self) -> bool {
        [&self.accepted, &self.resolved_refs]
            .into_iter()
            .any(|finding| {
                matches!(
                    finding.reason,
                    Reason::NotAllowedByRelay | Reason::RefNotPermitted
                )
            })
    }

    /// The first finding that something is wrong.
    pub fn failure(&self) -> Option<&Finding> {
        [&self.accepted, &self.resolved_refs]
            .into_iter()
            .find(|finding| !finding.is_true())
    }
}

/// One answer about an object, with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The reason, for programs.
    pub reason: Reason,
    /// Where in the object's spec: `match.regex`.
    pub field: Option<String>,
    /// What is so and, if something is wrong, what to do about it. For people.
    pub message: String,
}

impl Finding {
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            field: None,
            message: message.into(),
        }
    }

    pub(crate) fn at(field: impl Into<String>, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            field: Some(field.into()),
            message: message.into(),
        }
    }

    /// Whether all is well.
    pub fn is_true(&self) -> bool {
        match self.reason {
            Reason::Accepted | Reason::ResolvedRefs | Reason::Programmed | Reason::Ready => true,
            Reason::InvalidPattern
            | Reason::UnsupportedValue
            | Reason::Conflicted
            | Reason::NoMatchingRelay
            | Reason::NotAllowedByRelay
            | Reason::RelayNotAccepted
            | Reason::DestinationNotFound
            | Reason::RefNotPermitted
            | Reason::DestinationNotAccepted
            | Reason::SecretNotFound
            | Reason::InvalidSecret
            | Reason::ServiceNotFound
            | Reason::InvalidService
            | Reason::NotReferenced
            | Reason::Pending
            | Reason::Rejected
            | Reason::SchemaUnsupported
            | Reason::NoRelays
            | Reason::Shadowed
            | Reason::IdleDestination
            | Reason::Dropping
            | Reason::NotConnected
            | Reason::Slow
            | Reason::Spooling
            | Reason::FleetNotApplied
            | Reason::Draining
            | Reason::Held => false,
        }
    }

    /// Whether it is about what the object refers to, and not about the object itself.
    fn is_about_reference(&self) -> bool {
        matches!(self.reason, Reason::SecretNotFound | Reason::InvalidSecret)
    }

    /// The finding in one line: `spec.match.regex: unclosed group …`.
    pub fn text(&self) -> String {
        match &self.field {
            Some(field) => format!("spec.{field}: {}", self.message),
            None => self.message.clone(),
        }
    }
}

/// Compiles all resources.
pub fn compile(inputs: &Inputs) -> Compiled {
    let drafts = drafts::Drafts::of(inputs);
    let settled = fleets::settle(&drafts);
    let verdicts = verdicts::verdicts(&drafts, &settled);
    Compiled {
        fleets: settled.fleets,
        verdicts,
    }
}
