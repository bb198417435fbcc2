//! Drafts → the snapshot of each fleet, checked with the relay's own loader.
//!
//! What the loader refuses is left out, and the snapshot is made again without it, until it loads. Each turn refuses at
//! least one more object, so this ends; and one bad object takes along only the Routes that name it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use crds::Reason;
use relay_engine::{IdleTarget, LoadError, LoadErrorKind, Table, shadowed};
use relay_proto::{self as proto, SNAPSHOT_BYTES_MAX, Snapshot};

use super::drafts::{Attached, Attachment, Draft, Drafts, RouteDraft};
use super::{Finding, Fleet, members_of};
use crate::inputs::{Key, Kind};

/// What travels, and what does not.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) fleets: BTreeMap<Key, Fleet>,
    /// Objects that are not valid, by themselves or to the loader.
    pub(super) refused: BTreeMap<Key, Finding>,
    /// What is hardly meant, of objects that travel.
    pub(super) warnings: BTreeMap<Key, Vec<Finding>>,
}

pub(super) fn settle(drafts: &Drafts) -> Settled {
    let mut settled = Settled {
        fleets: BTreeMap::new(),
        refused: refused_as_drafts(drafts),
        warnings: BTreeMap::new(),
    };
    let members = Members::of(drafts);
    let mut idle: BTreeMap<&Key, Vec<IdleTarget>> = BTreeMap::new();
    let mut unsettled: BTreeSet<&Key> = drafts.relays.keys().collect();
    while let Some(relay) = unsettled.pop_first() {
        settled.fleets.remove(relay);
        if settled.refused.contains_key(relay) {
            continue;
        }
        let snapshot = assemble(drafts, relay, &members, &settled.refused);
        match check(snapshot, relay) {
            Ok((fleet, idle_targets)) => {
                settled.fleets.insert(relay.clone(), fleet);
                idle.insert(relay, idle_targets);
            }
            Err(refused) => {
                // What was refused may be in other fleets; and this one is to be made again.
                let holds = |fleet: &Fleet| fleet.members().any(|key| refused.contains_key(&key));
                unsettled.extend(drafts.relays.keys().filter(|other| {
                    *other == relay || settled.fleets.get(other).is_some_and(holds)
                }));
                settled.refused.extend(refused);
            }
        }
    }
    let unused = check_unused(drafts, &settled);
    settled.refused.extend(unused);
    for (relay, fleet) in &settled.fleets {
        let idle_targets = idle.remove(relay).unwrap_or_default();
        for (key, warning) in warnings(relay, fleet, idle_targets) {
            let known = settled.warnings.entry(key).or_default();
            // One that is in several fleets is told once.
            if !known.iter().any(|other| other.reason == warning.reason) {
                known.push(warning);
            }
        }
    }
    settled
}

/// What attaches to each Relay, in the order of the drafts.
struct Members<'a> {
    blocklists: ByRelay<'a, Attached<proto::Blocklist>>,
    rewriters: ByRelay<'a, Attached<proto::Rewriter>>,
    aggregators: ByRelay<'a, Attached<proto::Aggregator>>,
    routes: ByRelay<'a, RouteDraft>,
}

type ByRelay<'a, T> = BTreeMap<&'a Key, Vec<&'a T>>;

impl<'a> Members<'a> {
    fn of(drafts: &'a Drafts) -> Self {
        Self {
            blocklists: by_relay(&drafts.blocklists, |item| &item.attachment),
            rewriters: by_relay(&drafts.rewriters, |item| &item.attachment),
            aggregators: by_relay(&drafts.aggregators, |item| &item.attachment),
            routes: by_relay(&drafts.routes, |item| &item.route.attachment),
        }
    }
}

fn by_relay<T>(drafts: &[T], attachment: impl Fn(&T) -> &Attachment) -> ByRelay<'_, T> {
    let mut members = ByRelay::new();
    for item in drafts {
        for relay in &attachment(item).relays {
            members.entry(relay).or_default().push(item);
        }
    }
    members
}

