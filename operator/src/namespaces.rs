//! Keeps the labels of all namespaces, from when a resource first allows namespaces by their labels.
//!
//! Nothing is published before they were listed, or that has failed often enough to go on with their names alone.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::causes::causes;
use crate::inputs::Labels;
use crate::metrics::Metrics;
use crate::watch::Stores;

/// How often a watch that never listed fails before namespaces are known by their names alone.
const FAILURES_MAX: u32 = 5;

/// The labels of namespaces.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    known: Mutex<BTreeMap<String, Labels>>,
    is_listed: AtomicBool,
    wanted: Notify,
}

impl Namespaces {
    /// Those that are known.
    pub(crate) fn all(&self) -> BTreeMap<String, Labels> {
        self.lock().clone()
    }

    /// Whether they were listed, if they are wanted. If not, that is under way, and told as a change of what is compiled.
    pub(crate) fn have(&self, are_wanted: bool) -> bool {
        let have = !are_wanted || self.is_listed.load(Ordering::Acquire);
        if !have {
            self.wanted.notify_one();
        }
        have
    }

    /// Goes on with what is known.
    pub(crate) fn settle(&self) {
        self.is_listed.store(true, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Labels>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // Whether that made a difference.
    fn take(&self, event: Event<Namespace>, listing: &mut BTreeMap<String, Labels>) -> bool {
        let entry = |object: &Namespace| (object.name_any(), object.labels().clone());
        match event {
            Event::Init => {
                listing.clear();
                false
            }
            Event::InitApply(object) => {
                listing.extend([entry(&object)]);
                false
            }
            Event::InitDone => {
                info!(kind = "Namespace", objects = listing.len(), "listed");
                *self.lock() = std::mem::take(listing);
                self.settle();
                true
            }
            Event::Apply(object) => {
                let (name, labels) = entry(&object);
                let before = self.lock().insert(name, labels.clone());
                before.as_ref() != Some(&labels)
            }
            Event::Delete(object) => self.lock().remove(&object.name_any()).is_some(),
        }
    }
}

type Namespace = PartialObjectMeta<v1::Namespace>;

/// Watches namespaces, from when they are wanted. Ends never.
pub(crate) async fn run(
    client: Client,
    stores: Arc<Stores>,
    metrics: Arc<Metrics>,
) -> anyhow::Result<()> {
    stores.namespaces.wanted.notified().await;
    let api: Api<Namespace> = Api::all(client);
    let mut events = pin!(watcher(api, watcher::Config::default()).default_backoff());
    let mut listing = BTreeMap::new();
    let mut failures = 0;
    loop {
        let is_changed = match events.try_next().await {
            Ok(Some(event)) => {
                metrics.watched("Namespace");
                stores.namespaces.take(event, &mut listing)
            }
            Ok(None) => anyhow::bail!("the watch of namespaces ended"),
            Err(error) => {
                metrics.watch_failed("Namespace");
                let error = causes(&error);
                warn!(
                    kind = "Namespace",
                    error, "watch failed, will be tried again"
                );
                failures += 1;
                if failures == FAILURES_MAX {
                    stores.namespaces.settle();
                }
                failures == FAILURES_MAX
            }
        };
        if is_changed {
            stores.inputs_changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_are_wanted_are_had_when_they_are_listed_and_a_change_of_them_is_told() {
        let namespaces = Namespaces::default();
        assert!(namespaces.have(false));
        assert!(!namespaces.have(true));
        let mut listing = BTreeMap::new();
        let mut take = |event| namespaces.take(event, &mut listing);
        let labelled = |team: &str| {
            serde_json::from_value::<Namespace>(serde_json::json!({
                "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                "metadata": {"name": "a", "labels": {"team": team}},
            }))
            .unwrap()
        };
        assert!(!take(Event::Init));
        assert!(!take(Event::InitApply(labelled("x"))));
        assert!(namespaces.all().is_empty());
        assert!(take(Event::InitDone));
        assert!(namespaces.have(true));
        assert!(!take(Event::Apply(labelled("x"))));
        assert!(take(Event::Apply(labelled("y"))));
        assert_eq!(namespaces.all()["a"]["team"], "y");
        assert!(take(Event::Delete(labelled("y"))));
        assert!(namespaces.all().is_empty());
    }
}
