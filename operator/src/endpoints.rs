//! Keeps a copy of the Services that Destinations refer to, with their EndpointSlices, and of no others.
//!
//! Each wanted Service has two narrow watches: of itself by its name, and of its slices by their label. Nothing is published
//! before each has listed once, or has failed often enough to count as one that is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tracing::warn;

use crate::causes::causes;
use crate::inputs::{SERVICE_LABEL, Service, ServiceName};
use crate::metrics::Metrics;
use crate::watch::Stores;

/// How often a watch that never listed fails before its Service counts as one that is not there.
const FAILURES_MAX: u32 = 5;

/// The Services that Destinations refer to.
#[derive(Debug, Default)]
pub(crate) struct Services {
    known: Mutex<BTreeMap<ServiceName, Known>>,
    wanted: Notify,
}

#[derive(Debug, Default)]
struct Known {
    service: Service,
    is_service_listed: bool,
    are_slices_listed: bool,
}

impl Services {
    /// Those that are known.
    pub(crate) fn all(&self) -> BTreeMap<ServiceName, Service> {
        let known = self.lock();
        known
            .iter()
            .map(|(name, known)| (name.clone(), known.service.clone()))
            .collect()
    }

    /// Whether each of `wanted` was listed. If not, that is under way, and told as a change of what is compiled.
    pub(crate) fn have(&self, wanted: &BTreeSet<ServiceName>) -> bool {
        let known = self.lock();
        let is_listed = |known: &Known| known.is_service_listed && known.are_slices_listed;
        let have = wanted
            .iter()
            .all(|name| known.get(name).is_some_and(is_listed));
        // Those that are no longer wanted are let go of too.
        if !have || known.len() > wanted.len() {
            self.wanted.notify_one();
        }
        have
    }

    // Whether that made a difference.
    fn change(&self, name: &ServiceName, change: impl FnOnce(&mut Known)) -> bool {
        let mut known = self.lock();
        let Some(known) = known.get_mut(name) else {
            return false;
        };
        let state = |known: &Known| (known.is_service_listed, known.are_slices_listed);
        let (before, listed_before) = (known.service.clone(), state(known));
        change(known);
        known.service != before || state(known) != listed_before
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ServiceName, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches what is wanted. Ends never.
pub(crate) async fn run(
    client: Client,
    stores: Arc<Stores>,
    metrics: Arc<Metrics>,
) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    let mut watched: BTreeMap<ServiceName, [AbortHandle; 2]> = BTreeMap::new();
    loop {
        let wanted = stores.inputs().objects().services_wanted();
        watched.retain(|name, watches| {
            let is_wanted = wanted.contains(name);
            if !is_wanted {
                watches.iter().for_each(AbortHandle::abort);
                stores.services.lock().remove(name);
            }
            is_wanted
        });
        for name in wanted {
            watched.entry(name).or_insert_with_key(|name| {
                stores
                    .services
                    .lock()
                    .insert(name.clone(), Known::default());
                let watch = Watch {
                    name: name.clone(),
                    stores: Arc::clone(&stores),
                    metrics: Arc::clone(&metrics),
                };
                [
                    tasks.spawn(watch.clone().follow_service(client.clone())),
                    tasks.spawn(watch.follow_slices(client.clone())),
                ]
            });
        }
        tokio::select! {
            () = stores.services.wanted.notified() => {}
            Some(ended) = tasks.join_next() => match ended {
                Err(error) if error.is_cancelled() => {}
                _ => anyhow::bail!("a watch of a Service ended"),
            },
        }
    }
}

#[derive(Clone)]
struct Watch {
    name: ServiceName,
    stores: Arc<Stores>,
    metrics: Arc<Metrics>,
}

impl Watch {
    async fn follow_service(self, client: Client) {
        let api: Api<v1::Service> = Api::namespaced(client, &self.name.namespace);
        let config =
            watcher::Config::default().fields(&format!("metadata.name={}", self.name.name));
        let mut found = None;
        self.follow(api, config, "Service", |known, event| match event {
            Some(Event::Init) => found = None,
            Some(Event::InitApply(service)) => found = Some(service),
            Some(Event::InitDone) | None => {
                known.service.set_service(found.as_ref());
                known.is_service_listed = true;
            }
            Some(Event::Apply(service)) => known.service.set_service(Some(&service)),
            Some(Event::Delete(_)) => known.service.set_service(None),
        })
        .await;
    }

    async fn follow_slices(self, client: Client) {
        let api: Api<EndpointSlice> = Api::namespaced(client, &self.name.namespace);
        let label = format!("{SERVICE_LABEL}={}", self.name.name);
        let config = watcher::Config::default().labels(&label);
        let mut listed = Vec::new();
        self.follow(api, config, "EndpointSlice", |known, event| match event {
            Some(Event::Init) => listed.clear(),
            Some(Event::InitApply(slice)) => listed.push(slice),
            Some(Event::InitDone) | None => {
                known.service.clear_slices();
                for slice in listed.drain(..) {
                    known.service.put_slice(&slice);
                }
                known.are_slices_listed = true;
            }
            Some(Event::Apply(slice)) => known.service.put_slice(&slice),
            Some(Event::Delete(slice)) => known.service.remove_slice(&slice),
        })
        .await;
    }

    // `None` to `take`: it is to be taken for listed, for it cannot be.
    async fn follow<K>(
        &self,
        api: Api<K>,
        config: watcher::Config,
        kind: &'static str,
        mut take: impl FnMut(&mut Known, Option<Event<K>>),
    ) where
        K: kube::Resource<DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + Send
            + 'static,
    {
        let mut failures = 0;
        let mut events = pin!(watcher(api, config).default_backoff());
        loop {
            let event = match events.try_next().await {
                Ok(Some(event)) => {
                    self.metrics.watched(kind);
                    Some(event)
                }
                Ok(None) => return,
                Err(error) => {
                    self.metrics.watch_failed(kind);
                    let error = causes(&error);
                    warn!(kind, service = %self.name, error, "watch failed, will be tried again");
                    failures += 1;
                    if failures != FAILURES_MAX {
                        continue;
                    }
                    None
                }
            };
            let services = &self.stores.services;
            if services.change(&self.name, |known| take(known, event)) {
                self.stores.inputs_changed.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_had_when_both_its_watches_have_listed() {
        let name = ServiceName {
            namespace: "d".to_owned(),
            name: "g".to_owned(),
        };
        let services = Services::default();
        let wanted = BTreeSet::from([name.clone()]);
        assert!(services.have(&BTreeSet::new()));
        assert!(!services.have(&wanted));
        services.lock().insert(name.clone(), Known::default());
        assert!(services.change(&name, |known| known.is_service_listed = true));
        assert!(!services.have(&wanted));
        assert!(services.change(&name, |known| known.are_slices_listed = true));
        assert!(services.have(&wanted));
        assert!(!services.change(&name, |known| known.are_slices_listed = true));
    }
}
