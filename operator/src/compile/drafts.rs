//! Each object alone: its message, or why it cannot become one; and the Relays that it attaches to.

mod aggregator;
mod attachment;
mod destination;
mod permission;
mod relay;
mod rewriter;
mod route;
mod secrets;
mod sink;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use crds::{AllowedFrom, Compression, RelayRef};
use kube::ResourceExt;
use relay_proto as proto;

pub(crate) use attachment::Attachment;
use attachment::Relays;
use permission::Permission;

use super::Finding;
use crate::inputs::{Inputs, Key, Kind, Objects};

/// An object on its way into snapshots.
#[derive(Debug)]
pub(crate) struct Draft<M> {
    pub(crate) key: Key,
    pub(crate) generation: i64,
    /// What travels, or why the object cannot.
    pub(crate) message: Result<M, Finding>,
}

/// A Relay: what its fleet's snapshot begins with.
#[derive(Debug)]
pub(crate) struct RelayDraft {
    pub(crate) draft: Draft<proto::Snapshot>,
    /// That it claims to be the default of its namespace, but another is.
    pub(crate) conflict: Option<Finding>,
}

/// A Destination.
#[derive(Debug)]
pub(crate) struct DestinationDraft {
    pub(crate) draft: Draft<proto::Destination>,
    /// What it refers to and does not get, although it runs.
    pub(crate) unresolved: Option<Finding>,
}

/// An object that Relays run.
#[derive(Debug)]
pub(crate) struct Attached<M> {
    pub(crate) draft: Draft<M>,
    pub(crate) attachment: Attachment,
}

/// A Route, with what it refers to.
#[derive(Debug)]
pub(crate) struct RouteDraft {
    pub(crate) route: Attached<proto::Route>,
    /// In the order of the resource.
    pub(crate) destinations: Vec<Key>,
    /// The first of them, by its place, that is of another namespace and does not exist or does not allow this one.
    pub(crate) forbidden: Option<usize>,
}

/// Every object. Where the order of evaluation matters it is: priority from high to low, then namespace, then name.
#[derive(Debug)]
pub(crate) struct Drafts {
    pub(crate) relays: BTreeMap<Key, RelayDraft>,
    pub(crate) destinations: BTreeMap<Key, DestinationDraft>,
    pub(crate) blocklists: Vec<Attached<proto::Blocklist>>,
    /// In the order of evaluation.
    pub(crate) rewriters: Vec<Attached<proto::Rewriter>>,
    /// In the order of evaluation.
    pub(crate) aggregators: Vec<Attached<proto::Aggregator>>,
    /// In the order of evaluation.
    pub(crate) routes: Vec<RouteDraft>,
}

impl Drafts {
    pub(crate) fn of(inputs: &Inputs) -> Self {
        let objects = inputs.objects();
        let permission = Permission {
            namespaces: &objects.namespaces,
        };
        let relays = Relays::of(&objects.relays, &permission);
        let references = destination::References {
            secrets: &objects.secrets,
            services: &objects.services,
        };
        let blocklists = objects.blocklists.iter().map(|object| {
            let draft = draft(Kind::Blocklist, object.as_ref(), |object, key| {
                Ok(route::blocklist(object, key))
            });
            attached(draft, &relays, &object.spec.relay_refs)
        });
        let rewriters = by_priority(&objects.rewriters, |object| object.spec.priority);
        let rewriters = rewriters.into_iter().map(|object| {
            let draft = draft(Kind::Rewriter, object, rewriter::message);
            attached(draft, &relays, &object.spec.relay_refs)
        });
        let aggregators = by_priority(&objects.aggregators, |object| object.spec.priority);
        let aggregators = aggregators.into_iter().map(|object| {
            let draft = draft(Kind::Aggregator, object, |object, key| {
                Ok(aggregator::message(object, key))
            });
            attached(draft, &relays, &object.spec.relay_refs)
        });
        Self {
            relays: objects
                .relays
                .iter()
                .map(|relay| {
                    let draft = draft(Kind::Relay, relay.as_ref(), |relay, key| {
                        relay::message(relay, key, &objects.secrets)
                    });
                    let conflict = relays.conflict(relay);
                    (draft.key.clone(), RelayDraft { draft, conflict })
                })
                .collect(),
            destinations: objects
                .destinations
                .iter()
                .map(|object| {
                    let draft = draft(Kind::Destination, object.as_ref(), |object, key| {
                        destination::message(object, key, &references)
                    });
                    let unresolved =
                        destination::unresolved(object, &draft.key, references.services);
                    (draft.key.clone(), DestinationDraft { draft, unresolved })
                })
                .collect(),
            blocklists: blocklists.collect(),
            rewriters: rewriters.collect(),
            aggregators: aggregators.collect(),
            routes: routes(objects, &relays, &permission),
        }
    }
}

fn routes(objects: &Objects, relays: &Relays<'_>, permission: &Permission<'_>) -> Vec<RouteDraft> {
    let allowed_from: BTreeMap<Key, &AllowedFrom> = objects
        .destinations
        .iter()
        .map(|object| {
            let key = Key::of(Kind::Destination, object.as_ref());
            (key, &object.spec.allowed_from)
        })
        .collect();
    let routes = by_priority(&objects.routes, |object| object.spec.priority);
    let routes = routes.into_iter().map(|object| {
        let draft = draft(Kind::Route, object, |object, key| {
            Ok(route::message(object, key))
        });
        let destinations = route::destinations(object);
        let namespace = &draft.key.namespace;
        let is_given = |key: &Key| {
            key.namespace == *namespace
                || allowed_from.get(key).is_some_and(|allowed| {
                    let selector = allowed.selector.as_ref();
                    let which = allowed.namespaces;
                    permission.is_given(&key.namespace, which, selector, namespace)
                })
        };
        RouteDraft {
            forbidden: destinations.iter().position(|key| !is_given(key)),
            destinations,
            route: attached(draft, relays, &object.spec.relay_refs),
        }
    });
    routes.collect()
}

// `objects` are sorted by namespace, then name, and stay so where priorities are equal.
fn by_priority<K>(objects: &[Arc<K>], priority: impl Fn(&K) -> i32) -> Vec<&K> {
    let mut ordered: Vec<&K> = objects.iter().map(AsRef::as_ref).collect();
    ordered.sort_by_key(|object| Reverse(priority(object)));
    ordered
}

fn attached<M>(draft: Draft<M>, relays: &Relays<'_>, refs: &[RelayRef]) -> Attached<M> {
    Attached {
        attachment: relays.attach(&draft.key.namespace, refs),
        draft,
    }
}

fn draft<K: ResourceExt, M>(
    kind: Kind,
    object: &K,
    message: impl Fn(&K, &Key) -> Result<M, Finding>,
) -> Draft<M> {
    let key = Key::of(kind, object);
    Draft {
        message: message(object, &key),
        // Objects that never met an API server have no generation.
        generation: object.meta().generation.unwrap_or(0),
        key,
    }
}

fn compression(compression: Option<Compression>) -> proto::Compression {
    match compression {
        None => proto::Compression::Unspecified,
        Some(Compression::Gzip) => proto::Compression::Gzip,
        Some(Compression::Lz4) => proto::Compression::Lz4,
        Some(Compression::Snappy) => proto::Compression::Snappy,
        Some(Compression::Zstd) => proto::Compression::Zstd,
    }
}

// Objects that must not take over what another one of their name left behind are known by this to relays.
fn id(object: &impl ResourceExt, key: &Key) -> String {
    object
        .uid()
        .unwrap_or_else(|| format!("{}/{}", key.namespace, key.name))
}
