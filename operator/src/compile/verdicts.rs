//! What came of each object.

use std::collections::{BTreeMap, BTreeSet};

use crds::Reason;

use super::drafts::{Attachment, Drafts, RelayDraft, RouteDraft};
use super::fleets::Settled;
use super::{Finding, Verdict};
use crate::inputs::{Key, Kind};

pub(super) fn verdicts(drafts: &Drafts, settled: &Settled) -> BTreeMap<Key, Verdict> {
    let holders = holders(settled);
    let verdict = |key: &Key, generation, accepted: Option<Finding>, resolved: Option<Finding>| {
        let verdict = Verdict {
            generation,
            accepted: accepted.unwrap_or_else(|| accepted_by(key, &holders)),
            resolved_refs: resolved
                .unwrap_or_else(|| Finding::new(Reason::ResolvedRefs, "every reference resolves")),
            fleets: holders.get(key).cloned().unwrap_or_default(),
        };
        (key.clone(), verdict)
    };
    let refused = |key: &Key| settled.refused.get(key).cloned();
    let relays = drafts
        .relays
        .values()
        .map(|RelayDraft { draft, conflict }| {
            let accepted = refused(&draft.key).or_else(|| conflict.clone());
            verdict(&draft.key, draft.generation, accepted, None)
        });
    let destinations = drafts
        .destinations
        .values()
        .map(|draft| verdict(&draft.key, draft.generation, refused(&draft.key), None));
    let routes = drafts.routes.iter().map(|route| {
        let accepted = refused(&route.draft.key).or_else(|| unattached(&route.attachment));
        let resolved = unresolved_destination(route, drafts, settled)
            .or_else(|| unresolved_relay(&route.attachment, settled));
        verdict(&route.draft.key, route.draft.generation, accepted, resolved)
    });
    let blocklists = drafts.blocklists.iter().map(|blocklist| {
        let draft = &blocklist.draft;
        let accepted = refused(&draft.key).or_else(|| unattached(&blocklist.attachment));
        let resolved = unresolved_relay(&blocklist.attachment, settled);
        verdict(&draft.key, draft.generation, accepted, resolved)
    });
    relays
        .chain(destinations)
        .chain(routes)
        .chain(blocklists)
        .collect()
}

/// The Relays whose snapshot holds each object.
fn holders(settled: &Settled) -> BTreeMap<Key, BTreeSet<Key>> {
    let mut holders: BTreeMap<Key, BTreeSet<Key>> = BTreeMap::new();
    for (relay, fleet) in &settled.fleets {
        for key in fleet.members() {
            holders.entry(key).or_default().insert(relay.clone());
        }
    }
    holders
}

fn accepted_by(key: &Key, holders: &BTreeMap<Key, BTreeSet<Key>>) -> Finding {
    let message = match (key.kind, holders.get(key)) {
        (Kind::Route | Kind::Blocklist, Some(relays)) => {
            let relays: Vec<String> = relays.iter().map(Key::to_string).collect();
            format!("valid and attached to {}", relays.join(", "))
        }
        (Kind::Route | Kind::Blocklist, None) | (Kind::Relay | Kind::Destination, _) => {
            "valid".to_owned()
        }
    };
    Finding::new(Reason::Accepted, message)
}

// An object that some of its Relays run is accepted, and what is missing is a reference that does not resolve; one that
// none runs is not accepted.
fn unattached(attachment: &Attachment) -> Option<Finding> {
    attachment
        .missing
        .clone()
        .filter(|_| attachment.relays.is_empty())
}

fn unresolved_relay(attachment: &Attachment, settled: &Settled) -> Option<Finding> {
    if attachment.relays.is_empty() {
        return None;
    }
    let refused = attachment
        .relays
        .iter()
        .find(|relay| settled.refused.contains_key(relay));
    attachment.missing.clone().or_else(|| {
        refused.map(|relay| {
            Finding::new(
                Reason::RelayNotAccepted,
                format!("{relay} is not accepted, so its pods get nothing new: see its status"),
            )
        })
    })
}

fn unresolved_destination(
    route: &RouteDraft,
    drafts: &Drafts,
    settled: &Settled,
) -> Option<Finding> {
    let named = || route.destinations.iter().enumerate();
    let missing = named().find(|(_, key)| !drafts.destinations.contains_key(key));
    let refused = named().find(|(_, key)| settled.refused.contains_key(key));
    let (i, reason, message) = match (missing, refused) {
        (Some((i, key)), _) => (
            i,
            Reason::DestinationNotFound,
            format!(
                "{key} does not exist, so the whole route is left out: create it, or name another"
            ),
        ),
        (None, Some((i, key))) => (
            i,
            Reason::DestinationNotAccepted,
            format!("{key} is not accepted, so the whole route is left out: see its status"),
        ),
        (None, None) => return None,
    };
    Some(Finding::at(
        format!("destinations[{i}].name"),
        reason,
        message,
    ))
}
