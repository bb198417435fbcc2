//! Which Relays run an object: those that it names in its namespace, or the one labelled as the default there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{DEFAULT_RELAY_LABEL, Reason, Relay, RelayRef};
use kube::ResourceExt as _;

use crate::compile::Finding;
use crate::inputs::{Key, Kind};

/// The Relays that an object attaches to.
#[derive(Debug)]
pub(crate) struct Attachment {
    /// Those that exist.
    pub(crate) relays: BTreeSet<Key>,
    /// That those it names do not all exist, or that there is no default.
    pub(crate) missing: Option<Finding>,
}

/// The Relays that exist, and which of them is the default of its namespace.
///
/// Two Relays of a namespace may both be labelled. Then the one whose name sorts first is the default: never the older one,
/// because creation times change when a cluster is built anew from the same Git content. The others go on running what
/// names them, and say so.
pub(crate) struct Relays {
    all: BTreeSet<Key>,
    defaults: BTreeMap<String, Key>,
}

impl Relays {
    /// `relays` are sorted.
    pub(crate) fn of(relays: &[Arc<Relay>]) -> Self {
        let mut defaults = BTreeMap::new();
        for relay in relays.iter().filter(|relay| claims_default(relay)) {
            let key = Key::of(Kind::Relay, relay.as_ref());
            defaults.entry(key.namespace.clone()).or_insert(key);
        }
        let all = relays
            .iter()
            .map(|relay| Key::of(Kind::Relay, relay.as_ref()))
            .collect();
        Self { all, defaults }
    }

    /// That `relay` is labelled as the default, but another comes before it.
    pub(crate) fn conflict(&self, relay: &Relay) -> Option<Finding> {
        let key = Key::of(Kind::Relay, relay);
        let winner = self.defaults.get(&key.namespace)?;
        (claims_default(relay) && *winner != key).then(|| {
            Finding::new(
                Reason::Conflicted,
                format!(
                    "{winner} is labelled {DEFAULT_RELAY_LABEL}=true too and its name sorts first: this Relay runs only \
                     what names it; remove the label from one of them"
                ),
            )
        })
    }

    /// Where an object of `namespace` with `refs` attaches.
    pub(crate) fn attach(&self, namespace: &str, refs: &[RelayRef]) -> Attachment {
        if refs.is_empty() {
            return match self.defaults.get(namespace) {
                Some(relay) => Attachment {
                    relays: BTreeSet::from([relay.clone()]),
                    missing: None,
                },
                None => Attachment {
                    relays: BTreeSet::new(),
                    missing: Some(Finding::new(
                        Reason::NoMatchingRelay,
                        format!(
                            "no Relay in namespace {namespace} is labelled {DEFAULT_RELAY_LABEL}=true: label one, or \
                             name a Relay in spec.relayRefs"
                        ),
                    )),
                },
            };
        }
        let (relays, missing): (BTreeSet<Key>, BTreeSet<Key>) = refs
            .iter()
            .map(|reference| Key::new(Kind::Relay, namespace, reference.name.as_str()))
            .partition(|key| self.all.contains(key));
        Attachment {
            missing: missing.first().map(|first| {
                let others = match missing.len() {
                    1 => String::new(),
                    count => format!(" (nor do {} others)", count - 1),
                };
                Finding::at(
                    "relayRefs",
                    Reason::NoMatchingRelay,
                    format!("{first} does not exist{others}: create it, or name one that exists"),
                )
            }),
            relays,
        }
    }
}

fn claims_default(relay: &Relay) -> bool {
    relay
        .labels()
        .get(DEFAULT_RELAY_LABEL)
        .is_some_and(|value| value == "true")
}
