//! Each object alone: its message, or why it cannot become one; and the Relays that it attaches to.

mod attachment;
mod destination;
mod relay;
mod route;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use kube::{Resource as _, ResourceExt};
use relay_proto as proto;

pub(crate) use attachment::Attachment;
use attachment::Relays;

use super::Finding;
use crate::inputs::{Inputs, Key, Kind};

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

/// A Route, with what it refers to.
#[derive(Debug)]
pub(crate) struct RouteDraft {
    pub(crate) draft: Draft<proto::Route>,
    pub(crate) attachment: Attachment,
    /// In the order of the resource.
    pub(crate) destinations: Vec<Key>,
}

/// A Blocklist, with what it refers to.
#[derive(Debug)]
pub(crate) struct BlocklistDraft {
    pub(crate) draft: Draft<proto::Blocklist>,
    pub(crate) attachment: Attachment,
}

/// Every object.
#[derive(Debug)]
pub(crate) struct Drafts {
    pub(crate) relays: BTreeMap<Key, RelayDraft>,
    pub(crate) destinations: BTreeMap<Key, Draft<proto::Destination>>,
    /// In the order of evaluation: priority from high to low, then namespace, then name.
    pub(crate) routes: Vec<RouteDraft>,
    pub(crate) blocklists: Vec<BlocklistDraft>,
}

impl Drafts {
    pub(crate) fn of(inputs: &Inputs) -> Self {
        let relays = Relays::of(inputs.relays());
        let mut routes: Vec<_> = inputs.routes().iter().collect();
        routes.sort_by_key(|route| Reverse(route.spec.priority));
        Self {
            relays: inputs
                .relays()
                .iter()
                .map(|relay| {
                    let draft = draft(Kind::Relay, relay.as_ref(), relay::message);
                    let conflict = relays.conflict(relay);
                    (draft.key.clone(), RelayDraft { draft, conflict })
                })
                .collect(),
            destinations: inputs
                .destinations()
                .iter()
                .map(|object| {
                    let draft = draft(Kind::Destination, object.as_ref(), destination::message);
                    (draft.key.clone(), draft)
                })
                .collect(),
            routes: routes
                .into_iter()
                .map(|object| RouteDraft {
                    draft: draft(Kind::Route, object.as_ref(), |route, key| {
                        Ok(route::message(route, key))
                    }),
                    attachment: relays.attach(object.meta(), &object.spec.relay_refs),
                    destinations: route::destinations(object),
                })
                .collect(),
            blocklists: inputs
                .blocklists()
                .iter()
                .map(|object| BlocklistDraft {
                    draft: draft(Kind::Blocklist, object.as_ref(), |blocklist, key| {
                        Ok(route::blocklist(blocklist, key))
                    }),
                    attachment: relays.attach(object.meta(), &object.spec.relay_refs),
                })
                .collect(),
        }
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
