//! Which Relays run an object: those that it names and that allow its namespace, or the one labelled as the default there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{DEFAULT_RELAY_LABEL, Reason, Relay, RelayRef};
use kube::ResourceExt as _;

use super::permission::Permission;
use crate::compile::Finding;
use crate::inputs::{Key, Kind};

/// The Relays that an object attaches to.
#[derive(Debug)]
pub(crate) struct Attachment {
    /// Those that exist and allow it.
    pub(crate) relays: BTreeSet<Key>,
    /// That not all it names are among them, or that there is no default.
    pub(crate) missing: Option<Finding>,
}

/// The Relays that exist, and which of them is the default of its namespace.
///
/// Two Relays of a namespace may both be labelled. Then the one whose name sorts first is the default: never the older one,
/// because creation times change when a cluster is built anew from the same Git content. The others go on running what
/// names them, and say so.
pub(crate) struct Relays<'a> {
    all: BTreeMap<Key, &'a Relay>,
    defaults: BTreeMap<String, Key>,
    permission: &'a Permission<'a>,
}

impl<'a> Relays<'a> {
    /// `relays` are sorted.
    pub(crate) fn of(relays: &'a [Arc<Relay>], permission: &'a Permission<'a>) -> Self {
        let mut defaults = BTreeMap::new();
        for relay in relays.iter().filter(|relay| claims_default(relay)) {
            let key = Key::of(Kind::Relay, relay.as_ref());
            defaults.entry(key.namespace.clone()).or_insert(key);
        }
        let all = relays
            .iter()
            .map(|relay| (Key::of(Kind::Relay, relay.as_ref()), relay.as_ref()))
            .collect();
        Self {
            all,
            defaults,
            permission,
        }
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
        let key = |reference: &RelayRef| {
            let named = reference.namespace.as_deref().unwrap_or(namespace);
            Key::new(Kind::Relay, named, reference.name.as_str())
        };
        let (relays, missing): (BTreeSet<Key>, BTreeSet<Key>) = refs
            .iter()
            .map(key)
            .partition(|key| self.is_given(key, namespace));
        Attachment {
            missing: missing
                .first()
                .map(|first| self::missing(first, missing.len() - 1, namespace)),
            relays,
        }
    }

    fn is_given(&self, relay: &Key, namespace: &str) -> bool {
        self.all.get(relay).is_some_and(|object| {
            let allowed = &object.spec.allowed_namespaces;
            let selector = allowed.selector.as_ref();
            self.permission
                .is_given(&relay.namespace, allowed.from, selector, namespace)
        })
    }
}

// Of another namespace nothing is told, not even what exists there.
fn missing(first: &Key, others: usize, namespace: &str) -> Finding {
    let others = match others {
        0 => String::new(),
        others => format!(" (nor do {others} others)"),
    };
    let (reason, message) = if first.namespace == namespace {
        (
            Reason::NoMatchingRelay,
            format!("{first} does not exist{others}: create it, or name one that exists"),
        )
    } else {
        (
            Reason::NotAllowedByRelay,
            format!(
                "{first} does not exist or does not allow namespace {namespace}{others}: its spec.allowedNamespaces is to \
                 include it"
            ),
        )
    };
    Finding::at("relayRefs", reason, message)
}

fn claims_default(relay: &Relay) -> bool {
    relay
        .labels()
        .get(DEFAULT_RELAY_LABEL)
        .is_some_and(|value| value == "true")
}
