//! [`Inputs`]: all resources at one moment, sorted, each with its identity.
//!
//! The reflectors (or the files of a directory) fill it; [`crate::compile`] alone reads it.

mod secret;
mod service;

use std::collections::BTreeMap;
use std::{fmt, sync::Arc};

use crds::{Aggregator, Blocklist, Destination, Namespaces, Relay, Rewriter, Route};
use kube::ResourceExt;
use relay_proto::ObjectRef;

pub(crate) use secret::{
    ACCESS_KEY_ID, PASSWORD, SECRET_ACCESS_KEY, SERVICE_ACCOUNT_KEY, TOKEN, USERNAME,
};
pub use secret::{Secret, SecretName};
pub(crate) use service::ENDPOINTS_MAX;
pub use service::{NoServers, SERVICE_LABEL, Service, ServiceName};

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
    /// Changes names.
    Rewriter,
    /// Makes one series of many.
    Aggregator,
}

impl Kind {
    /// Every kind, in the order in which a reader meets them.
    pub const ALL: [Self; 6] = [
        Self::Relay,
        Self::Destination,
        Self::Route,
        Self::Blocklist,
        Self::Rewriter,
        Self::Aggregator,
    ];

    /// The kind as a manifest spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Relay => "Relay",
            Self::Destination => "Destination",
            Self::Route => "Route",
            Self::Blocklist => "Blocklist",
            Self::Rewriter => "Rewriter",
            Self::Aggregator => "Aggregator",
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

/// Labels, by their keys.
pub type Labels = BTreeMap<String, String>;

/// Resources, a list for each kind.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Fleets of relay pods.
    pub relays: Vec<Arc<Relay>>,
    /// Who gets lines.
    pub destinations: Vec<Arc<Destination>>,
    /// Which lines go where.
    pub routes: Vec<Arc<Route>>,
    /// Lines to drop.
    pub blocklists: Vec<Arc<Blocklist>>,
    /// What changes names.
    pub rewriters: Vec<Arc<Rewriter>>,
    /// What makes one series of many.
    pub aggregators: Vec<Arc<Aggregator>>,
    /// Certificates and keys that these refer to. Others may be among them; nobody looks at those.
    pub secrets: BTreeMap<SecretName, Secret>,
    /// The labels of namespaces, by which Relays and Destinations may allow them. One that is missing has its name alone.
    pub namespaces: BTreeMap<String, Labels>,
    /// Services that these refer to, with their endpoints. Others may be among them; nobody looks at those.
    pub services: BTreeMap<ServiceName, Service>,
}

impl Objects {
    /// Whether a resource allows namespaces by their labels.
    pub fn wants_namespaces(&self) -> bool {
        let relays = self.relays.iter();
        let mut relays = relays.map(|relay| relay.spec.allowed_namespaces.from);
        let destinations = self.destinations.iter();
        let mut destinations = destinations.map(|object| object.spec.allowed_from.namespaces);
        relays.any(|from| from == Namespaces::Selector)
            || destinations.any(|from| from == Namespaces::Selector)
    }
}

/// All resources at one moment. Each list is sorted by namespace, then name, and holds no identity twice, so that the
/// order in which objects were listed or read cannot reach a snapshot.
#[derive(Clone, Debug, Default)]
pub struct Inputs(Objects);

impl Inputs {
    /// Sorts what it is given. Of several objects with the same identity it keeps the first.
    pub fn new(objects: Objects) -> Self {
        // All fields by name, so that none is left unsorted.
        let Objects {
            relays,
            destinations,
            routes,
            blocklists,
            rewriters,
            aggregators,
            secrets,
            namespaces,
            services,
        } = objects;
        Self(Objects {
            relays: sorted(relays),
            destinations: sorted(destinations),
            routes: sorted(routes),
            blocklists: sorted(blocklists),
            rewriters: sorted(rewriters),
            aggregators: sorted(aggregators),
            secrets,
            namespaces,
            services,
        })
    }

    /// The resources, sorted.
    pub fn objects(&self) -> &Objects {
        &self.0
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
