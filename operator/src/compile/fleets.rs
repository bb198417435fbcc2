//! Drafts → the snapshot of each fleet, checked with the relay's own loader.
//!
//! What the loader refuses is left out, and the snapshot is made again without it, until it loads. Each turn refuses at
//! least one more object, so this ends; and one bad object takes along only the Routes that name it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use crds::Reason;
use relay_engine::{LoadError, LoadErrorKind, Table};
use relay_proto::{self as proto, SNAPSHOT_BYTES_MAX, Snapshot};

use super::drafts::{BlocklistDraft, Drafts, RouteDraft};
use super::{Finding, Fleet, members_of};
use crate::inputs::{Key, Kind};

/// What travels, and what does not.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) fleets: BTreeMap<Key, Fleet>,
    /// Objects that are not valid, by themselves or to the loader.
    pub(super) refused: BTreeMap<Key, Finding>,
}

pub(super) fn settle(drafts: &Drafts) -> Settled {
    let mut settled = Settled {
        fleets: BTreeMap::new(),
        refused: refused_as_drafts(drafts),
    };
    let members = members(drafts);
    let mut unsettled: BTreeSet<&Key> = drafts.relays.keys().collect();
    while let Some(relay) = unsettled.pop_first() {
        settled.fleets.remove(relay);
        if settled.refused.contains_key(relay) {
            continue;
        }
        let nobody = Members::default();
        let snapshot = assemble(
            drafts,
            relay,
            members.get(relay).unwrap_or(&nobody),
            &settled.refused,
        );
        match check(snapshot, relay) {
            Ok(fleet) => {
                settled.fleets.insert(relay.clone(), fleet);
            }
            Err(refused) => {
                // What was refused may be in the other fleets of its namespace; and this one is to be made again.
                unsettled.extend(
                    drafts
                        .relays
                        .keys()
                        .filter(|other| other.namespace == relay.namespace),
                );
                settled.refused.extend(refused);
            }
        }
    }
    let unused = check_unused(drafts, &settled);
    settled.refused.extend(unused);
    settled
}

/// What attaches to one Relay.
#[derive(Default)]
struct Members<'a> {
    routes: Vec<&'a RouteDraft>,
    blocklists: Vec<&'a BlocklistDraft>,
}

fn members(drafts: &Drafts) -> BTreeMap<&Key, Members<'_>> {
    let mut members: BTreeMap<&Key, Members<'_>> = BTreeMap::new();
    for route in &drafts.routes {
        for relay in &route.attachment.relays {
            members.entry(relay).or_default().routes.push(route);
        }
    }
    for blocklist in &drafts.blocklists {
        for relay in &blocklist.attachment.relays {
            members.entry(relay).or_default().blocklists.push(blocklist);
        }
    }
    members
}

fn refused_as_drafts(drafts: &Drafts) -> BTreeMap<Key, Finding> {
    let relays = drafts
        .relays
        .values()
        .filter_map(|relay| Some((&relay.draft.key, relay.draft.message.as_ref().err()?)));
    let destinations = drafts
        .destinations
        .values()
        .filter_map(|draft| Some((&draft.key, draft.message.as_ref().err()?)));
    relays
        .chain(destinations)
        .map(|(key, finding)| (key.clone(), finding.clone()))
        .collect()
}

fn assemble(
    drafts: &Drafts,
    relay: &Key,
    members: &Members<'_>,
    refused: &BTreeMap<Key, Finding>,
) -> Snapshot {
    let usable = |key: &Key| !refused.contains_key(key);
    let mut snapshot = match &drafts.relays[relay].draft.message {
        Ok(beginning) => beginning.clone(),
        Err(_) => Snapshot::default(),
    };
    let mut destinations = BTreeMap::new();
    for route in &members.routes {
        let targets: Option<Vec<_>> = route
            .destinations
            .iter()
            .map(|key| {
                let draft = drafts.destinations.get(key).filter(|_| usable(key))?;
                Some((key, draft.message.as_ref().ok()?))
            })
            .collect();
        let (Some(targets), Ok(message)) = (targets, &route.draft.message) else {
            continue;
        };
        if usable(&route.draft.key) {
            destinations.extend(targets);
            snapshot.routes.push(message.clone());
        }
    }
    snapshot.blocklists = members
        .blocklists
        .iter()
        .filter(|blocklist| usable(&blocklist.draft.key))
        .filter_map(|blocklist| blocklist.draft.message.as_ref().ok().cloned())
        .collect();
    snapshot.destinations = destinations.into_values().cloned().collect();
    snapshot
}

