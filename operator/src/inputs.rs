//! [`Inputs`]: all resources at one moment, sorted, each with its identity.
//!
//! The reflectors (or the files of a directory) fill it; [`crate::compile`] alone reads it.

use std::{fmt, sync::Arc};

use crds::{Blocklist, Destination, Relay, Route};
use kube::ResourceExt;
use relay_proto::ObjectRef;

/// A kind of resource that is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A fleet of relay pods.
    Relay,
    /// Who gets lines.
    Destination,
    /// Which lines go where.
    Route,
    /// Lines to drop.
    Blocklist,
}

impl Kind {
    /// Every kind, in the order in which a reader meets them.
    pub const ALL: [Self; 4] = [Self::Relay, Self::Destination, Self::Route, Self::Blocklist];

    /// The kind as a manifest spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Relay => "Relay",
            Self::Destination => "Destination",
            Self::Route => "Route",
            Self::Blocklist => "Blocklist",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What identifies an object. Displays as `Route default/web`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The object's kind.
    pub kind: Kind,
    /// The object's namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
}

impl Key {
    /// The identity of `kind` `namespace`/`name`.
    pub fn new(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            kind,
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The identity of an object of `kind`.
    pub fn of(kind: Kind, object: &impl ResourceExt) -> Self {
        Self::new(
            kind,
            object.namespace().unwrap_or_default(),
            object.name_any(),
        )
    }

    /// The identity in a message, or `None` if its kind is unknown here.
    pub fn from_ref(reference: &ObjectRef) -> Option<Self> {
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == reference.kind)?;
        Some(Self::new(
            kind,
            reference.namespace.as_str(),
            reference.name.as_str(),
        ))
    }

    /// The identity as a message carries it.
    pub fn to_ref(&self) -> ObjectRef {
        ObjectRef::new(
            self.kind.as_str(),
            self.namespace.as_str(),
            self.name.as_str(),
        )
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// All resources at one moment. Each list is sorted by namespace, then name, and holds no identity twice, so that the
/// order in which objects were listed or read cannot reach a snapshot.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    relays: Vec<Arc<Relay>>,
    destinations: Vec<Arc<Destination>>,
    routes: Vec<Arc<Route>>,
    blocklists: Vec<Arc<Blocklist>>,
}

impl Inputs {
    /// Sorts what it is given. Of several objects with the same identity it keeps the first.
    pub fn new(
        relays: Vec<Arc<Relay>>,
        destinations: Vec<Arc<Destination>>,
        routes: Vec<Arc<Route>>,
        blocklists: Vec<Arc<Blocklist>>,
    ) -> Self {
        Self {
            relays: sorted(relays),
            destinations: sorted(destinations),
            routes: sorted(routes),
            blocklists: sorted(blocklists),
        }
    }

    /// The Relays.
    pub fn relays(&self) -> &[Arc<Relay>] {
        &self.relays
    }

    /// The Destinations.
    pub fn destinations(&self) -> &[Arc<Destination>] {
        &self.destinations
    }

    /// The Routes.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The Blocklists.
    pub fn blocklists(&self) -> &[Arc<Blocklist>] {
        &self.blocklists
    }
}

fn sorted<K: ResourceExt>(mut objects: Vec<Arc<K>>) -> Vec<Arc<K>> {
    let identity = |object: &Arc<K>| {
        let meta = object.meta();
        (meta.namespace.clone(), meta.name.clone())
    };
    objects.sort_by_cached_key(identity);
    objects.dedup_by(|a, b| identity(a) == identity(b));
    objects
}
