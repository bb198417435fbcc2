//! Keeps a copy of what the API server has: one [`Store`] per kind, filled by one generic function.
//!
//! An object that this release cannot read is logged, counted and treated as absent, so that it does not take the watch of
//! its whole kind down. A kind that is not there yet (its CRD is missing) is asked for again until it is.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::mem;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crds::{Aggregator, Blocklist, Destination, RELAY_LABEL, Relay, Rewriter, Route};
use futures::TryStreamExt as _;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::causes::causes;
use crate::endpoints::Services;
use crate::fleet;
use crate::inputs::{Inputs, Objects};
use crate::metrics::Metrics;
use crate::namespaces::Namespaces;
use crate::secrets::Secrets;

/// What the API server has.
#[derive(Debug, Default)]
pub(crate) struct Stores {
    pub(crate) relays: Store<Relay>,
    pub(crate) destinations: Store<Destination>,
    pub(crate) routes: Store<Route>,
    pub(crate) blocklists: Store<Blocklist>,
    pub(crate) rewriters: Store<Rewriter>,
    pub(crate) aggregators: Store<Aggregator>,
    /// Those of fleets: labelled with a Relay.
    pub(crate) pods: Store<Pod>,
    /// Those that run fleets and were made by an operator.
    pub(crate) stateful_sets: Store<StatefulSet>,
    pub(crate) deployments: Store<Deployment>,
    /// Those that resources refer to. Not watched, but read.
    pub(crate) secrets: Secrets,
    /// Those that Destinations refer to, each watched for itself.
    pub(crate) services: Services,
    /// The labels of namespaces, once they are wanted.
    pub(crate) namespaces: Namespaces,
    /// Something that is compiled changed.
    pub(crate) inputs_changed: Notify,
    /// Something that statuses speak of changed.
    pub(crate) report_changed: Notify,
    /// What was made for a fleet is not as it was any more.
    pub(crate) fleets_changed: Notify,
}

impl Stores {
    /// Begins to fill the stores, with one task per kind in `tasks`; those of workloads only if this operator makes fleets.
    pub(crate) fn start(
        tasks: &mut JoinSet<anyhow::Result<()>>,
        client: &Client,
        namespace: Option<&str>,
        metrics: &Arc<Metrics>,
        makes_fleets: bool,
    ) -> Arc<Self> {
        let stores = Arc::new(Self::default());
        let mut start = Start {
            tasks,
            client,
            namespace,
            metrics,
            stores: &stores,
        };
        start.follow(Kind::of("Relay", |stores| &stores.relays));
        start.follow(Kind::of("Destination", |stores| &stores.destinations));
        start.follow(Kind::of("Route", |stores| &stores.routes));
        start.follow(Kind::of("Blocklist", |stores| &stores.blocklists));
        start.follow(Kind::of("Rewriter", |stores| &stores.rewriters));
        start.follow(Kind::of("Aggregator", |stores| &stores.aggregators));
        start.follow(Kind {
            config: watcher::Config::default().labels(RELAY_LABEL),
            prune: keep_identity_and_phase,
            changed: |stores| &stores.report_changed,
            ..Kind::of("Pod", |stores| &stores.pods)
        });
        if makes_fleets {
            start.follow(Kind::of_workload("StatefulSet", |stores| {
                &stores.stateful_sets
            }));
            start.follow(Kind::of_workload("Deployment", |stores| {
                &stores.deployments
            }));
        }
        stores
    }

    /// All that is compiled.
    pub(crate) fn inputs(&self) -> Inputs {
        Inputs::new(Objects {
            relays: self.relays.all(),
            destinations: self.destinations.all(),
            routes: self.routes.all(),
            blocklists: self.blocklists.all(),
            rewriters: self.rewriters.all(),
            aggregators: self.aggregators.all(),
            secrets: self.secrets.all(),
            namespaces: self.namespaces.all(),
            services: self.services.all(),
        })
    }

    /// The kinds that were not listed once.
    pub(crate) fn unlisted(&self) -> Vec<&'static str> {
        [
            ("Relay", self.relays.is_listed()),
            ("Destination", self.destinations.is_listed()),
            ("Route", self.routes.is_listed()),
            ("Blocklist", self.blocklists.is_listed()),
            ("Rewriter", self.rewriters.is_listed()),
            ("Aggregator", self.aggregators.is_listed()),
            ("Pod", self.pods.is_listed()),
        ]
        .into_iter()
        .filter_map(|(kind, is_listed)| (!is_listed).then_some(kind))
        .collect()
    }
}

/// One kind, and what to do with it.
struct Kind<K: 'static> {
    name: &'static str,
    config: watcher::Config,
    /// Drops what nobody here reads.
    prune: fn(&mut K),
    store: fn(&Stores) -> &Store<K>,
    /// Whom a change of an object concerns; one of its status alone concerns `report_changed`.
    changed: fn(&Stores) -> &Notify,
}

impl<K: ResourceExt> Kind<K> {
    fn of(name: &'static str, store: fn(&Stores) -> &Store<K>) -> Self {
        Self {
            name,
            config: watcher::Config::default(),
            prune: drop_managed_fields,
            store,
            changed: |stores| &stores.inputs_changed,
        }
    }

    fn of_workload(name: &'static str, store: fn(&Stores) -> &Store<K>) -> Self {
        Self {
            config: watcher::Config::default().labels(&fleet::label()),
            changed: |stores| &stores.fleets_changed,
            ..Self::of(name, store)
        }
    }
}