/// The relay's own check, or what it refuses.
fn check(snapshot: Snapshot, relay: &Key) -> Result<Fleet, BTreeMap<Key, Finding>> {
    let (encoded, version) = snapshot.seal();
    if encoded.len() > SNAPSHOT_BYTES_MAX {
        let finding = Finding::new(
            Reason::UnsupportedValue,
            format!(
                "all that attaches to this Relay makes a snapshot of {} bytes and relays take at most \
                 {SNAPSHOT_BYTES_MAX}: split it over several Relays",
                encoded.len()
            ),
        );
        return Err(BTreeMap::from([(relay.clone(), finding)]));
    }
    match Table::load(&snapshot) {
        Ok(_) => Ok(Fleet {
            snapshot,
            encoded: Bytes::from(encoded),
            version,
        }),
        Err(errors) => Err(blame(&snapshot, relay, errors)),
    }
}

// An error that names nothing in the snapshot is laid at the Relay's door: somebody must be left out, or this never ends.
fn blame(snapshot: &Snapshot, relay: &Key, errors: Vec<LoadError>) -> BTreeMap<Key, Finding> {
    let present: BTreeSet<Key> = members_of(snapshot).collect();
    let mut by_object: BTreeMap<Key, Vec<LoadError>> = BTreeMap::new();
    for error in errors {
        let key = Key::from_ref(&error.object)
            .filter(|key| present.contains(key))
            .unwrap_or_else(|| relay.clone());
        by_object.entry(key).or_default().push(error);
    }
    by_object
        .into_iter()
        .filter_map(|(key, errors)| Some((key, summary(&errors)?)))
        .collect()
}

// An object has one reason, and people want to mend everything at once: the first error gives the reason, a few more follow.
const ERRORS_SHOWN_MAX: usize = 5;

fn summary(errors: &[LoadError]) -> Option<Finding> {
    let (first, others) = errors.split_first()?;
    let reason = match first.kind {
        LoadErrorKind::InvalidPattern => Reason::InvalidPattern,
        LoadErrorKind::UnsupportedValue => Reason::UnsupportedValue,
    };
    let mut message = first.message.clone();
    for other in others.iter().take(ERRORS_SHOWN_MAX - 1) {
        message.push_str(&format!("; spec.{}: {}", other.field, other.message));
    }
    if errors.len() > ERRORS_SHOWN_MAX {
        message.push_str(&format!("; and {} more", errors.len() - ERRORS_SHOWN_MAX));
    }
    Some(Finding {
        reason,
        field: Some(first.field.clone()).filter(|field| !field.is_empty()),
        message,
    })
}

// A Destination that no snapshot holds is checked all the same, so that its fault shows before a Route comes to use it.
fn check_unused(drafts: &Drafts, settled: &Settled) -> BTreeMap<Key, Finding> {
    let used: BTreeSet<Key> = settled.fleets.values().flat_map(Fleet::members).collect();
    let unused = Snapshot {
        schema: proto::SCHEMA,
        destinations: drafts
            .destinations
            .values()
            .filter(|draft| !used.contains(&draft.key))
            .filter_map(|draft| draft.message.as_ref().ok().cloned())
            .collect(),
        ..Snapshot::default()
    };
    let errors = Table::load(&unused).err().unwrap_or_default();
    let nobody = Key::new(Kind::Relay, "", "");
    let mut refused = blame(&unused, &nobody, errors);
    refused.remove(&nobody);
    refused
}