fn refused_as_drafts(drafts: &Drafts) -> BTreeMap<Key, Finding> {
    let mut refused = BTreeMap::new();
    note(&mut refused, drafts.relays.values().map(|item| &item.draft));
    note(
        &mut refused,
        drafts.destinations.values().map(|item| &item.draft),
    );
    note(
        &mut refused,
        drafts.blocklists.iter().map(|item| &item.draft),
    );
    note(
        &mut refused,
        drafts.rewriters.iter().map(|item| &item.draft),
    );
    note(
        &mut refused,
        drafts.aggregators.iter().map(|item| &item.draft),
    );
    note(
        &mut refused,
        drafts.routes.iter().map(|item| &item.route.draft),
    );
    refused
}

fn note<'a, M: 'a>(
    refused: &mut BTreeMap<Key, Finding>,
    drafts: impl Iterator<Item = &'a Draft<M>>,
) {
    refused.extend(drafts.filter_map(|draft| {
        let finding = draft.message.as_ref().err()?;
        Some((draft.key.clone(), finding.clone()))
    }));
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
    snapshot.blocklists = messages(&members.blocklists, relay, usable);
    snapshot.rewriters = messages(&members.rewriters, relay, usable);
    snapshot.aggregators = messages(&members.aggregators, relay, usable);
    let mut destinations = BTreeMap::new();
    for route in members.routes.get(relay).into_iter().flatten() {
        if route.forbidden.is_some() {
            continue;
        }
        let targets: Option<Vec<_>> = route
            .destinations
            .iter()
            .map(|key| {
                let item = drafts.destinations.get(key).filter(|_| usable(key))?;
                Some((key, item.draft.message.as_ref().ok()?))
            })
            .collect();
        let draft = &route.route.draft;
        let (Some(targets), Ok(message)) = (targets, &draft.message) else {
            continue;
        };
        if usable(&draft.key) {
            destinations.extend(targets);
            snapshot.routes.push(message.clone());
        }
    }
    snapshot.destinations = destinations.into_values().cloned().collect();
    snapshot
}

fn messages<M: Clone>(
    members: &ByRelay<'_, Attached<M>>,
    relay: &Key,
    usable: impl Fn(&Key) -> bool,
) -> Vec<M> {
    let drafts = members.get(relay).into_iter().flatten();
    drafts
        .map(|item| &item.draft)
        .filter(|draft| usable(&draft.key))
        .filter_map(|draft| draft.message.as_ref().ok().cloned())
        .collect()
}

/// The relay's own check, or what it refuses.
fn check(
    snapshot: Snapshot,
    relay: &Key,
) -> Result<(Fleet, Vec<IdleTarget>), BTreeMap<Key, Finding>> {
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
        Ok(table) => {
            let idle = table.idle_targets();
            let fleet = Fleet {
                snapshot,
                encoded: Bytes::from(encoded),
                version,
            };
            Ok((fleet, idle))
        }
        Err(errors) => Err(blame(&snapshot, relay, errors)),
    }
}

fn warnings(
    relay: &Key,
    fleet: &Fleet,
    idle_targets: Vec<IdleTarget>,
) -> impl Iterator<Item = (Key, Finding)> {
    let shadowed = shadowed(&fleet.snapshot)
        .into_iter()
        .filter_map(move |shadowed| {
            let key = Key::from_ref(&shadowed.route)?;
            // Of another namespace nothing is told.
            let why = match shadowed.by.namespace == key.namespace {
                true => shadowed.why,
                false => "a Route of another namespace takes all that this one could".to_owned(),
            };
            let message = format!("no line reaches it in {relay}: {why}");
            Some((key, Finding::new(Reason::Shadowed, message)))
        });
    let idle = idle_targets.into_iter().filter_map(|idle| {
        let message = "it owns no series, for the algorithm takes it for another destination of this route: give each an \
                       instance of its own";
        let field = format!("destinations[{}]", idle.target);
        let finding = Finding::at(field, Reason::IdleDestination, message);
        Some((Key::from_ref(&idle.route)?, finding))
    });
    shadowed.chain(idle)
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
            .map(|item| &item.draft)
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