/// The objects of one kind.
#[derive(Debug)]
pub(crate) struct Store<K> {
    objects: Mutex<BTreeMap<Name, Arc<K>>>,
    is_listed: AtomicBool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    namespace: String,
    name: String,
}

/// What an event of a watch did to a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Nothing,
    /// At most the status of an object.
    Status,
    Object,
    /// There may be other objects, and the kind is listed.
    List,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Self {
            objects: Mutex::default(),
            is_listed: AtomicBool::new(false),
        }
    }
}

impl<K: ResourceExt> Store<K> {
    /// All objects, sorted by namespace, then name.
    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        self.lock().values().map(Arc::clone).collect()
    }

    /// Whether the first list is complete.
    pub(crate) fn is_listed(&self) -> bool {
        self.is_listed.load(Ordering::Acquire)
    }

    fn put(&self, name: Name, object: K) -> Change {
        let object = Arc::new(object);
        let before = self.lock().insert(name, Arc::clone(&object));
        match before {
            Some(before) if is_same_input(before.as_ref(), object.as_ref()) => Change::Status,
            _ => Change::Object,
        }
    }

    fn remove(&self, name: &Name) -> Change {
        match self.lock().remove(name) {
            Some(_) => Change::Object,
            None => Change::Nothing,
        }
    }

    fn replace(&self, objects: BTreeMap<Name, Arc<K>>) -> Change {
        *self.lock() = objects;
        self.is_listed.store(true, Ordering::Release);
        Change::List
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Name, Arc<K>>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// What is compiled is the spec, which the generation stands for, and the labels; the UID tells objects that were made anew.
fn is_same_input<K: ResourceExt>(before: &K, after: &K) -> bool {
    let (before, after) = (before.meta(), after.meta());
    before.uid == after.uid
        && before.generation == after.generation
        && before.labels == after.labels
        && before.deletion_timestamp == after.deletion_timestamp
}

impl Name {
    fn of(object: &impl ResourceExt) -> Self {
        Self {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
        }
    }
}

struct Start<'a> {
    tasks: &'a mut JoinSet<anyhow::Result<()>>,
    client: &'a Client,
    namespace: Option<&'a str>,
    metrics: &'a Arc<Metrics>,
    stores: &'a Arc<Stores>,
}

impl Start<'_> {
    fn follow<K>(&mut self, kind: Kind<K>)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let api = match self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let stores = Arc::clone(self.stores);
        let metrics = Arc::clone(self.metrics);
        self.tasks.spawn(async move {
            fill(api, &kind, &stores, &metrics).await;
            anyhow::bail!("the watch of kind {} ended", kind.name)
        });
    }
}

/// Follows one kind for ever.
async fn fill<K>(api: Api<DeserializeGuard<K>>, kind: &Kind<K>, stores: &Stores, metrics: &Metrics)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let store = (kind.store)(stores);
    let mut listing = BTreeMap::new();
    let mut events = pin!(watcher(api, kind.config.clone()).default_backoff());
    loop {
        let event = match events.try_next().await {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(error) => {
                metrics.watch_failed(kind.name);
                warn!(
                    kind = kind.name,
                    error = causes(&error),
                    "watch failed, will be tried again"
                );
                continue;
            }
        };
        let change = match event {
            Event::Init => {
                listing.clear();
                Change::Nothing
            }
            Event::InitApply(object) => {
                if let Some(object) = readable(object, kind, metrics) {
                    listing.insert(Name::of(&object), Arc::new(object));
                }
                Change::Nothing
            }
            Event::InitDone => {
                info!(kind = kind.name, objects = listing.len(), "listed");
                store.replace(mem::take(&mut listing))
            }
            Event::Apply(object) => {
                metrics.watched(kind.name);
                let name = Name::of(&object);
                match readable(object, kind, metrics) {
                    Some(object) => store.put(name, object),
                    None => store.remove(&name),
                }
            }
            Event::Delete(object) => {
                metrics.watched(kind.name);
                store.remove(&Name::of(&object))
            }
        };
        match change {
            Change::Nothing => {}
            Change::Status => stores.report_changed.notify_one(),
            Change::Object => (kind.changed)(stores).notify_one(),
            // Publishing waits for the last kind to be listed, whichever that is.
            Change::List => {
                stores.inputs_changed.notify_one();
                stores.fleets_changed.notify_one();
                stores.report_changed.notify_one();
            }
        }
    }
}

fn readable<K: Resource>(
    object: DeserializeGuard<K>,
    kind: &Kind<K>,
    metrics: &Metrics,
) -> Option<K> {
    match object.0 {
        Ok(mut object) => {
            (kind.prune)(&mut object);
            Some(object)
        }
        Err(invalid) => {
            metrics.undecodable(kind.name);
            let namespace = invalid.metadata.namespace.unwrap_or_default();
            let name = invalid.metadata.name.unwrap_or_default();
            warn!(
                kind = kind.name,
                namespace,
                name,
                error = invalid.error,
                "object cannot be read and is treated as absent"
            );
            None
        }
    }
}

// Field managers are many and long, and nobody here reads them.
fn drop_managed_fields<K: ResourceExt>(object: &mut K) {
    object.managed_fields_mut().clear();
    object.annotations_mut().clear();
}

fn keep_identity_and_phase(pod: &mut Pod) {
    drop_managed_fields(pod);
    pod.spec = None;
    pod.status = pod.status.take().map(|status| PodStatus {
        phase: status.phase,
        ..PodStatus::default()
    });
}

#[cfg(test)]
mod tests;
