//! What came of each object.

use std::collections::{BTreeMap, BTreeSet};

use crds::Reason;

use super::drafts::{Attached, Attachment, Draft, Drafts, RouteDraft};
use super::fleets::Settled;
use super::{Finding, Verdict};
use crate::inputs::{Key, Kind};

pub(super) fn verdicts(drafts: &Drafts, settled: &Settled) -> BTreeMap<Key, Verdict> {
    let judge = Judge {
        settled,
        holders: holders(settled),
    };
    let relays = drafts
        .relays
        .values()
        .map(|relay| judge.verdict(&relay.draft, relay.conflict.clone(), None));
    let destinations = drafts
        .destinations
        .values()
        .map(|item| judge.verdict(&item.draft, None, item.unresolved.clone()));
    let blocklists = drafts
        .blocklists
        .iter()
        .map(|item| judge.attached(item, None));
    let rewriters = drafts
        .rewriters
        .iter()
        .map(|item| judge.attached(item, None));
    let aggregators = drafts
        .aggregators
        .iter()
        .map(|item| judge.attached(item, None));
    let routes = drafts.routes.iter().map(|item| {
        let unresolved = unresolved_destination(item, drafts, settled);
        judge.attached(&item.route, unresolved)
    });
    relays
        .chain(destinations)
        .chain(blocklists)
        .chain(rewriters)
        .chain(aggregators)
        .chain(routes)
        .collect()
}

struct Judge<'a> {
    settled: &'a Settled,
    holders: BTreeMap<Key, BTreeSet<Key>>,
}

impl Judge<'_> {
    // `unresolved` is what it refers to beside Relays and does not get.
    fn attached<M>(&self, item: &Attached<M>, unresolved: Option<Finding>) -> (Key, Verdict) {
        let unresolved = unresolved.or_else(|| unresolved_relay(&item.attachment, self.settled));
        self.verdict(&item.draft, unattached(&item.attachment), unresolved)
    }

    // `unaccepted` is what is wrong with an object that is valid by itself.
    fn verdict<M>(
        &self,
        draft: &Draft<M>,
        unaccepted: Option<Finding>,
        unresolved: Option<Finding>,
    ) -> (Key, Verdict) {
        let key = &draft.key;
        let refused = self.settled.refused.get(key).cloned();
        // Without its Secret an object is left out, but it is valid.
        let (refused, unresolved) = match refused {
            Some(finding) if finding.is_about_reference() => (None, Some(finding)),
            refused => (refused, unresolved),
        };
        let verdict = Verdict {
            warnings: self.settled.warnings.get(key).cloned().unwrap_or_default(),
            generation: draft.generation,
            accepted: refused
                .or(unaccepted)
                .unwrap_or_else(|| accepted_by(key, &self.holders)),
            resolved_refs: unresolved
                .unwrap_or_else(|| Finding::new(Reason::ResolvedRefs, "every reference resolves")),
            fleets: self.holders.get(key).cloned().unwrap_or_default(),
        };
        (key.clone(), verdict)
    }
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
    let relays = match key.kind {
        Kind::Relay | Kind::Destination => None,
        Kind::Route | Kind::Blocklist | Kind::Rewriter | Kind::Aggregator => holders.get(key),
    };
    let message = match relays {
        Some(relays) => {
            let relays: Vec<String> = relays.iter().map(Key::to_string).collect();
            format!("valid and attached to {}", relays.join(", "))
        }
        None => "valid".to_owned(),
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
        .find_map(|relay| Some((relay, settled.refused.get(relay)?)));
    attachment.missing.clone().or_else(|| {
        refused.map(|(relay, finding)| {
            let fault = fault(finding);
            Finding::new(
                Reason::RelayNotAccepted,
                format!("{relay} {fault}, so its pods get nothing new: see its status"),
            )
        })
    })
}

fn fault(finding: &Finding) -> &'static str {
    match finding.is_about_reference() {
        true => "lacks a Secret",
        false => "is not accepted",
    }
}

fn unresolved_destination(
    route: &RouteDraft,
    drafts: &Drafts,
    settled: &Settled,
) -> Option<Finding> {
    let named = || route.destinations.iter().enumerate();
    if let Some((i, key)) = route.forbidden.and_then(|place| named().nth(place)) {
        // Of another namespace nothing is told, not even what exists there.
        let namespace = &route.route.draft.key.namespace;
        let message = format!(
            "{key} does not exist or does not allow namespace {namespace}, so the whole route is left out: its \
             spec.allowedFrom is to include it"
        );
        let field = format!("destinations[{i}]");
        return Some(Finding::at(field, Reason::RefNotPermitted, message));
    }
    let missing = named().find(|(_, key)| !drafts.destinations.contains_key(key));
    let refused = named().find_map(|(i, key)| Some((i, key, settled.refused.get(key)?)));
    let (i, reason, message) = match (missing, refused) {
        (Some((i, key)), _) => (
            i,
            Reason::DestinationNotFound,
            format!(
                "{key} does not exist, so the whole route is left out: create it, or name another"
            ),
        ),
        (None, Some((i, key, finding))) => {
            let fault = fault(finding);
            (
                i,
                Reason::DestinationNotAccepted,
                format!("{key} {fault}, so the whole route is left out: see its status"),
            )
        }
        (None, None) => return None,
    };
    Some(Finding::at(
        format!("destinations[{i}].name"),
        reason,
        message,
    ))
}
